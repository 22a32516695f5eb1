"""TSM: a 2D ResNet or MobileNetV2 whose blocks see some channels of the previous and the next frame.

Lin et al., 2019, arXiv:1811.08383 (code: MIT), whose names of weights these are. The shift is inside the residual
branch, before each block's first convolution, in both directions: the offline model. It has neither weights nor MACs.
"""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.core.errors import ClipError, InputError
from bench.core.registry import register_model
from bench.models.backbones import Backbone, FrameModel, by_clip, create_backbone, frames_of
from bench.models.stages import NON_LOCAL_PIXELS, Affinity, NonLocal

STAGES = ("layer1", "layer2", "layer3", "layer4")
DEEP_STAGE_BLOCKS = 23  # from here on (ResNet-101) the authors shift every second block only
WIDENING_LAYERS = 4  # of MobileNetV2's blocks: widening, depthwise and narrowing convolution, and the last norm


@dataclass(kw_only=True)
class ClipLength:
    """The number of frames per clip of the current batch, because 2D layers see frames folded into the batch."""

    frames: int = 1


class TemporalShift(nn.Module):
    """`net` on frames that have some channels of their neighbours."""

    def __init__(self, net: nn.Module, *, clip_length: ClipLength, shift_div: int) -> None:
        super().__init__()
        self.net = net
        self.clip_length = clip_length
        self.shift_div = shift_div

    def forward(self, frames: Tensor) -> Tensor:
        shifted: Tensor = self.net(shift_channels(frames, frames=self.clip_length.frames, shift_div=self.shift_div))
        return shifted


class NonLocalBlock(nn.Module):
    """A residual block, then a non-local block over all positions of the clip, as MMAction2 puts it into TSM."""

    def __init__(self, block: nn.Module, *, clip_length: ClipLength, affinity: Affinity) -> None:
        super().__init__()
        self.block = block
        self.clip_length = clip_length
        channels = block.get_parameter("bn3.weight").shape[0]
        self.non_local_block = NonLocal(channels, affinity=affinity, form="mmaction2")

    def forward(self, frames: Tensor) -> Tensor:
        clip_BCTHW = by_clip(self.block(frames), frames=self.clip_length.frames).transpose(1, 2)
        return frames_of(self.non_local_block(clip_BCTHW))


class FrameScores(FrameModel):
    """Base of 2D models whose blocks see other frames: the mean over the frames of each frame's class scores.

    The published models classify every frame, which costs more than to classify the mean and gives the same. If
    `only_frames` is set, clips have exactly so many frames.
    """

    head_name = "new_fc"
    only_frames: int | None = None

    def __init__(self, backbone: Backbone, *, num_classes: int, dropout: float) -> None:
        super().__init__(backbone)
        self.base_model = backbone.model
        self.dropout = nn.Dropout(dropout)
        self.new_fc = nn.Linear(backbone.width, num_classes)
        self.clip_length = ClipLength()

    def check(self, *clips: Tensor) -> None:
        """Raise ClipError also for another number of frames than `only_frames`: there is a weight for each."""
        super().check(*clips)
        for clip in clips:
            if self.only_frames is not None and clip.shape[2] != self.only_frames:
                raise ClipError(
                    f"this {type(self).__name__} takes {self.only_frames} frames, found {clip.shape[2]}; "
                    "build it with another `frames`"
                )

    def frame_features(self, clip_BCTHW: Tensor) -> Tensor:
        """Return the features of every frame, `(B * T, features)`."""
        self.clip_length.frames = clip_BCTHW.shape[2]
        features: Tensor = self.base_model(frames_of(clip_BCTHW))
        return features

    def forward_features(self, *clips: Tensor) -> Tensor:
        """Return the mean over the frames, `(B, features)`; in training, dropout acts on each frame, as published."""
        (clip_BCTHW,) = clips
        features = self.dropout(self.frame_features(clip_BCTHW))
        return by_clip(features, frames=clip_BCTHW.shape[2]).mean(dim=1)

    def forward(self, *clips: Tensor) -> Tensor:
        """Return logits `(B, classes)`; raises ClipError if a clip does not fit."""
        self.check(*clips)
        (clip_BCTHW,) = clips
        scores = self.new_fc(self.dropout(self.frame_features(clip_BCTHW)))
        return by_clip(scores, frames=clip_BCTHW.shape[2]).mean(dim=1)


class Tsm(FrameScores):
    """The mean over frames of the logits of a shifted 2D model.

    `non_local` names the affinity of non-local blocks behind every second block of the middle stages, or is None.
    """

    def __init__(
        self, backbone: Backbone, *, num_classes: int, shift_div: int, dropout: float, non_local: Affinity | None = None
    ) -> None:
        super().__init__(backbone, num_classes=num_classes, dropout=dropout)
        add_shifts(backbone.model, clip_length=self.clip_length, shift_div=shift_div)
        if non_local is None:
            return
        self.smallest_clip = (1, max(NON_LOCAL_PIXELS, backbone.smallest_px))
        stages: list[Any] = [getattr(backbone.model, name, None) for name in STAGES[1:3]]
        if any(stage is None or not hasattr(stage[0], "bn3") for stage in stages):
            raise InputError("non_local takes ResNets of bottlenecks, from ResNet-50 on; found another one")
        for stage in stages:
            for index in range(0, len(stage), 2):
                stage[index] = NonLocalBlock(stage[index], clip_length=self.clip_length, affinity=non_local)


def shift_channels(images: Tensor, *, frames: int, shift_div: int) -> Tensor:
    """Return `images` `(B * frames, C, H, W)` with channels of neighbouring frames.

    The first C / shift_div channels come from the next frame of the clip, as many more from the previous frame; at
    the ends of a clip they are zero."""
    clip_BTCHW = by_clip(images, frames=frames)
    part = images.shape[1] // shift_div
    from_next, from_last, own = clip_BTCHW.tensor_split((part, 2 * part), dim=2)
    no_change = (0, 0) * 3
    parts = (F.pad(from_next, (*no_change, -1, 1)), F.pad(from_last, (*no_change, 1, -1)), own)
    return torch.cat(parts, dim=2).flatten(0, 1)


def add_shifts(model: nn.Module, *, clip_length: ClipLength, shift_div: int) -> None:
    """Shift before the first convolution of the residual blocks of `model`.

    `model` is a ResNet of torchvision or timm, or torchvision's MobileNetV2, of which the authors shift the blocks
    that widen and have a shortcut.
    """
    inverted: list[Any] = [m for m in model.modules() if hasattr(m, "use_res_connect") and hasattr(m, "conv")]
    for block in inverted:
        if block.use_res_connect and len(block.conv) == WIDENING_LAYERS:
            block.conv[0] = TemporalShift(block.conv[0], clip_length=clip_length, shift_div=shift_div)
    for block in [] if inverted else shifted_blocks(model, family="tsm"):
        block.conv1 = TemporalShift(block.get_submodule("conv1"), clip_length=clip_length, shift_div=shift_div)


def shifted_blocks(model: nn.Module, *, family: str) -> list[nn.Module]:
    """Return the blocks of a ResNet that see other frames: all, or every second one of each stage of a deep ResNet."""
    stages = residual_blocks(model, family=family)
    step = 2 if len(stages[2]) >= DEEP_STAGE_BLOCKS else 1
    return [block for stage in stages for block in stage[::step]]


def residual_blocks(model: nn.Module, *, family: str) -> list[list[nn.Module]]:
    """Return the residual blocks of the four stages of a ResNet of torchvision or timm.

    Raises InputError for any other model; `family` names in the message what takes ResNets only.
    """
    stages = [list(getattr(model, stage, ())) for stage in STAGES]
    if not all(stage and all(isinstance(getattr(b, "conv1", None), nn.Conv2d) for b in stage) for stage in stages):
        raise InputError(
            f"{family} takes ResNets, whose blocks in layer1 to layer4 begin with conv1; found another model"
        )
    return stages


@register_model(
    "tsm",
    clip="8x8x224",
    paper="Lin et al., 2019, arXiv:1811.08383",
    variants={
        "tsm_r50": {"backbone": "torchvision:resnet50"},
        "tsm_r101": {"backbone": "torchvision:resnet101"},
        "tsm_mobilenetv2": {"backbone": "torchvision:mobilenet_v2"},
        "tsm_nln_r50": {"non_local": "unscaled_softmax"},
        "tsm_nln_dot_product_r50": {"non_local": "dot_product"},
        "tsm_nln_gaussian_r50": {"non_local": "gaussian"},
    },
)
def build_tsm(
    num_classes: int = 400,
    *,
    backbone: str = "torchvision:resnet50",
    shift_div: int = 8,
    dropout: float = 0.5,
    non_local: Affinity | None = None,
    backbone_weights: str | None = None,
) -> Tsm:
    """A 2D ResNet or MobileNetV2 with temporal shifts; 2 / `shift_div` of the channels move, half of them either way.

    `non_local` adds the non-local blocks of MMAction2's TSM, with this affinity.
    """
    if shift_div < 2:
        raise InputError(f"shift_div must be at least 2, as two parts of the channels move; found {shift_div}")
    made = create_backbone(backbone, weights=backbone_weights)
    return Tsm(made, num_classes=num_classes, shift_div=shift_div, dropout=dropout, non_local=non_local)
