"""Pack videos into tar shards as WebDataset reads them: `<class>/<clip>.mp4` and `<class>/<clip>.json`."""

import io
import json
import re
import tarfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.core.errors import DatasetError, InputError, VideoError
from bench.core.files import atomic_file, remove_abandoned, require_writable_folder
from bench.data.collection import Video, VideoSet
from bench.data.parallel import Failed, OnProgress, for_each_task, no_progress
from bench.data.shards import Source, shard_members, source_of

SHARD_BYTES = 1 << 30


@dataclass(frozen=True, kw_only=True)
class Sharded:
    """The result of a sharding run: shards written now and present before, videos in them, and failures."""

    shards: int
    skipped: int
    videos: int
    failed: tuple[Failed, ...]
    seconds: float


def prepare_shards(
    videos: VideoSet,
    target: str | Path,
    *,
    shard_bytes: int = SHARD_BYTES,
    workers: int = 0,
    on_progress: OnProgress = no_progress,
) -> Sharded:
    """Write the video files of a split as `<split>-000000.tar`, … under `target`, each of about `shard_bytes`.

    `workers` processes write shards in parallel (0: this process). `on_progress` counts shards. A shard appears
    complete or not at all; one with the right content is kept, so a killed run continues, and any other is rewritten.
    Frame folders and parts of videos cannot be packed and are listed as failed. Raises InputError if two videos would
    have one name, if `target` has shards beyond the last of this split, and if the videos are read from `target`.
    """
    if shard_bytes < 1:
        raise InputError(f"shards of {shard_bytes} bytes; allowed: 1 and more")
    started, target = time.monotonic(), Path(target)
    packed, failed = _packed(videos)
    shards = _shards(packed, shard_bytes)
    _refuse_left_over(target, videos.split, shards=len(shards))
    _refuse_own_source(target, packed)
    require_writable_folder(target)
    remove_abandoned(target)
    tasks = [
        _Shard(path=target / f"{videos.split}-{number:06d}.tar", videos=tuple(members))
        for number, members in enumerate(shards)
    ]
    written, skipped, done = 0, 0, 0
    for outcome in for_each_task(tasks, _make, total=len(tasks), workers=workers, on_progress=on_progress):
        if outcome.error is not None:
            failed.append(Failed(what=outcome.task.path.name, reason=str(outcome.error)))
            continue
        written, skipped = written + bool(outcome.result), skipped + (not outcome.result)
        done += len(outcome.task.videos)
    return Sharded(
        shards=written,
        skipped=skipped,
        videos=done,
        failed=tuple(failed),
        seconds=time.monotonic() - started,
    )


@dataclass(frozen=True, kw_only=True)
class _Packed:
    """One video in a shard: `<key><suffix>` with its bytes, `<key>.json` with its id and labels."""

    key: str
    suffix: str
    source: Source
    notes: bytes

    def sizes(self) -> Iterator[tuple[str, int]]:
        """Yield names and sizes of its members in their order."""
        yield f"{self.key}{self.suffix}", self.source.size
        yield f"{self.key}.json", len(self.notes)


@dataclass(frozen=True, kw_only=True)
class _Shard:
    """One shard and the videos that belong into it."""

    path: Path
    videos: tuple[_Packed, ...]

    def __str__(self) -> str:
        return self.path.name


def _make(shard: _Shard) -> bool:
    """Write the shard unless it is right already; returns whether it was written."""
    if _holds(shard.path, shard.videos):
        return False
    _write(shard.path, shard.videos)
    return True


def _packed(videos: VideoSet) -> tuple[list[_Packed], list[Failed]]:
    """Return the videos that are whole files as they will be packed, and the others with the reason."""
    packed, failed, ids = [], [], dict[str, str]()
    for video in videos.videos:
        try:
            each = _as_packed(video, videos)
        except VideoError as error:
            failed.append(Failed(what=video.id, reason=str(error)))
            continue
        if each.key in ids:
            raise InputError(f"{ids[each.key]} and {video.id} would both be {each.key} in a shard; rename one")
        ids[each.key] = video.id
        packed.append(each)
    return packed, failed


def _as_packed(video: Video, videos: VideoSet) -> _Packed:
    if video.path.is_dir():
        raise VideoError(f"{video.path}: is a frame folder; shards hold video files")
    if video.is_part:
        raise VideoError(f"{video.path}: {video.id} is a part of it; shards hold whole videos")
    return _Packed(
        key=_key(video, videos),
        suffix=video.path.suffix.lower(),
        source=source_of(video.path),
        notes=json.dumps(_notes(video, videos), ensure_ascii=False).encode(),
    )


def _shards(videos: Sequence[_Packed], shard_bytes: int) -> list[list[_Packed]]:
    shards: list[list[_Packed]] = []
    left = 0
    for video in videos:
        if not shards or video.source.size > left:
            shards.append([])
            left = shard_bytes
        shards[-1].append(video)
        left -= video.source.size
    return shards


def _refuse_left_over(target: Path, split: str, *, shards: int) -> None:
    """Raise InputError for a shard beyond the last: its videos would count twice, or are no longer in the split."""
    name = re.compile(rf"{re.escape(split)}-(\d{{6,}})\.tar")
    for path in sorted(target.glob(f"{split}-*.tar")):
        found = name.fullmatch(path.name)
        if found and int(found[1]) >= shards:
            raise InputError(f"{path}: split {split} takes {shards} shards now, and this is one more; remove it first")


def _refuse_own_source(target: Path, videos: Sequence[_Packed]) -> None:
    """Raise InputError if the videos are read from shards in `target`, which cannot be rewritten meanwhile."""
    files = {video.source.file for video in videos if video.source.file.suffix == ".tar"}
    own = next((file for file in sorted(files) if file.resolve().parent == target.resolve()), None)
    if own is not None:
        raise InputError(f"{own}: these videos are in shards of {target} already; name another folder")


def _holds(path: Path, videos: Sequence[_Packed]) -> bool:
    """Return whether the shard exists with exactly these videos and notes, unchanged since it was written."""
    if not path.is_file():
        return False
    try:
        members = shard_members(path)
    except DatasetError:
        return False
    if [(name, size) for name, (_, size) in members.items()] != [each for video in videos for each in video.sizes()]:
        return False
    written_ns = path.stat().st_mtime_ns
    with path.open("rb") as shard:
        for video in videos:
            offset, size = members[f"{video.key}.json"]
            shard.seek(offset)
            if video.source.modified_ns > written_ns or shard.read(size) != video.notes:
                return False
    return True


def _write(path: Path, videos: Sequence[_Packed]) -> None:
    with atomic_file(path) as unfinished, tarfile.open(unfinished, "w") as shard:
        for video in videos:
            (name, size), (notes_name, notes_size) = video.sizes()
            with video.source.file.open("rb") as file:
                file.seek(video.source.offset)
                shard.addfile(_entry(name, size), file)
            shard.addfile(_entry(notes_name, notes_size), io.BytesIO(video.notes))


def _notes(video: Video, videos: VideoSet) -> dict[str, Any]:
    labels = [videos.classes[label] for label in video.labels]
    return {"id": video.id, "labels": labels, "start_s": video.start_s, "end_s": video.end_s}


def _key(video: Video, videos: VideoSet) -> str:
    """Return `<class>/<clip>`, by which annotations find the video; without dots, at which WebDataset splits names."""
    folder = videos.classes[video.labels[0]].replace("/", "_") if video.labels else "test"
    return f"{folder if folder.strip('.') else '_'}/{video.path.stem.replace('.', '_')}"


def _entry(name: str, size: int) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = size, 0o644
    return entry
