"""The index of a folder of videos: every file is decoded once, and its facts are kept as one JSON line.

The index is `.vbench/index.jsonl` under the folder, or a file in the user's cache if the folder cannot be written.
Lines are appended as files are finished, so a killed run continues where it stopped; a torn last line is skipped. An
entry is valid as long as size and modification time of its file are unchanged.
"""

import hashlib
import json
import os
import time
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TextIO

from bench.core.errors import BenchError, DatasetError, VideoError
from bench.core.files import cache_folder, path_hint
from bench.data.facts import VideoFacts
from bench.data.media import FILE_SUFFIXES, VIDEO_SUFFIXES, inode_of, is_folder, is_frame_folder, visible
from bench.data.parallel import Failed, OnProgress, for_each_task, no_progress
from bench.data.shards import shard_members, source_of

_FILE = Path(".vbench", "index.jsonl")

Inode = tuple[int, int]


Stamp = list[int]  # what changes with a file, see _stamp


@dataclass(frozen=True, kw_only=True)
class _Task:
    """One video by its name, with its stamp in the index if it has one."""

    name: str
    is_known: bool
    stamp: list[int] | None

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True, kw_only=True)
class IndexSummary:
    """The result of an indexing run: number of files, of those decoded now, and of each verdict."""

    path: Path
    files: int
    probed: int
    verdicts: dict[str, int]
    failed: tuple[Failed, ...]
    seconds: float


def index_folder(
    root: str | Path, *, workers: int = 0, again: bool = False, on_progress: OnProgress = no_progress
) -> IndexSummary:
    """Decode every video under `root` that is new or changed (with `again`: all) and keep its facts."""
    root = Path(root)
    if not root.is_dir():
        raise DatasetError(f"{root}: is not a folder{path_hint(root)}")
    started, path = time.monotonic(), _writable_index(root)
    stamps = {} if again else {name: stamp for name, stamp, _ in _read(path)}
    files = list(videos_under(root))
    tasks = [_Task(name=name, is_known=name in stamps, stamp=stamps.get(name)) for name in files]
    probed = 0
    with path.open("a", encoding="utf-8") as index:
        _end_torn_line(path, index)
        for outcome in for_each_task(
            tasks, partial(_look_at, root), total=len(tasks), workers=workers, on_progress=on_progress
        ):
            name = outcome.task.name
            died = _stamp(root / name), VideoFacts(verdict="unreadable", problem=str(outcome.error))
            stamp, facts = outcome.result or died
            if facts is not None:
                line = {"path": name, "stamp": stamp, "facts": facts.to_json()}
                index.write(json.dumps(line, separators=(",", ":")) + "\n")
                index.flush()
                probed += 1
    return _summary(path, files, probed=probed, seconds=time.monotonic() - started)


def read_facts(root: Path, paths: Collection[Path]) -> dict[Path, VideoFacts]:
    """Return the facts of `paths` that indexes know and that are not out of date.

    Indexes of `root`, of any folder that contains the paths, and of folders above are read, the nearest first. A frame
    folder counts as unchanged if its own modification time is; frames overwritten in place need `index --again`.
    """
    found: dict[Path, VideoFacts] = {}
    left = {str(path.absolute()): path for path in paths}
    for folder, file in _indexes_above(root.absolute(), left):
        inside = os.path.join(folder, "")
        wanted = {place[len(inside) :]: path for place, path in left.items() if place.startswith(inside)}
        if wanted:
            found |= _known_of(wanted, file=file)
            left = {place: path for place, path in left.items() if path not in found}
    return found


def _known_of(wanted: Mapping[str, Path], *, file: Path) -> dict[Path, VideoFacts]:
    """Return what the index `file` knows about paths, given by their names in it."""
    latest = {name: (stamp, facts) for name, stamp, facts in _read(file) if name in wanted}
    found: dict[Path, VideoFacts] = {}
    for name, (stamp, facts) in latest.items():
        if _is_current(stamp, wanted[name]):
            try:
                found[wanted[name]] = VideoFacts.from_json(facts)
            except (ValueError, TypeError, KeyError):
                continue  # written by another version: the video counts as not indexed
    return found


def videos_under(root: Path, *, without: Path | None = None) -> Iterator[str]:
    """Yield every video file, frame folder and video in a shard below `root`, relative to it, sorted in each folder.

    A folder or shard that cannot be read is yielded under its own name, so that probing it reports the reason. Links to
    a folder above are skipped, and so is the folder `without`. Raises DatasetError if `root` itself cannot be read.
    """
    left_out = frozenset({inode_of(without)}) if without is not None and without.is_dir() else frozenset()
    folders: list[tuple[Path, frozenset[Inode]]] = [(root, left_out)]
    while folders:
        folder, above = folders.pop()
        try:
            here, inside = inode_of(folder), visible(folder)
        except OSError as error:
            if folder == root:
                raise DatasetError(f"{root}: cannot be read: {error.strerror}") from error
            yield folder.relative_to(root).as_posix()
            continue
        if here in above:
            continue
        if folder != root and is_frame_folder(inside):
            yield folder.relative_to(root).as_posix()
            continue
        for entry in inside:
            if is_folder(entry):
                folders.append((Path(entry.path), above | {here}))
            else:
                yield from (path.relative_to(root).as_posix() for path in _videos_at(Path(entry.path)))


def _videos_at(path: Path) -> Iterator[Path]:
    """Yield `path` if it is a video file, or the videos in it if it is a shard."""
    if _suffix(path.name) in FILE_SUFFIXES:
        yield path
    elif path.suffix == ".tar":
        try:
            members = shard_members(path)
        except (DatasetError, OSError):
            yield path
            return
        yield from (path / name for name in members if _suffix(name) in VIDEO_SUFFIXES)


def _look_at(root: Path, task: _Task) -> tuple[Stamp | None, VideoFacts | None]:
    """Decode the video unless its stamp is unchanged; returns the stamp, and the facts if it was decoded.

    The stamp is taken before decoding, so that a file still being written is decoded again next time.
    """
    from bench.data.probing import probe

    path = root / task.name
    stamp = _stamp(path)
    if task.is_known and stamp == task.stamp:
        return stamp, None
    try:
        if task.name.endswith(".tar"):
            shard_members(path)  # raises the reason why it could not be listed
        return stamp, probe(path)
    except BenchError as error:
        return stamp, VideoFacts(verdict="unreadable", problem=str(error))


def _summary(path: Path, files: Collection[str], *, probed: int, seconds: float) -> IndexSummary:
    names, latest = set(files), dict[str, tuple[str, str]]()
    for name, _, facts in _read(path):
        if name in names:
            latest[name] = str(facts.get("verdict")), str(facts.get("problem"))
    return IndexSummary(
        path=path,
        files=len(files),
        probed=probed,
        verdicts=dict(Counter(verdict.split(" ")[0] for verdict, _ in latest.values())),
        failed=tuple(Failed(what=name, reason=f"{v}: {p}") for name, (v, p) in latest.items() if v != "ok"),
        seconds=seconds,
    )


def _read(file: Path) -> Iterator[tuple[str, list[int] | None, dict[str, Any]]]:
    """Yield name, stamp and facts of every complete line, older ones first."""
    if not file.is_file():
        return
    with file.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            try:
                entry = json.loads(line)
                yield entry["path"], entry["stamp"], entry["facts"]
            except (ValueError, KeyError, TypeError):
                continue  # torn by a kill; its file is decoded again


def _end_torn_line(path: Path, index: TextIO) -> None:
    with path.open("rb") as file:
        file.seek(0, os.SEEK_END)
        if file.tell():
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":
                index.write("\n")


def _stamp(path: Path) -> list[int] | None:
    """Return size and modification time of a file or of a shard's member; None if it cannot be read.

    Of a frame folder: bytes, number and newest time of its files, and its own time.
    """
    try:
        if os.path.isdir(path):
            files = [entry.stat() for entry in visible(path) if entry.is_file()]
            newest_ns = max((file.st_mtime_ns for file in files), default=0)
            return [sum(file.st_size for file in files), len(files), newest_ns, path.stat().st_mtime_ns]
        source = source_of(path)
    except (VideoError, OSError):
        return None
    return [source.size, source.modified_ns]


def _is_current(stamp: list[int] | None, path: Path) -> bool:
    """Return whether the stamp is current; of a frame folder only its own time is compared, which is fast."""
    if stamp and os.path.isdir(path):
        return stamp[-1] == path.stat().st_mtime_ns
    return stamp == _stamp(path)


def _writable_index(root: Path) -> Path:
    for path in (root / _FILE, _cached_index(root)):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.open("a").close()
        except OSError:
            continue
        return path
    raise DatasetError(f"{root}: neither the folder nor the user's cache can be written, so the index cannot be stored")


def _indexes_above(root: Path, places: Iterable[str]) -> list[tuple[Path, Path]]:
    """Return folders with an index among `root`, the folders of `places` and those above, the innermost first."""
    folders = set[Path]()
    for innermost in (root, *map(Path, {os.path.dirname(place) for place in places})):
        for folder in (innermost, *innermost.parents):
            if folder in folders:
                break
            folders.add(folder)
    inward = sorted(folders, key=lambda folder: len(folder.parts), reverse=True)
    return [(folder, file) for folder in inward for file in (folder / _FILE, _cached_index(folder)) if file.is_file()]


def _cached_index(root: Path) -> Path:
    name = hashlib.sha256(os.fsencode(root.absolute())).hexdigest()[:16]
    return cache_folder() / "index" / f"{name}.jsonl"


def _suffix(name: str) -> str:
    return os.path.splitext(name)[1].lower()
