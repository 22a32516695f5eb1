"""ViViT, model 1: joint attention over all tubelets of a clip. Arnab et al., 2021, arXiv:2103.15691.

Written from the paper; names of weights as in Hugging Face transformers (Apache-2.0), which hosts the authors' weights.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.core.errors import ClipError
from bench.core.registry import register_model
from bench.models.base import VideoModel
from bench.models.vit_blocks import Mlp, init_vit, require_divisible, split_axis


class SeparateAttention(nn.Module):
    """Multi-head self-attention with one projection each for queries, keys and values."""

    def __init__(self, dim: int, *, heads: int) -> None:
        super().__init__()
        require_divisible(dim, heads)
        self.heads = heads
        self.q_proj = nn.Linear(dim, dim)
        self.k_proj = nn.Linear(dim, dim)
        self.v_proj = nn.Linear(dim, dim)
        self.o_proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = (
            split_axis(project(x), 2, self.heads, -1).transpose(1, 2)
            for project in (self.q_proj, self.k_proj, self.v_proj)
        )
        attended = F.scaled_dot_product_attention(query, key, value)
        output: Tensor = self.o_proj(attended.transpose(1, 2).flatten(2))
        return output


class Layer(nn.Module):
    """Pre-norm transformer block."""

    def __init__(self, dim: int, *, heads: int) -> None:
        super().__init__()
        self.layernorm_before = nn.LayerNorm(dim, eps=1e-6)
        self.attention = SeparateAttention(dim, heads=heads)
        self.layernorm_after = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = Mlp(dim, activation=nn.GELU(approximate="tanh"))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.layernorm_before(x))
        output: Tensor = x + self.mlp(self.layernorm_after(x))
        return output


class TubeletProjection(nn.Module):
    """Tubelets of frames x patch x patch pixels as vectors."""

    def __init__(self, dim: int, *, tubelet: int, patch: int) -> None:
        super().__init__()
        size = (tubelet, patch, patch)
        self.projection = nn.Conv3d(3, dim, size, stride=size)

    def forward(self, clip_BCTHW: Tensor) -> Tensor:
        output: Tensor = self.projection(clip_BCTHW).flatten(2).transpose(1, 2)
        return output


class Embeddings(nn.Module):
    """Class token and tubelets with one learned position each: `(B, C, T, H, W)` to `(B, 1 + N, D)`."""

    def __init__(self, dim: int, *, tubelet: int, patch: int, tokens: int) -> None:
        super().__init__()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.position_embeddings = nn.Parameter(torch.zeros(1, 1 + tokens, dim))
        self.patch_embeddings = TubeletProjection(dim, tubelet=tubelet, patch=patch)
        nn.init.trunc_normal_(self.cls_token, std=0.02)
        nn.init.trunc_normal_(self.position_embeddings, std=0.02)

    def forward(self, clip_BCTHW: Tensor) -> Tensor:
        tokens = self.patch_embeddings(clip_BCTHW)
        tokens = torch.cat([self.cls_token.expand(len(tokens), -1, -1), tokens], dim=1)
        return tokens + self.position_embeddings


class Encoder(nn.Module):
    """Embeddings, layers and the last norm."""

    def __init__(self, dim: int, *, depth: int, heads: int, embeddings: Embeddings) -> None:
        super().__init__()
        self.embeddings = embeddings
        self.layers = nn.ModuleList(Layer(dim, heads=heads) for _ in range(depth))
        self.layernorm = nn.LayerNorm(dim, eps=1e-6)

    def forward(self, clip_BCTHW: Tensor) -> Tensor:
        tokens = self.embeddings(clip_BCTHW)
        for layer in self.layers:
            tokens = layer(tokens)
        output: Tensor = self.layernorm(tokens)
        return output


class ViViT(VideoModel):
    """The class token after joint attention over space and time. Takes clips of exactly `frames` x `size` x `size`."""

    head_name = "classifier"
    mean = (0.5, 0.5, 0.5)
    std = (0.5, 0.5, 0.5)

    def __init__(
        self, num_classes: int, *, frames: int, size: int, tubelet: int, patch: int, dim: int, depth: int, heads: int
    ) -> None:
        super().__init__()
        self.frames, self.size = frames, size
        self.smallest_clip = (frames, size)
        tokens = (frames // tubelet) * (size // patch) ** 2
        embeddings = Embeddings(dim, tubelet=tubelet, patch=patch, tokens=tokens)
        self.vivit = Encoder(dim, depth=depth, heads=heads, embeddings=embeddings)
        self.classifier = nn.Linear(dim, num_classes)
        init_vit(self)

    def forward_features(self, *clips: Tensor) -> Tensor:
        """Return the normalised class token, `(B, D)`; raises ClipError for a clip of another size."""
        (clip_BCTHW,) = clips
        if clip_BCTHW.shape[2:] != (self.frames, self.size, self.size):
            found = "x".join(map(str, clip_BCTHW.shape[2:]))
            raise ClipError(
                f"this ViViT takes {self.frames}x{self.size}x{self.size} (frames x H x W), found {found}; "
                "its position table has that size: build it with other `frames` and `size`"
            )
        features: Tensor = self.vivit(clip_BCTHW)[:, 0]
        return features


@register_model(
    "vivit",
    clip="32x2x224",
    paper="Arnab et al., 2021, arXiv:2103.15691",
    variants={
        "vivit_b_16x2": {},
        "vivit_l_16x2": {"dim": 1024, "depth": 24, "heads": 16},
    },
)
def vivit(
    num_classes: int = 400,
    *,
    frames: int = 32,
    size: int = 224,
    tubelet: int = 2,
    patch: int = 16,
    dim: int = 768,
    depth: int = 12,
    heads: int = 12,
) -> ViViT:
    """ViViT with joint space-time attention; 16x2 are the sizes of a tubelet in pixels and frames."""
    return ViViT(num_classes, frames=frames, size=size, tubelet=tubelet, patch=patch, dim=dim, depth=depth, heads=heads)
