"""UniFormerV2: CLIP's image ViT with a query that gathers the video from its last layers. Li et al., 2022.

arXiv:2211.09552. Written from the paper; names of weights as in the authors' code (OpenGVLab/UniFormerV2, Apache-2.0).
The form of the Kinetics checkpoints: without local temporal blocks and without temporal down-sampling, which the
authors use on Something-Something.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.core.errors import ClipError, InputError
from bench.core.registry import register_model
from bench.models.base import VideoModel
from bench.models.vit_blocks import require_divisible, split_axis


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


class ImageBlock(nn.Module):
    """CLIP's block on the tokens of one frame."""

    def __init__(self, dim: int, *, heads: int) -> None:
        super().__init__()
        self.attn = CrossAttention(dim, heads=heads)
        self.ln_1 = nn.LayerNorm(dim)
        self.mlp = QuickMlp(dim)
        self.ln_2 = nn.LayerNorm(dim)

    def forward(self, x: Tensor) -> Tensor:
        normed = self.ln_1(x)
        x = x + self.attn(normed, normed)
        output: Tensor = x + self.mlp(self.ln_2(x))
        return output


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

    def __init__(self, num_classes: int, *, dim: int, depth: int, heads: int, queries: int, dropout: float) -> None:
        super().__init__()
        self.resblocks = nn.ModuleList(ImageBlock(dim, heads=heads) for _ in range(depth))
        self.temporal_cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.dpe = nn.ModuleList(nn.Conv3d(dim, dim, 3, padding=1, groups=dim) for _ in range(queries))
        self.dec = nn.ModuleList(QueryBlock(dim, heads=heads) for _ in range(queries))
        self.balance = nn.Parameter(torch.zeros(dim))
        self.proj = nn.Sequential(nn.LayerNorm(dim), nn.Dropout(dropout), nn.Linear(dim, num_classes))

    def forward(self, tokens_BTND: Tensor, *, height: int, width: int) -> Tensor:
        """Return the query mixed with the mean class token, before `proj`: `(B, D)`."""
        batch, frames = tokens_BTND.shape[:2]
        tokens = tokens_BTND.flatten(0, 1)
        query = self.temporal_cls_token.expand(batch, -1, -1)
        first = len(self.resblocks) - len(self.dec)
        for number, block in enumerate(self.resblocks):
            tokens = block(tokens)
            if number >= first:
                video = split_axis(tokens, 0, batch, frames)
                patches = split_axis(video[:, :, 1:], 2, height, width).permute(0, 4, 1, 2, 3)
                patches = (patches + self.dpe[number - first](patches)).permute(0, 2, 3, 4, 1).flatten(2, 3)
                memory = torch.cat([video[:, :, :1], patches], dim=2).flatten(1, 2)
                query = self.dec[number - first](query, memory)
        share = self.balance.sigmoid()
        class_tokens = split_axis(tokens[:, 0], 0, batch, frames).mean(1)
        return (1 - share) * query[:, 0] + share * class_tokens


class Backbone(nn.Module):
    """Patches of single frames with a class token each, then the transformer."""

    def __init__(self, num_classes: int, *, size: int, patch: int, dim: int, transformer: Transformer) -> None:
        super().__init__()
        self.conv1 = nn.Conv3d(3, dim, (1, patch, patch), stride=(1, patch, patch), bias=False)
        self.class_embedding = nn.Parameter(dim**-0.5 * torch.randn(dim))
        self.positional_embedding = nn.Parameter(dim**-0.5 * torch.randn(1 + (size // patch) ** 2, dim))
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
        dropout: float,
    ) -> None:
        super().__init__()
        if not 1 <= queries <= depth:
            raise InputError(f"queries must be between 1 and the depth of {depth}, found {queries}")
        self.size = size
        self.smallest_clip = (1, size)
        transformer = Transformer(num_classes, dim=dim, depth=depth, heads=heads, queries=queries, dropout=dropout)
        self.backbone = Backbone(num_classes, size=size, patch=patch, dim=dim, transformer=transformer)

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


@register_model(
    "uniformerv2",
    clip="8x8x224",
    paper="Li et al., 2022, arXiv:2211.09552",
    variants={
        "uniformerv2_b16_8": {},
        "uniformerv2_b16_16": {"clip": "16x4x224"},
        "uniformerv2_l14_8": LARGE,
        "uniformerv2_l14_336_8": {**LARGE, "size": 336, "clip": "8x8x336"},
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
    dropout: float = 0.5,
) -> UniFormerV2:
    """UniFormerV2 as published for Kinetics; `queries` is the number of layers that the video query reads."""
    return UniFormerV2(
        num_classes, size=size, patch=patch, dim=dim, depth=depth, heads=heads, queries=queries, dropout=dropout
    )
