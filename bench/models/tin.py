"""TIN: a 2D ResNet whose blocks move some channels in time by offsets computed from the clip. Shao et al., 2020.

arXiv:2001.06499. Written from the paper; names of weights as in the authors' code (deepcs233/TIN). The offsets are
fractions of a frame: a moved channel is interpolated between two frames. Moving has no MACs, as in TSM.
"""

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.core.errors import InputError
from bench.core.registry import register_model
from bench.models.backbones import Backbone, by_clip, create_backbone
from bench.models.tsm import FrameScores, residual_blocks

GROUPS = 2
"""Groups of channels with an offset of their own; each has a counterpart that moves as far the other way."""

REACH = 2
"""Channels move by less than so many frames; the authors fixed it for clips of 8 frames."""

HALF_A_FRAME = 0.5108
"""Bias with which the offsets start: 4 * (sigmoid(0.5108) - 0.5) is 0.5."""


class Offsets(nn.Module):
    """The offset of each group in frames, from the means over space: `(B, C, T)` to `(B, 2)`."""

    def __init__(self, channels: int, *, frames: int) -> None:
        super().__init__()
        self.net = nn.ModuleDict(
            {
                "conv": nn.Conv1d(channels, 1, 3, padding=1),
                "fc": nn.Linear(frames, frames),
                "lastlayer": nn.Linear(frames, GROUPS),
            }
        )
        nn.init.constant_(self.get_parameter("net.lastlayer.bias"), HALF_A_FRAME)

    def forward(self, means_BCT: Tensor) -> Tensor:
        hidden = F.relu(self.net["fc"](self.net["conv"](means_BCT)[:, 0]))
        shares: Tensor = self.net["lastlayer"](hidden).sigmoid()
        return 2 * REACH * (shares - 0.5)


class FrameScales(nn.Module):
    """The scale of each group at each frame, in 0..2, from the means over space: `(B, C, T)` to `(B, 2, T)`."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.net = nn.ModuleDict({"lastlayer": nn.Conv1d(channels, GROUPS, 3, padding=1)})
        nn.init.zeros_(self.get_parameter("net.lastlayer.bias"))

    def forward(self, means_BCT: Tensor) -> Tensor:
        scales: Tensor = 2 * self.net["lastlayer"](means_BCT).sigmoid()
        return scales


class TemporalInterlace(nn.Module):
    """Moves the first C / `shift_div` channels in time and scales them, both computed from the clip.

    The moved channels are four groups: two with offsets of their own, then two with the negative offsets. Raises
    InputError if they do not divide into four.
    """

    def __init__(self, channels: int, *, frames: int, shift_div: int) -> None:
        super().__init__()
        self.frames = frames
        self.moved = channels // shift_div
        if self.moved == 0 or self.moved % (2 * GROUPS):
            raise InputError(
                f"shift_div {shift_div} moves {self.moved} of {channels} channels; the moved channels must be "
                f"a multiple of {2 * GROUPS}, as with shift_div 1, 2, 4, 8 or 16"
            )
        self.biasnet = Offsets(self.moved, frames=frames)
        self.weightnet = FrameScales(self.moved)

    def forward(self, frames_NCHW: Tensor) -> Tensor:
        moved, kept = by_clip(frames_NCHW, frames=self.frames).tensor_split([self.moved], dim=2)
        means_BCT = moved.mean((3, 4)).transpose(1, 2)
        offsets, scales = self.biasnet(means_BCT), self.weightnet(means_BCT)
        groups_BTGCHW = move_groups(
            torch.unflatten(moved, 2, (2 * GROUPS, -1)), offsets_BG=torch.cat([offsets, -offsets], dim=1)
        )
        scales_BTG = torch.cat([scales, scales], dim=1).transpose(1, 2)
        scaled = (groups_BTGCHW * scales_BTG[..., None, None, None]).flatten(2, 3)
        return torch.cat([scaled, kept], dim=2).flatten(0, 1)


class InterlacedConv(nn.Module):
    """A convolution on frames some of whose channels were moved in time."""

    def __init__(self, net: nn.Conv2d, *, frames: int, shift_div: int) -> None:
        super().__init__()
        self.net1 = TemporalInterlace(net.in_channels, frames=frames, shift_div=shift_div)
        self.net2 = net

    def forward(self, frames_NCHW: Tensor) -> Tensor:
        maps: Tensor = self.net2(self.net1(frames_NCHW))
        return maps


class TIN(FrameScores):
    """The mean over frames of the class scores; takes clips of exactly `frames` frames."""

    def __init__(self, backbone: Backbone, *, num_classes: int, frames: int, shift_div: int, dropout: float) -> None:
        super().__init__(backbone, num_classes=num_classes, dropout=dropout)
        self.only_frames = frames
        self.smallest_clip = (frames, self.smallest_clip[1])
        for stage in residual_blocks(backbone.model, family="tin"):
            for block in stage:
                convolution = cast("nn.Conv2d", block.conv1)
                block.conv1 = InterlacedConv(convolution, frames=frames, shift_div=shift_div)


def move_groups(groups_BTGCHW: Tensor, *, offsets_BG: Tensor) -> Tensor:
    """Return groups of channels moved to later frames by their offset, linear between frames, zero beyond the clip.

    Offsets lie within -2..2. A frame `step` frames away counts 1 - |offset - step|, as far as that is positive, which
    has a gradient for the offset.
    """
    frames = groups_BTGCHW.shape[1]
    padded = F.pad(groups_BTGCHW, (*(0, 0) * 4, REACH, REACH))
    moved = torch.zeros_like(groups_BTGCHW)
    for step in range(-REACH, REACH + 1):
        shares_BG = F.relu(1 - (offsets_BG - step).abs())
        moved = moved + shares_BG[:, None, :, None, None, None] * padded[:, REACH - step :][:, :frames]
    return moved


@register_model(
    "tin",
    clip="8x8x224",
    paper="Shao et al., 2020, arXiv:2001.06499",
    variants={
        "tin_r50": {"backbone": "torchvision:resnet50"},
        "tin_r50_16": {"backbone": "torchvision:resnet50", "frames": 16, "clip": "16x4x224"},
        "tin_r101": {"backbone": "torchvision:resnet101"},
    },
)
def tin(
    num_classes: int = 400,
    *,
    backbone: str = "torchvision:resnet50",
    frames: int = 8,
    shift_div: int = 4,
    dropout: float = 0.5,
    backbone_weights: str | None = None,
) -> TIN:
    """TIN on a 2D ResNet: 1 / `shift_div` of the channels move; `frames` is the number of frames of its clips."""
    for name, value in (("frames", frames), ("shift_div", shift_div)):
        if value < 1:
            raise InputError(f"{name} must be at least 1, found {value}")
    made = create_backbone(backbone, weights=backbone_weights)
    return TIN(made, num_classes=num_classes, frames=frames, shift_div=shift_div, dropout=dropout)
