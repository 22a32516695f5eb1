"""What the models of 3D-ResNets-PyTorch share: one clip, its normalisation, their shortcuts and their checks.

Hara, Kataoka and Satoh, 2018, arXiv:1711.09577; Kataoka et al., 2020, arXiv:2004.04968 (their weights).
"""

from collections.abc import Mapping
from typing import Literal, TypeVar

import torch.nn.functional as F
from torch import Tensor, nn

from bench.core.errors import InputError
from bench.models.base import InputSpec, VideoModel, modality_of

ShortcutType = Literal["A", "B"]

K = TypeVar("K")
V = TypeVar("V")


class HaraModel(VideoModel):
    """Base of models on one clip of `in_channels`, normalised with the means and deviations of the published code.

    For flow (2 channels) the published code takes the first two values of RGB; with more than three channels, the
    values repeat here. Flow that vbench reads is scaled to -1..1 for every model, as protocols state.
    """

    mean: tuple[float, ...] = (0.4345, 0.4051, 0.3775)
    std: tuple[float, ...] = (0.2768, 0.2713, 0.2737)

    def __init__(self, *, in_channels: int) -> None:
        super().__init__()
        self.inputs = (InputSpec(channels=in_channels, modality=modality_of(in_channels)),)
        self.mean = tuple(self.mean[channel % 3] for channel in range(in_channels))
        self.std = tuple(self.std[channel % 3] for channel in range(in_channels))


class ZeroPadShortcut(nn.Module):
    """Shortcut of type A: every `stride`-th position, padded with channels of zeros; it has no weights.

    He et al., 2015, arXiv:1512.03385, section 3.3. Gradients pass through it, unlike in the published 3D code.
    """

    def __init__(self, in_channels: int, out_channels: int, *, stride: int) -> None:
        super().__init__()
        self.extra_channels = out_channels - in_channels
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        step = self.stride
        return F.pad(x[:, :, ::step, ::step, ::step], (0, 0, 0, 0, 0, 0, 0, self.extra_channels))


def shortcut_between(in_channels: int, out_channels: int, *, stride: int, kind: ShortcutType) -> nn.Module:
    """Return the shortcut of a block: the identity if the shapes agree, else type A or B (1x1x1, norm)."""
    if stride == 1 and in_channels == out_channels:
        return nn.Identity()
    if kind == "A":
        return ZeroPadShortcut(in_channels, out_channels, stride=stride)
    return nn.Sequential(
        nn.Conv3d(in_channels, out_channels, 1, stride=stride, bias=False),
        nn.BatchNorm3d(out_channels),
    )


def init_convolutions(model: nn.Module) -> None:
    """Initialise every 3D convolution by its outputs (fan out), as He et al., 2015 (arXiv:1502.01852) do."""
    for module in model.modules():
        if isinstance(module, nn.Conv3d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


def chosen(table: Mapping[K, V], key: K, *, name: str) -> V:
    """Return `table[key]`; raises InputError with the allowed keys if it is missing."""
    if key not in table:
        raise InputError(f"unknown {name} {key!r}; allowed: {', '.join(map(str, table))}")
    return table[key]


def require_positive(**arguments: float) -> None:
    """Raise InputError for the first of `arguments` that is not above zero."""
    for name, value in arguments.items():
        if not value > 0:
            raise InputError(f"{name} must be above 0, found {value!r}")
