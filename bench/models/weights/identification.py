"""Finds out what a checkpoint file is and which models here fit it, by names and shapes on the meta device."""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from os import PathLike
from pathlib import Path
from typing import Any

from torch import nn
from torch.nn.parameter import UninitializedParameter

from bench.core.errors import BenchError
from bench.core.input_protocol import InputProtocol
from bench.core.registry import MODELS, ModelEntry
from bench.models.base import belongs_to, head_name_of
from bench.models.input_channels import RGB, set_input_channels
from bench.models.meta import build_on_meta
from bench.models.sources import torchvision_entries
from bench.models.stages import BLOCKS_OF_DEPTH
from bench.models.weights.checkpoint import Checkpoint, Shapes, is_same_weight, read_checkpoint
from bench.models.weights.checkpoint_protocol import is_of_vbench, protocol_of_checkpoint
from bench.models.weights.conventions import fixed_arguments, widens_in_mlp
from bench.models.weights.matching import implausible
from bench.models.weights.recognition import notes_on_head, why_detector
from bench.models.weights.translations import names_for, renamings, rows_of
from bench.reference.zoo_files import ZooFile, zoo_files

DEPTHS = (10, 18, 34, 50, 101, 121, 152, 169, 200, 201, 264)
"""Depths to try if a family has an argument `depth` and none of its variants fits."""

SIMILAR = 0.4
"""Share of layer names (ignoring numbers) that a family must have in common with a file to be tried further."""

LISTED_LAST = ("c2d_frames", "c2d_nopool_r50")
"""Models with the weights of a more usual one, from which only their pooling differs: TSN for MMAction2's C2D."""


@dataclass(frozen=True, kw_only=True)
class Fit:
    """A model that has exactly the weights of a file: `create_model(model, **arguments)`.

    `has_head` is False if the file lacks the classifier and nothing else. `assumed` are arguments that change the
    logits but no weight, and have their usual value, such as strides over time or the attention heads of a transformer
    that is no variant here; arguments that the code base of the file fixes are not among them. `settings` are all
    arguments of the model, defaults included, its family and its default clip.
    """

    model: str
    family: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    has_head: bool = True
    assumed: tuple[str, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)


@dataclass(frozen=True, kw_only=True)
class CheckpointFacts:
    """What a checkpoint file is. `fits` is empty if no model here has its weights.

    Several fits differ in what weights do not show, such as strides or the frames of a clip; see `undecided`.
    `problem` names an error in the weights, such as NaN values, or says that they are of a detector; it is empty if
    there is none. `input_protocol` is the known part of their input protocol.
    """

    path: Path
    sha256: str
    n_bytes: int
    container: str
    prefix: str
    n_weights: int
    parameters: int
    dtypes: tuple[str, ...]
    num_classes: int | None
    facts: Mapping[str, str | int | float]
    ignored: tuple[str, ...]
    fits: tuple[Fit, ...]
    entry: str = ""
    other_entries: tuple[str, ...] = ()
    problem: str = ""
    input_protocol: InputProtocol = field(default_factory=InputProtocol)


def identify(path: str | PathLike[str], *, entry: str | None = None) -> CheckpointFacts:
    """Return what the checkpoint file `path` is and which models fit it.

    Raises WeightsError if it is no checkpoint; see `read_checkpoint` for `entry`.
    """
    checkpoint = read_checkpoint(path, entry=entry)
    fits = () if why_detector(checkpoint) else fits_of(checkpoint)
    state = checkpoint.state
    return CheckpointFacts(
        path=checkpoint.path,
        sha256=checkpoint.sha256,
        n_bytes=checkpoint.n_bytes,
        container="vbench" if checkpoint.container == "unknown" and is_of_vbench(checkpoint) else checkpoint.container,
        prefix=checkpoint.prefix,
        n_weights=len(state),
        parameters=sum(value.numel() for key, value in state.items() if not _is_buffer(key)),
        dtypes=tuple(sorted({str(value.dtype).removeprefix("torch.") for value in state.values()})),
        num_classes=fits[0].arguments.get("num_classes") if fits else None,
        facts=checkpoint.facts,
        ignored=checkpoint.ignored,
        fits=fits,
        entry=checkpoint.entry,
        other_entries=checkpoint.other_entries,
        problem=implausible(state) or notes_on_head(checkpoint),
        input_protocol=protocol_of_checkpoint(checkpoint),
    )


def describe(fit: Fit) -> str:
    """Return a fit as text: `resnet3d_50 (num_classes=400, shortcut='A')`."""
    given = [f"{key}={value!r}" for key, value in fit.arguments.items()]
    given += [] if fit.has_head else ["without its classifier"]
    return f"{fit.model} ({', '.join(given)})" if given else fit.model


HOW_TO_CHOOSE = {
    "non_local": "the config of the training names it: mode in non_local_cfg (MMAction2), NONLOCAL.INSTANTIATION "
    "(PySlowFast)",
    "clip": "take the model of the clip that it was trained with",
}
"""How a user finds out what weights do not show, by argument."""


def undecided(fits: Sequence[Fit]) -> dict[str, dict[str, Any]]:
    """Return the arguments in which the fits of one file differ, with the value of each model: weights show none.

    `clip` is the default clip of the models, `family` their family. Empty if there is one fit.
    """
    names = dict.fromkeys(name for fit in fits for name in fit.settings)
    values = {name: {fit.model: fit.settings.get(name) for fit in fits} for name in names}
    return {name: of_fits for name, of_fits in values.items() if len(set(map(repr, of_fits.values()))) > 1}


def fits_of(checkpoint: Checkpoint) -> tuple[Fit, ...]:
    """Return every registered model that has exactly the file's weights; if there is none, those of torchvision.

    Of several, the one that a published file with the hash of this file has.
    """
    shapes = {key: shape for key, shape in checkpoint.shapes.items() if not is_batch_count(key)}
    families = [entry for entry in MODELS if entry.name == entry.family and _similarity(entry, shapes) >= SIMILAR]
    fixed = {family.name: fixed_arguments(checkpoint, family.name) for family in families}
    fits = [fit for family in families for fit in _fewest_arguments(family, shapes, fixed[family.name])]
    fits = fits or [fit for family in families for fit in _fits_by_depth(family, shapes, fixed[family.name])]
    fits = fits or [
        fit for family in families if (fit := _fit_by_geometry(family, shapes, fixed[family.name])) is not None
    ]
    fits = fits or [fit for entry in torchvision_entries() if (fit := _fit(entry, shapes, {}))]
    known = {file.model for file in zoo_files() if file.hash_kind == "sha256" and _has_hash(checkpoint, file)}
    fits.sort(key=lambda fit: not {fit.model, fit.family}.isdisjoint(LISTED_LAST))
    return tuple([fit for fit in fits if fit.model in known] or fits)


def _has_hash(checkpoint: Checkpoint, file: ZooFile) -> bool:
    return bool(file.printed_hash) and checkpoint.sha256.startswith(file.printed_hash)


def _fewest_arguments(family: ModelEntry, shapes: Shapes, fixed: Mapping[str, Any]) -> list[Fit]:
    """The fits among the family's variants, without those that need more arguments than another one."""
    fits = [fit for entry in _variants(family) if (fit := _fit(entry, shapes, fixed))]
    fewest = min((len(fit.arguments) for fit in fits), default=0)
    return [fit for fit in fits if len(fit.arguments) == fewest]


def _variants(family: ModelEntry) -> list[ModelEntry]:
    """The family's variants; the family itself if it has none."""
    return [entry for entry in MODELS if entry.family == family.name and entry is not family] or [family]


def _similarity(family: ModelEntry, shapes: Shapes) -> float:
    """Share of layer names, ignoring numbers, that a file and a family have in common.

    Variants on another kind of backbone have names of their own, as TSM on MobileNetV2 has.
    """
    kinds = {re.sub(r"\d+", "#", str(each.arguments.get("backbone"))): each for each in _variants(family)}
    return max(_shared_names(entry, shapes) for entry in (family, *(kinds.values() if len(kinds) > 1 else ())))


def _shared_names(entry: ModelEntry, shapes: Shapes) -> float:
    outline = _outline(entry, {})
    if outline is None:
        return 0.0
    ours = {re.sub(r"\d+", "#", key) for key in outline.shapes}
    # Shapes do not choose the renaming here: a wider variant of the family has none of them.
    offers = ({re.sub(r"\d+", "#", key) for key in names.values()} for names in renamings(shapes, outline.shapes))
    return max(len(ours & theirs) / max(1, len(ours | theirs)) for theirs in offers)


def _fits_by_depth(entry: ModelEntry, shapes: Shapes, fixed: Mapping[str, Any]) -> list[Fit]:
    depths = DEPTHS if "depth" in entry.arguments else ()
    return [fit for depth in depths if (fit := _fit(entry, shapes, fixed, depth=depth))]


def _fit_by_geometry(family: ModelEntry, shapes: Shapes, fixed: Mapping[str, Any]) -> Fit | None:
    """The family itself with the widths and depths of a file that is none of its variants."""
    pair = _pair(family, shapes, {})
    if pair is None:
        return None
    readers = {name: GEOMETRY[name] for name in family.arguments if name in GEOMETRY}
    read = {name: reader(pair, family.arguments[name]) for name, reader in readers.items()}
    guessed = [name for name in SET_BY_VARIANTS if name in read and not (name == "heads" and read["heads"])]
    if read.get("dim") and "heads" in guessed:
        read["heads"] = _likely_heads(family, read["dim"], patch=read.get("patch"))
    asked = {name: value for name, value in read.items() if value is not None and value != family.arguments[name]}
    fit = _fit(family, shapes, fixed, **asked) if asked else None
    return replace(fit, assumed=(*fit.assumed, *guessed)) if fit is not None else None


def _fit(entry: ModelEntry, shapes: Shapes, fixed: Mapping[str, Any], **asked: Any) -> Fit | None:
    """The arguments with which `entry` has exactly these weights, or None; the file's code base has `fixed` some."""
    pair = _pair(entry, shapes, asked)
    if pair is None:
        return None
    arguments = {**asked, **_read_arguments(entry, pair, fixed)}
    # Another number of classes changes the head alone, but for models with a second classifier.
    if arguments.keys() - asked.keys() - {"num_classes"} or not all(pair.agrees(key) for key in pair.given):
        pair = _pair(entry, shapes, arguments)
        if pair is not None and not all(pair.agrees(key) for key in pair.given):
            # A weight that only these arguments add may show more, as a position table shows the size of the clip.
            arguments = {**arguments, **_read_arguments(entry, pair, fixed), **asked}
            pair = _pair(entry, shapes, arguments)
    if pair is None or not all(pair.agrees(key) for key in pair.given):
        return None
    absent = pair.target.keys() - pair.given.keys()
    if not all(belongs_to(key, pair.head) for key in absent):
        return None
    # A table over space and time shows a product of frames and size; a TimeSformer has one for each.
    is_joint = any(key.endswith("position_embeddings") for key in pair.target) or (
        "pos_embed" in pair.target and "tubelet" in entry.arguments
    )
    product = ("frames", "size") if is_joint and arguments.keys() & {"frames", "size"} else ()
    settings = {"family": entry.family, **entry.arguments, "clip": entry.clip, **arguments}
    open_ = (name for name, is_open in HIDDEN.items() if name in entry.arguments and is_open(pair, settings))
    return Fit(
        model=entry.name,
        family=entry.family,
        arguments=arguments,
        has_head=not absent,
        assumed=(*product, *(name for name in open_ if name not in fixed)),
        settings=settings,
    )


def _pair(entry: ModelEntry, shapes: Shapes, arguments: Mapping[str, Any]) -> "ShapePair | None":
    outline = _outline(entry, arguments)
    if outline is None:
        return None
    names = names_for(shapes, outline.shapes)
    return ShapePair(given={names[key]: s for key, s in shapes.items()}, target=outline.shapes, head=outline.head)


def _read_arguments(entry: ModelEntry, pair: "ShapePair", fixed: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of `entry` that are fixed, or can be read off the file's shapes, and differ from their default."""
    arguments = {}
    for name, default in entry.arguments.items():
        read = READERS.get(name)
        value = fixed[name] if name in fixed else read(pair, default) if read else None
        if value is not None and (name == "num_classes" or value != default):
            arguments[name] = value
    if "in_channels" not in entry.arguments and (channels := _stem_channels(pair)) is not None:
        arguments["in_channels"] = channels
    return arguments


@dataclass(frozen=True, kw_only=True)
class Outline:
    """Names and shapes of a model's weights, and the name of its head."""

    shapes: Shapes
    head: str


_OUTLINES: dict[tuple[Callable[..., Any], str], Outline | None] = {}
"""Outlines already built: every file is compared with the same models."""


def _outline(entry: ModelEntry, arguments: Mapping[str, Any]) -> Outline | None:
    """The outline of the model built with these arguments, or None if it cannot be built so."""
    given = {**entry.preset, **arguments}
    key = (entry.function, repr(sorted(given.items())))
    if key not in _OUTLINES:
        # Models that are written for RGB have no such argument; `create_model` widens them as here.
        channels = None if "in_channels" in entry.arguments else given.pop("in_channels", None)
        _OUTLINES[key] = _new_outline(entry.function, given, channels=channels)
    return _OUTLINES[key]


def _new_outline(function: Callable[..., Any], arguments: Mapping[str, Any], *, channels: int | None) -> Outline | None:
    try:
        with build_on_meta():
            model = function(**arguments)
            if channels is not None:
                set_input_channels(model, channels, name="")
    except (BenchError, TypeError, ValueError, LookupError, RuntimeError, AssertionError):
        return None
    if not isinstance(model, nn.Module) or any(isinstance(p, UninitializedParameter) for p in model.parameters()):
        return None
    shapes = {key: tuple(value.shape) for key, value in model.state_dict().items() if not is_batch_count(key)}
    return Outline(shapes=shapes, head=head_name_of(model))


@dataclass(frozen=True, kw_only=True)
class ShapePair:
    """Shapes of a file under our names (`given`) and those of a model built with default arguments (`target`)."""

    given: Shapes
    target: Shapes
    head: str

    def agrees(self, key: str) -> bool:
        """Whether file and model have the same shape there; the head may have any number of classes."""
        ours, theirs = self.target.get(key), self.given[key]
        if ours is None:
            return False
        return is_same_weight(ours, theirs) or (belongs_to(key, self.head) and ours[1:] == theirs[1:])

    def first(self, ending: str) -> tuple[int, ...] | None:
        """Shape in the file of the model's first weight whose name ends so."""
        return next((self.given[key] for key in self.target if key.endswith(ending) and key in self.given), None)


def _num_classes(pair: ShapePair, default: Any) -> int | None:
    return rows_of(pair.given, pair.head)


def _in_channels(pair: ShapePair, default: Any) -> int | None:
    shapes = [pair.given.get(key) for key, shape in pair.target.items() if len(shape) >= 4]
    return shapes[0][1] if shapes and shapes[0] else None


def _stem_channels(pair: ShapePair) -> int | None:
    """The channels of a clip, if the first convolution that reads RGB here reads others and differs in nothing else."""
    for key, ours in pair.target.items():
        theirs = pair.given.get(key, ())
        if len(ours) >= 4 and ours[1] == RGB and len(theirs) == len(ours):
            is_wider = (theirs[0], *theirs[2:]) == (ours[0], *ours[2:]) and theirs[1] != RGB
            return theirs[1] if is_wider else None
    return None


def _shortcut(pair: ShapePair, default: Any) -> str | None:
    return "B" if any(".downsample." in key for key in pair.given) else "A"


def _stem_kernel_t(pair: ShapePair, default: Any) -> int | None:
    shape = pair.first("conv1_t.weight") or pair.first("conv1.weight")
    return shape[2] if shape and len(shape) == 5 else None


def _cardinality(pair: ShapePair, default: Any) -> int | None:
    shape = pair.first("layer1.0.conv2.weight")
    return shape[0] // shape[1] if shape else None


def _widened(pair: ShapePair, default: Any) -> Any:
    """The default times how much wider the head's input is."""
    key = f"{pair.head}.weight"
    given, target = pair.given.get(key), pair.target.get(key)
    if not given or not target or len(given) < 2:
        return None
    value = default * given[1] / target[1]
    return round(value) if isinstance(default, int) else value


def _kernel_depth(pair: ShapePair, default: Any) -> Any:
    """One number for all layers, or a list with one for each layer."""
    convs = [pair.given.get(key) for key, shape in pair.target.items() if len(shape) == 5]
    depths = [shape[2] for shape in convs if shape and len(shape) == 5]
    if not depths or len(depths) != len(convs):
        return None
    return depths[0] if len(set(depths)) == 1 else depths


def _shortcut_norm(pair: ShapePair, default: Any) -> bool:
    """Whether the first block of the first stage, which strides without widening, has a norm on its shortcut."""
    return "blocks.1.res_blocks.0.branch1_norm.weight" in pair.given


def _fusion_frames(pair: ShapePair, default: Any) -> int | None:
    shape = pair.first("conv_fast_to_slow.weight")
    return shape[2] if shape else None


def _fast_depth(pair: ShapePair, default: Any) -> int | None:
    """The depth of SlowFast's fast pathway if its third stage has not as many blocks as that of the slow one."""
    third = r"^blocks\.3\.multipathway_blocks\.{}\.res_blocks\.\d+\.branch2\.conv_a\."
    slow, fast = (_count(pair.given, third.format(pathway)) for pathway in (0, 1))
    return None if slow == fast else {blocks[2]: depth for depth, blocks in BLOCKS_OF_DEPTH.items()}.get(fast)


def _non_local(pair: ShapePair, default: Any) -> str | None:
    """The affinity of non-local blocks in a file, if the variant has none; only `gaussian` shows in the weights."""
    if default is not None or not _has(NON_LOCAL)(pair, None):
        return None
    return "softmax" if any("conv_theta." in key for key in pair.given) else "gaussian"


def _non_local_form(pair: ShapePair, default: Any) -> str | None:
    """Whose non-local blocks a file has: those of PySlowFast have a bias in their last convolution."""
    if not _has(NON_LOCAL)(pair, None):
        return None
    return "pyslowfast" if any(key.endswith("conv_out.bias") for key in pair.given) else "mmaction2"


def _non_local_blocks(pair: ShapePair, default: Any) -> list[list[int]] | None:
    """The residual blocks of each stage behind which a file has a non-local block, if not those of most models."""
    stage = r"^blocks\.(\d+)\.(?:multipathway_blocks\.0\.)?"
    places = sorted({int(m[1]) for key in pair.given if (m := re.match(rf"{stage}res_blocks\.", key))})
    found = {(int(m[1]), int(m[2])) for key in pair.given if (m := re.match(rf"{stage}non_local\.(\d+)\.", key))}
    blocks = [sorted(index for place, index in found if place == each) for each in places]
    return None if not found or blocks == [list(each) for each in default] else blocks


def _backbone(pair: ShapePair, default: Any) -> str | None:
    """The ResNet of torchvision with as many blocks as the file has."""
    blocks = {int(m[1]) for key in pair.given if (m := re.search(r"(?:^|\.)layer3\.(\d+)\.", key))}
    if not blocks or not str(default).startswith("torchvision:resnet"):
        return None
    depths = {6: 50, 23: 101, 36: 152} if any(".conv3." in key for key in pair.given) else {2: 18, 6: 34}
    depth = depths.get(max(blocks) + 1)
    return None if depth is None else f"torchvision:resnet{depth}"


def _frames(pair: ShapePair, default: Any) -> int | None:
    """The frames that the position table of a transformer is made for."""
    if shape := pair.first("time_embed") or pair.first("temporal_pos_embedding"):
        return shape[1]
    if shape := pair.first(".tam.G.0.weight") or pair.first(".net1.biasnet.net.fc.weight"):
        return shape[1]
    if shape := pair.first("pos_embed_temporal"):
        return 2 * shape[1]
    if shape := pair.first("blocks.0.attn.rel_pos_t"):
        return shape[0] + 1
    share = _share_of_positions(pair)
    return None if share is None or not _is_of_frames(share) else int(default * share)


def _is_of_frames(share: float) -> bool:
    """Whether another number of frames explains so many joint positions; ViViT's 32 frames are 16 tubelets."""
    return share > 0 and (16 * share).is_integer()


def _shift_div(pair: ShapePair, default: Any) -> int | None:
    """The share of channels that TIN moves; the weights of TSM do not show it."""
    moved, whole = pair.first(".net1.biasnet.net.conv.weight"), pair.first(".net2.weight")
    return whole[1] // moved[1] if moved and whole else None


def _share_of_positions(pair: ShapePair) -> float | None:
    """How many joint positions of space and time a file has for each of the model's, the class token left out."""
    key = next((key for key in pair.target if key.endswith("position_embeddings")), "")
    return (pair.given[key][1] - 1) / (pair.target[key][1] - 1) if key in pair.given else None


def _window_frames(pair: ShapePair, default: Any) -> int | None:
    """The frames of Video Swin's windows; None for models whose `window_frames` is that of a pooling."""
    shape = pair.first("attn.relative_position_bias_table")
    return (shape[0] // (13 * 13) + 1) // 2 if shape else None


def _dim(pair: ShapePair, default: Any) -> int | None:
    """The width of an attentive probe; other transformers have a variant for each width."""
    shape = pair.given.get("pooler.query_tokens")
    return shape[2] if shape else None


def _probe_depth(pair: ShapePair, default: Any) -> int | None:
    """The blocks of an attentive probe, its cross-attention included."""
    pooler = next((key.partition("pooler.")[0] for key in pair.given if "pooler.query_tokens" in key), None)
    if pooler is None:
        return None
    return 1 + sum(re.fullmatch(rf"{pooler}pooler\.blocks\.\d+\.norm1\.weight", key) is not None for key in pair.given)


def _halves_time(pair: ShapePair, default: Any) -> bool | None:
    """Whether UniFormerV2 takes every second frame; None for ResNets, whose pooling over time has no weights."""
    frames = (
        _read_axis(pair.given, r"^backbone\.conv1\.weight$", 2) if "backbone.class_embedding" in pair.given else None
    )
    return None if frames is None else frames > 1


def _stride_kernels(pair: ShapePair, default: Any) -> bool | None:
    """Whether MViT's poolings span one frame, as kernels that follow the strides do."""
    frames = _read_axis(pair.given, r"^blocks\.0\.attn\.pool_k\.weight$", 2)
    return None if frames is None else frames == 1


def _widens_in_mlp(pair: ShapePair, default: Any) -> bool:
    return widens_in_mlp(pair.given)


def _pooling(pair: ShapePair, default: Any) -> str | None:
    """Whether VideoMAE's last norm is on the first token; None for models whose weights are the same for both."""
    if not any(key.startswith("fc_norm.") for key in pair.target.keys() | pair.given.keys()):
        return None
    return "mean" if "fc_norm.weight" in pair.given else "first"


def _size(pair: ShapePair, default: Any) -> int | None:
    """The height and width in pixels that the position table of a transformer is made for."""
    if shape := pair.first("blocks.0.attn.rel_pos_h"):
        return 2 * (shape[0] + 1)
    for ending, axis in (("pos_embed_spatial", 1), ("pos_embed", 1), ("positional_embedding", 0)):
        key = next((key for key in pair.target if key.endswith(ending)), "")
        if key in pair.given:
            ours, theirs = pair.target[key][axis], pair.given[key][axis]
            return round(int(default) * math.sqrt((theirs - ours % 2) / (ours - ours % 2)))
    # Joint positions show a product: another number of frames explains them, else another size.
    share = _share_of_positions(pair)
    return None if share is None or _is_of_frames(share) else round(int(default) * math.sqrt(share))


def _has(pattern: str, *, value: Any = True, other: Any = False) -> Callable[[ShapePair, Any], Any]:
    """Return a reader that gives `value` if the name of a weight of the file matches, else `other`."""
    return lambda pair, _: value if any(re.search(pattern, key) for key in pair.given) else other


def _from_shape(pattern: str, axis: int) -> Callable[[ShapePair, Any], int | None]:
    """Return a reader of one axis of the first weight of the file whose name matches."""
    return lambda pair, _: _read_axis(pair.given, pattern, axis)


def _count(given: Shapes, pattern: str) -> int:
    return sum(re.search(pattern, key) is not None for key in given)


def _read_axis(given: Shapes, pattern: str, axis: int) -> int | None:
    shape = next((shape for key, shape in given.items() if re.search(pattern, key)), ())
    return shape[axis] if len(shape) > axis else None


EMBEDDING = r"(patch_embed1?\.proj|patch_embeddings\.projection|conv1|conv_proj)(\.0)?\.weight$"
"""The convolution that makes tokens of pixels: `(dim, 3, tubelet, patch, patch)`."""

BLOCK = r"(^|\.)(blocks|layers|resblocks)\.(\d+)\."
HEAD_WIDTH = 64
"""Channels of an attention head in most vision transformers; weights do not show it."""


def _blocks(pair: ShapePair, default: Any) -> int | None:
    """The number of like blocks of a transformer."""
    numbers = {int(match[3]) for key in pair.given if (match := re.search(BLOCK, key))}
    return max(numbers) + 1 if numbers else None


def _stage_blocks(pair: ShapePair, default: Any) -> list[int] | None:
    """The blocks of each stage: counted, if stages have names of their own, else read off where the width grows."""
    by_stage: dict[int, set[int]] = {}
    for key in pair.given:
        if match := re.match(r"(?:blocks(\d)|layers\.(\d)\.blocks)\.(\d+)\.", key):
            by_stage.setdefault(int(match[1] or match[2]), set()).add(int(match[3]))
    if by_stage:
        return [len(by_stage[stage]) for stage in sorted(by_stage)]
    widths = [_read_axis(pair.given, rf"^blocks\.{n}\.attn\.proj\.weight$", 0) for n in range(_blocks(pair, None) or 0)]
    return [widths.count(width) for width in dict.fromkeys(widths)] or None


def _stage_dims(pair: ShapePair, default: Any) -> list[int] | None:
    stages = range(1, len(default) + 1)
    dims = [_read_axis(pair.given, rf"^blocks{stage}\.0\.pos_embed\.weight$", 0) for stage in stages]
    return None if None in dims else [dim or 0 for dim in dims]


def _widening_blocks(pair: ShapePair, default: Any) -> list[int] | None:
    """The blocks of a multiscale transformer whose attention is wider than that of the block before."""
    blocks = _blocks(pair, None) or 0
    widths = [_read_axis(pair.given, rf"^blocks\.{n}\.attn\.proj\.weight$", 0) for n in range(blocks)]
    return [n for n in range(1, blocks) if widths[n] != widths[n - 1]] or None


def _heads(pair: ShapePair, default: Any) -> int | None:
    """The attention heads, if a weight has their number or the width of one."""
    dim, width = _read_axis(pair.given, EMBEDDING, 0), _read_axis(pair.given, r"\.attn\.norm_k\.weight$", 0)
    return _read_axis(pair.given, r"\.attn\.scale$", 0) or (dim // width if dim and width else None)


def _likely_heads(family: ModelEntry, dim: int, *, patch: int | None) -> int | None:
    """The heads of a variant of this width; else those of the usual 64 channels, or of as many as in a variant.

    A variant of another family counts if its patches have the same size too: VideoMAE V2 alone has a ViT-g/14.
    """
    known = [entry.arguments for entry in (*_variants(family), family)]
    widths = [arguments["dim"] // arguments["heads"] for arguments in known]
    others = [entry.arguments for entry in MODELS if {"dim", "heads", "patch"} <= entry.arguments.keys()]
    of_variants = [each["heads"] for each in known if each["dim"] == dim]
    of_variants += [each["heads"] for each in others if (each["dim"], each["patch"]) == (dim, patch)]
    usual = (dim // width for width in (HEAD_WIDTH, *widths) if dim % width == 0)
    return next(iter(of_variants), None) or next(usual, None)


def _head_width(pair: ShapePair, default: Any) -> int | None:
    """The width of UniFormer's heads: as wide against its first stage as by default, for weights do not show it."""
    ours, theirs = (_read_axis(shapes, r"^blocks1\.0\.pos_embed\.weight$", 0) for shapes in (pair.target, pair.given))
    return default * theirs // ours if ours and theirs else None


def _mlp_ratio(pair: ShapePair, default: Any) -> float | None:
    dim, hidden = (_read_axis(pair.given, r"\.0\.mlp\.fc1\.weight$", axis) for axis in (1, 0))
    return None if not dim or not hidden or hidden == int(dim * default) else hidden / dim


def _space_time(pair: ShapePair, default: Any) -> str:
    """Whether TimeSformer's attention is divided, joint, or in space alone, which needs no positions in time."""
    if any(".temporal_attn." in key for key in pair.given):
        return "divided"
    return "joint" if "time_embed" in pair.given else "space"


GEOMETRY: Mapping[str, Callable[[ShapePair, Any], Any]] = {
    "attention": _space_time,
    "dim": _from_shape(EMBEDDING, 0),
    "depth": _blocks,
    "heads": _heads,
    "patch": _from_shape(EMBEDDING, -1),
    "tubelet": _from_shape(EMBEDDING, 2),
    "mlp_ratio": _mlp_ratio,
    "stages": _stage_blocks,
    "blocks": _stage_blocks,
    "dims": _stage_dims,
    "head_width": _head_width,
    "widens_at": _widening_blocks,
}
"""How sizes that variants of a transformer give are read off a file that is none of the variants."""

NON_LOCAL = r"\.(non_local\.\d+|non_local_block)\.conv_g\."
EVERY_SECOND = r"^blocks\.3\.res_blocks\.1\.branch2\.conv_a\.weight$"
"""A bottleneck of the inflated ResNet that spans three frames only if every one does."""

READERS: Mapping[str, Callable[[ShapePair, Any], Any]] = {
    "num_classes": _num_classes,
    "in_channels": _in_channels,
    "shortcut": _shortcut,
    "shortcut_norm": _shortcut_norm,
    "stem_kernel_t": _stem_kernel_t,
    "cardinality": _cardinality,
    "widen_factor": _widened,
    "k": _widened,
    "width": _widened,
    "kernel_depth": _kernel_depth,
    "fusion_frames": _fusion_frames,
    "fusion_norm": _has(r"\.multipathway_fusion\.norm\."),
    "fast_depth": _fast_depth,
    "non_local": _non_local,
    "non_local_form": _non_local_form,
    "non_local_blocks": _non_local_blocks,
    "every_block": lambda pair, _: _read_axis(pair.given, EVERY_SECOND, 2) == 3,
    "interaction": _has(r"\.conv_b\.pointwise\.", value="preserved", other="reduced"),
    "backbone": _backbone,
    "frames": _frames,
    "shift_div": _shift_div,
    "dim": _dim,
    "window_frames": _window_frames,
    "probe_depth": _probe_depth,
    "size": _size,
    "stride_kernels": _stride_kernels,
    "widens_in_mlp": _widens_in_mlp,
    "layer_scale": _has(r"\.gamma_1$"),
    "learned_positions": _has(r"^pos_embed$"),
    "pooling": _pooling,
    "qkv_bias": _has(r"\.attn\.(qkv\.bias|q_bias)$"),
    "cosine": _has(r"\.attn\.scale$"),
    "queries": lambda pair, _: _count(pair.given, r"\.dec\.(\d+)\.ln_1\.weight$"),
    "local_blocks": lambda pair, _: _count(pair.given, r"\.resblocks\.0\.lmhra(\d)\.pos_embed\.0\.weight$"),
    "halves_time": _halves_time,
    "mixes": _has(r"\.balance$"),
    "splits": _has(r"\.t_attn\."),
    "patch_frames": _from_shape(r"^patch_embed2\.proj\.weight$", 2),
}
"""How the value of an argument is read off the shapes of a file's weights; None if they do not show it."""

SET_BY_VARIANTS = ("heads", "head_width")
"""Arguments that weights mostly do not show, but of which the variant with weights of these shapes has one value."""


def _always(pair: ShapePair, settings: Mapping[str, Any]) -> bool:
    return True


def _pools_in_windows(pair: ShapePair, settings: Mapping[str, Any]) -> bool:
    return settings.get("pooling") == "window"


HIDDEN: Mapping[str, Callable[[ShapePair, Mapping[str, Any]], bool]] = {
    "stem_stride_t": _always,
    "pool_stride_t": _always,
    "no_max_pool": _always,
    "norm_eps": _always,
    "pooling": lambda pair, _: not any(key.startswith("fc_norm.") for key in pair.given),
    "window": _pools_in_windows,
    "window_frames": _pools_in_windows,
    "alpha": _always,
    "takes": _always,
    "non_local": lambda pair, _: any(".conv_theta." in key for key in pair.given),
    "shift_div": lambda pair, settings: settings["family"] == "tsm",
    "probe_heads": _always,
    "readout": _always,
}
"""Arguments that change what a model computes but none of its weights, and whether those of a file leave them open."""


def is_batch_count(key: str) -> bool:
    """Return whether a weight is batch normalisation's count of batches, which files of old versions of torch lack."""
    return key.endswith("num_batches_tracked")


def _is_buffer(key: str) -> bool:
    return is_batch_count(key) or key.endswith((".running_mean", ".running_var"))
