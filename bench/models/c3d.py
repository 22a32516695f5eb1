"""C3D: eight 3x3x3 convolutions and three fully connected layers. Tran et al., 2015, arXiv:1412.0767.

The layer names are those of the PyTorch ports of the authors' Caffe model, whose pool5 is padded in space, so that
fc6 reads 8192 values.
"""

from collections.abc import Iterable, Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from bench.core.errors import ClipError, InputError
from bench.core.registry import register_model
from bench.models.base import InputSpec, VideoModel, modality_of

KernelDepth = int | str | Sequence[int]

STAGE_DEPTHS = {"increasing": (3, 3, 5, 5, 7), "decreasing": (7, 5, 5, 3, 3)}
STAGES = {
    "conv1": 0,
    "conv2": 1,
    "conv3a": 2,
    "conv3b": 2,
    "conv4a": 3,
    "conv4b": 3,
    "conv5a": 4,
    "conv5b": 4,
}
MAP_SIZE = (1, 4, 4)


class C3D(VideoModel):
    """C3D on clips of 16 to 31 frames and 96 to 127 pixels, whose last map is the 1x4x4 that fc6 reads."""

    smallest_clip = (16, 96)
    largest_clip = (31, 127)
    head_name = "fc8"

    def __init__(self, *, num_classes: int, depths: Sequence[int], in_channels: int, dropout: float) -> None:
        super().__init__()
        self.inputs = (InputSpec(channels=in_channels, modality=modality_of(in_channels)),)
        convs = iter(zip((in_channels, 64, 128, 256, 256, 512, 512, 512), depths, strict=True))
        self.conv1 = same_conv(*next(convs), out_channels=64)
        self.pool1 = nn.MaxPool3d((1, 2, 2), (1, 2, 2))
        self.conv2 = same_conv(*next(convs), out_channels=128)
        self.pool2 = nn.MaxPool3d(2, 2)
        self.conv3a = same_conv(*next(convs), out_channels=256)
        self.conv3b = same_conv(*next(convs), out_channels=256)
        self.pool3 = nn.MaxPool3d(2, 2)
        self.conv4a = same_conv(*next(convs), out_channels=512)
        self.conv4b = same_conv(*next(convs), out_channels=512)
        self.pool4 = nn.MaxPool3d(2, 2)
        self.conv5a = same_conv(*next(convs), out_channels=512)
        self.conv5b = same_conv(*next(convs), out_channels=512)
        self.pool5 = nn.MaxPool3d(2, 2, padding=(0, 1, 1))
        self.fc6 = nn.Linear(512 * 1 * 4 * 4, 4096)
        self.fc7 = nn.Linear(4096, 4096)
        self.fc8 = nn.Linear(4096, num_classes)
        self.dropout = nn.Dropout(dropout)
        init_plain(self)

    def forward_features(self, *clips: Tensor) -> Tensor:
        """Return the input of fc8, `(B, 4096)`."""
        (x,) = clips
        x = self.pool1(F.relu(self.conv1(x)))
        x = self.pool2(F.relu(self.conv2(x)))
        x = self.pool3(F.relu(self.conv3b(F.relu(self.conv3a(x)))))
        x = self.pool4(F.relu(self.conv4b(F.relu(self.conv4a(x)))))
        x = self.pool5(F.relu(self.conv5b(F.relu(self.conv5a(x)))))
        x = self.dropout(F.relu(self.fc6(x.flatten(1))))
        features: Tensor = self.dropout(F.relu(self.fc7(x)))
        return features

    def check(self, *clips: Tensor) -> None:
        """Raise ClipError with the range that works, unless the last map of the clip is the one that fc6 reads."""
        for clip in clips:
            sizes = tuple(int(n) for n in clip.shape[2:])
            if clip.ndim == 5 and map_size(sizes) != MAP_SIZE:
                (t0, s0), (t1, s1) = self.smallest_clip, self.largest_clip
                raise ClipError(
                    f"{type(self).__name__} takes {t0} to {t1} frames, {s0} to {s1} pixels high and wide, "
                    f"as fc6 reads a 1x4x4 map; found {'x'.join(map(str, sizes))} (frames x H x W)"
                )
        super().check(*clips)


def map_size(sizes: tuple[int, ...]) -> tuple[int, ...]:
    """Return (frames, H, W) after pool5 for a clip of `sizes`: four halvings in time and space, then a padded one."""
    frames, *pixels = sizes
    return frames // 16, *(n // 16 // 2 + 1 for n in pixels)


def same_conv(in_channels: int, depth: int, *, out_channels: int) -> nn.Conv3d:
    """Return a `depth`x3x3 convolution that keeps frames, height and width."""
    return nn.Conv3d(in_channels, out_channels, (depth, 3, 3), padding=(depth // 2, 1, 1))


def init_plain(model: nn.Module) -> None:
    """Initialise a model without normalisation layers as He et al. do (arXiv:1502.01852); biases are 0."""
    for module in model.modules():
        if isinstance(module, nn.Conv3d | nn.Linear):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def kernel_depths(kernel_depth: KernelDepth, *, stages: Iterable[int]) -> tuple[int, ...]:
    """Return the temporal kernel depth of each layer; `stages` lists which of the five stages each layer is in.

    `kernel_depth` is one odd number for all layers, one for each layer, or the name of a row of STAGE_DEPTHS.
    Raises InputError for anything else.
    """
    stages = tuple(stages)
    if isinstance(kernel_depth, str):
        row = STAGE_DEPTHS.get(kernel_depth)
        depths = tuple(row[stage] for stage in stages) if row else ()
    elif isinstance(kernel_depth, int):
        depths = (kernel_depth,) * len(stages)
    else:
        depths = tuple(kernel_depth)
    if len(depths) != len(stages) or not all(type(d) is int and d > 0 and d % 2 for d in depths):
        raise InputError(
            f"kernel_depth {kernel_depth!r} is not an odd number, {len(stages)} odd numbers (one a layer), "
            f"or one of: {', '.join(STAGE_DEPTHS)}"
        )
    return depths


@register_model("c3d", clip="16x1x112", paper="Tran et al., 2015, arXiv:1412.0767")
def c3d(
    *, num_classes: int = 101, kernel_depth: KernelDepth = 3, in_channels: int = 3, dropout: float = 0.5
) -> nn.Module:
    """C3D; `kernel_depth` is the temporal extent of its kernels: a number, eight, "increasing" or "decreasing"."""
    depths = kernel_depths(kernel_depth, stages=STAGES.values())
    return C3D(num_classes=num_classes, depths=depths, in_channels=in_channels, dropout=dropout)
