"""SQL over stored records, by DuckDB in memory. The SQL reads the tables `records` and `metrics` and nothing else."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bench.core.errors import InputError, MissingPackageError, StoreError
from bench.core.schema import title_of
from bench.store.frame import metric_columns, record_columns
from bench.store.record_tables import RecordTables, read_tables
from bench.store.stored_records import Source, files_of

if TYPE_CHECKING:
    import pandas as pd

# No files, no network, no Python variables, no extensions, and no way to change that.
CLOSED: dict[str, str | bool | int | float | list[str]] = {
    "enable_external_access": "false",
    "python_enable_replacements": "false",
    "autoload_known_extensions": "false",
    "autoinstall_known_extensions": "false",
    "temp_directory": "",
}
OF_THE_RECORD = ("suite", "case_id", "title", "run_index", "status", "started_at", "model", "clip")


@dataclass(frozen=True, kw_only=True)
class QueryResult:
    """The result of a query: names of columns, and rows of plain Python values."""

    columns: tuple[str, ...]
    rows: list[tuple[Any, ...]]


def query_records(source: Source, sql: str) -> QueryResult:
    """Run one SELECT statement over the tables `records` and `metrics` of the records under `source`.

    `records` has a row for each record: `record` (its number), `suite`, `case_id`, `title`, `run_index`, `status`,
    `started_at`, `seconds`, `error_type`, `error_message`, `freshness`, the axes of the case under their names, and the
    environment as `hardware_<fact>` and `software_<fact>`. `metrics` has a row for each metric: `record`, `suite`,
    `case_id`, `title`, `run_index`, `status`, `started_at`, `model`, `clip`, `metric`, `labels`, `value`, `low`,
    `high`, `unit`, `better`. Lists and columns of several types are JSON text.

    Raises InputError for SQL that is wrong or not a SELECT, MissingPackageError without DuckDB, StoreError if there are
    no records.
    """
    try:
        import duckdb
    except ImportError:
        raise MissingPackageError("duckdb", needed_for="vbench query", install="pip install duckdb") from None
    tables = [read_tables(file) for file in files_of(source)]
    if not any(each.records.num_rows for each in tables):
        raise StoreError("there is no record to query; measure something first with: vbench run SUITE")
    with duckdb.connect(":memory:", config=CLOSED) as database:
        for name, frame in (("records", _record_frame(tables)), ("metrics", _metric_frame(tables))):
            database.register(f"given_{name}", frame)
            database.execute(f"CREATE TABLE {name} AS SELECT * FROM given_{name}")
            database.unregister(f"given_{name}")
        database.execute("SET lock_configuration = true")
        try:
            statements = database.extract_statements(sql)
            if [statement.type for statement in statements] != [duckdb.StatementType.SELECT]:
                raise InputError(f"a query is one SELECT statement, found {len(statements)} of another kind: {sql!r}")
            found = database.execute(statements[0])
            rows = found.fetchall()
        except duckdb.Error as error:
            raise InputError(_one_line(str(error))) from None
        return QueryResult(columns=tuple(column[0] for column in found.description or ()), rows=rows)


def _record_frame(tables: Sequence[RecordTables]) -> "pd.DataFrame":
    import numpy as np

    columns = {name.replace(".", "_"): column for name, column in record_columns(tables, every=True).items()}
    first = {"record": np.arange(sum(each.records.num_rows for each in tables)), "title": _titles(tables)}
    return _frame({**{name: {**columns, **first}[name] for name in ("record", *OF_THE_RECORD)}, **columns})


def _metric_frame(tables: Sequence[RecordTables]) -> "pd.DataFrame":
    import numpy as np

    sizes = [each.records.num_rows for each in tables]
    starts = np.cumsum([0, *sizes[:-1]])
    record = np.concatenate(
        [each.metrics["record"].to_numpy() + start for each, start in zip(tables, starts, strict=True)]
    )
    facts = {**record_columns(tables), "title": _titles(tables)}
    own = {name: facts[name].take(record) for name in OF_THE_RECORD}
    return _frame({"record": record, **own, **metric_columns(tables)})


def _titles(tables: Sequence[RecordTables]) -> Any:
    import pandas as pd

    titles = [pd.Series([title_of(point) for point in each.facts["point"]]).array for each in tables]
    places = [each.records["point"].to_numpy() for each in tables]
    return pd.concat([pd.Series(t.take(p)) for t, p in zip(titles, places, strict=True)], ignore_index=True).array


def _frame(columns: dict[str, Any]) -> "pd.DataFrame":
    """A data frame whose columns DuckDB takes: of one type each, with names that differ in more than case."""
    import pandas as pd

    named: dict[str, Any] = {}
    taken: set[str] = set()
    for name, column in columns.items():
        unique = name
        while unique.lower() in taken:
            unique += "_"
        taken.add(unique.lower())
        named[unique] = _of_one_type(column)
    return pd.DataFrame(named, copy=False)


def _of_one_type(column: Any) -> Any:
    import pandas as pd

    if not pd.api.types.is_object_dtype(column.dtype):
        return column
    known = [value for value in column if not _is_missing(value)]
    if known and all(isinstance(value, bool) for value in known):
        return pd.array([None if _is_missing(value) else value for value in column], dtype="boolean")
    texts = [None if _is_missing(v) else v if isinstance(v, str) else json.dumps(v, ensure_ascii=False) for v in column]
    return pd.array(texts, dtype="str")


def _is_missing(value: Any) -> bool:
    return value is None or value != value


def _one_line(message: str) -> str:
    """DuckDB's message without the drawing of the place."""
    return " ".join(message.split("\n\n")[0].split())
