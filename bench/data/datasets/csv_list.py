"""Lists of "path label", as SlowFast and MMAction2 read them: separated by a space, a tab or a comma, without a header.

MMAction2's lists of frame folders have "path frames label". Labels are numbers, or names: those of `classes.txt`, one a
line, else those that the training list names, in alphabetical order. Paths are relative to the folder of the videos; an
absolute one must lead into it.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from bench.core.errors import DatasetError
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
from bench.data.collection import Video, VideoSet, require_root, video_set
from bench.data.index import read_facts
from bench.data.media import media_folders, stem_of
from bench.data.shards import is_there

DESCRIBED_AT = "bench/data/datasets/csv_list.py"
TREE = """\
  train.csv, val.csv, test.csv     lines of "path label" (or train.txt, train_list.txt)
  classes.txt     names of the classes, one a line (optional)
  videos/…     what the paths lead to (or beside the lists)"""
_FIELDS = re.compile(r"(?P<path>.*?\S)[\s,]+(?P<label>[^\s,]+)")
_HIGHEST_LABEL = 1_000_000
_MOST_DIGITS = 20


@register_dataset("csv", described_at=DESCRIBED_AT, splits=("train", "val", "test"))
def open_csv(
    root: Path | None,
    *,
    split: str,
    annotations: str | None = None,
    videos: str | None = None,
    multi_label: bool = False,
) -> VideoSet:
    """Lists of "path label"; `annotations` names the list and `videos` the folder that its paths begin in.

    `{split}` in `annotations` stands for train, val or test.
    """
    root = require_root(root, name="csv", tree=TREE, described_at=DESCRIBED_AT)
    named = {part: _lists(part, annotations) for part in (split, "train")}
    table = require_file(root, named[split], what=f"the list of split {split}")
    (folder,) = media_folders(root, videos, ["videos"])[:1]
    clips = _clips(table, folder=folder, is_multi_label=multi_label)
    has_splits = annotations is None or "{split}" in annotations
    trained = first_file(root, named["train"]) if has_splits else None
    spoken = clips if trained in (None, table) else _clips(trained, folder=folder, is_multi_label=multi_label)
    classes = _classes(root, spoken, table=table, is_trained=trained is not None)
    labelled = [(clip, classes.positions(clip)) for clip in clips]
    return _found(split, labelled, classes.labels, folder, root, is_multi_label=multi_label)


@dataclass(frozen=True, kw_only=True)
class _Clip:
    """One line, taken apart."""

    line: ListLine
    path: str
    labels: tuple[str, ...]
    frames: int | None


@dataclass(frozen=True, kw_only=True)
class _Classes:
    """The classes, and whether a label may be the number of one."""

    labels: Labels
    are_numbered: bool

    def positions(self, clip: _Clip) -> tuple[int, ...]:
        return tuple(sorted({self._position(label, at=clip.line) for label in clip.labels}))

    def _position(self, label: str, *, at: FileLocation) -> int:
        if self.are_numbered and label.lstrip("-").isdecimal():
            return self.labels.numbered(label, at=at)
        return self.labels.position(label, at=at)


def _lists(split: str, annotations: str | None) -> list[str]:
    if annotations is not None:
        return [name_for_split(annotations, split)]
    return [f"{folder}{split}{ending}" for folder in ("", "annotations/") for ending in (".csv", ".txt", "_list.txt")]


def _clips(table: Path, *, folder: Path, is_multi_label: bool) -> list[_Clip]:
    once = UniqueNames("path")
    return [
        _parsed(line, once, folder=folder, is_multi_label=is_multi_label) for line in read_lines(table, separator=None)
    ]


def _parsed(line: ListLine, once: UniqueNames, *, folder: Path, is_multi_label: bool) -> _Clip:
    text = line.fields[0]
    found = _FIELDS.fullmatch(text)
    if found is None:
        raise line.fail(f"expected 'path label', found {text!r}")
    labels: tuple[str, ...] = (found["label"],)
    path, frames = found["path"], None
    if is_multi_label:
        path, *rest = re.split(r"[\s,]+", text)
        labels = tuple(rest)
    if stem_of(path) == path or is_multi_label:
        path, labels, frames = _frame_folder(path, labels, is_multi_label=is_multi_label)
    path = once.check(safe_path(path, within=folder, at=line), at=line)
    return _Clip(line=line, path=path, labels=labels, frames=frames)


def _frame_folder(
    path: str, labels: tuple[str, ...], *, is_multi_label: bool
) -> tuple[str, tuple[str, ...], int | None]:
    """A frame folder's path, labels and number of frames, where the line says it."""
    if is_multi_label:
        is_counted = stem_of(path) == path and len(labels) > 1 and labels[0].isdecimal()
        return (path, labels[1:], int(labels[0])) if is_counted else (path, labels, None)
    found = _FIELDS.fullmatch(path)
    return (
        (found["path"], labels, int(found["label"])) if found and found["label"].isdecimal() else (path, labels, None)
    )


def _classes(root: Path, clips: list[_Clip], *, table: Path, is_trained: bool) -> _Classes:
    """Names out of classes.txt, else what `clips` say: every number up to the highest, or the names in order.

    Names in order are the classes only where the clips are those of the training list: another may lack one of them.
    """
    file = first_file(root, ["classes.txt", "annotations/classes.txt"])
    if file is not None:
        return _Classes(labels=_named(file), are_numbered=True)
    spoken: dict[str, ListLine] = {}
    for clip in clips:
        for label in clip.labels:
            spoken.setdefault(label, clip.line)
    numbers = [label for label in spoken if label.isdecimal()]
    if len(numbers) == len(spoken):
        return _Classes(labels=_numbered(spoken), are_numbered=True)
    if numbers:
        number, name = numbers[0], next(label for label in spoken if not label.isdecimal())
        later = max((number, name), key=lambda label: spoken[label].number)
        raise spoken[later].fail(
            f"unknown label {later!r}: {number!r} is a number and {name!r} a name; allowed: one kind"
        )
    if not is_trained:
        raise DatasetError(
            f"{table}: its labels are names, and which number each has is not known; "
            f"write the classes in order, one a line, into {root / 'classes.txt'}"
        )
    return _Classes(labels=Labels(sorted(spoken)), are_numbered=False)


def _named(file: Path) -> Labels:
    """The names in classes.txt; one that is a number must be its own."""
    once, names = UniqueNames("class"), list[str]()
    for line in read_lines(file, separator=None):
        name = once.check(line.fields[0], at=line)
        if name.isdecimal() and name != str(len(names)):
            raise line.fail(f"class {name!r} would have the number {len(names)}; a label {name} could mean either")
        names.append(name)
    return Labels(names)


def _numbered(spoken: Mapping[str, ListLine]) -> Labels:
    long = next((label for label in spoken if len(label) > _MOST_DIGITS), None)
    highest = long or max(spoken, key=int, default="0")
    if long or int(highest) > _HIGHEST_LABEL:
        raise spoken[highest].fail(f"label {highest[:_MOST_DIGITS]} is beyond any list of classes")
    return Labels([str(number) for number in range(int(highest) + 1)])


def _found(
    split: str,
    clips: list[tuple[_Clip, tuple[int, ...]]],
    labels: Labels,
    folder: Path,
    root: Path,
    *,
    is_multi_label: bool,
) -> VideoSet:
    there = {clip.path: folder / clip.path for clip, _ in clips if is_there(folder / clip.path)}
    facts = read_facts(root, there.values())
    videos = [
        Video(
            id=clip.path,
            path=there[clip.path],
            labels=positions,
            frames=clip.frames,
            sha256=facts[there[clip.path]].sha256 if there[clip.path] in facts else "",
            facts=facts.get(there[clip.path]),
        )
        for clip, positions in clips
        if clip.path in there
    ]
    missing = {clip.path: positions for clip, positions in clips if clip.path not in there}
    return video_set(
        "csv", split, classes=labels.names, videos=videos, root=root, missing=missing, is_multi_label=is_multi_label
    )
