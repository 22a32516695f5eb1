"""Merges results folders: records, and the files that they name, each checked against its hash after the copy."""

import hashlib
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from bench.core.errors import StoreError
from bench.core.files import atomic_file
from bench.core.schema import Json, Record
from bench.store.lines import store_errors
from bench.store.record_store import SUITE_FILE, RecordStore
from bench.store.stored_records import Source, files_of, read_records

TRAININGS = "artifacts/training_*"  # finished and unfinished ones, which a later run reuses or goes on with


@dataclass(kw_only=True)
class Merged:
    """Numbers of records and files that a merge added, and a line for each file that it could not copy."""

    records: int = 0
    files: int = 0
    notes: list[str]


def merge_results(sources: Source, out: Path) -> Merged:
    """Add the records of several results folders to the folder `out`, with the files that they name.

    A run that both sides have is taken once. A file whose name is taken in `out` by another content gets a name with
    its hash, and the record names that. Trainings that `out` lacks are copied whole, so that they can go on there.
    Raises StoreError if a file cannot be read or written, or if another process holds `out`; what was added stays.
    """
    store = RecordStore(out)
    merged = Merged(notes=[])
    with store.lock():
        known = {_identity(record) for record in (read_records(store.files) if store.files else [])}
        for file in files_of(sources):
            new = {key: record for record in read_records(file) if (key := _identity(record)) not in known}
            if not new or file.parent.resolve() == out.resolve():
                continue
            known |= new.keys()
            copy = _Copy(file.parent, out, merged)
            copy.trainings()
            copy.suite()
            for record in new.values():
                store.append(copy.record(record))
                merged.records += 1
    return merged


def _identity(record: Record) -> tuple[str, int, str, str, str]:
    return record.case_id, record.run_index, record.started_at, record.status, str(record.session)


@dataclass(frozen=True)
class _Copy:
    """Copies what belongs to the records of the results folder `source` to the folder `out`."""

    source: Path
    out: Path
    merged: Merged

    def record(self, record: Record) -> Record:
        """The record with the names that its files have in `out`; files that are absent are no longer named."""
        artifacts = {name: placed for name, path in record.artifacts.items() if (placed := self._placed(path))}
        details = dict(record.details)
        weights = details.get("weights")
        if isinstance(weights, dict) and isinstance(weights.get("path"), str) and self._inside(str(weights["path"])):
            path: Json = self._placed(str(weights["path"]))
            details["weights"] = {**weights, "path": path or weights["path"]}
        return record.model_copy(update={"artifacts": artifacts, "details": details})

    def trainings(self) -> None:
        """Copy the trainings that `out` lacks, with the states from which they go on."""
        for folder in sorted(self.source.glob(TRAININGS)):
            if not (self.out / folder.relative_to(self.source)).exists():
                for file in _files(folder):
                    self._placed(str(file.relative_to(self.source)))

    def suite(self) -> None:
        """Copy what reports need of the suite; of two suites, that of the first folder stays, with a note."""
        source, target = self.source / SUITE_FILE, self.out / SUITE_FILE
        if not source.is_file():
            return
        if not target.is_file():
            self._copy(source, target, _sha256(source))
        elif _sha256(source) != _sha256(target):
            self.merged.notes.append(f"{source} describes another suite than {target}, which stays")

    def _inside(self, path: str) -> Path | None:
        """The file `path` of the source folder; None if there is none: a record may name any file of the host."""
        file = self.source / path
        try:
            is_inside = file.resolve().is_relative_to(self.source.resolve()) and not Path(path).is_absolute()
            return file if is_inside and ".." not in Path(path).parts and file.is_file() else None
        except (OSError, ValueError):  # no name that a file can have
            return None

    def _placed(self, path: str) -> str | None:
        """The name in `out` of the source folder's file `path`, copied if needed; None if there is no such file."""
        file = self._inside(path)
        if file is None:
            self.merged.notes.append(f"{self.source / path}: there is no such file in {self.source}")
            return None
        sha256, target = _sha256(file), self.out / path
        if target.exists() and _sha256(target) != sha256:
            target = target.with_name(f"{target.stem}-{sha256[:12]}{target.suffix}")
        if not target.exists():
            self._copy(file, target, sha256)
        return str(target.relative_to(self.out))

    def _copy(self, file: Path, target: Path, sha256: str) -> None:
        with store_errors(target, "written"), atomic_file(target) as unfinished:
            shutil.copyfile(file, unfinished)
            if _sha256(unfinished) != sha256:
                raise StoreError(f"{file} changed while it was copied to {target}; merge again when no run uses it")
        self.merged.files += 1


def _files(folder: Path) -> Iterator[Path]:
    """The files below `folder` but for locks and unfinished ones, whose names begin with a dot."""
    found: Iterable[Path] = (file for file in sorted(folder.rglob("*")) if file.is_file() and not file.is_symlink())
    return (file for file in found if not file.name.startswith("."))


def _sha256(file: Path) -> str:
    with store_errors(file, "read"), file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
