"""The JSON annotation of 3D-ResNets-PyTorch: class names in order, and a database of videos with subset and label.

`segment` is [first frame, end), counted from 1. A segment that begins after the first frame is a part of its video.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.data.annotations import JsonFile, Labels, safe_id
from bench.data.collection import AnnotatedVideo, VideoSet, assemble
from bench.data.media import Media

SUBSETS = {"train": "training", "val": "validation", "test": "testing"}


@dataclass(frozen=True, kw_only=True)
class ResnetsJsonEntry:
    """One entry of the database. `frames` is the length of a segment that begins at the first frame, else None.

    `segment` is one that begins later: its first frame, counted from 0, and the frame after its last.
    """

    id: str
    label: str | None
    frames: int | None = None
    segment: tuple[int, int] | None = None


def open_resnets_json(
    name: str, split: str, *, subset: str, path: Path, root: Path, folders: Iterable[Path]
) -> VideoSet:
    """Open split `split` of data set `name` from such a file; `subset` is `train`, `val` or `test`."""
    annotation = ResnetsJson(path)
    labels = Labels(annotation.classes())
    entries = [
        AnnotatedVideo(
            id=video.id,
            labels=() if video.label is None else (labels[video.label],),
            names=(f"{video.label or 'test'}/{video.id}", video.id),
            frames=video.frames,
            segment=video.segment,
        )
        for video in annotation.videos(subset, labels)
    ]
    return assemble(name, split, entries, classes=labels.names, media=Media(folders), root=root)


class ResnetsJson:
    """An open annotation file."""

    def __init__(self, path: Path) -> None:
        self._file = JsonFile(path)
        self._content = self._file.mapping(self._file.value, what="the file", key="")

    def classes(self) -> tuple[str, ...]:
        """Return the `labels` of the file in their order."""
        labels = self._content.get("labels")
        if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
            raise self._file.at("labels").fail("labels is not a list of class names")
        if len(set(labels)) != len(labels):
            twice = next(label for at, label in enumerate(labels) if label in labels[:at])
            raise self._file.at(twice).fail(f"class {twice!r} occurs twice in labels")
        return tuple(labels)

    def videos(self, split: str, labels: Labels) -> Iterator[ResnetsJsonEntry]:
        """Yield the videos of one split in the order of the file; DatasetError naming the entry that is wrong."""
        database = self._file.mapping(self._content.get("database"), what="database", key="database")
        for id_, value in database.items():
            entry = self._file.mapping(value, what=f"entry {id_!r}", key=id_)
            subset = entry.get("subset")
            if subset not in SUBSETS.values():
                allowed = ", ".join(SUBSETS.values())
                raise self._file.at(id_).fail(f"subset of {id_!r} is {subset!r}; allowed: {allowed}")
            if subset == SUBSETS[split]:
                yield self._video(id_, entry, labels)

    def _video(self, id_: str, entry: Mapping[str, Any], labels: Labels) -> ResnetsJsonEntry:
        at = self._file.at(safe_id(id_, at=self._file.at(id_)))
        annotations = self._file.mapping(entry.get("annotations"), what=f"annotations of {id_!r}", key=id_)
        label, segment = annotations.get("label"), annotations.get("segment")
        if label is not None:
            labels.position(label if isinstance(label, str) else repr(label), at=at)
        if segment is None:
            return ResnetsJsonEntry(id=id_, label=label)
        if not (isinstance(segment, list) and len(segment) == 2 and all(type(each) is int for each in segment)):
            raise at.fail(f"segment of {id_!r} is {segment!r}, not [first frame, end]")
        first, end = segment
        if first < 1 or end < first or (end == first > 1):
            raise at.fail(f"segment of {id_!r} is {segment!r}; frames count from 1, and the end comes after the last")
        if first > 1:
            return ResnetsJsonEntry(id=id_, label=label, segment=(first - 1, end - 1))
        return ResnetsJsonEntry(id=id_, label=label, frames=end - first or None)
