"""Checkpoints that survive kill -9: written whole or not at all, proved by the hash in their name, the newest two kept.

<folder>/state_00000500_<hash>.pt   everything needed to go on from step 500
<folder>/best.pt, last.pt           weights alone, in the container that `create_model(weights=…)` reads
"""

import contextlib
import hashlib
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from bench.errors import TrainingError

KEPT = 2
_STATE = re.compile(r"state_(\d+)_([0-9a-f]{12})\.pt")


@dataclass(frozen=True, kw_only=True)
class Restored:
    """A state that was read back, and the newer files that were damaged and passed over."""

    state: dict[str, Any]
    path: Path
    damaged: tuple[Path, ...]


def write_state(folder: Path, state: Mapping[str, Any], *, step: int) -> Path:
    """Write everything of a training at `step`; older states but one go. TrainingError where it cannot be written."""
    folder.mkdir(parents=True, exist_ok=True)
    _sweep(folder)
    part = folder / f"state_{step:08d}.part"
    with _part_removed(part):
        _write(part, lambda target: torch.save(dict(state), target))
        path = folder / f"state_{step:08d}_{_hash(part)}.pt"
        os.replace(part, path)
    _sync_folder(folder)
    for _, old in _states(folder)[KEPT:]:
        old.unlink(missing_ok=True)
    return path


def read_state(folder: Path) -> Restored | None:
    """The newest whole state of `folder`, or None where there is none; TrainingError where all are damaged."""
    damaged: list[Path] = []
    for digest, path in _states(folder):
        if _hash(path) == digest:
            state = torch.load(path, map_location="cpu", weights_only=True)
            return Restored(state=state, path=path, damaged=tuple(damaged))
        damaged.append(path)
    if damaged:
        names = ", ".join(path.name for path in damaged)
        raise TrainingError(f"every checkpoint in {folder} is damaged ({names}); delete them to train from the start")
    return None


def remove_states(folder: Path) -> None:
    """Delete what was only needed to go on; the weights stay."""
    _sweep(folder)
    for _, path in _states(folder):
        path.unlink(missing_ok=True)


def write_weights(path: Path, weights: Mapping[str, Any], *, about: Mapping[str, Any]) -> Path:
    """Write `{**about, "state_dict": weights}` to `path`, whole or not at all; `about` is plain data."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    with _part_removed(part):
        _write(part, lambda target: torch.save({**about, "state_dict": dict(weights)}, target))
        os.replace(part, path)
    _sync_folder(path.parent)
    return path


def read_weights(path: Path) -> dict[str, Any]:
    """What `write_weights` wrote, on the CPU."""
    content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    return content


def write_text(path: Path, text: str) -> Path:
    """Write `text` to `path`, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    with _part_removed(part):
        _write(part, lambda target: target.write(text.encode()))
        os.replace(part, path)
    return path


def _write(path: Path, write: Callable[[Any], Any]) -> None:
    with path.open("wb") as target:
        write(target)
        target.flush()
        os.fsync(target.fileno())


@contextlib.contextmanager
def _part_removed(part: Path) -> Any:
    """Nothing half-written stays behind. torch reports a full disk as a RuntimeError."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        part.unlink(missing_ok=True)
        reason = error.strerror if isinstance(error, OSError) and error.strerror else " ".join(str(error).split())
        raise TrainingError(f"{part.parent / part.stem} cannot be written: {reason}") from error


def _states(folder: Path) -> list[tuple[str, Path]]:
    """(hash, path) of every state, the newest step first."""
    found = [(match, path) for path in folder.glob("state_*.pt") if (match := _STATE.fullmatch(path.name))]
    found.sort(key=lambda pair: int(pair[0][1]), reverse=True)
    return [(match[2], path) for match, path in found]


def _sweep(folder: Path) -> None:
    """Delete what a killed writer left."""
    for path in folder.glob("*.part"):
        path.unlink(missing_ok=True)


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:12]


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
