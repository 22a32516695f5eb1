"""What every network of the zoo is: named inputs, a pooled feature vector, a head, and a smallest clip."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from bench.core.errors import ClipError
from bench.core.schema import Clip

Modality = Literal["rgb", "flow"]


@dataclass(frozen=True, kw_only=True)
class InputSpec:
    """One input tensor of a network, derived from the clip: `(B, channels, frames, H, W)`.

    `frames` turns the clip's number of frames into this input's; evenly spaced frames, first and last included,
    are taken (`torch.linspace`, truncated), as PyTorchVideo packs SlowFast's pathways.
    """

    channels: int = 3
    modality: Modality = "rgb"
    frames: Callable[[int], int] | None = None

    def shape(self, clip: Clip, *, batch: int) -> tuple[int, int, int, int, int]:
        """`(B, C, T, H, W)` of this input for `clip`."""
        return batch, self.channels, self._count(clip.frames), clip.height, clip.width

    def take(self, clip_BCTHW: Tensor) -> Tensor:
        """This input's frames of a clip tensor."""
        frames = clip_BCTHW.shape[2]
        if self._count(frames) == frames:
            return clip_BCTHW
        index = torch.linspace(0, frames - 1, self._count(frames), device=clip_BCTHW.device).long()
        return clip_BCTHW.index_select(2, index)

    def _count(self, frames: int) -> int:
        return frames if self.frames is None else self.frames(frames)


class VideoModel(nn.Module):
    """Base of the zoo's networks. `forward(*clips)` gives logits `(B, classes)`.

    `inputs` says what it takes; `smallest_clip` is (frames, pixels) below which it cannot run; `head_name` is the
    layer whose width is the number of classes; `mean` and `std` are what its published weights were trained with.
    """

    inputs: tuple[InputSpec, ...] = (InputSpec(),)
    smallest_clip: tuple[int, int] = (1, 1)
    head_name: str = "fc"
    mean: tuple[float, ...] = (0.45, 0.45, 0.45)
    std: tuple[float, ...] = (0.225, 0.225, 0.225)

    def forward_features(self, *clips: Tensor) -> Tensor:
        """The pooled vector `(B, features)` that the head reads."""
        raise NotImplementedError(type(self).__name__)

    def forward_head(self, features: Tensor) -> Tensor:
        """Logits `(B, classes)` of pooled features."""
        head = self.get_submodule(self.head_name)
        logits: Tensor = head(features)
        return logits

    def forward(self, *clips: Tensor) -> Tensor:
        """Logits `(B, classes)`; ClipError where a clip is too small or has other channels."""
        self.check(*clips)
        return self.forward_head(self.forward_features(*clips))

    def check(self, *clips: Tensor) -> None:
        """ClipError with the smallest clip that works, unless `clips` fit this network."""
        if len(clips) != len(self.inputs):
            raise ClipError(f"{type(self).__name__} takes {len(self.inputs)} input(s), found {len(clips)}")
        for spec, clip in zip(self.inputs, clips, strict=True):
            if clip.ndim != 5 or clip.shape[1] != spec.channels:
                raise ClipError(f"{type(self).__name__} takes (B, {spec.channels}, T, H, W), found {tuple(clip.shape)}")
            frames, pixels = spec._count(self.smallest_clip[0]), self.smallest_clip[1]
            if clip.shape[2] < frames or min(clip.shape[3:]) < pixels:
                raise ClipError(
                    f"a clip of {_size(clip)} is too small for {type(self).__name__}; "
                    f"the smallest that works is {frames}x{pixels}x{pixels} (frames x H x W)"
                )


def inputs_of(model: nn.Module) -> tuple[InputSpec, ...]:
    """What `model` takes; a network that does not say takes one RGB clip."""
    inputs: Sequence[InputSpec] = getattr(model, "inputs", (InputSpec(),))
    return tuple(inputs)


def modality_of(in_channels: int) -> Modality:
    """What a clip of so many channels is of a network that says no more: two are x and y of optical flow."""
    return "flow" if in_channels == 2 else "rgb"


def takes_flow(model: nn.Module) -> bool:
    """Whether one of the network's inputs is optical flow."""
    return any(each.modality == "flow" for each in inputs_of(model))


def _size(clip: Tensor) -> str:
    return "x".join(str(int(n)) for n in clip.shape[2:])
