"""MViT 1 and 2: multiscale ViTs with pooled attention. Fan et al., 2021, arXiv:2104.11227; Li et al., 2022.

arXiv:2112.01526. Version 1 has absolute positions and widens in the MLP; version 2 has decomposed relative positions,
adds the pooled query to the output and widens in the attention. Written from the papers; names of weights as in
PySlowFast (Apache-2.0), the authors' code. torchvision has one variant of each under other names
(`torchvision:mvit_v1_b`, `torchvision:mvit_v2_s`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.core.registry import register_model
from bench.models.base import VideoModel
from bench.models.vit_blocks import Mlp, init_vit, require_divisible, split_axis

Grid = tuple[int, int, int]
Pooling = Literal["class", "mean"]

EPS = 1e-6
KEY_STRIDE = 8
"""By how much keys and values are pooled in space in the first stage; halved wherever queries are pooled by two."""


@dataclass(frozen=True, kw_only=True)
class BlockShape:
    """What differs between the blocks of one model."""

    dim: int
    attention_dim: int
    out_dim: int
    heads: int
    query_stride: int
    key_stride: int
    stride_kernels: bool
    pools_query: bool
    is_relative: bool
    grid: Grid
    """Tokens over time, height and width that enter the block, for the clip that the model is built for."""


class PooledAttention(nn.Module):
    """Attention whose queries, keys and values are pooled by depthwise convolutions; the class token is not.

    With relative positions, the pooled query is also added to the output (residual pooling).
    """

    def __init__(self, shape: BlockShape) -> None:
        super().__init__()
        dim = shape.attention_dim
        require_divisible(dim, shape.heads)
        self.heads = shape.heads
        width = dim // shape.heads
        self.qkv = nn.Linear(shape.dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)
        self.pool_q, self.norm_q = (
            _pooling(width, shape.query_stride, stride_kernels=shape.stride_kernels)
            if shape.pools_query
            else (None, None)
        )
        self.pool_k, self.norm_k = _pooling(width, shape.key_stride, stride_kernels=shape.stride_kernels)
        self.pool_v, self.norm_v = _pooling(width, shape.key_stride, stride_kernels=shape.stride_kernels)
        self.is_relative = shape.is_relative
        if shape.is_relative:
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
        if self.is_relative:
            bias = self._relative_positions(query[:, :, 1:], query_grid, key_grid)
            attended = F.scaled_dot_product_attention(query, key, value, attn_mask=F.pad(bias, (1, 0, 1, 0)))
            attended = torch.cat([attended[:, :, :1], attended[:, :, 1:] + query[:, :, 1:]], dim=2)
        else:
            attended = F.scaled_dot_product_attention(query, key, value)
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
    """Pre-norm block, whose shortcut is max-pooled.

    If it widens, the shortcut of the branch that widens, attention or MLP, is a projection of the normalised tokens.
    """

    def __init__(self, shape: BlockShape) -> None:
        super().__init__()
        self.widens_first = shape.dim != shape.attention_dim
        self.widens_last = shape.attention_dim != shape.out_dim
        self.norm1 = nn.LayerNorm(shape.dim, eps=EPS)
        self.attn = PooledAttention(shape)
        self.norm2 = nn.LayerNorm(shape.attention_dim, eps=EPS)
        self.mlp = Mlp(shape.attention_dim)
        if self.widens_last:
            self.mlp.fc2 = nn.Linear(self.mlp.fc1.out_features, shape.out_dim)
        if self.widens_first or self.widens_last:
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
        shortcut = self.proj(normed) if self.widens_first else tokens
        tokens = _pooled(shortcut[:, None], grid, self.pool_skip, None)[0][:, 0] + attended
        normed = self.norm2(tokens)
        shortcut = self.proj(normed) if self.widens_last else tokens
        return shortcut + self.mlp(normed), new_grid


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


class MViT(VideoModel):
    """A class token and tokens whose grid shrinks as their width grows; the class token is classified.

    With `pooling` "mean" the mean of the other tokens is classified, as after MaskFeat. Relative positions are
    interpolated linearly for clips of another size than `frames` x `size`, and absolute ones over all three axes, as
    the authors do.
    """

    head_name = "head.projection"
    smallest_clip = (2, 32)

    def __init__(
        self,
        num_classes: int,
        *,
        dim: int,
        heads: int,
        depth: int,
        widens_at: Sequence[int],
        frames: int,
        size: int,
        stride_kernels: bool,
        is_relative: bool,
        pooling: Pooling,
        widens_in_mlp: bool,
    ) -> None:
        super().__init__()
        self.grid = (frames // 2, size // 4, size // 4)
        self.is_relative, self.pooling = is_relative, pooling
        self.patch_embed = PatchEmbed(dim)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        if not is_relative:
            self.pos_embed_spatial = nn.Parameter(torch.zeros(1, self.grid[1] * self.grid[2], dim))
            self.pos_embed_temporal = nn.Parameter(torch.zeros(1, self.grid[0], dim))
            self.pos_embed_class = nn.Parameter(torch.zeros(1, 1, dim))
        shapes = _block_shapes(
            dim,
            heads,
            depth=depth,
            widens_at=widens_at,
            grid=self.grid,
            stride_kernels=stride_kernels,
            is_relative=is_relative,
            widens_in_mlp=widens_in_mlp,
        )
        self.blocks = nn.ModuleList(MultiscaleBlock(shape) for shape in shapes)
        self.norm = nn.LayerNorm(shapes[-1].out_dim, eps=EPS)
        self.head = Head(shapes[-1].out_dim, num_classes)
        init_vit(self)
        for name, parameter in self.named_parameters():
            if name.startswith(("cls_token", "pos_embed")):
                nn.init.trunc_normal_(parameter, std=0.02)

    def forward_features(self, *clips: Tensor) -> Tensor:
        """Return the normalised class token or mean token, `(B, D)`."""
        (clip_BCTHW,) = clips
        maps = self.patch_embed(clip_BCTHW)
        grid: Grid = (maps.shape[2], maps.shape[3], maps.shape[4])
        class_token: Tensor = self.cls_token
        if not self.is_relative:
            maps = maps + self._positions(grid)
            class_token = class_token + self.pos_embed_class
        tokens = torch.cat([class_token.expand(len(maps), -1, -1), maps.flatten(2).transpose(1, 2)], dim=1)
        for block in self.blocks:
            tokens, grid = block(tokens, grid)
        features: Tensor = self.norm(tokens[:, 0] if self.pooling == "class" else tokens[:, 1:].mean(1))
        return features

    def _positions(self, grid: Grid) -> Tensor:
        """Return the absolute positions of a grid of tokens, `(1, D, T', H', W')`."""
        _, height, width = self.grid
        places = split_axis(self.pos_embed_spatial, 1, height, width).permute(0, 3, 1, 2)
        positions = places[:, :, None] + self.pos_embed_temporal.transpose(1, 2)[..., None, None]
        return positions if grid == self.grid else F.interpolate(positions, size=grid, mode="trilinear")


def _block_shapes(
    dim: int,
    heads: int,
    *,
    depth: int,
    widens_at: Sequence[int],
    grid: Grid,
    stride_kernels: bool,
    is_relative: bool,
    widens_in_mlp: bool,
) -> list[BlockShape]:
    shapes = []
    key_stride = KEY_STRIDE
    for number in range(depth):
        stride = 2 if number in widens_at else 1
        key_stride = max(key_stride // stride, 1)
        heads = heads * stride
        # Either the attention of the block that pools widens, or before it the MLP of the block before.
        attention_dim = dim if widens_in_mlp else dim * stride
        out_dim = 2 * dim if widens_in_mlp and number + 1 in widens_at else attention_dim
        shapes.append(
            BlockShape(
                dim=dim,
                attention_dim=attention_dim,
                out_dim=out_dim,
                heads=heads,
                query_stride=stride,
                key_stride=key_stride,
                stride_kernels=stride_kernels,
                pools_query=is_relative or stride > 1,
                is_relative=is_relative,
                grid=grid,
            )
        )
        dim, grid = out_dim, (grid[0], grid[1] // stride, grid[2] // stride)
    return shapes


def _pooling(width: int, stride: int, *, stride_kernels: bool) -> tuple[nn.Conv3d | None, nn.LayerNorm | None]:
    """Return the depthwise convolution that pools, and its norm; nothing for a kernel and a stride of one."""
    if stride_kernels and stride == 1:
        return None, None
    size = (1, stride + 1, stride + 1) if stride_kernels else (3, 3, 3)
    padding = (size[0] // 2, size[1] // 2, size[2] // 2)
    pool = nn.Conv3d(width, width, size, stride=(1, stride, stride), padding=padding, groups=width, bias=False)
    return pool, nn.LayerNorm(width, eps=EPS)


def _pooled(tokens: Tensor, grid: Grid, pool: nn.Module | None, norm: nn.Module | None) -> tuple[Tensor, Grid]:
    """Pool all tokens `(B, heads, 1 + N, C)` but the class token over their grid; return them and the new grid."""
    if pool is None:
        return tokens, grid
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
        # What F.interpolate(mode="linear") calls; on meta, that itself would import the compiler.
        table = torch.ops.aten.upsample_linear1d(table.T[None], [longest], False)[0].T.contiguous()
    # Positions of the shorter side are spread over the longer one.
    query_step, key_step = max(keys / queries, 1.0), max(queries / keys, 1.0)
    distance = torch.arange(queries)[:, None] * query_step - torch.arange(keys)[None] * key_step
    index = (distance + (keys - 1) * key_step).long()
    return table[index.to(table.device)]


@register_model(
    "mvitv1",
    clip="16x4x224",
    paper="Fan et al., 2021, arXiv:2104.11227",
    variants={
        "mvitv1_b_16x4": {},
        "mvitv1_b_32x3": {"depth": 24, "widens_at": [2, 5, 21], "frames": 32, "clip": "32x3x224"},
    },
)
def mvitv1(
    num_classes: int = 400,
    *,
    dim: int = 96,
    heads: int = 1,
    depth: int = 16,
    widens_at: Sequence[int] = (1, 3, 14),
    frames: int = 16,
    size: int = 224,
    stride_kernels: bool = False,
    pooling: Pooling = "class",
) -> MViT:
    """MViT; `widens_at` are the blocks that double the heads and halve the grid in space, of twice the width.

    Poolings have kernels of 3x3x3, or with `stride_kernels` of one more than their stride, over space alone.
    """
    return MViT(
        num_classes,
        dim=dim,
        heads=heads,
        depth=depth,
        widens_at=widens_at,
        frames=frames,
        size=size,
        stride_kernels=stride_kernels,
        is_relative=False,
        pooling=pooling,
        widens_in_mlp=True,
    )


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
    stride_kernels: bool = False,
    pooling: Pooling = "class",
    widens_in_mlp: bool = False,
) -> MViT:
    """MViTv2; `widens_at` are the blocks that double width and heads and halve the grid in space.

    With `widens_in_mlp` the block before doubles the width, as in the models that were pretrained by MaskFeat.
    """
    return MViT(
        num_classes,
        dim=dim,
        heads=heads,
        depth=depth,
        widens_at=widens_at,
        frames=frames,
        size=size,
        stride_kernels=stride_kernels,
        is_relative=True,
        pooling=pooling,
        widens_in_mlp=widens_in_mlp,
    )
