"""Hiera: a hierarchical ViT without convolutions or relative positions. Ryali et al., 2023, arXiv:2306.00989.

Written from the paper; names of weights as in the authors' code (facebookresearch/hiera, Apache-2.0). They reorder
tokens so that pooling is a reduction over an axis; here tokens stay a grid, which gives the same values.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.core.errors import ClipError
from bench.core.registry import register_model
from bench.models.base import VideoModel
from bench.models.vit_blocks import Mlp, init_vit, require_divisible, split_axis

MASK_UNIT = 8
"""Side, in tokens of the first stage, of the squares that local attention stays inside."""


class UnitAttention(nn.Module):
    """Attention inside mask units, or over the whole clip; queries may be max-pooled 2x2 in space."""

    def __init__(self, dim: int, out_dim: int, *, heads: int, pools: bool, unit: int | None) -> None:
        super().__init__()
        require_divisible(out_dim, heads)
        self.heads, self.pools, self.unit = heads, pools, unit
        self.qkv = nn.Linear(dim, 3 * out_dim)
        self.proj = nn.Linear(out_dim, out_dim)

    def forward(self, grid_BTHWC: Tensor) -> Tensor:
        query, key, value = self.qkv(grid_BTHWC).chunk(3, dim=-1)
        if self.pools:
            query = max_pool_2x2(query)
        frames, height, width = query.shape[1:4]
        unit = self.unit
        query_unit = unit // 2 if unit and self.pools else unit
        attended = F.scaled_dot_product_attention(
            self._heads_of(query, query_unit), self._heads_of(key, unit), self._heads_of(value, unit)
        )
        grid = _join_units(attended.transpose(1, 2).flatten(2), query_unit, (frames, height, width))
        output: Tensor = self.proj(grid)
        return output

    def _heads_of(self, grid_BTHWC: Tensor, unit: int | None) -> Tensor:
        """Return `(units, heads, tokens, channels of a head)`."""
        return split_axis(_split_units(grid_BTHWC, unit), 2, self.heads, -1).transpose(1, 2)


class HieraBlock(nn.Module):
    """Pre-norm block; the first one of a stage pools and widens."""

    def __init__(self, dim: int, out_dim: int, *, heads: int, pools: bool, unit: int | None) -> None:
        super().__init__()
        self.pools = pools
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.attn = UnitAttention(dim, out_dim, heads=heads, pools=pools, unit=unit)
        self.norm2 = nn.LayerNorm(out_dim, eps=1e-6)
        self.mlp = Mlp(out_dim)
        if dim != out_dim:
            self.proj = nn.Linear(dim, out_dim)

    def forward(self, grid_BTHWC: Tensor) -> Tensor:
        normed = self.norm1(grid_BTHWC)
        shortcut = grid_BTHWC
        if hasattr(self, "proj"):
            shortcut = self.proj(normed)  # of the normalised tokens, as the authors compute it
        if self.pools:
            shortcut = max_pool_2x2(shortcut)
        grid = shortcut + self.attn(normed)
        output: Tensor = grid + self.mlp(self.norm2(grid))
        return output


class PatchEmbed(nn.Module):
    """Overlapping patches of 3 x 7 x 7 pixels at a stride of 2 x 4 x 4: `(B, C, T, H, W)` to `(B, T', H', W', D)`."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv3d(3, dim, (3, 7, 7), stride=(2, 4, 4), padding=(1, 3, 3))

    def forward(self, clip_BCTHW: Tensor) -> Tensor:
        output: Tensor = self.proj(clip_BCTHW).permute(0, 2, 3, 4, 1)
        return output


class Head(nn.Module):
    """The classifier. The authors' also applies softmax in evaluation; here the protocol does."""

    def __init__(self, dim: int, num_classes: int) -> None:
        super().__init__()
        self.projection = nn.Linear(dim, num_classes)


class Hiera(VideoModel):
    """Four stages of blocks, local in the first two; the mean over tokens is classified.

    Takes clips of exactly `frames` x `size` x `size`, for which its position tables are made.
    """

    head_name = "head.projection"

    def __init__(
        self, num_classes: int, *, dim: int, heads: int, stages: Sequence[int], frames: int, size: int
    ) -> None:
        super().__init__()
        self.frames, self.size = frames, size
        self.smallest_clip = (frames, size)
        self.patch_embed = PatchEmbed(dim)
        self.pos_embed_spatial = nn.Parameter(torch.zeros(1, (size // 4) ** 2, dim))
        self.pos_embed_temporal = nn.Parameter(torch.zeros(1, frames // 2, dim))
        self.blocks = nn.ModuleList(_make_blocks(dim, heads, stages))
        width = dim * 2 ** (len(stages) - 1)
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.head = Head(width, num_classes)
        init_vit(self)
        nn.init.trunc_normal_(self.pos_embed_spatial, std=0.02)
        nn.init.trunc_normal_(self.pos_embed_temporal, std=0.02)

    def forward_features(self, *clips: Tensor) -> Tensor:
        """Return the normalised mean of all tokens, `(B, D)`; raises ClipError for a clip of another size."""
        (clip_BCTHW,) = clips
        if clip_BCTHW.shape[2:] != (self.frames, self.size, self.size):
            found = "x".join(map(str, clip_BCTHW.shape[2:]))
            raise ClipError(
                f"this Hiera takes {self.frames}x{self.size}x{self.size} (frames x H x W), found {found}; "
                "its position tables have that size: build it with other `frames` and `size`"
            )
        grid = self.patch_embed(clip_BCTHW)
        side = self.size // 4
        grid = grid + split_axis(self.pos_embed_spatial, 1, 1, side, side) + self.pos_embed_temporal[:, :, None, None]
        for block in self.blocks:
            grid = block(grid)
        features: Tensor = self.norm(grid.flatten(1, 3).mean(1))
        return features


def max_pool_2x2(grid_BTHWC: Tensor) -> Tensor:
    """Return the largest value of each 2 x 2 square in space."""
    return split_axis(split_axis(grid_BTHWC, 3, -1, 2), 2, -1, 2).amax((3, 5))


def _make_blocks(dim: int, heads: int, stages: Sequence[int]) -> list[HieraBlock]:
    blocks = []
    unit: int | None = MASK_UNIT
    for stage, count in enumerate(stages):
        for index in range(count):
            pools = stage > 0 and index == 0
            width = dim * 2**stage
            # The pooling block still attends as the stage before it does, as in the authors' code.
            blocks.append(
                HieraBlock(width // 2 if pools else width, width, heads=heads * 2**stage, pools=pools, unit=unit)
            )
            if pools or (stage == 0 and index == 0):
                unit = MASK_UNIT >> stage if stage < 2 else None
    return blocks


def _split_units(grid_BTHWC: Tensor, unit: int | None) -> Tensor:
    """Return the tokens by mask unit, `(units, tokens, C)`; one unit per clip if `unit` is None."""
    if unit is None:
        return grid_BTHWC.flatten(1, 3)
    split = split_axis(split_axis(grid_BTHWC, 3, -1, unit), 2, -1, unit)  # B, T, H/u, u, W/u, u, C
    return split.transpose(3, 4).flatten(4, 5).flatten(0, 3)


def _join_units(tokens: Tensor, unit: int | None, shape: tuple[int, int, int]) -> Tensor:
    """Return the grid `(B, T, H, W, C)` that `_split_units` took apart."""
    frames, height, width = shape
    if unit is None:
        return split_axis(tokens, 1, *shape)
    split = split_axis(split_axis(tokens, 0, -1, frames, height // unit, width // unit), 4, unit, unit)
    return split.transpose(3, 4).flatten(4, 5).flatten(2, 3)


@register_model(
    "hiera",
    clip="16x4x224",
    paper="Ryali et al., 2023, arXiv:2306.00989",
    variants={
        "hiera_tiny_16x224": {"stages": [1, 2, 7, 2]},
        "hiera_small_16x224": {"stages": [1, 2, 11, 2]},
        "hiera_base_16x224": {},
        "hiera_base_plus_16x224": {"dim": 112, "heads": 2},
        "hiera_large_16x224": {"dim": 144, "heads": 2, "stages": [2, 6, 36, 4]},
        "hiera_huge_16x224": {"dim": 256, "heads": 4, "stages": [2, 6, 36, 4]},
    },
)
def hiera(
    num_classes: int = 400,
    *,
    dim: int = 96,
    heads: int = 1,
    stages: Sequence[int] = (2, 3, 16, 3),
    frames: int = 16,
    size: int = 224,
) -> Hiera:
    """Hiera for video; `stages` are blocks per stage, and `frames` and `size` those of its position tables."""
    return Hiera(num_classes, dim=dim, heads=heads, stages=stages, frames=frames, size=size)
