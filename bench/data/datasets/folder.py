"""Any folder of class folders: `train/<class>/<clip>`, `val/<class>/<clip>`."""

from collections.abc import Iterable
from pathlib import Path

from bench.core.errors import DatasetError
from bench.core.files import path_hint
from bench.core.registry import register_dataset
from bench.data.collection import AnnotatedVideo, VideoSet, assemble, require_root
from bench.data.media import Media

TREE = """\
  train/<class>/<clip>.mp4, val/<class>/<clip>.mp4     (or frame folders train/<class>/<clip>/image_00001.jpg,
  or shards train/*.tar with members <class>/<clip>.mp4)"""
DESCRIBED_AT = "docs/data-lists.md"


@register_dataset("folder", described_at=DESCRIBED_AT, splits=("train", "val", "test"))
def open_folder(root: Path | None, *, split: str) -> VideoSet:
    """Read class folders. The classes are the names of the folders of `train` (of the split itself without `train`).

    They are in alphabetical order, or in numeric order if all of them are numbers.
    """
    return class_folders(root, name="folder", split=split, described_at=DESCRIBED_AT)


def class_folders(root: Path | None, *, name: str, split: str, described_at: str) -> VideoSet:
    """Open a split of data set `name` in class folders as `open_folder` reads them; DatasetError if it is not."""
    root = require_root(root, name=name, tree=TREE, described_at=described_at)
    folder = root / split
    if not folder.is_dir():
        hint = path_hint(folder)
        raise DatasetError(f"data set {name}: there is no folder {folder}{hint}. Expected under {root}:\n{TREE}")
    media = _read_whole(folder)
    if media.clashes:
        raise DatasetError(f"{media.clashes[0]}: another video of that class has the same name without its suffix")
    names = sorted(media.names())
    stray = next((video for video in names if "/" not in video), None)
    if stray is not None:
        raise DatasetError(f"{folder / stray}: is a video outside any class folder. Expected under {root}:\n{TREE}")
    trained = _read_whole(root / "train").names() if (root / "train").is_dir() and split != "train" else names
    classes = in_class_order({video.partition("/")[0] for video in trained if "/" in video})
    unknown = next((video for video in names if video.partition("/")[0] not in set(classes)), None)
    if unknown is not None:
        raise DatasetError(
            f"{folder / unknown}: class {unknown.partition('/')[0]!r} is not among those of {root / 'train'}"
        )
    position = {label: at for at, label in enumerate(classes)}
    entries = [AnnotatedVideo(id=video, labels=(position[video.partition("/")[0]],), names=(video,)) for video in names]
    return assemble(name, split, entries, classes=classes, media=media, root=root)


def in_class_order(names: Iterable[str]) -> list[str]:
    """Sort class names, by value if all of them are numbers: 2 comes before 10."""
    names = list(names)
    if all(name.isascii() and name.isdecimal() for name in names):
        return sorted(names, key=lambda name: (int(name), name))
    return sorted(names)


def _read_whole(folder: Path) -> Media:
    """Return the media of the folder; DatasetError if a part cannot be read, for no annotation names what it holds."""
    media = Media([folder])
    if media.unread:
        raise DatasetError(media.unread[0])
    return media
