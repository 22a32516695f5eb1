"""ACTION-Net: a 2D ResNet whose blocks excite space-time, channels and motion of a clip. Wang et al., 2021.

arXiv:2103.07372. Written from the paper; names of weights as in the authors' code (V-Sense/ACTION-Net, MIT). As in TSM
the blocks see channels of neighbouring frames, but the kernels that move them are trained.
"""

from typing import cast

import torch.nn.functional as F
from torch import Tensor, nn

from bench.core.errors import InputError
from bench.core.registry import register_model
from bench.models.backbones import Backbone, by_clip, create_backbone
from bench.models.tsm import ClipLength, FrameScores, shifted_blocks

REDUCTION = 16
"""How much narrower the channels are from which the gates of channels and of motion are computed."""


class ActionConv(nn.Module):
    """A convolution on frames that are shifted in time, then scaled by three gates computed from the clip.

    Each gate adds its product to the frames: x -> x + gate * x; the convolution reads the sum of the three.
    """

    def __init__(self, net: nn.Conv2d, *, clip_length: ClipLength, shift_div: int) -> None:
        super().__init__()
        channels, squeezed = net.in_channels, net.in_channels // REDUCTION
        self.clip_length = clip_length
        self.net = net
        self.action_shift = nn.Conv1d(channels, channels, 3, padding=1, groups=channels, bias=False)
        self.action_p1_conv1 = nn.Conv3d(1, 1, 3, padding=1, bias=False)
        self.action_p2_squeeze = nn.Conv2d(channels, squeezed, 1, bias=False)
        self.action_p2_conv1 = nn.Conv1d(squeezed, squeezed, 3, padding=1, bias=False)
        self.action_p2_expand = nn.Conv2d(squeezed, channels, 1, bias=False)
        self.action_p3_squeeze = nn.Conv2d(channels, squeezed, 1, bias=False)
        self.action_p3_bn1 = nn.BatchNorm2d(squeezed)
        self.action_p3_conv1 = nn.Conv2d(squeezed, squeezed, 3, padding=1, groups=squeezed, bias=False)
        self.action_p3_expand = nn.Conv2d(squeezed, channels, 1, bias=False)
        self._start_as_tsm(channels // shift_div)

    def forward(self, frames_NCHW: Tensor) -> Tensor:
        shifted = self._shifted(frames_NCHW)
        gates = self._space_time_gate(shifted) + (self._channel_gate(shifted) + self._motion_gate(shifted))
        maps: Tensor = self.net(shifted * (3 + gates))
        return maps

    def _start_as_tsm(self, part: int) -> None:
        """Set the kernels over time to TSM's shift: `part` channels of the next frame, as many of the previous one."""
        kernels = self.action_shift.weight.detach()[:, 0]
        kernels.zero_()
        kernels[:part, 2].fill_(1)
        kernels[part : 2 * part, 0].fill_(1)
        kernels[2 * part :, 1].fill_(1)

    def _shifted(self, frames_NCHW: Tensor) -> Tensor:
        clip_BTCHW = by_clip(frames_NCHW, frames=self.clip_length.frames)
        batch, frames, channels, height, width = clip_BTCHW.shape
        pixels_NCT = clip_BTCHW.permute(0, 3, 4, 2, 1).reshape(-1, channels, frames)
        moved = self.action_shift(pixels_NCT).reshape(batch, height, width, channels, frames)
        shifted: Tensor = moved.permute(0, 4, 3, 1, 2).flatten(0, 1)
        return shifted

    def _space_time_gate(self, shifted_NCHW: Tensor) -> Tensor:
        """Return the gate of every place and frame, `(N, 1, H, W)`, from the mean over channels."""
        means_BTHW = by_clip(shifted_NCHW.mean(1), frames=self.clip_length.frames)
        gate: Tensor = self.action_p1_conv1(means_BTHW[:, None]).sigmoid()
        return gate.transpose(1, 2).flatten(0, 1)

    def _channel_gate(self, shifted_NCHW: Tensor) -> Tensor:
        """Return the gate of every channel and frame, `(N, C, 1, 1)`, from the mean over space."""
        squeezed_NC = self.action_p2_squeeze(shifted_NCHW.mean((2, 3), keepdim=True)).flatten(1)
        squeezed_BCT = by_clip(squeezed_NC, frames=self.clip_length.frames).transpose(1, 2)
        mixed_NC = F.relu(self.action_p2_conv1(squeezed_BCT)).transpose(1, 2).flatten(0, 1)
        gate: Tensor = self.action_p2_expand(mixed_NC[..., None, None]).sigmoid()
        return gate

    def _motion_gate(self, shifted_NCHW: Tensor) -> Tensor:
        """Return the gate of every channel and frame, `(N, C, 1, 1)`, from the change to the next frame.

        The last frame has no next one: its change is zero.
        """
        squeezed = self.action_p3_bn1(self.action_p3_squeeze(shifted_NCHW))
        now, later = (by_clip(x, frames=self.clip_length.frames) for x in (squeezed, self.action_p3_conv1(squeezed)))
        changes = (later[:, 1:] - now[:, :-1]).mean((3, 4), keepdim=True)
        changes_NC = F.pad(changes, (*(0, 0) * 3, 0, 1)).flatten(0, 1)
        gate: Tensor = self.action_p3_expand(changes_NC).sigmoid()
        return gate


class ActionNet(FrameScores):
    """The mean over frames of the class scores of a 2D ResNet with excited blocks."""

    def __init__(self, backbone: Backbone, *, num_classes: int, shift_div: int, dropout: float) -> None:
        super().__init__(backbone, num_classes=num_classes, dropout=dropout)
        self.smallest_clip = (2, self.smallest_clip[1])  # motion is a change between two frames
        for block in shifted_blocks(backbone.model, family="action_net"):
            convolution = cast("nn.Conv2d", block.conv1)
            block.conv1 = ActionConv(convolution, clip_length=self.clip_length, shift_div=shift_div)


@register_model(
    "action_net",
    clip="8x8x224",
    paper="Wang et al., 2021, arXiv:2103.07372",
    variants={f"action_net_r{depth}": {"backbone": f"torchvision:resnet{depth}"} for depth in (50, 101)},
)
def action_net(
    num_classes: int = 400,
    *,
    backbone: str = "torchvision:resnet50",
    shift_div: int = 8,
    dropout: float = 0.5,
    backbone_weights: str | None = None,
) -> ActionNet:
    """ACTION-Net on a 2D ResNet; before training, 2 / `shift_div` of the channels move, half of them either way."""
    if shift_div < 2:
        raise InputError(f"shift_div must be at least 2, as two parts of the channels move; found {shift_div}")
    made = create_backbone(backbone, weights=backbone_weights)
    return ActionNet(made, num_classes=num_classes, shift_div=shift_div, dropout=dropout)
