"""Write annotations as the JSON of 3D-ResNets, and such a JSON as "path label" lists."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.core.errors import InputError, VideoError
from bench.core.files import atomic_file, require_writable_folder
from bench.data.annotations import Labels
from bench.data.collection import Video, VideoSet
from bench.data.parallel import Failed, OnProgress, for_each_task, no_progress
from bench.data.resnets_json import SUBSETS, ResnetsJson


@dataclass(frozen=True, kw_only=True)
class WrittenJson:
    """How many videos a JSON names, and which have no `segment` because their frames cannot be counted."""

    videos: int
    without_segment: tuple[Failed, ...]


@dataclass(frozen=True, kw_only=True)
class ListCounts:
    """How many videos a list names, and how many it leaves out because they have no label."""

    videos: int
    unlabelled: int


def subset_of(split: str) -> str:
    """Return the 3D-ResNets subset of a split: `train1` is `train`, and `test1` is `val`."""
    name = split.rstrip("0123456789")
    return "val" if name == "test" and name != split else name


def write_resnets_json(
    splits: Mapping[str, VideoSet], path: str | Path, *, workers: int = 0, on_progress: OnProgress = no_progress
) -> WrittenJson:
    """Write splits by `train`, `val` and `test` as one JSON file of 3D-ResNets.

    Missing videos are named too. `segment` is [1, frames + 1]; the frames of a video come from the annotation, the
    index or its frame folder, and else from decoding it. Raises InputError for what such a file cannot express:
    several labels per video, parts of videos, two videos of one name.
    """
    unknown = set(splits) - set(SUBSETS)
    if unknown or not splits:
        raise InputError(f"splits {sorted(splits)}; allowed: {', '.join(SUBSETS)}")
    classes = next(iter(splits.values())).classes
    if any(videos.classes != classes for videos in splits.values()):
        raise InputError("the splits do not have the same classes, so they cannot share one annotation")
    names = _unique_names(splits)
    require_writable_folder(Path(path).parent)
    if Path(path).is_dir():
        raise InputError(f"{path}: is a folder; name the JSON file to write")
    frames, failed = _count_frames(splits.values(), workers=workers, on_progress=on_progress)
    database: dict[str, Any] = {}
    for part, videos in splits.items():
        labels = {video.id: video.labels for video in videos.videos} | dict(videos.missing)
        for id_, positions in labels.items():
            annotations: dict[str, Any] = {"label": classes[positions[0]]} if positions else {}
            if frames.get(id_):
                annotations["segment"] = [1, frames[id_] + 1]
            database[names[part, id_]] = {"subset": SUBSETS[part], "annotations": annotations}
        failed += [Failed(what=id_, reason="is missing") for id_ in videos.missing]
    with atomic_file(Path(path)) as unfinished:
        unfinished.write_text(json.dumps({"labels": list(classes), "database": database}, ensure_ascii=False), "utf-8")
    return WrittenJson(videos=len(database), without_segment=tuple(failed))


def write_lists(annotation: str | Path, folder: str | Path) -> dict[str, ListCounts]:
    """Write a JSON file of 3D-ResNets as `train.csv`, `val.csv`, `test.csv` and `classes.txt`; returns counts by split.

    Lines are `<class>/<id> <frames> <label>`, as MMAction2 lists frame folders, or `<class>/<id> <label>` if frames are
    unknown. A split without labelled videos has no file.
    """
    file = ResnetsJson(Path(annotation))
    require_writable_folder(Path(folder))
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
        counts[part] = ListCounts(videos=len(lines), unlabelled=unlabelled)
        if lines:
            _write(Path(folder) / f"{part}.csv", lines)
    _write(Path(folder) / "classes.txt", labels.names)
    return counts


def _unique_names(splits: Mapping[str, VideoSet]) -> dict[tuple[str, str], str]:
    """Return the name of each video in the JSON, by split and id; InputError if an entry cannot express it."""
    names: dict[tuple[str, str], str] = {}
    owners: dict[str, str] = {}
    for part, videos in splits.items():
        if videos.is_multi_label:
            raise InputError(f"data set {videos.name} has several labels per video, and the JSON of 3D-ResNets has one")
        cut = next((video for video in videos.videos if video.is_part), None)
        if cut is not None:
            raise InputError(f"{cut.id} is a part of {cut.path.name}, and the JSON of 3D-ResNets has whole videos only")
        for id_ in [*(video.id for video in videos.videos), *videos.missing]:
            name = id_.rpartition("/")[2]
            if name in owners:
                raise InputError(f"{owners[name]} and {part} {id_} have one name, and the JSON has one entry per name")
            owners[name] = f"{part} {id_}"
            names[part, id_] = name
    return names


def _count_frames(
    sets: Iterable[VideoSet], *, workers: int, on_progress: OnProgress
) -> tuple[dict[str, int], list[Failed]]:
    """Return the frames of present videos by id, and the videos whose frames cannot be counted."""
    videos = [video for each in sets for video in each.videos]
    frames = {video.id: video.frames for video in videos if video.frames}
    unknown = [video for video in videos if not video.frames]
    failed = []
    for outcome in for_each_task(unknown, _frames_of, total=len(unknown), workers=workers, on_progress=on_progress):
        if outcome.result is None:
            failed.append(Failed(what=outcome.task.id, reason=str(outcome.error)))
        else:
            frames[outcome.task.id] = outcome.result
    return frames, failed


def _frames_of(video: Video) -> int:
    """Count the frames of a folder, or decode the file: what its header claims may be wrong by some frames."""
    from bench.data.frame_folder import list_frames  # numpy and PyAV; writing lists needs neither
    from bench.data.probing import probe

    if video.path.is_dir():
        return list_frames(video.path).frames
    facts = probe(video.path)
    if not facts.is_ok:
        raise VideoError(facts.problem)
    return facts.frames


def _write(path: Path, lines: Iterable[str]) -> None:
    with atomic_file(path) as unfinished:
        unfinished.write_text("".join(f"{line}\n" for line in lines), "utf-8")
