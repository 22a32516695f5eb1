"""Follows the records files of a folder while workers append to them."""

from contextlib import suppress
from pathlib import Path

from bench.core.errors import StoreError
from bench.core.schema import Record
from bench.store.lines import parse_record, store_errors

RECORD_FILES = "records*.jsonl"  # that of a local run, and one for each worker


class RecordTail:
    """Returns the records that were appended since it was made, each once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._read = {file: file.stat().st_size for file in folder.glob(RECORD_FILES)}

    def new_records(self) -> list[Record]:
        """Return the records since the last call; a line that is still being written comes with the next one."""
        found: list[Record] = []
        with store_errors(self.folder, "read"):
            for file in sorted(self.folder.glob(RECORD_FILES)):
                start = self._read.get(file, 0)
                if file.stat().st_size <= start:
                    continue
                with file.open("rb") as opened:
                    opened.seek(start)
                    whole, newline, _ = opened.read().rpartition(b"\n")
                self._read[file] = start + len(whole) + len(newline)
                for line in whole.splitlines():
                    with suppress(StoreError):  # damaged: readers of the folder warn about it
                        found.append(parse_record(line))
        return found
