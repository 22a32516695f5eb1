"""Exceptions for everything that a user can fix. Only `bench/cli` prints them and exits with their code.

BenchError
├── InputError                what the user wrote or gave is wrong                         exit 2
│   ├── UnknownNameError      an unknown model, measure, data set, section or argument
│   ├── NameClashError        two different things registered under one name
│   ├── SuiteError            every problem of one suite file, each with line and column
│   ├── ClipError             a clip that this model cannot take
│   ├── WeightsError          a checkpoint that cannot be used as weights of this model
│   └── MissingPackageError   an optional package is needed; says how to install it
├── VideoError                a file that cannot be decoded, or not to the requested frame  exit 3
│   └── MissingFrameError     a frame after the last readable one; says how many there are
├── TrainingError             a training or evaluation that cannot go on                    exit 3
├── DownloadError             a published file that cannot be had, or is not the published one  exit 3
├── SetUpError                a side of an A/B measurement that cannot be measured          exit 3
├── DatasetError              a data set that is missing, incomplete or changed           exit 2
└── StoreError                a results folder that cannot be read or is in use           exit 2
"""

import difflib
import signal
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

# Messages of allocators, cuBLAS, cuDNN and ONNX Runtime. cuDNN finds no engine if no algorithm's workspace fits.
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
    """One line for the user: the fault, the value that was found, the allowed values, and the next step.

    `page` is the page of docs/ that explains more, if there is one; `vbench help PAGE` prints it.
    """

    exit_code = 2
    page: ClassVar[str | None] = None


class StopSignal(KeyboardInterrupt):
    """SIGINT, SIGTERM or SIGHUP: the user or the cluster stops this process. Not an error, so no BenchError."""

    def __init__(self, number: int, detail: str = "") -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.signal = number
        self.detail = detail


class InputError(BenchError):
    """What the user wrote or gave is wrong."""


class UnknownNameError(InputError):
    """There is no `kind` called `name`; the message suggests the nearest spellings in `known`.

    With `of_parts`, `name` may have been meant as a part of a known name, such as a word of a title.
    """

    def __init__(self, kind: str, name: str, known: Iterable[str], *, where: str = "", of_parts: bool = False) -> None:
        self.kind, self.name, self.known = kind, name, sorted(known)
        place = f" in {where}" if where else ""
        near = nearest_part(name, self.known) if of_parts else ""
        super().__init__(f"unknown {kind} {name!r}{place}; {near or suggest(name, self.known)}")


class NameClashError(InputError):
    """Two different things registered under one name."""


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One thing wrong in a file; `line` and `column` count from 1, and are 0 if there is no file.

    `file` is set if it may be another file than the one that was read, such as a suite that it extends.
    """

    line: int
    column: int
    message: str
    file: str = ""

    def text(self, path: str) -> str:
        """The problem with its place, `path` if it names no file."""
        place = self.file or path
        return f"{place}:{self.line}:{self.column}: {self.message}" if self.line else f"{place}: {self.message}"


class SuiteError(InputError):
    """All problems of one suite file at once, each on a line `file:line:column: message`, or `option: message`."""

    page = "suites"

    def __init__(self, path: str, problems: Iterable[Problem]) -> None:
        self.path = path
        self.problems = sorted(problems, key=lambda p: (p.file not in ("", path), p.file, p.line, p.column))
        super().__init__("\n".join(p.text(path) for p in self.problems))


class ClipError(InputError):
    """A clip that this model cannot take; the message names the smallest one that works."""


class WeightsError(InputError):
    """A checkpoint that cannot be used as the weights of this model."""

    page = "published-checkpoint"


class MissingPackageError(InputError):
    """An optional package is needed."""

    def __init__(self, package: str, *, needed_for: str, install: str) -> None:
        super().__init__(f"{needed_for} needs {package}, which is not installed; install it with: {install}")


class VideoError(BenchError):
    """A file that cannot be decoded, or not to the requested frame; the message names file and frame."""

    exit_code = 3
    page = "data"


class TrainingError(BenchError):
    """A training or evaluation that cannot go on: a loss that is not finite, a full disk, a rank that died."""

    exit_code = 3
    page = "training"


class DownloadError(BenchError):
    """A published file that cannot be had, or is not the published one; the message says what to do."""

    exit_code = 3


class SetUpError(BenchError):
    """A side of an A/B measurement that cannot be measured: its worktree, its interpreter, its plan."""

    exit_code = 3
    page = "gate"


class MissingFrameError(VideoError):
    """A frame that does not exist or follows damage; the first `frames` frames can be read."""

    def __init__(self, message: str, *, frames: int) -> None:
        self.frames = frames
        super().__init__(message)

    def __reduce__(self) -> tuple[Any, ...]:
        return partial(type(self), frames=self.frames), self.args


class DatasetError(BenchError):
    """A data set that is missing, incomplete or changed."""

    page = "data-lists"


class StoreError(BenchError):
    """A results folder that cannot be read or is in use."""


def is_wrong_input(error_type: str) -> bool:
    """Whether an error, named by its type as records do, has the exit code of wrong input."""
    kinds = [BenchError]
    for kind in kinds:
        kinds += kind.__subclasses__()
    return any(kind.__name__ == error_type and kind.exit_code == InputError.exit_code for kind in kinds)


def nearest(name: str, known: Iterable[str]) -> str:
    """`did you mean: a, b?` if there are similar names, else an empty text."""
    names = {each.lower(): each for each in sorted(known)}
    near = difflib.get_close_matches(name.lower(), names, n=3, cutoff=0.6)
    return f"did you mean: {', '.join(names[each] for each in near)}?" if near else ""


def nearest_part(name: str, known: Iterable[str]) -> str:
    """`did you mean: a, b?` if `known` names hold as many words in a row that are similar, else an empty text."""
    length = max(1, len(name.split()))
    titles = [title.split() for title in known]
    parts = {" ".join(words[at : at + length]) for words in titles for at in range(len(words) - length + 1)}
    return nearest(name, parts)


def suggest(name: str, known: Iterable[str]) -> str:
    """`did you mean: a, b?` if there are similar names, else the known names or some of them."""
    known = sorted(known)
    if near := nearest(name, known):
        return near
    if len(known) <= 12:
        return f"allowed: {', '.join(known) or 'none'}"
    return f"{len(known)} are known, among them: {', '.join(known[:8])}, …"


def is_out_of_memory(error: BaseException) -> bool:
    """Whether `error` means that memory ran out. torch has an exception class only for GPUs; libraries use messages."""
    if isinstance(error, MemoryError) or "OutOfMemory" in type(error).__name__:
        return True
    is_of_device = isinstance(error, RuntimeError) or type(error).__module__.startswith("onnxruntime")
    return is_of_device and mentions_out_of_memory(str(error))


def mentions_out_of_memory(text: str) -> bool:
    """Whether the message of a device or an allocator means that memory ran out."""
    return any(words in text.lower() for words in OUT_OF_MEMORY_MESSAGES)


def has_too_few_clips(error: ValueError) -> bool:
    """Whether batch norm failed in training because it got a single value per channel."""
    return "more than 1 value per channel" in str(error)


def last_line(text: str, *, otherwise: str = "no output") -> str:
    """The last line that a process printed, which usually holds its error message."""
    return next(iter(reversed(text.strip().splitlines())), otherwise)
