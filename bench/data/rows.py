"""The clips of one batch, each normalised into its row as soon as it is there, so that nothing is copied twice."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.data import get_worker_info

from bench.core.input_protocol import Channels
from bench.data.transforms import FLOW_MEAN, FLOW_STD, normalise

Shown = dict[str, list[Tensor]]


@dataclass(frozen=True, kw_only=True)
class Normalisation:
    """`mean` and `std` of RGB per channel, on a scale of 0 to 1, as the model wants them; flow has its own.

    With `channels` bgr, the channels of RGB are reversed first; `mean` and `std` are in that order.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    channels: Channels = "rgb"

    def of(self, modality: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """What clips of `modality` are normalised with: (mean, deviation) per channel."""
        return (FLOW_MEAN, FLOW_STD) if modality == "flow" else (self.mean, self.std)

    def write(self, modality: str, clip_CTHW: Tensor, row_CTHW: Tensor) -> None:
        """A clip of bytes, normalised, into its row of a batch."""
        mean, std = self.of(modality)
        if modality == "rgb" and self.channels == "bgr":
            clip_CTHW = clip_CTHW.flip(0)
        normalise(clip_CTHW, mean=mean, std=std, out=row_CTHW)


class Rows:
    """The clips of one batch by modality, each normalised into its place as it comes: (videos * views, C, T, H, W)."""

    def __init__(self, videos: int, *, views: int = 1, normalisation: Normalisation) -> None:
        self._videos, self.views, self._normalisation = videos, views, normalisation
        self._clips: dict[str, Tensor] = {}
        self.filled = 0

    def add(self, made: Shown) -> None:
        """Write the views of the next video."""
        for modality, clips in made.items():
            if modality not in self._clips:
                self._clips[modality] = _empty((self._videos * self.views, *clips[0].shape))
            first = self.filled * self.views
            for clip_CTHW, row_CTHW in zip(clips, self._clips[modality][first : first + self.views], strict=True):
                self._normalisation.write(modality, clip_CTHW, row_CTHW)
        self.filled += 1

    def repeat(self) -> None:
        """Write the first videos again until no row is empty."""
        used = self.filled * self.views
        for clips in self._clips.values():
            for row in range(used, len(clips)):
                clips[row] = clips[row % used]
        self.filled = self._videos

    def whole(self) -> dict[str, Tensor]:
        """What was written."""
        if self.filled == self._videos:
            return self._clips
        return {modality: clips[: self.filled * self.views].clone() for modality, clips in self._clips.items()}


def _empty(shape: Sequence[int]) -> Tensor:
    """Unwritten float32; in a worker in shared memory, where the loader's process finds it without another copy."""
    if get_worker_info() is None:
        return torch.empty(shape)
    # torch's own collation does the same; there is no public way that does not write the memory twice.
    storage = torch.UntypedStorage._new_shared(4 * math.prod(shape), device="cpu")  # type: ignore[no-untyped-call]
    return torch.empty(0).set_(storage).view(*shape)
