"""The input protocol that is in force for a model: merged from its sources, and turned into what the loaders take."""

from typing import Any

from torch import nn

from bench.core.errors import InputError
from bench.core.input_protocol import Averaging, InputProtocol, Short, ViewSampling, protocol_of_clip
from bench.core.schema import Clip
from bench.data.clip_batches import Normalisation
from bench.data.collection import VideoSet
from bench.data.geometry import Covering, Scaling, Size
from bench.data.transforms import FLOW_MEAN, FLOW_STD
from bench.models.base import VideoModel, inputs_of
from bench.train.recipe import Recipe
from bench.train.scoring import knows_a_class

PIXEL_PARTS = ("channels", "scale", "mean", "std")
SCALING_PARTS = ("rounding", "interpolation", "antialias")
# What is done where nobody says anything; a training here states it in its checkpoint.
SCALED_AS: dict[str, Any] = {"interpolation": "bilinear", "antialias": True}


def default_protocol(model: nn.Module, clip: Clip) -> InputProtocol:
    """What is assumed for a model without a given or stored protocol: its own `input_protocol`, `mean` and `std`.

    The clip is `clip`, the one that the model is registered with. A model of flow alone has the mean of flow.
    """
    has_frames = any(spec.modality == "rgb" for spec in inputs_of(model))
    own = getattr(model, "input_protocol", None) or {}
    parts = own.parts if isinstance(own, InputProtocol) else dict(own)
    general = {
        "channels": "rgb",
        "scale": 1,
        "mean": tuple(getattr(model, "mean", VideoModel.mean)) if has_frames else FLOW_MEAN[:1],
        "std": tuple(getattr(model, "std", VideoModel.std)) if has_frames else FLOW_STD[:1],
        "resize": "cover",
        "sampling": "blocks",
        "short": "loop",
        "averaging": "softmax",
    }
    protocol = InputProtocol.of({**general, **parts}, mark="assumed")
    return protocol.over(protocol_of_clip(clip, mark="assumed"))


def checkpoint_protocol(model: nn.Module) -> InputProtocol:
    """What the checkpoint of `model` says, or the zoo that it was recognised as; empty without a checkpoint."""
    report = model.__dict__.get("weights_report")
    return InputProtocol() if report is None else report.input_protocol


def evaluation_protocol(model: nn.Module, given: InputProtocol, *, clip: Clip, default_clip: Clip) -> InputProtocol:
    """How clips are prepared for `model`: what the user gives, else its checkpoint, else the model's default.

    `clip` is the clip that is used in any case. It counts as given unless it is that of the checkpoint or, if the
    checkpoint has none, the default.
    """
    merged = given.over(checkpoint_protocol(model)).over(default_protocol(model, default_clip))
    return _with_clip(merged, clip)


def with_matching_classes(protocol: InputProtocol, videos: VideoSet) -> InputProtocol:
    """Return `protocol`, without the class list of a zoo if `videos` have none of its classes.

    Weights in the container of a zoo may be trained on other data with the same number of classes.
    """
    is_of_zoo = protocol.mark("classes") in ("recognised", "assumed")
    if protocol.classes is None or not is_of_zoo or knows_a_class(protocol.classes, videos.classes):
        return protocol
    return protocol.without("classes")


def training_protocol(
    model: nn.Module, recipe: Recipe, train: VideoSet, *, given: InputProtocol, clip: Clip
) -> InputProtocol:
    """How clips are prepared in a training and in evaluations of what it trains.

    Pixels are prepared as the weights want them that the training begins with. What the recipe says (scaling and
    sampling of its validation) and the class names of `train` are stored with the new weights.
    """
    of_weights = given.over(checkpoint_protocol(model)).over(default_protocol(model, clip))
    pixels = {name: value for name, value in of_weights.parts.items() if name in PIXEL_PARTS}
    stated: dict[str, Any] = {
        "resize": "cover" if recipe.resize is None else recipe.resize,
        "sampling": recipe.view_sampling,
        "short": recipe.view_short,
        "averaging": averaging_of(train),
        "classes": train.classes or None,
        **pixels,
        **SCALED_AS,
    }
    origin = f"recipe {recipe.recipe}"
    # Class names of the data set, not those of the weights to begin with: the head is trained on these.
    asked = InputProtocol.of(
        {name: value for name, value in given.parts.items() if name not in ("classes", "clip", "crop")}, mark="given"
    )
    trained = InputProtocol.of(stated, mark="stored", origin=origin)
    return asked.over(trained).over(protocol_of_clip(clip, mark="stored", origin=origin))


def averaging_of(trained_on: VideoSet) -> Averaging:
    """What the outputs of a model mean that was trained on these videos: sigmoid if videos have several labels."""
    return "sigmoid" if trained_on.is_multi_label else "softmax"


def normalisation_of(model: nn.Module) -> Normalisation:
    """What clips of `model` are normalised with, by its checkpoint or its own `mean` and `std`."""
    default = default_protocol(model, Clip(frames=1, height=1, width=1))
    return normalisation(checkpoint_protocol(model).over(default))


def normalisation(protocol: InputProtocol) -> Normalisation:
    """The loaders' form of a protocol's pixel parts: `mean` and `std` per channel for values from 0 to 1.

    Raises InputError if `mean` or `std` has neither one value nor one for each of the three channels.
    """
    scale = protocol.scale or 1
    mean, std = (_per_channel(name, getattr(protocol, name)) for name in ("mean", "std"))
    return Normalisation(
        mean=tuple(value / scale for value in mean),
        std=tuple(value / scale for value in std),
        channels=protocol.channels or "rgb",
    )


def scaling_of(protocol: InputProtocol, clip: Clip) -> Size:
    """The size that frames are scaled to, with filter and rounding; just enough for the clip's crop if nobody says."""
    size = protocol.resize_size
    covering = Covering(height=clip.height, width=clip.width) if size is None and protocol.resize != "none" else None
    return scaled_as(protocol, size or covering)


def scaled_as(protocol: InputProtocol, size: int | tuple[int, int] | Covering | None) -> Scaling:
    """`size` with the filter and rounding of the protocol."""
    said = {name: value for name in SCALING_PARTS if (value := getattr(protocol, name)) is not None}
    return Scaling(size=size, **said)


def view_options(protocol: InputProtocol, clip: Clip) -> dict[str, Any]:
    """What `view_batches` needs of a protocol to prepare clips of the size of `clip`."""
    pixels = normalisation(protocol)
    return {
        "resize": scaling_of(protocol, clip),
        "crop_rounding": protocol.crop_rounding or "floor",
        "sampling": sampling_of(protocol),
        "placement": protocol.placement or "ends",
        "short": short_of(protocol),
        "mean": pixels.mean,
        "std": pixels.std,
        "channels": pixels.channels,
    }


def sampling_of(protocol: InputProtocol) -> ViewSampling:
    """How the clips of a video are taken; blocks of frames by default."""
    return protocol.sampling or "blocks"


def short_of(protocol: InputProtocol) -> Short:
    """How clips of short videos are filled; they loop by default."""
    return protocol.short or "loop"


def _with_clip(protocol: InputProtocol, clip: Clip) -> InputProtocol:
    asked = protocol_of_clip(clip, mark="given")
    changed = {name: value for name, value in asked.parts.items() if getattr(protocol, name) != value}
    return InputProtocol.of(changed, mark="given").over(protocol)


def _per_channel(name: str, values: tuple[float, ...] | None) -> tuple[float, ...]:
    if values is None or len(values) == 1:
        return (values or (0.0 if name == "mean" else 1.0,)) * 3
    if len(values) != 3:
        raise InputError(f"{name} has {len(values)} values; allowed: one, or one for each of the three channels")
    return values
