"""Annotations into the JSON of 3D-ResNets, and back into "path label" lists."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench.data.annotations import Labels
from bench.data.atomic import whole_file
from bench.data.collection import Video, VideoSet
from bench.data.resnets_json import SUBSETS, ResnetsJson
from bench.errors import InputError


def write_resnets_json(splits: Mapping[str, VideoSet], path: str | Path) -> int:
    """Splits by `train`, `val` and `test` as one JSON file of 3D-ResNets; how many videos it names.

    Missing videos are named too. `segment` is [1, frames + 1] where the number of frames is known.
    """
    unknown = set(splits) - set(SUBSETS)
    if unknown or not splits:
        raise InputError(f"splits {sorted(splits)}; allowed: {', '.join(SUBSETS)}")
    classes = next(iter(splits.values())).classes
    if any(videos.classes != classes for videos in splits.values()):
        raise InputError("the splits do not have the same classes, so they cannot share one annotation")
    database: dict[str, Any] = {}
    for part, videos in splits.items():
        entries = {_name(video): (video.labels, video.frames) for video in videos.videos}
        entries |= {id_.rpartition("/")[2]: (labels, None) for id_, labels in videos.missing.items()}
        for name, (labels, frames) in entries.items():
            if name in database:
                raise InputError(f"{name} stands in two splits, or twice in one; the JSON has one entry a name")
            annotations: dict[str, Any] = {} if not labels else {"label": classes[labels[0]]}
            database[name] = {"subset": SUBSETS[part], "annotations": annotations}
            if frames:
                annotations["segment"] = [1, frames + 1]
    with whole_file(Path(path)) as unfinished:
        unfinished.write_text(json.dumps({"labels": list(classes), "database": database}, ensure_ascii=False), "utf-8")
    return len(database)


def write_lists(annotation: str | Path, folder: str | Path) -> dict[str, int]:
    """A JSON file of 3D-ResNets as `train.csv`, `val.csv`, `test.csv` and `classes.txt`; videos per split.

    Lines are `<class>/<id> <frames> <label>`, as MMAction2 lists frame folders, or `<class>/<id> <label>`.
    """
    file = ResnetsJson(Path(annotation))
    labels = Labels(file.classes())
    counts = {}
    for part in SUBSETS:
        lines = []
        for video in file.videos(part, labels):
            if video.label is not None:
                frames = [] if video.frames is None else [str(video.frames)]
                lines.append(" ".join([f"{video.label}/{video.id}", *frames, str(labels[video.label])]))
        counts[part] = len(lines)
        with whole_file(Path(folder) / f"{part}.csv") as unfinished:
            unfinished.write_text("".join(f"{line}\n" for line in lines), "utf-8")
    with whole_file(Path(folder) / "classes.txt") as unfinished:
        unfinished.write_text("".join(f"{name}\n" for name in labels.names), "utf-8")
    return counts


def _name(video: Video) -> str:
    return video.id.rpartition("/")[2]
