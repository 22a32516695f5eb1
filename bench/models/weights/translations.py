"""Renames the weights of other code bases to the names of the same model here.

There is a translation only if the other model computes the same as one of ours. What else its code fixes, such as the
strides of MMAction2's I3D, is in `conventions.py`.
"""

import re
from collections.abc import Callable, Iterable, Sequence

from bench.models.base import belongs_to
from bench.models.weights.checkpoint import Shapes
from bench.models.weights.mmaction_names import TRANSLATIONS as MMACTION2
from bench.models.weights.mmaction_names import Names, inverted_layer

WRAPPERS = ("module", "model", "backbone", "encoder", "encoder_q", "net", "network", "base_model", "video_model")
"""Modules that hold a whole model; their names may stand anywhere within a name."""


SPORTS_1M_LAYERS = {
    "features.0": "conv1",
    "features.3": "conv2",
    "features.6": "conv3a",
    "features.8": "conv3b",
    "features.11": "conv4a",
    "features.13": "conv4b",
    "features.16": "conv5a",
    "features.18": "conv5b",
    "classifier.0": "fc6",
    "classifier.3": "fc7",
    "classifier.6": "fc8",
}


def names_for(given: Shapes, target: Shapes) -> Names:
    """Return the names in `target` of the weights in `given`: the renaming under which most find one of their shape.

    A name without a counterpart keeps its own name. Names of wrappers such as `backbone.` or `module.` may stand
    anywhere within a name.
    """
    return max(renamings(given, target), key=lambda names: _agreeing(names, given, target))


def renamings(given: Shapes, target: Shapes) -> list[Names]:
    """Return every renaming of the weights in `given` that may lead to names of `target`."""
    offers = [renamed for names in _unwrapped(given) for renamed in _translated(given, names)]
    return offers + [{key: f"{prefix}.{key}" for key in given} for prefix in _common_prefixes(target)]


def rows_of(shapes: Shapes, head: str) -> int | None:
    """Return the number of classes, the rows of the weight of the layer `head`; None if there is no such layer."""
    return next((shape[0] for key, shape in shapes.items() if belongs_to(key, head) and key.endswith("weight")), None)


def _unwrapped(given: Shapes) -> Iterable[Names]:
    """The names as they are, then without the names of wrappers, unless two weights would share a name then."""
    yield dict(zip(given, given, strict=True))
    for removed in (WRAPPERS, (*WRAPPERS, "cls_head", "head")):
        names = {key: ".".join(part for part in key.split(".") if part not in removed) for key in given}
        if len(set(names.values())) == len(names) and any(old != new for old, new in names.items()):
            yield names


def _translated(given: Shapes, names: Names) -> Iterable[Names]:
    """`names`, then `names` followed by each translation that applies to them."""
    yield names
    shapes = {new: given[old] for old, new in names.items()}
    for translate in TRANSLATIONS:
        for further in translate(shapes):
            yield {old: further[new] for old, new in names.items()}


def _agreeing(names: Names, given: Shapes, target: Shapes) -> tuple[int, int]:
    """How many different weights of the target are found with their shape, then how many by name alone.

    Two weights under one name count once. A model of another width shares names and hardly a shape.
    """
    same_shape = {new for old, new in names.items() if target.get(new) == given[old]}
    return len(same_shape), len(target.keys() & set(names.values()))


def _common_prefixes(target: Shapes) -> list[str]:
    """The first part of all names of `target` if they share one: a model within a wrapper of ours."""
    first = {key.partition(".")[0] for key in target if "." in key}
    return sorted(first) if len(first) == 1 else []


def _hassony2_i3d(given: Shapes) -> Iterable[Names]:
    """hassony2's I3D as pytorch-i3d names it: `mixed_3b.branch_1.0.batch3d` is `Mixed_3b.b1a.bn`."""
    if "conv3d_1a_7x7.conv3d.weight" in given:
        yield {key: _from_hassony2(key) for key in given}


def _from_hassony2(key: str) -> str:
    key = re.sub(r"^conv3d_0c_1x1\.", "logits.", key)
    key = re.sub(r"^(conv3d|mixed)_", lambda match: f"{match[1].capitalize()}_", key)
    key = key.replace(".batch3d.", ".bn.")
    return re.sub(r"\.branch_(\d)\.(?:(\d)\.)?", lambda m: f".b{m[1]}{'ab'[int(m[2])] if m[2] else ''}.", key)


FLAT_INVERTED_BLOCK = r"^(base_model\.features\.\d+)\.conv\.(\d)\.(net\.)?(\w+)$"


def _tsm_mobilenet(given: Shapes) -> Iterable[Names]:
    """TSM's own MobileNetV2, whose blocks are one list of convolutions, norms and activations, nested as here.

    There the shift wraps the first convolution of a block alone, here that convolution and its norm.
    """
    found = {key: match for key in given if (match := re.match(FLAT_INVERTED_BLOCK, key))}
    last_layers: dict[str, int] = {}
    for match in found.values():
        last_layers[match[1]] = max(last_layers.get(match[1], 0), int(match[2]) // 3)
    if max(last_layers.values(), default=0) < 2:  # also the names of torchvision's last layers have this form
        return
    shifted = {match[1] for match in found.values() if match[3]}
    names = dict(zip(given, given, strict=True))
    for key, match in found.items():
        number, kind = divmod(int(match[2]), 3)
        shift = "net." if number == 0 and match[1] in shifted else ""
        layer = inverted_layer(number, last=last_layers[match[1]], shift=shift, is_norm=kind == 1)
        names[key] = f"{match[1]}.conv.{layer}.{match[4]}"
    yield names


def _caffe2_pyslowfast(given: Shapes) -> Iterable[Names]:
    """The caffe2 files of PySlowFast's model zoo: first as PySlowFast renames them, then as PyTorchVideo does."""
    if "res2_0_branch2a_w" not in given:
        return
    named = {key: _from_caffe2(key) for key in given}
    for further in _pyslowfast({new: given[old] for old, new in named.items()}):
        yield {old: further[new] for old, new in named.items()}


def _from_caffe2(key: str) -> str:
    """`t_res2_0_branch2a_bn_s` → `s2.pathway1_res0.branch2.a_bn.weight`."""
    name, _, kind = key.rpartition("_")
    kinds = {"w": "weight", "b": "bias", "s": "weight", "rm": "running_mean", "riv": "running_var"}
    if kind not in kinds:
        return key
    if name == "pred":
        return f"head.projection.{kinds[kind]}"
    pathway = 1 if name.startswith("t_") else 0
    name = name.removeprefix("t_")
    if fused := re.fullmatch(r"(?:pool1|res(\d)_\d+_branch2c_bn)_subsample(_bn)?", name):
        return f"s{fused[1] or 1}_fuse.{'bn' if fused[2] else 'conv_f2s'}.{kinds[kind]}"
    if nonlocal_block := re.fullmatch(r"nonlocal_conv(\d)_(\d+)_(theta|phi|g|out|bn)", name):
        stage, block, layer = nonlocal_block.groups()
        return f"s{stage}.pathway{pathway}_nonlocal{block}.{'' if layer == 'bn' else 'conv_'}{layer}.{kinds[kind]}"
    if stem := re.fullmatch(r"conv1|res_conv1_bn", name):
        return f"s1.pathway{pathway}_stem.{'conv' if stem[0] == 'conv1' else 'bn'}.{kinds[kind]}"
    if block := re.fullmatch(r"res(\d)_(\d+)_branch(\d)([abc]?)(_bn)?", name):
        stage, number, branch, letter, norm = block.groups()
        place = f"s{stage}.pathway{pathway}_res{number}.branch{branch}"
        return f"{place}{f'.{letter}' if letter else ''}{norm or ''}.{kinds[kind]}"
    return key


def _vmz_caffe2(given: Shapes) -> Iterable[Names]:
    """The caffe2 files of VMZ's R3D and R(2+1)D as torchvision names those models, which are theirs."""
    blocks = {int(match[1]) for key in given if (match := re.match(r"comp_(\d+)_", key))}
    depths = {8: (2, 2, 2, 2), 16: (3, 4, 6, 3)}.get(len(blocks))
    if depths is None:
        return
    places = [f"layer{layer}.{block}" for layer, depth in enumerate(depths, start=1) for block in range(depth)]
    is_split = "conv1_middle_w" in given
    yield {key: _from_vmz(key, places, is_split=is_split) for key in given}


def _from_vmz(key: str, places: Sequence[str], *, is_split: bool) -> str:
    """`comp_0_spatbn_1_middle_s` → `layer1.0.conv1.0.1.weight`."""
    name, _, kind = key.rpartition("_")
    kinds = {"w": "weight", "b": "bias", "s": "weight", "rm": "running_mean", "riv": "running_var"}
    if kind not in kinds:
        return key
    if name.startswith("last_out_"):
        return f"fc.{kinds[kind]}"
    if stem := re.fullmatch(r"conv1(_middle)?(_spatbn_relu)?", name):
        first = 0 if stem[1] or not is_split else 3
        return f"stem.{first + bool(stem[2])}.{kinds[kind]}"
    if shortcut := re.fullmatch(r"shortcut_projection_(\d+)(_spatbn)?", name):
        return f"{places[int(shortcut[1])]}.downsample.{int(bool(shortcut[2]))}.{kinds[kind]}"
    if layer := re.fullmatch(r"comp_(\d+)_(conv|spatbn)_(\d)(_middle)?", name):
        place = f"{places[int(layer[1])]}.conv{layer[3]}"
        is_norm = layer[2] == "spatbn"
        if layer[4]:  # the half over space: a convolution, its norm, ReLU, then the half over time
            return f"{place}.0.{int(is_norm)}.{kinds[kind]}"
        within = "1" if is_norm else ("0.3" if is_split else "0")
        return f"{place}.{within}.{kinds[kind]}"
    return key


def _sports_1m(given: Shapes) -> Iterable[Names]:
    if {f"{layer}.weight" for layer in SPORTS_1M_LAYERS if layer != "classifier.6"} <= given.keys():
        yield _by_layer(given, SPORTS_1M_LAYERS)


def _by_layer(given: Shapes, layers: dict[str, str]) -> Names:
    split = {key: key.rpartition(".") for key in given}
    return {key: f"{layers.get(layer, layer)}.{kind}" for key, (layer, _, kind) in split.items()}


def _pyslowfast(given: Shapes) -> Iterable[Names]:
    """PySlowFast's ResNets, SlowFast and X3D as PyTorchVideo names them; C2D and I3D have a pooling as third block."""
    if not any(key.startswith("s1.pathway0_stem.conv.") for key in given):
        return
    if "head.lin_5.weight" in given:
        yield {key: _from_pyslowfast_x3d(key) for key in given}
    elif any(key.startswith("s1.pathway1_stem.") for key in given):
        yield {key: _from_pyslowfast(key, pathways=2, pool_after=5) for key in given}
    else:
        yield {key: _from_pyslowfast(key, pathways=1, pool_after=None) for key in given}
        yield {key: _from_pyslowfast(key, pathways=1, pool_after=1) for key in given}


def _from_pyslowfast(key: str, *, pathways: int, pool_after: int | None) -> str:
    stage = re.match(r"s(\d)(_fuse)?\.(?:pathway(\d)_)?(?:stem\.|(res|nonlocal)(\d+)\.)?", key)
    if stage is None:
        head = 5 if pool_after is None else 6
        return re.sub(r"^head\.projection\.", f"blocks.{head}.proj.", key)
    number, fuse, pathway, kind, block = stage.groups()
    index = int(number) - 1
    index += pool_after is not None and index > pool_after
    rest = key[stage.end() :]
    if fuse:
        names = {"conv_f2s": "conv_fast_to_slow", "bn": "norm"}
        layer, _, weight = rest.partition(".")
        return f"blocks.{index}.multipathway_fusion.{names.get(layer, layer)}.{weight}"
    place = f"blocks.{index}." + (f"multipathway_blocks.{pathway}." if pathways > 1 else "")
    if kind == "nonlocal":
        return f"{place}non_local.{block}.{rest}"
    if kind == "res":
        return f"{place}res_blocks.{block}.{_pyslowfast_layer(rest)}"
    return place + re.sub(r"^bn\.", "norm.", rest)


def _pyslowfast_layer(name: str) -> str:
    """`branch2.a_bn.weight` → `branch2.norm_a.weight`."""
    name = re.sub(r"^branch1_bn\.", "branch1_norm.", name)
    name = re.sub(r"^branch1\.", "branch1_conv.", name)
    name = re.sub(r"^branch2\.([abc])_bn\.", r"branch2.norm_\1.", name)
    return re.sub(r"^branch2\.([abc])\.", r"branch2.conv_\1.", name)


X3D_LAYERS = {
    "s1.pathway0_stem.conv_xy.": "blocks.0.conv.conv_t.",  # PyTorchVideo swapped the names of the two
    "s1.pathway0_stem.conv.": "blocks.0.conv.conv_xy.",
    "head.conv_5.": "blocks.5.pool.pre_conv.",
    "head.conv_5_bn.": "blocks.5.pool.pre_norm.",
    "head.lin_5.": "blocks.5.pool.post_conv.",
}


def _from_pyslowfast_x3d(key: str) -> str:
    for theirs, ours in X3D_LAYERS.items():
        if key.startswith(theirs):
            return ours + key.removeprefix(theirs)
    key = _from_pyslowfast(key, pathways=1, pool_after=None)
    key = key.replace(".branch2.norm_b.", ".branch2.norm_b.0.")
    return re.sub(r"\.branch2\.se\.fc([12])\.", lambda m: f".branch2.norm_b.1.block.{2 * int(m[1]) - 2}.", key)


TRANSLATIONS: tuple[Callable[[Shapes], Iterable[Names]], ...] = (
    _sports_1m,
    *MMACTION2,
    _pyslowfast,
    _hassony2_i3d,
    _tsm_mobilenet,
    _caffe2_pyslowfast,
    _vmz_caffe2,
)
