"""ActivityNet: untrimmed videos and the segments in which 200 activities happen. Caba Heilbron et al., CVPR 2015.

In training every annotated segment is a clip. Evaluation scores whole videos, as the untrimmed classification task
does: views are spread over the video, and its labels are those of all its segments.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from bench.core.errors import InputError, UnknownNameError
from bench.core.registry import register_dataset
from bench.data.annotations import JsonFile, Labels, require_file, safe_id
from bench.data.collection import AnnotatedVideo, VideoSet, assemble, require_root
from bench.data.media import Media, media_folders

DESCRIBED_AT = "http://activity-net.org/"
TREE = """\
  activity_net.v1-3.min.json     the official annotation
  videos/v_<id>.mp4     (or frame folders, or shards *.tar)"""
SUBSETS = {"train": "training", "val": "validation", "test": "testing"}
UNITS = ("segments", "videos")
_LONGEST_S = 1e6  # eleven days


@register_dataset("activitynet", described_at=DESCRIBED_AT, num_classes=200, splits=("train", "val", "test"))
def open_activitynet(
    root: Path | None,
    *,
    split: str,
    unit: Literal["segments", "videos"] | None = None,
    annotations: str | None = None,
    videos: str | None = None,
    fps: float | None = None,
) -> VideoSet:
    """Open ActivityNet by `unit`: segments (the default in training) or whole videos (the default elsewhere).

    Segments of frame folders need a frame rate: the `fps` of a video's entry, which 3D-ResNets adds to the annotation,
    or the option `fps` for entries without one.
    """
    root = require_root(root, name="activitynet", tree=TREE, described_at=DESCRIBED_AT)
    if fps is not None and not (_is_time(fps) and fps > 0):
        raise InputError(f"data set activitynet: fps is {fps!r}, not frames per second")
    unit = unit or ("segments" if split == "train" else "videos")
    if unit not in UNITS:
        raise UnknownNameError("unit", unit, UNITS, where="data set activitynet")
    usual = ["activity_net.v1-3.min.json", "activity_net.v1-2.min.json", "activitynet.json"]
    file = JsonFile(require_file(root, [annotations] if annotations else usual, what="the annotation"))
    database = file.mapping(
        file.mapping(file.value, what="the file", key="").get("database"), what="database", key="database"
    )
    labels = Labels(sorted({label for _, _, segments in _videos(file, database, None) for _, _, label in segments}))
    entries = [
        replace(entry, fps=own_fps or fps)
        for id_, own_fps, segments in _videos(file, database, SUBSETS[split])
        for entry in (_whole(id_, segments, labels) if unit == "videos" else _clips(id_, segments, labels))
    ]
    folders = media_folders(root, videos, [f"videos/{split}", split, "videos", "frames", "jpg"])
    return assemble(
        "activitynet",
        split,
        entries,
        classes=labels.names,
        media=Media(folders),
        root=root,
        is_multi_label=unit == "videos",
    )


Segment = tuple[float, float, str]


def _videos(
    file: JsonFile, database: Mapping[str, Any], subset: str | None
) -> Iterator[tuple[str, float | None, list[Segment]]]:
    """Yield ids, annotated rates or None, and segments of one subset, or of all."""
    for id_, value in database.items():
        entry = file.mapping(value, what=f"entry {id_!r}", key=id_)
        if entry.get("subset") not in SUBSETS.values():
            allowed = ", ".join(SUBSETS.values())
            raise file.at(id_).fail(f"subset of {id_!r} is {entry.get('subset')!r}; allowed: {allowed}")
        if subset in (None, entry["subset"]):
            segments = entry.get("annotations", [])
            if not isinstance(segments, list):
                raise file.at(id_).fail(f"annotations of {id_!r} are not a list")
            fps = entry.get("fps")
            if fps is not None and not (_is_time(fps) and fps > 0):
                raise file.at(id_).fail(f"fps of {id_!r} is {repr(fps)[:60]}, not frames per second")
            yield safe_id(id_, at=file.at(id_)), fps, [_segment(file, id_, segment) for segment in segments]


def _segment(file: JsonFile, id_: str, value: Any) -> Segment:
    segment = file.mapping(value, what=f"a segment of {id_!r}", key=id_)
    times, label = segment.get("segment"), segment.get("label")
    if not (isinstance(times, list) and len(times) == 2 and all(_is_time(time) for time in times)):
        raise file.at(id_).fail(f"a segment of {id_!r} is {repr(times)[:60]}, not [start, end] in seconds")
    if not isinstance(label, str):
        raise file.at(id_).fail(f"a label of {id_!r} is {label!r}, not text")
    return float(times[0]), float(times[1]), label


def _is_time(value: Any) -> bool:
    """Return True for a number of seconds that a video can have."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < _LONGEST_S


def _whole(id_: str, segments: list[Segment], labels: Labels) -> list[AnnotatedVideo]:
    return [AnnotatedVideo(id=id_, labels=tuple(sorted({labels[label] for *_, label in segments})), names=_names(id_))]


def _clips(id_: str, segments: list[Segment], labels: Labels) -> list[AnnotatedVideo]:
    """Return an entry per segment. One that ends before it begins gets no file name, so it counts as missing."""
    return [
        AnnotatedVideo(
            id=f"{id_}#{number}",
            labels=(labels[label],),
            names=_names(id_) if end > max(0.0, start) else (),
            start_s=max(0.0, start),
            end_s=end,
        )
        for number, (start, end, label) in enumerate(segments)
    ]


def _names(id_: str) -> tuple[str, ...]:
    return f"v_{id_}", id_
