"""Records files as columns: a table of records and one of metrics, with a cache for large files.

The cache holds what was parsed of a prefix of the file, together with the SHA-256 of that prefix, and is used only if
the file still begins with it: lines that were appended are parsed and added, any other change parses the file again.
It may be deleted at any time.
"""

import hashlib
import io
import marshal
import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO, NotRequired

from pydantic import BaseModel, Field, TypeAdapter, ValidationError
from typing_extensions import TypedDict  # pydantic needs this one before Python 3.12

from bench.core import schema
from bench.core.errors import StoreError
from bench.core.files import cache_folder, write_atomically
from bench.core.schema import METRIC_NAME_PATTERN, Better, Json, Point, Status
from bench.store.lines import complete, parse_part, report_problems, store_errors

if TYPE_CHECKING:
    import pyarrow as pa

CACHED_FROM_BYTES = 4 << 20  # smaller files are parsed faster than a cache is checked
BATCH = 20_000  # records whose columns are Python lists at a time
HASH_BLOCK = 1 << 20
INT64 = 1 << 63
FACTS = "facts.json"


class _CaseLine(TypedDict):
    suite: str
    point: dict[str, Any]


class _MetricLine(TypedDict):
    name: Annotated[str, Field(pattern=METRIC_NAME_PATTERN)]
    value: int | float | None
    unit: str
    better: NotRequired[Better | None]
    labels: NotRequired[dict[str, str]]
    interval: NotRequired[tuple[float | None, float | None] | None]


class _EnvironmentLine(TypedDict):
    hardware: NotRequired[dict[str, Any]]
    software: NotRequired[dict[str, Any]]


class _ErrorLine(TypedDict):
    type: str
    message: str


class _SecondsLine(TypedDict):
    whole: NotRequired[float]


class _Line(TypedDict):
    case: _CaseLine
    case_id: str
    run_index: Annotated[int, Field(ge=0, lt=INT64)]
    freshness: str
    status: Status
    started_at: str
    metrics: NotRequired[list[_MetricLine]]
    environment: NotRequired[_EnvironmentLine]
    error: NotRequired[_ErrorLine | None]
    seconds: NotRequired[_SecondsLine]


@cache
def _lines() -> TypeAdapter[_Line]:
    return TypeAdapter(_Line)


@cache
def _schemas() -> "dict[str, pa.Schema]":
    import pyarrow as pa

    text, number, whole = pa.string(), pa.float64(), pa.int64()
    return {
        "records": pa.schema(
            {
                **dict.fromkeys(("suite", "case_id"), text),
                "run_index": whole,
                **dict.fromkeys(("status", "started_at", "freshness", "error_type", "error_message"), text),
                "seconds": number,
                **dict.fromkeys(("point", "environment"), pa.int32()),
            }
        ),
        "metrics": pa.schema(
            {
                "record": pa.int32(),
                **dict.fromkeys(("metric", "labels"), text),
                **{"value": number, "integer": whole, "low": number, "high": number},
                **dict.fromkeys(("unit", "better"), text),
            }
        ),
    }


@dataclass(frozen=True, kw_only=True)
class RecordTables:
    """The records of a file as columns.

    `records` has a row for each record; its columns `point` and `environment` are positions in `points`, the axes of
    cases by name, and in `environments`, facts by `hardware.<name>` and `software.<name>`. `metrics` has a row for each
    metric; `record` is the row of its record. Whole numbers are in `integer`, all other values in `value`.
    """

    records: "pa.Table"
    metrics: "pa.Table"
    points: Sequence[Mapping[str, Json]]
    environments: Sequence[Mapping[str, Json]]


def read_tables(file: Path) -> RecordTables:
    """The records of one file as columns; a StoreWarning for each line that is left out.

    Raises StoreError if the file cannot be read or no line of it is a record.
    """
    with store_errors(file, "read"), file.open("rb") as stream:
        is_large = file.stat().st_size >= CACHED_FROM_BYTES
        parsed = (_read_cache(file, stream) if is_large else None) or _Parsed()
        cached_bytes = parsed.size
        stream.seek(cached_bytes)
        cut_off = parsed.add(stream)
    if is_large and parsed.size > cached_bytes:
        _write_cache(file, parsed)
    problems = [*parsed.problems, *([(parsed.lines + 1, cut_off)] if cut_off else [])]
    report_problems(
        [f"{file}:{number}: {problem}" for number, problem in problems], found=parsed.records.num_rows, stacklevel=5
    )
    return RecordTables(
        records=parsed.records,
        metrics=parsed.metrics,
        points=parsed.points.values,
        environments=[
            {f"{kind}.{name}": value for kind, facts in environment.items() for name, value in facts.items()}
            for environment in parsed.environments.values
        ],
    )


class _Distinct:
    """The distinct ones of many JSON values, each with its position. 1, 1.0 and true are three values."""

    def __init__(self, values: Sequence[Any] = ()) -> None:
        self.values = list(values)
        self._places = {marshal.dumps(value, 2): place for place, value in enumerate(self.values)}

    def place(self, value: Any) -> int:
        # Version 2 of marshal has no references, so equal values have equal bytes. It is faster than repr.
        key = marshal.dumps(value, 2)
        if (place := self._places.get(key)) is None:
            place = self._places[key] = len(self.values)
            self.values.append(value)
        return place


class _Parsed:
    """What was parsed of the first `size` bytes of a file, which are `lines` whole lines."""

    def __init__(self) -> None:
        schemas = _schemas()
        self.size = self.lines = 0
        self.sha256 = hashlib.sha256()
        self.records, self.metrics = schemas["records"].empty_table(), schemas["metrics"].empty_table()
        self.points, self.environments = _Distinct(), _Distinct()
        self.problems: list[tuple[int, str]] = []
        self._raw_points, self._places = _Distinct(), list[int]()

    def add(self, stream: BinaryIO) -> str | None:
        """Parse the lines that follow; returns what is wrong with the last one if it is not whole."""
        records, metrics = [self.records], [self.metrics]
        found, cut_off = self.records.num_rows, None
        while batch := list(islice(stream, BATCH)):
            rows: list[tuple[Any, ...]] = []
            metric_rows: list[tuple[Any, ...]] = []
            for line in batch:
                try:
                    complete(line)
                except StoreError as error:
                    cut_off = str(error)
                    break
                self.sha256.update(line)
                self.size, self.lines = self.size + len(line), self.lines + 1
                try:
                    row = None if line.isspace() else self._row(parse_part(line, _lines()))
                except StoreError as error:
                    self.problems.append((self.lines, str(error)))
                    continue
                if row is not None:
                    metric_rows += (_metric_row(found + len(rows), metric) for metric in row[1])
                    rows.append(row[0])
            records.append(_table("records", rows))
            metrics.append(_table("metrics", metric_rows))
            found += len(rows)
        self.records, self.metrics = _joined(records), _joined(metrics)
        return cut_off

    def _row(self, line: _Line) -> tuple[tuple[Any, ...], list[_MetricLine]]:
        """The row of one record, and its metrics. Raises StoreError for a point of an unknown form."""
        raw, error = line["case"]["point"], line.get("error")
        place = self._raw_points.place(raw)
        if place == len(self._places):
            self._places.append(self.points.place(_named(raw)))
        row = (
            line["case"]["suite"],
            line["case_id"],
            line["run_index"],
            line["status"],
            line["started_at"],
            line["freshness"],
            error and error["type"],
            error and error["message"],
            line.get("seconds", {}).get("whole"),
            self._places[place],
            self.environments.place(line.get("environment", {})),
        )
        return row, line.get("metrics", [])


def _named(raw: dict[str, Any]) -> dict[str, Json]:
    try:
        return Point.model_validate(raw).named()
    except ValidationError as error:
        raise StoreError(f"not a record of vbench: {error.errors()[0]['msg']}") from None


def _metric_row(record: int, metric: _MetricLine) -> tuple[Any, ...]:
    value, labels = metric["value"], metric.get("labels")
    low, high = metric.get("interval") or (None, None)
    is_whole = isinstance(value, int) and -INT64 <= value < INT64
    return (
        record,
        metric["name"],
        ",".join(f"{k}={v}" for k, v in sorted(labels.items())) if labels else "",
        None if is_whole else _finite(value),
        value if is_whole else None,
        *((None, None) if low is None or high is None else (low, high)),
        metric["unit"],
        metric.get("better"),
    )


def _finite(value: float | None) -> float | None:
    try:
        return None if value is None or not math.isfinite(value) else float(value)
    except OverflowError:  # a whole number that no float can hold
        return None


def _table(name: str, rows: list[tuple[Any, ...]]) -> "pa.Table":
    import pyarrow as pa

    fields = _schemas()[name]
    columns = zip(*rows, strict=True) if rows else [()] * len(fields)
    return pa.table([pa.array(c, f.type) for c, f in zip(columns, fields, strict=True)], schema=fields)


def _joined(tables: "list[pa.Table]") -> "pa.Table":
    import pyarrow as pa

    return pa.concat_tables(tables)


class _CacheFacts(BaseModel):
    """The part of a cache that is no table. `tables` holds the SHA-256 of each Parquet file."""

    version: str
    size: int
    lines: int
    sha256: str
    tables: dict[str, str]
    points: list[dict[str, Any]]
    environments: list[dict[str, Any]]
    problems: list[tuple[int, str]]


@cache
def _version() -> str:
    """Changes with the code that fills a cache."""
    sources = [Path(schema.__file__), *(Path(__file__).with_name(name) for name in ("lines.py", "record_tables.py"))]
    return hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()


def _cache_of(file: Path) -> Path:
    return cache_folder() / "records" / hashlib.sha256(bytes(file.resolve())).hexdigest()[:16]


def _read_cache(file: Path, stream: BinaryIO) -> _Parsed | None:
    """What the cache holds of the beginning of this file; None if there is no cache, or it is not of this file."""
    import pyarrow.parquet

    folder = _cache_of(file)
    try:
        facts = _CacheFacts.model_validate_json((folder / FACTS).read_bytes())
        contents = {name: (folder / f"{name}.parquet").read_bytes() for name in _schemas()}
        if facts.version != _version() or facts.tables != {name: _digest(c) for name, c in contents.items()}:
            return None
        tables = {name: pyarrow.parquet.read_table(io.BytesIO(content)) for name, content in contents.items()}
    except (OSError, ValueError):  # damaged or unreadable; ArrowInvalid and ValidationError are ValueErrors
        return None
    parsed = _Parsed()
    left = facts.size
    while left > 0 and (block := stream.read(min(left, HASH_BLOCK))):
        parsed.sha256.update(block)
        left -= len(block)
    if left or parsed.sha256.hexdigest() != facts.sha256:
        return None
    parsed.size, parsed.lines, parsed.problems = facts.size, facts.lines, facts.problems
    parsed.records, parsed.metrics = tables["records"], tables["metrics"]
    parsed.points, parsed.environments = _Distinct(facts.points), _Distinct(facts.environments)
    return parsed


def _write_cache(file: Path, parsed: _Parsed) -> None:
    """Store what was parsed; an error of the system is ignored, since a cache can be computed again."""
    import pyarrow.parquet

    folder = _cache_of(file)
    tables: dict[str, str] = {}
    with suppress(OSError):
        for name, table in (("records", parsed.records), ("metrics", parsed.metrics)):
            content = io.BytesIO()
            pyarrow.parquet.write_table(table, content, compression="zstd")
            tables[name] = _digest(content.getbuffer())
            write_atomically(folder / f"{name}.parquet", content.getvalue())
        facts = _CacheFacts(
            version=_version(),
            size=parsed.size,
            lines=parsed.lines,
            sha256=parsed.sha256.hexdigest(),
            tables=tables,
            points=parsed.points.values,
            environments=parsed.environments.values,
            problems=parsed.problems,
        )
        write_atomically(folder / FACTS, facts.model_dump_json())


def _digest(content: "bytes | memoryview") -> str:
    return hashlib.sha256(content).hexdigest()
