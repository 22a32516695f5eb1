"""Views of videos under many settings of an evaluation, from one decode of each video; pixels stay bytes."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from bench.core.errors import BenchError
from bench.core.schema import views_per_video
from bench.data.clip_batches import PositionedVideos, made_by_workers, read_ahead
from bench.data.clips import ClipReader, Reading, part_of, read_in_sizes
from bench.data.collection import Video, VideoSet
from bench.data.geometry import Size
from bench.data.view_rule import DecodedClips, ViewRule

MOST_BYTES = 256 << 20  # of the views that are in memory at once
ASSUMED_VIEWS = 10  # of a video whose number of views is known only from its length

Views = dict[str, NDArray[np.uint8]]  # (V, C, T, H, W) by modality


@dataclass(frozen=True, kw_only=True)
class ViewSetting:
    """Which views of a video are taken, and how its frames are read."""

    rule: ViewRule
    reading: Reading

    @property
    def bytes_per_video(self) -> int:
        clip, views = self.rule.clip, views_per_video(self.rule.views) or ASSUMED_VIEWS
        return 3 * views * len(self.rule.changes) * clip.frames * clip.height * clip.width


@dataclass(frozen=True, kw_only=True)
class VideoViews:
    """The views of the video at `position` of its set under each setting, or why there are none."""

    position: int
    of_settings: tuple[Views | BenchError, ...]


def shared_views(
    videos: VideoSet,
    settings: Sequence[ViewSetting],
    *,
    positions: Sequence[int],
    modalities: Sequence[str],
    most: int,
    workers: int = 0,
) -> Iterator[list[VideoViews]]:
    """Yield the views of the videos at `positions`, in lists of at most `most` videos and about MOST_BYTES.

    Each video is decoded once, but for settings with another backend or a changed file. The views of a setting are
    those of `view_batches`.
    """
    per_video = sum(setting.bytes_per_video for setting in settings)
    at_once = max(1, min(most, MOST_BYTES // max(1, per_video)))
    requests = [
        tuple((place, videos.videos[place]) for place in positions[start : start + at_once])
        for start in range(0, len(positions), at_once)
    ]
    yield from made_by_workers(
        _Maker(settings=tuple(settings), modalities=tuple(modalities)), requests, workers=workers
    )


@dataclass(frozen=True, kw_only=True)
class _Maker:
    """Makes the views of the videos of one request."""

    settings: tuple[ViewSetting, ...]
    modalities: tuple[str, ...]

    def __call__(self, videos: PositionedVideos) -> list[VideoViews]:
        return [
            VideoViews(
                position=position,
                of_settings=tuple(
                    decoded if isinstance(decoded, BenchError) else self._cut(setting, video, decoded)
                    for setting, decoded in zip(self.settings, of_settings, strict=True)
                ),
            )
            for position, video, of_settings in read_ahead(videos, lambda _, video: self._read(video))
            if not isinstance(of_settings, BenchError)
        ]

    def _read(self, video: Video) -> list[DecodedClips | BenchError]:
        """The decoded clips of each setting, or why it has none."""
        found: dict[int, DecodedClips | BenchError] = {}
        shared: dict[str, dict[int, list[tuple[int, ...]]]] = defaultdict(dict)
        for number, setting in enumerate(self.settings):
            try:
                if setting.rule.changes_file:
                    found[number] = self._read_alone(video, setting)
                else:
                    frames = setting.rule.frames(video.id, part_of(video))
                    shared[setting.reading.backend][number] = frames
            except BenchError as error:
                found[number] = error
        for backend, frames_of in shared.items():
            found |= self._read_together(video, frames_of, backend=backend)
        return [found[number] for number in range(len(self.settings))]

    def _read_together(
        self, video: Video, frames_of: dict[int, list[tuple[int, ...]]], *, backend: str
    ) -> dict[int, DecodedClips | BenchError]:
        clips: dict[Size | None, list[tuple[int, ...]]] = defaultdict(list)
        for number, frames in frames_of.items():
            clips[self.settings[number].reading.size] += frames
        try:
            decoded = read_in_sizes(video, clips, modalities=self.modalities, backend=backend)
        except BenchError:
            # Some setting wants a frame that is missing or damaged. The others must not suffer from it.
            return {number: self._read_alone(video, self.settings[number]) for number in frames_of}
        rest = {size: iter(of_size) for size, of_size in decoded.items()}
        return {
            number: list(islice(rest[self.settings[number].reading.size], len(frames)))
            for number, frames in frames_of.items()
        }

    def _read_alone(self, video: Video, setting: ViewSetting) -> DecodedClips | BenchError:
        reading = setting.reading
        try:
            reader = ClipReader(modalities=self.modalities, size=reading.size, backend=reading.backend)
            return setting.rule.read(video, reader)
        except BenchError as error:
            return error

    def _cut(self, setting: ViewSetting, video: Video, decoded: DecodedClips) -> Views | BenchError:
        try:
            views = setting.rule.cut(video.id, decoded)
        except BenchError as error:
            return error
        return {modality: np.stack([view.numpy() for view in of]) for modality, of in views.items()}
