"""Facts of one video: every frame is decoded once, and all damage is reported, also what decoders skip in silence.

A demuxer that meets foreign bytes continues at the next packet that it recognises. The frames on both sides are sound
and those in between are gone. FFmpeg reports that only in its log, and a log callback deadlocks with decoder threads
(PyAV), so the gap is found from the container's structure and the positions of packets.
"""

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
from av.container import InputContainer
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from numpy.typing import NDArray

from bench.core.errors import VideoError
from bench.data.container import break_in_chain, missing_bytes
from bench.data.facts import VideoFacts, evenly
from bench.data.frame_folder import list_frames, read_image
from bench.data.hdf5_frames import count_frames, read_hdf5
from bench.data.media import HDF5_SUFFIXES
from bench.data.pyav_reader import (
    DecodingStoppedError,
    Timeline,
    can_seek,
    frames_from_start,
    opened,
    orientation_of,
    seeks_land,
)
from bench.data.shards import source_of


def probe(path: str | Path) -> VideoFacts:
    """Decode every frame of a file or frame folder and return its facts; `verdict` says what is wrong, if anything."""
    path = Path(path)
    try:
        size = 0 if os.path.isdir(path) else source_of(path).size
    except VideoError as error:
        return VideoFacts(verdict="missing", problem=str(error))
    try:
        if os.path.isdir(path):
            return _probe_folder(path)
        return _probe_hdf5(path) if path.suffix.lower() in HDF5_SUFFIXES else _probe_file(path)
    except (VideoError, OSError) as error:
        return VideoFacts(verdict="unreadable", problem=str(error), bytes=size, sha256=content_hash(path))


def content_hash(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, or of a folder's file names and bytes; empty if it cannot be read."""
    try:
        if not path.is_dir():
            return source_of(path).sha256()
        files = sorted(file for file in path.iterdir() if file.is_file())
        lines = "".join(f"{file.name}\0{source_of(file).sha256()}\n" for file in files)
        return hashlib.sha256(os.fsencode(lines)).hexdigest()
    except (OSError, VideoError):
        return ""


def _probe_folder(path: Path) -> VideoFacts:
    folder = list_frames(path)
    first = next(name for name in folder.files if name is not None)
    return _probe_images(
        path,
        folder.frames,
        lambda number: read_image(folder, number, None),
        container="frames",
        codec=Path(first).suffix[1:].lower().replace("jpg", "jpeg"),
        bytes_=sum((path / name).stat().st_size for name in folder.files if name is not None),
    )


def _probe_hdf5(path: Path) -> VideoFacts:
    return _probe_images(
        path,
        count_frames(path),
        lambda number: read_hdf5(path, [number], size=None)[0],
        container="hdf5",
        codec="jpeg",
        bytes_=source_of(path).size,
    )


def _probe_images(
    path: Path, frames: int, read: Callable[[int], NDArray[np.uint8]], *, container: str, codec: str, bytes_: int
) -> VideoFacts:
    """Decode images up to the first damaged one; VideoError if that is the first."""
    height, width, unsound, problem = 0, 0, None, ""
    for number in range(frames):
        try:
            found = read(number).shape[:2]
        except VideoError as error:
            unsound, problem = number, str(error)
            break
        height, width = (height or found[0]), (width or found[1])
    if not height:
        raise VideoError(problem)
    return VideoFacts(
        verdict=_verdict(unsound),
        problem=problem,
        frames=frames,
        claimed_frames=frames,
        width=width,
        height=height,
        container=container,
        codec=codec,
        pix_fmt="rgb24",
        bytes=bytes_,
        sha256=content_hash(path),
    )


def _probe_file(path: Path) -> VideoFacts:
    with opened(path) as (container, stream):
        packets = _CheckedPackets(path, container, stream)
        timeline, first, first_unsound, problem = Timeline(), None, None, ""
        number = -1
        try:
            for number, frame in enumerate(frames_from_start(path, packets)):
                first = first or frame
                timeline.learn(frame, number=number)
                if first_unsound is None and (damage := packets.damage_before(frame)):
                    first_unsound, problem = number, f"{path}: frame {number} is damaged: {damage}"
        except DecodingStoppedError as error:
            problem = problem or str(error)
            first_unsound = number + 1 if first_unsound is None else first_unsound
        if first is None:
            raise VideoError(problem or f"{path}: holds no frames")
        if first_unsound is None and (cut := _truncation(path, stream, frames=number + 1)):
            first_unsound, problem = number + 1, cut
        if first_unsound is None and (damage := packets.damage_at_end()):
            first_unsound, problem = number + 1, f"{path}: damaged after frame {number}: {damage}"
        return _facts_of(
            path, container, stream, first=first, timeline=timeline, first_unsound=first_unsound, problem=problem
        )


class _CheckedPackets:
    """The packets of a stream in order, and what is wrong with the frames decoded from them."""

    def __init__(self, path: Path, container: InputContainer, stream: VideoStream) -> None:
        self._container, self._stream = container, stream
        self._break_at = break_in_chain(source_of(path))
        self._damage = list[tuple[int, str]]()  # (pts from which it counts, description)

    def __iter__(self) -> Iterator["Packet[VideoStream]"]:
        for packet in self._container.demux(self._stream):
            if packet.pts is not None and (damage := self._damage_of(packet)):
                self._damage.append((packet.pts, damage))
            yield packet

    def damage_before(self, frame: VideoFrame) -> str:
        """Describe what is wrong with a decoded frame or just before it; empty if nothing is known."""
        if frame.is_corrupt:
            return "the decoder had to conceal errors in it"
        here = frame.pts
        due = [damage for damage in self._damage if here is not None and damage[0] <= here]
        self._damage = [damage for damage in self._damage if damage not in due]
        return due[0][1] if due else ""

    def damage_at_end(self) -> str:
        """Describe damage after the last packet; empty if nothing is known. Call it when all packets are read."""
        return "" if self._break_at is None else f"the file is broken at byte {self._break_at:,}"

    def _damage_of(self, packet: "Packet[VideoStream]") -> str:
        if packet.is_corrupt:
            return "its packet is marked as corrupt"
        if self._break_at is None or packet.pos is None or packet.pos < self._break_at:
            return ""
        broken_at, self._break_at = self._break_at, None
        return f"the file is broken before it, at byte {broken_at:,}"


def _verdict(first_unsound: int | None) -> str:
    if first_unsound is None:
        return "ok"
    return f"damaged after frame {first_unsound - 1}" if first_unsound else "damaged from the first frame on"


def _truncation(path: Path, stream: VideoStream, *, frames: int) -> str:
    """Describe what is missing at the end of the file; empty if every frame that it claims is there."""
    missing = missing_bytes(source_of(path))
    if not missing or 0 < stream.frames <= frames:
        return ""
    return f"{path}: damaged after frame {frames - 1}: the file is cut, {missing:,} bytes are missing at its end"


def _facts_of(
    path: Path,
    container: InputContainer,
    stream: VideoStream,
    *,
    first: VideoFrame,
    timeline: Timeline,
    first_unsound: int | None,
    problem: str,
) -> VideoFacts:
    orientation = orientation_of(first)
    height, width = orientation.upright((first.height, first.width))
    pts, time_base = _times(timeline, container, stream)
    return VideoFacts(
        verdict=_verdict(first_unsound),
        problem=problem,
        frames=len(timeline.pts),
        claimed_frames=stream.frames,
        pts=pts,
        time_base=time_base,
        fps=_average_fps(pts, time_base) or _claimed_fps(stream),
        width=width,
        height=height,
        rotation=orientation.rotation,
        container=container.format.name,
        codec=stream.codec_context.codec.canonical_name,
        pix_fmt=first.format.name,
        has_b_frames=bool(stream.codec_context.has_b_frames),
        keyframes=tuple(timeline.key_checksums),
        keyframe_checksums=tuple(timeline.key_checksums.values()),
        is_seekable=first_unsound is None and seeks_land(path, timeline),
        bytes=source_of(path).size,
        sha256=content_hash(path),
    )


def _times(
    timeline: Timeline, container: InputContainer, stream: VideoStream
) -> tuple[Sequence[int | None], Fraction | None]:
    """Return the pts of the frames and their unit; counted at the file's rate if its timestamps are unreliable."""
    rate = stream.average_rate
    if can_seek(container, stream) or not rate:
        unit = stream.time_base
        return evenly(timeline.pts), None if unit is None else Fraction(unit)  # PyAV 19 has rationals of its own
    return range(len(timeline.pts)), 1 / Fraction(rate)


def _average_fps(pts: Sequence[int | None], time_base: Fraction | None) -> float | None:
    known = [p for p in pts if p is not None]
    if len(known) != len(pts) or len(pts) < 2 or known[-1] <= known[0] or not time_base:
        return None
    return float(Fraction(len(known) - 1, known[-1] - known[0]) / time_base)


def _claimed_fps(stream: VideoStream) -> float | None:
    rate = stream.average_rate or stream.guessed_rate
    return float(rate) if rate else None
