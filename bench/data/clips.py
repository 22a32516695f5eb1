"""Read the clips of one video: find its part, choose frames, decode each wanted frame once."""

import tempfile
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench.core.errors import InputError, MissingFrameError, VideoError
from bench.data.collection import Video
from bench.data.decode import read_frames, read_frames_in_sizes
from bench.data.frame_folder import list_frames, read_flow
from bench.data.frame_sampling import Part, part_between
from bench.data.geometry import Size
from bench.data.hdf5_frames import count_frames
from bench.data.media import HDF5_SUFFIXES
from bench.data.pyav_reader import claimed_length

Choose = Callable[[Part], Sequence[Sequence[int]]]
Frames = NDArray[np.uint8]

_WORTH_WHOLE = 4  # a cached video is decoded whole if it is at most this many times as long as its clips


class DecodedCache:
    """Decoded videos of a small set in memory. A set that would not fit into `limit_bytes` is not kept at all."""

    def __init__(self, *, videos: int, limit_bytes: int) -> None:
        self._videos, self._limit_bytes = videos, limit_bytes
        self._kept: dict[str, Frames] = {}
        self._unfit: set[str] = set()
        self.is_open = limit_bytes > 0

    def get(self, id_: str) -> Frames | None:
        return self._kept.get(id_)

    def wants(self, id_: str) -> bool:
        """Return False if the set is too large, or this video cannot be read as a whole."""
        return self.is_open and id_ not in self._unfit

    def leave_out(self, id_: str) -> None:
        """Stop asking for this video."""
        self._unfit.add(id_)

    def put(self, id_: str, frames_THWC: Frames) -> None:
        """Keep a video; the size of the first one decides whether the set is small."""
        if not self._kept:
            self.is_open = frames_THWC.nbytes * self._videos <= self._limit_bytes
        kept = (len(self._kept) + 1) * frames_THWC.nbytes
        if self.is_open and kept <= 2 * self._limit_bytes:
            self._kept[id_] = frames_THWC


@dataclass(frozen=True, kw_only=True)
class Reading:
    """How videos are read: the size that frames are scaled to, and the decoding backend."""

    size: Size | None = None
    backend: str = "auto"


class ClipReader:
    """Reads clips of the modalities that a model takes, at one decode size."""

    def __init__(
        self,
        *,
        modalities: Sequence[str] = ("rgb",),
        size: Size | None = None,
        backend: str = "auto",
        cache: DecodedCache | None = None,
    ) -> None:
        self._modalities, self._size, self._backend, self._cache = tuple(modalities), size, backend, cache

    def read(self, video: Video, choose: Choose) -> list[dict[str, Frames]]:
        """Return the frames (T, H, W, C) by modality of each clip that `choose` selects from the video's part.

        A header may claim too many frames. If a chosen frame does not exist, `choose` is called once more with the
        number of frames that do.
        """
        part = part_of(video)
        try:
            return self._read(video, choose(part))
        except MissingFrameError as error:
            left = error.frames - part.first
            if left <= 0 or left >= part.frames:
                raise
            return self._read(video, choose(Part(first=part.first, frames=left, fps=part.fps)))

    def read_changed(
        self, video: Video, choose: Choose, change: Callable[[Path, Path], None]
    ) -> list[dict[str, Frames]]:
        """As `read`, of the file that `change(source, target)` makes of the video's own; it has the same frames."""
        part = part_of(video)
        with tempfile.TemporaryDirectory(prefix="vbench-change-") as folder:
            target = Path(folder) / "changed.mp4"
            change(video.path, target)
            segment = (part.first, part.first + part.frames)
            changed = replace(
                video, path=target, facts=None, frames=None, fps=part.fps, start_s=None, end_s=None, segment=segment
            )
            return ClipReader(modalities=self._modalities, size=self._size).read(changed, choose)

    def _read(self, video: Video, clips: Sequence[Sequence[int]]) -> list[dict[str, Frames]]:
        wanted = sorted({index for clip in clips for index in clip})
        place = {index: at for at, index in enumerate(wanted)}
        decoded = {modality: self._frames(video, modality, wanted) for modality in self._modalities}
        return [
            {modality: frames[[place[index] for index in clip]] for modality, frames in decoded.items()}
            for clip in clips
        ]

    def _frames(self, video: Video, modality: str, wanted: Sequence[int]) -> Frames:
        if modality == "flow":
            return flow_of(video, wanted, size=self._size)
        kept = None if self._cache is None else self._cache.get(video.id)
        if kept is not None and wanted[-1] < len(kept):
            return kept[list(wanted)]
        whole = self._whole(video) if (video.frames or 1 << 30) <= _WORTH_WHOLE * len(wanted) else None
        if whole is not None and wanted[-1] < len(whole):
            return whole[list(wanted)]
        return self._decode(video, wanted)

    def _whole(self, video: Video) -> Frames | None:
        """Return every frame of the video and cache it; None without a cache, or if some frame is damaged.

        The frames of a clip may be sound even then, so the caller decodes just those.
        """
        if self._cache is None or not self._cache.wants(video.id):
            return None
        try:
            whole = self._decode(video, range(video.frames or 0))
        except VideoError:
            self._cache.leave_out(video.id)
            return None
        self._cache.put(video.id, whole)
        return whole

    def _decode(self, video: Video, indices: Sequence[int]) -> Frames:
        return read_frames(video.path, indices, size=self._size, backend=self._backend, facts=video.facts)


def read_in_sizes(
    video: Video, clips: Mapping[Size | None, Sequence[Sequence[int]]], *, modalities: Sequence[str], backend: str
) -> dict[Size | None, list[dict[str, Frames]]]:
    """Return the frames (T, H, W, C) by modality of the clips in each size, from one decode of the video.

    Raises VideoError if any of the frames cannot be read.
    """
    wanted = {size: sorted({index for clip in of_size for index in clip}) for size, of_size in clips.items()}
    decoded: dict[str, dict[Size | None, Frames]] = {}
    for modality in modalities:
        if modality == "flow":
            of_sizes = {size: flow_of(video, numbers, size=size) for size, numbers in wanted.items()}
        else:
            of_sizes = read_frames_in_sizes(video.path, wanted, backend=backend, facts=video.facts)
        decoded[modality] = of_sizes
    return {
        size: [
            {modality: frames[size][np.searchsorted(wanted[size], clip)] for modality, frames in decoded.items()}
            for clip in of_size
        ]
        for size, of_size in clips.items()
    }


def key_frames(video: Video, *, count: int, size: Size | None = None, backend: str = "auto") -> Frames:
    """`count` frames (T, H, W, C) in the middles of equal sections of the video's part, for people to look at."""
    reader = ClipReader(size=size, backend=backend)

    def choose(part: Part) -> list[tuple[int, ...]]:
        return [tuple(part.first + (2 * number + 1) * part.frames // (2 * count) for number in range(count))]

    return reader.read(video, choose)[0]["rgb"]


def flow_of(video: Video, wanted: Sequence[int], *, size: Size | None) -> Frames:
    """Return optical flow (T, H, W, 2) of a video; VideoError if it has none."""
    if video.flow is None:
        raise VideoError(f"{video.path}: has no optical flow; make it with: vbench data flow")
    return read_flow(video.flow, wanted, size=size)


def part_of(video: Video) -> Part:
    """Return the frames that belong to the video: by exact times if its facts are known, else by its claimed rate.

    The rate of the annotation is used if the video has none of its own, as frame folders.
    """
    facts = video.facts
    if facts is None:
        claimed, fps = _claimed(video.path)
        frames = video.frames or claimed
    else:
        frames, fps = facts.frames, facts.fps
    fps = fps or video.fps
    if not frames:
        raise VideoError((facts and facts.problem) or f"{video.path}: holds no frames")
    if video.segment is not None:
        return _part_in(video.path, frames, fps, segment=video.segment)
    is_whole = video.start_s is None and video.end_s is None
    times_s = () if facts is None or is_whole else facts.times_s()
    if times_s:
        return part_at(times_s, fps=fps, start_s=video.start_s, end_s=video.end_s)
    return part_between(frames, fps, start_s=video.start_s, end_s=video.end_s)


def part_at(times_s: Sequence[float], *, fps: float | None, start_s: float | None, end_s: float | None) -> Part:
    """Return the frames shown from `start_s` up to `end_s`, at least one; InputError if no frame has a time."""
    if not times_s:
        raise InputError("a part given in seconds needs the times of the frames, and none is known")
    first = 0 if start_s is None else min(bisect_left(times_s, start_s), len(times_s) - 1)
    end = len(times_s) if end_s is None else max(first + 1, bisect_left(times_s, end_s))
    return Part(first=first, frames=end - first, fps=fps)


def _part_in(path: Path, frames: int, fps: float | None, *, segment: tuple[int, int]) -> Part:
    first, end = segment
    if first >= frames:
        raise VideoError(f"{path}: its part begins at frame {first}; there are {frames} frames, 0 to {frames - 1}")
    return Part(first=first, frames=min(end, frames) - first, fps=fps)


@lru_cache(maxsize=1 << 16)
def _claimed(path: Path) -> tuple[int, float | None]:
    if path.is_dir():
        return list_frames(path).frames, None
    if path.suffix.lower() in HDF5_SUFFIXES:
        return count_frames(path), None
    return claimed_length(path)
