"""Records files as columns: a table of records and one of metrics, with a cache for large files.

The cache holds what was parsed of a prefix of the file, together with the SHA-256 of that prefix, and is used only if
the file still begins with it: lines that were appended are parsed and added, any other change parses the file again.
It may be deleted at any time. Planning reads the same columns, so that it parses no line twice.
"""

import hashlib
import io
import marshal
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cache
from itertools import islice, repeat
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, get_args

from pydantic import BaseModel, ValidationError

from bench.core import schema
from bench.core.errors import StoreError
from bench.core.files import cache_folder, write_atomically, write_cache
from bench.core.schema import Json, Point
from bench.store.lines import (
    INT64,
    MetricLine,
    RecordLine,
    RunFacts,
    complete,
    parse_line,
    readable_lines,
    report_problems,
    store_errors,
)

if TYPE_CHECKING:
    import pyarrow as pa

CACHED_FROM_BYTES = 4 << 20  # smaller files are parsed faster than a cache is checked
BATCH = 20_000  # records whose columns are Python lists at a time
HASH_BLOCK = 1 << 20
FACTS_FILE, SOUND_FILE = "facts.json", "sound.json"


# What many records share is stored once; their rows hold its position.
Facts = Literal["point", "environment", "fingerprint", "measures"]
FACTS: tuple[Facts, ...] = get_args(Facts)
# Facts that a plan shows if stored results have other ones; they do not make results stale.
PLANNED = {
    "software": ("python", "torch", "torchvision", "timm", "transformers"),
    "hardware": ("gpu", "gpu_driver", "cpu"),
}


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
                "offset": whole,
                **dict.fromkeys(FACTS, pa.int32()),
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


class RecordTables:
    """The records of a file as columns.

    `records` has a row for each record; `offset` is where its line begins in the file, in bytes, and the columns of
    `FACTS` are positions in `facts`: the axes of cases by name, environments (`hardware` and `software`), fingerprints,
    and lists of measures. `metrics` has a row for each metric; `record` is the row of its record. Whole numbers are in
    `integer`, all other values in `value`.
    """

    def __init__(self, parsed: "_Parsed") -> None:
        self._parsed = parsed
        self.facts: Mapping[Facts, Sequence[Any]] = {kind: known.values for kind, known in parsed.facts.items()}

    @property
    def records(self) -> "pa.Table":
        return self._parsed.table("records")

    @property
    def metrics(self) -> "pa.Table":
        return self._parsed.table("metrics")


def read_tables(file: Path) -> RecordTables:
    """The records of one file as columns; a StoreWarning for each line that is left out.

    Raises StoreError if the file cannot be read or no line of it is a record.
    """
    with store_errors(file, "read"), file.open("rb") as stream:
        is_large = file.stat().st_size >= CACHED_FROM_BYTES
        parsed = (_read_cache(file, stream) if is_large else None) or _Parsed()
        cached_lines = parsed.lines
        stream.seek(parsed.prefix.size)
        cut_off = parsed.add(stream)
    if is_large and parsed.lines > cached_lines:
        _write_cache(file, parsed)
    problems = [*parsed.problems, *([(parsed.lines + 1, cut_off)] if cut_off else [])]
    report_problems(
        [f"{file}:{number}: {problem}" for number, problem in problems],
        found=parsed.table("records").num_rows if problems else 0,
        stacklevel=5,
    )
    return RecordTables(parsed)


def read_runs(file: Path) -> list[RunFacts]:
    """What planning needs of each record of one file, in order; warnings and errors are those of `read_tables`."""
    with store_errors(file, "read"):
        is_small = file.stat().st_size < CACHED_FROM_BYTES
    if is_small:  # needs no pyarrow
        return [_run_of_line(line, offset, file.name) for offset, line in readable_lines(file, parse_line)]
    tables = read_tables(file)
    shared = {**tables.facts, "environment": [_planned_facts(facts) for facts in tables.facts["environment"]]}
    shared["measures"] = [frozenset(names) for names in tables.facts["measures"]]
    columns = []
    for name in RunFacts._fields[:-1]:
        column = python_values(tables.records[name])
        columns.append([shared[name][place] for place in column] if name in shared else column)
    return list(map(RunFacts._make, zip(*columns, repeat(file.name), strict=False)))


def read_values(file: Path, metric: str) -> Iterator[tuple[Mapping[str, Json], Mapping[str, Any], float]]:
    """Yield axes, hardware and value of each metric of this name in one file; unknown values are left out."""
    with store_errors(file, "read"):
        is_small = file.stat().st_size < CACHED_FROM_BYTES
    if is_small:
        for _, (axes, line) in readable_lines(file, _axes_and_line):
            hardware = line.get("environment", {}).get("hardware", {})
            for each in line.get("metrics", []):
                if each["name"] == metric and (value := _finite(each["value"])) is not None:
                    yield axes, hardware, value
        return
    import pyarrow.compute as pc

    tables = read_tables(file)
    found = tables.metrics.filter(pc.equal(tables.metrics["metric"], metric))
    points, environments = (python_values(tables.records[kind]) for kind in ("point", "environment"))
    columns = (python_values(found[name]) for name in ("record", "value", "integer"))
    for record, value, whole in zip(*columns, strict=True):
        if value is not None or whole is not None:
            environment = tables.facts["environment"][environments[record]]
            axes = tables.facts["point"][points[record]]
            yield axes, environment.get("hardware", {}), float(value if whole is None else whole)


def python_values(column: "pa.ChunkedArray | pa.Array") -> list[Any]:
    """The values of a column of texts or numbers; of equal texts one object. `to_pylist` takes ten times as long."""
    import numpy as np
    import pyarrow as pa

    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if pa.types.is_string(array.type):
        encoded = array.dictionary_encode()
        texts = encoded.dictionary.to_pylist()
        return [None if place is None else texts[place] for place in python_values(encoded.indices)]
    # Neither to_numpy nor a scalar, which import pandas: a third of a second.
    values: list[Any] = array.to_pylist() if array.null_count else np.from_dlpack(array).tolist()
    return values


def _run_of_line(line: RecordLine, offset: int, file: str) -> RunFacts:
    return RunFacts(
        case_id=line["case_id"],
        run_index=line["run_index"],
        freshness=line["freshness"],
        status=line["status"],
        measures=frozenset(line["case"]["measures"]),
        seconds=line.get("seconds", {}).get("whole"),
        fingerprint=line.get("fingerprint", {}),
        environment=_planned_facts(line.get("environment", {})),
        offset=offset,
        file=file,
    )


def _planned_facts(environment: Mapping[str, Any]) -> dict[str, object]:
    return {
        name: environment[kind][name]
        for kind, names in PLANNED.items()
        for name in names
        if name in environment.get(kind, {})
    }


class Prefix:
    """The first `size` bytes of a file, and their SHA-256."""

    def __init__(self) -> None:
        self.size, self.sha256 = 0, hashlib.sha256()

    def add(self, line: bytes) -> None:
        self.size += len(line)
        self.sha256.update(line)

    @classmethod
    def of(cls, stream: BinaryIO, *, size: int, sha256: str) -> "Prefix | None":
        """The prefix of this size, after which the stream then stands; None if its hash is another."""
        prefix = cls()
        while prefix.size < size and (block := stream.read(min(size - prefix.size, HASH_BLOCK))):
            prefix.add(block)
        return prefix if (prefix.size, prefix.sha256.hexdigest()) == (size, sha256) else None


class _SoundFacts(BaseModel):
    version: str
    size: int
    sha256: str


def sound_prefix(file: Path, stream: BinaryIO) -> Prefix:
    """The beginning of a records file that `remember_sound` was given; the stream then stands after it."""
    try:
        facts = _SoundFacts.model_validate_json((_cache_of(file) / SOUND_FILE).read_bytes())
    except (OSError, ValueError):  # no cache, or damaged; ValidationError is a ValueError
        return Prefix()
    known = Prefix.of(stream, size=facts.size, sha256=facts.sha256) if facts.version == _version() else None
    if known is None:
        stream.seek(0)
    return known or Prefix()


def remember_sound(file: Path, prefix: Prefix) -> None:
    """Store that no line in this beginning of a file is damaged; an error is ignored, since it can be found again."""
    if prefix.size >= CACHED_FROM_BYTES:
        facts = _SoundFacts(version=_version(), size=prefix.size, sha256=prefix.sha256.hexdigest())
        write_cache(_cache_of(file) / SOUND_FILE, facts.model_dump())


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
    """What was parsed of the beginning of a file, which is `lines` whole lines."""

    def __init__(self) -> None:
        self.prefix, self.lines = Prefix(), 0
        self.tables: dict[str, pa.Table | bytes] = {}
        self.facts: dict[Facts, _Distinct] = {kind: _Distinct() for kind in FACTS}
        self.problems: list[tuple[int, str]] = []
        self._raw_points, self._places = _Distinct(), list[int]()

    def table(self, name: str) -> "pa.Table":
        """The table `name`; a cached one is read when it is first needed, since planning needs no metrics."""
        import pyarrow.parquet

        known = self.tables.get(name)
        if known is None:
            return _schemas()[name].empty_table()
        if isinstance(known, bytes):  # without pyarrow.parquet.read_table, which imports pandas
            known = self.tables[name] = pyarrow.parquet.ParquetFile(io.BytesIO(known)).read(use_threads=False)
        return known

    def add(self, stream: BinaryIO) -> str | None:
        """Parse the lines that follow; returns what is wrong with the last one if it is not whole."""
        import pyarrow as pa

        new: dict[str, list[pa.Table]] = {"records": [], "metrics": []}
        found, cut_off = self.table("records").num_rows if self.lines else 0, None
        while batch := list(islice(stream, BATCH)):
            rows: list[tuple[Any, ...]] = []
            metric_rows: list[tuple[Any, ...]] = []
            for line in batch:
                try:
                    complete(line)
                except StoreError as error:
                    cut_off = str(error)
                    break
                offset = self.prefix.size
                self.prefix.add(line)
                self.lines += 1
                try:
                    row = None if line.isspace() else self._row(parse_line(line), offset)
                except StoreError as error:
                    self.problems.append((self.lines, str(error)))
                    continue
                if row is not None:
                    metric_rows += (_metric_row(found + len(rows), metric) for metric in row[1])
                    rows.append(row[0])
            new["records"].append(_table("records", rows))
            new["metrics"].append(_table("metrics", metric_rows))
            found += len(rows)
        for name, tables in new.items():
            if tables:
                self.tables[name] = pa.concat_tables([self.table(name), *tables])
        return cut_off

    def _row(self, line: RecordLine, offset: int) -> tuple[tuple[Any, ...], list[MetricLine]]:
        """The row of one record, and its metrics. Raises StoreError for a point of an unknown form."""
        raw, error = line["case"]["point"], line.get("error")
        place = self._raw_points.place(raw)
        if place == len(self._places):
            self._places.append(self.facts["point"].place(_named(raw)))
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
            offset,
            self._places[place],
            self.facts["environment"].place(line.get("environment", {})),
            self.facts["fingerprint"].place(line.get("fingerprint", {})),
            self.facts["measures"].place(list(line["case"]["measures"])),
        )
        return row, line.get("metrics", [])


def _axes_and_line(line: bytes) -> tuple[dict[str, Json], RecordLine]:
    parsed = parse_line(line)
    return _named(parsed["case"]["point"]), parsed


def _named(raw: dict[str, Any]) -> dict[str, Json]:
    try:
        return Point.model_validate(raw).named()
    except ValidationError as error:
        raise StoreError(f"not a record of vbench: {error.errors()[0]['msg']}") from None


def _metric_row(record: int, metric: MetricLine) -> tuple[Any, ...]:
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


class _CacheFacts(BaseModel):
    """The part of a cache that is no table. `tables` holds the SHA-256 of each Parquet file."""

    version: str
    size: int
    lines: int
    sha256: str
    tables: dict[str, str]
    facts: dict[Facts, list[dict[str, Any] | list[str]]]
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
    folder = _cache_of(file)
    try:
        facts = _CacheFacts.model_validate_json((folder / FACTS_FILE).read_bytes())
        contents = {name: (folder / f"{name}.parquet").read_bytes() for name in _schemas()}
        if (
            facts.version != _version()
            or set(facts.facts) != set(FACTS)
            or facts.tables != {name: _digest(c) for name, c in contents.items()}
        ):
            return None
    except (OSError, ValueError):  # damaged or unreadable; ValidationError is a ValueError
        return None
    if (prefix := Prefix.of(stream, size=facts.size, sha256=facts.sha256)) is None:
        return None
    parsed = _Parsed()
    parsed.prefix, parsed.lines, parsed.problems = prefix, facts.lines, facts.problems
    parsed.tables.update(contents)
    parsed.facts = {kind: _Distinct(values) for kind, values in facts.facts.items()}
    return parsed


def _write_cache(file: Path, parsed: _Parsed) -> None:
    """Store what was parsed; an error of the system is ignored, since a cache can be computed again."""
    import pyarrow.parquet

    folder = _cache_of(file)
    tables: dict[str, str] = {}
    with suppress(OSError):
        for name in _schemas():
            content = io.BytesIO()
            pyarrow.parquet.write_table(parsed.table(name), content, compression="zstd")
            tables[name] = _digest(content.getbuffer())
            write_atomically(folder / f"{name}.parquet", content.getvalue())
        facts = _CacheFacts(
            version=_version(),
            size=parsed.prefix.size,
            lines=parsed.lines,
            sha256=parsed.prefix.sha256.hexdigest(),
            tables=tables,
            facts={kind: known.values for kind, known in parsed.facts.items()},
            problems=parsed.problems,
        )
        write_atomically(folder / FACTS_FILE, facts.model_dump_json())


def _digest(content: "bytes | memoryview") -> str:
    return hashlib.sha256(content).hexdigest()
