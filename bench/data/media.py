"""Where the videos of a data set lie: files, frame folders and members of tar shards, found by name.

A name is `class/stem` or `stem`, without its suffix, so one annotation serves files, frame folders and shards alike.
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from bench.core.errors import DatasetError
from bench.data.shards import shard_members

VIDEO_SUFFIXES = frozenset({
    ".mp4", ".m4v", ".mov", ".3gp", ".3g2", ".avi", ".divx", ".mkv", ".webm", ".mpg", ".mpeg", ".mpe", ".vob", ".ts",
    ".mts", ".m2ts", ".flv", ".f4v", ".wmv", ".asf", ".ogv", ".mxf", ".nut", ".dv", ".y4m", ".gif",
})  # fmt: skip
IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp"})
FLOW_PREFIXES = ("flow_x_", "flow_y_")


class UnreadMediaWarning(UserWarning):
    """Folders or shards that cannot be read; the videos in them count as missing."""


class Media:
    """Videos by name under some folders, a class folder deep or flat. `clashes` are those whose name was taken.

    `unread` says of folders and shards inside which cannot be read why not. A name with bytes that are no text is
    written with backslashes.
    """

    def __init__(self, folders: Iterable[Path]) -> None:
        self._by_name: dict[str, Path] = {}
        self._by_stem: dict[str, Path | None] = {}
        self.clashes: list[Path] = []
        self.unread: list[str] = []
        for found, path in (each for folder in folders for each in _scan(folder, self.unread)):
            name = as_text(found)
            if self._by_name.setdefault(name, path) is not path:
                self.clashes.append(path)
            stem = name.rpartition("/")[2]
            self._by_stem[stem] = None if stem in self._by_stem else path

    def find(self, names: Sequence[str]) -> Path | None:
        """The video with the first of `names` that there is; by its stem alone only where one video has it."""
        full = (self._by_name[name] for name in names if name in self._by_name)
        return next(full, None) or next((self._by_stem[name] for name in names if name in self._by_stem), None)

    def names(self) -> list[str]:
        """The full name of every video."""
        return list(self._by_name)


def media_folders(root: Path, given: str | None, usual: Sequence[str]) -> tuple[Path, ...]:
    """The folder `given`, relative to `root`, or those of the `usual` ones that are there, or `root` itself."""
    if given is not None:
        folder = root / given
        if not folder.is_dir():
            raise DatasetError(f"{folder}: is not a folder; it was given as the folder of the videos")
        return (folder,)
    return tuple(root / name for name in usual if (root / name).is_dir()) or (root,)


def stem_of(name: str) -> str:
    """`name` without the suffix of a video, if it has one."""
    head, dot, tail = name.rpartition(".")
    return head if dot and f".{tail.lower()}" in VIDEO_SUFFIXES else name


def is_frame_folder(inside: Iterable[os.DirEntry[str]]) -> bool:
    """True for what holds the frames of one video: numbered pictures, more of them than folders, and no video file.

    Pictures of optical flow alone are no frames.
    """
    pictures, folders = 0, 0
    for entry in inside:
        stem, suffix = os.path.splitext(entry.name)
        if suffix.lower() in VIDEO_SUFFIXES:
            return False
        if suffix.lower() in IMAGE_SUFFIXES:
            pictures += stem[-1:].isdecimal() and not stem.startswith(FLOW_PREFIXES)
        elif is_folder(entry):
            folders += 1
    return pictures > folders


def as_text(name: str) -> str:
    """The name of a file with backslashes for bytes that are no text, so that it can be printed and stored."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def visible(folder: Path) -> list[os.DirEntry[str]]:
    """What is in the folder, hidden things apart, by name, so that the first of two like names is always the same."""
    with os.scandir(folder) as entries:
        return sorted((entry for entry in entries if not entry.name.startswith(".")), key=lambda entry: entry.name)


def is_folder(entry: os.DirEntry[str]) -> bool:
    """True for a folder; False also for what cannot be looked at, as a link to itself."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def _scan(folder: Path, unread: list[str]) -> Iterator[tuple[str, Path]]:
    try:
        inside = visible(folder)
    except OSError as error:
        raise DatasetError(f"{folder}: cannot be read: {error.strerror}") from error
    for entry in inside:
        if entry.name.endswith(".tar"):
            yield from _members(Path(entry.path), unread)
        elif _is_video(entry):
            yield stem_of(entry.name), Path(entry.path)
        elif is_folder(entry) and not _leads_back(entry):
            yield from _class_folder(entry, unread)


def _class_folder(folder: os.DirEntry[str], unread: list[str]) -> Iterator[tuple[str, Path]]:
    try:
        inside = visible(Path(folder.path))
    except OSError as error:
        unread.append(f"{folder.path}: cannot be read: {error.strerror}")
        return
    if is_frame_folder(inside):
        yield folder.name, Path(folder.path)
        return
    for entry in inside:
        if _is_video(entry):
            yield f"{folder.name}/{stem_of(entry.name)}", Path(entry.path)
        elif is_folder(entry) and not _leads_back(entry):
            yield f"{folder.name}/{entry.name}", Path(entry.path)


def _members(shard: Path, unread: list[str]) -> Iterator[tuple[str, Path]]:
    try:
        members = shard_members(shard)
    except (DatasetError, OSError) as error:
        unread.append(str(error))
        return
    for member in members:
        if os.path.splitext(member)[1].lower() in VIDEO_SUFFIXES:
            yield stem_of(member), shard / member


def _is_video(entry: os.DirEntry[str]) -> bool:
    try:
        return os.path.splitext(entry.name)[1].lower() in VIDEO_SUFFIXES and entry.is_file()
    except OSError:
        return False


def _leads_back(entry: os.DirEntry[str]) -> bool:
    """True for a link to a folder that it stands in."""
    return entry.is_symlink() and Path(entry.path).parent.resolve().is_relative_to(Path(entry.path).resolve())
