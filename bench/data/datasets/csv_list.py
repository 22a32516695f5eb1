"""Lists of videos with labels, as users, PySlowFast and MMAction2 write them. docs/data-lists.md shows every format.

Labels are numbers, or names: those of `classes.txt`, one per line, else those of the training list in alphabetical
order. Paths are relative to the folder of the videos; a list may also consist of absolute paths alone.
"""

import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from bench.core.errors import DatasetError, InputError
from bench.core.registry import register_dataset
from bench.data.annotations import (
    FileLocation,
    Labels,
    ListLine,
    UniqueNames,
    first_file,
    name_for_split,
    read_lines,
    require_file,
    safe_path,
)
from bench.data.collection import AnnotationWarning, Video, VideoSet, require_root, video_set
from bench.data.index import read_facts
from bench.data.list_file import ListRow, VideoList, read_video_list, rows_of_split
from bench.data.media import media_folders
from bench.data.shards import is_there

DESCRIBED_AT = "docs/data-lists.md"
TREE = """\
  train.csv, val.csv, test.csv     a row per video: path,label (or train.txt, train_list.txt)
  classes.txt     names of the classes, one per line (optional)
  videos/…     what the paths lead to (or in the folder of the lists)"""
_HIGHEST_LABEL = 1_000_000
_MOST_DIGITS = 20
_SAMPLE = 200


@register_dataset("csv", described_at=DESCRIBED_AT, splits=("train", "val", "test"))
def open_csv(
    root: Path | None,
    *,
    split: str,
    annotations: str | None = None,
    videos: str | None = None,
    multi_label: bool = False,
    first_label: int = 0,
) -> VideoSet:
    """Read lists of paths and labels; `annotations` names the list and `videos` the folder that its paths begin in.

    `{split}` in `annotations` stands for train, val or test; one list may also hold all splits in a column `split`.
    `multi_label` allows several labels per video. `first_label` is the number of the first class, 0 or 1.
    """
    root = require_root(root, name="csv", tree=TREE, described_at=DESCRIBED_AT)
    if first_label not in (0, 1):
        raise InputError(f"data set csv: first_label is {first_label}; allowed: 0, 1")
    named = {part: _lists(part, annotations) for part in (split, "train")}
    table = require_file(root, named[split], what=f"the list of split {split}")
    own = _open_list(root, table, videos, split, is_multi_label=multi_label)
    names = first_file(root, ["classes.txt", "annotations/classes.txt"])
    if names is not None:
        classes = _named_classes(names, own.rows, first=first_label)
    else:
        train = _train_rows(root, own, annotations, videos, split, is_multi_label=multi_label)
        classes = _listed_classes(root, own, train, first=first_label)
    labelled = [(row, classes.positions(row)) for row in own.rows]
    notes = [f"{table.name}: {own.videos.format}, {classes.description}"]
    if split == "train":
        notes += _unused_classes(classes, [positions for _, positions in labelled], first=first_label)
    return _video_set(split, labelled, classes.labels, own, root, is_multi_label=multi_label, notes=notes)


@dataclass(frozen=True, kw_only=True)
class _OpenList:
    """A list, its rows of one split with safe paths, and the folder that they are relative to."""

    videos: VideoList
    rows: tuple[ListRow, ...]
    folder: Path


@dataclass(frozen=True, kw_only=True)
class _Classes:
    """The classes, and whether a label may be the number of one."""

    labels: Labels
    are_numbered: bool
    description: str

    def positions(self, row: ListRow) -> tuple[int, ...]:
        return tuple(sorted({self._position(label, at=row.line) for label in row.labels}))

    def _position(self, label: str, *, at: FileLocation) -> int:
        if self.are_numbered and label.lstrip("-").isdecimal():
            return self.labels.numbered(label, at=at)
        return self.labels.position(label, at=at)


def _lists(split: str, annotations: str | None) -> list[str]:
    if annotations is not None:
        return [name_for_split(annotations, split)]
    return [f"{folder}{split}{ending}" for folder in ("", "annotations/") for ending in (".csv", ".txt", "_list.txt")]


def _open_list(root: Path, table: Path, videos: str | None, split: str, *, is_multi_label: bool) -> _OpenList:
    usual = ["videos", "rawframes", "frames", "jpg", f"videos_{split}", f"rawframes_{split}", split]
    folders = [*media_folders(root, videos, usual), *([] if videos else [root])]
    found = read_video_list(table, exists=_exists_in(folders), is_multi_label=is_multi_label)
    rows = rows_of_split(found, split)
    are_absolute = all(PurePosixPath(row.path).is_absolute() for row in rows)
    folder = _best_folder(folders, rows)
    is_inside = are_absolute and all(Path(row.path).is_relative_to(folder.absolute()) for row in rows)
    if are_absolute and not is_inside:
        folder = Path("/")
    unique = UniqueNames("path")
    return _OpenList(videos=found, rows=tuple(_checked(row, unique, folder) for row in rows), folder=folder)


def _train_rows(
    root: Path, own: _OpenList, annotations: str | None, videos: str | None, split: str, *, is_multi_label: bool
) -> Sequence[ListRow] | None:
    """Return the rows of the training list, which decide about the classes; None if that list is not known."""
    if any(row.split is not None for row in own.videos.rows):
        return rows_of_split(own.videos, "train")
    if annotations is not None and "{split}" not in annotations:
        return None
    table = first_file(root, _lists("train", annotations))
    if table is None or table == own.videos.path:
        return None if table is None else own.rows
    return _open_list(root, table, videos, "train", is_multi_label=is_multi_label).rows


def _exists_in(folders: Sequence[Path]) -> Callable[[str], bool]:
    return lambda path: path != "" and any(is_there(folder / path) for folder in folders)


def _best_folder(folders: Sequence[Path], rows: Sequence[ListRow]) -> Path:
    """Return the folder in which most of the paths exist, the first one if none does."""
    sample = rows[:: max(1, len(rows) // _SAMPLE)]
    return max(folders, key=lambda folder: sum(is_there(folder / row.path) for row in sample))


def _checked(row: ListRow, unique: UniqueNames, folder: Path) -> ListRow:
    path = safe_path(row.path, within=folder, at=row.line)
    if folder == Path("/"):
        path = f"/{path}"
    checked = replace(row, path=path)
    unique.check(_id(checked), at=row.line)
    return checked


def _id(row: ListRow) -> str:
    """Return the path, with start and end in seconds if the row is a part of the video."""
    if row.start_s is None and row.end_s is None:
        return row.path
    return f"{row.path}#{row.start_s or 0:g}-{'' if row.end_s is None else f'{row.end_s:g}'}"


def _named_classes(file: Path, rows: Sequence[ListRow], *, first: int) -> _Classes:
    names = _class_names(file, first=first)
    _check_first_label(names, rows, first=first)
    return _Classes(labels=names, are_numbered=True, description=f"{len(names.names)} classes of {file.name}")


def _listed_classes(root: Path, own: _OpenList, train: Sequence[ListRow] | None, *, first: int) -> _Classes:
    """Return the labels of the training list as classes: numbers up to the highest, or names in alphabetical order.

    Numbers may also be those of another list; its names would lack some classes.
    """
    rows = own.rows if train is None else train
    lines: dict[str, ListLine] = {}
    for row in rows:
        for label in row.labels:
            lines.setdefault(label, row.line)
    numbers = [label for label in lines if label.isdecimal()]
    if len(numbers) == len(lines):
        numbered = _numbered(lines, first=first)
        return _Classes(
            labels=numbered, are_numbered=True, description=f"labels are numbers, {len(numbered.names)} classes"
        )
    if numbers:
        number, name = numbers[0], next(label for label in lines if not label.isdecimal())
        later = max((number, name), key=lambda label: lines[label].number)
        raise lines[later].fail(
            f"unknown label {later!r}: {number!r} is a number and {name!r} a name; allowed: one kind"
        )
    if train is None:
        raise DatasetError(
            f"{own.videos.path}: its labels are names, and their order is not known without a training list; "
            f"write the classes in order, one per line, into {root / 'classes.txt'}"
        )
    return _Classes(
        labels=Labels(sorted(lines)), are_numbered=False, description=f"labels are names, {len(lines)} classes"
    )


def _class_names(file: Path, *, first: int) -> Labels:
    """Read classes.txt; a name that is a number must be its own, or a label could mean either."""
    unique, names = UniqueNames("class"), list[str]()
    for line in read_lines(file, separator=None):
        name = unique.check(line.fields[0], at=line)
        if name.isdecimal() and name != str(len(names) + first):
            raise line.fail(f"class {name!r} would have the number {len(names) + first}; a label {name} is ambiguous")
        names.append(name)
    return Labels(names, first=first)


def _check_first_label(names: Labels, rows: Sequence[ListRow], *, first: int) -> None:
    """Raise DatasetError if numbers run from 1 to the number of classes, for each would mean the next class."""
    numbers = {int(label): row.line for row in rows for label in row.labels if re.fullmatch(r"\d{1,7}", label)}
    count = len(names.names)
    if first == 0 and count in numbers and 0 not in numbers and max(numbers) == count:
        raise numbers[count].fail(
            f"label {count} is not from 0 to {count - 1}; no video has label 0, so labels seem to count from 1: "
            "set the option first_label to 1"
        )


def _numbered(lines: Mapping[str, ListLine], *, first: int) -> Labels:
    long = next((label for label in lines if len(label) > _MOST_DIGITS), None)
    highest = long or max(lines, key=int, default="0")
    if long or int(highest) > _HIGHEST_LABEL:
        raise lines[highest].fail(f"label {highest[:_MOST_DIGITS]} is beyond any list of classes")
    return Labels([str(number) for number in range(first, int(highest) + 1)], first=first)


def _unused_classes(classes: _Classes, used: Sequence[tuple[int, ...]], *, first: int) -> list[str]:
    """Return a note on classes without a training video; a warning as well if labels seem to count from 1."""
    names, seen = classes.labels.names, {position for positions in used for position in positions}
    without = [position for position in range(len(names)) if position not in seen]
    if not without:
        return []
    if first == 0 and without[0] == 0 and classes.are_numbered:
        problem = (
            f"no video of the training list has label 0 (class {names[0]}); if labels count from 1, set the option "
            "first_label to 1, else the model has a class too many"
        )
        warnings.warn(problem, AnnotationWarning, stacklevel=3)
        return [problem]
    named = ", ".join(names[position] for position in without[:5])
    return [f"{len(without)} classes have no video in the training list, the first: {named}"]


def _video_set(
    split: str,
    labelled: Sequence[tuple[ListRow, tuple[int, ...]]],
    labels: Labels,
    own: _OpenList,
    root: Path,
    *,
    is_multi_label: bool,
    notes: Sequence[str],
) -> VideoSet:
    places = {row.path: own.folder / row.path for row, _ in labelled}
    present = {path for path, place in places.items() if is_there(place)}
    _refuse_mostly_missing([row for row, _ in labelled], present, own)
    facts = read_facts(root, {places[path] for path in present})
    videos, missing = [], {}
    for row, positions in labelled:
        if row.path not in present:
            missing[_id(row)] = positions
            continue
        known = facts.get(places[row.path])
        videos.append(
            Video(
                id=_id(row),
                path=places[row.path],
                labels=positions,
                start_s=row.start_s,
                end_s=row.end_s,
                frames=row.frames,
                sha256=known.sha256 if known else "",
                facts=known,
            )
        )
    found = video_set(
        "csv", split, classes=labels.names, videos=videos, root=root, missing=missing, is_multi_label=is_multi_label
    )
    return replace(found, notes=tuple(notes))


def _refuse_mostly_missing(rows: Sequence[ListRow], present: set[str], own: _OpenList) -> None:
    """Raise DatasetError if more than half of the files are missing: then the list or the folder is the wrong one."""
    absent = [row for row in rows if row.path not in present]
    if len(absent) * 2 > len(rows):
        raise absent[0].line.fail(
            f"{len(absent)} of {len(rows)} files are missing, the first is {absent[0].path[:100]!r} in {own.folder}; "
            f"the list was read as {own.videos.format}; the option videos names the folder of the files"
        )
