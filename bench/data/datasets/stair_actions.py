"""STAIR Actions: 100 everyday actions at home and in offices. Yoshikawa et al., 2018, arXiv:1804.04326.

`videolist_train.txt` and `videolist_val.txt` hold `<class>/a001-0004Y.mp4 1`, numbers from 1.
"""

import re
from pathlib import Path

from bench.core.errors import DatasetError
from bench.core.registry import register_dataset
from bench.data.annotations import Labels, ListLine, UniqueNames, first_file, read_lines, require_file, safe_path
from bench.data.collection import AnnotatedVideo, VideoSet, assemble, require_root
from bench.data.media import Media, media_folders, stem_of
from bench.data.resnets_json import open_resnets_json

DESCRIBED_AT = "https://github.com/STAIR-Lab-CIT/STAIR-actions"
TREE = """\
  data/videolist_train.txt, data/videolist_val.txt     (or stair_actions.json of 3D-ResNets)
  STAIR_Actions_v1.1/<class>/a001-0004Y.mp4     (or frame folders, or shards *.tar)"""
_LINE = re.compile(r"(?P<path>\S.*?)\s+(?P<number>\d+)")


@register_dataset("stair_actions", described_at=DESCRIBED_AT, num_classes=100)
def open_stair_actions(root: Path | None, *, split: str, videos: str | None = None) -> VideoSet:
    """Open STAIR Actions; `videos` names the folder of the clips, if not as usual."""
    root = require_root(root, name="stair_actions", tree=TREE, described_at=DESCRIBED_AT)
    folders = media_folders(root, videos, ["STAIR_Actions_v1.1", "STAIR_Actions_v1.0", "videos", "video", "frames"])
    json_file = first_file(root, ["stair_actions.json"])
    if json_file is not None:
        return open_resnets_json("stair_actions", split, subset=split, path=json_file, root=root, folders=folders)
    lists = {part: _list(root, part) for part in ("train", "val")}
    labels = _labels(lists["train"])
    once = UniqueNames("clip")
    entries = [_entry(line, labels, once) for line in read_lines(lists[split], separator=None)]
    return assemble("stair_actions", split, entries, classes=labels.names, media=Media(folders), root=root)


def _list(root: Path, split: str) -> Path:
    names = [f"{folder}videolist_{split}.txt" for folder in ("data/", "", "annotations/")]
    return require_file(root, names, what=f"the list of split {split}")


def _labels(path: Path) -> Labels:
    """Return class names by the numbers of the training list."""
    numbered: dict[int, str] = {}
    numbers: dict[str, int] = {}
    for line in read_lines(path, separator=None):
        name, number = _parsed(line)
        folder = name.partition("/")[0]
        if numbered.setdefault(number, folder) != folder:
            raise line.fail(f"number {number} is already that of {numbered[number]!r}")
        if numbers.setdefault(folder, number) != number:
            raise line.fail(f"class {folder!r} has number {numbers[folder]} already")
    gap = next((number for number in range(1, len(numbered) + 1) if number not in numbered), None)
    if gap is not None:
        raise DatasetError(f"{path}: no class has number {gap}")
    return Labels([numbered[number] for number in range(1, len(numbered) + 1)], first=1)


def _entry(line: ListLine, labels: Labels, once: UniqueNames) -> AnnotatedVideo:
    path, number = _parsed(line)
    folder = path.partition("/")[0]
    label = labels.numbered(str(number), at=line)
    if labels.names[label] != folder:
        raise line.fail(f"number {number} is that of {labels.names[label]!r}, not {folder!r}")
    stem = once.check(stem_of(path), at=line)
    return AnnotatedVideo(id=stem, labels=(label,), names=(stem, stem.rpartition("/")[2]))


def _parsed(line: ListLine) -> tuple[str, int]:
    found = _LINE.fullmatch(line.fields[0])
    if found is None or "/" not in found["path"]:
        raise line.fail(f"expected '<class>/<clip>.mp4 <number>', found {line.fields[0]!r}")
    return safe_path(found["path"], within=line.path.parent, at=line), int(found["number"])
