"""Videos packed into tar shards as WebDataset reads them: `<class>/<clip>.mp4` beside `<class>/<clip>.json`."""

import io
import json
import tarfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.data.atomic import whole_file
from bench.data.collection import Video, VideoSet
from bench.data.shards import source_of
from bench.data.work import Failed, Progress, Report, silent
from bench.errors import InputError, VideoError

SHARD_BYTES = 1 << 30


@dataclass(frozen=True, kw_only=True)
class Sharded:
    """What a sharding run did: shards written now and found from before, videos in them, and those that failed."""

    shards: int
    skipped: int
    videos: int
    failed: tuple[Failed, ...]
    seconds: float


def prepare_shards(
    videos: VideoSet, target: str | Path, *, shard_bytes: int = SHARD_BYTES, report: Report = silent
) -> Sharded:
    """The video files of a split as `<split>-000000.tar`, … under `target`, each of about `shard_bytes`.

    A shard is complete or not there; what is there already is left alone, so a killed run goes on. Frame folders and
    parts of videos cannot be packed and are told as failed.
    """
    if shard_bytes < 1:
        raise InputError(f"shards of {shard_bytes} bytes; allowed: 1 and more")
    started, target = time.monotonic(), Path(target)
    packable, failed = _packable(videos)
    groups = _groups(packable, shard_bytes)
    written, packed = 0, 0
    for number, group in enumerate(groups):
        path = target / f"{videos.split}-{number:06d}.tar"
        if not path.exists():
            _write(path, group, videos)
            written += 1
        packed += len(group)
        seconds = time.monotonic() - started
        report(Progress(done=packed, total=len(packable), failed=len(failed), seconds=seconds, what=path.name))
    return Sharded(
        shards=written,
        skipped=len(groups) - written,
        videos=packed,
        failed=tuple(failed),
        seconds=time.monotonic() - started,
    )


def _packable(videos: VideoSet) -> tuple[list[tuple[Video, int]], list[Failed]]:
    """Videos that are whole files, with their sizes; and why others are not."""
    packable, failed = [], []
    for video in videos.videos:
        try:
            if video.path.is_dir():
                raise VideoError(f"{video.path}: is a frame folder; shards hold video files")
            packable.append((video, source_of(video.path).size))
        except VideoError as error:
            failed.append(Failed(what=video.id, reason=str(error)))
    return packable, failed


def _groups(videos: Sequence[tuple[Video, int]], shard_bytes: int) -> list[list[Video]]:
    groups: list[list[Video]] = []
    left = 0
    for video, size in videos:
        if not groups or size > left:
            groups.append([])
            left = shard_bytes
        groups[-1].append(video)
        left -= size
    return groups


def _write(path: Path, group: Sequence[Video], videos: VideoSet) -> None:
    with whole_file(path) as unfinished, tarfile.open(unfinished, "w") as shard:
        for video in group:
            key = _key(video, videos)
            source = source_of(video.path)
            with source.file.open("rb") as file:
                file.seek(source.offset)
                shard.addfile(_entry(f"{key}{video.path.suffix.lower()}", source.size), file)
            data = json.dumps(_notes(video, videos), ensure_ascii=False).encode()
            shard.addfile(_entry(f"{key}.json", len(data)), io.BytesIO(data))


def _notes(video: Video, videos: VideoSet) -> dict[str, Any]:
    labels = [videos.classes[label] for label in video.labels]
    return {"id": video.id, "labels": labels, "start_s": video.start_s, "end_s": video.end_s}


def _key(video: Video, videos: VideoSet) -> str:
    """`<class>/<clip>`, by which the data set's own annotation finds the video again; WebDataset allows it no dot."""
    folder = videos.classes[video.labels[0]] if video.labels else "test"
    return f"{folder.replace('/', '_')}/{video.path.stem}".replace(".", "_")


def _entry(name: str, size: int) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = size, 0o644
    return entry
