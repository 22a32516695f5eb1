"""VideoMAE and VideoMAE V2: a plain ViT on tubelets, pretrained by reconstructing masked videos.

Tong et al., 2022, arXiv:2203.12602; Wang et al., 2023, arXiv:2303.16727. Written from the papers; names of weights as
in the authors' fine-tuned checkpoints (MCG-NJU/VideoMAE, CC-BY-NC 4.0; OpenGVLab/VideoMAEv2, MIT).
"""

import math
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.core.errors import ClipError
from bench.core.registry import accepts_options_of, register_model
from bench.models.base import VideoModel
from bench.models.vit_blocks import Attention, Block, TubeletEmbed, init_vit, sinusoid_table, split_axis

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
MOST_LOG_SCALE = math.log(100.0)


class AttentionWithoutKeyBias(Attention):
    """Attention whose keys have no bias: adding one to every key would not change the softmax.

    `has_bias` False leaves out that of queries and values too. If `is_cosine`, queries and keys are normalised and
    each head scales their products by a learned factor of at most 100 (Liu et al., 2021, arXiv:2111.09883).
    """

    def __init__(self, dim: int, *, heads: int, has_bias: bool, is_cosine: bool) -> None:
        super().__init__(dim, heads=heads)
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.q_bias = nn.Parameter(torch.zeros(dim)) if has_bias else None
        self.v_bias = nn.Parameter(torch.zeros(dim)) if has_bias else None
        self.scale = nn.Parameter(torch.full((heads, 1, 1), math.log(10.0))) if is_cosine else None

    def project(self, x: Tensor) -> Tensor:
        if self.q_bias is None or self.v_bias is None:
            return F.linear(x, self.qkv.weight)
        return F.linear(x, self.qkv.weight, torch.cat([self.q_bias, torch.zeros_like(self.q_bias), self.v_bias]))

    def forward(self, x: Tensor) -> Tensor:
        if self.scale is None:
            return super().forward(x)
        query, key, value = split_axis(self.project(x), 2, 3, self.heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        factor = self.scale.clamp(max=MOST_LOG_SCALE).exp()
        attended = F.scaled_dot_product_attention(
            F.normalize(query, dim=-1) * factor, F.normalize(key, dim=-1), value, scale=1.0
        )
        output: Tensor = self.proj(attended.transpose(1, 2).flatten(2))
        return output


class ScaledBlock(Block):
    """Pre-norm transformer block whose branches are scaled by channel (Touvron et al., 2021, arXiv:2103.17239)."""

    def __init__(self, dim: int, *, attention: nn.Module, mlp_ratio: float) -> None:
        super().__init__(dim, attention=attention, mlp_ratio=mlp_ratio)
        self.gamma_1 = nn.Parameter(torch.full((dim,), 1e-5))
        self.gamma_2 = nn.Parameter(torch.full((dim,), 1e-5))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.gamma_1 * self.attn(self.norm1(x))
        output: Tensor = x + self.gamma_2 * self.mlp(self.norm2(x))
        return output


class VideoMae(VideoModel):
    """The encoder with a classifier on the mean of its tokens, or on the first of them. There is no class token.

    Positions are a fixed sine table over the flattened tokens, so clips of any length and size work, unless
    `learned_positions`, or `stored_positions`, the table that MMAction2 keeps in its files: then clips are of exactly
    `frames` x `size` x `size`. `layer_scale`, `qkv_bias` and `cosine` are options of the authors' code; `pooling`
    "first" is its `--use_cls`.
    """

    head_name = "head"
    mean = IMAGENET_MEAN
    std = IMAGENET_STD
    positions: Tensor
    pos_embed: Tensor

    def __init__(
        self,
        num_classes: int,
        *,
        frames: int = 16,
        size: int = 224,
        tubelet: int = 2,
        patch: int = 16,
        dim: int = 384,
        depth: int = 12,
        heads: int = 6,
        mlp_ratio: float = 4.0,
        pooling: Literal["mean", "first"] = "mean",
        layer_scale: bool = False,
        learned_positions: bool = False,
        stored_positions: bool = False,
        qkv_bias: bool = True,
        cosine: bool = False,
    ) -> None:
        super().__init__()
        is_fixed = learned_positions or stored_positions
        self.clip = (frames, size, size) if is_fixed else None
        self.smallest_clip = (frames, size) if is_fixed else (tubelet, patch)
        self.patch_embed = TubeletEmbed(dim, tubelet=tubelet, patch=patch)
        tokens = (frames // tubelet) * (size // patch) ** 2
        if learned_positions:
            self.pos_embed = nn.Parameter(torch.zeros(1, tokens, dim))
            nn.init.trunc_normal_(self.pos_embed, std=0.02)
        elif stored_positions:
            self.register_buffer("pos_embed", sinusoid_table(tokens, dim))
        else:
            self.register_buffer("positions", sinusoid_table(tokens, dim), persistent=False)
        block = ScaledBlock if layer_scale else Block
        self.blocks = nn.ModuleList(
            block(
                dim,
                attention=AttentionWithoutKeyBias(dim, heads=heads, has_bias=qkv_bias, is_cosine=cosine),
                mlp_ratio=mlp_ratio,
            )
            for _ in range(depth)
        )
        self.norm_name = "norm" if pooling == "first" else "fc_norm"
        self.add_module(self.norm_name, nn.LayerNorm(dim, eps=1e-6))
        self.head = nn.Linear(dim, num_classes)
        init_vit(self)

    def forward_features(self, *clips: Tensor) -> Tensor:
        """Return the normalised mean of all tokens, or the first one, `(B, D)`.

        Raises ClipError for a clip that its positions do not fit.
        """
        (clip_BCTHW,) = clips
        if self.clip is not None and clip_BCTHW.shape[2:] != self.clip:
            found, wanted = ("x".join(map(str, size)) for size in (clip_BCTHW.shape[2:], self.clip))
            raise ClipError(
                f"this VideoMAE takes {wanted} (frames x H x W), found {found}; "
                "its positions have that size: build it with other `frames` and `size`"
            )
        tokens = self.patch_embed(clip_BCTHW)
        tokens = tokens + self._positions_for(tokens)
        for block in self.blocks:
            tokens = block(tokens)
        norm = self.get_submodule(self.norm_name)
        features: Tensor = norm(tokens)[:, 0] if self.norm_name == "norm" else norm(tokens.mean(1))
        return features

    def _positions_for(self, tokens: Tensor) -> Tensor:
        if self.clip is not None:
            return self.pos_embed
        count, dim = tokens.shape[1:]
        if count == self.positions.shape[1]:
            return self.positions
        return sinusoid_table(count, dim).to(tokens)


BASE = {"dim": 768, "depth": 12, "heads": 12}
LARGE = {"dim": 1024, "depth": 24, "heads": 16}
HUGE = {"dim": 1280, "depth": 32, "heads": 16}
GIANT = {"dim": 1408, "depth": 40, "heads": 16, "patch": 14, "mlp_ratio": 48 / 11}


@register_model(
    "videomae",
    clip="16x4x224",
    paper="Tong et al., 2022, arXiv:2203.12602",
    variants={"videomae_s": {}, "videomae_b": BASE, "videomae_l": LARGE, "videomae_h": HUGE},
)
@accepts_options_of(VideoMae)
def videomae(num_classes: int = 400, **options: Any) -> VideoMae:
    """Fine-tuned VideoMAE; `frames` and `size` are those of the clips that its position table is built for."""
    return VideoMae(num_classes, **options)


@register_model(
    "videomaev2",
    clip="16x4x224",
    paper="Wang et al., 2023, arXiv:2303.16727",
    variants={
        "videomaev2_s": {},
        "videomaev2_b": BASE,
        "videomaev2_l": LARGE,
        "videomaev2_h": HUGE,
        "videomaev2_g": GIANT,
    },
)
@accepts_options_of(VideoMae)
def videomaev2(num_classes: int = 710, **options: Any) -> VideoMae:
    """VideoMAE V2, the same encoder; its small and base models are distilled on the 710 classes of Kinetics."""
    return VideoMae(num_classes, **options)
