"""TANet: a 2D ResNet whose blocks weight and mix frames depending on the clip. Liu et al., 2021.

arXiv:2005.06803. Written from the paper; names of weights as in the authors' code (temporal-adaptive-module,
Apache-2.0) and, below the block, torchvision's.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from bench.core.errors import InputError
from bench.core.registry import register_model
from bench.models.backbones import Backbone, by_clip, create_backbone
from bench.models.tsm import STAGES, FrameScores


class TemporalAdaptiveModule(nn.Module):
    """Scales every channel at every frame, then mixes neighbouring frames by a kernel, both computed from the clip.

    `G` reads all frames of one channel and gives its kernel over time; `L` reads neighbouring frames of all channels
    and gives the scales.
    """

    def __init__(self, channels: int, *, frames: int, kernel_frames: int = 3) -> None:
        super().__init__()
        self.frames = frames
        self.G = nn.Sequential(
            nn.Linear(frames, 2 * frames, bias=False),
            nn.BatchNorm1d(2 * frames),
            nn.ReLU(),
            nn.Linear(2 * frames, kernel_frames, bias=False),
            nn.Softmax(-1),
        )
        self.L = nn.Sequential(
            nn.Conv1d(channels, channels // 4, kernel_frames, padding=kernel_frames // 2, bias=False),
            nn.BatchNorm1d(channels // 4),
            nn.ReLU(),
            nn.Conv1d(channels // 4, channels, 1, bias=False),
            nn.Sigmoid(),
        )

    def forward(self, frames_NCHW: Tensor) -> Tensor:
        clip_BCTHW = by_clip(frames_NCHW, frames=self.frames).transpose(1, 2)
        batch, channels, frames, height, width = clip_BCTHW.shape
        means_BCT = clip_BCTHW.mean((3, 4))
        kernels = self.G(means_BCT.flatten(0, 1))
        scaled = clip_BCTHW * self.L(means_BCT)[..., None, None]
        mixed = F.conv2d(
            scaled.reshape(1, batch * channels, frames, height * width),
            kernels.reshape(batch * channels, 1, -1, 1),
            padding=(kernels.shape[1] // 2, 0),
            groups=batch * channels,
        )
        return mixed.reshape(clip_BCTHW.shape).transpose(1, 2).flatten(0, 1)


class TemporalAdaptiveBlock(nn.Module):
    """A bottleneck of torchvision with the module behind its first convolution."""

    def __init__(self, block: nn.Module, *, frames: int) -> None:
        super().__init__()
        self.block = block
        self.tam = TemporalAdaptiveModule(block.get_parameter("conv1.weight").shape[0], frames=frames)

    def forward(self, x: Tensor) -> Tensor:
        block = self.block.get_submodule
        out = self.tam(F.relu(block("bn1")(block("conv1")(x))))
        out = F.relu(block("bn2")(block("conv2")(out)))
        out = block("bn3")(block("conv3")(out))
        shortcut = block("downsample")(x) if hasattr(self.block, "downsample") and self.block.downsample else x
        return F.relu(out + shortcut)


class TANet(FrameScores):
    """The mean over frames of the class scores; takes clips of exactly `frames` frames."""

    def __init__(self, backbone: Backbone, *, num_classes: int, frames: int, dropout: float) -> None:
        super().__init__(backbone, num_classes=num_classes, dropout=dropout)
        self.only_frames = frames
        self.smallest_clip = (frames, self.smallest_clip[1])
        for name in STAGES:
            stage = getattr(backbone.model, name, None)
            if not isinstance(stage, nn.Sequential) or not all(hasattr(block, "conv3") for block in stage):
                raise InputError("tanet takes ResNets of bottlenecks, from ResNet-50 on; found another backbone")
            blocks = (TemporalAdaptiveBlock(block, frames=frames) for block in stage)
            setattr(backbone.model, name, nn.Sequential(*blocks))


@register_model(
    "tanet",
    clip="8x8x224",
    paper="Liu et al., 2021, arXiv:2005.06803",
    variants={
        "tanet_r50": {"backbone": "torchvision:resnet50"},
        "tanet_r50_16": {"backbone": "torchvision:resnet50", "frames": 16, "clip": "16x4x224"},
        "tanet_r101": {"backbone": "torchvision:resnet101"},
        "tanet_r152": {"backbone": "torchvision:resnet152"},
    },
)
def tanet(
    num_classes: int = 400,
    *,
    backbone: str = "torchvision:resnet50",
    frames: int = 8,
    dropout: float = 0.5,
    backbone_weights: str | None = None,
) -> TANet:
    """TANet on a 2D ResNet of bottlenecks; `frames` is the number of frames of its clips, 3 or more."""
    if frames < 3:
        raise InputError(f"frames must be at least 3, as kernels over time span 3 frames; found {frames}")
    made = create_backbone(backbone, weights=backbone_weights)
    return TANet(made, num_classes=num_classes, frames=frames, dropout=dropout)
