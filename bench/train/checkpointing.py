"""Checkpoints that survive kill -9: written atomically, verified by the hash in their name, the newest two kept.

<folder>/state_00000500_<hash>.pt   everything needed to resume at step 500
<folder>/best.pt, last.pt           weights only, in the container that `create_model(weights=…)` reads
"""

import contextlib
import fcntl
import hashlib
import re
import struct
import warnings
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bench.core.errors import TrainingError
from bench.core.files import atomic_file, remove_abandoned, unfinished_paths

KEPT = 2
_STATE = re.compile(r"state_(\d+)_([0-9a-f]{12})\.pt")


@dataclass(frozen=True, kw_only=True)
class RestoredState:
    """A state that was read, and the newer files that were skipped because they are damaged."""

    state: dict[str, Any]
    path: Path
    damaged: tuple[Path, ...]


def write_state(folder: Path, state: Mapping[str, Any], *, step: int) -> Path:
    """Write the state of a training at `step`, and delete all but the two newest; raises TrainingError on failure."""
    _sweep(folder)
    unverified = folder / f"state_{step:08d}.pt"
    with written_whole(unverified) as part:
        save_torch(dict(state), part)
        digest = _hash(part)
    path = unverified.with_stem(f"{unverified.stem}_{digest}")
    unverified.replace(path)
    for _, old in _states(folder)[KEPT:]:
        old.unlink(missing_ok=True)
    return path


def read_state(folder: Path) -> RestoredState | None:
    """Read the newest intact state of `folder`; None if there is no state, TrainingError if all are damaged."""
    damaged: list[Path] = []
    for digest, path in _states(folder):
        if _hash(path) == digest:
            state = torch.load(path, map_location="cpu", weights_only=True)
            return RestoredState(state=state, path=path, damaged=tuple(damaged))
        damaged.append(path)
    if damaged:
        names = ", ".join(path.name for path in damaged)
        raise TrainingError(f"every checkpoint in {folder} is damaged ({names}); delete them to train from the start")
    return None


def has_states(folder: Path) -> bool:
    """Whether `folder` holds the state of a training that is not finished."""
    return bool(_states(folder))


def remove_states(folder: Path) -> None:
    """Delete the states, which only serve to resume; the weights stay."""
    _sweep(folder)
    for _, path in _states(folder):
        path.unlink(missing_ok=True)


def write_weights(path: Path, weights: Mapping[str, Any], *, about: Mapping[str, Any]) -> Path:
    """Write `{**about, "state_dict": weights}` to `path` atomically; `about` is plain data."""
    with written_whole(path) as part:
        save_torch({**about, "state_dict": dict(weights)}, part)
    return path


def read_weights(path: Path) -> dict[str, Any]:
    """Read what `write_weights` wrote, to the CPU."""
    content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    return content


def write_text(path: Path, text: str) -> Path:
    """Write `text` to `path` atomically."""
    with written_whole(path) as part:
        part.write_text(text, encoding="utf-8")
    return path


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the lock of `folder` during the block; waits while another process holds it."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """A temporary file next to `path` that is renamed to `path` at the end of the block, or deleted if the block fails.

    Raises TrainingError if it cannot be written.
    """
    remove_abandoned(path.parent)
    try:
        with atomic_file(path) as part:
            yield part
    except OSError as error:
        raise TrainingError(f"{path} cannot be written: {error.strerror or error}") from error


def read_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """Return the arrays of an npz of unfinished work; none if there is no file or, with a warning, if it is damaged.

    Arrays of objects count as damage: to read them would run their code.
    """
    if not path.is_file():
        return {}
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            return dict(stored)
    except (OSError, EOFError, ValueError, RuntimeError, struct.error, zipfile.BadZipFile, zlib.error) as error:
        warnings.warn(f"{path} is damaged ({error}); what it held is computed again", stacklevel=2)
        return {}


def save_torch(content: Mapping[str, Any], path: Path) -> None:
    """Save to an open file: given a path, torch stores its name in the file and hides the reason of a full disk."""
    try:
        with path.open("wb") as file:
            torch.save(content, file)
    except RuntimeError as error:
        cause = error.__context__
        raise (cause if isinstance(cause, OSError) else OSError(" ".join(str(error).split()))) from error


def _states(folder: Path) -> list[tuple[str, Path]]:
    """(hash, path) of every state, newest step first."""
    found = [(match, path) for path in folder.glob("state_*.pt") if (match := _STATE.fullmatch(path.name))]
    found.sort(key=lambda pair: int(pair[0][1]), reverse=True)
    return [(match[2], path) for match, path in found]


def _sweep(folder: Path) -> None:
    """Delete what a killed writer left: unfinished files, and states without a hash in their name."""
    for path in (*unfinished_paths(folder), *folder.glob("state_*")):
        if not _STATE.fullmatch(path.name):
            path.unlink(missing_ok=True)


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:12]
