"""UniFormer: convolutional blocks in the shallow stages, joint attention in the deep ones. Li et al., 2022.

arXiv:2201.04676. Written from the paper; names of weights as in the authors' code (Sense-X/UniFormer, Apache-2.0).
"""

from collections.abc import Sequence

from torch import Tensor, nn

from bench.core.errors import InputError
from bench.core.registry import register_model
from bench.models.base import VideoModel
from bench.models.blocks import require_positive
from bench.models.vit_blocks import Attention, Mlp, init_vit, split_axis

STAGES = 4
CONVOLUTIONAL_STAGES = 2


class PatchEmbed(nn.Module):
    """A convolution whose kernel is its stride in space, then LayerNorm over the channels."""

    def __init__(self, dim: int, out_dim: int, *, kernel: tuple[int, int, int], stride: tuple[int, int, int]) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(out_dim)
        self.proj = nn.Conv3d(dim, out_dim, kernel, stride=stride, padding=(kernel[0] // 2, 0, 0))

    def forward(self, maps_BCTHW: Tensor) -> Tensor:
        output: Tensor = self.norm(self.proj(maps_BCTHW).movedim(1, -1)).movedim(-1, 1)
        return output


class ConvMlp(nn.Module):
    """The MLP as two 1x1x1 convolutions."""

    def __init__(self, dim: int, *, ratio: int = 4) -> None:
        super().__init__()
        self.fc1 = nn.Conv3d(dim, ratio * dim, 1)
        self.act = nn.GELU()
        self.fc2 = nn.Conv3d(ratio * dim, dim, 1)

    def forward(self, maps_BCTHW: Tensor) -> Tensor:
        output: Tensor = self.fc2(self.act(self.fc1(maps_BCTHW)))
        return output


class LocalBlock(nn.Module):
    """Position, a depthwise 5x5x5 convolution in the place of attention, and the MLP."""

    def __init__(self, dim: int, *, mlp_ratio: int = 4) -> None:
        super().__init__()
        self.pos_embed = nn.Conv3d(dim, dim, 3, padding=1, groups=dim)
        self.norm1 = nn.BatchNorm3d(dim)
        self.conv1 = nn.Conv3d(dim, dim, 1)
        self.conv2 = nn.Conv3d(dim, dim, 1)
        self.attn = nn.Conv3d(dim, dim, 5, padding=2, groups=dim)
        self.norm2 = nn.BatchNorm3d(dim)
        self.mlp = ConvMlp(dim, ratio=mlp_ratio)

    def forward(self, maps_BCTHW: Tensor) -> Tensor:
        maps = maps_BCTHW + self.pos_embed(maps_BCTHW)
        maps = maps + self.conv2(self.attn(self.conv1(self.norm1(maps))))
        output: Tensor = maps + self.mlp(self.norm2(maps))
        return output


class GlobalBlock(nn.Module):
    """Position, joint attention over space and time, and the MLP."""

    def __init__(self, dim: int, *, heads: int) -> None:
        super().__init__()
        self.pos_embed = nn.Conv3d(dim, dim, 3, padding=1, groups=dim)
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.attn = Attention(dim, heads=heads)
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = Mlp(dim)

    def forward(self, maps_BCTHW: Tensor) -> Tensor:
        maps = maps_BCTHW + self.pos_embed(maps_BCTHW)
        tokens = maps.flatten(2).transpose(1, 2)
        tokens = tokens + self.attn(self.norm1(tokens))
        tokens = tokens + self.mlp(self.norm2(tokens))
        output: Tensor = tokens.transpose(1, 2).reshape(maps.shape)
        return output


class SplitBlock(GlobalBlock):
    """Position, attention over time, attention over space, and the MLP.

    The residual around the attention over space starts at the input of the block, so that the attention over time
    reaches the output only through the attention over space, as in the authors' code.
    """

    def __init__(self, dim: int, *, heads: int) -> None:
        super().__init__(dim, heads=heads)
        self.t_norm = nn.LayerNorm(dim, eps=1e-6)
        self.t_attn = Attention(dim, heads=heads)

    def forward(self, maps_BCTHW: Tensor) -> Tensor:
        maps = maps_BCTHW + self.pos_embed(maps_BCTHW)
        batch, frames = maps.shape[0], maps.shape[2]
        tokens_BTND = maps.flatten(3).permute(0, 2, 3, 1)
        lines = tokens_BTND.transpose(1, 2).flatten(0, 1)
        lines = lines + self.t_attn(self.t_norm(lines))
        over_time = split_axis(lines, 0, batch, -1).transpose(1, 2).flatten(0, 1)
        tokens = tokens_BTND.flatten(0, 1) + self.attn(self.norm1(over_time))
        tokens = tokens + self.mlp(self.norm2(tokens))
        output: Tensor = split_axis(tokens, 0, batch, frames).permute(0, 3, 1, 2).reshape(maps.shape)
        return output


class UniFormer(VideoModel):
    """Two convolutional and two attention stages; the mean over space and time is classified."""

    head_name = "head"
    smallest_clip = (2, 32)

    def __init__(
        self,
        num_classes: int,
        *,
        blocks: Sequence[int],
        dims: Sequence[int],
        head_width: int,
        patch_frames: int,
        splits: bool,
    ) -> None:
        super().__init__()
        require_stages(blocks=blocks, dims=dims)
        attention_block = SplitBlock if splits else GlobalBlock
        before = (3, *dims[:-1])
        for number, (dim, out_dim, count) in enumerate(zip(before, dims, blocks, strict=True), start=1):
            kernel, stride = ((3, 4, 4), (2, 4, 4)) if number == 1 else ((patch_frames, 2, 2), (1, 2, 2))
            self.add_module(f"patch_embed{number}", PatchEmbed(dim, out_dim, kernel=kernel, stride=stride))
            self.add_module(
                f"blocks{number}",
                nn.Sequential(
                    *(
                        LocalBlock(out_dim)
                        if number <= CONVOLUTIONAL_STAGES
                        else attention_block(out_dim, heads=max(1, out_dim // head_width))
                        for _ in range(count)
                    )
                ),
            )
        self.norm = nn.BatchNorm3d(dims[-1])
        self.head = nn.Linear(dims[-1], num_classes)
        init_vit(self)

    def forward_features(self, *clips: Tensor) -> Tensor:
        """Return the normalised mean over space and time, `(B, D)`."""
        (maps,) = clips
        for number in range(1, STAGES + 1):
            maps = self.get_submodule(f"patch_embed{number}")(maps)
            maps = self.get_submodule(f"blocks{number}")(maps)
        features: Tensor = self.norm(maps).mean((2, 3, 4))
        return features


def require_stages(**by_stage: Sequence[int]) -> None:
    """Raise InputError unless each argument has one number of at least 1 for each of the four stages."""
    for name, numbers in by_stage.items():
        if len(numbers) != STAGES or min(numbers) < 1:
            raise InputError(
                f"UniFormer has {STAGES} stages: {name} must be {STAGES} numbers of at least 1, found {list(numbers)}"
            )


@register_model(
    "uniformer",
    clip="16x4x224",
    paper="Li et al., 2022, arXiv:2201.04676",
    variants={
        "uniformer_s_8x8": {"clip": "8x8x224"},
        "uniformer_s_16x4": {},
        "uniformer_b_8x8": {"blocks": [5, 8, 20, 7], "clip": "8x8x224"},
        "uniformer_b_16x4": {"blocks": [5, 8, 20, 7]},
        "uniformer_b_32x4": {"blocks": [5, 8, 20, 7], "clip": "32x4x224"},
    },
)
def uniformer(
    num_classes: int = 400,
    *,
    blocks: Sequence[int] = (3, 4, 8, 3),
    dims: Sequence[int] = (64, 128, 320, 512),
    head_width: int = 64,
    patch_frames: int = 1,
    splits: bool = False,
) -> UniFormer:
    """UniFormer with `blocks` of width `dims` per stage; clips of any length, of at least 32 pixels.

    Attention heads are `head_width` channels wide. `patch_frames` is the kernel over time of the later
    down-samplings, and `splits` replaces joint attention by attention over time, then over space: options of the
    authors' code that no published file uses.
    """
    require_positive(head_width=head_width, patch_frames=patch_frames)
    return UniFormer(
        num_classes, blocks=blocks, dims=dims, head_width=head_width, patch_frames=patch_frames, splits=splits
    )
