"""Slow, C2D and I3D on ResNet: one pathway, which differs in where it convolves or pools over time.

Feichtenhofer et al., 2019, arXiv:1812.03982 (Slow); Wang et al., 2018, arXiv:1711.07971 (C2D, the inflated ResNet, and
the non-local blocks that PySlowFast puts into any of them). Numbers and names of weights as in PyTorchVideo
(Apache-2.0).
"""

from collections.abc import Sequence
from functools import partial

from torch import nn

from bench.core.registry import register_model
from bench.models.blocks import chosen, require_positive
from bench.models.stages import (
    BLOCKS_OF_DEPTH,
    NON_LOCAL_BLOCKS,
    NON_LOCAL_PIXELS,
    Affinity,
    BlockModel,
    Depth,
    Head,
    Stage,
    WindowPool,
    make_spatial_bottleneck,
    resnet_channels,
    resnet_stem,
)


class TemporalResNet(BlockModel):
    """ResNet of `depth` whose stem spans `stem_frames` and whose bottlenecks span `stage_frames`, for each stage.

    `halves_time` max-pools pairs of frames after the first stage. The head averages over `window_frames` x 7 x 7.
    `non_local` names the affinity of the five non-local blocks; there are none if it is None.
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
        non_local: Affinity | None = None,
    ) -> None:
        blocks_of_stage = chosen(BLOCKS_OF_DEPTH, depth, name="depth")
        require_positive(window_frames=window_frames)
        stages = [
            Stage(
                blocks,
                channels,
                stride=(1, 1, 1) if stage == 0 else (1, 2, 2),
                bottleneck=partial(make_spatial_bottleneck, frames=stage_frames[stage]),
                non_local=NON_LOCAL_BLOCKS[stage] if non_local else (),
                affinity=non_local or "softmax",
            )
            for stage, (blocks, channels) in enumerate(zip(blocks_of_stage, resnet_channels(), strict=True))
        ]
        pools = [nn.MaxPool3d((2, 1, 1))] if halves_time else []
        head = Head(2048, num_classes=num_classes, pool=WindowPool((window_frames, 7, 7)), dropout=dropout)
        super().__init__([resnet_stem(64, frames=stem_frames), stages[0], *pools, *stages[1:], head])
        self.smallest_clip = (2 if halves_time else 1, NON_LOCAL_PIXELS if non_local else 1)


@register_model(
    "slow",
    clip="8x8x224",
    paper="Feichtenhofer et al., 2019, arXiv:1812.03982",
    variants={
        "slow_r50": {"depth": 50},
        "slow_r50_4x16": {"depth": 50, "window_frames": 4, "clip": "4x16x224"},
        "slow_r101": {"depth": 101},
        "slow_nln_r50": {"depth": 50, "non_local": "dot_product"},
        "slow_nln_r50_4x16": {"depth": 50, "non_local": "dot_product", "window_frames": 4, "clip": "4x16x224"},
    },
)
def build_slow(
    num_classes: int = 400,
    *,
    depth: Depth = 50,
    window_frames: int = 8,
    non_local: Affinity | None = None,
    dropout: float = 0.5,
) -> TemporalResNet:
    """SlowFast's slow pathway alone: it convolves over time in its last two stages only."""
    return slow_resnet(depth, num_classes, window_frames=window_frames, non_local=non_local, dropout=dropout)


def slow_resnet(
    depth: Depth, num_classes: int, *, window_frames: int, dropout: float, non_local: Affinity | None = None
) -> TemporalResNet:
    """Return the slow pathway as a model; see `build_slow`."""
    return TemporalResNet(
        depth,
        num_classes,
        stem_frames=1,
        stage_frames=[(1,), (1,), (3,), (3,)],
        halves_time=False,
        window_frames=window_frames,
        dropout=dropout,
        non_local=non_local,
    )


@register_model(
    "c2d",
    clip="8x8x224",
    paper="Wang et al., 2018, arXiv:1711.07971",
    variants={
        "c2d_r50": {},
        "c2d_nopool_r50": {"halves_time": False, "window_frames": 8},
        "c2d_nln_r50": {"non_local": "softmax"},
    },
)
def build_c2d(
    num_classes: int = 400,
    *,
    depth: Depth = 50,
    halves_time: bool = True,
    window_frames: int = 4,
    non_local: Affinity | None = None,
    dropout: float = 0.5,
) -> TemporalResNet:
    """A 2D ResNet on every frame; only its pooling, and its non-local blocks if it has any, see time."""
    return TemporalResNet(
        depth,
        num_classes,
        stem_frames=1,
        stage_frames=[(1,), (1,), (1,), (1,)],
        halves_time=halves_time,
        window_frames=window_frames,
        dropout=dropout,
        non_local=non_local,
    )


@register_model(
    "i3d_resnet",
    clip="8x8x224",
    paper="Wang et al., 2018, arXiv:1711.07971",
    variants={
        "i3d_r50": {"depth": 50},
        "i3d_r101": {"depth": 101},
        "i3d_nln_r50": {"depth": 50, "non_local": "softmax"},
        "i3d_nln_r101": {"depth": 101, "non_local": "softmax"},
    },
)
def build_i3d_resnet(
    num_classes: int = 400, *, depth: Depth = 50, non_local: Affinity | None = None, dropout: float = 0.5
) -> TemporalResNet:
    """ResNet inflated over time in its stem and in every second bottleneck; not the Inception-v1 I3D."""
    return TemporalResNet(
        depth,
        num_classes,
        stem_frames=5,
        stage_frames=[(3,), (3, 1), (3, 1), (1, 3)],
        halves_time=True,
        window_frames=4,
        dropout=dropout,
        non_local=non_local,
    )
