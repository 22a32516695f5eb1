"""The interface of a video model: named inputs, pooled features, a classifier head, a smallest clip."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self, get_args

import torch
from torch import Tensor, nn

from bench.core.errors import ClipError
from bench.core.schema import Clip

Modality = Literal["rgb", "flow"]

Layout = Literal["BCTHW", "BTCHW"]
LAYOUTS: tuple[Layout, ...] = get_args(Layout)

WEIGHTED_LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)

CHANNELS_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}


@dataclass(frozen=True, kw_only=True)
class InputSpec:
    """One input tensor of a model, taken from the clip: `(B, channels, frames, H, W)`.

    `frames` maps the clip's number of frames to the number that this input takes. Those frames are evenly spaced,
    first and last included (`torch.linspace`, truncated), as PyTorchVideo packs SlowFast's pathways.
    """

    channels: int = 3
    modality: Modality = "rgb"
    frames: Callable[[int], int] | None = None

    def shape(self, clip: Clip, *, batch: int) -> tuple[int, int, int, int, int]:
        """Return `(B, C, T, H, W)` of this input for `clip`."""
        return batch, self.channels, self.count_frames(clip.frames), clip.height, clip.width

    def take(self, clip_BCTHW: Tensor) -> Tensor:
        """Return this input's frames of a clip tensor."""
        frames = clip_BCTHW.shape[2]
        if self.count_frames(frames) == frames:
            return clip_BCTHW
        index = torch.linspace(0, frames - 1, self.count_frames(frames), device=clip_BCTHW.device).long()
        return clip_BCTHW.index_select(2, index)

    def count_frames(self, frames: int) -> int:
        """Return how many frames this input takes of a clip of `frames`."""
        return frames if self.frames is None else self.frames(frames)


class VideoModel(nn.Module):
    """Base class of the models here; `forward(*clips)` returns logits `(B, classes)`.

    `inputs` lists the input tensors. `smallest_clip` is the (frames, pixels) below which the model cannot run.
    `head_name` is the layer whose width is the number of classes, or an empty string; `classifier_name` is the module
    that files of an encoder lack, if it is more than the head. `auxiliary_modules` are in published files and take no
    part in the logits. `mean` and `std` are the default normalisation of RGB in 0..1, used if nothing better is known
    about the weights.
    """

    inputs: tuple[InputSpec, ...] = (InputSpec(),)
    smallest_clip: tuple[int, int] = (1, 1)
    head_name: str = "fc"
    classifier_name: str = ""
    auxiliary_modules: tuple[str, ...] = ()
    mean: tuple[float, ...] = (0.45, 0.45, 0.45)
    std: tuple[float, ...] = (0.225, 0.225, 0.225)

    def forward_features(self, *clips: Tensor) -> Tensor:
        """Return the pooled vector `(B, features)` that the head reads."""
        raise NotImplementedError(type(self).__name__)

    def forward_head(self, features: Tensor) -> Tensor:
        """Return logits `(B, classes)` of pooled features."""
        head = self.get_submodule(self.head_name)
        logits: Tensor = head(features)
        return logits

    def forward(self, *clips: Tensor) -> Tensor:
        """Return logits `(B, classes)`; raises ClipError if a clip is too small or has other channels."""
        self.check(*clips)
        return self.forward_head(self.forward_features(*clips))

    def to(self, *args: Any, **kwargs: Any) -> Self:
        """Move or cast as `nn.Module.to` does; torch refuses `channels_last_3d` for 2D weights, which become 2D
        `channels_last` here.
        """
        if kwargs.get("memory_format") is not torch.channels_last_3d:
            return super().to(*args, **kwargs)
        super().to(*args, **{key: value for key, value in kwargs.items() if key != "memory_format"})
        for tensor in (*self.parameters(), *self.buffers()):
            tensor.data = tensor.data.contiguous(memory_format=CHANNELS_LAST.get(tensor.ndim, torch.contiguous_format))
        return self

    def check(self, *clips: Tensor) -> None:
        """Raise ClipError, naming the smallest clip that works, unless `clips` fit this model."""
        if len(clips) != len(self.inputs):
            raise ClipError(f"{type(self).__name__} takes {len(self.inputs)} input(s), found {len(clips)}")
        for spec, clip in zip(self.inputs, clips, strict=True):
            if clip.ndim != 5 or clip.shape[1] != spec.channels:
                raise ClipError(f"{type(self).__name__} takes (B, {spec.channels}, T, H, W), found {tuple(clip.shape)}")
            frames, pixels = spec.count_frames(self.smallest_clip[0]), self.smallest_clip[1]
            if clip.shape[2] < frames or min(clip.shape[3:]) < pixels:
                raise ClipError(
                    f"a clip of {_size(clip)} is too small for {type(self).__name__}; "
                    f"the smallest that works is {frames}x{pixels}x{pixels} (frames x H x W)"
                )


def inputs_of(model: nn.Module) -> tuple[InputSpec, ...]:
    """Return the inputs that `model` takes: its attribute `inputs`, else one RGB clip."""
    inputs: Sequence[InputSpec] = getattr(model, "inputs", (InputSpec(),))
    return tuple(inputs)


def set_layout(model: nn.Module, layout: Layout) -> None:
    """Let `model` take clips `(B, C, T, H, W)`, as everything here gives them, if its own layout is `layout`.

    A hook swaps channels and frames before the forward pass, so that names of modules and weights stay.
    """
    if layout == "BTCHW":
        model.register_forward_pre_hook(_swap_before_forward)


def with_frames_first(clips: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return clips `(B, C, T, H, W)` as `(B, T, C, H, W)`; what is no clip stays."""
    return tuple(clip.transpose(1, 2) if isinstance(clip, Tensor) and clip.ndim == 5 else clip for clip in clips)


def _swap_before_forward(_: nn.Module, clips: tuple[Any, ...]) -> tuple[Any, ...]:
    return with_frames_first(clips)


def modality_of(in_channels: int) -> Modality:
    """Return what a clip of so many channels holds: two channels are x and y of optical flow."""
    return "flow" if in_channels == 2 else "rgb"


def takes_flow(model: nn.Module) -> bool:
    """Return whether one of the model's inputs is optical flow."""
    return any(each.modality == "flow" for each in inputs_of(model))


def head_name_of(model: nn.Module) -> str:
    """Return the name of the classifier, the layer whose width is the number of classes.

    That is the model's attribute `head_name` if there is such a layer, else the last linear layer or convolution;
    an empty string if there is none, or if the attribute is an empty string, as in an encoder.
    """
    layers = {name: module for name, module in model.named_modules() if name}
    declared = getattr(model, "head_name", None)
    if declared == "" or (isinstance(declared, str) and declared in layers):
        return declared
    return next((name for name in reversed(layers) if isinstance(layers[name], WEIGHTED_LAYERS)), "")


def belongs_to(key: str, module_name: str) -> bool:
    """Return whether the weight `key` belongs to the module `module_name`."""
    return bool(module_name) and key.startswith(f"{module_name}.")


def _size(clip: Tensor) -> str:
    return "x".join(str(int(n)) for n in clip.shape[2:])
