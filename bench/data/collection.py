"""Data sets: the videos of one split with their labels, how a split is opened, and which folders it lies in.

Nothing heavy is imported here, because planning a suite opens data sets.
"""

import hashlib
import os
import re
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, get_type_hints

from pydantic import TypeAdapter, ValidationError

from bench.core.errors import DatasetError, InputError, UnknownNameError
from bench.core.files import path_hint
from bench.core.registry import DATASETS, DatasetEntry
from bench.core.validation import describe_error
from bench.data.facts import VideoFacts
from bench.data.index import read_facts
from bench.data.media import FILE_SUFFIXES, Media, UnreadMediaWarning
from bench.data.shards import source_of

DATA_FOLDER_VARIABLE = "VBENCH_DATA"
MANY_MISSING = 0.1  # share of missing videos from which on results carry a warning
COMMON_OPTIONS = ("flow", "decode")  # arguments of `open_dataset` that every data set has


class AnnotationWarning(UserWarning):
    """An annotation that can be read, and is probably not what was meant."""


@dataclass(frozen=True, kw_only=True)
class Video:
    """One labelled video: a file or frame folder, or the part of it from `start_s` to `end_s`.

    A part may also be a `segment`: its first frame, counted from 0, and the frame after its last.
    `labels` are positions in the set's classes: one, several (multi-label) or none (a test split without labels).
    `frames` is their number and `sha256` the hash of the content; both come from an annotation or an index and may be
    unknown. `facts` come from an index and allow exact seeks. `fps` is what an annotation says about a frame folder.
    `flow` is the folder or npz file of the video's optical flow.
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
        """Whether the video is only a part of the file at its path."""
        return any(bound is not None for bound in (self.start_s, self.end_s, self.segment))


@dataclass(frozen=True, kw_only=True)
class VideoSet:
    """One split of a data set: the videos that are present, and the ids and labels of those that are missing.

    `hash` identifies exactly these videos with these labels: by content if an index knows it, else by file size;
    `hash_covers` says which. Two accuracies are comparable only if both were measured on the same hash, and for models
    with a flow input on the same `flow_hash`.
    `backend` decodes the videos wherever clips of the set are read. `notes` say how the annotation was read.
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
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.videos)

    @cached_property
    def flow_hash(self) -> str:
        """16 hex digits over ids and optical flow (size of an npz file, or count and first size of its pictures)."""
        total = hashlib.sha256()
        for line in sorted(f"\0{video.id}\0{_size_of_flow(video.flow)}\n" for video in self.videos):
            total.update(line.encode("utf-8", "surrogatepass"))
        return total.hexdigest()[:16]

    @property
    def annotated(self) -> int:
        """Number of videos that the annotation names, missing ones included."""
        return len(self.videos) + len(self.missing)

    @property
    def missing_warning(self) -> str:
        """One sentence if more than a tenth of the annotated videos are missing, else nothing."""
        if not self.annotated or len(self.missing) <= MANY_MISSING * self.annotated:
            return ""
        share = 100 * len(self.missing) / self.annotated
        return (
            f"{len(self.missing)} of {self.annotated} videos ({share:.0f} %) of data set {self.name}, split "
            f"{self.split}, are missing, the first is {next(iter(self.missing))}; the result is of the others"
        )

    def counts(self) -> dict[str, int]:
        """Return the numbers of annotated, present, missing and damaged videos, for a record."""
        return {
            "annotated": self.annotated,
            "present": len(self.videos),
            "missing": len(self.missing),
            "damaged": len(self.damaged),
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class AnnotatedVideo:
    """One video as an annotation describes it. `names` are the names to look for among the media, best one first."""

    id: str
    labels: tuple[int, ...]
    names: tuple[str, ...]
    start_s: float | None = None
    end_s: float | None = None
    segment: tuple[int, int] | None = None
    frames: int | None = None
    fps: float | None = None


def open_dataset(
    name: str,
    *,
    root: str | Path | None = None,
    split: str,
    flow: str | Path | None = None,
    decode: str = "auto",
    **options: Any,
) -> VideoSet:
    """Open split `split` of data set `name` under `root` or `$VBENCH_DATA/<name>`. Nothing is downloaded.

    `flow` is the folder of the optical flow that `vbench data flow` wrote, relative to the data set; by default its
    folder `flow`, or flow pictures that lie among a video's frames. `decode` is the backend of `bench.read_frames`
    that clips are read with. `options` are the data set's own.

    Raises UnknownNameError for an unknown data set, split, backend or option, with the nearest spelling; InputError
    for an option of the wrong type; DatasetError if the folder is missing, with the tree that is expected there.
    """
    entry = DATASETS.get(name)
    if split not in entry.splits:
        raise UnknownNameError("split", split, entry.splits, where=f"data set {name}")
    if decode != "auto":
        from bench.data.decode import BACKENDS  # imports PyAV and numpy

        if decode not in BACKENDS:
            raise UnknownNameError("decoding backend", str(decode), BACKENDS)
    found: VideoSet = entry.function(root_of(entry, root), split=split, **checked_options(entry, options))
    return replace(with_flow(found, flow), backend=decode)


def folders_of_dataset(name: str, *, root: str | Path | None = None, **options: Any) -> tuple[Path, ...]:
    """Return the folders to index: that of data set `name`, and that of its option `videos` if it lies elsewhere.

    A synthetic data set is written first. Raises DatasetError with the expected tree if the folder is missing.
    """
    entry = DATASETS.get(name)
    own = {option: value for option, value in options.items() if option not in COMMON_OPTIONS}
    videos = checked_options(entry, own).get("videos")
    folder = root_of(entry, root)
    if folder is None or not folder.is_dir():
        folder = open_dataset(name, root=folder, split=entry.splits[0], **options).root
    if folder is None:
        raise DatasetError(f"data set {name}: has no folder of its own, so there is nothing to index")
    if videos is None:
        return (folder,)
    if not (folder / videos).is_dir():
        hint = path_hint(folder / videos)
        raise DatasetError(f"{folder / videos}: the folder of the videos (option videos) does not exist{hint}")
    # Compared without resolving links: the index follows links inside the folder anyway.
    is_inside = Path(os.path.abspath(folder / videos)).is_relative_to(os.path.abspath(folder))
    return (folder,) if is_inside else (folder, folder / videos)


def root_of(entry: DatasetEntry, root: str | Path | None) -> Path | None:
    """Return `root`, else the folder of the data set's name under `$VBENCH_DATA` if it exists, else None.

    Raises InputError for a root that is empty or a file.
    """
    if root is not None:
        if not str(root):
            raise InputError(f"data set {entry.name}: root is empty")
        given = Path(root).expanduser()
        if given.exists() and not given.is_dir():
            raise InputError(f"data set {entry.name}: root {given} is a file; name the folder of the data set")
        return given
    folder = _data_folder()
    return folder / entry.name if folder is not None and (folder / entry.name).is_dir() else None


def require_root(root: Path | None, *, name: str, tree: str, described_at: str) -> Path:
    """Return `root`; raises DatasetError with the expected tree if it is not a folder."""
    if root is not None and root.is_dir():
        return root
    folder = root or (_data_folder() or Path(f"${DATA_FOLDER_VARIABLE}")) / name
    raise DatasetError(
        f"data set {name}: there is no folder {folder}{path_hint(folder)}; give root, or set {DATA_FOLDER_VARIABLE} to "
        f"the folder above it. Expected there:\n{tree}\nIt is described at {described_at}; vbench downloads nothing"
    )


def checked_options(entry: DatasetEntry, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return `given` with paths as text.

    Raises UnknownNameError for an unknown option and InputError for one of the wrong type. Options whose types cannot
    be resolved (a plug-in with forward references) are passed on unchecked.
    """
    allowed, types = set(entry.options) - {"split"}, _option_types(entry)
    checked = {}
    for name, value in given.items():
        if name not in allowed:
            raise UnknownNameError("option", name, allowed | {*COMMON_OPTIONS}, where=f"data set {entry.name}")
        checked[name] = os.fspath(value) if isinstance(value, os.PathLike) else value
        try:
            if name in types:
                TypeAdapter(types[name]).validate_python(checked[name], strict=True)
        except ValidationError as error:
            raise InputError(f"option {name!r} of data set {entry.name}: {describe_error(error, value)}") from None
    return checked


def text_options() -> frozenset[str]:
    """Return the names of data set options that are text, so that `--option` does not parse their values as YAML."""
    types = (item for entry in DATASETS for item in _option_types(entry).items())
    return frozenset(name for name, kind in types if kind in (str, str | None)) | {*COMMON_OPTIONS}


def assemble(
    name: str,
    split: str,
    entries: Iterable[AnnotatedVideo],
    *,
    classes: Sequence[str],
    media: Media,
    root: Path,
    is_multi_label: bool = False,
) -> VideoSet:
    """Build a split: look up every annotated video among the media and take over what an index of `root` knows.

    Videos that are not found are listed as missing; folders and shards that cannot be read cause a warning.
    """
    if media.unread:
        more = f" (and {len(media.unread) - 1} more)" if len(media.unread) > 1 else ""
        warnings.warn(f"{media.unread[0]}{more}; videos there count as missing", UnreadMediaWarning, stacklevel=2)
    entries = list(entries)
    found = _found(name, entries, classes=classes, media=media, is_multi_label=is_multi_label)
    index = read_facts(root, set(found.values()))
    return video_set(
        name,
        split,
        classes=classes,
        videos=[_video(entry, found[entry.id], index.get(found[entry.id])) for entry in entries if entry.id in found],
        root=root,
        missing={entry.id: entry.labels for entry in entries if entry.id not in found},
        is_multi_label=is_multi_label,
    )


def _found(
    name: str, entries: Sequence[AnnotatedVideo], *, classes: Sequence[str], media: Media, is_multi_label: bool
) -> dict[str, Path]:
    """Return the path of each entry by id. A file belongs to one entry, and to the class of the folder it lies in.

    A second entry of a file with the same label counts as missing, as does one whose file is claimed by an entry of the
    class it lies in: two clips of one YouTube video, of which one is there. Raises DatasetError if a file is claimed
    with different labels, or lies in the folder of another class than the annotation says.
    """
    numbers = {_folder_name(label): position for position, label in enumerate(classes)}
    found: dict[str, Path] = {}
    claims: dict[tuple[Path, object], AnnotatedVideo] = {}
    in_other_class: list[tuple[AnnotatedVideo, Path, int]] = []
    for entry in entries:
        path = media.find(entry.names)
        if path is None:
            continue
        folder = numbers.get(_folder_name(media.class_folder(path)))
        if folder is not None and entry.labels and folder not in entry.labels and not is_multi_label:
            in_other_class.append((entry, path, folder))
            continue
        first = claims.setdefault((path, (entry.start_s, entry.end_s, entry.segment)), entry)
        if first is entry:
            found[entry.id] = path
        elif first.labels != entry.labels:
            labels = " and ".join(f"{each.id} ({_labels_text(each, classes)})" for each in (first, entry))
            raise DatasetError(f"data set {name}: {path} is the file of two annotated videos, {labels}")
    claimed = set(found.values())
    for entry, path, folder in in_other_class:
        if path not in claimed:
            raise DatasetError(
                f"data set {name}: {entry.id} is annotated as {_labels_text(entry, classes)}, but {path} lies in the "
                f"folder of class {classes[folder]!r}"
            )
    return found


def _labels_text(entry: AnnotatedVideo, classes: Sequence[str]) -> str:
    return ", ".join(repr(classes[label]) for label in entry.labels) or "no label"


def _folder_name(label: str) -> str:
    """Return a class name as folders are compared: copies of a data set differ in case and in spaces."""
    return re.sub(r"[\W_]+", "_", label.lower()) if label.isascii() else label.lower()


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
    """Return a VideoSet with its hash; damaged videos are those whose facts say so.

    Raises DatasetError if two videos have the same id or the annotation names no video.
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


def with_flow(videos: VideoSet, folder: str | Path | None = None) -> VideoSet:
    """Return `videos`, each with its optical flow if it has any; DatasetError if the given folder does not exist."""
    root = videos.root or Path()
    flow_folder = root / (folder or "flow")
    if folder is not None and not flow_folder.is_dir():
        raise DatasetError(f"data set {videos.name}: the folder of the optical flow, {flow_folder}, does not exist")
    with_flow = tuple(replace(video, flow=_flow_of(video, flow_folder, root)) for video in videos.videos)
    return replace(videos, videos=with_flow)


def _video(entry: AnnotatedVideo, path: Path, facts: VideoFacts | None) -> Video:
    return Video(
        id=entry.id,
        path=path,
        labels=entry.labels,
        start_s=entry.start_s,
        end_s=entry.end_s,
        segment=entry.segment,
        frames=facts.frames if facts else entry.frames,
        fps=entry.fps,
        sha256=facts.sha256 if facts else "",
        facts=facts,
    )


def _flow_of(video: Video, flow_folder: Path, root: Path) -> Path | None:
    """Find flow under the video's own path or class folder, as pictures or npz, else among its frames."""
    if video.flow is not None:
        return video.flow
    if flow_folder.is_dir():
        path = video.path.relative_to(root) if video.path.is_relative_to(root) else video.path
        stem = path.stem if path.suffix.lower() in FILE_SUFFIXES else path.name
        for parent in (path.parent, Path(path.parent.name), Path()):
            for found in (flow_folder / parent / stem, flow_folder / parent / f"{stem}.npz"):
                if found.exists():
                    return found
    return video.path if (video.path / "flow_x_00001.jpg").is_file() else None


def _option_types(entry: DatasetEntry) -> dict[str, Any]:
    try:
        return get_type_hints(entry.function)
    except (NameError, TypeError, AttributeError):  # a plug-in's annotations that cannot be resolved
        return {}


def _data_folder() -> Path | None:
    value = os.environ.get(DATA_FOLDER_VARIABLE)
    return Path(value).expanduser() if value else None


def _hash_of(videos: VideoSet) -> str:
    """Return 16 hex digits over classes, ids, labels, parts and contents, independent of the order of the videos."""
    total = hashlib.sha256("\n".join(videos.classes).encode("utf-8", "surrogatepass"))
    for line in sorted(_hashed_line(video, covers=videos.hash_covers) for video in videos.videos):
        total.update(line.encode("utf-8", "surrogatepass"))
    return total.hexdigest()[:16]


def _hashed_line(video: Video, *, covers: str) -> str:
    content = video.sha256 if covers == "content" else str(_size(video.path))
    labels = ",".join(str(label) for label in sorted(video.labels))
    counted = "".join(f"\0{each}" for each in (video.segment, video.fps) if each is not None)
    return f"\0{video.id}\0{labels}\0{video.start_s}\0{video.end_s}\0{content}{counted}\n"


def _size(path: Path) -> int:
    """Return the bytes of a file, or the number of files of a frame folder."""
    return sum(1 for _ in path.iterdir()) if path.is_dir() else source_of(path).size


def _size_of_flow(flow: Path | None) -> str:
    """Return count and first size of the pictures: two flow methods give equal counts but seldom equal sizes."""
    if flow is None:
        return "none"
    if not flow.is_dir():
        return str(_size(flow))
    pictures = [entry for entry in os.scandir(flow) if entry.name.startswith("flow_")]
    first = min(pictures, key=lambda entry: entry.name, default=None)
    return f"{len(pictures)} {first.stat().st_size if first else 0}"
