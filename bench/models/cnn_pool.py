"""A 2D model on each frame, averaged: temporal segment networks.

Wang et al., 2016, arXiv:1608.00859 (code: BSD-2-Clause). Logits are averaged before the softmax; as the classifier is
linear, that equals the classifier on averaged features.
"""

from torch import Tensor, nn

from bench.core.registry import register_model
from bench.models.backbones import Backbone, FrameModel, by_clip, create_backbone, frames_of


class CnnPool(FrameModel):
    """The mean of a 2D model's logits over the frames of a clip."""

    def __init__(self, backbone: Backbone, *, num_classes: int, dropout: float) -> None:
        super().__init__(backbone)
        self.backbone = backbone.model
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(backbone.width, num_classes)

    def forward_features(self, *clips: Tensor) -> Tensor:
        """Return the mean over the frames, `(B, features)`; in training, dropout acts on each frame, as published."""
        (clip_BCTHW,) = clips
        features: Tensor = self.dropout(self.backbone(frames_of(clip_BCTHW)))
        return by_clip(features, frames=clip_BCTHW.shape[2]).mean(dim=1)


@register_model("cnn_pool", clip="8x8x224", paper="Wang et al., 2016, arXiv:1608.00859")
def build_cnn_pool(
    num_classes: int = 400,
    *,
    backbone: str = "torchvision:resnet50",
    dropout: float = 0.5,
    backbone_weights: str | None = None,
) -> CnnPool:
    """Any 2D model averaged over frames (TSN); `backbone_weights` is a file of its ImageNet weights."""
    return CnnPool(create_backbone(backbone, weights=backbone_weights), num_classes=num_classes, dropout=dropout)
