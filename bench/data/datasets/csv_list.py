"""Lists of "path label", as SlowFast and MMAction2 read them: separated by a space, a tab or a comma, without a header.

MMAction2's lists of frame folders have "path frames label". Labels are numbers, or names where `classes.txt` gives the
names, one a line. Paths are relative to the folder of the videos; an absolute one must lead into it.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from bench.data.annotations import Labels, Line, Once, first_of, read_lines, required, safe_path
from bench.data.collection import Video, VideoSet, require_root, video_set
from bench.data.index import read_facts
from bench.data.media import media_folders, stem_of
from bench.data.shards import is_there
from bench.registry import register_dataset

DESCRIBED_AT = "bench/data/datasets/csv_list.py"
TREE = """\
  train.csv, val.csv, test.csv     lines of "path label" (or train.txt, train_list.txt)
  classes.txt     names of the classes, one a line (optional)
  videos/…     what the paths lead to (or beside the lists)"""
_FIELDS = re.compile(r"(?P<path>.*?\S)[\s,]+(?P<label>[^\s,]+)")
_HIGHEST_LABEL = 1_000_000


@register_dataset("csv", described_at=DESCRIBED_AT, splits=("train", "val", "test"))
def open_csv(
    root: Path | None,
    *,
    split: str,
    annotations: str | None = None,
    videos: str | None = None,
    multi_label: bool = False,
) -> VideoSet:
    """Lists of "path label"; `annotations` names the list and `videos` the folder that its paths begin in."""
    root = require_root(root, name="csv", tree=TREE, described_at=DESCRIBED_AT)
    table = required(root, [annotations] if annotations else _lists(split), what=f"the list of split {split}")
    (folder,) = media_folders(root, videos, ["videos"])[:1]
    once = Once("path")
    clips = [
        _parsed(line, once, folder=folder, is_multi_label=multi_label) for line in read_lines(table, separator=None)
    ]
    trained = first_of(root, _lists("train")) if annotations is None else None
    spoken = (
        clips
        if trained in (None, table)
        else [
            _parsed(line, Once("path"), folder=folder, is_multi_label=multi_label)
            for line in read_lines(trained or table, separator=None)
        ]
    )
    labels = _classes(root, spoken)
    return _found(split, [_labelled(clip, labels) for clip in clips], labels, folder, root, is_multi_label=multi_label)


@dataclass(frozen=True, kw_only=True)
class _Clip:
    """One line, taken apart."""

    line: Line
    path: str
    labels: tuple[str, ...]
    frames: int | None


def _lists(split: str) -> list[str]:
    return [f"{folder}{split}{ending}" for folder in ("", "annotations/") for ending in (".csv", ".txt", "_list.txt")]


def _parsed(line: Line, once: Once, *, folder: Path, is_multi_label: bool) -> _Clip:
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


def _classes(root: Path, clips: list[_Clip]) -> Labels:
    """Names out of classes.txt, else the labels themselves: the names in order, or every number up to the highest."""
    file = first_of(root, ["classes.txt", "annotations/classes.txt"])
    if file is not None:
        return Labels([line.fields[0] for line in read_lines(file, separator=None)])
    spoken = {label: clip.line for clip in clips for label in clip.labels}
    if not all(label.isdecimal() for label in spoken):
        return Labels(sorted(spoken))
    highest = max(spoken, key=int, default="0")
    if int(highest) > _HIGHEST_LABEL:
        raise spoken[highest].fail(f"label {highest} is beyond any list of classes")
    return Labels([str(number) for number in range(int(highest) + 1)])


def _labelled(clip: _Clip, labels: Labels) -> tuple[_Clip, tuple[int, ...]]:
    positions = (
        labels.numbered(label, at=clip.line) if label.lstrip("-").isdecimal() else labels.position(label, at=clip.line)
        for label in clip.labels
    )
    return clip, tuple(sorted(set(positions)))


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
