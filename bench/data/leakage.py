"""Find the same material on both sides of a split, such as clips cut from one recording; split a set without that."""

import os
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np

from bench.core.errors import DatasetError, InputError
from bench.data.collection import Video, VideoSet, video_set

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
            "Use the official splits, or name what may be shared in `allow_leaks` of the measure accuracy"
        )
    return leaks


def hold_out(videos: VideoSet, *, share: float, seed: int = 0) -> tuple[VideoSet, VideoSet]:
    """Split a training set in two: one to train on, and about `share` of each class to validate on.

    Videos that share material stay on one side, and each class keeps material to train on. The split depends on `seed`
    and the ids only. Raises InputError if `share` is not between 0 and 1, or leaves nothing to validate on.
    """
    if not 0 < share < 1:
        raise InputError(f"the share to hold out should be above 0 and below 1, found {share:g}")
    by_class: dict[int, list[list[Video]]] = {}
    for group in _groups(videos.videos):
        by_class.setdefault(group[0].labels[0] if group[0].labels else -1, []).append(group)
    random, held = np.random.default_rng(seed), set[str]()
    for _, groups in sorted(by_class.items()):
        wanted = round(share * sum(map(len, groups)))
        for index in random.permutation(len(groups))[:-1]:  # the last group stays to train on
            if len(groups[index]) <= wanted:
                held |= {video.id for video in groups[index]}
                wanted -= len(groups[index])
    if not held:
        raise InputError(
            f"holding out {share:g} of the {len(videos)} videos of {videos.name} {videos.split} leaves nothing to "
            "validate on: the share is too small, or the videos of each class share material"
        )
    kept = _part(videos, "without held-out videos", lambda video: video.id not in held)
    return kept, _part(videos, "held out", lambda video: video.id in held)


def _part(videos: VideoSet, name: str, belongs: Callable[[Video], bool]) -> VideoSet:
    chosen = video_set(
        videos.name,
        f"{videos.split}, {name}",
        classes=videos.classes,
        videos=filter(belongs, videos.videos),
        root=videos.root,
        is_multi_label=videos.is_multi_label,
    )
    return replace(chosen, backend=videos.backend)


def _groups(videos: Sequence[Video]) -> list[list[Video]]:
    """The videos in groups that share material, directly or by other videos; ordered by id."""
    groups: dict[str, list[Video]] = {}
    for video in sorted(videos, key=lambda video: video.id):
        names = list(_shared_by(video))
        joined = [video]
        for group in {id(groups[name]): groups[name] for name in names if name in groups}.values():
            joined = [*group, *joined]
        for name in {name for each in joined for name in _shared_by(each)}:
            groups[name] = joined
    return list({id(group): group for group in groups.values()}.values())


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
