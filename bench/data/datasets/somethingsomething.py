"""Something-Something V1 and V2: 174 things that people do with objects, told apart by motion. Goyal et al., ICCV 2017.

Many of its classes say left or right, so no recipe for it should mirror clips.
"""

from collections.abc import Sequence
from pathlib import Path

from bench.core.registry import register_dataset
from bench.data.annotations import JsonFile, Labels, UniqueNames, first_file, read_lines, require_file, safe_id
from bench.data.collection import AnnotatedVideo, VideoSet, assemble, require_root
from bench.data.media import Media, media_folders

DESCRIBED_AT = "https://www.qualcomm.com/developer/software/something-something-v-2-dataset"
TREE = """\
  something-something-v2-train.json, -validation.json, -test.json, -labels.json
      (V1: something-something-v1-train.csv, -validation.csv, -test.csv, -labels.csv)
  20bn-something-something-v2/<id>.webm     (V1: 20bn-something-something-v1/<id>/00001.jpg; or shards *.tar)"""
_PARTS = {"train": "train", "val": "validation", "test": "test"}


@register_dataset("somethingsomething", described_at=DESCRIBED_AT, num_classes=174, splits=("train", "val", "test"))
def open_somethingsomething(root: Path | None, *, split: str, videos: str | None = None) -> VideoSet:
    """Open Something-Something V2, or V1 if its lists are there; `videos` names the folder of the clips."""
    root = require_root(root, name="somethingsomething", tree=TREE, described_at=DESCRIBED_AT)
    usual = ["20bn-something-something-v2", "20bn-something-something-v1", "videos", "rawframes", "frames"]
    media = Media(media_folders(root, videos, usual))
    v1 = first_file(root, _places("something-something-v1-labels.csv"))
    labels, entries = _version_1(root, v1, split) if v1 is not None else _version_2(root, split)
    return assemble("somethingsomething", split, entries, classes=labels.names, media=media, root=root)


def _version_2(root: Path, split: str) -> tuple[Labels, list[AnnotatedVideo]]:
    names = JsonFile(
        require_file(root, _places("something-something-v2-labels.json", "labels.json"), what="the list of classes")
    )
    numbered = {}
    for name, number in names.mapping(names.value, what="the file", key="").items():
        if not str(number).isdecimal() or int(number) in numbered:
            raise names.at(name).fail(f"class {name!r} has number {number!r}, not one of its own")
        numbered[int(number)] = name
    if sorted(numbered) != list(range(len(numbered))):
        raise names.at("").fail(f"classes are not numbered from 0 to {len(numbered) - 1}")
    labels = Labels([numbered[number] for number in sorted(numbered)])
    part = _PARTS[split]
    table = require_file(
        root, _places(f"something-something-v2-{part}.json", f"{part}.json"), what=f"the annotation of split {split}"
    )
    return labels, _json_entries(JsonFile(table), labels)


def _json_entries(file: JsonFile, labels: Labels) -> list[AnnotatedVideo]:
    if not isinstance(file.value, list):
        raise file.at("").fail("the file is not a list of clips")
    once, entries = UniqueNames("clip"), []
    for value in file.value:
        clip = file.mapping(value, what="a clip", key="")
        id_ = str(clip.get("id", ""))
        at = file.at(id_)
        once.check(safe_id(id_, at=at), at=at)
        template = clip.get("template")
        label = None if template is None else str(template).replace("[", "").replace("]", "")
        found = () if label is None else (labels.position(label, at=at),)
        entries.append(AnnotatedVideo(id=id_, labels=found, names=(id_,)))
    return entries


def _version_1(root: Path, classes: Path, split: str) -> tuple[Labels, list[AnnotatedVideo]]:
    named, once, entries = UniqueNames("class"), UniqueNames("clip"), []
    labels = Labels([named.check(line.fields[0], at=line) for line in read_lines(classes, separator=None)])
    table = require_file(
        root, _places(f"something-something-v1-{_PARTS[split]}.csv"), what=f"the annotation of split {split}"
    )
    for line in read_lines(table, separator=";"):
        id_ = once.check(safe_id(line.fields[0], at=line), at=line)
        found = (labels.position(line.fields[1], at=line),) if len(line.fields) > 1 else ()
        entries.append(AnnotatedVideo(id=id_, labels=found, names=(id_,)))
    return labels, entries


def _places(*names: str) -> Sequence[str]:
    return [f"{folder}{name}" for name in names for folder in ("", "labels/", "annotations/")]
