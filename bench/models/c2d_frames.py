"""C2D as MMAction2 (Apache-2.0) has it: a ResNet for images that max-pools pairs of frames after its first stage.

Wang et al., 2018, arXiv:1711.07971. Its weights are those of a ResNet for images, and unlike in PyTorchVideo's `c2d`
the first pooling has no padding.
"""

from torch import Tensor, nn
from torch.nn import functional as F

from bench.core.registry import register_model
from bench.models.backbones import by_clip, create_map_backbone, frames_of
from bench.models.base import VideoModel


class C2dFrames(VideoModel):
    """The mean of the last map over all frames, half as many as those of the clip, and over space."""

    mean = (0.485, 0.456, 0.406)
    std = (0.229, 0.224, 0.225)
    smallest_clip = (2, 32)

    def __init__(self, num_classes: int, *, backbone: str, dropout: float) -> None:
        super().__init__()
        made = create_map_backbone(backbone)
        self.backbone = made.model
        self.backbone.maxpool = nn.MaxPool2d(3, stride=2)
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(made.width, num_classes)

    def forward_features(self, *clips: Tensor) -> Tensor:
        """Return the pooled map, `(B, features)`."""
        (clip_BCTHW,) = clips
        maps, frames = frames_of(clip_BCTHW), clip_BCTHW.shape[2]
        for name, part in self.backbone.named_children():
            maps = part(maps)
            if name == "layer1":
                by_clip_BCTHW = by_clip(maps, frames=frames).transpose(1, 2)
                maps = frames_of(F.max_pool3d(by_clip_BCTHW, (2, 1, 1)))
        pooled: Tensor = self.dropout(by_clip(maps.mean((2, 3)), frames=frames // 2).mean(1))
        return pooled


@register_model(
    "c2d_frames",
    clip="8x8x224",
    paper="Wang et al., 2018, arXiv:1711.07971",
    variants={
        "c2d_frames_r50": {"backbone": "torchvision:resnet50"},
        "c2d_frames_r101": {"backbone": "torchvision:resnet101"},
    },
)
def build_c2d_frames(
    num_classes: int = 400, *, backbone: str = "torchvision:resnet50", dropout: float = 0.5
) -> C2dFrames:
    """MMAction2's C2D on a ResNet of torchvision."""
    return C2dFrames(num_classes, backbone=backbone, dropout=dropout)
