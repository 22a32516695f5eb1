"""Kinetics-400, -600 and -700: short clips of human actions. Kay et al., 2017, arXiv:1705.06950; Carreira et al., 2019.

Annotations are the official CSV files (label, youtube_id, time_start, time_end, split) or the JSON of 3D-ResNets.
Clips are named `<youtube_id>_<start>_<end>`, in class folders or flat. In a CSV of several splits, rows of others are
passed over.
"""

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
    """Kinetics-400; `annotations` names its CSV or JSON and `videos` the folder of the clips, where not as usual.

    `{split}` in `annotations` stands for train, val or test.
    """
    return _open("kinetics400", root, split=split, annotations=annotations, videos=videos)


@register_dataset("kinetics600", described_at=DESCRIBED_AT, num_classes=600, splits=SPLITS)
def kinetics600(
    root: Path | None, *, split: str, annotations: str | None = None, videos: str | None = None
) -> VideoSet:
    """Kinetics-600, as kinetics400."""
    return _open("kinetics600", root, split=split, annotations=annotations, videos=videos)


@register_dataset("kinetics700", described_at=DESCRIBED_AT, num_classes=700, splits=SPLITS)
def kinetics700(
    root: Path | None, *, split: str, annotations: str | None = None, videos: str | None = None
) -> VideoSet:
    """Kinetics-700, of 2019 or 2020, as kinetics400."""
    return _open("kinetics700", root, split=split, annotations=annotations, videos=videos)


@register_dataset("kinetics", described_at=DESCRIBED_AT, splits=SPLITS)
def any_kinetics(
    root: Path | None, *, split: str, annotations: str | None = None, videos: str | None = None
) -> VideoSet:
    """Anything laid out as Kinetics, with the classes that its training annotation names."""
    return _open("kinetics", root, split=split, annotations=annotations, videos=videos)


def _open(name: str, root: Path | None, *, split: str, annotations: str | None, videos: str | None) -> VideoSet:
    root = require_root(root, name=name, tree=TREE, described_at=DESCRIBED_AT)
    spoken = [folder for word in _CSV[split] for folder in (word, f"{word}_256", f"videos_{word}", f"rawframes_{word}")]
    folders = media_folders(root, videos, [*spoken, *(f"videos/{word}" for word in _CSV[split]), "videos", "frames"])
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
    """Classes in alphabetical order."""
    return Labels(sorted({row["label"] for _, row in read_table(table, columns=["label"]) if row["label"]}))


def _entries(table: Path, labels: Labels, *, split: str) -> list[AnnotatedVideo]:
    once = UniqueNames("clip")
    columns = ["youtube_id", "time_start", "time_end"]
    entries = []
    for line, row in read_table(table, columns=columns, optional=["label", "split"]):
        if _split_of(row.get("split", ""), default=split) != split:
            continue
        video = safe_id(row["youtube_id"], at=line)
        start, end = (_second(row[column], column, line) for column in ("time_start", "time_end"))
        id_ = once.check(f"{video}_{start:06d}_{end:06d}", at=line)
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


def _split_of(word: str, *, default: str) -> str:
    """The split that a row's own column names; words of another kind, such as a fold, say nothing."""
    return next((split for split, words in _WORDS.items() if word.lower() in words), default)


def _second(text: str, column: str, line: ListLine) -> int:
    try:
        second = float(text)
        if not 0 <= second < 1e6:
            raise ValueError
    except ValueError:
        raise line.fail(f"{column} is {text!r}, not a time in seconds") from None
    return int(second)
