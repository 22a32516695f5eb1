"""Writes a report again whenever its records change; open pages follow."""

from collections.abc import Callable
from pathlib import Path

from bench.core.errors import StoreError
from bench.core.schema import digest
from bench.reporting.site import write_live
from bench.store import record_files

INTERVAL_S = 1.0


def watch(
    source: str | Path | list[Path],
    *,
    out: Path,
    title: str | None = None,
    wait: Callable[[float], None],
    on_written: Callable[[Path], None],
) -> None:
    """Write the report of `source` now and after every change of its records, until `wait` raises an exception.

    `wait` is called with the seconds between two looks at the files. Raises what `report` raises for the first report;
    later errors, such as of a folder that is being replaced, are followed by another look.
    """
    sources = source if isinstance(source, list) else [source]
    before = ""
    while True:
        try:
            now = version_of(sources)
            if now != before:
                on_written(write_live(sources, out=out, title=title, version=now))
                before = now
        except StoreError:
            if not before:
                raise
        wait(INTERVAL_S)


def version_of(sources: list[str | Path] | list[Path]) -> str:
    """A text that changes with the names, sizes and times of the records files."""
    files = [file for source in sources for file in record_files(source)]
    states = [(str(file), state.st_size, state.st_mtime_ns) for file in files if (state := file.stat())]
    return digest([list(state) for state in states])
