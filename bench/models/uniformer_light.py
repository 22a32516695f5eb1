"""UniFormer-XXS and -XS: a narrow UniFormer whose attention stages leave out half of their tokens. Li et al., 2022.

arXiv:2201.09450, section on lightweight models; the selection of tokens is that of Evo-ViT (Xu et al., 2021,
arXiv:2108.01390). Written from the papers; names of weights as in the authors' code (Sense-X/UniFormer, Apache-2.0).
"""

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.core.registry import register_model
from bench.models.base import VideoModel
from bench.models.blocks import require_positive
from bench.models.uniformer import CONVOLUTIONAL_STAGES, STAGES, LocalBlock, PatchEmbed, require_stages
from bench.models.vit_blocks import Attention, Mlp, init_vit, split_axis

MLP_RATIO = 3
KEPT = 0.5
"""Share of the tokens of a clip that take part in attention one by one."""
NEW_SCORES = 0.5
"""Weight of a block's own scores against those of the blocks before it."""


class ConvStem(nn.Module):
    """Two 3x3x3 convolutions: `(B, 3, T, H, W)` to `(B, D, T / 2, H / 4, W / 4)`."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.proj = nn.Sequential(
            nn.Conv3d(3, dim // 2, 3, stride=(1, 2, 2), padding=1),
            nn.BatchNorm3d(dim // 2),
            nn.GELU(),
            nn.Conv3d(dim // 2, dim, 3, stride=2, padding=1),
            nn.BatchNorm3d(dim),
        )

    def forward(self, clip_BCTHW: Tensor) -> Tensor:
        output: Tensor = self.proj(clip_BCTHW)
        return output


class ScaledLocalBlock(LocalBlock):
    """A convolutional block, each of its branches scaled by channel if `layer_scale`."""

    def __init__(self, dim: int, *, layer_scale: bool) -> None:
        super().__init__(dim, mlp_ratio=MLP_RATIO)
        self.gamma_1, self.gamma_2 = (_scales((1, dim, 1, 1, 1), used=layer_scale) for _ in range(2))

    def forward(self, maps_BCTHW: Tensor) -> Tensor:
        maps = maps_BCTHW + self.pos_embed(maps_BCTHW)
        maps = maps + _scaled(self.conv2(self.attn(self.conv1(self.norm1(maps)))), self.gamma_1)
        output: Tensor = maps + _scaled(self.mlp(self.norm2(maps)), self.gamma_2)
        return output


class ScoringAttention(Attention):
    """Self-attention that also returns how much the class token attends to each other token, `(B, N - 1)`."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]  # hooks need the name
        query, key, value = split_axis(self.project(x), 2, 3, self.heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        weights = ((query @ key.transpose(2, 3)) * query.shape[-1] ** -0.5).softmax(3)
        attended = (weights @ value).transpose(1, 2).flatten(2)
        return self.proj(attended), weights[:, :, 0, 1:].mean(1)


class PrunedBlock(nn.Module):
    """Position, then attention and the MLP on the class token, the tokens of the highest scores and one more.

    That one is the mean of the others by score; what the block adds to it is added to all of them.
    """

    def __init__(self, dim: int, *, heads: int, layer_scale: bool) -> None:
        super().__init__()
        self.pos_embed = nn.Conv3d(dim, dim, 3, padding=1, groups=dim)
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.attn = ScoringAttention(dim, heads=heads)
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = Mlp(dim, ratio=MLP_RATIO)
        self.gamma_1, self.gamma_2 = (_scales((dim,), used=layer_scale) for _ in range(2))

    def forward(self, class_token: Tensor, maps_BCTHW: Tensor, scores: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Return the class token `(B, 1, D)`, the maps and the scores of their places, `(B, N)`.

        `scores` None, before the first block, keeps all tokens.
        """
        maps = maps_BCTHW + self.pos_embed(maps_BCTHW)
        tokens = maps.flatten(2).transpose(1, 2)
        if scores is None:
            joined, own, _ = self._attend(torch.cat([class_token, tokens], dim=1))
            return joined[:, :1], _as_maps(joined[:, 1:], maps), own
        kept = int(tokens.shape[1] * KEPT)
        order = scores.argsort(dim=1, descending=True)
        tokens, scores = _take(tokens, order), scores.gather(1, order)
        shares = scores[:, kept:] / scores[:, kept:].sum(1, keepdim=True)
        merged = (shares[..., None] * tokens[:, kept:]).sum(1, keepdim=True)
        joined, own, added = self._attend(torch.cat([class_token, tokens[:, :kept], merged], dim=1))
        tokens = torch.cat([joined[:, 1:-1], tokens[:, kept:] + added[:, -1:]], dim=1)
        renewed = (1 - NEW_SCORES) * scores[:, :kept] + NEW_SCORES * own[:, :-1]
        scores = torch.cat([renewed, scores[:, kept:]], dim=1)
        places = order.argsort(dim=1)
        return joined[:, :1], _as_maps(_take(tokens, places), maps), scores.gather(1, places)

    def _attend(self, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the tokens after attention and MLP, the scores from the class token, and what was added in all."""
        attended, scores = self.attn(self.norm1(tokens))
        first = _scaled(attended, self.gamma_1)
        second = _scaled(self.mlp(self.norm2(tokens + first)), self.gamma_2)
        return tokens + first + second, scores, first + second


class UniFormerLight(VideoModel):
    """Two convolutional stages and two of attention to half of the tokens; the mean over the maps is classified.

    The class token only scores the others; `norm_cls` and `head_cls`, which classify it in training, take no part in
    the logits.
    """

    head_name = "head"
    smallest_clip = (2, 64)
    auxiliary_modules = ("norm_cls", "head_cls")

    def __init__(
        self, num_classes: int, *, blocks: Sequence[int], dims: Sequence[int], head_width: int, layer_scale: bool
    ) -> None:
        super().__init__()
        require_stages(blocks=blocks, dims=dims)
        self.patch_embed1 = ConvStem(dims[0])
        for number, (dim, out_dim) in enumerate(itertools.pairwise(dims), start=2):
            self.add_module(f"patch_embed{number}", PatchEmbed(dim, out_dim, kernel=(1, 2, 2), stride=(1, 2, 2)))
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dims[2]))
        self.cls_upsample = nn.Linear(dims[2], dims[3])
        for number, (dim, count) in enumerate(zip(dims, blocks, strict=True), start=1):
            stage = (
                ScaledLocalBlock(dim, layer_scale=layer_scale)
                if number <= CONVOLUTIONAL_STAGES
                else PrunedBlock(dim, heads=max(1, dim // head_width), layer_scale=layer_scale)
                for _ in range(count)
            )
            self.add_module(f"blocks{number}", nn.ModuleList(stage))
        self.norm = nn.BatchNorm3d(dims[3])
        self.norm_cls = nn.LayerNorm(dims[3])
        self.head = nn.Linear(dims[3], num_classes)
        self.head_cls = nn.Linear(dims[3], num_classes)
        init_vit(self)

    def forward_features(self, *clips: Tensor) -> Tensor:
        """Return the normalised mean over space and time, `(B, D)`."""
        (maps,) = clips
        class_token = self.cls_token.expand(len(maps), -1, -1)
        scores: Tensor | None = None
        for number in range(1, STAGES + 1):
            maps = self.get_submodule(f"patch_embed{number}")(maps)
            if number == STAGES:
                class_token = self.cls_upsample(class_token)
            for block in self.get_submodule(f"blocks{number}").children():
                if number <= CONVOLUTIONAL_STAGES:
                    maps = block(maps)
                else:
                    class_token, maps, scores = block(class_token, maps, scores)
            if scores is not None and number < STAGES:
                scores = _pooled(scores, maps)
        features: Tensor = self.norm(maps).mean((2, 3, 4))
        return features


def _scales(shape: tuple[int, ...], *, used: bool) -> nn.Parameter | None:
    return nn.Parameter(torch.ones(shape)) if used else None


def _scaled(branch: Tensor, scales: Tensor | None) -> Tensor:
    return branch if scales is None else scales * branch


def _take(tokens_BND: Tensor, index_BN: Tensor) -> Tensor:
    """Return the tokens of each clip in the order of `index`."""
    return tokens_BND.gather(1, index_BN[..., None].expand_as(tokens_BND))


def _as_maps(tokens_BND: Tensor, like_BCTHW: Tensor) -> Tensor:
    return tokens_BND.transpose(1, 2).reshape(like_BCTHW.shape)


def _pooled(scores: Tensor, maps_BCTHW: Tensor) -> Tensor:
    """Return the scores of 2x2 places averaged, scaled so that those of a clip have the same sum as before."""
    grid = scores.view(len(scores), 1, *maps_BCTHW.shape[2:])
    halved = F.avg_pool3d(grid, (1, 2, 2)).flatten(1)
    return halved * (scores.sum(1, keepdim=True) / halved.sum(1, keepdim=True))


XS = {"blocks": [3, 5, 9, 3], "dims": [64, 128, 256, 512], "head_width": 32}


@register_model(
    "uniformer_light",
    clip="16x8x160",
    paper="Li et al., 2022, arXiv:2201.09450",
    variants={
        "uniformer_xxs4_128": {"layer_scale": True, "clip": "4x32x128"},
        "uniformer_xxs4_160": {"layer_scale": True, "clip": "4x32x160"},
        "uniformer_xxs8_128": {"layer_scale": True, "clip": "8x16x128"},
        "uniformer_xxs8_160": {"clip": "8x16x160"},
        "uniformer_xxs16_128": {"clip": "16x8x128"},
        "uniformer_xxs16_160": {"clip": "16x8x160"},
        "uniformer_xxs32_160": {"clip": "32x4x160"},
        "uniformer_xs32_192": {**XS, "clip": "32x4x192"},
    },
)
def uniformer_light(
    num_classes: int = 400,
    *,
    blocks: Sequence[int] = (2, 5, 8, 2),
    dims: Sequence[int] = (56, 112, 224, 448),
    head_width: int = 28,
    layer_scale: bool = False,
) -> UniFormerLight:
    """UniFormer-XXS or -XS; the variants are named by frames and size of their clip, which the weights do not show."""
    require_positive(head_width=head_width)
    return UniFormerLight(num_classes, blocks=blocks, dims=dims, head_width=head_width, layer_scale=layer_scale)
