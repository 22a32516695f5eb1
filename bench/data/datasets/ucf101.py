"""UCF-101: 13,320 clips of 101 actions in 25 groups each, in three splits. Soomro et al., 2012, arXiv:1212.0402."""

import re
from pathlib import Path

from bench.core.registry import register_dataset
from bench.data.annotations import Labels, ListLine, UniqueNames, first_file, read_lines, require_file, safe_path
from bench.data.collection import AnnotatedVideo, VideoSet, assemble, require_root
from bench.data.media import Media, media_folders, stem_of
from bench.data.resnets_json import open_resnets_json

DESCRIBED_AT = "https://www.crcv.ucf.edu/research/data-sets/ucf101/"
TREE = """\
  ucfTrainTestlist/classInd.txt, trainlist01.txt, testlist01.txt, …     (or ucf101_01.json of 3D-ResNets)
  UCF-101/<Class>/v_<Class>_g01_c01.avi     (or frame folders, or shards *.tar)"""
_CLASS_LINE = re.compile(r"(?P<number>\d+)\s+(?P<name>\S.*)")
_CLIP_LINE = re.compile(r"(?P<path>\S.*?)(?:\s+(?P<number>\d+))?")


@register_dataset(
    "ucf101",
    described_at=DESCRIBED_AT,
    num_classes=101,
    splits=("train1", "test1", "train2", "test2", "train3", "test3"),
)
def open_ucf101(
    root: Path | None, *, split: str, annotations: str | None = None, videos: str | None = None
) -> VideoSet:
    """Open UCF-101; `annotations` names the folder of its lists and `videos` that of the clips, if not as usual."""
    root = require_root(root, name="ucf101", tree=TREE, described_at=DESCRIBED_AT)
    part, number = split[:-1], split[-1]
    folders = media_folders(root, videos, ["UCF-101", "UCF101", "videos", "rawframes", "frames", "jpg"])
    json_file = first_file(root, [f"ucf101_0{number}.json", f"{annotations}/ucf101_0{number}.json"])
    if json_file is not None:
        subset = "train" if part == "train" else "val"
        return open_resnets_json("ucf101", split, subset=subset, path=json_file, root=root, folders=folders)
    lists = [annotations] if annotations else ["ucfTrainTestlist", "annotations", "."]
    labels = _labels(require_file(root, [f"{folder}/classInd.txt" for folder in lists], what="the list of classes"))
    clips = require_file(root, [f"{folder}/{part}list0{number}.txt" for folder in lists], what=f"the list of {split}")
    return assemble("ucf101", split, _entries(clips, labels), classes=labels.names, media=Media(folders), root=root)


def _labels(path: Path) -> Labels:
    names, once = list[str](), UniqueNames("class")
    for line in read_lines(path, separator=None):
        found = _CLASS_LINE.fullmatch(line.fields[0])
        if found is None or int(found["number"]) != len(names) + 1:
            raise line.fail(f"expected '{len(names) + 1} <class>', found {line.fields[0]!r}")
        names.append(once.check(found["name"], at=line))
    return Labels(names, first=1)


def _entries(path: Path, labels: Labels) -> list[AnnotatedVideo]:
    once = UniqueNames("clip")
    return [_entry(line, labels, once, root=path.parent) for line in read_lines(path, separator=None)]


def _entry(line: ListLine, labels: Labels, once: UniqueNames, *, root: Path) -> AnnotatedVideo:
    found = _CLIP_LINE.fullmatch(line.fields[0])
    clip = safe_path(found["path"] if found else "", within=root, at=line)
    folder, slash, name = clip.partition("/")
    if not slash or "/" in name:
        raise line.fail(f"expected '<Class>/<clip>.avi', found {clip!r}")
    label = labels.position(folder, at=line)
    if found and found["number"] and labels.numbered(found["number"], at=line) != label:
        raise line.fail(f"class {folder} is number {label + 1} in classInd.txt, not {found['number']}")
    stem = once.check(stem_of(name), at=line)
    return AnnotatedVideo(id=stem, labels=(label,), names=(f"{folder}/{stem}", stem))
