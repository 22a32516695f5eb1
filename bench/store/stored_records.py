"""Reading the records of several files, folders and patterns, and what is stored of their suites."""

import glob
import json
import warnings
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, TypeAdapter, ValidationError
from typing_extensions import TypedDict  # pydantic needs this one before Python 3.12

from bench.core.errors import StoreError
from bench.core.files import path_hint
from bench.core.privacy import without_secrets
from bench.core.schema import Json, Record
from bench.core.validation import plain_message
from bench.store.lines import StoreWarning, parse_record, readable_lines, store_errors
from bench.store.record_store import RECORD_FILES, RECORDS, STAGED_TREES, SUITE_FILE

Source = str | Path | Iterable[str | Path]


class _AblationInfo(TypedDict, total=False):
    baseline: dict[str, Any] | None
    factors: list[str] | None


class _SuiteInfo(TypedDict, total=False):
    """What reports and comparisons read of a stored suite; older versions kept a list of planned cases."""

    gate: dict[str, Any] | None
    planned: dict[str, Annotated[int, Field(ge=0)]] | list[Any] | None
    ablate: _AblationInfo | None


@cache
def _suite_info() -> TypeAdapter[_SuiteInfo]:
    return TypeAdapter(_SuiteInfo)


def read_records(source: Source) -> list[Record]:
    """Records of files, of folders and all below them, or of glob patterns, in the order in which they were written.

    Lines that are no records are left out with a StoreWarning; a file without a single record is a StoreError.
    """
    return [record for file in files_of(source) for record in iter_records(file)]


def files_of(source: Source) -> list[Path]:
    """The records files of one source or of several, as `record_files` finds them."""
    sources = [source] if isinstance(source, str | Path) else list(source)
    return [file for item in sources for file in record_files(item)]


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
    try:
        _suite_info().validate_python(facts, strict=True)
    except ValidationError as error:
        problem = error.errors()[0]
        place = ".".join(part for part in map(str, problem["loc"]) if "[" not in part)  # not the types of a union
        what = f": {place}: {plain_message({**problem})}" if place else ""
        raise StoreError(f"{file} does not describe a suite{what}; run the suite again, or remove it") from None
    return dict(facts)


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
        hint = path_hint(source) or "; give a results folder, a records file or a pattern of them"
        raise StoreError(f"no {RECORDS} in {source}{hint}")
    return found


def _below(folder: Path) -> list[Path]:
    found = (file for file in folder.rglob(RECORD_FILES) if STAGED_TREES not in file.relative_to(folder).parts)
    return sorted(found, key=lambda file: (file.parent, file.name != RECORDS, file.name))


def _if_records(file: Path) -> list[Path]:
    return [file] if file.suffix == Path(RECORDS).suffix and file.is_file() else []


def iter_records(file: Path) -> Iterator[Record]:
    """Yield the records of one file without keeping them; otherwise as `read_records`."""
    cleaned = 0
    for _, record in readable_lines(file, parse_record):
        clean = without_secrets(record)
        cleaned += clean is not record
        yield clean
    if cleaned:
        which = "1 record" if cleaned == 1 else f"{cleaned} records"
        message = f"{file}: {which} with environment variables that may be secret; `vbench results scrub` removes them"
        warnings.warn(message, StoreWarning, stacklevel=4)
