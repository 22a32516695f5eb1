"""UniFormerV2: CLIP's image ViT with a query that gathers the video from its last layers. Li et al., 2022.

arXiv:2211.09552. Written from the paper; names of weights as in the authors' code (OpenGVLab/UniFormerV2, Apache-2.0).
The checkpoints of Kinetics have no local blocks over time and keep all frames; those of Something-Something have both.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.core.errors import ClipError, InputError
from bench.core.registry import register_model
from bench.models.base import VideoModel
from bench.models.vit_blocks import require_divisible, split_axis

LOCAL_REDUCTION = 1.5
"""How much narrower the convolution of a local block is than its tokens."""


class QuickMlp(nn.Module):
    """CLIP's MLP, whose activation is x * sigmoid(1.702 x)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.c_fc = nn.Linear(dim, 4 * dim)
        self.c_proj = nn.Linear(4 * dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.c_fc(x)
        output: Tensor = self.c_proj(hidden * torch.sigmoid(1.702 * hidden))
        return output


class CrossAttention(nn.Module):
    """Attention of `query` to `memory`, with the weights laid out as in `nn.MultiheadAttention`."""

    def __init__(self, dim: int, *, heads: int) -> None:
        super().__init__()
        require_divisible(dim, heads)
        self.heads = heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * dim, dim))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * dim))
        self.out_proj = nn.Linear(dim, dim)
        nn.init.xavier_uniform_(self.in_proj_weight)

    def forward(self, query: Tensor, memory: Tensor) -> Tensor:
        dim = query.shape[-1]
        if query is memory:
            projected = F.linear(query, self.in_proj_weight, self.in_proj_bias).chunk(3, dim=-1)
        else:
            first = F.linear(query, self.in_proj_weight[:dim], self.in_proj_bias[:dim])
            rest = F.linear(memory, self.in_proj_weight[dim:], self.in_proj_bias[dim:])
            projected = (first, *rest.chunk(2, dim=-1))
        queries, keys, values = (split_axis(each, 2, self.heads, -1).transpose(1, 2) for each in projected)
        attended = F.scaled_dot_product_attention(queries, keys, values)
        output: Tensor = self.out_proj(attended.transpose(1, 2).flatten(2))
        return output


class LocalBlock(nn.Module):
    """Depthwise convolution of the patches over three frames, added to them: `(B, T, 1 + N, D)` to the same shape."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        inner = int(dim // LOCAL_REDUCTION)
        self.pos_embed = nn.Sequential(
            nn.BatchNorm3d(dim),
            nn.Conv3d(dim, inner, 1),
            nn.Conv3d(inner, inner, (3, 1, 1), padding=(1, 0, 0), groups=inner),
            nn.Conv3d(inner, dim, 1),
        )

    def forward(self, tokens_BTND: Tensor) -> Tensor:
        class_tokens, patches = tokens_BTND[:, :, :1], tokens_BTND[:, :, 1:]
        maps = patches.permute(0, 3, 1, 2)[..., None]  # a kernel over time alone need not know height and width
        return torch.cat([class_tokens, patches + self.pos_embed(maps)[..., 0].permute(0, 2, 3, 1)], dim=2)


class ImageBlock(nn.Module):
    """CLIP's block on the tokens of each frame; up to two local blocks, before the attention and before the MLP."""

    def __init__(self, dim: int, *, heads: int, local_blocks: int) -> None:
        super().__init__()
        self.lmhra1 = LocalBlock(dim) if local_blocks > 0 else None
        self.lmhra2 = LocalBlock(dim) if local_blocks > 1 else None
        self.attn = CrossAttention(dim, heads=heads)
        self.ln_1 = nn.LayerNorm(dim)
        self.mlp = QuickMlp(dim)
        self.ln_2 = nn.LayerNorm(dim)

    def forward(self, tokens_BTND: Tensor) -> Tensor:
        batch = len(tokens_BTND)
        if self.lmhra1 is not None:
            tokens_BTND = self.lmhra1(tokens_BTND)
        frames = tokens_BTND.flatten(0, 1)
        normed = self.ln_1(frames)
        frames = frames + self.attn(normed, normed)
        if self.lmhra2 is not None:
            frames = self.lmhra2(split_axis(frames, 0, batch, -1)).flatten(0, 1)
        return split_axis(frames + self.mlp(self.ln_2(frames)), 0, batch, -1)


class QueryBlock(nn.Module):
    """The video query attends to all tokens of all frames."""

    def __init__(self, dim: int, *, heads: int) -> None:
        super().__init__()
        self.attn = CrossAttention(dim, heads=heads)
        self.ln_1 = nn.LayerNorm(dim)
        self.mlp = QuickMlp(dim)
        self.ln_2 = nn.LayerNorm(dim)
        self.ln_3 = nn.LayerNorm(dim)

    def forward(self, query: Tensor, memory: Tensor) -> Tensor:
        query = query + self.attn(self.ln_1(query), self.ln_3(memory))
        output: Tensor = query + self.mlp(self.ln_2(query))
        return output


class Transformer(nn.Module):
    """Image blocks, and query blocks behind the last `queries` of them."""

    def __init__(
        self,
        num_classes: int,
        *,
        dim: int,
        depth: int,
        heads: int,
        queries: int,
        local_blocks: int,
        mixes: bool,
        dropout: float,
    ) -> None:
        super().__init__()
        self.resblocks = nn.ModuleList(ImageBlock(dim, heads=heads, local_blocks=local_blocks) for _ in range(depth))
        self.temporal_cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.dpe = nn.ModuleList(nn.Conv3d(dim, dim, 3, padding=1, groups=dim) for _ in range(queries))
        self.dec = nn.ModuleList(QueryBlock(dim, heads=heads) for _ in range(queries))
        self.balance = nn.Parameter(torch.zeros(dim)) if mixes else None
        self.proj = nn.Sequential(nn.LayerNorm(dim), nn.Dropout(dropout), nn.Linear(dim, num_classes))

    def forward(self, tokens_BTND: Tensor, *, height: int, width: int) -> Tensor:
        """Return the query, mixed with the mean class token unless `mixes` is False, before `proj`: `(B, D)`."""
        query = self.temporal_cls_token.expand(len(tokens_BTND), -1, -1)
        first = len(self.resblocks) - len(self.dec)
        for number, block in enumerate(self.resblocks):
            tokens_BTND = block(tokens_BTND)
            if number >= first:
                patches = split_axis(tokens_BTND[:, :, 1:], 2, height, width).permute(0, 4, 1, 2, 3)
                patches = (patches + self.dpe[number - first](patches)).permute(0, 2, 3, 4, 1).flatten(2, 3)
                memory = torch.cat([tokens_BTND[:, :, :1], patches], dim=2).flatten(1, 2)
                query = self.dec[number - first](query, memory)
        if self.balance is None:
            return query[:, 0]
        share = self.balance.sigmoid()
        return (1 - share) * query[:, 0] + share * tokens_BTND[:, :, 0].mean(1)


class Backbone(nn.Module):
    """Patches of single frames, or of every second one from three, with a class token each; then the transformer."""

    def __init__(self, *, size: int, patch: int, dim: int, halves_time: bool, transformer: Transformer) -> None:
        super().__init__()
        frames, stride = (3, 2) if halves_time else (1, 1)
        self.conv1 = nn.Conv3d(
            3, dim, (frames, patch, patch), stride=(stride, patch, patch), padding=(frames // 2, 0, 0), bias=False
        )
        self.class_embedding = nn.Parameter(nn.init.normal_(torch.empty(dim), std=dim**-0.5))
        tokens = 1 + (size // patch) ** 2
        self.positional_embedding = nn.Parameter(nn.init.normal_(torch.empty(tokens, dim), std=dim**-0.5))
        self.ln_pre = nn.LayerNorm(dim)
        self.transformer = transformer

    def forward(self, clip_BCTHW: Tensor) -> Tensor:
        maps = self.conv1(clip_BCTHW)
        height, width = maps.shape[3:]
        patches = maps.flatten(3).permute(0, 2, 3, 1)
        class_tokens = self.class_embedding.expand(*patches.shape[:2], 1, -1)
        tokens = torch.cat([class_tokens, patches], dim=2) + self.positional_embedding
        output: Tensor = self.transformer(self.ln_pre(tokens), height=height, width=width)
        return output


class UniFormerV2(VideoModel):
    """Takes any number of frames of exactly `size` x `size` pixels."""

    head_name = "backbone.transformer.proj.2"
    mean = (0.48145466, 0.4578275, 0.40821073)
    std = (0.26862954, 0.26130258, 0.27577711)

    def __init__(
        self,
        num_classes: int,
        *,
        size: int,
        patch: int,
        dim: int,
        depth: int,
        heads: int,
        queries: int,
        local_blocks: int,
        halves_time: bool,
        mixes: bool,
        dropout: float,
    ) -> None:
        super().__init__()
        if not 1 <= queries <= depth:
            raise InputError(f"queries must be between 1 and the depth of {depth}, found {queries}")
        if local_blocks not in (0, 1, 2):
            raise InputError(f"local_blocks must be 0, 1 or 2, found {local_blocks}")
        self.size = size
        self.smallest_clip = (1, size)
        transformer = Transformer(
            num_classes,
            dim=dim,
            depth=depth,
            heads=heads,
            queries=queries,
            local_blocks=local_blocks,
            mixes=mixes,
            dropout=dropout,
        )
        self.backbone = Backbone(size=size, patch=patch, dim=dim, halves_time=halves_time, transformer=transformer)

    def forward_features(self, *clips: Tensor) -> Tensor:
        """Return the normalised video vector, `(B, D)`; raises ClipError for frames of another size."""
        (clip_BCTHW,) = clips
        if clip_BCTHW.shape[3:] != (self.size, self.size):
            found = "x".join(map(str, clip_BCTHW.shape[3:]))
            raise ClipError(
                f"this UniFormerV2 takes {self.size}x{self.size} pixels, found {found}; "
                "its position table has that size: build it with another `size`"
            )
        gathered = self.backbone(clip_BCTHW)
        features: Tensor = self.backbone.transformer.proj[:2](gathered)
        return features


LARGE = {"patch": 14, "dim": 1024, "depth": 24, "heads": 16}
SSV2 = {"local_blocks": 2, "halves_time": True}


@register_model(
    "uniformerv2",
    clip="8x8x224",
    paper="Li et al., 2022, arXiv:2211.09552",
    variants={
        "uniformerv2_b16_8": {},
        "uniformerv2_b16_16": {"clip": "16x4x224"},
        "uniformerv2_b16_ssv2_16": {**SSV2, "queries": 8, "clip": "16x4x224"},
        "uniformerv2_b16_ssv2_32": {**SSV2, "queries": 8, "clip": "32x2x224"},
        "uniformerv2_l14_8": LARGE,
        "uniformerv2_l14_16": {**LARGE, "clip": "16x4x224"},
        "uniformerv2_l14_32": {**LARGE, "clip": "32x2x224"},
        "uniformerv2_l14_ssv2_16": {**LARGE, **SSV2, "queries": 16, "clip": "16x4x224"},
        "uniformerv2_l14_ssv2_32": {**LARGE, **SSV2, "queries": 16, "clip": "32x2x224"},
        "uniformerv2_l14_336_8": {**LARGE, "size": 336, "clip": "8x8x336"},
        "uniformerv2_l14_336_32": {**LARGE, "size": 336, "clip": "32x2x336"},
        "uniformerv2_l14_336_64": {**LARGE, "size": 336, "clip": "64x1x336"},
    },
)
def uniformerv2(
    num_classes: int = 400,
    *,
    size: int = 224,
    patch: int = 16,
    dim: int = 768,
    depth: int = 12,
    heads: int = 12,
    queries: int = 4,
    local_blocks: int = 0,
    halves_time: bool = False,
    mixes: bool = True,
    dropout: float = 0.5,
) -> UniFormerV2:
    """UniFormerV2; `queries` is the number of layers, the last ones, that the video query reads.

    `local_blocks` 0, 1 or 2 are those of each layer; `halves_time` takes every second frame; `mixes` False classifies
    the query alone, as in the checkpoints with a frozen CLIP.
    """
    return UniFormerV2(
        num_classes,
        size=size,
        patch=patch,
        dim=dim,
        depth=depth,
        heads=heads,
        queries=queries,
        local_blocks=local_blocks,
        halves_time=halves_time,
        mixes=mixes,
        dropout=dropout,
    )
