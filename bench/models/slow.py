"""Slow, C2D and I3D on ResNet: one pathway, which differs in where it convolves or pools over time.

Feichtenhofer et al., 2019, arXiv:1812.03982 (Slow); Wang et al., 2018, arXiv:1711.07971 (C2D, the inflated ResNet, and
the non-local blocks that PySlowFast puts into any of them). Numbers and names of weights as in PyTorchVideo
(Apache-2.0); the variants of I3D for clips of 32x2 are as in MMAction2 (Apache-2.0).
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

from torch import nn

from bench.core.registry import accepts_options_of, register_model
from bench.models.blocks import chosen, require_positive
from bench.models.stages import (
    BLOCKS_OF_DEPTH,
    NON_LOCAL_BLOCKS,
    NON_LOCAL_PIXELS,
    STAGES,
    WHOLE_MAP,
    Affinity,
    BlockModel,
    Depth,
    Head,
    NonLocalForm,
    Pooling,
    Stage,
    WindowPool,
    make_spatial_bottleneck,
    resnet_channels,
    resnet_stem,
)


class TemporalResNet(BlockModel):
    """ResNet of `depth` whose stem spans `stem_frames` and whose bottlenecks span `stage_frames`, for each stage.

    `halves_time` max-pools pairs of frames after the first stage. The head averages over windows of `window_frames` x 7
    x 7, or with `pooling` "mean" over the whole map. `non_local` names the affinity of the non-local blocks, which
    follow the residual blocks `non_local_blocks` of each stage; there are none if it is None. `stem_stride_t` and
    `pool_stride_t` are the strides over time of the stem and of the max-pooling behind it.
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
        non_local_blocks: Sequence[Sequence[int]] = NON_LOCAL_BLOCKS,
        non_local_form: NonLocalForm = "pyslowfast",
        pooling: Pooling = "window",
        stem_stride_t: int = 1,
        pool_stride_t: int = 1,
    ) -> None:
        blocks_of_stage = chosen(BLOCKS_OF_DEPTH, depth, name="depth")
        require_positive(window_frames=window_frames, stem_stride_t=stem_stride_t, pool_stride_t=pool_stride_t)
        stages = [
            Stage(
                blocks,
                channels,
                stride=(1, 1, 1) if stage == 0 else (1, 2, 2),
                bottleneck=partial(make_spatial_bottleneck, frames=stage_frames[stage]),
                non_local=non_local_blocks[stage] if non_local else (),
                affinity=non_local or "softmax",
                non_local_form=non_local_form,
            )
            for stage, (blocks, channels) in enumerate(zip(blocks_of_stage, resnet_channels(), strict=True))
        ]
        pools = [nn.MaxPool3d((2, 1, 1))] if halves_time else []
        pool = WindowPool(WHOLE_MAP if pooling == "mean" else (window_frames, 7, 7))
        head = Head(2048, num_classes=num_classes, pool=pool, dropout=dropout)
        stem = resnet_stem(64, frames=stem_frames, stride_t=stem_stride_t, pool_stride_t=pool_stride_t)
        super().__init__([stem, stages[0], *pools, *stages[1:], head])
        # The last frame pair remains if every stride leaves one; strides round up.
        strides = stem_stride_t * pool_stride_t
        self.smallest_clip = (strides + 1 if halves_time else 1, NON_LOCAL_PIXELS if non_local else 1)


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
@accepts_options_of(TemporalResNet)
def build_slow(
    num_classes: int = 400, *, depth: Depth = 50, window_frames: int = 8, dropout: float = 0.5, **options: Any
) -> TemporalResNet:
    """SlowFast's slow pathway alone: it convolves over time in its last two stages only."""
    return slow_resnet(depth, num_classes, window_frames=window_frames, dropout=dropout, **options)


def slow_resnet(
    depth: Depth, num_classes: int, *, window_frames: int, dropout: float, **options: Any
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
        **options,
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
@accepts_options_of(TemporalResNet)
def build_c2d(
    num_classes: int = 400,
    *,
    depth: Depth = 50,
    halves_time: bool = True,
    window_frames: int = 4,
    dropout: float = 0.5,
    **options: Any,
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
        **options,
    )


MMACTION_I3D = {"stem_stride_t": 2, "pool_stride_t": 2, "pooling": "mean", "clip": "32x2x224"}
MMACTION_NON_LOCAL = {**MMACTION_I3D, "non_local_form": "mmaction2"}


@register_model(
    "i3d_resnet",
    clip="8x8x224",
    paper="Wang et al., 2018, arXiv:1711.07971",
    variants={
        "i3d_r50": {"depth": 50},
        "i3d_r101": {"depth": 101},
        "i3d_nln_r50": {"depth": 50, "non_local": "softmax"},
        "i3d_nln_r101": {"depth": 101, "non_local": "softmax"},
        "i3d_r50_32x2": {"depth": 50, **MMACTION_I3D},
        "i3d_heavy_r50_32x2": {"depth": 50, "every_block": True, "pooling": "mean", "clip": "32x2x224"},
        "i3d_nln_r50_32x2": {"depth": 50, "non_local": "unscaled_softmax", **MMACTION_NON_LOCAL},
        "i3d_nln_dot_product_r50_32x2": {"depth": 50, "non_local": "dot_product", **MMACTION_NON_LOCAL},
        "i3d_nln_gaussian_r50_32x2": {"depth": 50, "non_local": "gaussian", **MMACTION_NON_LOCAL},
    },
)
@accepts_options_of(TemporalResNet)
def build_i3d_resnet(
    num_classes: int = 400,
    *,
    depth: Depth = 50,
    every_block: bool = False,
    window_frames: int = 4,
    dropout: float = 0.5,
    **options: Any,
) -> TemporalResNet:
    """ResNet inflated over time in its stem and in every second bottleneck; not the Inception-v1 I3D.

    With `every_block`, all bottlenecks span three frames. The variants for clips of 32x2 are those of MMAction2, which
    also halves time in the stem and in the pooling behind it, but not in its heavy form.
    """
    return TemporalResNet(
        depth,
        num_classes,
        stem_frames=5,
        stage_frames=[(3,)] * STAGES if every_block else [(3,), (3, 1), (3, 1), (1, 3)],
        halves_time=True,
        window_frames=window_frames,
        dropout=dropout,
        **options,
    )
