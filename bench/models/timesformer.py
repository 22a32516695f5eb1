"""TimeSformer: a ViT whose blocks attend over time and over space separately. Bertasius et al., 2021, arXiv:2102.05095.

Written from the paper; names of weights as in the authors' code (facebookresearch/TimeSformer, CC-BY-NC 4.0).
"""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.core.registry import register_model
from bench.models.base import VideoModel
from bench.models.vit_blocks import Attention, Block, init_vit, split_axis

SpaceTime = Literal["divided", "joint", "space"]


class DividedBlock(Block):
    """Attention over the frames of each location, then over the locations of each frame, then the MLP."""

    def __init__(self, dim: int, *, heads: int) -> None:
        super().__init__(dim, attention=Attention(dim, heads=heads))
        self.temporal_norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.temporal_attn = Attention(dim, heads=heads)
        self.temporal_fc = nn.Linear(dim, dim)

    def forward(self, class_token: Tensor, patches: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]  # hooks need the name
        """Return the class token `(B, 1, D)` and the patches `(B, T, N, D)` after this block."""
        batch, frames, places, dim = patches.shape
        over_time = patches.transpose(1, 2).reshape(batch * places, frames, dim)
        over_time = self.temporal_fc(self.temporal_attn(self.temporal_norm1(over_time)))
        patches = patches + over_time.view(batch, places, frames, dim).transpose(1, 2)

        # Each frame gets a copy of the class token; its T results are averaged.
        tokens = torch.cat([class_token[:, None].expand(-1, frames, -1, -1), patches], dim=2)
        attended = self.attn(self.norm1(tokens.flatten(0, 1))).view(batch, frames, places + 1, dim)
        class_token = class_token + attended[:, :, :1].mean(1)
        patches = patches + attended[:, :, 1:]

        class_token = class_token + self.mlp(self.norm2(class_token))
        patches = patches + self.mlp(self.norm2(patches))
        return class_token, patches


class PatchEmbed(nn.Module):
    """Non-overlapping square patches of single frames as vectors: `(B, C, H, W)` to `(B, D, H / patch, W / patch)`."""

    def __init__(self, dim: int, *, patch: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, dim, patch, stride=patch)

    def forward(self, frames_BCHW: Tensor) -> Tensor:
        output: Tensor = self.proj(frames_BCHW)
        return output


class TimeSformer(VideoModel):
    """ViT-B/16 on the patches of all frames; `attention` says which tokens attend to each other.

    Clips of another length or size than `frames` and `size` work: both position tables are then resized to the nearest
    entry, as the authors do at run time.
    """

    head_name = "head"

    def __init__(
        self,
        num_classes: int,
        *,
        attention: SpaceTime,
        frames: int,
        size: int,
        patch: int,
        dim: int,
        depth: int,
        heads: int,
    ) -> None:
        super().__init__()
        self.attention = attention
        self.smallest_clip = (1, patch)
        self.patch_embed = PatchEmbed(dim, patch=patch)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + (size // patch) ** 2, dim))
        if attention != "space":
            self.time_embed = nn.Parameter(torch.zeros(1, frames, dim))
        self.blocks: nn.ModuleList = nn.ModuleList(
            DividedBlock(dim, heads=heads)
            if attention == "divided"
            else Block(dim, attention=Attention(dim, heads=heads))
            for _ in range(depth)
        )
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.head = nn.Linear(dim, num_classes)
        init_vit(self)
        nn.init.trunc_normal_(self.cls_token, std=0.02)
        nn.init.trunc_normal_(self.pos_embed, std=0.02)

    def forward_features(self, *clips: Tensor) -> Tensor:
        """Return the normalised class token, `(B, D)`."""
        (clip_BCTHW,) = clips
        class_token, patches = self._embed(clip_BCTHW)
        if self.attention == "divided":
            for block in self.blocks:
                class_token, patches = block(class_token, patches)
        elif self.attention == "joint":
            # Time is the fastest axis of the authors' tokens; the order does not change what attention returns.
            tokens = torch.cat([class_token, patches.flatten(1, 2)], dim=1)
            for block in self.blocks:
                tokens = block(tokens)
            class_token = tokens[:, :1]
        else:
            frames = patches.shape[1]
            tokens = torch.cat([class_token[:, None].expand(-1, frames, -1, -1), patches], dim=2).flatten(0, 1)
            for block in self.blocks:
                tokens = block(tokens)
            class_token = split_axis(tokens[:, :1], 0, -1, frames).mean(1)
        features: Tensor = self.norm(class_token)[:, 0]
        return features

    def _embed(self, clip_BCTHW: Tensor) -> tuple[Tensor, Tensor]:
        """Return the class token `(B, 1, D)` and the patches `(B, T, N, D)` with their positions."""
        batch, _, frames = clip_BCTHW.shape[:3]
        maps = self.patch_embed(clip_BCTHW.transpose(1, 2).flatten(0, 1))
        positions = _resized_grid(self.pos_embed[:, 1:], height=maps.shape[2], width=maps.shape[3])
        patches = maps.flatten(2).transpose(1, 2) + positions
        patches = patches.view(batch, frames, *patches.shape[1:])
        if self.attention != "space":
            patches = patches + _resized_line(self.time_embed, frames)[:, :, None]
        class_token = (self.cls_token + self.pos_embed[:, :1]).expand(batch, -1, -1)
        return class_token, patches


def _resized_grid(table: Tensor, *, height: int, width: int) -> Tensor:
    """Return a table `(1, N, D)` of a square grid for a grid of another size, by nearest neighbour."""
    side = round(table.shape[1] ** 0.5)
    if (side, side) == (height, width):
        return table
    grid = split_axis(table.transpose(1, 2), 2, side, side)
    return F.interpolate(grid, size=(height, width), mode="nearest").flatten(2).transpose(1, 2)


def _resized_line(table: Tensor, length: int) -> Tensor:
    """Return a table `(1, T, D)` for another number of frames, by nearest neighbour."""
    if table.shape[1] == length:
        return table
    return F.interpolate(table.transpose(1, 2), size=length, mode="nearest").transpose(1, 2)


@register_model(
    "timesformer",
    clip="8x32x224",
    paper="Bertasius et al., 2021, arXiv:2102.05095",
    variants={
        "timesformer_b_8x32": {},
        "timesformer_hr_16x16": {"frames": 16, "size": 448, "clip": "16x16x448"},
        "timesformer_l_96x4": {"frames": 96, "clip": "96x4x224"},
        "timesformer_joint_8x32": {"attention": "joint"},
        "timesformer_space_8x32": {"attention": "space"},
    },
)
def timesformer(
    num_classes: int = 400,
    *,
    attention: SpaceTime = "divided",
    frames: int = 8,
    size: int = 224,
    patch: int = 16,
    dim: int = 768,
    depth: int = 12,
    heads: int = 12,
) -> TimeSformer:
    """TimeSformer; `frames` and `size` are the lengths of its position tables."""
    return TimeSformer(
        num_classes, attention=attention, frames=frames, size=size, patch=patch, dim=dim, depth=depth, heads=heads
    )
