"""Frames out of video files and frame folders: exactly those of decoding from the start, or an error.

Backends: `pyav` (the default for files), `torchcodec` where it works, `nvdec` (torchcodec on the decoder of an NVIDIA
GPU), `frames` for folders of numbered images.
"""

import hashlib
import operator
import os
from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from numpy.typing import NDArray

from bench.core.errors import InputError, UnknownNameError, VideoError
from bench.data.container import missing_bytes
from bench.data.facts import VideoFacts, evenly
from bench.data.frame_folder import list_frames, read_folder, read_image
from bench.data.geometry import Covering, Size
from bench.data.pyav_reader import (
    DecodingStoppedError,
    Timeline,
    can_seek,
    frames_from_start,
    opened,
    orientation_of,
    read_file,
    seeks_land,
)
from bench.data.shards import source_of
from bench.data.silent_damage import Reading

BACKENDS = ("auto", "pyav", "torchcodec", "nvdec", "frames")


def read_frames(
    path: str | Path,
    indices: Iterable[int],
    *,
    size: Size | None = None,
    backend: str = "auto",
    facts: VideoFacts | None = None,
) -> NDArray[np.uint8]:
    """Frames `indices` (from 0, any order, repeats allowed) as uint8 RGB (T, H, W, C), upright.

    Each equals that frame of decoding the file from its start with the same backend. `size` is the short side in
    pixels or (H, W). `facts` of this very file (from `probe` or an index) allow seeking on the first read. VideoError
    names the file and the first frame that is not there or cannot be decoded.
    """
    if backend not in BACKENDS:
        raise UnknownNameError("decoding backend", backend, BACKENDS)
    path, numbers, size = Path(path), _checked_indices(path, indices), _checked_size(size)
    if os.path.isdir(path) or backend == "frames":
        if backend not in ("auto", "frames"):
            raise VideoError(f"{path}: is a folder of frames; read it with backend 'frames' or 'auto', not {backend!r}")
        return read_folder(path, numbers or [0], size=size)[: len(numbers)]
    if backend in ("torchcodec", "nvdec"):
        from bench.data.torchcodec_reader import read_file_with_torchcodec

        device = "cuda" if backend == "nvdec" else "cpu"
        return read_file_with_torchcodec(path, numbers or [0], size=size, facts=facts, device=device)[: len(numbers)]
    return read_file(path, numbers or [0], size=size, facts=facts)[: len(numbers)]


def probe(path: str | Path) -> VideoFacts:
    """The facts of a file or frame folder, every frame of it decoded; what is wrong with it is in `verdict`."""
    path = Path(path)
    try:
        size = 0 if os.path.isdir(path) else source_of(path).size
    except VideoError as error:
        return VideoFacts(verdict="missing", problem=str(error))
    try:
        return _probe_folder(path) if os.path.isdir(path) else _probe_file(path)
    except (VideoError, OSError) as error:
        return VideoFacts(verdict="unreadable", problem=str(error), bytes=size, sha256=content_hash(path))


def content_hash(path: Path) -> str:
    """SHA-256 of a file's bytes, or of the names and bytes of a folder's files; empty where it cannot be read."""
    try:
        if not path.is_dir():
            return source_of(path).sha256()
        files = sorted(file for file in path.iterdir() if file.is_file())
        lines = "".join(f"{file.name}\0{source_of(file).sha256()}\n" for file in files)
        return hashlib.sha256(os.fsencode(lines)).hexdigest()
    except (OSError, VideoError):
        return ""


def _checked_indices(path: Path, indices: Iterable[int]) -> list[int]:
    try:
        numbers = [operator.index(i) for i in indices]
    except TypeError as error:
        raise InputError(f"{path}: frame numbers are whole numbers from 0: {error}") from error
    negative = next((i for i in numbers if i < 0), None)
    if negative is not None:
        raise VideoError(f"{path}: frame {negative} is not there; frames count from 0")
    return numbers


def _checked_size(size: Size | None) -> Size | None:
    """`size` in plain whole numbers, those of numpy too."""
    if size is None or isinstance(size, Covering):
        return size
    try:
        sides = tuple(operator.index(side) for side in (size if isinstance(size, Iterable) else (size,)))
    except TypeError:
        sides = ()
    if len(sides) == (2 if isinstance(size, Iterable) else 1) and min(sides) >= 1:
        return (sides[0], sides[1]) if len(sides) == 2 else sides[0]
    raise InputError(f"size {size!r} is not a short side in pixels such as 128, nor (height, width) such as (128, 171)")


def _probe_folder(path: Path) -> VideoFacts:
    folder = list_frames(path)
    first = next(name for name in folder.files if name is not None)
    height, width, unsound, problem = 0, 0, None, ""
    for number in range(folder.frames):
        try:
            found = read_image(folder, number, None).shape[:2]
            height, width = (height or found[0]), (width or found[1])
        except VideoError as error:
            unsound, problem = number, str(error)
            break
    if not height:
        raise VideoError(problem)
    return VideoFacts(
        verdict=_verdict(unsound),
        problem=problem,
        frames=folder.frames,
        claimed_frames=folder.frames,
        width=width,
        height=height,
        container="frames",
        codec=Path(first).suffix[1:].lower().replace("jpg", "jpeg"),
        pix_fmt="rgb24",
        bytes=sum((path / name).stat().st_size for name in folder.files if name is not None),
        sha256=content_hash(path),
    )


def _probe_file(path: Path) -> VideoFacts:
    with opened(path) as (container, stream):
        reading = Reading(path, container, stream)
        timeline, first, first_unsound, problem = Timeline(), None, None, ""
        number = -1
        try:
            for number, frame in enumerate(frames_from_start(path, reading.packets())):
                first = first or frame
                timeline.learn(frame, number=number)
                if first_unsound is None and (wrong := reading.wrong_with(frame)):
                    first_unsound, problem = number, f"{path}: frame {number} is not to be trusted: {wrong}"
        except DecodingStoppedError as error:
            problem = problem or str(error)
            first_unsound = number + 1 if first_unsound is None else first_unsound
        if first is None:
            raise VideoError(problem or f"{path}: holds no frames")
        if first_unsound is None and (cut := _truncation(path, stream, frames=number + 1)):
            first_unsound, problem = number + 1, cut
        if first_unsound is None and (wrong := reading.wrong_at_the_end()):
            first_unsound, problem = number + 1, f"{path}: damaged after frame {number}: {wrong}"
        return _facts_of(
            path, container, stream, first=first, timeline=timeline, first_unsound=first_unsound, problem=problem
        )


def _verdict(first_unsound: int | None) -> str:
    if first_unsound is None:
        return "ok"
    return f"damaged after frame {first_unsound - 1}" if first_unsound else "damaged from the first frame on"


def _truncation(path: Path, stream: VideoStream, *, frames: int) -> str:
    """What is missing at the file's end, unless every frame it claims is there."""
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
    """The pts of the frames and their unit; counted at the file's rate where its timestamps are not to be believed."""
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
