"""A split of a data set as videos with labels, and where data sets are found. Nothing heavy is imported here."""

import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from bench.core.errors import DatasetError, InputError, UnknownNameError
from bench.core.registry import DATASETS, DatasetEntry
from bench.data.facts import VideoFacts
from bench.data.media import VIDEO_SUFFIXES
from bench.data.options import checked_options
from bench.data.shards import source_of

DATA_FOLDER_VARIABLE = "VBENCH_DATA"


@dataclass(frozen=True, kw_only=True)
class Video:
    """One labelled video: a file or frame folder, or the part of it from `start_s` to `end_s`.

    A part may also be a `segment`: its first frame, from 0, and the one behind its last.

    `labels` are positions in the set's classes: one, several (multi-label) or none (a test split without labels).
    `frames` is their number and `sha256` their content, where an annotation or an index knows it; `facts` come from
    an index and allow exact seeks. `fps` is what an annotation says of frame folders; `flow` is the folder of the
    video's optical flow.
    """

    id: str
    path: Path
    labels: tuple[int, ...] = ()
    start_s: float | None = None
    end_s: float | None = None
    segment: tuple[int, int] | None = None
    frames: int | None = None
    fps: float | None = None
    sha256: str = ""
    flow: Path | None = None
    facts: VideoFacts | None = field(default=None, repr=False, compare=False)

    @property
    def is_part(self) -> bool:
        """Whether it is less than what its path leads to."""
        return any(bound is not None for bound in (self.start_s, self.end_s, self.segment))


@dataclass(frozen=True, kw_only=True)
class VideoSet:
    """One split of a data set: the videos that are there, and the ids and labels of those that are not.

    `hash` names exactly these videos with these labels: by content where an index knows it, else by size, and
    `hash_covers` says which. An accuracy is comparable with another only where both were taken on the same hash; of
    networks that look at flow, on the same `flow_hash` as well.
    `backend` decodes the videos wherever clips of the set are read.
    """

    name: str
    split: str
    classes: tuple[str, ...]
    videos: tuple[Video, ...]
    missing: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    damaged: tuple[str, ...] = ()
    is_multi_label: bool = False
    root: Path | None = None
    hash: str = ""
    hash_covers: str = "sizes"
    backend: str = "auto"

    def __len__(self) -> int:
        return len(self.videos)

    @cached_property
    def flow_hash(self) -> str:
        """16 hex digits over ids and optical flow: the size of its npz file, or how many pictures and that of one."""
        total = hashlib.sha256()
        for line in sorted(f"\0{video.id}\0{_size_of_flow(video.flow)}\n" for video in self.videos):
            total.update(line.encode("utf-8", "surrogatepass"))
        return total.hexdigest()[:16]

    @property
    def annotated(self) -> int:
        """How many videos the annotation names, missing ones included."""
        return len(self.videos) + len(self.missing)

    def counts(self) -> dict[str, int]:
        """Videos annotated, present, missing and damaged, for a record."""
        return {
            "annotated": self.annotated,
            "present": len(self.videos),
            "missing": len(self.missing),
            "damaged": len(self.damaged),
        }


def open_dataset(
    name: str,
    *,
    root: str | Path | None = None,
    split: str,
    flow: str | Path | None = None,
    decode: str = "auto",
    **options: Any,
) -> VideoSet:
    """Split `split` of data set `name`, under `root` or `$VBENCH_DATA/<name>`; nothing is downloaded.

    `flow` is the folder of the videos' optical flow as `vbench data flow` writes it, relative to the data set; where
    it is not given, that is its folder `flow`, and flow that lies beside a video's frames is found as well. `decode` is
    the backend of `bench.read_frames` that clips are read with. `options` are the data set's own.

    UnknownNameError for a name, split, backend or option that is not there, with the nearest spelling; InputError for
    an option of a wrong type; DatasetError where the folder is missing, with the tree that is expected.
    """
    entry = DATASETS.get(name)
    if split not in entry.splits:
        raise UnknownNameError("split", split, entry.splits, where=f"data set {name}")
    if decode != "auto":
        _check_backend(decode)
    found: VideoSet = entry.function(root_of(entry, root), split=split, **checked_options(entry, options))
    return replace(with_flow(found, flow), backend=decode)


def _check_backend(name: str) -> None:
    from bench.data.decode import BACKENDS

    if name not in BACKENDS:
        raise UnknownNameError("decoding backend", str(name), BACKENDS)


def with_flow(videos: VideoSet, folder: str | Path | None = None) -> VideoSet:
    """`videos`, each with its optical flow where there is any; DatasetError for a given folder that is not there."""
    root = videos.root or Path()
    place = root / (folder or "flow")
    if folder is not None and not place.is_dir():
        raise DatasetError(f"data set {videos.name}: {place} is not a folder; it was given as the folder of the flow")
    return replace(videos, videos=tuple(replace(video, flow=_flow_of(video, place, root)) for video in videos.videos))


def _flow_of(video: Video, place: Path, root: Path) -> Path | None:
    """Under the video's own name below the data set or its class folder, as pictures or npz; else among its frames."""
    if video.flow is not None:
        return video.flow
    if place.is_dir():
        path = video.path.relative_to(root) if video.path.is_relative_to(root) else video.path
        stem = path.stem if path.suffix.lower() in VIDEO_SUFFIXES else path.name
        for parent in (path.parent, Path(path.parent.name), Path()):
            for found in (place / parent / stem, place / parent / f"{stem}.npz"):
                if found.exists():
                    return found
    return video.path if (video.path / "flow_x_00001.jpg").is_file() else None


def require_root(root: Path | None, *, name: str, tree: str, described_at: str) -> Path:
    """`root` if it is a folder, else DatasetError with the tree that is expected there."""
    if root is not None and root.is_dir():
        return root
    folder = root or (_data_folder() or Path(f"${DATA_FOLDER_VARIABLE}")) / name
    raise DatasetError(
        f"data set {name}: there is no folder {folder}; give root, or set {DATA_FOLDER_VARIABLE} to the folder above "
        f"it. Expected there:\n{tree}\nIt is described at {described_at}; vbench downloads nothing"
    )


def video_set(
    name: str,
    split: str,
    *,
    classes: Sequence[str],
    videos: Iterable[Video],
    root: Path | None,
    missing: Mapping[str, tuple[int, ...]] | None = None,
    is_multi_label: bool = False,
) -> VideoSet:
    """A VideoSet with its hash, damaged videos taken from their facts.

    DatasetError if two videos share an id, or the annotation names none at all.
    """
    videos = tuple(videos)
    if not videos and not missing:
        raise DatasetError(f"data set {name}, split {split}: the annotation names no videos, under {root}")
    twice = [id_ for id_, times in Counter(video.id for video in videos).items() if times > 1]
    if twice:
        raise DatasetError(f"data set {name}, split {split}: {len(twice)} ids occur twice, the first is {twice[0]!r}")
    made = VideoSet(
        name=name,
        split=split,
        classes=tuple(classes),
        videos=videos,
        missing=dict(missing or {}),
        damaged=tuple(video.id for video in videos if video.facts is not None and not video.facts.is_ok),
        is_multi_label=is_multi_label,
        root=root,
        hash_covers="content" if all(video.sha256 for video in videos) else "sizes",
    )
    return replace(made, hash=_hash_of(made))


def root_of(entry: DatasetEntry, root: str | Path | None) -> Path | None:
    """The folder of a data set: `root`, else the one of its name under `$VBENCH_DATA` if it is there, else None."""
    if root is not None:
        if not str(root):
            raise InputError(f"data set {entry.name}: root is empty")
        return Path(root).expanduser()
    folder = _data_folder()
    return folder / entry.name if folder is not None and (folder / entry.name).is_dir() else None


def _data_folder() -> Path | None:
    value = os.environ.get(DATA_FOLDER_VARIABLE)
    return Path(value).expanduser() if value else None


def _hash_of(videos: VideoSet) -> str:
    """16 hex digits over classes, ids, labels, parts and contents, whatever the order of the videos."""
    total = hashlib.sha256("\n".join(videos.classes).encode("utf-8", "surrogatepass"))
    for line in sorted(_identity(video, covers=videos.hash_covers) for video in videos.videos):
        total.update(line.encode("utf-8", "surrogatepass"))
    return total.hexdigest()[:16]


def _identity(video: Video, *, covers: str) -> str:
    content = video.sha256 if covers == "content" else str(_size(video.path))
    labels = ",".join(str(label) for label in sorted(video.labels))
    counted = "".join(f"\0{each}" for each in (video.segment, video.fps) if each is not None)
    return f"\0{video.id}\0{labels}\0{video.start_s}\0{video.end_s}\0{content}{counted}\n"


def _size(path: Path) -> int:
    return sum(1 for _ in path.iterdir()) if path.is_dir() else source_of(path).size


def _size_of_flow(flow: Path | None) -> str:
    """Pictures of two methods are as many, but one of them is seldom as large as the other's."""
    if flow is None:
        return "none"
    if not flow.is_dir():
        return str(_size(flow))
    pictures = [entry for entry in os.scandir(flow) if entry.name.startswith("flow_")]
    first = min(pictures, key=lambda entry: entry.name, default=None)
    return f"{len(pictures)} {first.stat().st_size if first else 0}"
