"""I3D: Inception-v1 with its kernels inflated in time, on RGB or on optical flow.

Carreira and Zisserman, 2017, arXiv:1705.07750. Names of weights as in piergiaj's pytorch-i3d (Apache-2.0), which
carries the authors' weights (kinetics-i3d, Apache-2.0).

RGB is scaled to -1..1. Flow is clipped to 20 pixels per frame in both directions and scaled to -1..1: `mean` and
`std` expect it in 0..1, with no motion at one half.
"""

import warnings
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.core.registry import register_model
from bench.models.backbones import create_backbone
from bench.models.base import InputSpec, Modality, VideoModel
from bench.models.inflation import Inflation, inflate

Size = tuple[int, int, int]

CHANNELS: Mapping[Modality, int] = {"rgb": 3, "flow": 2}
STRIDE: Size = (8, 32, 32)
WINDOW: Size = (2, 7, 7)
FEATURES = 1024

# Per block: channels in; 1x1x1; reduction and 3x3x3; reduction and 3x3x3; 1x1x1 after the pooling.
MIXED: Mapping[str, tuple[int, int, int, int, int, int, int]] = {
    "Mixed_3b": (192, 64, 96, 128, 16, 32, 32),
    "Mixed_3c": (256, 128, 128, 192, 32, 96, 64),
    "Mixed_4b": (480, 192, 96, 208, 16, 48, 64),
    "Mixed_4c": (512, 160, 112, 224, 24, 64, 64),
    "Mixed_4d": (512, 128, 128, 256, 24, 64, 64),
    "Mixed_4e": (512, 112, 144, 288, 32, 64, 64),
    "Mixed_4f": (528, 256, 160, 320, 32, 128, 128),
    "Mixed_5b": (832, 256, 160, 320, 32, 128, 128),
    "Mixed_5c": (832, 384, 192, 384, 48, 128, 128),
}
ENDPOINTS = (
    *("Conv3d_1a_7x7", "MaxPool3d_2a_3x3", "Conv3d_2b_1x1", "Conv3d_2c_3x3", "MaxPool3d_3a_3x3"),
    *("Mixed_3b", "Mixed_3c", "MaxPool3d_4a_3x3"),
    *("Mixed_4b", "Mixed_4c", "Mixed_4d", "Mixed_4e", "Mixed_4f", "MaxPool3d_5a_2x2"),
    *("Mixed_5b", "Mixed_5c"),
)


class PoolWindowWarning(UserWarning):
    """The average pooling of I3D is smaller than published because the clip is."""


class UnitConv3d(nn.Module):
    """A convolution padded as TensorFlow's SAME, batch norm, ReLU."""

    def __init__(self, in_channels: int, out_channels: int, *, kernel: int = 1, stride: int = 1) -> None:
        super().__init__()
        self.is_strided = stride > 1
        padding = 0 if self.is_strided else kernel // 2
        self.conv3d = nn.Conv3d(in_channels, out_channels, kernel, stride=stride, padding=padding, bias=False)
        self.bn = nn.BatchNorm3d(out_channels, eps=1e-3, momentum=0.01)

    def forward(self, x: Tensor) -> Tensor:
        if self.is_strided:
            kernel, stride = self.conv3d.kernel_size[0], self.conv3d.stride[0]
            sides = [same_padding(size, kernel=kernel, stride=stride) for size in reversed(x.shape[2:])]
            x = F.pad(x, [pixels for side in sides for pixels in side])
        return F.relu(self.bn(self.conv3d(x)))


class SameMaxPool3d(nn.Module):
    """Max pooling padded as TensorFlow's SAME, which is `ceil_mode` after padding the front."""

    def __init__(self, kernel: Size, *, stride: Size) -> None:
        super().__init__()
        self.kernel, self.stride = kernel, stride

    def forward(self, x: Tensor) -> Tensor:
        sizes = zip(x.shape[2:], self.kernel, self.stride, strict=True)
        front = [same_padding(size, kernel=kernel, stride=stride)[0] for size, kernel, stride in sizes]
        return F.max_pool3d(x, self.kernel, self.stride, padding=front, ceil_mode=True)


class InceptionBlock(nn.Module):
    """Four branches side by side: 1x1x1, two of 1x1x1 then 3x3x3, and pooling then 1x1x1."""

    def __init__(self, in_channels: int, *widths: int) -> None:
        super().__init__()
        b0, b1a, b1b, b2a, b2b, b3b = widths
        self.b0 = UnitConv3d(in_channels, b0)
        self.b1a = UnitConv3d(in_channels, b1a)
        self.b1b = UnitConv3d(b1a, b1b, kernel=3)
        self.b2a = UnitConv3d(in_channels, b2a)
        self.b2b = UnitConv3d(b2a, b2b, kernel=3)
        self.b3a = SameMaxPool3d((3, 3, 3), stride=(1, 1, 1))
        self.b3b = UnitConv3d(in_channels, b3b)

    def forward(self, x: Tensor) -> Tensor:
        branches = (self.b0(x), self.b1b(self.b1a(x)), self.b2b(self.b2a(x)), self.b3b(self.b3a(x)))
        return torch.cat(branches, dim=1)


class Logits(nn.Module):
    """The classifier, a 1x1x1 convolution in the published weights, on features `(B, 1024)`."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.conv3d = nn.Conv3d(FEATURES, num_classes, 1)

    def forward(self, features: Tensor) -> Tensor:
        logits: Tensor = self.conv3d(features[:, :, None, None, None])
        return logits.flatten(1)


class InflatedInception(VideoModel):
    """I3D without its classifier: features `(B, 1024)`, the mean over positions of the (2, 7, 7) pooling window.

    A window larger than the map shrinks to it, with a PoolWindowWarning: the map has an eighth of
    the clip's frames and a 32nd of its pixels, rounded up. Clips below one stride, mostly padding, are refused.
    """

    smallest_clip = STRIDE[:2]

    def __init__(self, *, modality: Modality, dropout: float) -> None:
        super().__init__()
        channels = CHANNELS[modality]
        self.inputs = (InputSpec(channels=channels, modality=modality),)
        self.mean = self.std = (0.5,) * channels
        self.dropout = nn.Dropout(dropout)
        self.Conv3d_1a_7x7 = UnitConv3d(channels, 64, kernel=7, stride=2)
        self.MaxPool3d_2a_3x3 = SameMaxPool3d((1, 3, 3), stride=(1, 2, 2))
        self.Conv3d_2b_1x1 = UnitConv3d(64, 64)
        self.Conv3d_2c_3x3 = UnitConv3d(64, 192, kernel=3)
        self.MaxPool3d_3a_3x3 = SameMaxPool3d((1, 3, 3), stride=(1, 2, 2))
        self.MaxPool3d_4a_3x3 = SameMaxPool3d((3, 3, 3), stride=(2, 2, 2))
        self.MaxPool3d_5a_2x2 = SameMaxPool3d((2, 2, 2), stride=(2, 2, 2))
        for name, widths in MIXED.items():
            self.add_module(name, InceptionBlock(*widths))

    def forward_features(self, *clips: Tensor) -> Tensor:
        """Return `(B, 1024)`; in training, dropout acts on each position of the window, as published."""
        (x,) = clips
        for name in ENDPOINTS:
            x = self.get_submodule(name)(x)
        pooled: Tensor = self.dropout(F.avg_pool3d(x, fitting_window(x), stride=1))
        return pooled.mean(dim=(2, 3, 4))


class I3D(InflatedInception):
    """Inflated Inception-v1 with its classifier; logits are the mean over the positions of the pooling window."""

    head_name = "logits.conv3d"

    def __init__(self, *, num_classes: int, modality: Modality, dropout: float) -> None:
        super().__init__(modality=modality, dropout=dropout)
        self.logits = Logits(num_classes)

    def forward_head(self, features: Tensor) -> Tensor:
        logits: Tensor = self.logits(features)
        return logits


def same_padding(size: int, *, kernel: int, stride: int) -> tuple[int, int]:
    """Return the padding before and after that gives ceil(size / stride) outputs; an odd zero goes after."""
    out = -(-size // stride)
    total = max((out - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


def fitting_window(maps: Tensor) -> Size:
    """Return the published pooling window cut to the map, with a PoolWindowWarning if it is smaller than published."""
    frames, height, width = (min(window, int(size)) for window, size in zip(WINDOW, maps.shape[2:], strict=True))
    if (frames, height, width) != WINDOW and not torch.compiler.is_compiling():
        warnings.warn(
            f"I3D averages over {frames}x{height}x{width} positions in place of the published 2x7x7, "
            "as the clip has fewer than 9 frames or 193 pixels",
            PoolWindowWarning,
            stacklevel=2,
        )
    return frames, height, width


def inflate_googlenet(model: InflatedInception, weights: str) -> Inflation:
    """Inflate torchvision's GoogLeNet into `model`, with ImageNet `weights` from a file; the classifier is fresh.

    The structures agree except for the first layer's padding on clips of even size: SAME reaches one pixel further
    right and down. For flow, the first kernels are their mean over RGB.
    """
    backbone = create_backbone("torchvision:googlenet", in_channels=model.inputs[0].channels, weights=weights)
    return inflate(backbone.model, model, mapping=GOOGLENET_TO_I3D, skip=["logits"])


def _googlenet_names() -> dict[str, str]:
    stem = {"conv1": "Conv3d_1a_7x7", "conv2": "Conv3d_2b_1x1", "conv3": "Conv3d_2c_3x3"}
    branches = {"branch1": "b0", "branch2.0": "b1a", "branch2.1": "b1b"}
    branches |= {"branch3.0": "b2a", "branch3.1": "b2b", "branch4.1": "b3b"}
    blocks = dict(zip(("3a", "3b", "4a", "4b", "4c", "4d", "4e", "5a", "5b"), MIXED, strict=True))
    mixed = {
        f"inception{block}.{branch}": f"{mixed}.{unit}"
        for block, mixed in blocks.items()
        for branch, unit in branches.items()
    }
    layers = {"conv": "conv3d", "bn": "bn"}
    units = {**stem, **mixed}.items()
    return {f"{old}.{layer}": f"{new}.{layers[layer]}" for old, new in units for layer in layers}


GOOGLENET_TO_I3D: Mapping[str, str] = _googlenet_names()


@register_model(
    "i3d",
    clip="64x1x224",
    paper="Carreira and Zisserman, 2017, arXiv:1705.07750",
    variants={"i3d_rgb": {"modality": "rgb"}, "i3d_flow": {"modality": "flow"}},
)
def build_i3d(
    num_classes: int = 400, *, modality: Modality = "rgb", dropout: float = 0.5, inflated_from: str | None = None
) -> I3D:
    """I3D, Inception-v1 inflated; `inflated_from` is a file of torchvision's GoogLeNet weights to start from."""
    model = I3D(num_classes=num_classes, modality=modality, dropout=dropout)
    if inflated_from is not None:
        inflate_googlenet(model, inflated_from)
    return model
