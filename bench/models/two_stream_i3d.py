"""Two-stream I3D: inflated Inception-v1 on RGB and on optical flow, their class scores averaged.

Carreira and Zisserman, 2017, arXiv:1705.07750: the fifth of the architectures that it compares, 25.37 M parameters at
400 classes (the paper says 25 M). The published streams were trained separately, each with its own file of weights.
"""

import warnings

import torch
from torch import Tensor

from bench.core.registry import register_model
from bench.models.backbones import HALVES
from bench.models.base import Modality, VideoModel
from bench.models.i3d import FEATURES, I3D, InflatedInception, Logits, inflate_googlenet
from bench.models.two_stream import LateFusion
from bench.models.weights.loading import load_weights


class TwoStreamI3D(VideoModel):
    """`m(rgb, flow)`: the mean of both streams' class scores, before the softmax. `mean` and `std` are those of RGB."""

    smallest_clip = InflatedInception.smallest_clip
    mean = std = HALVES

    def __init__(self, *, num_classes: int, dropout: float) -> None:
        super().__init__()
        self.rgb = InflatedInception(modality="rgb", dropout=dropout)
        self.flow = InflatedInception(modality="flow", dropout=dropout)
        self.inputs = self.rgb.inputs + self.flow.inputs
        self.fc = LateFusion(Logits(num_classes), Logits(num_classes), rgb_features=FEATURES)

    def forward_features(self, *clips: Tensor) -> Tensor:
        """Return the features of both streams, concatenated: `(B, 2048)`."""
        rgb_BCTHW, flow_BCTHW = clips
        return torch.cat((self.rgb.forward_features(rgb_BCTHW), self.flow.forward_features(flow_BCTHW)), dim=1)


def load_stream(model: TwoStreamI3D, modality: Modality, path: str) -> None:
    """Fill one stream of `model` and its classifier from `path`, a file that fits `i3d_rgb` or `i3d_flow`.

    A classifier with other classes is skipped with a warning; any other mismatch raises WeightsError.
    """
    trunk, classifier = model.get_submodule(modality), model.fc.get_submodule(modality)
    num_classes = len(classifier.state_dict()["conv3d.bias"])
    single = I3D(num_classes=num_classes, modality=modality, dropout=0.0)
    for text in load_weights(single, path).warnings:
        warnings.warn(text, stacklevel=2)
    classifier.load_state_dict(single.logits.state_dict())
    del single.logits
    trunk.load_state_dict(single.state_dict())


@register_model("two_stream_i3d", clip="64x1x224", paper="Carreira and Zisserman, 2017, arXiv:1705.07750")
def build_two_stream_i3d(
    num_classes: int = 400,
    *,
    dropout: float = 0.5,
    inflated_from: str | None = None,
    rgb_weights: str | None = None,
    flow_weights: str | None = None,
) -> TwoStreamI3D:
    """I3D on RGB and on flow, averaged.

    `rgb_weights` and `flow_weights` are files of the single streams, `inflated_from` one of torchvision's GoogLeNet.
    """
    model = TwoStreamI3D(num_classes=num_classes, dropout=dropout)
    if inflated_from is not None:
        inflate_googlenet(model.rgb, inflated_from)
        inflate_googlenet(model.flow, inflated_from)
    if rgb_weights is not None:
        load_stream(model, "rgb", rgb_weights)
    if flow_weights is not None:
        load_stream(model, "flow", flow_weights)
    return model
