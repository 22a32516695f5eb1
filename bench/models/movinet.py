"""MoViNet: searched mobile video models, as base models on whole clips and as causal models on streams of frames.

Kondratyuk et al., 2021, arXiv:2103.11511. Written from the paper; names of weights as in Atze00/MoViNet-pytorch (MIT),
whose files are the authors' TensorFlow weights converted. Convolutions and poolings are padded as TensorFlow's SAME.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.core.registry import register_model
from bench.models.base import VideoModel
from bench.models.blocks import chosen
from bench.models.i3d import same_padding

Size = Literal["a0", "a1", "a2", "a3", "a4", "a5"]

HIDDEN = 2048
DROPOUT = 0.2


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """Width of the stem, width of the last convolution, and the stages as (width, blocks).

    A block is written as expanded channels x kernel over time x kernel over height and width.
    """

    stem: int
    features: int
    stages: tuple[tuple[int, str], ...]


ARCHITECTURES: Mapping[Size, Architecture] = {
    "a0": Architecture(
        stem=8,
        features=480,
        stages=(
            (8, "24x1x5"),
            (32, "80x3x3 80x3x3 80x3x3"),
            (56, "184x5x3 112x3x3 184x3x3"),
            (56, "184x5x3 184x3x3 184x3x3 184x3x3"),
            (104, "384x5x3 280x1x5 280x1x5 344x1x5"),
        ),
    ),
    "a1": Architecture(
        stem=16,
        features=600,
        stages=(
            (16, "40x1x5 40x3x3"),
            (40, "96x3x3 120x3x3 96x3x3 96x3x3"),
            (64, "216x5x3 128x3x3 216x3x3 168x3x3 216x3x3"),
            (64, "216x5x3 216x3x3 216x3x3 128x3x3 128x1x5 216x3x3"),
            (136, "456x5x3 360x1x5 360x1x5 360x1x5 456x1x5 456x3x3 544x1x3"),
        ),
    ),
    "a2": Architecture(
        stem=16,
        features=640,
        stages=(
            (16, "40x1x5 40x3x3 64x3x3"),
            (40, "96x3x3 120x3x3 96x3x3 96x3x3 120x3x3"),
            (72, "240x5x3 160x3x3 240x3x3 192x3x3 240x3x3"),
            (72, "240x5x3 240x3x3 240x3x3 240x3x3 144x1x5 240x3x3"),
            (144, "480x5x3 384x1x5 384x1x5 480x1x5 480x1x5 480x3x3 576x1x3"),
        ),
    ),
    "a3": Architecture(
        stem=16,
        features=744,
        stages=(
            (16, "40x1x5 40x3x3 64x3x3 40x3x3"),
            (48, "112x3x3 144x3x3 112x3x3 112x1x5 144x3x3 144x3x3"),
            (80, "240x5x3 152x3x3 240x3x3 192x3x3 240x3x3"),
            (88, "264x5x3 264x3x3 264x3x3 264x3x3 160x1x5 264x3x3 264x3x3 264x3x3"),
            (168, "560x5x3 448x1x5 448x1x5 560x1x5 560x1x5 560x3x3 448x1x5 448x1x5 560x3x3 672x1x3"),
        ),
    ),
    "a4": Architecture(
        stem=24,
        features=856,
        stages=(
            (24, "64x1x5 64x3x3 96x3x3 64x3x3 96x3x3 64x3x3"),
            (56, "168x3x3 168x3x3 136x3x3 136x3x3 168x3x3 168x3x3 168x3x3 136x1x5 136x3x3"),
            (96, "320x5x3 160x3x3 320x3x3 192x3x3 320x3x3 160x3x3 320x3x3 256x3x3 320x3x3"),
            (96, "320x5x3 320x3x3 320x3x3 320x3x3 192x1x5 320x3x3 320x3x3 192x3x3 320x3x3 320x3x3"),
            (
                192,
                "640x5x3 512x1x5 512x1x5 640x1x5 640x1x5 640x3x3 512x1x5 512x1x5 640x1x5 768x1x5 640x1x5 "
                "640x3x3 768x3x3",
            ),
        ),
    ),
    "a5": Architecture(
        stem=24,
        features=992,
        stages=(
            (24, "64x1x5 64x1x5 96x3x3 64x3x3 96x3x3 64x3x3"),
            (64, "192x5x3 152x3x3 152x3x3 152x3x3 192x3x3 192x3x3 192x3x3 152x3x3 152x3x3 192x3x3 192x3x3"),
            (
                112,
                "376x5x3 224x3x3 376x3x3 376x3x3 296x3x3 376x3x3 224x3x3 376x3x3 376x3x3 296x3x3 376x3x3 "
                "376x3x3 376x3x3",
            ),
            (120, "376x5x3 376x3x3 376x3x3 376x3x3 224x1x5 376x3x3 376x3x3 224x3x3 376x3x3 376x3x3 376x3x3"),
            (
                224,
                "744x5x3 744x3x3 600x1x5 600x1x5 744x1x5 744x1x5 744x3x3 896x1x5 600x1x5 600x1x5 896x1x5 "
                "744x1x5 744x3x3 896x1x5 600x1x5 600x1x5 744x1x5 744x3x3",
            ),
        ),
    ),
}
"""Table 7 of the paper and its appendix, as the published weights have it."""

STRIDES = (2, 2, 2, 1, 2)
"""Stride in space of the first block of each stage; time is never strided."""


@dataclass(frozen=True)
class StreamState:
    """What the causal layers remember of the frames seen before, in the order in which they run."""

    frames: int = 0
    memory: tuple[Tensor, ...] = ()


class StreamPass:
    """One pass over the next frames of a stream: reads the memory of a state and collects the new one, by layer."""

    def __init__(self, state: StreamState) -> None:
        self.frames = state.frames
        self._unread = list(state.memory)
        self._kept: list[Tensor] = []

    def prepend(self, x_BCTHW: Tensor, frames: int) -> Tensor:
        """Return `x` behind the last `frames` frames of this layer's input before; zeros at the start of a stream."""
        batch, channels, _, height, width = x_BCTHW.shape
        before = self._unread.pop(0) if self._unread else x_BCTHW.new_zeros(batch, channels, frames, height, width)
        extended = torch.cat([before, x_BCTHW], dim=2)
        self._kept.append(extended[:, :, -frames:])
        return extended

    def running_mean(self, x_BCTHW: Tensor) -> Tensor:
        """Return for each frame the mean over all frames of the stream up to it."""
        total = x_BCTHW.cumsum(dim=2)
        if self._unread:
            total = total + self._unread.pop(0)
        self._kept.append(total[:, :, -1:])
        count = torch.arange(1, x_BCTHW.shape[2] + 1, device=x_BCTHW.device) + self.frames
        return total / count[:, None, None]

    def state(self, new_frames: int) -> StreamState:
        """Return the state after this pass over `new_frames` frames."""
        return StreamState(self.frames + new_frames, tuple(each.detach() for each in self._kept))


class ConvNormAct(nn.Module):
    """Convolution, batch norm and activation; `conv_name` is the key of the convolution, as the files name it."""

    def __init__(self, conv: nn.Conv2d | nn.Conv3d, *, norm: bool, activation: nn.Module | None) -> None:
        super().__init__()
        is_3d = isinstance(conv, nn.Conv3d)
        self.conv_name = "conv3d" if is_3d else "conv2d"
        self.add_module(self.conv_name, conv)
        batch_norm = nn.BatchNorm3d if is_3d else nn.BatchNorm2d
        self.norm = batch_norm(conv.out_channels, eps=1e-3) if norm else nn.Identity()
        self.act = activation or nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.act(self.norm(self.get_submodule(self.conv_name)(x)))
        return output


class ConvBlock(nn.Module):
    """A convolution over space and time: in base models one in 3D, in stream models one per frame, then one over time.

    The convolution over time of a stream model is causal: it sees its own frame and those before.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        is_stream: bool,
        kernel: tuple[int, int] = (1, 1),
        stride: int = 1,
        groups: int = 1,
        norm: bool = True,
        activation: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.kernel_t, self.kernel_hw = kernel
        self.stride, self.is_stream = stride, is_stream
        if is_stream:
            over_space: nn.Conv2d | nn.Conv3d = nn.Conv2d(
                in_channels, out_channels, self.kernel_hw, stride=stride, groups=groups, bias=not norm
            )
        else:
            size = (self.kernel_t, self.kernel_hw, self.kernel_hw)
            over_space = nn.Conv3d(
                in_channels,
                out_channels,
                size,
                stride=(1, stride, stride),
                padding=(self.kernel_t // 2, 0, 0),
                groups=groups,
                bias=not norm,
            )
        self.conv_1 = ConvNormAct(over_space, norm=norm, activation=activation)
        if is_stream and self.kernel_t > 1:
            over_time = nn.Conv2d(out_channels, out_channels, (self.kernel_t, 1), groups=groups, bias=not norm)
            self.conv_2 = ConvNormAct(over_time, norm=norm, activation=activation)

    def forward(self, x_BCTHW: Tensor, stream: StreamPass) -> Tensor:
        height, width = (same_padding(n, kernel=self.kernel_hw, stride=self.stride) for n in x_BCTHW.shape[3:])
        padded = F.pad(x_BCTHW, (*width, *height))
        if not self.is_stream:
            maps: Tensor = self.conv_1(padded)
            return maps
        batch, _, frames = padded.shape[:3]
        per_frame = self.conv_1(padded.transpose(1, 2).flatten(0, 1))
        maps = per_frame.unflatten(0, (batch, frames)).transpose(1, 2)
        if self.kernel_t > 1:
            extended = stream.prepend(maps, self.kernel_t - 1)
            maps = self.conv_2(extended.flatten(3)).unflatten(3, maps.shape[3:])
        return maps


class HardSigmoid(nn.Module):
    """TensorFlow's hard sigmoid, `clip(0.2 x + 0.5, 0, 1)`; torch's has a slope of 1/6."""

    def forward(self, x: Tensor) -> Tensor:
        return (0.2 * x + 0.5).clamp(0, 1)


class SqueezeExcitation(nn.Module):
    """Scales each channel by a gate computed from the means of all (Hu et al., 2018, arXiv:1709.01507).

    The gate of a stream model reads, for each frame, the mean of that frame and the mean of all frames up to it.
    """

    def __init__(self, channels: int, *, is_stream: bool) -> None:
        super().__init__()
        self.is_stream = is_stream
        inputs = 2 if is_stream else 1
        squeezed = multiple_of_8(channels // 4 * inputs)
        self.fc1 = ConvBlock(channels * inputs, squeezed, is_stream=is_stream, norm=False)
        self.fc2 = ConvBlock(squeezed, channels, is_stream=is_stream, norm=False)
        self.activation_1 = activation_of(is_stream)
        self.activation_2 = HardSigmoid() if is_stream else nn.Sigmoid()

    def forward(self, x_BCTHW: Tensor, stream: StreamPass) -> Tensor:
        if self.is_stream:
            per_frame = x_BCTHW.mean((3, 4), keepdim=True)
            means = torch.cat([stream.running_mean(per_frame), per_frame], dim=1)
        else:
            means = x_BCTHW.mean((2, 3, 4), keepdim=True)
        gate: Tensor = self.activation_2(self.fc2(self.activation_1(self.fc1(means, stream)), stream))
        return gate * x_BCTHW


class Shortcut(nn.ModuleList):
    """1x3x3 average pooling of stride 2 if the block is strided, then a 1x1x1 convolution with norm."""

    def __init__(self, in_channels: int, out_channels: int, *, stride: int, is_stream: bool) -> None:
        conv = ConvBlock(in_channels, out_channels, is_stream=is_stream)
        super().__init__([*([SamePool()] if stride > 1 else []), conv])

    def forward(self, x_BCTHW: Tensor, stream: StreamPass) -> Tensor:
        *pools, conv = self
        for pool in pools:
            x_BCTHW = pool(x_BCTHW)
        output: Tensor = conv(x_BCTHW, stream)
        return output


class SamePool(nn.Module):
    """1x3x3 average pooling of stride 2, padded as SAME; the padding does not count in the averages."""

    def forward(self, x_BCTHW: Tensor) -> Tensor:
        height, width = (same_padding(n, kernel=3, stride=2) for n in x_BCTHW.shape[3:])
        is_inside = F.pad(torch.ones_like(x_BCTHW[:1, :1, :1]), (*width, *height))
        share_inside = F.avg_pool3d(is_inside, (1, 3, 3), (1, 2, 2))
        return F.avg_pool3d(F.pad(x_BCTHW, (*width, *height)), (1, 3, 3), (1, 2, 2)) / share_inside


class Block(nn.Module):
    """Inverted bottleneck: expand, depthwise convolution, squeeze-and-excitation, project.

    `alpha` scales the branch and starts at 0 (ReZero: Bachlechner et al., 2020, arXiv:2003.04887).
    """

    def __init__(
        self,
        in_channels: int,
        expanded: int,
        out_channels: int,
        *,
        kernel: tuple[int, int],
        stride: int,
        is_stream: bool,
    ) -> None:
        super().__init__()
        self.expand = ConvBlock(in_channels, expanded, is_stream=is_stream, activation=activation_of(is_stream))
        self.deep = ConvBlock(
            expanded,
            expanded,
            is_stream=is_stream,
            kernel=kernel,
            stride=stride,
            groups=expanded,
            activation=activation_of(is_stream),
        )
        self.se = SqueezeExcitation(expanded, is_stream=is_stream)
        self.project = ConvBlock(expanded, out_channels, is_stream=is_stream)
        if stride > 1 or in_channels != out_channels:
            self.res: nn.Module | None = Shortcut(in_channels, out_channels, stride=stride, is_stream=is_stream)
        else:
            self.res = None
        self.alpha = nn.Parameter(torch.zeros(()))

    def forward(self, x_BCTHW: Tensor, stream: StreamPass) -> Tensor:
        shortcut = x_BCTHW if self.res is None else self.res(x_BCTHW, stream)
        branch = self.deep(self.expand(x_BCTHW, stream), stream)
        branch = self.project(self.se(branch, stream), stream)
        output: Tensor = shortcut + self.alpha * branch
        return output


class MoViNet(VideoModel):
    """MoViNet on clips of any length. RGB in 0..1 is not normalised further.

    `forward` takes a whole clip. A stream model gives the same logits after the clip's frames in pieces:

        state = StreamState()
        for frames in pieces:
            logits, state = model.forward_stream(frames, state)
    """

    head_name = "classifier.3.conv_1"
    mean = (0.0, 0.0, 0.0)
    std = (1.0, 1.0, 1.0)

    def __init__(self, architecture: Architecture, num_classes: int, *, is_stream: bool, dropout: float) -> None:
        super().__init__()
        self.is_stream = is_stream
        self.head_name = f"classifier.3.conv_1.{'conv2d' if is_stream else 'conv3d'}"
        width = architecture.stem
        self.conv1 = ConvBlock(
            3, width, is_stream=is_stream, kernel=(1, 3), stride=2, activation=activation_of(is_stream)
        )
        blocks = {}
        for stage, ((out_channels, rows), stride) in enumerate(zip(architecture.stages, STRIDES, strict=True)):
            for index, row in enumerate(rows.split()):
                expanded, kernel_t, kernel_hw = map(int, row.split("x"))
                blocks[f"b{stage}_l{index}"] = Block(
                    width,
                    expanded,
                    out_channels,
                    kernel=(kernel_t, kernel_hw),
                    stride=1 if index else stride,
                    is_stream=is_stream,
                )
                width = out_channels
        self.blocks = nn.ModuleDict(blocks)
        self.conv7 = ConvBlock(width, architecture.features, is_stream=is_stream, activation=activation_of(is_stream))
        self.classifier = nn.ModuleList(
            [
                ConvBlock(architecture.features, HIDDEN, is_stream=is_stream, norm=False),
                nn.SiLU(),
                nn.Dropout(dropout),
                ConvBlock(HIDDEN, num_classes, is_stream=is_stream, norm=False),
            ]
        )
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Conv3d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward_features(self, *clips: Tensor) -> Tensor:
        """Return what the last layer reads, `(B, 2048)`, of whole clips."""
        (clip_BCTHW,) = clips
        return self._features(clip_BCTHW, StreamPass(StreamState()))

    def forward_head(self, features: Tensor) -> Tensor:
        """Return logits `(B, classes)` of features `(B, 2048)`."""
        kept = self.classifier[2](features)
        logits: Tensor = self.classifier[3](kept[:, :, None, None, None], StreamPass(StreamState()))
        return logits.flatten(1)

    def forward_stream(self, clip_BCTHW: Tensor, state: StreamState) -> tuple[Tensor, StreamState]:
        """Return the logits after the next frames of a stream, and the state to continue from.

        Logits cover all frames since the empty state. Base models see future frames, so they cannot run on streams.
        """
        if not self.is_stream:
            raise TypeError("a base MoViNet is not causal; build its stream variant")
        self.check(clip_BCTHW)
        stream = StreamPass(state)
        logits = self.forward_head(self._features(clip_BCTHW, stream))
        return logits, stream.state(clip_BCTHW.shape[2])

    def _features(self, clip_BCTHW: Tensor, stream: StreamPass) -> Tensor:
        maps = self.conv1(clip_BCTHW, stream)
        for block in self.blocks.values():
            maps = block(maps, stream)
        maps = self.conv7(maps, stream)
        if self.is_stream:
            pooled = stream.running_mean(maps.mean((3, 4), keepdim=True))[:, :, -1:]
        else:
            pooled = maps.mean((2, 3, 4), keepdim=True)
        features: Tensor = self.classifier[1](self.classifier[0](pooled, stream))
        return features.flatten(1)


def activation_of(is_stream: bool) -> nn.Module:
    """Return the activation: swish in base models, hard swish in stream models."""
    return nn.Hardswish() if is_stream else nn.SiLU()


def multiple_of_8(channels: int) -> int:
    """Return the multiple of 8 nearest to `channels`, or the next one if that takes away more than a tenth."""
    nearest = max(8, (channels + 4) // 8 * 8)
    return nearest if nearest >= 0.9 * channels else nearest + 8


CLIPS: Mapping[Size, str] = {
    "a0": "50x5x172",
    "a1": "50x5x172",
    "a2": "50x5x224",
    "a3": "120x2x256",
    "a4": "80x3x290",
    "a5": "120x2x320",
}


@register_model(
    "movinet",
    clip="50x5x172",
    paper="Kondratyuk et al., 2021, arXiv:2103.11511",
    variants={
        f"movinet_{size}_{'stream' if stream else 'base'}": {"size": size, "stream": stream, "clip": CLIPS[size]}
        for stream in (False, True)
        for size in ARCHITECTURES
    },
)
def movinet(num_classes: int = 600, *, size: Size = "a0", stream: bool = False, dropout: float = DROPOUT) -> MoViNet:
    """MoViNet A0 to A5; `stream` makes its layers causal, so that frames can be given as they come.

    Logits are `(B, num_classes)` of clips `(B, 3, T, H, W)` of RGB in 0..1.
    """
    return MoViNet(chosen(ARCHITECTURES, size, name="size"), num_classes, is_stream=stream, dropout=dropout)
