"""The small model of C3D's search for a temporal kernel depth. Tran et al., 2015, arXiv:1412.0767, section 3.2.

Time is pooled away before the first fully connected layer whatever the clip's length. So the model of kernel depth 1
cannot see the order of frames: its logits are the same for a clip played backwards (exactly so where windows of two
frames tile the clip: 1, 2, 4, 8 frames or a multiple of 16).
"""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from bench.core.errors import InputError
from bench.core.registry import register_model
from bench.models.base import InputSpec, VideoModel, modality_of
from bench.models.c3d import KernelDepth, init_plain, kernel_depths, same_conv

CHANNELS = (64, 128, 256, 256, 256)
FC_WIDTH = 2048


class C3DSearch(VideoModel):
    """Five convolutions, each followed by a pooling, and two fully connected layers before the classifier.

    Pooling rounds up, as in Caffe, so any clip fits. At 16 x 112 x 112 the last map is 1x4x4; other clips are pooled
    to that.
    """

    head_name = "fc8"

    def __init__(
        self, *, num_classes: int, depths: Sequence[int], width: float, in_channels: int, dropout: float
    ) -> None:
        super().__init__()
        self.inputs = (InputSpec(channels=in_channels, modality=modality_of(in_channels)),)
        c1, c2, c3, c4, c5 = (max(1, round(c * width)) for c in CHANNELS)
        hidden = max(1, round(FC_WIDTH * width))
        self.conv1 = same_conv(in_channels, depths[0], out_channels=c1)
        self.conv2 = same_conv(c1, depths[1], out_channels=c2)
        self.conv3 = same_conv(c2, depths[2], out_channels=c3)
        self.conv4 = same_conv(c3, depths[3], out_channels=c4)
        self.conv5 = same_conv(c4, depths[4], out_channels=c5)
        self.pool1 = nn.MaxPool3d((1, 2, 2), ceil_mode=True)
        self.pool = nn.MaxPool3d(2, ceil_mode=True)
        self.to_map = nn.AdaptiveMaxPool3d((1, 4, 4))
        self.fc6 = nn.Linear(c5 * 4 * 4, hidden)
        self.fc7 = nn.Linear(hidden, hidden)
        self.fc8 = nn.Linear(hidden, num_classes)
        self.dropout = nn.Dropout(dropout)
        init_plain(self)

    def forward_features(self, *clips: Tensor) -> Tensor:
        """Return the input of fc8, `(B, 2048 * width)`."""
        (x,) = clips
        x = self.pool1(F.relu(self.conv1(x)))
        for conv in (self.conv2, self.conv3, self.conv4, self.conv5):
            x = self.pool(F.relu(conv(x)))
        x = self.dropout(F.relu(self.fc6(self.to_map(x).flatten(1))))
        features: Tensor = self.dropout(F.relu(self.fc7(x)))
        return features


@register_model("c3d_search", clip="16x1x112", paper="Tran et al., 2015, arXiv:1412.0767")
def c3d_search(
    *,
    num_classes: int = 101,
    kernel_depth: KernelDepth = 3,
    width: float = 1.0,
    in_channels: int = 3,
    dropout: float = 0.5,
) -> nn.Module:
    """C3D's temporal-depth search: `kernel_depth` 1, 3, 5, 7, "increasing" or "decreasing"; `width` scales channels."""
    if not 0 < width <= 16:
        raise InputError(f"width {width!r} is not a positive factor of at most 16")
    depths = kernel_depths(kernel_depth, stages=range(len(CHANNELS)))
    return C3DSearch(num_classes=num_classes, depths=depths, width=width, in_channels=in_channels, dropout=dropout)
