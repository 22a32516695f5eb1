"""X3D: a tiny model expanded step by step in time, space, width and depth.

Feichtenhofer, 2020, arXiv:2004.04730. Numbers and names of weights as in PyTorchVideo (Apache-2.0); in its stem the
names are swapped, `conv_t` being the convolution over space.
"""

import math
from collections import OrderedDict

from torch import Tensor, nn

from bench.core.registry import register_model
from bench.models.blocks import require_positive
from bench.models.stages import (
    WHOLE_MAP,
    BlockModel,
    Bottleneck,
    Channels,
    Head,
    Pooling,
    Size,
    Stage,
    Stem,
    Window,
    WindowPool,
    conv3d,
)

WIDTHS = (24, 48, 96, 192)
BASE_BLOCKS = (1, 2, 5, 3)
EXPANSION = 2.25
FEATURES = 2048


class X3D(BlockModel):
    """X3D with `depth_factor` times its base blocks. Time is never strided; the head pools over `window` (T, H, W)."""

    def __init__(
        self, num_classes: int, *, depth_factor: float, window: Window, shortcut_norm: bool, dropout: float
    ) -> None:
        into = (WIDTHS[0], *WIDTHS[:-1])
        stages = [
            Stage(
                math.ceil(depth_factor * blocks),
                Channels(into=before, inner=int(EXPANSION * width), out=width),
                stride=(1, 2, 2),
                bottleneck=_make_bottleneck,
                norms_stride=shortcut_norm,
            )
            for blocks, before, width in zip(BASE_BLOCKS, into, WIDTHS, strict=True)
        ]
        head = Head(FEATURES, num_classes=num_classes, pool=_projected_pool(window), dropout=dropout)
        super().__init__([_stem(), *stages, head])


class SqueezeExcitation(nn.Module):
    """Scales each channel by a gate computed from the means of all (Hu et al., 2018, arXiv:1709.01507)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        squeezed = squeezed_width(channels)
        self.block = nn.Sequential(
            nn.Conv3d(channels, squeezed, 1), nn.ReLU(), nn.Conv3d(squeezed, channels, 1), nn.Sigmoid()
        )

    def forward(self, x_BCTHW: Tensor) -> Tensor:
        gated: Tensor = x_BCTHW * self.block(x_BCTHW.mean((2, 3, 4), keepdim=True))
        return gated


def squeezed_width(channels: int) -> int:
    """Return a sixteenth of `channels` as the nearest multiple of 8, or the next if that is over a tenth smaller."""
    wanted = channels / 16
    nearest = max(8, int(wanted + 4) // 8 * 8)
    return nearest if nearest >= 0.9 * wanted else nearest + 8


def _stem() -> Stem:
    width = WIDTHS[0]
    layers: OrderedDict[str, nn.Module] = OrderedDict(
        conv_t=conv3d(3, width, kernel=(1, 3, 3), stride=(1, 2, 2)),
        conv_xy=conv3d(width, width, kernel=(5, 1, 1), groups=width),
    )
    return Stem(nn.Sequential(layers), width)


def _make_bottleneck(index: int, channels: Channels, stride: Size) -> Bottleneck:
    """Return a depthwise 3x3x3 bottleneck; every second block, from the first, has squeeze-and-excitation."""
    width = channels.inner
    gate = nn.Identity() if index % 2 else SqueezeExcitation(width)
    return Bottleneck(
        channels,
        conv3d(width, width, kernel=(3, 3, 3), stride=stride, groups=width),
        norm_b=nn.Sequential(nn.BatchNorm3d(width), gate),
        act_b=nn.SiLU(),
    )


def _projected_pool(window: Window) -> nn.Sequential:
    """Return the last convolution, the pooling, and the projection to `FEATURES`, which is cheap after the pooling."""
    width = int(EXPANSION * WIDTHS[-1])
    layers: OrderedDict[str, nn.Module] = OrderedDict(
        pre_conv=conv3d(WIDTHS[-1], width),
        pre_norm=nn.BatchNorm3d(width),
        pre_act=nn.ReLU(),
        pool=WindowPool(window),
        post_conv=conv3d(width, FEATURES),
        post_act=nn.ReLU(),
    )
    return nn.Sequential(layers)


@register_model(
    "x3d",
    clip="16x5x224",
    paper="Feichtenhofer, 2020, arXiv:2004.04730",
    variants={
        "x3d_xs": {"window": (4, 5, 5), "clip": "4x12x160"},
        "x3d_s": {"window": (13, 5, 5), "clip": "13x6x160"},
        "x3d_m": {"window": (16, 7, 7), "clip": "16x5x224"},
        "x3d_l": {"window": (16, 10, 10), "depth_factor": 5.0, "clip": "16x5x312"},
    },
)
def build_x3d(
    num_classes: int = 400,
    *,
    depth_factor: float = 2.2,
    window: Size = (16, 7, 7),
    shortcut_norm: bool = False,
    pooling: Pooling = "window",
    dropout: float = 0.5,
) -> X3D:
    """X3D; `window` is the clip's frames and a 32nd of its crop, over which the head pools.

    With `pooling` "mean" it pools over the whole map, as MMAction2's X3D does. `shortcut_norm` adds a batch norm to
    shortcuts that stride without widening: the X3D of PySlowFast and MMAction2 have it, PyTorchVideo's does not.
    """
    require_positive(depth_factor=depth_factor, window=min(window))
    return X3D(
        num_classes,
        depth_factor=depth_factor,
        window=WHOLE_MAP if pooling == "mean" else window,
        shortcut_norm=shortcut_norm,
        dropout=dropout,
    )
