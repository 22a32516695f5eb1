"""HMDB-51: 6,766 clips of 51 actions from films and the web, with three official splits. Kuehne et al., ICCV 2011."""

import re
from pathlib import Path

from bench.core.errors import DatasetError
from bench.core.registry import register_dataset
from bench.data.annotations import Labels, UniqueNames, first_file, read_lines, safe_path
from bench.data.collection import AnnotatedVideo, VideoSet, assemble, require_root
from bench.data.media import Media, media_folders, stem_of
from bench.data.resnets_json import open_resnets_json

DESCRIBED_AT = "https://serre-lab.clps.brown.edu/resource/hmdb-a-large-human-motion-database/"
TREE = """\
  testTrainMulti_7030_splits/<class>_test_split1.txt, …     (or hmdb51_1.json of 3D-ResNets)
  hmdb51/<class>/<clip>.avi     (or frame folders, or shards *.tar)"""
_PARTS = {"train": "1", "test": "2"}
_CLIP_LINE = re.compile(r"(?P<clip>\S.*?)\s+(?P<part>\S+)")


@register_dataset(
    "hmdb51",
    described_at=DESCRIBED_AT,
    num_classes=51,
    splits=("train1", "test1", "train2", "test2", "train3", "test3"),
)
def open_hmdb51(
    root: Path | None, *, split: str, annotations: str | None = None, videos: str | None = None
) -> VideoSet:
    """Open HMDB-51; `annotations` names the folder of its lists and `videos` that of the clips, if not as usual."""
    root = require_root(root, name="hmdb51", tree=TREE, described_at=DESCRIBED_AT)
    part, number = split[:-1], split[-1]
    folders = media_folders(root, videos, ["hmdb51", "hmdb51_org", "videos", "rawframes", "frames", "jpg"])
    json_file = first_file(root, [f"hmdb51_{number}.json", f"{annotations}/hmdb51_{number}.json"])
    if json_file is not None:
        subset = "train" if part == "train" else "val"
        return open_resnets_json("hmdb51", split, subset=subset, path=json_file, root=root, folders=folders)
    lists = _lists(root, annotations, number)
    labels, once = Labels(list(lists)), UniqueNames("clip")
    entries = [entry for name, path in lists.items() for entry in _entries(path, labels[name], name, part, once)]
    return assemble("hmdb51", split, entries, classes=labels.names, media=Media(folders), root=root)


def _lists(root: Path, annotations: str | None, number: str) -> dict[str, Path]:
    """Return the list of each class, in alphabetical order."""
    ending = f"_test_split{number}.txt"
    names = [annotations] if annotations else ["testTrainMulti_7030_splits", "annotations", "test_train_splits", "."]
    for folder in (root / name for name in names):
        lists = {path.name.removesuffix(ending): path for path in sorted(folder.glob(f"*{ending}"))}
        if lists:
            return lists
    raise DatasetError(
        f"{root}: the lists of split {number} are missing; looked for <class>{ending} in {', '.join(names)}"
    )


def _entries(path: Path, label: int, name: str, part: str, once: UniqueNames) -> list[AnnotatedVideo]:
    entries = []
    for line in read_lines(path, separator=None):
        found = _CLIP_LINE.fullmatch(line.fields[0])
        if found is None or found["part"] not in ("0", "1", "2"):
            raise line.fail(f"expected '<clip>.avi' and 0, 1 or 2, found {line.fields[0]!r}")
        stem = once.check(stem_of(safe_path(found["clip"], within=path.parent, at=line)), at=line)
        if found["part"] == _PARTS[part]:
            entries.append(AnnotatedVideo(id=stem, labels=(label,), names=(f"{name}/{stem}", stem)))
    return entries
