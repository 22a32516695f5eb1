"""Everything a user can put right, as exceptions. `cli.py` alone prints them and exits with their code.

BenchError
├── InputError                what the user wrote or gave is wrong                         exit 2
│   ├── UnknownNameError      a model, measure, data set, section or argument that is not there
│   ├── NameClashError        two different things registered under one name
│   ├── SuiteError            every problem of one suite file, each with line and column
│   ├── ClipError             a clip that this network cannot take
│   ├── WeightsError          a checkpoint that is not what it was taken for
│   └── MissingPackageError   an optional package is needed; says how to install it
├── VideoError                a file that cannot be decoded, or not as far as asked       exit 3
│   └── MissingFrameError     a frame beyond those that are there; says how many are
├── TrainingError             a training or evaluation that cannot go on                  exit 3
├── SetUpError                a side of an A/B measurement that cannot be measured          exit 3
├── DatasetError              a data set that is missing, incomplete or changed           exit 2
└── StoreError                a results folder that cannot be read or is in use           exit 2
"""

import difflib
import signal
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

# What allocators, cuBLAS, cuDNN and ONNX Runtime say. cuDNN finds no engine where no algorithm's workspace fits.
OUT_OF_MEMORY_MESSAGES = (
    "out of memory",
    "outofmemory",
    "can't allocate memory",
    "cannot allocate memory",
    "failed to allocate memory",
    "alloc_failed",
    "unable to find an engine",
)


class BenchError(Exception):
    """One line for the user: what was wrong, what was found, what is allowed, what to do next."""

    exit_code = 2


class StopSignal(KeyboardInterrupt):
    """SIGINT, SIGTERM or SIGHUP: the user or the cluster stops this process. Not an error, so no BenchError."""

    def __init__(self, number: int, detail: str = "") -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.signal = number
        self.detail = detail


class InputError(BenchError):
    """What the user wrote or gave is wrong."""


class UnknownNameError(InputError):
    """`kind` `name` is not there; the message carries the nearest spellings out of `known`."""

    def __init__(self, kind: str, name: str, known: Iterable[str], *, where: str = "") -> None:
        self.kind, self.name, self.known = kind, name, sorted(known)
        place = f" in {where}" if where else ""
        super().__init__(f"unknown {kind} {name!r}{place}; {suggest(name, self.known)}")


class NameClashError(InputError):
    """Two different things registered under one name."""


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One thing wrong in a file; `line` and `column` count from 1.

    `file` is named where it may be another one than that which was read, such as a suite that it extends.
    """

    line: int
    column: int
    message: str
    file: str = ""


class SuiteError(InputError):
    """All problems of one suite file at once, one `file:line:column: message` a line."""

    def __init__(self, path: str, problems: Iterable[Problem]) -> None:
        self.path = path
        self.problems = sorted(problems, key=lambda p: (p.file not in ("", path), p.file, p.line, p.column))
        super().__init__("\n".join(f"{p.file or path}:{p.line}:{p.column}: {p.message}" for p in self.problems))


class ClipError(InputError):
    """A clip that this network cannot take; names the smallest that works."""


class WeightsError(InputError):
    """A checkpoint that is not what it was taken for."""


class MissingPackageError(InputError):
    """An optional package is needed."""

    def __init__(self, package: str, *, needed_for: str, install: str) -> None:
        super().__init__(f"{needed_for} needs {package}, which is not installed; install it with: {install}")


class VideoError(BenchError):
    """A file that cannot be decoded, or not as far as asked: names file and frame."""

    exit_code = 3


class TrainingError(BenchError):
    """A training or evaluation that cannot go on: a loss that is not finite, a full disk, a rank that died."""

    exit_code = 3


class SetUpError(BenchError):
    """A side of an A/B measurement that cannot be measured: its worktree, its interpreter, its plan."""

    exit_code = 3


class MissingFrameError(VideoError):
    """A frame that is not there, or lies behind damage; `frames` frames, from 0 on, can be read."""

    def __init__(self, message: str, *, frames: int) -> None:
        self.frames = frames
        super().__init__(message)

    def __reduce__(self) -> tuple[Any, ...]:
        return partial(type(self), frames=self.frames), self.args


class DatasetError(BenchError):
    """A data set that is missing, incomplete or changed."""


class StoreError(BenchError):
    """A results folder that cannot be read or is in use."""


def nearest(name: str, known: Iterable[str]) -> str:
    """`did you mean: a, b?` for near spellings, else nothing."""
    near = difflib.get_close_matches(name.lower(), sorted(known), n=3, cutoff=0.6)
    return f"did you mean: {', '.join(near)}?" if near else ""


def suggest(name: str, known: Iterable[str]) -> str:
    """`did you mean: a, b?` for near spellings, else the whole list where it is short."""
    known = sorted(known)
    if near := nearest(name, known):
        return near
    if len(known) <= 12:
        return f"allowed: {', '.join(known) or 'none'}"
    return f"{len(known)} are known, among them: {', '.join(known[:8])}, …"


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out: torch has a class for that on a GPU alone, libraries below it say it in words."""
    if isinstance(error, MemoryError) or "OutOfMemory" in type(error).__name__:
        return True
    is_of_device = isinstance(error, RuntimeError) or type(error).__module__.startswith("onnxruntime")
    return is_of_device and mentions_out_of_memory(str(error))


def mentions_out_of_memory(text: str) -> bool:
    """Whether what a device or an allocator said is that memory ran out."""
    return any(words in text.lower() for words in OUT_OF_MEMORY_MESSAGES)


def last_line(text: str, *, otherwise: str = "it said nothing") -> str:
    """The last line of what a process said, which is where its error stands."""
    return next(iter(reversed(text.strip().splitlines())), otherwise)
