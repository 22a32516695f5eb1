"""Files and folders that appear under their final name complete, or not at all."""

import os
import re
import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_UNFINISHED = re.compile(r"\.unfinished-(?P<machine>\w+)-(?P<process>\d+)-")


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A path to write to, in the same folder; it becomes `path` at the end, and is removed after an error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=_prefix(), suffix=path.suffix, dir=path.parent)
    os.close(handle)
    unfinished = Path(name)
    try:
        yield unfinished
        unfinished.chmod(0o644)
        _sync(unfinished)
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """A folder to fill, beside `path`; it becomes `path` at the end, in the place of what was there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(prefix=_prefix(), dir=path.parent))
    try:
        yield unfinished
        unfinished.chmod(0o755)
        if path.exists():
            shutil.rmtree(path)
        unfinished.rename(path)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def remove_abandoned(folder: Path) -> None:
    """Remove what processes of this machine that are no more left unfinished in `folder`."""
    if not folder.is_dir():
        return
    for path in folder.glob(".unfinished-*"):
        found = _UNFINISHED.match(path.name)
        if found and found["machine"] == _machine() and not _is_alive(int(found["process"])):
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)


def _prefix() -> str:
    return f".unfinished-{_machine()}-{os.getpid()}-"


def _machine() -> str:
    return re.sub(r"[^A-Za-z0-9]", "", socket.gethostname())[:32] or "here"


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
