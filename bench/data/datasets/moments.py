"""Moments in Time: three-second events, with one label or several (Multi-Moments). Monfort et al., 2018 and 2019.

`moments_categories.txt` holds `class,number`; `trainingSet.csv` and `validationSet.csv` hold `path,label,…` without a
header: the class by name, followed by votes, or one number or more for Multi-Moments.
"""

from pathlib import Path

from bench.core.registry import register_dataset
from bench.data.annotations import Labels, ListLine, UniqueNames, first_file, read_lines, require_file, safe_path
from bench.data.collection import AnnotatedVideo, VideoSet, assemble, require_root
from bench.data.media import Media, media_folders, stem_of
from bench.data.resnets_json import open_resnets_json

DESCRIBED_AT = "http://moments.csail.mit.edu/"
TREE = """\
  moments_categories.txt, trainingSet.csv, validationSet.csv     (or mit.json of 3D-ResNets)
  training/<class>/<clip>.mp4, validation/<class>/<clip>.mp4     (videos/<class>/<clip>.mp4 for Multi-Moments)"""
_LISTS = {"train": "training", "val": "validation", "test": "testing"}


@register_dataset("moments", described_at=DESCRIBED_AT, num_classes=339, splits=("train", "val", "test"))
def open_moments(root: Path | None, *, split: str, multi_label: bool = False, videos: str | None = None) -> VideoSet:
    """Open Moments in Time, or Multi-Moments with `multi_label`; `videos` names the folder of the clips."""
    root = require_root(root, name="moments", tree=TREE, described_at=DESCRIBED_AT)
    word = _LISTS[split]
    folders = media_folders(root, videos, [word, "videos", "jpg", "frames"])
    json_file = first_file(root, ["mit.json", "moments.json"])
    if json_file is not None and not multi_label:
        return open_resnets_json("moments", split, subset=split, path=json_file, root=root, folders=folders)
    labels = _labels(require_file(root, ["moments_categories.txt"], what="the list of classes"))
    table = require_file(root, [f"{word}Set.csv", f"{word}Set.txt"], what=f"the annotation of split {split}")
    once = UniqueNames("clip")
    entries = [_entry(line, labels, once, is_multi_label=multi_label) for line in read_lines(table, separator=",")]
    return assemble(
        "moments",
        split,
        entries,
        classes=labels.names,
        media=Media(folders),
        root=root,
        is_multi_label=multi_label,
    )


def _labels(path: Path) -> Labels:
    """Return class names by number; numbers must run from 0 without a gap."""
    numbered, once = dict[int, str](), UniqueNames("class")
    for line in read_lines(path, separator=","):
        if len(line.fields) != 2 or not line.fields[1].isdecimal():
            raise line.fail(f"expected 'class,number', found {','.join(line.fields)!r}")
        if numbered.setdefault(int(line.fields[1]), line.fields[0]) != line.fields[0]:
            raise line.fail(f"number {line.fields[1]} is already that of {numbered[int(line.fields[1])]!r}")
        once.check(line.fields[0], at=line)
        if int(line.fields[1]) > 1_000_000:
            raise line.fail(f"number {line.fields[1]} is beyond any list of classes")
    gap = next((number for number in range(len(numbered)) if number not in numbered), None)
    if gap is not None:
        raise ListLine(path=path, number=1, fields=()).fail(f"no class has number {gap}")
    return Labels([numbered[number] for number in range(len(numbered))])


def _entry(line: ListLine, labels: Labels, once: UniqueNames, *, is_multi_label: bool) -> AnnotatedVideo:
    if is_multi_label and len(line.fields) < 2:
        raise line.fail(f"expected 'path,number,…', found {line.fields[0]!r}")
    path = once.check(stem_of(safe_path(line.fields[0], within=line.path.parent, at=line)), at=line)
    if is_multi_label:
        found = sorted({labels.numbered(number, at=line) for number in line.fields[1:] if number})
    else:
        found = [labels.position(line.fields[1], at=line)] if len(line.fields) > 1 else []
    return AnnotatedVideo(id=path, labels=tuple(found), names=(path, path.rpartition("/")[2]))
