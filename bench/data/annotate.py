"""Annotations into the JSON of 3D-ResNets, and back into "path label" lists."""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.core.errors import InputError
from bench.core.files import atomic_file
from bench.data.annotations import Labels
from bench.data.collection import VideoSet
from bench.data.resnets_json import SUBSETS, ResnetsJson


def subset_of(split: str) -> str:
    """The subset of 3D-ResNets that a split becomes: `train1` is `train`, and `test1` is `val`."""
    name = split.rstrip("0123456789")
    return "val" if name == "test" and name != split else name


def write_resnets_json(splits: Mapping[str, VideoSet], path: str | Path) -> int:
    """Splits by `train`, `val` and `test` as one JSON file of 3D-ResNets; how many videos it names.

    Missing videos are named too. `segment` is [1, frames + 1] where the number of frames is known. InputError for what
    such a file cannot say: several labels a video, parts of videos, two videos of one name.
    """
    unknown = set(splits) - set(SUBSETS)
    if unknown or not splits:
        raise InputError(f"splits {sorted(splits)}; allowed: {', '.join(SUBSETS)}")
    classes = next(iter(splits.values())).classes
    if any(videos.classes != classes for videos in splits.values()):
        raise InputError("the splits do not have the same classes, so they cannot share one annotation")
    database: dict[str, Any] = {}
    ids: dict[str, str] = {}
    for part, videos in splits.items():
        for id_, labels, frames in _annotated(videos):
            name = id_.rpartition("/")[2]
            if name in ids:
                raise InputError(f"{ids[name]} and {part} {id_} have one name, and the JSON has one entry a name")
            ids[name] = f"{part} {id_}"
            annotations: dict[str, Any] = {} if not labels else {"label": classes[labels[0]]}
            if frames:
                annotations["segment"] = [1, frames + 1]
            database[name] = {"subset": SUBSETS[part], "annotations": annotations}
    with atomic_file(Path(path)) as unfinished:
        unfinished.write_text(json.dumps({"labels": list(classes), "database": database}, ensure_ascii=False), "utf-8")
    return len(database)


def _annotated(videos: VideoSet) -> Iterator[tuple[str, tuple[int, ...], int | None]]:
    """Ids, labels and numbers of frames of all videos, missing ones too; InputError where an entry cannot say them."""
    if videos.is_multi_label:
        raise InputError(f"data set {videos.name} has several labels a video, and the JSON of 3D-ResNets has one")
    for video in videos.videos:
        if video.is_part:
            raise InputError(
                f"{video.id} is a part of {video.path.name}, and the JSON of 3D-ResNets has whole videos only"
            )
        yield video.id, video.labels, video.frames
    for id_, labels in videos.missing.items():
        yield id_, labels, None


@dataclass(frozen=True, kw_only=True)
class Listed:
    """How many videos a list names, and how many it leaves out because they have no label."""

    videos: int
    unlabelled: int


def write_lists(annotation: str | Path, folder: str | Path) -> dict[str, Listed]:
    """A JSON file of 3D-ResNets as `train.csv`, `val.csv`, `test.csv` and `classes.txt`, by split.

    Lines are `<class>/<id> <frames> <label>`, as MMAction2 lists frame folders, or `<class>/<id> <label>`. A split of
    no such line has no file.
    """
    file = ResnetsJson(Path(annotation))
    labels = Labels(file.classes())
    counts = {}
    for part in SUBSETS:
        lines, unlabelled = [], 0
        for video in file.videos(part, labels):
            if video.label is None:
                unlabelled += 1
            else:
                frames = [] if video.frames is None else [str(video.frames)]
                lines.append(" ".join([f"{video.label}/{video.id}", *frames, str(labels[video.label])]))
        counts[part] = Listed(videos=len(lines), unlabelled=unlabelled)
        if lines:
            _write(Path(folder) / f"{part}.csv", lines)
    _write(Path(folder) / "classes.txt", labels.names)
    return counts


def _write(path: Path, lines: Iterable[str]) -> None:
    with atomic_file(path) as unfinished:
        unfinished.write_text("".join(f"{line}\n" for line in lines), "utf-8")
