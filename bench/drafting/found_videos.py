"""Finds out how a folder, a list or a data set of videos is opened, and what its videos are like."""

import csv
import hashlib
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

from bench.core.errors import BenchError, DatasetError, InputError, nearest, suggest
from bench.core.registry import DATASETS
from bench.data.collection import AnnotationWarning, VideoSet, open_dataset
from bench.data.frame_folder import list_frames
from bench.data.list_file import ListRow, read_video_list
from bench.data.media import FILE_SUFFIXES, Media
from bench.data.pyav_reader import claimed_length, opened
from bench.data.split_names import EVALUATED, TRAINED

LIST_SUFFIXES = (".csv", ".tsv", ".txt")
SPLIT_WORDS = {
    "train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "dev": "val",
    "test": "test", "testing": "test",
}  # fmt: skip
HELD_OUT = 5  # one video of so many of each class is evaluated if the data has no splits
WRITTEN = ("motions", "stills")  # data sets that vbench writes itself
SAMPLED = 9  # videos whose headers are read
Row = tuple[str, str, str]  # path, label, split


@dataclass(frozen=True, kw_only=True)
class FoundVideos:
    """How a data set is opened, its classes and numbers of videos by split, and facts of some of its videos.

    `split` is the evaluated split as a suite names it, None for the usual one. `new_list` is a list with splits that
    must be written first, for videos that come without any. `frames` is the length of the shortest sampled video.
    """

    dataset: str
    root: Path | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    split: int | str | None = None
    classes: tuple[str, ...]
    counts: Mapping[str, int]
    frames: int | None = None
    fps: float | None = None
    size: str = ""
    new_list: tuple[Row, ...] = ()
    remarks: tuple[str, ...] = ()


def find_videos(text: str, *, list_file: Path, options: Mapping[str, Any] | None = None) -> FoundVideos:
    """Return what `text` names: a folder of videos, a list of paths and labels, or a data set of vbench.

    `list_file` is the place of a list that is written if the videos have no splits. Raises InputError or DatasetError
    if there is no such data, if it cannot be opened, and if a class or the training split has no video.
    """
    path, options = Path(text).expanduser(), dict(options or {})
    if path.is_dir():
        found = _in_folder(path.absolute(), list_file, options)
    elif path.is_file():
        found = _in_list(path.absolute(), list_file, options)
    elif text in DATASETS:
        found = _opened(text, None, options)
    else:
        here = [each.name for each in path.parent.iterdir()] if path.parent.is_dir() else []
        raise InputError(
            f"{text} is neither a folder, a list of videos nor a data set of vbench; "
            f"{nearest(path.name, {*DATASETS.names(), *here}) or suggest(text, DATASETS.names())}"
        )
    return found


def looks_like_videos(folder: Path) -> bool:
    """Whether a folder has a training list or a folder `train`."""
    return (folder / "train").is_dir() or any((folder / f"train{each}").is_file() for each in (".csv", ".txt"))


def _in_folder(folder: Path, list_file: Path, options: dict[str, Any]) -> FoundVideos:
    """Open a folder as the first data set whose layout it has, else as class folders without splits."""
    reasons = {}
    for name in _data_sets_of_folders():
        try:
            found, expected = _opened(name, folder, options), DATASETS.get(name).num_classes
            if expected in (None, len(found.classes)):
                return found
        except BenchError as error:  # an option that only other data sets have is an InputError
            reasons[name] = str(error)
    names = Media([folder]).names()
    if not names:
        raise DatasetError(f"{folder}: there is no video in it, nor in its folders; endings: {_endings()}")
    if looks_like_videos(folder):
        is_listed = any((folder / f"train{each}").is_file() for each in (".csv", ".txt", "_list.txt"))
        raise DatasetError(reasons["csv" if is_listed else "folder"])
    flat = next((name for name in names if "/" not in name), None)
    if flat is not None:
        raise DatasetError(
            f"{folder / flat}: is a video outside any class folder; put the videos into one folder per class, or write "
            "a CSV list with the columns path and label (docs/data-lists.md) and name that"
        )
    rows = list(_rows_of_folders(folder, names))
    return _with_new_list(folder, rows, list_file, options)


def _data_sets_of_folders() -> list[str]:
    """Data sets that are read from files, those with official annotations and the most classes first."""
    known = [entry for entry in DATASETS if entry.name not in (*WRITTEN, "csv", "folder", "kinetics")]
    ranked = sorted(known, key=lambda entry: (-(entry.num_classes or 0), entry.name))
    return [*(entry.name for entry in ranked), "kinetics", "csv", "folder"]


def _rows_of_folders(folder: Path, names: Iterable[str]) -> Iterator[Row]:
    """Yield path, class and split of videos in class folders, or in class folders inside folders of splits."""
    media = Media([folder])
    tops = {name.partition("/")[0] for name in names}
    has_splits = all(top.lower() in SPLIT_WORDS for top in tops) and len(tops) > 1
    for name in names:
        path = media.find([name])
        assert path is not None, "the name was just found"
        parts = name.split("/")
        yield (
            str(path.relative_to(folder)),
            parts[1] if has_splits and len(parts) > 2 else parts[0],
            SPLIT_WORDS[parts[0].lower()] if has_splits else "",
        )


def _in_list(file: Path, list_file: Path, options: dict[str, Any]) -> FoundVideos:
    """Open a list as data set `csv`; one without splits is divided."""
    if file.suffix.lower() not in LIST_SUFFIXES:
        what = "a video, not a data set" if file.suffix.lower() in FILE_SUFFIXES else "not a list of videos"
        raise InputError(
            f"{file} is {what}; allowed: a folder of videos, or a list ending in {', '.join(LIST_SUFFIXES)}"
        )
    root = file.parent
    others = [file.name.replace("train", other) for other in ("val", "test")]
    if "train" in file.name and any((root / other).is_file() for other in others):
        return _opened("csv", root, {**options, "annotations": file.name.replace("train", "{split}")})
    rows, options = _rows_of_list(file, dict(options))
    if any(row.split for row in rows):
        return _opened("csv", root, {**options, "annotations": file.name})
    folders = [root / options.pop("videos")] if "videos" in options else [root, root / "videos"]
    absent = {folder: [row.path for row in rows if not (folder / row.path).exists()] for folder in folders}
    videos = min(folders, key=lambda folder: len(absent[folder]))  # on a tie, as for absolute paths, the first
    if 2 * len(absent[videos]) > len(rows):
        raise DatasetError(
            f"{file}: {len(absent[videos])} of {len(rows)} files are missing, the first is {absent[videos][0]!r} in "
            f"{videos}; name the folder of the videos with --option videos=FOLDER"
        )
    listed = [(row.path, "|".join(row.labels), "") for row in rows]
    return _with_new_list(videos, listed, list_file, options, root=root)


def _rows_of_list(file: Path, options: dict[str, Any]) -> tuple[Sequence[ListRow], dict[str, Any]]:
    """Return the rows of a list, and the options with `multi_label` if its rows have several labels."""

    def exists(path: str) -> bool:
        folders = (file.parent, file.parent / options.get("videos", "videos"))
        return any((folder / path).exists() for folder in folders)

    try:
        return read_video_list(file, exists=exists, is_multi_label=bool(options.get("multi_label"))).rows, options
    except DatasetError as error:
        if "multi_label" not in str(error) or "multi_label" in options:
            raise
        return _rows_of_list(file, {**options, "multi_label": True})


def _with_new_list(
    videos: Path, rows: Sequence[Row], list_file: Path, options: dict[str, Any], *, root: Path | None = None
) -> FoundVideos:
    """Return videos with a list of splits that is still to be written; opens them through a temporary one."""
    rows, remarks = (rows, []) if all(split for *_, split in rows) else _divided(rows)
    if not any(split != "train" for *_, split in rows):
        raise DatasetError(f"{videos}: no class has two videos, so that none can be kept for the evaluation")
    with TemporaryDirectory() as folder:
        trial = write_list(Path(folder) / "list.csv", rows)
        found = _opened("csv", root or videos, {**options, "annotations": str(trial), "videos": str(videos)})
    options = {**found.options, "annotations": str(list_file.absolute())}
    return replace(found, options=options, new_list=tuple(rows), remarks=(*remarks, *found.remarks))


def write_list(file: Path, rows: Iterable[Row]) -> Path:
    """Write a list of paths, labels and splits; returns the file."""
    with file.open("w", newline="", encoding="utf-8") as out:
        csv.writer(out, lineterminator="\n").writerows([("path", "label", "split"), *rows])
    return file


def _divided(rows: Sequence[Row]) -> tuple[list[Row], list[str]]:
    """Return rows with every fifth video of each class in `val`, by the hash of its path, and what to know about it."""
    by_label = defaultdict[str, list[str]](list)
    for path, label, _ in rows:
        by_label[label].append(path)
    held_out = set[str]()
    for paths in by_label.values():
        in_order = sorted(paths, key=lambda path: hashlib.sha256(path.encode("utf-8", "surrogateescape")).digest())
        held_out.update(in_order[: max(1, len(paths) // HELD_OUT) if len(paths) > 1 else 0])
    remark = (
        f"the data has no splits: one of {HELD_OUT} videos of each class is evaluated, drawn by the hash of its path; "
        "move rows if several videos were cut from one recording, which must not lie in both splits"
    )
    return [(path, label, "val" if path in held_out else "train") for path, label, _ in rows], [remark]


@dataclass(frozen=True, kw_only=True)
class _Opening:
    found: VideoSet
    options: dict[str, Any]
    remarks: tuple[str, ...]


def _open(name: str, root: Path | None, options: dict[str, Any], *, split: str) -> _Opening:
    """Open one split, with the option that an error or a warning about the labels asks for."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", AnnotationWarning)
        try:
            found = open_dataset(name, root=root, split=split, **options)
        except DatasetError as error:
            if "multi_label" not in str(error) or "multi_label" in options:
                raise
            return _open(name, root, {**options, "multi_label": True}, split=split)
    asks_for_one = any("first_label" in str(each.message) for each in caught)
    if asks_for_one and "first_label" not in options:
        opening = _open(name, root, {**options, "first_label": 1}, split=split)
        return replace(opening, remarks=("no video has label 0, so that labels are read as counted from 1",))
    return _Opening(found=found, options=options, remarks=())


def _opened(name: str, root: Path | None, options: dict[str, Any]) -> FoundVideos:
    """Open the training split and the evaluated one. Raises DatasetError if one of them has no video."""
    splits = DATASETS.get(name).splits
    train = next(each.format(1) for each in TRAINED if each.format(1) in splits)
    opening = _open(name, root, options, split=train)
    evaluated, split = _evaluated(name, root, opening.options, splits)
    for opened_split in (opening.found, evaluated):
        if not opened_split.videos:
            raise DatasetError(f"data set {name}: none of the videos of split {opened_split.split} is in {root}")
    facts, unread = _facts(opening.found)
    return FoundVideos(
        dataset=name,
        root=root if root is not None else None if name in WRITTEN else opening.found.root,
        options=opening.options,
        split=split,
        classes=opening.found.classes,
        counts={opening.found.split: len(opening.found), evaluated.split: len(evaluated)},
        remarks=(*opening.remarks, *_remarks(opening.found, evaluated), *unread),
        **facts,
    )


def _evaluated(
    name: str, root: Path | None, options: dict[str, Any], splits: Sequence[str]
) -> tuple[VideoSet, int | str | None]:
    """Return the first split that can be evaluated, and what a suite calls it: None for the usual one."""
    names = list(dict.fromkeys(each.format(1) for each in EVALUATED if each.format(1) in splits))
    problem: DatasetError | None = None
    for split in names:
        try:
            found = _open(name, root, options, split=split).found
        except DatasetError as error:
            problem = problem or error  # that of the usual split
            continue
        usual = 1 if split.endswith("1") else None
        return found, usual if split == names[0] else split
    raise problem or DatasetError(f"data set {name} has no split to evaluate")


def _remarks(train: VideoSet, evaluated: VideoSet) -> Iterator[str]:
    for each in (train, evaluated):
        if each.missing:
            yield f"{len(each.missing)} of {each.annotated} videos of split {each.split} are missing"
    videos = Counter(label for video in train.videos for label in video.labels)
    if absent := [name for position, name in enumerate(train.classes) if not videos[position]]:
        yield f"{len(absent)} classes have no training video, the first: {absent[0]}"
    elif min(videos.values()) < 10:
        rarest = min(videos, key=lambda label: videos[label])
        yield f"class {train.classes[rarest]!r} has only {videos[rarest]} training videos"


def _facts(videos: VideoSet) -> tuple[dict[str, Any], list[str]]:
    """Return length, frame rate and size of some videos, from their headers, and a remark on those without one."""
    lengths, rates, sizes, unread = list[int](), list[float](), Counter[str](), list[str]()
    step = max(1, len(videos) // SAMPLED)
    for video in videos.videos[::step][:SAMPLED]:
        try:
            if video.path.is_dir():
                lengths.append(list_frames(video.path).frames)
                continue
            frames, fps = claimed_length(video.path)
            with opened(video.path) as (_, stream):
                sizes[f"{stream.codec_context.width}x{stream.codec_context.height}"] += 1
        except BenchError as error:
            unread.append(str(error))
            continue
        rates += [fps] if fps else []
        lengths += [] if video.is_part else [frames]
    facts: dict[str, Any] = {"frames": min(lengths, default=None), "fps": median(rates) if rates else None}
    facts["size"] = sizes.most_common(1)[0][0] if sizes else ""
    return facts, [f"{len(unread)} of the sampled videos cannot be read, the first: {unread[0]}"] if unread else []


def _endings() -> str:
    return ", ".join(sorted(FILE_SUFFIXES)[:8]) + ", …"
