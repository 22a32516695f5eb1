"""V-JEPA 2: a ViT encoder with rotary positions in time and space, and the attentive classifier that probes it.

Assran et al., 2025, arXiv:2506.09985. Written from the paper; names of weights as in the authors' code
(facebookresearch/vjepa2, MIT), whose published files hold an encoder or a classifier, never both.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.core.errors import ClipError
from bench.core.registry import register_model
from bench.models.base import InputSpec, VideoModel
from bench.models.vit_blocks import (
    Attention,
    Block,
    Mlp,
    TubeletEmbed,
    init_vit,
    require_divisible,
    split_axis,
)

TUBELET, PATCH = 2, 16
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
ROTARY_BASE = 10000.0

Rotation = tuple[Tensor, Tensor]
"""Cosines and sines by which channels of queries and keys are rotated, each `(N, channels)`."""


class RotaryAttention(Attention):
    """Self-attention whose queries and keys are rotated by their position in time, height and width."""

    def forward(self, x: Tensor, rotation: Rotation | None = None) -> Tensor:
        query, key, value = split_axis(self.project(x), 2, 3, self.heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        if rotation is not None:
            query, key = rotated(query, rotation), rotated(key, rotation)
        attended = F.scaled_dot_product_attention(query, key, value)
        output: Tensor = self.proj(attended.transpose(1, 2).flatten(2))
        return output


class RotaryBlock(Block):
    """Pre-norm transformer block whose attention knows positions."""

    def forward(self, x: Tensor, rotation: Rotation | None = None) -> Tensor:
        x = x + self.attn(self.norm1(x), rotation)
        output: Tensor = x + self.mlp(self.norm2(x))
        return output


class CrossAttention(nn.Module):
    """Attention of queries to tokens, without a projection behind it."""

    def __init__(self, dim: int, *, heads: int) -> None:
        super().__init__()
        require_divisible(dim, heads)
        self.heads = heads
        self.q = nn.Linear(dim, dim)
        self.kv = nn.Linear(dim, 2 * dim)

    def forward(self, queries: Tensor, tokens: Tensor) -> Tensor:
        query = split_axis(self.q(queries), 2, self.heads, -1).transpose(1, 2)
        key, value = split_axis(self.kv(tokens), 2, 2, self.heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        return F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)


class CrossAttentionBlock(nn.Module):
    """The query gathers from the normalised tokens, then passes through an MLP."""

    def __init__(self, dim: int, *, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.xattn = CrossAttention(dim, heads=heads)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = Mlp(dim)

    def forward(self, query: Tensor, tokens: Tensor) -> Tensor:
        query = query + self.xattn(query, self.norm1(tokens))
        output: Tensor = query + self.mlp(self.norm2(query))
        return output


class AttentivePooler(nn.Module):
    """`depth` - 1 self-attention blocks, then one block in which a learned query gathers: `(B, N, D)` to `(B, D)`."""

    def __init__(self, dim: int, *, depth: int, heads: int) -> None:
        super().__init__()
        self.query_tokens = nn.Parameter(torch.zeros(1, 1, dim))
        self.cross_attention_block = CrossAttentionBlock(dim, heads=heads)
        self.blocks = nn.ModuleList(
            Block(dim, attention=Attention(dim, heads=heads), eps=1e-5) for _ in range(depth - 1)
        )
        nn.init.trunc_normal_(self.query_tokens, std=0.02)

    def forward(self, tokens: Tensor) -> Tensor:
        for block in self.blocks:
            tokens = block(tokens)
        pooled: Tensor = self.cross_attention_block(self.query_tokens.expand(len(tokens), -1, -1), tokens)
        return pooled[:, 0]


class AttentiveClassifier(nn.Module):
    """The attentive pooler and a linear layer."""

    def __init__(self, dim: int, num_classes: int, *, depth: int, heads: int) -> None:
        super().__init__()
        self.pooler = AttentivePooler(dim, depth=depth, heads=heads)
        self.linear = nn.Linear(dim, num_classes)


class VJepa2(VideoModel):
    """The encoder, with an attentive classifier on its tokens unless `num_classes` is 0.

    Takes any even number of frames and any multiple of 16 pixels: rotary positions need no table.
    """

    mean = IMAGENET_MEAN
    std = IMAGENET_STD
    smallest_clip = (TUBELET, PATCH)

    def __init__(
        self,
        num_classes: int,
        *,
        dim: int,
        depth: int,
        heads: int,
        mlp_ratio: float,
        probe_depth: int,
        probe_heads: int,
    ) -> None:
        super().__init__()
        self.patch_embed = TubeletEmbed(dim, tubelet=TUBELET, patch=PATCH)
        self.blocks = nn.ModuleList(
            RotaryBlock(dim, attention=RotaryAttention(dim, heads=heads), mlp_ratio=mlp_ratio) for _ in range(depth)
        )
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.head_dim = dim // heads
        self.head_name = ""
        if num_classes:
            self.classifier = AttentiveClassifier(dim, num_classes, depth=probe_depth, heads=probe_heads)
            self.head_name, self.classifier_name = "classifier.linear", "classifier"
        init_vit(self)

    def forward_tokens(self, clip_BCTHW: Tensor) -> Tensor:
        """Return the normalised tokens `(B, N, D)`, N = T / 2 x H / 16 x W / 16 with time slowest."""
        frames, height, width = clip_BCTHW.shape[2:]
        grid = (frames // TUBELET, height // PATCH, width // PATCH)
        tokens = self.patch_embed(clip_BCTHW)
        rotation = rotation_of_grid(grid, self.head_dim, like=tokens)
        for block in self.blocks:
            tokens = block(tokens, rotation)
        normed: Tensor = self.norm(tokens)
        return normed

    def forward_features(self, *clips: Tensor) -> Tensor:
        """Return what the linear layer reads, `(B, D)`; the mean of the tokens if there is no classifier."""
        (clip_BCTHW,) = clips
        tokens = self.forward_tokens(clip_BCTHW)
        pooled: Tensor = self.classifier.pooler(tokens) if self.head_name else tokens.mean(1)
        return pooled

    def forward(self, *clips: Tensor) -> Tensor:
        """Return logits `(B, classes)`, or the tokens `(B, N, D)` if there is no classifier."""
        if self.head_name:
            return super().forward(*clips)
        self.check(*clips)
        return self.forward_tokens(*clips)


class VJepa2Probe(VideoModel):
    """The attentive classifier alone; takes tokens `(B, N, D)`, or a grid of tokens `(B, D, T, H, W)`.

    Tokens of several clips of a video may be joined, as the authors join those of 8 segments.
    """

    head_name = "linear"

    def __init__(self, num_classes: int, *, dim: int, probe_depth: int, probe_heads: int) -> None:
        super().__init__()
        self.inputs = (InputSpec(channels=dim),)
        self.pooler = AttentivePooler(dim, depth=probe_depth, heads=probe_heads)
        self.linear = nn.Linear(dim, num_classes)
        init_vit(self)

    def forward_features(self, *clips: Tensor) -> Tensor:
        """Return the pooled vector `(B, D)`."""
        (tokens,) = clips
        pooled: Tensor = self.pooler(tokens if tokens.ndim == 3 else tokens.flatten(2).transpose(1, 2))
        return pooled

    def check(self, *clips: Tensor) -> None:
        """Raise ClipError unless the input is tokens of the right width."""
        if len(clips) == 1 and clips[0].ndim == 3:
            found, expected = clips[0].shape[2], self.inputs[0].channels
            if found != expected:
                raise ClipError(f"{type(self).__name__} takes tokens (B, N, {expected}), found {tuple(clips[0].shape)}")
            return
        super().check(*clips)


def rotation_of_grid(grid: tuple[int, int, int], head_dim: int, *, like: Tensor) -> Rotation:
    """Return the rotation of the tokens of a grid of (time, height, width), for heads of `head_dim` channels.

    A third of the channels each, rounded down to an even number, turns with the position in time, height and width;
    the rest is not rotated. The frequencies f1 … fn are laid out as f1 … fn f1 … fn although the rotation pairs
    neighbouring channels: the authors keep this slip of their code, as the published weights were trained with it.
    """
    channels = 2 * (head_dim // 3 // 2)
    half = channels // 2
    exponent = torch.arange(half, device=like.device, dtype=like.dtype) / (channels / 2.0)
    frequencies = (1.0 / ROTARY_BASE**exponent).repeat(2)
    axes = torch.meshgrid(*(torch.arange(size, device=like.device) for size in grid), indexing="ij")
    angles = torch.cat([axis.flatten()[:, None].to(like.dtype) * frequencies for axis in axes], dim=1)
    unrotated = angles.new_zeros(len(angles), head_dim - 3 * channels)
    angles = torch.cat([angles, unrotated], dim=1)
    return angles.cos(), angles.sin()


def rotated(x: Tensor, rotation: Rotation) -> Tensor:
    """Return `(B, heads, N, channels)` with neighbouring channels rotated as pairs."""
    cosines, sines = rotation
    first, second = split_axis(x, 3, -1, 2).unbind(-1)
    turned = torch.stack((-second, first), dim=-1).flatten(3)
    return x * cosines + turned * sines


LARGE = {"dim": 1024, "depth": 24, "heads": 16}
HUGE = {"dim": 1280, "depth": 32, "heads": 16}
GIANT = {"dim": 1408, "depth": 40, "heads": 22, "mlp_ratio": 48 / 11}
SIZES = {
    "l": {**LARGE, "clip": "16x4x256"},
    "h": {**HUGE, "clip": "16x4x256"},
    "g": {**GIANT, "clip": "16x4x256"},
    "g_384": {**GIANT, "clip": "16x4x384"},
}


@register_model(
    "vjepa2",
    clip="16x4x256",
    paper="Assran et al., 2025, arXiv:2506.09985",
    variants={f"vjepa2_{size}": arguments for size, arguments in SIZES.items()},
)
def vjepa2(
    num_classes: int = 400,
    *,
    dim: int = 1024,
    depth: int = 24,
    heads: int = 16,
    mlp_ratio: float = 4.0,
    probe_depth: int = 4,
    probe_heads: int = 16,
) -> VJepa2:
    """V-JEPA 2 with its attentive classifier of `probe_depth` blocks, the cross-attention included."""
    return VJepa2(
        num_classes,
        dim=dim,
        depth=depth,
        heads=heads,
        mlp_ratio=mlp_ratio,
        probe_depth=probe_depth,
        probe_heads=probe_heads,
    )


@register_model(
    "vjepa2_encoder",
    clip="16x4x256",
    paper="Assran et al., 2025, arXiv:2506.09985",
    task="features",
    variants={f"vjepa2_{size}_encoder": arguments for size, arguments in SIZES.items()},
)
def vjepa2_encoder(
    num_classes: int = 0, *, dim: int = 1024, depth: int = 24, heads: int = 16, mlp_ratio: float = 4.0
) -> VJepa2:
    """V-JEPA 2's encoder, whose output are its tokens `(B, N, D)`; more than 0 classes add the attentive classifier."""
    return vjepa2(num_classes, dim=dim, depth=depth, heads=heads, mlp_ratio=mlp_ratio)


@register_model(
    "vjepa2_probe",
    clip="8x1x16",
    paper="Assran et al., 2025, arXiv:2506.09985",
    task="head",
    variants={
        "vjepa2_l_probe": {"dim": 1024},
        "vjepa2_h_probe": {"dim": 1280},
        "vjepa2_g_probe": {"dim": 1408},
    },
)
def vjepa2_probe(
    num_classes: int = 400, *, dim: int = 1024, probe_depth: int = 4, probe_heads: int = 16
) -> VJepa2Probe:
    """The attentive classifier of V-JEPA 2 on tokens; its clip is a grid of tokens, 8x16x16 for 16 frames of 256."""
    return VJepa2Probe(num_classes, dim=dim, probe_depth=probe_depth, probe_heads=probe_heads)
