"""MViTv2: a multiscale ViT with pooled attention and decomposed relative positions. Li et al., 2022, arXiv:2112.01526.

Written from the paper; names of weights as in PySlowFast (Apache-2.0), the authors' code. torchvision has the small
variant under other names (`torchvision:mvit_v2_s`).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.core.registry import register_model
from bench.models.base import VideoModel
from bench.models.vit_blocks import Mlp, init_vit, require_divisible, split_axis

Grid = tuple[int, int, int]

EPS = 1e-6
KEY_STRIDE = 8
"""By how much keys and values are pooled in space in the first stage; halved wherever queries are pooled by two."""


@dataclass(frozen=True, kw_only=True)
class BlockShape:
    """What differs between the blocks of one model."""

    dim: int
    out_dim: int
    heads: int
    query_stride: int
    key_stride: int
    grid: Grid
    """Tokens over time, height and width that enter the block, for the clip that the model is built for."""


class PooledAttention(nn.Module):
    """Attention whose queries, keys and values are pooled by depthwise convolutions; the class token is not."""

    def __init__(self, shape: BlockShape) -> None:
        super().__init__()
        require_divisible(shape.out_dim, shape.heads)
        self.heads = shape.heads
        width = shape.out_dim // shape.heads
        self.qkv = nn.Linear(shape.dim, 3 * shape.out_dim)
        self.proj = nn.Linear(shape.out_dim, shape.out_dim)
        self.pool_q, self.norm_q = _pooling(width, shape.query_stride)
        self.pool_k, self.norm_k = _pooling(width, shape.key_stride)
        self.pool_v, self.norm_v = _pooling(width, shape.key_stride)
        frames, height, breadth = shape.grid
        stride = min(shape.query_stride, shape.key_stride)
        self.rel_pos_h = nn.Parameter(torch.zeros(2 * (height // stride) - 1, width))
        self.rel_pos_w = nn.Parameter(torch.zeros(2 * (breadth // stride) - 1, width))
        self.rel_pos_t = nn.Parameter(torch.zeros(2 * frames - 1, width))

    def forward(self, tokens: Tensor, grid: Grid) -> tuple[Tensor, Grid]:
        """Return the attended tokens `(B, 1 + N', D)` and their grid after the pooling of queries."""
        qkv = split_axis(self.qkv(tokens), 2, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        query, query_grid = _pooled(qkv[0], grid, self.pool_q, self.norm_q)
        key, key_grid = _pooled(qkv[1], grid, self.pool_k, self.norm_k)
        value, _ = _pooled(qkv[2], grid, self.pool_v, self.norm_v)
        bias = self._relative_positions(query[:, :, 1:], query_grid, key_grid)
        attended = F.scaled_dot_product_attention(query, key, value, attn_mask=F.pad(bias, (1, 0, 1, 0)))
        # Residual pooling: the pooled query is added to everything but the class token.
        attended = torch.cat([attended[:, :, :1], attended[:, :, 1:] + query[:, :, 1:]], dim=2)
        output: Tensor = self.proj(attended.transpose(1, 2).flatten(2))
        return output, query_grid

    def _relative_positions(self, query: Tensor, query_grid: Grid, key_grid: Grid) -> Tensor:
        """Return what relative positions add to the logits, `(B, heads, queries, keys)`; from the unscaled query."""
        grid = split_axis(query, 2, *query_grid)
        tables = (self.rel_pos_t, self.rel_pos_h, self.rel_pos_w)
        over_t, over_h, over_w = (
            _table_between(table, *sides) for table, *sides in zip(tables, query_grid, key_grid, strict=True)
        )
        along_t = torch.einsum("bythwc,tkc->bythwk", grid, over_t)
        along_h = torch.einsum("bythwc,hkc->bythwk", grid, over_h)
        along_w = torch.einsum("bythwc,wkc->bythwk", grid, over_w)
        total = along_t[..., :, None, None] + along_h[..., None, :, None] + along_w[..., None, None, :]
        return total.flatten(5, 7).flatten(2, 4)


class MultiscaleBlock(nn.Module):
    """Pre-norm block; the shortcut of a widening block comes from the normalised tokens and is max-pooled."""

    def __init__(self, shape: BlockShape) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(shape.dim, eps=EPS)
        self.attn = PooledAttention(shape)
        self.norm2 = nn.LayerNorm(shape.out_dim, eps=EPS)
        self.mlp = Mlp(shape.out_dim)
        if shape.dim != shape.out_dim:
            self.proj = nn.Linear(shape.dim, shape.out_dim)
        stride = shape.query_stride
        self.pool_skip = (
            nn.MaxPool3d((1, stride + 1, stride + 1), (1, stride, stride), (0, (stride + 1) // 2, (stride + 1) // 2))
            if stride > 1
            else None
        )

    def forward(self, tokens: Tensor, grid: Grid) -> tuple[Tensor, Grid]:
        normed = self.norm1(tokens)
        attended, new_grid = self.attn(normed, grid)
        shortcut = self.proj(normed) if hasattr(self, "proj") else tokens
        if self.pool_skip is not None:
            shortcut = _pooled(shortcut[:, None], grid, self.pool_skip, None)[0][:, 0]
        tokens = shortcut + attended
        return tokens + self.mlp(self.norm2(tokens)), new_grid


class PatchEmbed(nn.Module):
    """Overlapping patches of 3 x 7 x 7 pixels at a stride of 2 x 4 x 4."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv3d(3, dim, (3, 7, 7), stride=(2, 4, 4), padding=(1, 3, 3))

    def forward(self, clip_BCTHW: Tensor) -> Tensor:
        output: Tensor = self.proj(clip_BCTHW)
        return output


class Head(nn.Module):
    """The classifier. PySlowFast's also applies softmax in evaluation; here the protocol does."""

    def __init__(self, dim: int, num_classes: int) -> None:
        super().__init__()
        self.projection = nn.Linear(dim, num_classes)


class MViTv2(VideoModel):
    """A class token and tokens whose grid shrinks as their width grows.

    Relative positions are interpolated linearly for clips of another size than `frames` x `size`, as the authors do.
    """

    head_name = "head.projection"
    smallest_clip = (2, 32)

    def __init__(
        self, num_classes: int, *, dim: int, heads: int, depth: int, widens_at: Sequence[int], frames: int, size: int
    ) -> None:
        super().__init__()
        self.patch_embed = PatchEmbed(dim)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        shapes = _block_shapes(dim, heads, depth=depth, widens_at=widens_at, grid=(frames // 2, size // 4, size // 4))
        self.blocks = nn.ModuleList(MultiscaleBlock(shape) for shape in shapes)
        self.norm = nn.LayerNorm(shapes[-1].out_dim, eps=EPS)
        self.head = Head(shapes[-1].out_dim, num_classes)
        init_vit(self)
        nn.init.trunc_normal_(self.cls_token, std=0.02)

    def forward_features(self, *clips: Tensor) -> Tensor:
        """Return the normalised class token, `(B, D)`."""
        (clip_BCTHW,) = clips
        maps = self.patch_embed(clip_BCTHW)
        grid: Grid = (maps.shape[2], maps.shape[3], maps.shape[4])
        tokens = torch.cat([self.cls_token.expand(len(maps), -1, -1), maps.flatten(2).transpose(1, 2)], dim=1)
        for block in self.blocks:
            tokens, grid = block(tokens, grid)
        features: Tensor = self.norm(tokens)[:, 0]
        return features


def _block_shapes(dim: int, heads: int, *, depth: int, widens_at: Sequence[int], grid: Grid) -> list[BlockShape]:
    shapes = []
    key_stride = KEY_STRIDE
    for number in range(depth):
        stride = 2 if number in widens_at else 1
        key_stride = max(key_stride // stride, 1)
        out_dim, heads = dim * stride, heads * stride
        shapes.append(
            BlockShape(dim=dim, out_dim=out_dim, heads=heads, query_stride=stride, key_stride=key_stride, grid=grid)
        )
        dim, grid = out_dim, (grid[0], grid[1] // stride, grid[2] // stride)
    return shapes


def _pooling(width: int, stride: int) -> tuple[nn.Conv3d, nn.LayerNorm]:
    pool = nn.Conv3d(width, width, 3, stride=(1, stride, stride), padding=1, groups=width, bias=False)
    return pool, nn.LayerNorm(width, eps=EPS)


def _pooled(tokens: Tensor, grid: Grid, pool: nn.Module, norm: nn.Module | None) -> tuple[Tensor, Grid]:
    """Pool all tokens `(B, heads, 1 + N, C)` but the class token over their grid; return them and the new grid."""
    batch, heads = tokens.shape[:2]
    maps = split_axis(tokens[:, :, 1:].flatten(0, 1), 1, *grid).permute(0, 4, 1, 2, 3)
    maps = pool(maps)
    pooled = split_axis(maps.flatten(2).transpose(1, 2), 0, batch, heads)
    pooled = torch.cat([tokens[:, :, :1], pooled], dim=2)
    return (pooled if norm is None else norm(pooled)), (maps.shape[2], maps.shape[3], maps.shape[4])


def _table_between(table: Tensor, queries: int, keys: int) -> Tensor:
    """Return the entries of a table of distances for each pair of positions, `(queries, keys, C)`."""
    longest = 2 * max(queries, keys) - 1
    if len(table) != longest:
        table = F.interpolate(table.T[None], size=longest, mode="linear")[0].T
    # Positions of the shorter side are spread over the longer one.
    query_step, key_step = max(keys / queries, 1.0), max(queries / keys, 1.0)
    distance = torch.arange(queries)[:, None] * query_step - torch.arange(keys)[None] * key_step
    index = (distance + (keys - 1) * key_step).long()
    return table[index.to(table.device)]


@register_model(
    "mvitv2",
    clip="16x4x224",
    paper="Li et al., 2022, arXiv:2112.01526",
    variants={
        "mvitv2_s_16x4": {},
        "mvitv2_b_32x3": {"depth": 24, "widens_at": [2, 5, 21], "frames": 32, "clip": "32x3x224"},
        "mvitv2_l_40x3": {
            "dim": 144,
            "heads": 2,
            "depth": 48,
            "widens_at": [2, 8, 44],
            "frames": 40,
            "size": 312,
            "clip": "40x3x312",
        },
    },
)
def mvitv2(
    num_classes: int = 400,
    *,
    dim: int = 96,
    heads: int = 1,
    depth: int = 16,
    widens_at: Sequence[int] = (1, 3, 14),
    frames: int = 16,
    size: int = 224,
) -> MViTv2:
    """MViTv2; `widens_at` are the blocks that double width and heads and halve the grid in space."""
    return MViTv2(num_classes, dim=dim, heads=heads, depth=depth, widens_at=widens_at, frames=frames, size=size)
