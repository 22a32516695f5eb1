"""TPN: a temporal pyramid on the last two stages of a ResNet. Yang et al., 2020, arXiv:2004.03548.

Written from the paper; the pyramid's names of weights are those of MMAction2's `neck` (Apache-2.0). Its backbones are
SlowFast's slow pathway and TSM.
"""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.core.registry import register_model
from bench.models.backbones import create_map_backbone, frames_of
from bench.models.base import VideoModel
from bench.models.blocks import chosen, require_positive
from bench.models.slow import slow_resnet
from bench.models.stages import Depth, Size
from bench.models.tsm import STAGES, ClipLength, add_shifts

BackboneName = Literal["slow", "tsm"]

WIDTHS = (1024, 2048)
INNER = 1024
OUT = 2048
GROUPS = 32
TEMPO_FRAMES = 8  # frames that each level pools to one


class ConvUnit(nn.Module):
    """A 3D convolution without bias, padded by half its kernel, with norm and ReLU if wanted."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        kernel: Size = (1, 1, 1),
        stride: Size = (1, 1, 1),
        groups: int = 1,
        is_plain: bool = False,
    ) -> None:
        super().__init__()
        padding = (kernel[0] // 2, kernel[1] // 2, kernel[2] // 2)
        self.conv = nn.Conv3d(in_channels, out_channels, kernel, stride, padding, groups=groups, bias=False)
        self.bn = None if is_plain else nn.BatchNorm3d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        maps: Tensor = self.conv(x)
        return maps if self.bn is None else F.relu(self.bn(maps))


class Wrapped(nn.Module):
    """A unit under the name `conv`, and max-pooling over time, rounded up, of `pool_frames` frames behind it."""

    def __init__(self, conv: ConvUnit, *, pool_frames: int = 1) -> None:
        super().__init__()
        self.conv = conv
        self.pool_frames = pool_frames

    def forward(self, x: Tensor) -> Tensor:
        maps: Tensor = self.conv(x)
        if self.pool_frames == 1:
            return maps
        return F.max_pool3d(maps, (self.pool_frames, 1, 1), ceil_mode=True)


class SpatialModulation(nn.Module):
    """Brings the map of the stage before the last to the size and width of the last one."""

    def __init__(self) -> None:
        super().__init__()
        narrow, wide = WIDTHS
        unit = ConvUnit(narrow, wide, kernel=(1, 3, 3), stride=(1, 2, 2))
        self.spatial_modulation = nn.ModuleList([nn.ModuleList([unit]), nn.Identity()])

    def forward(self, narrow: Tensor, wide: Tensor) -> tuple[Tensor, Tensor]:
        return self.get_submodule("spatial_modulation.0.0")(narrow), wide


class LevelFusion(nn.Module):
    """Both levels, each through a grouped convolution, joined by a 1x1x1 convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.downsamples = nn.ModuleList(Wrapped(ConvUnit(INNER, INNER, groups=GROUPS)) for _ in WIDTHS)
        self.fusion_conv = ConvUnit(len(WIDTHS) * INNER, OUT)

    def forward(self, levels: tuple[Tensor, Tensor]) -> Tensor:
        parts = [unit(level) for unit, level in zip(self.downsamples, levels, strict=True)]
        fused: Tensor = self.fusion_conv(torch.cat(parts, dim=1))
        return fused


class AuxiliaryHead(nn.Module):
    """A classifier on the stage before the last, for a second loss in training; logits do not depend on it."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        narrow, wide = WIDTHS
        self.conv = ConvUnit(narrow, wide, kernel=(1, 3, 3), stride=(1, 2, 2))
        self.fc = nn.Linear(wide, num_classes)


class TemporalPyramid(nn.Module):
    """Maps of two stages `(B, 1024, T, H, W)` and `(B, 2048, T, H / 2, W / 2)` to `(B, 2048, T / 8, H / 2, W / 2)`."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.temporal_modulation_ops = nn.ModuleList(
            Wrapped(ConvUnit(OUT, INNER, kernel=(3, 1, 1), groups=GROUPS, is_plain=True), pool_frames=TEMPO_FRAMES)
            for _ in WIDTHS
        )
        self.downsample_ops = nn.ModuleList([Wrapped(ConvUnit(INNER, INNER, kernel=(3, 1, 1), is_plain=True))])
        self.level_fusion_1 = LevelFusion()
        self.spatial_modulation = SpatialModulation()
        self.level_fusion_2 = LevelFusion()
        self.pyramid_fusion = ConvUnit(2 * OUT, OUT)
        self.aux_head = AuxiliaryHead(num_classes)

    def forward(self, narrow: Tensor, wide: Tensor) -> Tensor:
        levels = self.spatial_modulation(narrow, wide)
        low, high = (unit(level) for unit, level in zip(self.temporal_modulation_ops, levels, strict=True))
        low = low + high  # the flow from top to bottom; the flow back up starts from its result
        top_down = self.level_fusion_1((low, high))
        bottom_up = self.level_fusion_2((low, high + self.downsample_ops[0](low)))
        fused: Tensor = self.pyramid_fusion(torch.cat([top_down, bottom_up], dim=1))
        return fused


class Tpn(VideoModel):
    """Temporal pyramid on a ResNet; classifies the mean over time and space."""

    mean = (0.485, 0.456, 0.406)
    std = (0.229, 0.224, 0.225)
    auxiliary_modules = ("neck.aux_head",)

    def __init__(self, backbone: nn.Module, num_classes: int, *, dropout: float) -> None:
        super().__init__()
        self.backbone = backbone
        self.neck = TemporalPyramid(num_classes)
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(OUT, num_classes)
        for module in self.neck.modules():
            if isinstance(module, nn.Conv3d):
                nn.init.xavier_uniform_(module.weight)

    def forward_features(self, *clips: Tensor) -> Tensor:
        """Return the pooled pyramid, `(B, 2048)`."""
        (clip_BCTHW,) = clips
        pooled: Tensor = self.dropout(self.neck(*self.stage_maps(clip_BCTHW)).mean((2, 3, 4)))
        return pooled

    def stage_maps(self, clip_BCTHW: Tensor) -> tuple[Tensor, Tensor]:
        """Return the maps of the last two stages, `(B, C, T, H, W)`."""
        raise NotImplementedError(type(self).__name__)


class SlowTpn(Tpn):
    """Temporal pyramid on SlowFast's slow pathway."""

    def __init__(self, num_classes: int, *, depth: Depth, dropout: float) -> None:
        slow = slow_resnet(depth, num_classes, window_frames=8, dropout=dropout)
        del slow.blocks[-1]
        super().__init__(nn.ModuleDict({"blocks": slow.blocks}), num_classes, dropout=dropout)

    def stage_maps(self, clip_BCTHW: Tensor) -> tuple[Tensor, Tensor]:
        maps = clip_BCTHW
        *blocks, last = self.backbone.get_submodule("blocks").children()
        for block in blocks:
            maps = block(maps)
        return maps, last(maps)


class TsmTpn(Tpn):
    """Temporal pyramid on TSM."""

    def __init__(self, num_classes: int, *, depth: Depth, dropout: float) -> None:
        clip_length = ClipLength()
        backbone = create_map_backbone(f"torchvision:resnet{depth}").model
        add_shifts(backbone, clip_length=clip_length, shift_div=8)
        super().__init__(backbone, num_classes, dropout=dropout)
        self.clip_length = clip_length
        self.smallest_clip = (1, 1)

    def stage_maps(self, clip_BCTHW: Tensor) -> tuple[Tensor, Tensor]:
        batch, frames = clip_BCTHW.shape[0], clip_BCTHW.shape[2]
        self.clip_length.frames = frames
        maps = frames_of(clip_BCTHW)
        of_stage = {}
        for name, part in self.backbone.named_children():
            maps = part(maps)
            of_stage[name] = maps
        narrow, wide = (of_stage[stage].unflatten(0, (batch, frames)).transpose(1, 2) for stage in STAGES[-2:])
        return narrow, wide


@register_model(
    "tpn",
    clip="8x8x224",
    paper="Yang et al., 2020, arXiv:2004.03548",
    variants={"tpn_slow_r50": {"backbone": "slow"}, "tpn_tsm_r50": {"backbone": "tsm"}},
)
def tpn(num_classes: int = 400, *, backbone: BackboneName = "slow", depth: Depth = 50, dropout: float = 0.5) -> Tpn:
    """Temporal pyramid network on the backbone "slow" or "tsm", a ResNet of `depth`.

    `neck.aux_head` serves the second loss of training and does not affect the logits.
    """
    require_positive(num_classes=num_classes)
    make = chosen({"slow": SlowTpn, "tsm": TsmTpn}, backbone, name="backbone of tpn")
    return make(num_classes, depth=depth, dropout=dropout)
