"""R(2+1)D-34 as MMAction2 (Apache-2.0) builds it and names its weights: every convolution split, shortcuts included.

Tran et al., 2018, arXiv:1711.11248. The stem is 3x7x7 and max-pooled, unlike that of torchvision and the authors, and
the norms have an epsilon of 1e-3, except those between the halves of a convolution.
"""

from collections import OrderedDict

from torch import Tensor, nn
from torch.nn import functional as F

from bench.core.registry import register_model
from bench.models.base import VideoModel
from bench.models.blocks import chosen
from bench.models.r2plus1d import factored_width
from bench.models.stages import Size

BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3)}
WIDTHS = (64, 128, 256, 512)
NORM_EPS = 1e-3


class FactoredConv(nn.Module):
    """A convolution over space, norm and ReLU, then one over time; padded by half its kernel."""

    def __init__(self, into: int, out: int, *, kernel: Size, stride: Size) -> None:
        super().__init__()
        (t, h, w), (stride_t, stride_h, stride_w) = kernel, stride
        # As for a kernel of three frames, whatever the frames of this one.
        between = factored_width(into, out, kernel=h)
        self.conv_s = nn.Conv3d(into, between, (1, h, w), (1, stride_h, stride_w), (0, h // 2, w // 2), bias=False)
        self.bn_s = nn.BatchNorm3d(between)
        self.conv_t = nn.Conv3d(between, out, (t, 1, 1), (stride_t, 1, 1), (t // 2, 0, 0), bias=False)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv_t(F.relu_(self.bn_s(self.conv_s(x))))
        return out


def _conv_unit(into: int, out: int, *, kernel: Size, stride: Size = (1, 1, 1)) -> nn.Sequential:
    """Return a factored convolution and its norm."""
    conv = FactoredConv(into, out, kernel=kernel, stride=stride)
    return nn.Sequential(OrderedDict(conv=conv, bn=nn.BatchNorm3d(out, eps=NORM_EPS)))


class FactoredBlock(nn.Module):
    """Two factored 3x3x3 convolutions and a shortcut, which is factored too if width or size change."""

    def __init__(self, into: int, out: int, *, stride: int) -> None:
        super().__init__()
        self.conv1 = _conv_unit(into, out, kernel=(3, 3, 3), stride=(stride, stride, stride))
        self.conv2 = _conv_unit(out, out, kernel=(3, 3, 3))
        is_plain = stride == 1 and into == out
        self.downsample = (
            nn.Identity() if is_plain else _conv_unit(into, out, kernel=(1, 1, 1), stride=(stride, stride, stride))
        )

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv2(F.relu_(self.conv1(x)))
        return F.relu_(out + self.downsample(x))


class R2Plus1DBasic(VideoModel):
    """A factored stem, max-pooled in space, and four stages, which halve time and space from the second on."""

    mean = (0.485, 0.456, 0.406)
    std = (0.229, 0.224, 0.225)
    head_name = "fc_cls"

    def __init__(self, depth: int, num_classes: int, *, dropout: float) -> None:
        super().__init__()
        self.conv1 = _conv_unit(3, WIDTHS[0], kernel=(3, 7, 7), stride=(1, 2, 2))
        self.maxpool = nn.MaxPool3d((1, 3, 3), (1, 2, 2), (0, 1, 1))
        into = WIDTHS[0]
        for stage, (blocks, width) in enumerate(zip(chosen(BLOCKS, depth, name="depth"), WIDTHS, strict=True)):
            first = FactoredBlock(into, width, stride=1 if stage == 0 else 2)
            rest = (FactoredBlock(width, width, stride=1) for _ in range(blocks - 1))
            self.add_module(f"layer{stage + 1}", nn.Sequential(first, *rest))
            into = width
        self.dropout = nn.Dropout(dropout)
        self.fc_cls = nn.Linear(into, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv3d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward_features(self, *clips: Tensor) -> Tensor:
        """Return the mean of the last stage over time and space, `(B, 512)`."""
        (clip_BCTHW,) = clips
        maps = self.maxpool(F.relu_(self.conv1(clip_BCTHW)))
        for stage in range(len(WIDTHS)):
            maps = self.get_submodule(f"layer{stage + 1}")(maps)
        pooled: Tensor = self.dropout(maps.mean((2, 3, 4)))
        return pooled


@register_model(
    "r2plus1d_basic",
    clip="8x8x224",
    paper="Tran et al., 2018, arXiv:1711.11248",
    variants={"r2plus1d_r18": {"depth": 18}, "r2plus1d_r34": {"depth": 34}},
)
def build_r2plus1d_basic(num_classes: int = 400, *, depth: int = 34, dropout: float = 0.5) -> R2Plus1DBasic:
    """R(2+1)D of basic blocks as MMAction2 has it; not that of torchvision."""
    return R2Plus1DBasic(depth, num_classes, dropout=dropout)
