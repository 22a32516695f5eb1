"""Pre-activation 3D ResNets: norm and ReLU come before each convolution, and nothing follows the sum.

Hara et al., 2018, arXiv:1711.09577, after He et al., 2016, arXiv:1603.05027. As in 3D-ResNets-PyTorch (MIT), the stem
has its own norm and ReLU, and unlike in the paper there is no norm or ReLU before the mean.
"""

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from bench.core.registry import accepts_options_of, register_model
from bench.models.blocks import ShortcutType, shortcut_between
from bench.models.resnet3d import DEPTHS, ResNet3d, resnet_of_depth


class PreActBasicBlock(nn.Module):
    """Two pre-activated 3x3x3 convolutions beside a shortcut of the raw input."""

    def __init__(
        self, in_channels: int, width: int, out_width: int, *, stride: int = 1, shortcut: ShortcutType = "B"
    ) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm3d(in_channels)
        self.conv1 = nn.Conv3d(in_channels, width, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm3d(width)
        self.conv2 = nn.Conv3d(width, out_width, 3, padding=1, bias=False)
        self.downsample = shortcut_between(in_channels, out_width, stride=stride, kind=shortcut)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv1(F.relu_(self.bn1(x)))
        out = self.conv2(F.relu_(self.bn2(out)))
        out += self.downsample(x)
        return out


class PreActBottleneck(nn.Module):
    """A 3x3x3 convolution between two of 1x1x1, each pre-activated, beside a shortcut of the raw input."""

    def __init__(
        self, in_channels: int, width: int, out_width: int, *, stride: int = 1, shortcut: ShortcutType = "B"
    ) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm3d(in_channels)
        self.conv1 = nn.Conv3d(in_channels, width, 1, bias=False)
        self.bn2 = nn.BatchNorm3d(width)
        self.conv2 = nn.Conv3d(width, width, 3, stride=stride, padding=1, bias=False)
        self.bn3 = nn.BatchNorm3d(width)
        self.conv3 = nn.Conv3d(width, out_width, 1, bias=False)
        self.downsample = shortcut_between(in_channels, out_width, stride=stride, kind=shortcut)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv1(F.relu_(self.bn1(x)))
        out = self.conv2(F.relu_(self.bn2(out)))
        out = self.conv3(F.relu_(self.bn3(out)))
        out += self.downsample(x)
        return out


@register_model(
    "preact_resnet3d",
    clip="16x1x112",
    paper="Hara et al., 2018, arXiv:1711.09577",
    variants={f"preact_resnet3d_{depth}": {"depth": depth} for depth in DEPTHS},
)
@accepts_options_of(resnet_of_depth, ResNet3d)
def preact_resnet3d(num_classes: int = 700, *, depth: int = 50, **options: Any) -> ResNet3d:
    """Pre-activation 3D ResNet of 3D-ResNets-PyTorch."""
    return resnet_of_depth(
        ResNet3d,
        depth,
        basic=PreActBasicBlock,
        bottleneck=PreActBottleneck,
        family="preact_resnet3d",
        num_classes=num_classes,
        **options,
    )
