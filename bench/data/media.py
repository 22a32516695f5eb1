"""Find the videos of a data set by name: files, frame folders and members of tar shards.

A name is `class/stem` or `stem`, without its suffix, so one annotation serves files, frame folders and shards alike.
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from bench.core.errors import DatasetError
from bench.core.files import path_hint
from bench.data.shards import shard_members

VIDEO_SUFFIXES = frozenset({
    ".mp4", ".m4v", ".mov", ".3gp", ".3g2", ".avi", ".divx", ".mkv", ".webm", ".mpg", ".mpeg", ".mpe", ".vob", ".ts",
    ".mts", ".m2ts", ".flv", ".f4v", ".wmv", ".asf", ".ogv", ".mxf", ".nut", ".dv", ".y4m", ".gif",
})  # fmt: skip
HDF5_SUFFIXES = frozenset({".hdf5", ".h5"})  # the frames of one video in a file, as 3D-ResNets writes them
FILE_SUFFIXES = VIDEO_SUFFIXES | HDF5_SUFFIXES
IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp"})
FLOW_PREFIXES = ("flow_x_", "flow_y_")


class UnreadMediaWarning(UserWarning):
    """Folders or shards that cannot be read; the videos in them count as missing."""


class Media:
    """Videos by name under some folders: `class/stem` in class folders, `stem` in flat ones.

    `clashes` are videos whose name another one has already. `unread` says why folders and shards inside cannot be read.
    A name with bytes that are not text is written with backslashes.
    """

    def __init__(self, folders: Iterable[Path]) -> None:
        self._by_name: dict[str, Path] = {}
        self._by_stem: dict[str, Path | None] = {}
        self._class_folders: dict[Path, str] = {}
        self.clashes: list[Path] = []
        self.unread: list[str] = []
        for found, path in (each for folder in folders for each in _scan(folder, self.unread)):
            name = as_text(found)
            if self._by_name.setdefault(name, path) is not path:
                self.clashes.append(path)
            folder, _, stem = name.rpartition("/")
            self._class_folders[path] = folder.partition("/")[0]
            self._by_stem[stem] = None if stem in self._by_stem else path

    def find(self, names: Sequence[str]) -> Path | None:
        """Return the video with the first of `names` that exists; by its stem alone only if one video has that stem."""
        full = (self._by_name[name] for name in names if name in self._by_name)
        return next(full, None) or next((self._by_stem[name] for name in names if name in self._by_stem), None)

    def class_folder(self, path: Path) -> str:
        """Return the name of the class folder of a video that was found; empty for a video outside of any."""
        return self._class_folders[path]

    def names(self) -> list[str]:
        """Return the full name of every video."""
        return list(self._by_name)


def media_folders(root: Path, given: str | None, usual: Sequence[str]) -> tuple[Path, ...]:
    """Return the folder `given`, relative to `root`, else those of `usual` that exist, else `root` itself."""
    if given is not None:
        folder = root / given
        if not folder.is_dir():
            raise DatasetError(f"{folder}: the folder of the videos (option videos) does not exist{path_hint(folder)}")
        return (folder,)
    return tuple(root / name for name in usual if (root / name).is_dir()) or (root,)


def stem_of(name: str) -> str:
    """Return `name` without the suffix of a video file, if it has one."""
    head, dot, tail = name.rpartition(".")
    return head if dot and f".{tail.lower()}" in FILE_SUFFIXES else name


def is_frame_folder(inside: Iterable[os.DirEntry[str]]) -> bool:
    """Return True for the frames of one video: numbered pictures, more of them than folders, and no video file.

    Pictures of optical flow do not count.
    """
    pictures, folders = 0, 0
    for entry in inside:
        stem, suffix = os.path.splitext(entry.name)
        if suffix.lower() in FILE_SUFFIXES:
            return False
        if suffix.lower() in IMAGE_SUFFIXES:
            pictures += stem[-1:].isdecimal() and not stem.startswith(FLOW_PREFIXES)
        elif is_folder(entry):
            folders += 1
    return pictures > folders


def as_text(name: str) -> str:
    """Return a file name with backslashes for bytes that are not text, so that it can be printed and stored."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def visible(folder: Path) -> list[os.DirEntry[str]]:
    """Return what is in the folder except hidden entries, sorted, so that the order is the same on every machine."""
    with os.scandir(folder) as entries:
        return sorted((entry for entry in entries if not entry.name.startswith(".")), key=lambda entry: entry.name)


def is_folder(entry: os.DirEntry[str]) -> bool:
    """Return True for a folder; False also for an entry that cannot be read, such as a link to itself."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def _scan(folder: Path, unread: list[str]) -> Iterator[tuple[str, Path]]:
    """Yield name and path of every video under `folder`; DatasetError if the folder itself cannot be read."""
    try:
        inside, here = visible(folder), inode_of(folder)
    except OSError as error:
        raise DatasetError(f"{folder}: cannot be read: {error.strerror}") from error
    for entry in inside:
        if entry.name.endswith(".tar"):
            yield from _members(Path(entry.path), unread)
        elif _is_video(entry):
            yield stem_of(entry.name), Path(entry.path)
        elif is_folder(entry):
            yield from _scan_below(Path(entry.path), entry.name, frozenset({here}), unread)


def _scan_below(
    folder: Path, name: str, above: frozenset[tuple[int, int]], unread: list[str]
) -> Iterator[tuple[str, Path]]:
    """Yield the videos of a class folder and of folders inside; a frame folder is one video.

    A folder in a class folder without a video or folder in it counts as a video, so that reading it shows why its
    frames are not found; deeper ones may be optical flow. Folders that contain themselves through a link are skipped.
    """
    try:
        inside, here = visible(folder), inode_of(folder)
    except OSError as error:
        unread.append(f"{folder}: cannot be read: {error.strerror}")
        return
    if here in above:
        return
    if is_frame_folder(inside):
        yield name, folder
        return
    is_bare = name.count("/") == 1
    for entry in inside:
        if _is_video(entry):
            is_bare = False
            yield f"{name}/{stem_of(entry.name)}", Path(entry.path)
        elif is_folder(entry):
            is_bare = False
            yield from _scan_below(Path(entry.path), f"{name}/{entry.name}", above | {here}, unread)
    if is_bare:
        yield name, folder


def _members(shard: Path, unread: list[str]) -> Iterator[tuple[str, Path]]:
    try:
        members = shard_members(shard)
    except (DatasetError, OSError) as error:
        unread.append(str(error))
        return
    for member in members:
        if os.path.splitext(member)[1].lower() in VIDEO_SUFFIXES:
            yield stem_of(member), shard / member


def inode_of(folder: Path) -> tuple[int, int]:
    """Return what identifies a folder however many links lead to it."""
    status = folder.stat()
    return status.st_dev, status.st_ino


def _is_video(entry: os.DirEntry[str]) -> bool:
    try:
        return os.path.splitext(entry.name)[1].lower() in FILE_SUFFIXES and entry.is_file()
    except OSError:
        return False
