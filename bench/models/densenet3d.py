"""3D DenseNet-BC: each layer reads the outputs of all earlier layers of its block.

Hara et al., 2018, arXiv:1711.09577, after Huang et al., 2017, arXiv:1608.06993; names of weights as in
3D-ResNets-PyTorch (MIT).
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.core.errors import InputError
from bench.core.registry import accepts_options_of, register_model
from bench.models.blocks import HaraModel, chosen, init_convolutions, require_positive

DEPTHS = {121: (6, 12, 24, 16), 169: (6, 12, 32, 32), 201: (6, 12, 48, 32), 264: (6, 12, 64, 48)}
STEM_WIDTH = 64
GROWTH = 32
BOTTLENECK_WIDTH = 4 * GROWTH


class DenseLayer(nn.Module):
    """Appends `GROWTH` new channels to its input."""

    def __init__(self, in_channels: int, *, dropout: float) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm3d(in_channels)
        self.conv1 = nn.Conv3d(in_channels, BOTTLENECK_WIDTH, 1, bias=False)
        self.norm2 = nn.BatchNorm3d(BOTTLENECK_WIDTH)
        self.conv2 = nn.Conv3d(BOTTLENECK_WIDTH, GROWTH, 3, padding=1, bias=False)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        new = self.conv1(F.relu_(self.norm1(x)))
        new = self.conv2(F.relu_(self.norm2(new)))
        return torch.cat([x, self.dropout(new)], dim=1)


class Transition(nn.Module):
    """Changes the number of channels and halves the clip.

    An axis of one position stays as it is, so that clips under 15 frames run; the published code fails on them.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm3d(in_channels)
        self.conv = nn.Conv3d(in_channels, out_channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        out = self.conv(F.relu_(self.norm(x)))
        window = [min(2, size) for size in out.shape[2:]]
        return F.avg_pool3d(out, window)


class DenseNet3d(HaraModel):
    """A 7x7 stem, four dense blocks with transitions between, norm and ReLU, a mean, one linear layer."""

    head_name = "classifier"

    def __init__(
        self,
        layers: Sequence[int],
        *,
        num_classes: int,
        stem_kernel_t: int = 7,
        stem_stride_t: int = 1,
        no_max_pool: bool = False,
        in_channels: int = 3,
        dropout: float = 0.0,
    ) -> None:
        require_positive(
            num_classes=num_classes, stem_kernel_t=stem_kernel_t, stem_stride_t=stem_stride_t, in_channels=in_channels
        )
        if not 0 <= dropout <= 1:
            raise InputError(f"dropout must be from 0 to 1, found {dropout!r}")
        super().__init__(in_channels=in_channels)
        self.features = nn.Sequential()
        self._add_stem(in_channels, kernel_t=stem_kernel_t, stride_t=stem_stride_t)
        if not no_max_pool:
            self.features.add_module("pool1", nn.MaxPool3d(3, stride=2, padding=1))
        channels = self._add_dense_blocks(layers, dropout=dropout)
        self.features.add_module("norm5", nn.BatchNorm3d(channels))
        self.classifier = nn.Linear(channels, num_classes)
        init_convolutions(self)

    def forward_features(self, *clips: Tensor) -> Tensor:
        """Return the mean of the last block over time and space, `(B, features)`."""
        (clip_BCTHW,) = clips
        return F.relu_(self.features(clip_BCTHW)).mean(dim=(2, 3, 4))

    def _add_stem(self, in_channels: int, *, kernel_t: int, stride_t: int) -> None:
        kernel, stride, padding = (kernel_t, 7, 7), (stride_t, 2, 2), (kernel_t // 2, 3, 3)
        conv = nn.Conv3d(in_channels, STEM_WIDTH, kernel, stride=stride, padding=padding, bias=False)
        self.features.add_module("conv1", conv)
        self.features.add_module("norm1", nn.BatchNorm3d(STEM_WIDTH))
        self.features.add_module("relu1", nn.ReLU(inplace=True))

    def _add_dense_blocks(self, layers: Sequence[int], *, dropout: float) -> int:
        """Add the blocks, with a transition to half the channels between two; returns the last block's channels."""
        channels = STEM_WIDTH
        for number, count in enumerate(layers, start=1):
            self.features.add_module(f"denseblock{number}", _dense_block(channels, count, dropout=dropout))
            channels += count * GROWTH
            if number < len(layers):
                self.features.add_module(f"transition{number}", Transition(channels, channels // 2))
                channels //= 2
        return channels


def _dense_block(in_channels: int, layers: int, *, dropout: float) -> nn.Sequential:
    block = nn.Sequential()
    for number in range(layers):
        block.add_module(f"denselayer{number + 1}", DenseLayer(in_channels + number * GROWTH, dropout=dropout))
    return block


@register_model(
    "densenet3d",
    clip="16x1x112",
    paper="Hara et al., 2018, arXiv:1711.09577",
    variants={f"densenet3d_{depth}": {"depth": depth} for depth in DEPTHS},
)
@accepts_options_of(DenseNet3d)
def densenet3d(num_classes: int = 700, *, depth: int = 121, **options: Any) -> DenseNet3d:
    """3D DenseNet-BC of 3D-ResNets-PyTorch; `dropout` follows each dense layer."""
    layers = chosen(DEPTHS, depth, name="depth of densenet3d")
    return DenseNet3d(layers, num_classes=num_classes, **options)
