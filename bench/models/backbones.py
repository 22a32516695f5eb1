"""2D models by name, as parts of video models: `torchvision:resnet50`, or `timm:NAME` if timm is installed.

Nothing is downloaded: ImageNet weights are read from a file that the user names, in the format of torchvision or timm.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from bench.core.errors import ClipError, InputError, MissingPackageError, UnknownNameError, WeightsError
from bench.models.base import VideoModel
from bench.models.weights.checkpoint import read_checkpoint

Colours = tuple[float, float, float]

IMAGENET_MEAN: Colours = (0.485, 0.456, 0.406)
IMAGENET_STD: Colours = (0.229, 0.224, 0.225)
HALVES: Colours = (0.5, 0.5, 0.5)

# torchvision's weights of these two convert ImageNet's normalisation to halves inside the model (`transform_input`).
SCALED_BY_HALVES = ("googlenet", "inception_v3")
WITHOUT_SIDE_HEADS = {name: {"aux_logits": False, "init_weights": True} for name in SCALED_BY_HALVES}
SIDE_HEADS = ("aux1", "aux2", "AuxLogits")
FIXED_SIZE = ("vit_", "maxvit_")
SWIN_PATCH_PX = 4  # torchvision gives Swin's training size as its smallest; it runs from one patch on
USUAL_STRIDE_PX = 32
EXAMPLE = "torchvision:resnet50"
SHOWN = 500  # characters of torch's list of keys that do not fit


@dataclass(frozen=True, kw_only=True)
class Backbone:
    """A 2D model without its classifier, with the facts that a video model needs.

    `model` maps images `(N, C, H, W)` to features `(N, width)`, or to maps `(N, width, h, w)` if `create_map_backbone`
    made it. It takes images of at least `smallest_px`, or only of `only_px` if that is set.
    """

    model: nn.Module
    width: int
    smallest_px: int
    only_px: int | None = None
    mean: Colours = IMAGENET_MEAN
    std: Colours = IMAGENET_STD


class FrameModel(VideoModel):
    """Base of models that run 2D backbones on frames: sizes and normalisation are the backbone's."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.smallest_clip = (1, backbone.smallest_px)
        self.only_px = backbone.only_px
        self.mean, self.std = backbone.mean, backbone.std

    def check(self, *clips: Tensor) -> None:
        """Raise ClipError for clips that are too small, and for other sizes if the backbone takes a single one."""
        super().check(*clips)
        for clip in clips:
            if self.only_px is not None and set(clip.shape[3:]) != {self.only_px}:
                found = "x".join(str(int(n)) for n in clip.shape[3:])
                raise ClipError(f"the backbone takes {self.only_px}x{self.only_px} pixels only, found {found}")


def create_backbone(name: str, *, in_channels: int = 3, weights: str | None = None) -> Backbone:
    """Return the 2D model `name` with features as output, with random weights or the ImageNet weights in a file.

    If `in_channels` is not 3, the weights of the first layer are the mean over RGB, repeated (Wang et al., 2016,
    arXiv:1608.00859, section 3.2). Raises UnknownNameError, WeightsError, and MissingPackageError without timm.
    """
    source, _, model_name = name.partition(":")
    if source == "timm":
        backbone, head = _timm_backbone(model_name)
    else:
        model = _torchvision_network(name)
        head, linear = _last_linear(model, name)
        _remove(model, head)
        backbone = _torchvision_backbone(model, model_name, width=linear.in_features)
    _fill(backbone.model, weights, dropped=(head, *SIDE_HEADS), in_channels=in_channels)
    return backbone


def create_map_backbone(name: str, *, in_channels: int = 3, weights: str | None = None) -> Backbone:
    """Return the 2D model `name` of torchvision up to its average pooling, with maps as output."""
    model = _torchvision_network(name)
    children = dict(model.named_children())
    if "avgpool" not in children:
        raise InputError(
            f"{name} has no average pooling of its own, so it has no maps as output; one that has: {EXAMPLE}"
        )
    parts = list(children)
    before, after = parts[: parts.index("avgpool")], parts[parts.index("avgpool") + 1 :]
    linear = next(layer for part in after for layer in children[part].modules() if isinstance(layer, nn.Linear))
    maps = nn.Sequential(OrderedDict((part, children[part]) for part in before))
    width = linear.in_features // _area(children["avgpool"])
    _fill(maps, weights, dropped=(*after, *SIDE_HEADS), in_channels=in_channels)
    return _torchvision_backbone(maps, name.partition(":")[2], width=width)


def frames_of(clip_BCTHW: Tensor) -> Tensor:
    """Return the frames of all clips as images, `(B * T, C, H, W)`; those of one clip are adjacent."""
    return clip_BCTHW.transpose(1, 2).flatten(0, 1)


def by_clip(values: Tensor, *, frames: int) -> Tensor:
    """Return values of all frames, `(B * T, …)`, by clip: `(B, T, …)`."""
    return values.reshape(-1, frames, *values.shape[1:])


def _torchvision_network(name: str) -> nn.Module:
    from torchvision import models

    source, colon, model_name = name.partition(":")
    if not colon:
        raise InputError(f"backbone {name!r} has no source; write torchvision:{name} or timm:{name}")
    if source != "torchvision":
        raise UnknownNameError("source of backbones", source, ["torchvision", "timm"])
    known = models.list_models(module=models)
    if model_name not in known:
        raise UnknownNameError("backbone", name, [f"torchvision:{other}" for other in known])
    return _built(partial(models.get_model, model_name, **WITHOUT_SIDE_HEADS.get(model_name, {})))


def _built(build: Callable[[], nn.Module]) -> nn.Module:
    """Return the model on the default device; one that meta cannot build (RegNet reads tensors) is moved there."""
    try:
        return build()
    except NotImplementedError:
        with torch.device("cpu"):
            model = build()
        return model.to("meta")


def _torchvision_backbone(model: nn.Module, name: str, *, width: int) -> Backbone:
    from torchvision import models

    known_px = max(models.get_model_weights(name).DEFAULT.meta["min_size"])
    is_halved = name in SCALED_BY_HALVES
    return Backbone(
        model=model,
        width=width,
        smallest_px=SWIN_PATCH_PX if name.startswith("swin") else known_px,
        only_px=known_px if name.startswith(FIXED_SIZE) else None,
        mean=HALVES if is_halved else IMAGENET_MEAN,
        std=HALVES if is_halved else IMAGENET_STD,
    )


def _timm_backbone(name: str) -> tuple[Backbone, str]:
    try:
        import timm
    except ImportError:
        raise MissingPackageError("timm", needed_for=f"backbone timm:{name}", install="pip install timm") from None
    if not timm.is_model(name):
        raise UnknownNameError("backbone", f"timm:{name}", [f"timm:{other}" for other in timm.list_models()])
    model: Any = _built(partial(timm.create_model, name, pretrained=False, num_classes=0))
    about = model.pretrained_cfg
    only_px = about["input_size"][-1] if about.get("fixed_input_size") else None
    backbone = Backbone(
        model=model,
        width=getattr(model, "head_hidden_size", None) or model.num_features,
        smallest_px=only_px or USUAL_STRIDE_PX,
        only_px=only_px,
        mean=tuple(about["mean"]),
        std=tuple(about["std"]),
    )
    return backbone, str(about.get("classifier", "head"))


def _last_linear(model: nn.Module, name: str) -> tuple[str, nn.Linear]:
    linears = [(path, module) for path, module in model.named_modules() if isinstance(module, nn.Linear)]
    if not linears:
        raise InputError(
            f"{name} does not end in a linear layer, so it has no features as output; one that has: {EXAMPLE}"
        )
    return linears[-1]


def _remove(model: nn.Module, head: str) -> None:
    """Remove the layer `head` and a dropout directly before it, because each video model has its own."""
    leaves = [path for path, module in model.named_modules() if not list(module.children())]
    before = leaves[leaves.index(head) - 1]
    if isinstance(model.get_submodule(before), nn.Dropout):
        model.set_submodule(before, nn.Identity())
    model.set_submodule(head, nn.Identity())


def _area(pool: nn.Module) -> int:
    sizes = getattr(pool, "output_size", 1)
    height, width = sizes if isinstance(sizes, tuple) else (sizes, sizes)
    return int(height) * int(width)


def _fill(model: nn.Module, weights: str | None, *, dropped: Iterable[str], in_channels: int) -> None:
    if weights is not None and not next(model.parameters()).is_meta:
        _load(model, weights, dropped=dropped)
    _set_input_channels(model, in_channels, is_drawn=weights is None)


def _load(model: nn.Module, path: str, *, dropped: Iterable[str]) -> None:
    left_out = tuple(f"{module}." for module in dropped)
    state = {key: value for key, value in read_checkpoint(path).state.items() if not key.startswith(left_out)}
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        problems = " ".join(line.strip() for line in str(error).splitlines()[1:])
        raise WeightsError(f"{path} does not hold the weights of this backbone: {problems[:SHOWN]}") from error


def _set_input_channels(model: nn.Module, channels: int, *, is_drawn: bool) -> None:
    first = next(module for module in model.modules() if isinstance(module, nn.Conv2d))
    if first.in_channels == channels:
        return
    mean_over_rgb = first.weight.detach().mean(dim=1, keepdim=True)
    first.in_channels = channels
    first.weight = nn.Parameter(mean_over_rgb.repeat(1, channels, 1, 1))
    if is_drawn:
        first.reset_parameters()
