"""Two 2D models, on RGB frames and on stacks of flow, whose last maps are fused by a convolution over time and space.

The fourth of the five architectures of Carreira and Zisserman, 2017, arXiv:1705.07750, after Feichtenhofer et al.,
2016, arXiv:1604.06573: on five snippets, maps before the average pooling (5x7x7), a 3x3x3 convolution of 512 channels,
3x3x3 max pooling, a linear layer. With Inception-v1 it has 39.77 M parameters at 400 classes (the paper says 39 M).
The paper gives neither the stride of the pooling nor the step to the linear layer: here the stride is 2 and the mean
over all positions follows, so that any number of snippets and any size of clip works.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.core.registry import register_model
from bench.models.backbones import Backbone, by_clip, create_map_backbone, frames_of
from bench.models.snippets import FLOW_STACK, SnippetModel, stack_channels

FUSED_CHANNELS = 512
INIT_STD = 0.01


class Fused3D(SnippetModel):
    """`m(rgb, flow)`: logits of both streams' maps after 3D fusion."""

    def __init__(self, rgb: Backbone, flow: Backbone, *, num_classes: int, flow_stack: int, dropout: float) -> None:
        super().__init__(rgb, flow_stack=flow_stack)
        self.rgb, self.flow = rgb.model, flow.model
        self.fusion = nn.Conv3d(rgb.width + flow.width, FUSED_CHANNELS, 3, padding=1)
        self.pool = nn.MaxPool3d(3, stride=2, padding=1)
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(FUSED_CHANNELS, num_classes)
        for weight in (self.fusion.weight, self.fc.weight):
            nn.init.normal_(weight, std=INIT_STD)

    def forward_features(self, *clips: Tensor) -> Tensor:
        """Return the mean of the fused maps over time and space, `(B, 512)`."""
        rgb_BCTHW, flow_BCTHW = clips
        maps = torch.cat((self.rgb(frames_of(rgb_BCTHW)), self.flow(self.stacks_of(flow_BCTHW))), dim=1)
        maps_BCTHW = by_clip(maps, frames=rgb_BCTHW.shape[2]).transpose(1, 2)
        fused: Tensor = self.pool(F.relu(self.fusion(maps_BCTHW)))
        kept: Tensor = self.dropout(fused.mean(dim=(2, 3, 4)))
        return kept


@register_model("fused_3d", clip="50x1x224", paper="Carreira and Zisserman, 2017, arXiv:1705.07750")
def build_fused_3d(
    num_classes: int = 400,
    *,
    backbone: str = "torchvision:googlenet",
    flow_stack: int = FLOW_STACK,
    dropout: float = 0.5,
    backbone_weights: str | None = None,
) -> Fused3D:
    """2D models on RGB frames and on stacks of flow, fused in 3D; `backbone_weights`, ImageNet's, start both."""
    rgb = create_map_backbone(backbone, weights=backbone_weights)
    flow = create_map_backbone(backbone, in_channels=stack_channels(flow_stack), weights=backbone_weights)
    return Fused3D(rgb, flow, num_classes=num_classes, flow_stack=flow_stack, dropout=dropout)
