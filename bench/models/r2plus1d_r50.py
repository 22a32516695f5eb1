"""R(2+1)D on ResNet-50: the middle convolution of each bottleneck goes over time, then over space.

Tran et al., 2018, arXiv:1711.11248. Structure and names of weights as in PyTorchVideo (Apache-2.0): time comes first
and keeps the width, unlike in the paper and in the R(2+1)D of 3D-ResNets-PyTorch and torchvision.
"""

from collections import OrderedDict

from torch import nn

from bench.core.registry import register_model
from bench.models.stages import (
    BLOCKS_OF_DEPTH,
    BlockModel,
    Bottleneck,
    Channels,
    Head,
    Size,
    Stage,
    WindowPool,
    conv3d,
    resnet_channels,
    resnet_stem,
)

STRIDES: tuple[Size, ...] = ((1, 2, 2), (1, 2, 2), (2, 2, 2), (2, 2, 2))


class R2Plus1DResNet(BlockModel):
    """ResNet-50 of factorised bottlenecks, with a stem that sees one frame and does not pool."""

    def __init__(self, num_classes: int, *, dropout: float) -> None:
        shapes = zip(BLOCKS_OF_DEPTH[50], resnet_channels(), STRIDES, strict=True)
        stages = [Stage(blocks, channels, stride=stride, bottleneck=_bottleneck) for blocks, channels, stride in shapes]
        head = Head(2048, num_classes=num_classes, pool=WindowPool((4, 7, 7)), dropout=dropout)
        super().__init__([resnet_stem(64, frames=1, is_pooled=False), *stages, head])


def _bottleneck(index: int, channels: Channels, stride: Size) -> Bottleneck:
    width = channels.inner
    layers: OrderedDict[str, nn.Module] = OrderedDict(
        conv_t=conv3d(width, width, kernel=(3, 1, 1), stride=(stride[0], 1, 1)),
        norm=nn.BatchNorm3d(width),
        activation=nn.ReLU(),
        conv_xy=conv3d(width, width, kernel=(1, 3, 3), stride=(1, *stride[1:])),
    )
    return Bottleneck(channels, nn.Sequential(layers))


@register_model("r2plus1d_r50", clip="16x4x224", paper="Tran et al., 2018, arXiv:1711.11248")
def build_r2plus1d_r50(num_classes: int = 400, *, dropout: float = 0.5) -> R2Plus1DResNet:
    """R(2+1)D on ResNet-50 as PyTorchVideo has it."""
    return R2Plus1DResNet(num_classes, dropout=dropout)
