"""3D ResNets: residual networks whose convolutions span space and time.

Hara, Kataoka and Satoh, 2018, arXiv:1711.09577, after He et al., 2015, arXiv:1512.03385. Names of weights as in
3D-ResNets-PyTorch (MIT). Its stem is 7x7x7 and its max-pooling halves time: not the model torchvision calls R3D.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch.nn.functional as F
from torch import Tensor, nn

from bench.core.errors import InputError
from bench.core.registry import accepts_options_of, register_model
from bench.models.blocks import (
    HaraModel,
    ShortcutType,
    chosen,
    init_convolutions,
    require_positive,
    shortcut_between,
)

BASIC_DEPTHS = {10: (1, 1, 1, 1), 18: (2, 2, 2, 2), 34: (3, 4, 6, 3)}
BOTTLENECK_DEPTHS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3), 200: (3, 24, 36, 3)}
DEPTHS = BASIC_DEPTHS | BOTTLENECK_DEPTHS
WIDTHS = (64, 128, 256, 512)
STRIDES = (1, 2, 2, 2)


class BasicBlock(nn.Module):
    """Two 3x3x3 convolutions beside a shortcut; `out_width` is `width`."""

    def __init__(
        self, in_channels: int, width: int, out_width: int, *, stride: int = 1, shortcut: ShortcutType = "B"
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv3d(in_channels, width, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm3d(width)
        self.conv2 = nn.Conv3d(width, out_width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm3d(out_width)
        self.downsample = shortcut_between(in_channels, out_width, stride=stride, kind=shortcut)

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu_(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        out += self.downsample(x)
        return F.relu_(out)


class Bottleneck(nn.Module):
    """A 3x3x3 convolution of `width` between two of 1x1x1, beside a shortcut; with `groups`, ResNeXt's block."""

    def __init__(
        self,
        in_channels: int,
        width: int,
        out_width: int,
        *,
        stride: int = 1,
        shortcut: ShortcutType = "B",
        groups: int = 1,
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv3d(in_channels, width, 1, bias=False)
        self.bn1 = nn.BatchNorm3d(width)
        self.conv2 = nn.Conv3d(width, width, 3, stride=stride, padding=1, groups=groups, bias=False)
        self.bn2 = nn.BatchNorm3d(width)
        self.conv3 = nn.Conv3d(width, out_width, 1, bias=False)
        self.bn3 = nn.BatchNorm3d(out_width)
        self.downsample = shortcut_between(in_channels, out_width, stride=stride, kind=shortcut)

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu_(self.bn1(self.conv1(x)))
        out = F.relu_(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        out += self.downsample(x)
        return F.relu_(out)


@dataclass(frozen=True, kw_only=True)
class Stage:
    """`blocks` residual blocks, `width` channels inside and `out_width` between them."""

    blocks: int
    width: int
    out_width: int


class ResNet3d(HaraModel):
    """A 7x7 stem, four stages of residual blocks that halve the clip from the second on, a mean, one linear layer.

    `block(in_channels, width, out_width, stride=…, shortcut=…)` makes a residual block.
    """

    def __init__(
        self,
        block: Callable[..., nn.Module],
        stages: Sequence[Stage],
        *,
        stem_width: int,
        num_classes: int,
        shortcut: ShortcutType = "B",
        stem_kernel_t: int = 7,
        stem_stride_t: int = 1,
        no_max_pool: bool = False,
        in_channels: int = 3,
    ) -> None:
        chosen({"A": None, "B": None}, shortcut, name="shortcut")
        require_positive(
            num_classes=num_classes, stem_kernel_t=stem_kernel_t, stem_stride_t=stem_stride_t, in_channels=in_channels
        )
        super().__init__(in_channels=in_channels)
        self._add_stem(in_channels, stem_width, kernel_t=stem_kernel_t, stride_t=stem_stride_t)
        self.maxpool = nn.Identity() if no_max_pool else nn.MaxPool3d(3, stride=2, padding=1)
        before = (stem_width, *(stage.out_width for stage in stages[:-1]))
        self.layer1, self.layer2, self.layer3, self.layer4 = (
            _layer_of(block, stage, in_channels=in_width, stride=stride, shortcut=shortcut)
            for stage, in_width, stride in zip(stages, before, STRIDES, strict=True)
        )
        self.fc = nn.Linear(stages[-1].out_width, num_classes)
        init_convolutions(self)

    def forward_features(self, *clips: Tensor) -> Tensor:
        """Return the mean of the last stage over time and space, `(B, features)`."""
        (clip_BCTHW,) = clips
        out = self.maxpool(self._stem(clip_BCTHW))
        out = self.layer4(self.layer3(self.layer2(self.layer1(out))))
        pooled: Tensor = out.mean(dim=(2, 3, 4))
        return pooled

    def _add_stem(self, in_channels: int, width: int, *, kernel_t: int, stride_t: int) -> None:
        self.conv1 = nn.Conv3d(
            in_channels,
            width,
            (kernel_t, 7, 7),
            stride=(stride_t, 2, 2),
            padding=(kernel_t // 2, 3, 3),
            bias=False,
        )
        self.bn1 = nn.BatchNorm3d(width)

    def _stem(self, clip_BCTHW: Tensor) -> Tensor:
        return F.relu_(self.bn1(self.conv1(clip_BCTHW)))


R = TypeVar("R", bound=ResNet3d)


def resnet_of_depth(
    model: type[R],
    depth: int,
    *,
    basic: Callable[..., nn.Module],
    bottleneck: Callable[..., nn.Module],
    family: str,
    num_classes: int,
    widen_factor: float = 1.0,
    **options: Any,
) -> R:
    """Build a `model` with the published number of blocks: basic blocks up to depth 34, bottlenecks from 50 on.

    Stages are `widen_factor` times as wide, rounded down; `options` are those of ResNet3d. Raises InputError for a
    depth that is not published and for a factor that leaves no channels.
    """
    blocks = chosen(DEPTHS, depth, name=f"depth of {family}")
    is_deep = depth in BOTTLENECK_DEPTHS
    widths = tuple(int(width * widen_factor) for width in WIDTHS)
    if widths[0] < 1:
        raise InputError(f"widen_factor {widen_factor!r} leaves no channels; the smallest is 1/{WIDTHS[0]}")
    return model(
        bottleneck if is_deep else basic,
        stages_of(blocks, widths, expansion=4 if is_deep else 1),
        stem_width=widths[0],
        num_classes=num_classes,
        **options,
    )


def stages_of(blocks: Sequence[int], widths: Sequence[int], *, expansion: int) -> tuple[Stage, ...]:
    """Return one stage per entry, whose output is `expansion` times as wide as its inner convolutions."""
    return tuple(
        Stage(blocks=count, width=width, out_width=width * expansion)
        for count, width in zip(blocks, widths, strict=True)
    )


def _layer_of(
    block: Callable[..., nn.Module], stage: Stage, *, in_channels: int, stride: int, shortcut: ShortcutType
) -> nn.Sequential:
    first = block(in_channels, stage.width, stage.out_width, stride=stride, shortcut=shortcut)
    rest = (block(stage.out_width, stage.width, stage.out_width) for _ in range(stage.blocks - 1))
    return nn.Sequential(first, *rest)


@register_model(
    "resnet3d",
    clip="16x1x112",
    paper="Hara et al., 2018, arXiv:1711.09577",
    variants={f"resnet3d_{depth}": {"depth": depth} for depth in DEPTHS},
)
@accepts_options_of(resnet_of_depth, ResNet3d)
def resnet3d(num_classes: int = 700, *, depth: int = 50, **options: Any) -> ResNet3d:
    """3D ResNet of 3D-ResNets-PyTorch, with a 7x7x7 stem."""
    return resnet_of_depth(
        ResNet3d,
        depth,
        basic=BasicBlock,
        bottleneck=Bottleneck,
        family="resnet3d",
        num_classes=num_classes,
        **options,
    )
