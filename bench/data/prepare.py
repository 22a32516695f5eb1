"""Prepare videos for fast reading: frame folders, and files that seek quickly. Parallel and resumable.

Each task reads one video of a folder and writes one file or folder of the same relative name elsewhere. Whatever has
its final name is complete, so a run that was killed continues with the rest.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench.core.errors import InputError, VideoError
from bench.core.files import atomic_file, atomic_folder, path_hint, remove_abandoned, require_writable_folder
from bench.data.encode import write_mp4
from bench.data.facts import is_rising
from bench.data.frame_folder import list_frames, read_image
from bench.data.index import videos_under
from bench.data.media import stem_of
from bench.data.parallel import Failed, OnProgress, for_each_task, no_progress
from bench.data.probing import probe
from bench.data.pyav_reader import RgbConverter, frames_from_start, opened

# Of simplejpeg's 1 to 100; benchmarks/frame_quality.md compares it with others and with ffmpeg's default. Colour is
# stored at half size, as in the videos themselves, which is a third quicker to read.
JPEG_QUALITY = 92
_ASSUMED_FPS = 25  # of frame folders, which have no rate
# Keyframes 8 apart and no B-frames: decoding begins at most 7 frames before a clip.
QUICK_TO_SEEK = {"g": "8", "bf": "0", "tune": "fastdecode", "crf": "23", "preset": "medium"}


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """The result of a preparing run: videos written now, present before, and failed with the reason."""

    written: int
    skipped: int
    failed: tuple[Failed, ...]
    seconds: float


def prepare_frames(
    source: str | Path,
    target: str | Path,
    *,
    short_side: int = 240,
    quality: int = JPEG_QUALITY,
    workers: int = 0,
    on_progress: OnProgress = no_progress,
) -> Prepared:
    """Write videos under `source` as folders of `image_00001.jpg`, the layout of 3D-ResNets, under `target`.

    `quality` is that of the JPEGs, 1 to 100. A damaged video gives no folder; its error names the last sound frame.
    """
    require_side(short_side)
    if not 1 <= quality <= 100:
        raise InputError(f"quality {quality}; allowed: 1 to 100")
    do = partial(_write_frames, Path(source), Path(target), short_side, quality)
    return prepare_all(
        Path(source), Path(target), do, partial(_folder, Path(target)), workers=workers, on_progress=on_progress
    )


def prepare_reencoded(
    source: str | Path,
    target: str | Path,
    *,
    short_side: int | None = None,
    workers: int = 0,
    on_progress: OnProgress = no_progress,
) -> Prepared:
    """Write videos under `source` as H.264 mp4 with a keyframe every 8 frames under `target`, without sound."""
    require_side(short_side)
    do = partial(_reencode, Path(source), Path(target), short_side)
    return prepare_all(
        Path(source), Path(target), do, partial(_mp4, Path(target)), workers=workers, on_progress=on_progress
    )


def require_side(short_side: int | None) -> None:
    """Raise InputError for a short side below one pixel."""
    if short_side is not None and short_side < 1:
        raise InputError(f"short side {short_side}; allowed: 1 and more pixels")


def prepare_all(
    source: Path,
    target: Path,
    do: Callable[[str], None],
    target_of: Callable[[str], Path],
    *,
    workers: int,
    on_progress: OnProgress,
) -> Prepared:
    """Call `do` for every video under `source` whose target does not exist yet; `target` may lie inside `source`.

    Unfinished files that killed runs left next to the targets are removed.
    """
    if not source.is_dir():
        raise InputError(f"{source}: is not a folder of videos{path_hint(source)}")
    if target.is_dir() and target.samefile(source):
        raise InputError(f"{target}: is the folder of the videos itself; name another one, also inside it")
    require_writable_folder(target)
    started, names = time.monotonic(), list(videos_under(source, without=target))
    _refuse_clashes(names, target_of)
    for folder in {target_of(name).parent for name in names}:
        remove_abandoned(folder)
    left = [name for name in names if not target_of(name).exists()]
    outcomes = for_each_task(left, do, total=len(left), workers=workers, on_progress=on_progress)
    failed = [Failed(what=each.task, reason=str(each.error)) for each in outcomes if each.error is not None]
    return Prepared(
        written=len(left) - len(failed),
        skipped=len(names) - len(left),
        failed=tuple(failed),
        seconds=time.monotonic() - started,
    )


def every_frame(path: Path, *, short_side: int | None, is_even: bool = False) -> Iterator[NDArray[np.uint8]]:
    """Yield upright RGB frames (H, W, 3) of one size; DecodingStoppedError after the last sound one.

    `is_even` rounds both sides down to even numbers, as H.264 needs them.
    """
    if path.is_dir():
        folder = list_frames(path)
        size = _one_size(read_image(folder, 0, None).shape[:2], short_side, is_even)
        yield from (read_image(folder, number, size) for number in range(folder.frames))
        return
    with opened(path) as (container, stream):
        converter, written_size = RgbConverter(), None
        for frame in frames_from_start(path, container.demux(stream)):
            if written_size is None:
                native = converter.convert(frame, [None])[None].shape[:2]
                written_size = _one_size(native, short_side, is_even)
            yield converter.convert(frame, [written_size])[written_size]


def _one_size(native: tuple[int, ...], short_side: int | None, is_even: bool) -> tuple[int, int]:
    """Return height and width to write; the long side is rounded to the nearest, as ffmpeg's scale=-1:240 does."""
    scale = 1.0 if short_side is None else short_side / min(native)
    height, width = (max(1, round(side * scale)) for side in native)
    return (max(2, height // 2 * 2), max(2, width // 2 * 2)) if is_even else (height, width)


def _write_frames(source: Path, target: Path, short_side: int, quality: int, name: str) -> None:
    import simplejpeg

    written = 0
    with atomic_folder(_folder(target, name)) as folder:
        for written, frame in enumerate(every_frame(source / name, short_side=short_side), start=1):
            data = simplejpeg.encode_jpeg(
                np.ascontiguousarray(frame), quality=quality, colorspace="RGB", colorsubsampling="420"
            )
            (folder / f"image_{written:05d}.jpg").write_bytes(data)
        if not written:
            raise VideoError(f"{source / name}: holds no frames")


def _reencode(source: Path, target: Path, short_side: int | None, name: str) -> None:
    path = source / name
    facts = probe(path)
    if not facts.is_ok:
        raise VideoError(facts.problem)
    known = [pts for pts in facts.pts if pts is not None]
    with atomic_file(_mp4(target, name)) as unfinished:
        write_mp4(
            unfinished,
            every_frame(path, short_side=short_side, is_even=True),
            fps=Fraction(facts.fps or _ASSUMED_FPS).limit_denominator(1001),
            options=QUICK_TO_SEEK,
            pts=known if len(known) == facts.frames and is_rising(known) else None,
            time_base=facts.time_base,
        )


def _folder(target: Path, name: str) -> Path:
    return target / stem_of(name)


def _mp4(target: Path, name: str) -> Path:
    return target / f"{stem_of(name)}.mp4"


def _refuse_clashes(names: Sequence[str], target_of: Callable[[str], Path]) -> None:
    """Raise InputError if two videos would be written to one target."""
    places: dict[Path, str] = {}
    for name in names:
        before = places.setdefault(target_of(name), name)
        if before != name:
            raise InputError(f"{before} and {name} would both become {target_of(name)}; rename one")
