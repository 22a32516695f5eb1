"""R(2+1)D: every 3D convolution split into one over space and one over time, with norm and ReLU between.

Tran et al., 2018, arXiv:1711.11248, as Hara's 3D-ResNets-PyTorch (MIT) builds it and names its weights: its own stem,
a width between the halves for each convolution, bottlenecks whose 1x1x1 convolutions stay whole. torchvision's and
VMZ's R(2+1)D are other models.
"""

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from bench.core.registry import accepts_options_of, register_model
from bench.models.blocks import ShortcutType, shortcut_between
from bench.models.resnet3d import DEPTHS, ResNet3d, resnet_of_depth

STEM_COLOURS = 3


class FactoredBasicBlock(nn.Module):
    """Two factored 3x3x3 convolutions beside a shortcut."""

    def __init__(
        self, in_channels: int, width: int, out_width: int, *, stride: int = 1, shortcut: ShortcutType = "B"
    ) -> None:
        super().__init__()
        first, second = factored_width(in_channels, width), factored_width(width, out_width)
        self.conv1_s = _over_space(in_channels, first, stride=stride)
        self.bn1_s = nn.BatchNorm3d(first)
        self.conv1_t = _over_time(first, width, stride=stride)
        self.bn1_t = nn.BatchNorm3d(width)
        self.conv2_s = _over_space(width, second)
        self.bn2_s = nn.BatchNorm3d(second)
        self.conv2_t = _over_time(second, out_width)
        self.bn2_t = nn.BatchNorm3d(out_width)
        self.downsample = shortcut_between(in_channels, out_width, stride=stride, kind=shortcut)

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu_(self.bn1_s(self.conv1_s(x)))
        out = F.relu_(self.bn1_t(self.conv1_t(out)))
        out = F.relu_(self.bn2_s(self.conv2_s(out)))
        out = self.bn2_t(self.conv2_t(out))
        out += self.downsample(x)
        return F.relu_(out)


class FactoredBottleneck(nn.Module):
    """A factored 3x3x3 convolution between two of 1x1x1, beside a shortcut."""

    def __init__(
        self, in_channels: int, width: int, out_width: int, *, stride: int = 1, shortcut: ShortcutType = "B"
    ) -> None:
        super().__init__()
        between = factored_width(width, width)
        self.conv1 = nn.Conv3d(in_channels, width, 1, bias=False)
        self.bn1 = nn.BatchNorm3d(width)
        self.conv2_s = _over_space(width, between, stride=stride)
        self.bn2_s = nn.BatchNorm3d(between)
        self.conv2_t = _over_time(between, width, stride=stride)
        self.bn2_t = nn.BatchNorm3d(width)
        self.conv3 = nn.Conv3d(width, out_width, 1, bias=False)
        self.bn3 = nn.BatchNorm3d(out_width)
        self.downsample = shortcut_between(in_channels, out_width, stride=stride, kind=shortcut)

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu_(self.bn1(self.conv1(x)))
        out = F.relu_(self.bn2_s(self.conv2_s(out)))
        out = F.relu_(self.bn2_t(self.conv2_t(out)))
        out = self.bn3(self.conv3(out))
        out += self.downsample(x)
        return F.relu_(out)


class R2Plus1D(ResNet3d):
    """A 3D ResNet with a factored stem, whose width is that of an RGB stem for any number of input channels."""

    def _add_stem(self, in_channels: int, width: int, *, kernel_t: int, stride_t: int) -> None:
        between = factored_width(STEM_COLOURS, width, kernel_t=kernel_t, kernel=7)
        self.conv1_s = nn.Conv3d(in_channels, between, (1, 7, 7), stride=(1, 2, 2), padding=(0, 3, 3), bias=False)
        self.bn1_s = nn.BatchNorm3d(between)
        self.conv1_t = nn.Conv3d(
            between, width, (kernel_t, 1, 1), stride=(stride_t, 1, 1), padding=(kernel_t // 2, 0, 0), bias=False
        )
        self.bn1_t = nn.BatchNorm3d(width)

    def _stem(self, clip_BCTHW: Tensor) -> Tensor:
        out = F.relu_(self.bn1_s(self.conv1_s(clip_BCTHW)))
        return F.relu_(self.bn1_t(self.conv1_t(out)))


def factored_width(in_channels: int, out_channels: int, *, kernel_t: int = 3, kernel: int = 3) -> int:
    """Return the channels between the halves of a factored convolution that give it no more weights than the whole.

    Tran et al., 2018, section 3.5; at least one channel.
    """
    weights_whole = in_channels * out_channels * kernel_t * kernel**2
    weights_a_channel = in_channels * kernel**2 + out_channels * kernel_t
    return max(1, weights_whole // weights_a_channel)


def _over_space(in_channels: int, out_channels: int, *, stride: int = 1) -> nn.Conv3d:
    return nn.Conv3d(in_channels, out_channels, (1, 3, 3), stride=(1, stride, stride), padding=(0, 1, 1), bias=False)


def _over_time(in_channels: int, out_channels: int, *, stride: int = 1) -> nn.Conv3d:
    return nn.Conv3d(in_channels, out_channels, (3, 1, 1), stride=(stride, 1, 1), padding=(1, 0, 0), bias=False)


@register_model(
    "r2plus1d",
    clip="16x1x112",
    paper="Tran et al., 2018, arXiv:1711.11248",
    variants={f"r2plus1d_{depth}": {"depth": depth} for depth in DEPTHS},
)
@accepts_options_of(resnet_of_depth, R2Plus1D)
def r2plus1d(num_classes: int = 700, *, depth: int = 50, **options: Any) -> R2Plus1D:
    """R(2+1)D of 3D-ResNets-PyTorch: convolutions split into space and time."""
    return resnet_of_depth(
        R2Plus1D,
        depth,
        basic=FactoredBasicBlock,
        bottleneck=FactoredBottleneck,
        family="r2plus1d",
        num_classes=num_classes,
        **options,
    )
