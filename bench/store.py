"""Records on disk: append, read, repair, migrate. One JSON line per run of a case, durable as soon as it is written.

A line that cannot be read is left out with a StoreWarning that names it; all other records stay usable.
"""

import fcntl
import glob
import json
import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from bench.core.errors import StoreError
from bench.core.files import write_atomically
from bench.core.privacy import without_secrets
from bench.core.schema import GOOD_STATUSES, SCHEMA_VERSION, Json, Record, Status

if TYPE_CHECKING:
    import pandas as pd

RECORDS = "records.jsonl"
DAMAGED = "records.damaged"
SUITE_FILE = "suite.json"
CURRENT = b'{"schema_version":%d,' % SCHEMA_VERSION  # how a record of this version begins
T = TypeVar("T")
Source = str | Path | Iterable[str | Path]

# One small function per old version: it takes the raw line of version N and returns it as version N + 1.
MIGRATIONS: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {}


class StoreWarning(UserWarning):
    """Something in a results file was left out, such as a line that a crash cut off."""


class NewerVersionError(StoreError):
    """A record of a newer vbench, which is not damaged and must not be set aside."""


@dataclass(frozen=True, kw_only=True)
class RunFacts:
    """What planning needs of a stored run; read without building the whole record."""

    case_id: str
    run_index: int
    freshness: str
    status: str
    measures: frozenset[str]
    seconds: float | None
    fingerprint: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_good(self) -> bool:
        return self.status in GOOD_STATUSES


class RecordStore:
    """The results folder of one suite: records, artifacts, logs and the lock that keeps a second run out."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.file = folder / RECORDS

    def artifacts(self, case_id: str) -> Path:
        return self.folder / "artifacts" / case_id

    def log(self, case_id: str) -> Path:
        return self.folder / "logs" / f"{case_id}.log"

    def append(self, record: Record) -> None:
        """Add one line and return once it is on the disk; after an error the file is as it was."""
        with store_errors(self.file, "written"):
            self.folder.mkdir(parents=True, exist_ok=True)
            with self.file.open("ab", buffering=0) as file:
                before = file.tell()
                try:
                    _write_all(file.fileno(), record.model_dump_json().encode() + b"\n")
                    os.fsync(file.fileno())
                except OSError:
                    with suppress(OSError):
                        os.ftruncate(file.fileno(), before)
                    raise

    def runs(self) -> Iterator[RunFacts]:
        """The stored runs, in the order in which they were written; none if there is no file."""
        if self.file.is_file():
            yield from (run for _, run in _readable(self.file, _parse_run))

    def repair(self) -> str | None:
        """Move damaged lines to `records.damaged`; returns what was done, None if nothing was.

        Records of a newer vbench stay. Only for the holder of the lock.
        """
        if not self.file.is_file():
            return None
        good: list[bytes] = []
        damaged: list[bytes] = []
        with store_errors(self.file, "read"), self.file.open("rb") as lines:
            for line in lines:
                (good if _is_sound(line) else damaged).append(line)
        if not damaged:
            return None
        with store_errors(self.folder, "written"):
            with (self.folder / DAMAGED).open("ab") as file:
                file.write(b"".join(line.removesuffix(b"\n") + b"\n" for line in damaged))
                file.flush()
                os.fsync(file.fileno())
            write_atomically(self.file, b"".join(good))
        what = "1 damaged line was" if len(damaged) == 1 else f"{len(damaged)} damaged lines were"
        return f"{self.file}: {what} moved to {DAMAGED}; {len(good)} records stay"

    def raw_records(self) -> list[Record]:
        """The records as they are stored, secrets included; for cleaning the file alone."""
        return [record for _, record in _readable(self.file, _parse)]

    def replace(self, records: Iterable[Record]) -> None:
        """Write these records in place of all others; unreadable lines go to `records.damaged` first.

        Raises StoreError for a file with records of a newer vbench, which would be lost. Only for the holder of the
        lock.
        """
        with store_errors(self.file, "read"):
            lines = self.file.read_bytes().splitlines()
        if any(_is_newer(line) for line in lines):
            raise StoreError(f"{self.file} has records of a newer vbench; use that one to change it")
        self.repair()
        with store_errors(self.file, "written"):
            write_atomically(self.file, b"".join(record.model_dump_json().encode() + b"\n" for record in records))

    def write_suite(self, facts: dict[str, Json]) -> None:
        """Store what reports need of the suite next to the records: name, title, ablation, its text."""
        with store_errors(self.folder, "written"):
            write_atomically(self.folder / SUITE_FILE, json.dumps(facts, indent=1, ensure_ascii=False))

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold this folder for one run; StoreError at once if another process holds it."""
        with store_errors(self.folder, "written"):
            self.folder.mkdir(parents=True, exist_ok=True)
            file = (self.folder / ".lock").open("a+")
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.seek(0)
                raise StoreError(
                    f"{self.folder} is in use by process {file.read().strip() or 'unknown'}; "
                    "wait for it, or give this run a folder of its own with --out"
                ) from None
            with store_errors(self.folder / ".lock", "written"):
                os.ftruncate(file.fileno(), 0)
                os.write(file.fileno(), str(os.getpid()).encode())
            yield


def latest_runs(records: Iterable[Record]) -> list[Record]:
    """Of the records of each run of a case, the first good one, else the last one; in their order.

    A run is named by its case, number and what it depends on: a result of older code is another run.
    """
    chosen: dict[tuple[str, int, str], Record] = {}
    for record in records:
        key = (record.case_id, record.run_index, record.freshness)
        if key not in chosen or not chosen[key].is_good:
            chosen.pop(key, None)
            chosen[key] = record
    return list(chosen.values())


def _write_all(descriptor: int, content: bytes) -> None:
    while content:
        content = content[os.write(descriptor, content) :]


@contextmanager
def store_errors(path: Path, done: Literal["read", "written"]) -> Iterator[None]:
    """Turn an OSError into a StoreError that says where and why `path` cannot be `done`."""
    try:
        yield
    except OSError as error:
        raise StoreError(f"{error.filename or path} cannot be {done}: {error.strerror or error}") from None


def read_records(source: Source) -> list[Record]:
    """Records of files, of folders and all below them, or of glob patterns, in the order in which they were written.

    Lines that are no records are left out with a StoreWarning; a file without a single record is a StoreError.
    """
    sources = [source] if isinstance(source, str | Path) else list(source)
    return [record for item in sources for file in record_files(item) for record in _read_file(file)]


def read_suite_info(folder: str | Path) -> dict[str, Json]:
    """What `RecordStore.write_suite` stored in this results folder; empty if there is nothing.

    Raises StoreError for a file of another form: a gate that it holds must not be lost in silence.
    """
    file = Path(folder) / SUITE_FILE
    try:
        with store_errors(file, "read"):
            facts = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    except (ValueError, RecursionError) as error:
        raise StoreError(f"{file} cannot be read: {error}; run the suite again, or remove it") from None
    if not isinstance(facts, dict) or not isinstance(facts.get("gate") or {}, dict):
        raise StoreError(f"{file} does not describe a suite; run the suite again, or remove it")
    return facts


def load_records(source: Source) -> "pd.DataFrame":
    """A data frame with one row per metric of every record under `source`.

    Columns: the axes of the case, `case_id`, `run_index`, `status`, `metric`, `labels`, `value`, `low`, `high`, `unit`,
    `better`, `started_at`, and `hardware` / `software` facts prefixed by those words. A record without metrics gives
    one row whose `metric` is null, so that failures are seen. Raises StoreError if there are no records.
    """
    import pandas as pd

    return pd.DataFrame([row for record in read_records(source) for row in _rows_of(record)])


def record_files(source: str | Path) -> list[Path]:
    """The records files of a file, of a folder and all below it, or of a glob pattern; StoreError if there is none.

    Other things that a pattern matches are skipped: folders without records, files of another kind.
    """
    path = Path(source)
    with store_errors(path, "read"):
        if path.is_file():
            found = [path]
        elif path.is_dir():
            found = _below(path)
        else:
            matches = [Path(match) for match in sorted(glob.glob(str(source), recursive=True))]
            held = [file for match in matches for file in (_below(match) if match.is_dir() else _if_records(match))]
            found = list(dict.fromkeys(held))
    if not found:
        raise StoreError(f"no {RECORDS} in {source}; give a results folder, a records file or a pattern of them")
    return found


def _below(folder: Path) -> list[Path]:
    return sorted(folder.rglob(RECORDS))


def _if_records(file: Path) -> list[Path]:
    return [file] if file.suffix == Path(RECORDS).suffix and file.is_file() else []


def _read_file(file: Path) -> Iterator[Record]:
    cleaned = 0
    for _, record in _readable(file, _parse):
        clean = without_secrets(record)
        cleaned += clean is not record
        yield clean
    if cleaned:
        which = "1 record" if cleaned == 1 else f"{cleaned} records"
        message = f"{file}: {which} with environment variables that may be secret; `vbench results scrub` removes them"
        warnings.warn(message, StoreWarning, stacklevel=4)


def _readable(file: Path, parse: Callable[[bytes], T]) -> Iterator[tuple[int, T]]:
    """Line numbers and parsed lines of a file; a StoreWarning for each line that `parse` refuses."""
    problems: list[str] = []
    found = 0
    with store_errors(file, "read"), file.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                if not line.endswith(b"\n"):
                    raise StoreError("the last line was cut off by a crash")
                parsed = parse(line)
            except StoreError as error:
                problems.append(f"{file}:{number}: {error}")
                continue
            found += 1
            yield number, parsed
    if problems and not found:
        raise StoreError(problems[0])
    for problem in problems:
        warnings.warn(f"{problem}; it is left out", StoreWarning, stacklevel=5)


def _is_newer(line: bytes) -> bool:
    try:
        _parse(line)
    except NewerVersionError:
        return True
    except StoreError:
        return False
    return False


def _is_sound(line: bytes) -> bool:
    try:
        _parse(line)
    except NewerVersionError:
        return True
    except StoreError:
        return False
    return line.endswith(b"\n")


def _parse(line: bytes) -> Record:
    """One record of any known version; StoreError for anything else."""
    try:
        if line.startswith(CURRENT):
            return Record.model_validate_json(line)
        return Record.model_validate(_migrated(line))
    except (ValueError, RecursionError) as error:
        raise StoreError(f"not a record of vbench: {_reason(error)}") from None


class _StoredCase(BaseModel):
    measures: dict[str, Any]


class _StoredRun(BaseModel):
    """The few fields of a record that planning reads; the rest is checked to be JSON and dropped."""

    model_config = ConfigDict(extra="ignore")

    case: _StoredCase
    case_id: str
    run_index: int
    freshness: str
    fingerprint: dict[str, str] = Field(default_factory=dict)
    status: Status
    seconds: dict[str, float] = Field(default_factory=dict)


def _parse_run(line: bytes) -> RunFacts:
    try:
        if line.startswith(CURRENT):
            run = _StoredRun.model_validate_json(line)
        else:
            run = _StoredRun.model_validate(_migrated(line))
    except (ValueError, RecursionError) as error:
        raise StoreError(f"not a record of vbench: {_reason(error)}") from None
    return RunFacts(
        case_id=run.case_id,
        run_index=run.run_index,
        freshness=run.freshness,
        status=run.status,
        measures=frozenset(run.case.measures),
        seconds=run.seconds.get("whole"),
        fingerprint=run.fingerprint,
    )


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


def _rows_of(record: Record) -> Iterator[dict[str, Any]]:
    facts = {
        **record.case.point.named(),
        "suite": record.case.suite,
        "case_id": record.case_id,
        "run_index": record.run_index,
        "status": record.status,
        "started_at": record.started_at,
        **{f"hardware.{k}": v for k, v in record.environment.hardware.items()},
        **{f"software.{k}": v for k, v in record.environment.software.items()},
    }
    if not record.metrics:
        yield {**facts, "metric": None}
    for metric in record.metrics:
        low, high = metric.interval or (None, None)
        yield {
            **facts,
            "metric": metric.name,
            "labels": ",".join(f"{k}={v}" for k, v in sorted(metric.labels.items())),
            "value": metric.value,
            "low": low,
            "high": high,
            "unit": metric.unit,
            "better": metric.better,
        }
