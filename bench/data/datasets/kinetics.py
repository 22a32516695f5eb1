"""Kinetics-400, -600 and -700: short clips of human actions. Kay et al., 2017, arXiv:1705.06950; Carreira et al., 2019.

Annotations are the official CSV files (label, youtube_id, time_start, time_end, split) or the JSON of 3D-ResNets.
Clips are named `<youtube_id>_<start>_<end>`, in class folders or flat; copies of the set may lack the times in the list
and in the names. In a CSV of several splits, only the rows of the split are read.
"""

from collections.abc import Mapping
from pathlib import Path

from bench.core.registry import register_dataset
from bench.data.annotations import (
    Labels,
    ListLine,
    UniqueNames,
    first_file,
    name_for_split,
    read_table,
    require_file,
    safe_id,
)
from bench.data.collection import AnnotatedVideo, VideoSet, assemble, require_root
from bench.data.media import Media, media_folders
from bench.data.resnets_json import open_resnets_json

DESCRIBED_AT = "https://github.com/cvdfoundation/kinetics-dataset"
SPLITS = ("train", "val", "test")
TREE = """\
  train.csv, val.csv       the official annotations, or kinetics.json as 3D-ResNets makes it
  train/<class>/<youtube_id>_<start>_<end>.mp4     (or frame folders, or shards *.tar)
  val/<class>/<youtube_id>_<start>_<end>.mp4"""
_CSV = {"train": ("train",), "val": ("val", "validate", "validation"), "test": ("test",)}
_WORDS = {"train": {"train", "training"}, "val": {*_CSV["val"], "valid"}, "test": {"test", "testing"}}


@register_dataset("kinetics400", described_at=DESCRIBED_AT, num_classes=400, splits=SPLITS)
def kinetics400(
    root: Path | None, *, split: str, annotations: str | None = None, videos: str | None = None
) -> VideoSet:
    """Open Kinetics-400; `annotations` names its CSV or JSON and `videos` the folder of the clips, if not as usual.

    `{split}` in `annotations` stands for train, val or test.
    """
    return _open("kinetics400", root, split=split, annotations=annotations, videos=videos)


@register_dataset("kinetics600", described_at=DESCRIBED_AT, num_classes=600, splits=SPLITS)
def kinetics600(
    root: Path | None, *, split: str, annotations: str | None = None, videos: str | None = None
) -> VideoSet:
    """Open Kinetics-600, as kinetics400."""
    return _open("kinetics600", root, split=split, annotations=annotations, videos=videos)


@register_dataset("kinetics700", described_at=DESCRIBED_AT, num_classes=700, splits=SPLITS)
def kinetics700(
    root: Path | None, *, split: str, annotations: str | None = None, videos: str | None = None
) -> VideoSet:
    """Open Kinetics-700, of 2019 or 2020, as kinetics400."""
    return _open("kinetics700", root, split=split, annotations=annotations, videos=videos)


@register_dataset("kinetics", described_at=DESCRIBED_AT, splits=SPLITS)
def any_kinetics(
    root: Path | None, *, split: str, annotations: str | None = None, videos: str | None = None
) -> VideoSet:
    """Open anything laid out as Kinetics, with the classes that its training annotation names."""
    return _open("kinetics", root, split=split, annotations=annotations, videos=videos)


def _open(name: str, root: Path | None, *, split: str, annotations: str | None, videos: str | None) -> VideoSet:
    root = require_root(root, name=name, tree=TREE, described_at=DESCRIBED_AT)
    usual = [folder for word in _CSV[split] for folder in (word, f"{word}_256", f"videos_{word}", f"rawframes_{word}")]
    usual += [*(f"videos/{word}" for word in _CSV[split]), "videos", "frames", "jpg"]
    folders = media_folders(root, videos, usual)
    given = None if annotations is None else name_for_split(annotations, split)
    json_file = _json_file(root, given)
    if json_file is not None:
        return open_resnets_json(name, split, subset=split, path=json_file, root=root, folders=folders)
    table = require_file(root, [given] if given else _tables(split), what=f"the annotation of split {split}")
    trained = [name_for_split(annotations, "train")] if annotations and given != annotations else []
    labels = _labels(first_file(root, [*trained, *_tables("train")]) or table)
    entries = _entries(table, labels, split=split)
    return assemble(name, split, entries, classes=labels.names, media=Media(folders), root=root)


def _json_file(root: Path, annotations: str | None) -> Path | None:
    if annotations is not None:
        return require_file(root, [annotations], what="the annotation") if annotations.endswith(".json") else None
    return first_file(root, ["kinetics.json", "kinetics-400.json", "kinetics-600.json", "kinetics-700.json"])


def _tables(split: str) -> list[str]:
    names = []
    for word in _CSV[split]:
        names += [f"{word}.csv", f"kinetics_{word}.csv"]
        names += [f"kinetics{of}_{word}.csv" for of in ("-400", "_400", "-600", "_600", "-700", "_700", "_700_2020")]
    return [*names, *(f"annotations/{name}" for name in names), *(f"annotations/{word}.txt" for word in _CSV[split])]


def _labels(table: Path) -> Labels:
    """Return the classes in alphabetical order."""
    return Labels(sorted({row["label"] for _, row in read_table(table, columns=["label"]) if row["label"]}))


def _entries(table: Path, labels: Labels, *, split: str) -> list[AnnotatedVideo]:
    unique = UniqueNames("clip")
    entries = []
    optional = ["label", "split", "time_start", "time_end"]
    for line, row in read_table(table, columns=["youtube_id"], optional=optional):
        if _split_of(row.get("split", ""), default=split) != split:
            continue
        video = safe_id(row["youtube_id"], at=line)
        id_ = unique.check(_clip_id(video, row, line), at=line)
        label = row.get("label", "")
        folders = (label, label.replace(" ", "_")) if label else ("test",)
        entries.append(
            AnnotatedVideo(
                id=id_,
                labels=(labels.position(label, at=line),) if label else (),
                names=(*(f"{folder}/{name}" for folder in folders for name in (id_, video)), id_, video),
            )
        )
    return entries


def _clip_id(video: str, row: Mapping[str, str], line: ListLine) -> str:
    """Return `<youtube_id>_<start>_<end>`, or the id alone if the row has no times."""
    times = {column: row.get(column, "") for column in ("time_start", "time_end")}
    if not any(times.values()):
        return video
    start, end = (_second(text, column, line) for column, text in times.items())
    return f"{video}_{start:06d}_{end:06d}"


def _split_of(word: str, *, default: str) -> str:
    """Return the split that the column names; other words, such as the name of a fold, leave the row in every split."""
    return next((split for split, words in _WORDS.items() if word.lower() in words), default)


def _second(text: str, column: str, line: ListLine) -> int:
    try:
        second = float(text)
        if not 0 <= second < 1e6:
            raise ValueError
    except ValueError:
        raise line.fail(f"{column} is {text!r}, not a time in seconds") from None
    return int(second)
