"""SlowFast: a slow pathway for appearance and a fast, thin pathway for motion, fused by lateral connections.

Feichtenhofer et al., 2019, arXiv:1812.03982. Numbers and names of weights as in PyTorchVideo (Apache-2.0).
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn

from bench.core.errors import ClipError, InputError
from bench.core.registry import register_model
from bench.models.base import InputSpec
from bench.models.blocks import chosen, require_positive
from bench.models.stages import (
    BLOCKS_OF_DEPTH,
    NON_LOCAL_BLOCKS,
    NON_LOCAL_PIXELS,
    STAGES,
    WHOLE_MAP,
    Affinity,
    BlockModel,
    Channels,
    Depth,
    Head,
    Stage,
    WindowPool,
    conv3d,
    make_spatial_bottleneck,
    resnet_channels,
    resnet_stem,
)

SLOW_WIDTH, FAST_WIDTH = 64, 8
FUSION_RATIO = 2
"""Channels that the fast pathway hands over, per channel that it has."""

Takes = Literal["pathways", "clip"]
ONE_CLIP = {"takes": "clip", "fusion_norm": False}
"""What sets apart MMAction2's SlowFast."""


class SlowFast(BlockModel):
    """`m(slow, fast)`, the slow clip taken from every `alpha`-th frame of the fast one.

    With `takes` "clip", as in MMAction2, it is `m(clip)`: the fast pathway sees the clip and the slow one every
    `alpha`-th frame from the first; both are averaged over their whole maps, and the head reads the fast one first.
    MMAction2 fuses without `fusion_norm`, the norm and ReLU behind the lateral convolution.

    `fusion_frames` is the temporal kernel of the fusions; `temporal_blocks` is the number of blocks in the third stage
    that convolve over time, from its first, in the slow pathway of `depth` and the fast one of `fast_depth`.
    `non_local` names the affinity of the slow pathway's non-local blocks, which follow the residual blocks
    `non_local_blocks` of each stage; there are none if it is None. The head averages over all frames and 7x7 of each
    pathway, so that both give as many windows; the published window spans all frames of the published clip.
    """

    def __init__(
        self,
        depth: Depth,
        num_classes: int,
        *,
        alpha: int,
        fusion_frames: int,
        temporal_blocks: tuple[int, int],
        dropout: float,
        non_local: Affinity | None = None,
        non_local_blocks: Sequence[Sequence[int]] = NON_LOCAL_BLOCKS,
        fast_depth: Depth | None = None,
        fusion_norm: bool = True,
        takes: Takes = "pathways",
    ) -> None:
        fast_depth = fast_depth or depth
        slow_third, fast_third = (
            [3 if block < blocks else 1 for block in range(BLOCKS_OF_DEPTH[each][2])]
            for each, blocks in zip((depth, fast_depth), temporal_blocks, strict=True)
        )
        fuse = partial(FastToSlow, kernel_frames=fusion_frames, stride_frames=alpha, has_norm=fusion_norm)
        slow = _stages(
            depth,
            _fused(resnet_channels(SLOW_WIDTH)),
            frames=[(1,), (1,), slow_third, (3,)],
            non_local=non_local,
            non_local_blocks=non_local_blocks,
        )
        fast = _stages(fast_depth, resnet_channels(FAST_WIDTH), frames=[(3,), (3,), fast_third, (3,)])
        fusions = [fuse(channels.out) for channels in resnet_channels(FAST_WIDTH)[:-1]]
        super().__init__(
            [
                Pathways(resnet_stem(SLOW_WIDTH, frames=1), resnet_stem(FAST_WIDTH, frames=5), fuse(FAST_WIDTH)),
                *(Pathways(*both) for both in zip(slow, fast, [*fusions, None], strict=True)),
                JoinPathways(takes),
                Head(32 * (SLOW_WIDTH + FAST_WIDTH), num_classes=num_classes, pool=nn.Identity(), dropout=dropout),
            ]
        )
        self.alpha, self.takes = alpha, takes
        slow_input = InputSpec(frames=partial(slow_frames, alpha=alpha))
        self.inputs = (slow_input, InputSpec()) if takes == "pathways" else (InputSpec(),)
        self.smallest_clip = (alpha, NON_LOCAL_PIXELS if non_local else 1)

    def forward_maps(self, *clips: Tensor) -> Tensor:
        pathways = clips if self.takes == "pathways" else (clips[0][:, :, :: self.alpha], clips[0])
        *blocks, join, _head = self.blocks
        for block in blocks:
            pathways = block(*pathways)
        joined: Tensor = join(*pathways)
        return joined

    def check(self, *clips: Tensor) -> None:
        if [clip.ndim for clip in clips] == [5, 5] and self.takes == "pathways":
            self._check_pathways(*clips)
        super().check(*clips)

    def _check_pathways(self, slow: Tensor, fast: Tensor) -> None:
        if slow.shape[0] != fast.shape[0] or slow.shape[3:] != fast.shape[3:]:
            raise ClipError(
                f"the pathways of SlowFast differ in batch or size: slow {tuple(slow.shape)}, fast {tuple(fast.shape)}"
            )
        if slow.shape[2] != -(-fast.shape[2] // self.alpha):
            raise ClipError(
                f"SlowFast takes one slow frame for every {self.alpha} fast ones, found {slow.shape[2]} and "
                f"{fast.shape[2]}; a clip must have a multiple of {self.alpha} frames, and the smallest that works "
                f"is {self.alpha}x{self.smallest_clip[1]}x{self.smallest_clip[1]} (frames x H x W)"
            )


def slow_frames(frames: int, *, alpha: int) -> int:
    """Return how many of a clip's frames the slow pathway takes."""
    return frames // alpha


class Pathways(nn.Module):
    """One block of each pathway, `(slow, fast)` to `(slow, fast)`; `fusion` None leaves them apart."""

    def __init__(self, slow: nn.Module, fast: nn.Module, fusion: "FastToSlow | None") -> None:
        super().__init__()
        self.multipathway_blocks = nn.ModuleList([slow, fast])
        self.multipathway_fusion = fusion

    def forward(self, slow: Tensor, fast: Tensor) -> tuple[Tensor, Tensor]:
        slow, fast = (block(x) for block, x in zip(self.multipathway_blocks, (slow, fast), strict=True))
        return (slow if self.multipathway_fusion is None else self.multipathway_fusion(slow, fast)), fast


class FastToSlow(nn.Module):
    """Appends the fast pathway's features to the slow one, at its frame rate, by a strided convolution."""

    def __init__(self, fast_channels: int, *, kernel_frames: int, stride_frames: int, has_norm: bool) -> None:
        super().__init__()
        handed_over = fast_channels * FUSION_RATIO
        self.conv_fast_to_slow = conv3d(
            fast_channels, handed_over, kernel=(kernel_frames, 1, 1), stride=(stride_frames, 1, 1)
        )
        self.norm = nn.BatchNorm3d(handed_over) if has_norm else nn.Identity()
        self.activation = nn.ReLU() if has_norm else nn.Identity()

    def forward(self, slow: Tensor, fast: Tensor) -> Tensor:
        return torch.cat([slow, self.activation(self.norm(self.conv_fast_to_slow(fast)))], dim=1)


class JoinPathways(nn.Module):
    """Joins both pathways in one map, each averaged over its frames and every 7x7 window, or over its whole map."""

    def __init__(self, takes: Takes) -> None:
        super().__init__()
        self.is_fast_first = takes == "clip"
        self.pool = WindowPool(WHOLE_MAP if takes == "clip" else (None, 7, 7))

    def forward(self, slow: Tensor, fast: Tensor) -> Tensor:
        maps = (fast, slow) if self.is_fast_first else (slow, fast)
        return torch.cat([self.pool(each) for each in maps], dim=1)


def _fused(channels: tuple[Channels, ...]) -> tuple[Channels, ...]:
    """Return the slow pathway's channels, including those that the fast pathway adds before each stage."""
    share = FUSION_RATIO * FAST_WIDTH
    return tuple(replace(stage, into=stage.into + stage.into * share // SLOW_WIDTH) for stage in channels)


def _stages(
    depth: Depth,
    channels: tuple[Channels, ...],
    *,
    frames: Sequence[Sequence[int]],
    non_local: Affinity | None = None,
    non_local_blocks: Sequence[Sequence[int]] = NON_LOCAL_BLOCKS,
) -> list[Stage]:
    return [
        Stage(
            BLOCKS_OF_DEPTH[depth][stage],
            channels[stage],
            stride=(1, 1, 1) if stage == 0 else (1, 2, 2),
            bottleneck=partial(make_spatial_bottleneck, frames=frames[stage]),
            non_local=non_local_blocks[stage] if non_local else (),
            affinity=non_local or "softmax",
        )
        for stage in range(STAGES)
    ]


@register_model(
    "slowfast",
    clip="32x2x224",
    paper="Feichtenhofer et al., 2019, arXiv:1812.03982",
    variants={
        "slowfast_r50": {"depth": 50, "alpha": 4, "fusion_frames": 7},
        "slowfast_r50_4x16": {"depth": 50, "alpha": 8, "fusion_frames": 5},
        "slowfast_r50_16x8": {"depth": 50, "alpha": 4, "fusion_frames": 7, "clip": "64x2x224"},
        "slowfast_nln_r50": {"depth": 50, "alpha": 4, "fusion_frames": 5, "non_local": "dot_product"},
        "slowfast_nln_r50_4x16": {"depth": 50, "alpha": 8, "fusion_frames": 5, "non_local": "dot_product"},
        "slowfast_r101": {"depth": 101, "alpha": 4, "fusion_frames": 5},
        "slowfast_r101_50_50": {"depth": 101, "alpha": 4, "fusion_frames": 5, "temporal_blocks": 6},
        "slowfast_r101_50_101": {
            "depth": 101,
            "alpha": 4,
            "fusion_frames": 5,
            "temporal_blocks": 6,
            "fast_temporal_blocks": 23,
        },
        "slowfast_r101_16x8": {
            "depth": 101,
            "alpha": 4,
            "fusion_frames": 5,
            "temporal_blocks": 6,
            "clip": "64x2x224",
        },
        "slowfast_clip_r50": {"alpha": 4, "fusion_frames": 7, **ONE_CLIP},
        "slowfast_clip_r50_4x16": {"alpha": 8, "fusion_frames": 5, **ONE_CLIP},
        "slowfast_clip_r101": {"depth": 101, "alpha": 4, "fusion_frames": 7, **ONE_CLIP},
        "slowfast_clip_r101_r50_4x16": {"depth": 101, "fast_depth": 50, "alpha": 8, "fusion_frames": 5, **ONE_CLIP},
        "slowfast_nln_r101_16x8": {
            "depth": 101,
            "alpha": 4,
            "fusion_frames": 5,
            "temporal_blocks": 6,
            "non_local": "dot_product",
            "non_local_blocks": [[], [], [6, 13, 20], []],
            "clip": "64x2x224",
        },
    },
)
def build_slowfast(
    num_classes: int = 400,
    *,
    depth: Depth = 50,
    alpha: int = 4,
    fusion_frames: int = 7,
    temporal_blocks: int | None = None,
    fast_temporal_blocks: int | None = None,
    non_local: Affinity | None = None,
    non_local_blocks: Sequence[Sequence[int]] = NON_LOCAL_BLOCKS,
    fast_depth: Depth | None = None,
    fusion_norm: bool = True,
    takes: Takes = "pathways",
    dropout: float = 0.5,
) -> SlowFast:
    """SlowFast; `alpha` is the fast pathway's frame rate over the slow one's.

    `temporal_blocks` blocks of the third stage convolve over time (all if None), `fast_temporal_blocks` of the fast
    pathway's (as many if None). `non_local` and `non_local_blocks` put non-local blocks into the slow pathway.
    `fast_depth` is the depth of the fast pathway if it is not that of the slow one. With `takes` "clip" and mostly
    without `fusion_norm`, it is the model of MMAction2.
    """
    require_positive(alpha=alpha, fusion_frames=fusion_frames)
    if fusion_frames % 2 == 0:
        raise InputError(f"fusion_frames must be odd, found {fusion_frames}")
    slow_blocks = chosen(BLOCKS_OF_DEPTH, depth, name="depth")[2] if temporal_blocks is None else temporal_blocks
    is_alike = fast_depth is None or fast_depth == depth
    fast_blocks = slow_blocks if is_alike else BLOCKS_OF_DEPTH[fast_depth or depth][2]
    return SlowFast(
        depth,
        num_classes,
        alpha=alpha,
        fusion_frames=fusion_frames,
        temporal_blocks=(slow_blocks, fast_blocks if fast_temporal_blocks is None else fast_temporal_blocks),
        dropout=dropout,
        non_local=non_local,
        non_local_blocks=non_local_blocks,
        fast_depth=fast_depth,
        fusion_norm=fusion_norm,
        takes=takes,
    )
