"""Guard against the same material on both sides of a split: equal files, or clips cut from one recording."""

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from bench.data.collection import Video, VideoSet
from bench.errors import DatasetError

_UCF_GROUP = re.compile(r"(?:.*/)?(?P<group>v_.+_g\d+)_c\d+(?:\.\w+)?")


@dataclass(frozen=True, kw_only=True)
class Leak:
    """Two videos, one on each side of a split, that share `shared`: `group <name>` or `file <sha256>`."""

    train: str
    test: str
    shared: str


def find_leaks(train: VideoSet, test: VideoSet) -> tuple[Leak, ...]:
    """What both sets share: UCF-101 groups (`v_<Class>_g##`), and files of equal content where it is known."""
    sources = {shared: video.id for video in train.videos for shared in _shared_by(video)}
    return tuple(
        Leak(train=sources[shared], test=video.id, shared=shared)
        for video in test.videos
        for shared in _shared_by(video)
        if shared in sources
    )


def guard_leakage(train: VideoSet, test: VideoSet, *, allowed: Collection[str] = ()) -> tuple[Leak, ...]:
    """The leaks `allowed` by name (`group v_Archery_g01`, `file 3f…`, a video's id); DatasetError for any other."""
    leaks = find_leaks(train, test)
    refused = [leak for leak in leaks if not {leak.shared, leak.train, leak.test} & set(allowed)]
    if refused:
        first = refused[0]
        raise DatasetError(
            f"data set {test.name}: {len(refused)} videos of {test.split} share material with {train.split}; "
            f"the first: {first.test} and {first.train} share {first.shared}. "
            "Use the official splits, or allow it by that name"
        )
    return leaks


def _shared_by(video: Video) -> Iterator[str]:
    group = _UCF_GROUP.fullmatch(video.id)
    if group:
        yield f"group {group['group']}"
    if video.sha256 and video.start_s is None and video.end_s is None:
        yield f"file {video.sha256}"
