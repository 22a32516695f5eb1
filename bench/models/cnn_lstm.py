"""A 2D model on each frame and an LSTM over them: long-term recurrent convolutional networks.

Donahue et al., 2015, arXiv:1411.4389 (code: BSD-2-Clause). With `readout="last"` it is the first of the five
architectures of Carreira and Zisserman, 2017, arXiv:1705.07750: Inception-v1 and 512 hidden units, 8.95 M parameters at
400 classes (the paper says 9 M). Theirs also normalises inside the recurrence and trains on the loss of every step.
"""

from typing import Literal

from torch import Tensor, nn

from bench.core.registry import register_model
from bench.models.backbones import Backbone, FrameModel, by_clip, create_backbone, frames_of

Readout = Literal["mean", "last"]


class CnnLstm(FrameModel):
    """An LSTM over a 2D model's features; logits are the mean over all steps (LRCN), or those of the last step."""

    def __init__(
        self, backbone: Backbone, *, num_classes: int, hidden_features: int, readout: Readout, dropout: float
    ) -> None:
        super().__init__(backbone)
        self.backbone = backbone.model
        self.lstm = nn.LSTM(backbone.width, hidden_features, batch_first=True)
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(hidden_features, num_classes)
        self.readout = readout

    def forward_features(self, *clips: Tensor) -> Tensor:
        """Return `(B, hidden features)`; a linear classifier maps their mean to the mean of the steps' logits."""
        (clip_BCTHW,) = clips
        per_frame: Tensor = self.backbone(frames_of(clip_BCTHW))
        steps, _ = self.lstm(by_clip(per_frame, frames=clip_BCTHW.shape[2]))
        kept: Tensor = self.dropout(steps)
        return kept[:, -1] if self.readout == "last" else kept.mean(dim=1)


@register_model("cnn_lstm", clip="25x5x224", paper="Donahue et al., 2015, arXiv:1411.4389")
def build_cnn_lstm(
    num_classes: int = 400,
    *,
    backbone: str = "torchvision:googlenet",
    hidden_features: int = 512,
    readout: Readout = "mean",
    dropout: float = 0.5,
    backbone_weights: str | None = None,
) -> CnnLstm:
    """Any 2D model with an LSTM over its frames (LRCN); `readout` selects the steps whose logits count."""
    return CnnLstm(
        create_backbone(backbone, weights=backbone_weights),
        num_classes=num_classes,
        hidden_features=hidden_features,
        readout=readout,
        dropout=dropout,
    )
