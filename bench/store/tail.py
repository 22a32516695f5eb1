"""Follows the records files of a folder while workers append to them."""

import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from bench.core.errors import StoreError
from bench.core.schema import Record
from bench.store.lines import parse_record, store_errors
from bench.store.record_store import RECORD_FILES


class RecordTail:
    """Returns new records, each once: those after this object was made, or after `marks`, sizes of files by name."""

    def __init__(self, folder: Path, *, marks: Mapping[str, int] | None = None) -> None:
        self.folder = folder
        self._read = dict(file_sizes(folder) if marks is None else marks)

    def new_records(self) -> list[Record]:
        """Return the records since the last call; a line that is still being written comes with the next one."""
        found: list[Record] = []
        for line in self._new_lines():
            with suppress(StoreError):  # damaged: readers of the folder warn about it
                found.append(parse_record(line))
        return found

    def new_runs(self) -> list[tuple[str, int, str]]:
        """Return case id, run index and status of the records since the last call, without checking the rest."""
        found: list[tuple[str, int, str]] = []
        for line in self._new_lines():
            with suppress(ValueError, TypeError, KeyError, OverflowError, RecursionError):
                raw = json.loads(line)
                found.append((str(raw["case_id"]), int(raw["run_index"]), str(raw["status"])))
        return found

    def _new_lines(self) -> Iterator[bytes]:
        with store_errors(self.folder, "read"):
            for file in sorted(self.folder.glob(RECORD_FILES)):
                start = self._read.get(file.name, 0)
                if file.stat().st_size <= start:
                    continue
                with file.open("rb") as opened:
                    opened.seek(start)
                    whole, newline, _ = opened.read().rpartition(b"\n")
                self._read[file.name] = start + len(whole) + len(newline)
                yield from whole.splitlines()


def file_sizes(folder: Path) -> dict[str, int]:
    """Return the present size of every records file of a folder, in bytes."""
    return {file.name: file.stat().st_size for file in folder.glob(RECORD_FILES)}
