"""CSN: bottlenecks whose 3x3x3 convolution is depthwise.

Tran et al., 2019, arXiv:1904.02811. Structure and names of weights as in PyTorchVideo (Apache-2.0), which has the
interaction-reduced model only; the interaction-preserved block is that of the authors' VMZ (Apache-2.0).
"""

from collections import OrderedDict
from functools import partial
from typing import Literal

from torch import nn

from bench.core.registry import register_model
from bench.models.blocks import require_positive
from bench.models.stages import (
    BLOCKS_OF_DEPTH,
    WHOLE_MAP,
    BlockModel,
    Bottleneck,
    Channels,
    Depth,
    Head,
    Pooling,
    Size,
    Stage,
    WindowPool,
    conv3d,
    resnet_channels,
    resnet_stem,
)

Interaction = Literal["reduced", "preserved"]


class CSN(BlockModel):
    """Channel-separated ResNet: time and space halve together, from the second stage on."""

    def __init__(
        self,
        depth: Depth,
        num_classes: int,
        *,
        interaction: Interaction,
        pooling: Pooling,
        norm_eps: float,
        dropout: float,
    ) -> None:
        shapes = zip(BLOCKS_OF_DEPTH[depth], resnet_channels(), strict=True)
        stages = [
            Stage(
                blocks,
                channels,
                stride=(1, 1, 1) if stage == 0 else (2, 2, 2),
                bottleneck=partial(_make_bottleneck, interaction=interaction),
            )
            for stage, (blocks, channels) in enumerate(shapes)
        ]
        pool = WindowPool(WHOLE_MAP if pooling == "mean" else (4, 7, 7))
        head = Head(2048, num_classes=num_classes, pool=pool, dropout=dropout)
        super().__init__([resnet_stem(64, frames=3), *stages, head])
        for module in self.modules():
            if isinstance(module, nn.BatchNorm3d):
                module.eps = norm_eps


def _make_bottleneck(index: int, channels: Channels, stride: Size, *, interaction: Interaction) -> Bottleneck:
    """Return a bottleneck; only `preserved` mixes channels by a 1x1x1 convolution before the depthwise one."""
    width = channels.inner
    depthwise = conv3d(width, width, kernel=(3, 3, 3), stride=stride, groups=width)
    if interaction == "reduced":
        return Bottleneck(channels, depthwise)
    layers = OrderedDict(pointwise=conv3d(width, width), norm=nn.BatchNorm3d(width), depthwise=depthwise)
    return Bottleneck(channels, nn.Sequential(layers))


@register_model(
    "csn",
    clip="32x2x224",
    paper="Tran et al., 2019, arXiv:1904.02811",
    variants={
        "csn_r101": {"depth": 101},
        "ir_csn_r50": {"depth": 50},
        "ir_csn_r152": {"depth": 152, "interaction": "reduced"},
        "ip_csn_r152": {"depth": 152, "interaction": "preserved"},
    },
)
def build_csn(
    num_classes: int = 400,
    *,
    depth: Depth = 101,
    interaction: Interaction = "reduced",
    pooling: Pooling = "window",
    norm_eps: float = 1e-5,
    dropout: float = 0.5,
) -> CSN:
    """Channel-separated ResNet; only its 1x1x1 convolutions mix channels.

    MMAction2's, ported from the authors' weights, pools over the whole map and has a `norm_eps` of 1e-3.
    """
    require_positive(norm_eps=norm_eps)
    return CSN(depth, num_classes, interaction=interaction, pooling=pooling, norm_eps=norm_eps, dropout=dropout)
