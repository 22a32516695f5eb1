"""Read frames of a video file with PyAV, equal to those of decoding it from the start, or raise an error.

A seek is trusted only if it can be checked: the pts of the frames are known from an earlier decode of this very file,
decoding lands on a keyframe of known pts and checksum, and every frame after it has the next pts. Everything else is
decoded from the start, for example DivX avi with B-frames, whose timestamps are one to three frames off after a seek.
"""

import zlib
from bisect import bisect_right
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.buffer import Buffer
from av.container import InputContainer
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream
from numpy.typing import NDArray

from bench.core.errors import MissingFrameError, VideoError
from bench.data.facts import VideoFacts
from bench.data.geometry import MAX_PIXELS, Orientation, Size, resize, upright_size
from bench.data.shards import Source, source_of

Frames = NDArray[np.uint8]
Wanted = dict[int, list[Size | None]]  # the sizes in which each frame is wanted, by ascending frame number
Found = dict[int, dict[Size | None, Frames]]

DECODE_ERRORS = (av.FFmpegError, OSError, ValueError, MemoryError)
# PyAV 19 reads metadata in any encoding and no longer has this argument.
ANY_TEXT: dict[str, Any] = {"metadata_errors": "ignore"} if int(av.__version__.split(".")[0]) < 19 else {}
_OPTIONS = {"protocol_whitelist": "file,subfile", "max_pixels": str(MAX_PIXELS)}
_NOT_VIDEO_FILES = {"tty": "text", "hls": "a playlist", "concat": "a playlist", "sdp": "a session description"}
_SEEK_WORTH_FRAMES = 8
_KNOWN_FILES = 8192


class DecodingStoppedError(VideoError):
    """The decoder stopped at damage after `frames` frames."""

    def __init__(self, path: Path, *, frames: int, reason: str) -> None:
        self.frames, self.reason = frames, reason
        last = f"after frame {frames - 1}" if frames else "before the first frame"
        super().__init__(f"{path}: damaged {last}: {reason}")


@dataclass
class Timeline:
    """What is known about the frames of a file from the start on: pts, and the checksum of each keyframe."""

    pts: list[int | None] = field(default_factory=list)
    key_checksums: dict[int, int] = field(default_factory=dict)
    is_seekable: bool = True

    @classmethod
    def of(cls, facts: VideoFacts) -> "Timeline":
        """Return the timeline of a file that was decoded completely before."""
        checksums = dict(zip(facts.keyframes, facts.keyframe_checksums, strict=True))
        return cls(pts=list(facts.pts), key_checksums=checksums, is_seekable=facts.is_seekable)

    def learn(self, frame: VideoFrame, *, number: int) -> None:
        """Add frame `number` of a decode from the start."""
        if number < len(self.pts):
            return
        pts, last = frame.pts, self.pts[-1] if self.pts else None
        if pts is None or (last is not None and pts <= last) or frame.is_corrupt:
            self.is_seekable = False
        self.pts.append(pts)
        if frame.key_frame:
            self.key_checksums[number] = luma_checksum(frame)


class _LostError(Exception):
    """After a seek, the decoder did not return the frames that the timeline predicts."""


def read_file(path: Path, indices: Sequence[int], *, size: Size | None, facts: VideoFacts | None = None) -> Frames:
    """Return frames `indices` as uint8 RGB (T, H, W, 3), upright; VideoError if one does not exist."""
    return read_file_in_sizes(path, {size: indices}, facts=facts)[size]


def read_file_in_sizes(
    path: Path, indices: Mapping[Size | None, Sequence[int]], *, facts: VideoFacts | None = None
) -> dict[Size | None, Frames]:
    """Return the frames wanted in each size, all from one decode; otherwise as `read_file`."""
    wanted: Wanted = {}
    for size, numbers in indices.items():
        for number in sorted(set(numbers)):
            wanted.setdefault(number, []).append(size)
    wanted = dict(sorted(wanted.items()))
    timeline = Timeline.of(facts) if facts is not None else _timeline_of(path)
    found: Found | None = None
    if _pays_to_seek(timeline, list(wanted)):
        found = _read_by_seeking(path, wanted, timeline=timeline)
        timeline.is_seekable = found is not None
    if found is None:
        found = _read_from_start(path, wanted, timeline=timeline)
    for size, numbers in indices.items():
        _check_sizes(path, {number: found[number][size] for number in numbers})
    return {size: np.stack([found[number][size] for number in numbers]) for size, numbers in indices.items()}


@contextmanager
def opened(path: Path) -> Generator[tuple[InputContainer, VideoStream]]:
    """Open the container and its first video stream that is no cover picture; VideoError if there is none."""
    try:
        container = av.open(source_of(path).url, options=dict(_OPTIONS), **ANY_TEXT)
    except DECODE_ERRORS as error:
        raise VideoError(f"{path}: cannot be opened as a video: {reason_of(error)}") from error
    with container:
        kind = "a picture" if container.format.name.endswith("_pipe") else _NOT_VIDEO_FILES.get(container.format.name)
        if kind:
            raise VideoError(f"{path}: is {kind}, not a video file")
        yield container, _video_stream(path, container)


def frames_from_start(path: Path, packets: Iterable["Packet[VideoStream]"]) -> Iterator[VideoFrame]:
    """Yield every frame of a stream's packets in order; DecodingStoppedError at damage that stops the decoder."""
    frames = 0
    try:
        for packet in packets:
            for frame in packet.decode():
                yield frame
                frames += 1
    except DECODE_ERRORS as error:
        raise DecodingStoppedError(path, frames=frames, reason=reason_of(error)) from error


def claimed_length(path: Path) -> tuple[int, float | None]:
    """Return frames and frames per second as the header claims them; packets are counted if it has no count."""
    with opened(path) as (container, stream):
        rate = stream.average_rate or stream.guessed_rate
        fps = float(rate) if rate else None
        if stream.frames > 0:
            return stream.frames, fps
        try:
            return sum(packet.size > 0 for packet in container.demux(stream)), fps
        except DECODE_ERRORS as error:
            raise VideoError(f"{path}: cannot be read: {reason_of(error)}") from error


def seeks_land(path: Path, timeline: Timeline) -> bool:
    """Return True if a seek to the last keyframe returns that frame; in some containers it never does."""
    last = max(timeline.key_checksums, default=0)
    if not timeline.is_seekable or not timeline.pts:
        return False
    try:
        with opened(path) as (container, stream):
            return can_seek(container, stream) and any(
                True for _ in _frames_after_seek(container, stream, key=last, timeline=timeline)
            )
    except (_LostError, *DECODE_ERRORS, VideoError):
        return False


def can_seek(container: InputContainer, stream: VideoStream) -> bool:
    """Return False for avi with B-frames, whose timestamps are wrong after a seek."""
    return not (container.format.name == "avi" and stream.codec_context.has_b_frames)


def luma_checksum(frame: VideoFrame) -> int:
    """Return the CRC-32 of the pixels of the first plane, without the padding of its lines."""
    plane, layout = frame.planes[0], frame.format
    bits = layout.components[0].bits if layout.is_planar else layout.padded_bits_per_pixel
    lines = np.frombuffer(memoryview(plane), np.uint8)[: plane.height * plane.line_size]
    pixels = lines.reshape(plane.height, plane.line_size)[:, : plane.width * ((bits + 7) // 8)]
    return zlib.crc32(pixels.tobytes())


def reason_of(error: BaseException) -> str:
    """Return the message of the decoder on one line."""
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(str(text).split())


class RgbConverter:
    """Converts the frames of one stream to upright RGB.

    One VideoReformatter serves all frames; `frame.reformat()` would build one per frame, which costs 30 %.
    """

    def __init__(self) -> None:
        self._reformatter = VideoReformatter()

    def convert(self, frame: VideoFrame, sizes: Sequence[Size | None]) -> dict[Size | None, Frames]:
        """Return `frame` as a new uint8 RGB array (H, W, 3) in each of `sizes`."""
        orientation = orientation_of(frame)
        upright = orientation.upright((frame.height, frame.width))
        rgb = np.asarray(self._reformatter.reformat(frame, format="rgb24", threads=1).to_ndarray(), dtype=np.uint8)
        return {
            size: orientation.turn(resize(rgb, orientation.stored(upright_size(upright, size)), size)) for size in sizes
        }


def orientation_of(frame: VideoFrame) -> Orientation:
    """Return how to turn the frame, from its display matrix."""
    try:
        matrix = frame.side_data.get("DISPLAYMATRIX")
    except ValueError:  # PyAV raises for side data it has no name for, such as Exif
        return Orientation.from_angle(frame.rotation)
    if not isinstance(matrix, Buffer) or matrix.buffer_size < 36:
        return Orientation()
    return Orientation.from_display_matrix(np.frombuffer(bytes(matrix)[:36], np.int32).tolist())


@lru_cache(maxsize=_KNOWN_FILES)
def _remembered(_source: Source) -> Timeline:
    return Timeline()


def _timeline_of(path: Path) -> Timeline:
    return _remembered(source_of(path))


def _pays_to_seek(timeline: Timeline, wanted: Sequence[int]) -> bool:
    if not timeline.is_seekable or not wanted or wanted[-1] >= len(timeline.pts):
        return False
    return any(_key_before(timeline, i) >= _SEEK_WORTH_FRAMES for i in wanted)


def _key_before(timeline: Timeline, index: int) -> int:
    keys = sorted(timeline.key_checksums)
    at = bisect_right(keys, index)
    return keys[at - 1] if at else 0


def _read_by_seeking(path: Path, wanted: Wanted, *, timeline: Timeline) -> Found | None:
    """Return the frames, or None if the decoder does not follow the timeline after a seek."""
    converter, found, at = RgbConverter(), Found(), 0
    frames: Iterator[VideoFrame] | None = None
    try:
        with opened(path) as (container, stream):
            if not can_seek(container, stream):
                return None
            for index, sizes in wanted.items():
                key = _key_before(timeline, index)
                if frames is None or key >= at + _SEEK_WORTH_FRAMES:
                    frames, at = _frames_after_seek(container, stream, key=key, timeline=timeline), key
                for frame in frames:
                    at += 1
                    if at == index + 1:
                        found[index] = converter.convert(frame, sizes)
                        break
                else:
                    return None
    except (_LostError, *DECODE_ERRORS):
        return None
    return found


def _frames_after_seek(
    container: InputContainer, stream: VideoStream, *, key: int, timeline: Timeline
) -> Iterator[VideoFrame]:
    """Yield frames from keyframe `key` on; _LostError at the first that the timeline does not predict."""
    start = timeline.pts[key]
    if start is None:
        raise _LostError
    container.seek(start, stream=stream, backward=True)
    number = -1
    for frame in container.decode(stream):
        if number < 0:
            if frame.pts is None or frame.pts > start:
                raise _LostError
            if frame.pts < start:
                continue
            if not frame.key_frame or luma_checksum(frame) != timeline.key_checksums.get(key):
                raise _LostError
            number = key
        if number >= len(timeline.pts) or frame.pts != timeline.pts[number]:
            raise _LostError
        number += 1
        yield frame


def _read_from_start(path: Path, wanted: Wanted, *, timeline: Timeline) -> Found:
    converter, found, last, number = RgbConverter(), Found(), max(wanted), 0
    with opened(path) as (container, stream):
        try:
            for number, frame in enumerate(frames_from_start(path, container.demux(stream)), start=1):
                timeline.learn(frame, number=number - 1)
                if number - 1 in wanted:
                    found[number - 1] = converter.convert(frame, wanted[number - 1])
                if number > last:
                    return found
        except DecodingStoppedError as error:
            first = next(i for i in wanted if i >= error.frames)
            message = f"{path}: frame {first} cannot be decoded; {_sound(error)}: {error.reason}"
            raise MissingFrameError(message, frames=error.frames) from error
    first = next(i for i in wanted if i >= number)
    message = f"{path}: frame {first} does not exist; the file has {number} frames, 0 to {number - 1}"
    raise MissingFrameError(message, frames=number)


def _sound(error: DecodingStoppedError) -> str:
    return f"damaged after frame {error.frames - 1}" if error.frames else "damaged from the first frame on"


def _check_sizes(path: Path, found: Mapping[int, Frames]) -> None:
    sizes = {index: frame.shape[:2] for index, frame in found.items()}
    first = min(sizes)
    for index, size in sorted(sizes.items()):
        if size != sizes[first]:
            raise VideoError(
                f"{path}: frame {index} is {size[0]}x{size[1]} but frame {first} is {sizes[first][0]}x"
                f"{sizes[first][1]} (H x W); read both at one size, such as size=(240, 320)"
            )


def _video_stream(path: Path, container: InputContainer) -> VideoStream:
    for stream in container.streams.video:
        if stream.codec_context is not None and not stream.disposition & av.stream.Disposition.attached_pic:
            stream.thread_type = "NONE"
            return stream
    kinds = ", ".join(sorted({stream.type for stream in container.streams})) or "nothing"
    raise VideoError(f"{path}: has no video stream; found: {kinds}")
