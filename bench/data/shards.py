"""Locate the bytes of a video: a file, or a member of a tar shard of WebDataset.

A path may lead into a shard, `train-000000.tar/class/id.mp4`. Members are read in place; nothing is unpacked. Videos in
shards are therefore shuffled like files: an epoch is one permutation of all of them, not a buffer that mixes
neighbours. On a disk that seeks slowly this costs the same as reading as many files.
"""

import hashlib
import os
import stat
import tarfile
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath

from bench.core.errors import DatasetError, VideoError

_CHUNK_BYTES = 1 << 20
_KINDS = {stat.S_IFDIR: "folder", stat.S_IFIFO: "pipe", stat.S_IFCHR: "device", stat.S_IFSOCK: "socket"}


@dataclass(frozen=True, kw_only=True)
class Source:
    """The `size` bytes of `file` from `offset` on; the file was last modified at `modified_ns`."""

    file: Path
    offset: int
    size: int
    modified_ns: int

    @property
    def url(self) -> str:
        """What FFmpeg opens. The path is absolute, so that no file name is taken for a protocol."""
        file = self.file.absolute()
        return f"subfile,,start,{self.offset},end,{self.offset + self.size},,:{file}" if self.offset else str(file)

    def sha256(self) -> str:
        """Return the hash of these bytes in hex."""
        total, left = hashlib.sha256(), self.size
        with self.file.open("rb") as file:
            file.seek(self.offset)
            while left and (chunk := file.read(min(left, _CHUNK_BYTES))):
                total.update(chunk)
                left -= len(chunk)
        return total.hexdigest()


def source_of(path: Path) -> Source:
    """Return where the bytes of `path` are, also in a shard; VideoError if there are none."""
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise VideoError(f"{path}: is a {_KINDS.get(stat.S_IFMT(status.st_mode), 'special file')}, not a file")
        return Source(file=path, offset=0, size=status.st_size, modified_ns=status.st_mtime_ns)
    except NotADirectoryError:
        return _member(path)
    except OSError as error:
        raise VideoError(f"{path}: there is no such file: {error.strerror}") from error
    except ValueError as error:
        raise VideoError(f"{str(path)!r}: is not a file name: {error}") from error


def is_there(path: Path) -> bool:
    """Return True for an existing file, folder or member of a shard."""
    if os.path.exists(path):
        return True
    try:
        source_of(path)
    except VideoError:
        return False
    return True


def shard_members(shard: Path) -> dict[str, tuple[int, int]]:
    """Return offset and size of the regular files of a tar by name.

    Raises DatasetError if it is no tar or is cut, and for names that are absolute or lead upwards.
    """
    status = shard.stat()
    return _listed(shard, status.st_size, status.st_mtime_ns)


def _member(path: Path) -> Source:
    shard = next((parent for parent in path.parents if parent.is_file()), None)
    if shard is None or shard.suffix != ".tar":
        raise VideoError(f"{path}: there is no such file; its parent is not a folder")
    try:
        place = shard_members(shard).get(path.relative_to(shard).as_posix())
    except DatasetError as error:
        raise VideoError(str(error)) from error
    if place is None:
        raise VideoError(f"{path}: there is no such file in {shard.name}")
    return Source(file=shard, offset=place[0], size=place[1], modified_ns=shard.stat().st_mtime_ns)


@lru_cache(maxsize=4096)
def _listed(shard: Path, _size: int, _modified_ns: int) -> dict[str, tuple[int, int]]:
    try:
        with tarfile.open(shard, "r:") as tar:
            members = [info for info in tar if info.isreg()]
    except (tarfile.TarError, OSError, EOFError) as error:
        raise DatasetError(f"{shard}: is not a whole tar file: {error}") from error
    sparse = next((info.name for info in members if info.issparse()), None)
    if sparse is not None:
        raise DatasetError(f"{shard}: its member {sparse!r} is stored sparse, not byte by byte; pack it again")
    return {_inside(shard, info.name): (info.offset_data, info.size) for info in members}


def _inside(shard: Path, name: str) -> str:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or not path.parts:
        raise DatasetError(f"{shard}: its member {name!r} leads out of it; pack it again with relative names")
    return str(path)
