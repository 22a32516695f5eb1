"""How the views of a video are chosen, read, changed and cut, before pixels become numbers."""

import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from bench.core.errors import InputError
from bench.core.input_change import InputChange
from bench.core.input_protocol import CropRounding, Placement, Short, ViewSampling
from bench.core.schema import Clip, Views
from bench.data.clips import ClipReader, Reading
from bench.data.collection import Video
from bench.data.decode import require_backend
from bench.data.frame_sampling import Part, sample_views
from bench.data.transforms import spatial_views, whole_view

DecodedClips = list[dict[str, NDArray[np.uint8]]]  # frames (T, H, W, C) by modality, one entry per clip
ClipTensors = dict[str, list[Tensor]]  # views (C, T, H, W) of one video by modality


@dataclass(frozen=True, kw_only=True)
class ViewRule:
    """Clips of a video under each of `changes`, one change after the other, and the crops of each clip.

    `sampling`, `placement` and `short` are those of `bench.data.frame_sampling.sample_views`.
    """

    clip: Clip
    views: Views
    crop_rounding: CropRounding
    sampling: ViewSampling
    placement: Placement
    short: Short
    changes: tuple[InputChange, ...] = (InputChange(),)

    def changed_reading(self, reading: Reading) -> Reading:
        """`reading` under a change of it. Raises InputError if such a change does not stand alone."""
        changes = self.changes
        if len(changes) == 1 and changes[0].entry is not None and changes[0].is_at("reading"):
            changed: Reading = changes[0].entry.function(reading, value=changes[0].value)
            return changed
        apart = [str(change) for change in changes if not change.shares_decoding]
        if apart and len(changes) > 1:
            raise InputError(f"{', '.join(apart)} cannot share a decoding with other changes")
        return reading

    @property
    def changes_file(self) -> bool:
        return self.changes[0].is_at("file")

    def read(self, video: Video, reader: ClipReader) -> DecodedClips:
        """The clips of every change; for a change of pixels they are the unchanged ones."""
        choose, change = partial(self.frames, video.id), self.changes[0]
        if change.entry is not None and self.changes_file:
            return reader.read_changed(video, choose, partial(change.entry.function, value=change.value))
        return reader.read(video, choose)

    def frames(self, id_: str, part: Part) -> list[tuple[int, ...]]:
        """The frame numbers of the clips of every change."""
        clips = sample_views(
            part,
            clip=self.clip,
            views=self.views[0],
            sampling=self.sampling,
            placement=self.placement,
            short=self.short,
        )
        chosen: list[tuple[int, ...]] = []
        for change in self.changes:
            if change.entry is None or not change.is_at("order"):
                chosen += clips
                continue
            for frames in clips:  # with one draw a video: a lost frame is lost for all of its clips
                random = change_generator(id_, change)
                chosen.append(change.entry.function(frames, part=part, value=change.value, random=random))
        return chosen

    def cut(self, id_: str, decoded: DecodedClips) -> ClipTensors:
        """The views of the decoded clips, bytes."""
        views: ClipTensors = {modality: [] for modality in decoded[0]}
        count = len(decoded) // len(self.changes)
        for number, frames in enumerate(decoded):
            change = self.changes[number // count]
            for modality, decoded_THWC in frames.items():
                changed_THWC = decoded_THWC
                if change.entry is not None and change.is_at("pixels"):
                    random = change_generator(id_, change, clip=number % count)
                    changed_THWC = change.entry.function(decoded_THWC, value=change.value, random=random)
                views[modality] += self._spatial_views(np.ascontiguousarray(changed_THWC))
        return views

    def _spatial_views(self, frames_THWC: NDArray[np.uint8]) -> list[Tensor]:
        spatial = self.views[1]
        if spatial == "full":
            return [whole_view(frames_THWC)]
        height, width = self.clip.height, self.clip.width
        return spatial_views(frames_THWC, height=height, width=width, views=spatial, rounding=self.crop_rounding)


def require_decoders(changes: Iterable[InputChange]) -> None:
    """Raise InputError if a change needs a decoder that does not work on this machine."""
    for change in changes:
        if change.entry is not None and change.is_at("reading"):
            require_backend(change.entry.function(Reading(), value=change.value).backend)


def change_generator(id_: str, change: InputChange, *, clip: int = 0) -> np.random.Generator:
    """The generator of one change of one video; it does not depend on the model, the worker or the set."""
    return np.random.default_rng(
        (zlib.crc32(id_.encode("utf-8", "surrogatepass")), zlib.crc32(str(change).encode()), clip)
    )
