"""Slow, C2D and I3D on ResNet: one pathway, which differs in where it convolves or pools over time.

Feichtenhofer et al., 2019, arXiv:1812.03982 (Slow); Wang et al., 2018, arXiv:1711.07971 (C2D and the inflated ResNet).
Numbers and names of weights as in PyTorchVideo (Apache-2.0).
"""

from collections.abc import Sequence
from functools import partial

from torch import nn

from bench.core.registry import register_model
from bench.models.blocks import require_positive
from bench.models.stages import (
    BLOCKS_OF_DEPTH,
    BlockNetwork,
    Depth,
    Head,
    Stage,
    WindowPool,
    make_spatial_bottleneck,
    resnet_channels,
    resnet_stem,
)


class TemporalResNet(BlockNetwork):
    """ResNet of `depth` whose stem spans `stem_frames` and whose bottlenecks span `stage_frames`, for each stage.

    `halves_time` max-pools pairs of frames after the first stage. The head averages over `window_frames` x 7 x 7.
    """

    def __init__(
        self,
        depth: Depth,
        num_classes: int,
        *,
        stem_frames: int,
        stage_frames: Sequence[Sequence[int]],
        halves_time: bool,
        window_frames: int,
        dropout: float,
    ) -> None:
        shapes = zip(BLOCKS_OF_DEPTH[depth], resnet_channels(), stage_frames, strict=True)
        stages = [
            Stage(
                blocks,
                channels,
                stride=(1, 1, 1) if stage == 0 else (1, 2, 2),
                bottleneck=partial(make_spatial_bottleneck, frames=frames),
            )
            for stage, (blocks, channels, frames) in enumerate(shapes)
        ]
        pools = [nn.MaxPool3d((2, 1, 1))] if halves_time else []
        head = Head(2048, num_classes=num_classes, pool=WindowPool((window_frames, 7, 7)), dropout=dropout)
        super().__init__([resnet_stem(64, frames=stem_frames), stages[0], *pools, *stages[1:], head])
        self.smallest_clip = (2, 1) if halves_time else (1, 1)


@register_model(
    "slow",
    clip="8x8x224",
    paper="Feichtenhofer et al., 2019, arXiv:1812.03982",
    variants={
        "slow_r50": {"depth": 50},
        "slow_r50_4x16": {"depth": 50, "window_frames": 4, "clip": "4x16x224"},
    },
)
def build_slow(
    num_classes: int = 400, *, depth: Depth = 50, window_frames: int = 8, dropout: float = 0.5
) -> TemporalResNet:
    """SlowFast's slow pathway alone: it convolves over time in its last two stages only."""
    require_positive(window_frames=window_frames)
    return TemporalResNet(
        depth,
        num_classes,
        stem_frames=1,
        stage_frames=[(1,), (1,), (3,), (3,)],
        halves_time=False,
        window_frames=window_frames,
        dropout=dropout,
    )


@register_model("c2d_r50", clip="8x8x224", paper="Wang et al., 2018, arXiv:1711.07971")
def build_c2d_r50(num_classes: int = 400, *, dropout: float = 0.5) -> TemporalResNet:
    """A 2D ResNet-50 on every frame; only its pooling sees time."""
    return TemporalResNet(
        50,
        num_classes,
        stem_frames=1,
        stage_frames=[(1,), (1,), (1,), (1,)],
        halves_time=True,
        window_frames=4,
        dropout=dropout,
    )


@register_model("i3d_r50", clip="8x8x224", paper="Wang et al., 2018, arXiv:1711.07971")
def build_i3d_r50(num_classes: int = 400, *, dropout: float = 0.5) -> TemporalResNet:
    """ResNet-50 inflated over time in its stem and in every second bottleneck; not the Inception-v1 I3D."""
    return TemporalResNet(
        50,
        num_classes,
        stem_frames=5,
        stage_frames=[(3,), (3, 1), (3, 1), (1, 3)],
        halves_time=True,
        window_frames=4,
        dropout=dropout,
    )
