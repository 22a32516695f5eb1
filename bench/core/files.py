"""Files and folders that appear under their final name complete or not at all, and the cache folder."""

import errno
import hashlib
import json
import os
import re
import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from secrets import token_hex
from typing import Any

from bench.core.errors import InputError

_UNFINISHED = re.compile(r"\.unfinished-(?P<machine>\w+)-(?P<process>\d+)-")
MOST_LISTED = 10_000  # names in a folder that are searched for a similar one, in a tenth of a second


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yield a temporary file in the folder of `path`; it becomes `path` at the end, and is removed after an error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = _temporary(path)
    unfinished.touch(exist_ok=False)
    try:
        yield unfinished
        _sync(unfinished)
        unfinished.replace(path)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise
    with suppress(OSError):  # not every file system can sync a folder
        _sync(path.parent)


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write `content` (text as UTF-8) to `path`; after an error the previous file is still there."""
    remove_abandoned(path.parent)
    with atomic_file(path) as unfinished:
        unfinished.write_bytes(content.encode() if isinstance(content, str) else content)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder next to `path`; it replaces `path` at the end, and is removed after an error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = _temporary(path)
    unfinished.mkdir()
    try:
        yield unfinished
        if path.exists():
            shutil.rmtree(path)
        unfinished.rename(path)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def reason_of(error: OSError) -> str:
    """Why the system refuses a path, without the path itself."""
    # "File exists" is the system's answer if a folder is to be created where a file is.
    return "it is a file, not a folder" if error.errno == errno.EEXIST else error.strerror or str(error)


def require_writable_folder(folder: Path) -> None:
    """Create `folder` if it does not exist; raises InputError if files cannot be written into it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise InputError(f"{folder}: cannot be written: {reason_of(error)}") from error


def unfinished_paths(folder: Path) -> list[Path]:
    """Temporary files in `folder` that are being written, or were when their process was killed."""
    return list(folder.glob(".unfinished-*"))


def remove_abandoned(folder: Path) -> None:
    """Remove temporary files in `folder` whose processes on this machine have ended."""
    for path in unfinished_paths(folder):
        found = _UNFINISHED.match(path.name)
        if found and found["machine"] == _machine() and not _is_alive(int(found["process"])):
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                with suppress(OSError):
                    path.unlink()


def existing_file(text: str) -> Path | None:
    """The file that `text` names; None if there is none or `text` cannot be a path, such as a long sentence."""
    try:
        return path if (path := Path(text)).is_file() else None
    except (OSError, ValueError):  # longer than a name may be
        return None


def path_hint(path: str | Path) -> str:
    """`; did you mean: results/demo?` if something exists under a similar path, else an empty text."""
    found = [] if not str(path) or os.path.exists(path) else _similar_paths(Path(path))
    return f"; did you mean: {', '.join(map(str, found[:3]))}?" if found else ""


def _similar_paths(path: Path) -> list[Path]:
    """Existing paths whose parts are spelled like those of `path`."""
    if os.path.exists(path):
        return [path]
    found: list[Path] = []
    for parent in _similar_paths(path.parent)[:3] if path.name else []:
        with suppress(OSError):  # no folder, or one that this user may not list
            names = os.listdir(parent)
            if len(names) <= MOST_LISTED:
                found += [parent / name for name in get_close_matches(path.name, names, n=3, cutoff=0.6)]
    return found


def cache_folder() -> Path:
    """The cache folder of vbench; in the temporary folder if the user has no home."""
    if base := os.environ.get("XDG_CACHE_HOME"):
        return Path(base) / "vbench"
    try:
        return Path.home() / ".cache" / "vbench"
    except RuntimeError:  # a user id without a name, as in containers
        return Path(tempfile.gettempdir()) / f"vbench-{os.getuid()}"


def write_cache(file: Path, value: Any) -> None:
    """Write `value` as JSON; an error is ignored, since a cache can be computed again."""
    with suppress(OSError):
        write_atomically(file, json.dumps(value))


def _temporary(path: Path) -> Path:
    return path.with_name(f".unfinished-{_machine()}-{os.getpid()}-{token_hex(4)}")


@cache
def _machine() -> str:
    """A name for this host and container: their processes may have the same numbers."""
    try:
        processes = os.stat("/proc/self/ns/pid").st_ino
    except OSError:
        processes = 0
    return hashlib.sha256(f"{socket.gethostname()} {processes}".encode()).hexdigest()[:12]


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
