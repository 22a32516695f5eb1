"""Stored records as pandas data frames: one row per metric, or one per record."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from bench.core.schema import Json, title_of
from bench.store.record_tables import RecordTables, python_values, read_tables
from bench.store.stored_records import Source, files_of

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    import pyarrow as pa

RECORD_COLUMNS = ("suite", "case_id", "run_index", "status", "started_at")
FURTHER_COLUMNS = ("seconds", "error_type", "error_message", "freshness")

METRIC_COLUMNS = ("metric", "labels", "value", "integer", "unit", "better")


def load_records(source: Source) -> "pd.DataFrame":
    """A data frame with one row per metric of every record under `source`.

    Columns: the axes of the case, `suite`, `case_id`, `run_index`, `status`, `started_at`, `hardware` / `software`
    facts prefixed by those words, `metric`, `labels`, `value`, `low`, `high`, `unit`, `better`. A record without
    metrics gives one row whose `metric` is null, so that failures are seen. Raises StoreError if there are no records.
    """
    import numpy as np
    import pandas as pd

    tables = [read_tables(file) for file in files_of(source)]
    facts = record_columns(tables)
    counts = np.concatenate([_metrics_per_record(each) for each in tables])
    rows_per_record = np.maximum(counts, 1)
    record_of_row = np.repeat(np.arange(len(counts)), rows_per_record)
    has_metric = np.repeat(counts > 0, rows_per_record)
    metric_of_row = np.where(has_metric, np.cumsum(has_metric) - 1, -1)
    columns = {name: column.take(record_of_row) for name, column in facts.items()}
    for name, column in metric_columns(tables).items():
        columns[name] = pd.api.extensions.take(column, metric_of_row, allow_fill=True)
    return pd.DataFrame(columns, copy=False)


def record_columns(tables: Sequence[RecordTables], *, every: bool = False) -> dict[str, Any]:
    """Arrays with a value for each record of `tables`: the axes, what identifies the run, and its environment.

    `every` adds how the run ended and how long it took.
    """
    points = _fact_columns(tables, "point")
    names = (*RECORD_COLUMNS, *FURTHER_COLUMNS) if every else RECORD_COLUMNS
    records = {name: _column(tables, "records", name) for name in names}
    return {**points, **records, **_fact_columns(tables, "environment")}


def _fact_columns(tables: Sequence[RecordTables], kind: Literal["point", "environment"]) -> dict[str, Any]:
    """A column for each name in the facts of points or environments, which are few, repeated for the records."""
    import numpy as np
    import pandas as pd

    known: list[Mapping[str, Json]] = []
    places: list[np.ndarray[Any, Any]] = []
    for each in tables:
        places.append(each.records[kind].to_numpy() + len(known))
        known += each.facts["point"] if kind == "point" else map(_flat, each.facts["environment"])
    names = dict.fromkeys(name for facts in known for name in facts)
    place = np.concatenate(places)
    return {name: pd.Series([facts.get(name, np.nan) for facts in known]).array.take(place) for name in names}


def _flat(environment: Mapping[str, Mapping[str, Json]]) -> dict[str, Json]:
    """The facts of an environment by `hardware.<name>` and `software.<name>`."""
    return {f"{kind}.{name}": value for kind, facts in environment.items() for name, value in facts.items()}


def metric_columns(tables: Sequence[RecordTables]) -> dict[str, Any]:
    """Arrays with a value for each metric of `tables`."""
    columns = {name: _column(tables, "metrics", name) for name in ("metric", "labels")}
    columns["value"] = _values(tables)
    return columns | {name: _column(tables, "metrics", name) for name in ("low", "high", "unit", "better")}


def _values(tables: Sequence[RecordTables]) -> Any:
    """The values of all metrics: whole numbers if all of them are, else floats with NaN for unknown ones."""
    import pyarrow as pa
    import pyarrow.compute as pc

    value = pa.chunked_array([c for each in tables for c in each.metrics["value"].chunks], pa.float64())
    whole = pa.chunked_array([c for each in tables for c in each.metrics["integer"].chunks], pa.int64())
    if whole.null_count == 0:
        return whole.to_numpy()
    return pc.coalesce(value, whole.cast(pa.float64(), safe=False)).to_numpy()


def _column(tables: Sequence[RecordTables], table: str, name: str) -> Any:
    import pyarrow as pa

    arrays = [getattr(each, table)[name] for each in tables]
    return pa.chunked_array([c for array in arrays for c in array.chunks], arrays[0].type).to_pandas().array


class ListedRun(NamedTuple):
    """What a list shows of a run. `metrics` has key, value, unit and better direction of each metric.

    A tuple, since there may be a hundred thousand.
    """

    case_id: str
    run_index: int
    status: str
    started_at: str
    title: str
    error_type: str | None
    error_message: str | None
    metrics: Sequence[tuple[str, int | float | None, str, str | None]]


def list_runs(source: Source, *, headlines: int | None = None) -> Iterator[ListedRun]:
    """The stored runs in the order in which they were written. Raises StoreError if there are none.

    `headlines` limits the metrics of each run to so many that have a value and a better direction.
    """
    for tables in [read_tables(file) for file in files_of(source)]:
        metrics = tables.metrics if headlines is None else _first_metrics(tables.metrics, headlines)
        counts = Counter(python_values(metrics["record"]))
        rows = zip(*(python_values(metrics[name]) for name in METRIC_COLUMNS), strict=True)
        listed = (
            (f"{name}{{{labels}}}" if labels else name, value if whole is None else whole, unit, better)
            for name, labels, value, whole, unit, better in rows
        )
        titles = [title_of(point) for point in tables.facts["point"]]
        names = ("case_id", "run_index", "status", "started_at", "point", "error_type", "error_message")
        columns = (python_values(tables.records[name]) for name in names)
        for number, (case_id, index, status, started_at, point, error_type, message) in enumerate(
            zip(*columns, strict=True)
        ):
            yield ListedRun(
                case_id=case_id,
                run_index=index,
                status=status,
                started_at=started_at,
                title=titles[point],
                error_type=error_type,
                error_message=message,
                metrics=tuple(islice(listed, counts[number])),
            )


def _first_metrics(metrics: "pa.Table", most: int) -> "pa.Table":
    """Of the metrics of each record, the first `most` that have a value and a better direction."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    is_shown = pc.and_(pc.or_(metrics["value"].is_valid(), metrics["integer"].is_valid()), metrics["better"].is_valid())
    shown = np.flatnonzero(np.from_dlpack(is_shown.combine_chunks().cast(pa.uint8())))
    record = np.from_dlpack(metrics["record"].combine_chunks())[shown]
    places = shown[np.arange(len(shown)) - np.searchsorted(record, record) < most]
    # Not pa.array, which imports pandas.
    return metrics.take(pa.Array.from_buffers(pa.int64(), len(places), [None, pa.py_buffer(places)]))


def _metrics_per_record(tables: RecordTables) -> "np.ndarray[Any, Any]":
    import numpy as np

    return np.bincount(tables.metrics["record"].to_numpy(), minlength=tables.records.num_rows)
