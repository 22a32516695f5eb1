"""Records on disk: append, read, migrate. One JSON line per run of a case, durable the moment it is written."""

import fcntl
import glob
import json
import os
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import ValidationError

from bench.core.errors import StoreError
from bench.core.files import write_atomically
from bench.core.schema import SCHEMA_VERSION, Json, Record

if TYPE_CHECKING:
    import pandas as pd

RECORDS = "records.jsonl"
SUITE_FILE = "suite.json"
Source = str | Path | Iterable[str | Path]

# One small function per old version: it takes the raw line of version N and returns it as version N + 1.
MIGRATIONS: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {}


class StoreWarning(UserWarning):
    """A results file was read with something missing, such as a last line cut off by a crash."""


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
        """Add one line and return once it is on the disk."""
        with store_errors(self.file, "written"):
            self.folder.mkdir(parents=True, exist_ok=True)
            with self.file.open("ab") as file:
                file.write(record.model_dump_json().encode() + b"\n")
                file.flush()
                os.fsync(file.fileno())

    def repair(self) -> str | None:
        """Move a last line that a crash cut off into `records.torn`; says what was done, or None."""
        if not self.file.is_file():
            return None
        content = self.file.read_bytes()
        if not content or content.endswith(b"\n"):
            return None
        whole = content.rfind(b"\n") + 1
        with (self.folder / "records.torn").open("ab") as torn:
            torn.write(content[whole:] + b"\n")
        os.truncate(self.file, whole)
        return (
            f"{self.file}: the last line was cut off by a crash; its {len(content) - whole} bytes are in records.torn"
        )

    def write_suite(self, facts: dict[str, Json]) -> None:
        """Keep what reports need of the suite beside the records: name, title, ablation, its own text."""
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
            file.truncate(0)
            file.write(str(os.getpid()))
            file.flush()
            yield


@contextmanager
def store_errors(path: Path, done: Literal["read", "written"]) -> Iterator[None]:
    """What the system refuses while `path` is `done`, as a StoreError that says where and why."""
    try:
        yield
    except OSError as error:
        raise StoreError(f"{error.filename or path} cannot be {done}: {error.strerror or error}") from None


def read_records(source: Source) -> list[Record]:
    """Records of files, of folders and all below them, or of glob patterns, in the order they were written.

    A last line cut off by a crash is left out with a StoreWarning; any other bad line is a StoreError that names it.
    """
    sources = [source] if isinstance(source, str | Path) else list(source)
    return [record for item in sources for file in record_files(item) for record in _read_file(file)]


def read_suite_info(folder: str | Path) -> dict[str, Json]:
    """What `RecordStore.write_suite` kept in this results folder; empty if there is nothing.

    StoreError for a file that is not of that form: a gate that stands there must not be lost in silence.
    """
    file = Path(folder) / SUITE_FILE
    try:
        with store_errors(file, "read"):
            facts = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    except ValueError as error:
        raise StoreError(f"{file} cannot be read: {error}; run the suite again, or remove it") from None
    if not isinstance(facts, dict) or not isinstance(facts.get("gate") or {}, dict):
        raise StoreError(f"{file} is not what a suite leaves in its results; run the suite again, or remove it")
    return facts


def load_records(source: Source) -> "pd.DataFrame":
    """One row per metric of every record under `source`.

    Columns: the axes of the case, `case_id`, `run_index`, `status`, `metric`, `labels`, `value`, `low`, `high`, `unit`,
    `better`, `started_at`, and `hardware` / `software` facts prefixed by those words. A record without metrics gives
    one row whose `metric` is null, so that failures are seen.
    """
    import pandas as pd

    return pd.DataFrame([row for record in read_records(source) for row in _rows_of(record)])


def record_files(source: str | Path) -> list[Path]:
    """The records files of a file, of a folder and all below it, or of a glob pattern; StoreError if there is none.

    What a pattern matches beside them is passed over: folders without records, files of another kind.
    """
    path = Path(source)
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
    with store_errors(file, "read"), file.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.endswith(b"\n"):
                message = f"{file}:{number}: the last line was cut off by a crash and is left out"
                warnings.warn(message, StoreWarning, stacklevel=3)
                return
            if line.strip():
                yield _parse(line, where=f"{file}:{number}")


def _parse(line: bytes, *, where: str) -> Record:
    """One record of any known version."""
    current = b'{"schema_version":%d,' % SCHEMA_VERSION
    try:
        if line.startswith(current):
            return Record.model_validate_json(line)
        return Record.model_validate(_migrated(json.loads(line), where=where))
    except (ValidationError, ValueError) as error:
        reason = error.errors()[0]["msg"] if isinstance(error, ValidationError) else str(error)
        raise StoreError(f"{where}: not a record of vbench: {reason}") from None


def _migrated(raw: Any, *, where: str) -> dict[str, Any]:
    if not isinstance(raw, dict) or not isinstance(raw.get("schema_version"), int):
        raise StoreError(f"{where}: not a record of vbench: it has no schema_version")
    while (version := raw["schema_version"]) != SCHEMA_VERSION:
        if version not in MIGRATIONS:
            raise StoreError(
                f"{where}: records of version {version} cannot be read; this vbench reads up to {SCHEMA_VERSION}, "
                "a newer one wrote this file"
            )
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
