"""Two 2D models, one on RGB frames and one on stacks of optical flow, whose class scores are averaged.

Simonyan and Zisserman, 2014, arXiv:1406.2199: ten flow fields, x and y, make an image of 20 channels. With Inception-v1
it is the third of the five architectures of Carreira and Zisserman, 2017, arXiv:1705.07750: 12.07 M parameters at 400
classes (the paper says 12 M). Both papers train the streams separately; here one loss on the mean score trains both.
"""

import torch
from torch import Tensor, nn

from bench.core.registry import register_model
from bench.models.backbones import Backbone, by_clip, create_backbone, frames_of
from bench.models.snippets import FLOW_STACK, SnippetModel, stack_channels


class LateFusion(nn.Module):
    """The mean of two classifiers' logits, one on the RGB part of the features and one on the flow part."""

    def __init__(self, rgb: nn.Module, flow: nn.Module, *, rgb_features: int) -> None:
        super().__init__()
        self.rgb, self.flow = rgb, flow
        self.rgb_features = rgb_features

    def forward(self, features: Tensor) -> Tensor:
        of_rgb, of_flow = features.tensor_split((self.rgb_features,), dim=1)
        scores: Tensor = self.rgb(of_rgb) + self.flow(of_flow)
        return scores / 2


class TwoStream(SnippetModel):
    """`m(rgb, flow)`: the mean of both streams' class scores, before the softmax, over all snippets."""

    def __init__(self, rgb: Backbone, flow: Backbone, *, num_classes: int, flow_stack: int, dropout: float) -> None:
        super().__init__(rgb, flow_stack=flow_stack)
        self.rgb, self.flow = rgb.model, flow.model
        self.dropout = nn.Dropout(dropout)
        heads = (nn.Linear(stream.width, num_classes) for stream in (rgb, flow))
        self.fc = LateFusion(*heads, rgb_features=rgb.width)

    def forward_features(self, *clips: Tensor) -> Tensor:
        """Return both streams' means over the snippets, concatenated: `(B, RGB + flow features)`."""
        rgb_BCTHW, flow_BCTHW = clips
        streams = (self.rgb(frames_of(rgb_BCTHW)), self.flow(self.stacks_of(flow_BCTHW)))
        per_snippet: Tensor = self.dropout(torch.cat(streams, dim=1))
        return by_clip(per_snippet, frames=rgb_BCTHW.shape[2]).mean(dim=1)


@register_model("two_stream", clip="10x1x224", paper="Simonyan and Zisserman, 2014, arXiv:1406.2199")
def build_two_stream(
    num_classes: int = 400,
    *,
    backbone: str = "torchvision:googlenet",
    flow_stack: int = FLOW_STACK,
    dropout: float = 0.5,
    backbone_weights: str | None = None,
) -> TwoStream:
    """2D models on RGB frames and on stacks of flow, averaged; `backbone_weights`, ImageNet's, start both."""
    rgb = create_backbone(backbone, weights=backbone_weights)
    flow = create_backbone(backbone, in_channels=stack_channels(flow_stack), weights=backbone_weights)
    return TwoStream(rgb, flow, num_classes=num_classes, flow_stack=flow_stack, dropout=dropout)
