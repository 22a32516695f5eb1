"""VideoMAE and VideoMAE V2: a plain ViT on tubelets, pretrained by reconstructing masked videos.

Tong et al., 2022, arXiv:2203.12602; Wang et al., 2023, arXiv:2303.16727. Written from the papers; names of weights as
in the authors' fine-tuned checkpoints (MCG-NJU/VideoMAE, CC-BY-NC 4.0; OpenGVLab/VideoMAEv2, MIT).
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.core.registry import accepts_options_of, register_model
from bench.models.base import VideoModel
from bench.models.vit_blocks import Attention, Block, TubeletEmbed, init_vit, sinusoid_table

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class AttentionWithoutKeyBias(Attention):
    """Attention whose keys have no bias: adding one to every key would not change the softmax."""

    def __init__(self, dim: int, *, heads: int) -> None:
        super().__init__(dim, heads=heads)
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.q_bias = nn.Parameter(torch.zeros(dim))
        self.v_bias = nn.Parameter(torch.zeros(dim))

    def project(self, x: Tensor) -> Tensor:
        bias = torch.cat([self.q_bias, torch.zeros_like(self.q_bias), self.v_bias])
        return F.linear(x, self.qkv.weight, bias)


class VideoMae(VideoModel):
    """The encoder with a classifier on the mean of its tokens. There is no class token.

    Positions are a fixed sine table over the flattened tokens, so clips of any length and size work.
    """

    head_name = "head"
    mean = IMAGENET_MEAN
    std = IMAGENET_STD
    positions: Tensor

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
    ) -> None:
        super().__init__()
        self.smallest_clip = (tubelet, patch)
        self.patch_embed = TubeletEmbed(dim, tubelet=tubelet, patch=patch)
        self.blocks = nn.ModuleList(
            Block(dim, attention=AttentionWithoutKeyBias(dim, heads=heads), mlp_ratio=mlp_ratio) for _ in range(depth)
        )
        self.fc_norm = nn.LayerNorm(dim, eps=1e-6)
        self.head = nn.Linear(dim, num_classes)
        tokens = (frames // tubelet) * (size // patch) ** 2
        self.register_buffer("positions", sinusoid_table(tokens, dim), persistent=False)
        init_vit(self)

    def forward_features(self, *clips: Tensor) -> Tensor:
        """Return the normalised mean of all tokens, `(B, D)`."""
        (clip_BCTHW,) = clips
        tokens = self.patch_embed(clip_BCTHW)
        tokens = tokens + self._positions_for(tokens)
        for block in self.blocks:
            tokens = block(tokens)
        features: Tensor = self.fc_norm(tokens.mean(1))
        return features

    def _positions_for(self, tokens: Tensor) -> Tensor:
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
