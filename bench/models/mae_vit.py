"""The plain ViT of MAE for video, fine-tuned: class token, separate positions in time and space, mean of the tokens.

Feichtenhofer et al., 2022, arXiv:2205.09113. Names of weights as in PySlowFast (Apache-2.0), the authors' code.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.core.registry import register_model
from bench.models.base import VideoModel
from bench.models.vit_blocks import Attention, Block, TubeletEmbed, init_vit, split_axis

TUBELET, PATCH = 2, 16


class MaeHead(nn.Module):
    """The classifier. PySlowFast's also applies softmax in evaluation; here the protocol does."""

    def __init__(self, dim: int, num_classes: int) -> None:
        super().__init__()
        self.projection = nn.Linear(dim, num_classes)


class MaeViT(VideoModel):
    """The normalised mean of all tokens but the class token is classified.

    Positions are interpolated over all three axes for clips of another size than `frames` x `size`.
    """

    head_name = "head.projection"
    smallest_clip = (TUBELET, PATCH)

    def __init__(self, num_classes: int, *, dim: int, depth: int, heads: int, frames: int, size: int) -> None:
        super().__init__()
        self.grid = (frames // TUBELET, size // PATCH, size // PATCH)
        self.patch_embed = TubeletEmbed(dim, tubelet=TUBELET, patch=PATCH)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.pos_embed_spatial = nn.Parameter(torch.zeros(1, self.grid[1] * self.grid[2], dim))
        self.pos_embed_temporal = nn.Parameter(torch.zeros(1, self.grid[0], dim))
        self.pos_embed_class = nn.Parameter(torch.zeros(1, 1, dim))
        self.blocks = nn.ModuleList(Block(dim, attention=Attention(dim, heads=heads)) for _ in range(depth))
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.head = MaeHead(dim, num_classes)
        init_vit(self)
        for name, parameter in self.named_parameters():
            if name.startswith(("cls_token", "pos_embed")):
                nn.init.trunc_normal_(parameter, std=0.02)

    def forward_features(self, *clips: Tensor) -> Tensor:
        """Return the normalised mean of the tokens, `(B, D)`."""
        (clip_BCTHW,) = clips
        frames, height, width = clip_BCTHW.shape[2:]
        grid = (frames // TUBELET, height // PATCH, width // PATCH)
        tokens = self.patch_embed(clip_BCTHW) + self._positions(grid)
        class_token = (self.cls_token + self.pos_embed_class).expand(len(tokens), -1, -1)
        tokens = torch.cat([class_token, tokens], dim=1)
        for block in self.blocks:
            tokens = block(tokens)
        features: Tensor = self.norm(tokens[:, 1:].mean(1))
        return features

    def _positions(self, grid: tuple[int, int, int]) -> Tensor:
        """Return the positions of a grid of tokens, `(1, N, D)`."""
        positions = self.pos_embed_temporal[:, :, None] + self.pos_embed_spatial[:, None]
        if grid == self.grid:
            return positions.flatten(1, 2)
        table_BCTHW = split_axis(positions, 2, *self.grid[1:]).permute(0, 4, 1, 2, 3)
        return F.interpolate(table_BCTHW, size=grid, mode="trilinear").flatten(2).transpose(1, 2)


@register_model(
    "mae_vit",
    clip="16x4x224",
    paper="Feichtenhofer et al., 2022, arXiv:2205.09113",
    variants={
        "mae_vit_b": {},
        "mae_vit_l": {"dim": 1024, "depth": 24, "heads": 16},
        "mae_vit_h": {"dim": 1280, "depth": 32, "heads": 16},
    },
)
def mae_vit(
    num_classes: int = 400, *, dim: int = 768, depth: int = 12, heads: int = 12, frames: int = 16, size: int = 224
) -> MaeViT:
    """The fine-tuned encoder of MAE for video; `frames` and `size` are those of its position tables."""
    return MaeViT(num_classes, dim=dim, depth=depth, heads=heads, frames=frames, size=size)
