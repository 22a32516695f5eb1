"""Video Swin: attention inside windows of space and time that shift from block to block. Liu et al., 2022.

arXiv:2106.13230. Written from the paper; names of weights as in the authors' code (SwinTransformer/
Video-Swin-Transformer, Apache-2.0), which MMAction2 shares. torchvision's `swin3d` names the same model's weights
otherwise.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.core.errors import InputError
from bench.core.registry import register_model
from bench.models.base import VideoModel
from bench.models.vit_blocks import Mlp, init_vit, require_divisible, split_axis

Size = tuple[int, int, int]
"""Frames, height and width in tokens."""

PATCH: Size = (2, 4, 4)
WINDOW_PIXELS = 7
MASKED = -100.0


class WindowAttention(nn.Module):
    """Self-attention of the tokens of each window, `(windows, N, D)`, with a learned bias by relative position.

    `relative_position_index` is a buffer of the files. Windows that a small clip cuts short use its upper left corner,
    as the authors' code does.
    """

    relative_position_index: Tensor

    def __init__(self, dim: int, *, heads: int, window: Size) -> None:
        super().__init__()
        require_divisible(dim, heads)
        self.heads = heads
        frames, height, width = window
        rows = (2 * frames - 1) * (2 * height - 1) * (2 * width - 1)
        self.relative_position_bias_table = nn.Parameter(torch.zeros(rows, heads))
        self.register_buffer("relative_position_index", relative_positions(window))
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)
        nn.init.trunc_normal_(self.relative_position_bias_table, std=0.02)

    def forward(self, windows_WND: Tensor, mask: Tensor | None) -> Tensor:
        """Return the same shape; `mask` is `(windows of a clip, N, N)`, added to the logits of the attention."""
        count, tokens, _ = windows_WND.shape
        query, key, value = split_axis(self.qkv(windows_WND), 2, 3, self.heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        index = self.relative_position_index[:tokens, :tokens]
        bias = self.relative_position_bias_table[index.flatten()].view(tokens, tokens, self.heads).permute(2, 0, 1)
        if mask is None:
            attended = F.scaled_dot_product_attention(query, key, value, attn_mask=bias[None].to(query.dtype))
        else:
            per_clip = (bias[None] + mask[:, None]).to(query.dtype).repeat(count // len(mask), 1, 1, 1)
            attended = F.scaled_dot_product_attention(query, key, value, attn_mask=per_clip)
        output: Tensor = self.proj(attended.transpose(1, 2).flatten(2))
        return output


class SwinBlock(nn.Module):
    """Pre-norm block on a grid `(B, T, H, W, D)`; the windows are moved by half their size if it `shifts`."""

    def __init__(self, dim: int, *, heads: int, window: Size, shifts: bool) -> None:
        super().__init__()
        self.window, self.shifts = window, shifts
        self.norm1 = nn.LayerNorm(dim)
        self.attn = WindowAttention(dim, heads=heads, window=window)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = Mlp(dim)

    def forward(self, grid: Tensor) -> Tensor:
        grid = grid + self._attend(self.norm1(grid))
        output: Tensor = grid + self.mlp(self.norm2(grid))
        return output

    def _attend(self, grid: Tensor) -> Tensor:
        size = grid.shape[1:4]
        window, shift = fitted(self.window, size, shifts=self.shifts)
        frames, height, width = (-n % w for n, w in zip(size, window, strict=True))
        padded = F.pad(grid, (0, 0, 0, width, 0, height, 0, frames))
        is_shifted = any(shift)
        mask = shift_mask(padded.shape[1:4], window, shift, like=grid) if is_shifted else None
        back = tuple(-n for n in shift)
        rolled = padded.roll(back, dims=(1, 2, 3)) if is_shifted else padded
        attended = join_windows(self.attn(split_windows(rolled, window), mask), window, padded.shape)
        rolled = attended.roll(shift, dims=(1, 2, 3)) if is_shifted else attended
        return rolled[:, : size[0], : size[1], : size[2]]


class PatchMerging(nn.Module):
    """Joins the four tokens of each 2x2 square in space: `(B, T, H, W, D)` to `(B, T, H / 2, W / 2, 2 D)`."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.reduction = nn.Linear(4 * dim, 2 * dim, bias=False)
        self.norm = nn.LayerNorm(4 * dim)

    def forward(self, grid: Tensor) -> Tensor:
        grid = F.pad(grid, (0, 0, 0, grid.shape[3] % 2, 0, grid.shape[2] % 2))
        corners = [grid[:, :, row::2, column::2] for column in (0, 1) for row in (0, 1)]
        output: Tensor = self.reduction(self.norm(torch.cat(corners, dim=-1)))
        return output


class Stage(nn.Module):
    """Blocks, every second one shifted, then `downsample` unless it is the last stage."""

    def __init__(self, dim: int, *, depth: int, heads: int, window: Size, is_last: bool) -> None:
        super().__init__()
        self.blocks = nn.Sequential(
            *(SwinBlock(dim, heads=heads, window=window, shifts=index % 2 == 1) for index in range(depth))
        )
        self.downsample = nn.Identity() if is_last else PatchMerging(dim)

    def forward(self, grid: Tensor) -> Tensor:
        output: Tensor = self.downsample(self.blocks(grid))
        return output


class PatchEmbed(nn.Module):
    """Patches of 2x4x4 pixels as normalised vectors: `(B, 3, T, H, W)` to `(B, T / 2, H / 4, W / 4, D)`."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv3d(3, dim, PATCH, stride=PATCH)
        self.norm = nn.LayerNorm(dim)

    def forward(self, clip_BCTHW: Tensor) -> Tensor:
        frames, height, width = (-n % p for n, p in zip(clip_BCTHW.shape[2:], PATCH, strict=True))
        padded = F.pad(clip_BCTHW, (0, width, 0, height, 0, frames))
        output: Tensor = self.norm(self.proj(padded).movedim(1, -1))
        return output


class VideoSwin(VideoModel):
    """Four stages that halve the grid in space; the mean over the tokens is classified. Clips of any size."""

    head_name = "head"
    mean = (0.485, 0.456, 0.406)
    std = (0.229, 0.224, 0.225)

    def __init__(
        self,
        num_classes: int,
        *,
        dim: int,
        depths: Sequence[int],
        heads: Sequence[int],
        window_frames: int,
        dropout: float,
    ) -> None:
        super().__init__()
        if len(depths) != len(heads):
            raise InputError(f"`stages` has {len(depths)} numbers and `stage_heads` {len(heads)}: one per stage each")
        window = (window_frames, WINDOW_PIXELS, WINDOW_PIXELS)
        self.patch_embed = PatchEmbed(dim)
        self.layers = nn.Sequential(
            *(
                Stage(dim * 2**index, depth=depth, heads=count, window=window, is_last=index == len(depths) - 1)
                for index, (depth, count) in enumerate(zip(depths, heads, strict=True))
            )
        )
        width = dim * 2 ** (len(depths) - 1)
        self.norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(width, num_classes)
        init_vit(self)

    def forward_features(self, *clips: Tensor) -> Tensor:
        """Return the mean of the normalised tokens, `(B, 8 * dim)`."""
        (clip_BCTHW,) = clips
        grid = self.norm(self.layers(self.patch_embed(clip_BCTHW)))
        features: Tensor = self.dropout(grid.mean((1, 2, 3)))
        return features


def relative_positions(window: Size) -> Tensor:
    """Return the row of the bias table for each pair of tokens of a window, `(N, N)`."""
    axes = torch.meshgrid(*(torch.arange(size) for size in window), indexing="ij")
    index = torch.zeros((), dtype=torch.long)
    for axis, size in zip(axes, window, strict=True):
        places = axis.flatten()
        index = index * (2 * size - 1) + places[:, None] - places[None, :] + size - 1
    return index


def fitted(window: Size, size: Sequence[int], *, shifts: bool) -> tuple[Size, Size]:
    """Return the window and its shift for a grid; where the grid is no larger, the window spans it and stays put."""
    fits = [n <= w for n, w in zip(size, window, strict=True)]
    frames, height, width = (n if fit else w for n, w, fit in zip(size, window, fits, strict=True))
    moved = [0 if fit or not shifts else w // 2 for w, fit in zip(window, fits, strict=True)]
    return (frames, height, width), (moved[0], moved[1], moved[2])


def split_windows(grid: Tensor, window: Size) -> Tensor:
    """Return the windows of a grid `(B, T, H, W, D)` as `(B * windows, N, D)`."""
    for axis, size in zip((5, 3, 1), reversed(window), strict=True):
        grid = split_axis(grid, (axis + 1) // 2, -1, size)
    # B, windows over T, t, windows over H, h, windows over W, w, D
    return grid.permute(0, 1, 3, 5, 2, 4, 6, 7).flatten(4, 6).flatten(0, 3)


def join_windows(windows: Tensor, window: Size, shape: torch.Size) -> Tensor:
    """Return the grid of `shape` whose windows these are."""
    batch, *size = shape[:4]
    counts = [n // w for n, w in zip(size, window, strict=True)]
    split = windows.view(batch, *counts, *window, -1)
    return split.permute(0, 1, 4, 2, 5, 3, 6, 7).reshape(shape)


def shift_mask(size: Sequence[int], window: Size, shift: Size, *, like: Tensor) -> Tensor:
    """Return `(windows, N, N)`: 0 for pairs of tokens that were neighbours before the shift, -100 for others."""
    region = torch.zeros((), device=like.device)
    for axis, parts in enumerate(_regions(size, window, shift)):
        shape = [1, 1, 1]
        shape[axis] = size[axis]
        region = region * 3 + torch.tensor(parts, device=like.device).view(shape)
    of_window = split_windows(region[None, ..., None], window)[..., 0]
    differs = of_window[:, None, :] != of_window[:, :, None]
    return differs.to(like.dtype) * MASKED


def _regions(size: Sequence[int], window: Size, shift: Size) -> Iterator[list[float]]:
    """Along each axis, which of three parts of the shifted grid every position belongs to."""
    for length, span, moved in zip(size, window, shift, strict=True):
        yield [float((place >= length - span) + (moved > 0 and place >= length - moved)) for place in range(length)]


BASE = {"dim": 128, "stages": [2, 2, 18, 2], "stage_heads": [4, 8, 16, 32]}


@register_model(
    "video_swin",
    clip="32x2x224",
    paper="Liu et al., 2022, arXiv:2106.13230",
    variants={
        "video_swin_t": {},
        "video_swin_s": {"stages": [2, 2, 18, 2]},
        "video_swin_b": BASE,
        "video_swin_b_ssv2": {**BASE, "window_frames": 16},
        "video_swin_l": {"dim": 192, "stages": [2, 2, 18, 2], "stage_heads": [6, 12, 24, 48]},
    },
)
def video_swin(
    num_classes: int = 400,
    *,
    dim: int = 96,
    stages: Sequence[int] = (2, 2, 6, 2),
    stage_heads: Sequence[int] = (3, 6, 12, 24),
    window_frames: int = 8,
    dropout: float = 0.5,
) -> VideoSwin:
    """Video Swin with `stages` blocks and `stage_heads` heads per stage; windows are `window_frames` x 7 x 7 tokens."""
    return VideoSwin(
        num_classes, dim=dim, depths=stages, heads=stage_heads, window_frames=window_frames, dropout=dropout
    )
