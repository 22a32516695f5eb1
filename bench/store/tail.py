"""Follows the records files of a folder while workers append to them."""

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from bench.core.errors import StoreError
from bench.core.schema import Record
from bench.store.lines import parse_record, store_errors
from bench.store.record_store import RECORD_FILES


class RecordTail:
    """Returns the records that were appended since it was made, each once; or since `marks`, sizes of files by name."""

    def __init__(self, folder: Path, *, marks: Mapping[str, int] | None = None) -> None:
        self.folder = folder
        self._read = dict(file_sizes(folder) if marks is None else marks)

    def new_records(self) -> list[Record]:
        """Return the records since the last call; a line that is still being written comes with the next one."""
        found: list[Record] = []
        with store_errors(self.folder, "read"):
            for file in sorted(self.folder.glob(RECORD_FILES)):
                start = self._read.get(file.name, 0)
                if file.stat().st_size <= start:
                    continue
                with file.open("rb") as opened:
                    opened.seek(start)
                    whole, newline, _ = opened.read().rpartition(b"\n")
                self._read[file.name] = start + len(whole) + len(newline)
                for line in whole.splitlines():
                    with suppress(StoreError):  # damaged: readers of the folder warn about it
                        found.append(parse_record(line))
        return found


def file_sizes(folder: Path) -> dict[str, int]:
    """Return the present size of every records file of a folder, in bytes."""
    return {file.name: file.stat().st_size for file in folder.glob(RECORD_FILES)}
