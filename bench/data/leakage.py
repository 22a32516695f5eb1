"""Find the same material on both sides of a split: one file, equal files, or clips cut from one recording."""

import os
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from bench.core.errors import DatasetError
from bench.data.collection import Video, VideoSet

_UCF_GROUP = re.compile(r"(?:.*/)?(?P<group>v_.+_g\d+)_c\d+(?:\.\w+)?")


@dataclass(frozen=True, kw_only=True)
class Leak:
    """Two videos, one on each side of a split, that share `shared`: a `group …`, `file <sha256>` or `path …`."""

    train: str
    test: str
    shared: str


def find_leaks(train: VideoSet, test: VideoSet) -> tuple[Leak, ...]:
    """Return what both sets share: UCF-101 groups (`v_<Class>_g##`), paths, and equal contents if hashes are known.

    Any two parts of one video share it.
    """
    sources = {shared: video.id for video in train.videos for shared in _shared_by(video)}
    return tuple(
        Leak(train=sources[shared], test=video.id, shared=shared)
        for video in test.videos
        for shared in _shared_by(video)
        if shared in sources
    )


def guard_leakage(train: VideoSet, test: VideoSet, *, allowed: Collection[str] = ()) -> tuple[Leak, ...]:
    """Return the leaks that are `allowed` by name; raises DatasetError if there are others.

    A name is what two videos share (`group v_Archery_g01`, `file 3f…`, `path /data/x.mp4`) or the id of one of them.
    One name is enough for two videos that share several things.
    """
    leaks, names = find_leaks(train, test), set(allowed)
    fine = {(leak.train, leak.test) for leak in leaks if {leak.shared, leak.train, leak.test} & names}
    refused = [leak for leak in leaks if (leak.train, leak.test) not in fine]
    if refused:
        first = refused[0]
        raise DatasetError(
            f"data set {test.name}: {len({leak.test for leak in refused})} videos of {test.split} share material with "
            f"{train.split}; the first: {first.test} and {first.train} share {first.shared}. "
            "Use the official splits, or allow it by that name"
        )
    return leaks


def _shared_by(video: Video) -> Iterator[str]:
    group = _UCF_GROUP.fullmatch(video.id)
    if group:
        yield f"group {group['group']}"
    has_frames = (
        video.facts is None or video.facts.frames > 0
    )  # empty and broken files are equal without sharing material
    if video.sha256 and has_frames:
        yield f"file {video.sha256}"
    yield f"path {_place(video.path)}"


def _place(path: Path) -> str:
    """Return the path with links resolved; a member of a shard keeps its name inside."""
    if os.path.islink(path):
        return os.path.realpath(path)
    folder, name = os.path.split(path)
    return os.path.join(_folder(folder), name)


@lru_cache(maxsize=4096)
def _folder(path: str) -> str:
    return os.path.realpath(path)
