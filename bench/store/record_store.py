"""The results folder of one suite: append, replace and repair its records. One JSON line per run of a case.

A record is on the disk before `append` returns.
"""

import fcntl
import json
import os
import socket
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from fnmatch import fnmatch
from pathlib import Path
from typing import BinaryIO

from bench.core.errors import StoreError
from bench.core.files import write_atomically
from bench.core.privacy import clean_file, without_secrets
from bench.core.schema import Json, Record
from bench.store.lines import (
    RunFacts,
    StoreWarning,
    is_newer,
    is_sound,
    parse_record,
    readable_lines,
    store_errors,
)
from bench.store.record_tables import read_runs, remember_sound, sound_prefix

RECORDS = "records.jsonl"
RECORD_FILES = "records*.jsonl"  # that of local runs, and one for each worker on a shared folder
WORKER_FILES = "records.*.jsonl"
DAMAGED = "records.damaged"
STAGED_TREES = ".staged"  # copies of working trees that jobs ran from; they may hold records of their own
SUITE_FILE = "suite.json"
DISCARDED = "discarded.jsonl"  # results of workers whose run another worker had taken over


def is_of_runs(name: str) -> bool:
    """Whether runs append to files of this name: a local run, or a worker of a shared folder."""
    return name == RECORDS or fnmatch(name, WORKER_FILES)


class FolderSharedError(StoreError):
    """A process of another machine holds the folder; this one may work at the same time."""


class RecordStore:
    """The results folder of one suite: records, artifacts, logs and the lock that keeps a second run out.

    A `worker` that shares the folder with others appends to a file of its own; all files are read.
    """

    def __init__(self, folder: Path, *, worker: str | None = None) -> None:
        self.folder = folder
        self.worker = worker
        self.file = folder / (RECORDS if worker is None else f"records.{worker}.jsonl")

    @classmethod
    def of(cls, file: Path) -> "RecordStore":
        """The store that appends to this records file."""
        store = cls(file.parent)
        store.file = file
        return store

    @property
    def files(self) -> list[Path]:
        """All records files of the folder, that of local runs first."""
        return sorted(self.folder.glob(RECORD_FILES), key=lambda file: (file.name != RECORDS, file.name))

    def artifacts(self, case_id: str) -> Path:
        return self.folder / "artifacts" / case_id

    def log(self, case_id: str) -> Path:
        return self.folder / "logs" / f"{case_id}.log"

    def log_sizes(self, case_id: str) -> dict[Path, int]:
        """The logs of a case, one for each rank, and their sizes in bytes."""
        files = [self.log(case_id)]  # not a glob, which reads the folder with the logs of all cases
        while files[-1].exists():
            files.append(self.log(case_id).with_suffix(f".rank{len(files)}.log"))
        return {file: file.stat().st_size for file in files[:-1]}

    def clean_logs(self, case_id: str, *, before: Mapping[Path, int], identify: bool) -> None:
        """Remove secrets from what was logged since the sizes `before`, and home folders and host names by default.

        A log that cannot be rewritten, on a full disk, is removed with a StoreWarning.
        """
        for file in self.log_sizes(case_id):
            try:
                clean_file(file, start=before.get(file, 0), identify=identify)
            except OSError as error:
                file.unlink(missing_ok=True)
                warnings.warn(f"{file} was removed, since it may hold secrets: {error}", StoreWarning, stacklevel=2)

    def append(self, record: Record) -> int:
        """Add one line and return its offset once it is on the disk; after an error the file is as it was."""
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
                return before

    def records_at(self, offsets: Iterable[int]) -> Iterator[Record]:
        """The records whose lines begin at these offsets."""
        with store_errors(self.file, "read"), self.file.open("rb") as lines:
            for offset in offsets:
                lines.seek(offset)
                yield parse_record(lines.readline())

    def discard(self, record: Record) -> None:
        """Keep a result that must not count, since another worker's result of the same run does."""
        discarded = RecordStore.of(self.folder / DISCARDED)
        discarded.append(record)

    def runs(self) -> list[RunFacts]:
        """The stored runs, in the order in which they were written; none if there is no file."""
        return [run for file in self.files for run in read_runs(file)]

    def records_of(self, runs: Iterable[RunFacts]) -> Iterator[Record]:
        """The whole records of these runs, without reading the others; lines that have changed since are left out."""
        with store_errors(self.folder, "read"), ExitStack() as opened:
            files: dict[str, BinaryIO] = {}
            for run in runs:
                if run.file not in files:
                    files[run.file] = opened.enter_context((self.folder / run.file).open("rb"))
                lines = files[run.file]
                lines.seek(run.offset)
                with suppress(StoreError):
                    record = without_secrets(parse_record(lines.readline()))
                    if (record.case_id, record.run_index) == (run.case_id, run.run_index):
                        yield record

    def repair(self) -> str | None:
        """Move damaged lines to `records.damaged`; returns what was done, None if nothing was.

        Records of a newer vbench stay. Only for the holder of the lock. Of a large file that was checked before, only
        the lines that were added are read as records.
        """
        if not self.file.is_file():
            return None
        damaged: dict[int, bytes] = {}  # by offset
        with store_errors(self.file, "read"), self.file.open("rb") as lines:
            sound = sound_prefix(self.file, lines)
            for line in lines:
                if not is_sound(line):
                    damaged[sound.size] = line
                sound.add(line)
            if not damaged:
                remember_sound(self.file, sound)
                return None
            lines.seek(0)
            offset, kept = 0, []
            for line in lines:
                if offset not in damaged:
                    kept.append(line)
                offset += len(line)
        with store_errors(self.folder, "written"):
            with (self.folder / DAMAGED).open("ab") as file:
                file.write(b"".join(line.removesuffix(b"\n") + b"\n" for line in damaged.values()))
                file.flush()
                os.fsync(file.fileno())
            write_atomically(self.file, b"".join(kept))
        what = "1 damaged line was" if len(damaged) == 1 else f"{len(damaged)} damaged lines were"
        return f"{self.file}: {what} moved to {DAMAGED}; {len(kept)} records stay"

    def raw_records(self) -> list[Record]:
        """The records as they are stored, secrets included; for cleaning the file alone."""
        return [record for _, record in readable_lines(self.file, parse_record)]

    def replace(self, records: Iterable[Record]) -> None:
        """Write these records in place of all others; unreadable lines go to `records.damaged` first.

        Raises StoreError for a file with records of a newer vbench, which would be lost. Only for the holder of the
        lock.
        """
        with store_errors(self.file, "read"):
            lines = self.file.read_bytes().splitlines()
        if any(is_newer(line) for line in lines):
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
        """Hold this folder for one run; StoreError at once if another process holds it.

        It is a FolderSharedError if that process is on another machine.
        """
        with store_errors(self.folder, "written"):
            self.folder.mkdir(parents=True, exist_ok=True)
            file = (self.folder / ".lock").open("a+")
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.seek(0)
                process, _, host = file.read().strip().partition(" ")
                if host and host != socket.gethostname():
                    raise FolderSharedError(f"{self.folder} is in use by process {process} of {host}") from None
                raise StoreError(
                    f"{self.folder} is in use by process {process or 'unknown'}; "
                    "wait for it, or give this run a folder of its own with --out"
                ) from None
            with store_errors(self.folder / ".lock", "written"):
                os.ftruncate(file.fileno(), 0)
                os.write(file.fileno(), f"{os.getpid()} {socket.gethostname()}".encode())
            yield


def _write_all(descriptor: int, content: bytes) -> None:
    while content:
        content = content[os.write(descriptor, content) :]
