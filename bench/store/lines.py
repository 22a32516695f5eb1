"""Lines of a records file: parsing, old versions, and what happens to lines that are damaged.

A line that cannot be read is left out with a StoreWarning that names it; all other records stay usable.
"""

import json
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Literal, NamedTuple, NotRequired, TypeVar, cast

from pydantic import Field, TypeAdapter, ValidationError
from typing_extensions import TypedDict  # pydantic needs this one before Python 3.12

from bench.core.errors import StoreError
from bench.core.files import reason_of
from bench.core.schema import GOOD_STATUSES, METRIC_NAME_PATTERN, SCHEMA_VERSION, Better, Record, Status

CURRENT = b'{"schema_version":%d,' % SCHEMA_VERSION  # how a record of this version begins
INT64 = 1 << 63
T = TypeVar("T")

# One small function per old version: it takes the raw line of version N and returns it as version N + 1.
MIGRATIONS: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {}


class StoreWarning(UserWarning):
    """Something in a results file was left out, such as a line that a crash cut off."""


class NewerVersionError(StoreError):
    """A record of a newer vbench, which is not damaged and must not be set aside."""


@contextmanager
def store_errors(path: Path, done: Literal["read", "written"]) -> Iterator[None]:
    """Turn an OSError into a StoreError that says where and why `path` cannot be `done`."""
    try:
        yield
    except OSError as error:
        target = error.filename2 if done == "written" else None  # of a copy, whose first name is that of the source
        raise StoreError(f"{target or error.filename or path} cannot be {done}: {reason_of(error)}") from None


def readable_lines(file: Path, parse: Callable[[bytes], T]) -> Iterator[tuple[int, T]]:
    """The offset in bytes of each line and the parsed line; a StoreWarning at the end for each one `parse` refuses.

    Raises StoreError if no line can be parsed, or if the file cannot be read.
    """
    problems: list[str] = []
    found = end = 0
    with store_errors(file, "read"), file.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            offset, end = end, end + len(line)
            if line.isspace():
                continue
            try:
                parsed = parse(complete(line))
            except StoreError as error:
                problems.append(f"{file}:{number}: {error}")
                continue
            found += 1
            yield offset, parsed
    report_problems(problems, found=found, stacklevel=5)


def report_problems(problems: list[str], *, found: int, stacklevel: int) -> None:
    """Warn of each line that was left out; raises StoreError for the first one if nothing was `found` otherwise."""
    if problems and not found:
        raise StoreError(problems[0])
    for problem in problems:
        warnings.warn(f"{problem}; it is left out", StoreWarning, stacklevel=stacklevel)


def complete(line: bytes) -> bytes:
    """The line itself; StoreError for the beginning of one."""
    if not line.endswith(b"\n"):
        raise StoreError("the last line was cut off by a crash")
    return line


def is_newer(line: bytes) -> bool:
    """Whether a line holds a record of a newer vbench."""
    try:
        parse_record(line)
    except NewerVersionError:
        return True
    except StoreError:
        return False
    return False


def is_sound(line: bytes) -> bool:
    """Whether a line is whole and holds a record, of this or of a newer vbench."""
    try:
        parse_record(line)
    except NewerVersionError:
        return True
    except StoreError:
        return False
    return line.endswith(b"\n")


def parse_record(line: bytes) -> Record:
    """One record of any known version; StoreError for anything else."""
    try:
        if line.startswith(CURRENT):
            return Record.model_validate_json(line)
        return Record.model_validate(_migrated(line))
    except (ValueError, RecursionError) as error:
        raise StoreError(f"not a record of vbench: {_reason(error)}") from None


class RunFacts(NamedTuple):
    """What planning needs of a stored run; read without building the whole record.

    `environment` holds only the facts that a plan compares with the present environment. `offset` is where the line
    begins in its `file`, in bytes. Many runs share one mapping or set of facts. A tuple, since a plan may read a
    hundred thousand of them.
    """

    case_id: str
    run_index: int
    freshness: str
    status: str
    measures: frozenset[str]
    seconds: float | None
    fingerprint: Mapping[str, str] = MappingProxyType({})
    environment: Mapping[str, object] = MappingProxyType({})
    offset: int = 0
    file: str = ""

    @property
    def is_good(self) -> bool:
        return self.status in GOOD_STATUSES


# A reader that needs few fields of many lines validates only those; the rest of a line is checked to be JSON. Whole
# records take four times as long, and models longer than the dictionaries of a TypedDict.


class CaseLine(TypedDict):
    suite: str
    point: dict[str, Any]
    measures: dict[str, Any]


class MetricLine(TypedDict):
    name: Annotated[str, Field(pattern=METRIC_NAME_PATTERN)]
    value: int | float | None
    unit: str
    better: NotRequired[Better | None]
    labels: NotRequired[dict[str, str]]
    interval: NotRequired[tuple[float | None, float | None] | None]


class EnvironmentLine(TypedDict):
    hardware: NotRequired[dict[str, Any]]
    software: NotRequired[dict[str, Any]]


class ErrorLine(TypedDict):
    type: str
    message: str


class SecondsLine(TypedDict):
    whole: NotRequired[float]


class RecordLine(TypedDict):
    """The fields of a line that planning, lists and data frames read."""

    case: CaseLine
    case_id: str
    run_index: Annotated[int, Field(ge=0, lt=INT64)]
    freshness: str
    fingerprint: NotRequired[dict[str, str]]
    status: Status
    started_at: str
    metrics: NotRequired[list[MetricLine]]
    environment: NotRequired[EnvironmentLine]
    error: NotRequired[ErrorLine | None]
    seconds: NotRequired[SecondsLine]


@cache
def _record_lines() -> TypeAdapter[RecordLine]:
    return TypeAdapter(RecordLine)


def parse_line(line: bytes) -> RecordLine:
    """The fields of a line that planning, lists and data frames read; StoreError for what is not a record."""
    parse = _record_lines().validator
    try:
        if line.startswith(CURRENT):
            return cast(RecordLine, parse.validate_json(line))  # the adapter's own method takes half of the time again
        return cast(RecordLine, parse.validate_python(_migrated(line)))
    except (ValueError, RecursionError) as error:
        raise StoreError(f"not a record of vbench: {_reason(error)}") from None


def _reason(error: Exception) -> str:
    if isinstance(error, ValidationError):
        return str(error.errors()[0]["msg"])
    return "it is nested too deeply" if isinstance(error, RecursionError) else str(error)


def _migrated(line: bytes) -> dict[str, Any]:
    """A line of an older version as the current one; NewerVersionError for a newer one."""
    raw = json.loads(line)
    if not isinstance(raw, dict) or type(raw.get("schema_version")) is not int:
        raise StoreError("not a record of vbench: it has no schema_version")
    while (version := raw["schema_version"]) != SCHEMA_VERSION:
        if version > SCHEMA_VERSION:
            raise NewerVersionError(
                f"records of version {version} cannot be read; this vbench reads up to {SCHEMA_VERSION}, "
                "a newer one wrote this file"
            )
        if version not in MIGRATIONS:
            raise StoreError(f"not a record of vbench: there is no schema version {version}")
        raw = MIGRATIONS[version](raw)
    return dict(raw)
