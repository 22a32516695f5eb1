"""The command `vbench query`: SQL over stored records."""

import datetime
import decimal
import math
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from bench.cli.console import print_exported, print_json, print_table
from bench.core.spreadsheet import csv_text


def query(
    sql: Annotated[str, typer.Argument(metavar="SQL", help="One SELECT over the tables `records` and `metrics`.")],
    results: Annotated[
        list[Path] | None, typer.Argument(metavar="[RESULTS...]", help="Results folders or records files; results.")
    ] = None,
    output: Annotated[
        Literal["table", "csv", "json"], typer.Option("--format", help="How the answer is printed.")
    ] = "table",
) -> None:
    """Query stored records with SQL, by DuckDB (extra `query`).

    `records` has a row for each run, `metrics` one for each metric; "select * from records limit 1" shows the columns.
    """
    from bench.store.query import query_records

    answer = query_records(results or [Path("results")], sql)
    rows = [[_plain(cell) for cell in row] for row in answer.rows]
    if output == "json":
        print_json([dict(zip(answer.columns, row, strict=True)) for row in rows])
    elif output == "csv":
        print_exported(csv_text(answer.columns, rows))
    else:
        numbers = [name for i, name in enumerate(answer.columns) if all(_is_number(row[i]) for row in rows)]
        print_table(answer.columns, rows, right=numbers)


def _plain(cell: Any) -> Any:
    """A value that JSON can hold: numbers and texts as they are, dates as ISO text, no number that is not finite."""
    if isinstance(cell, float):
        return cell if math.isfinite(cell) else None
    if isinstance(cell, decimal.Decimal):
        return float(cell)
    if isinstance(cell, datetime.date | datetime.datetime | datetime.time):
        return cell.isoformat()
    if isinstance(cell, list | tuple):
        return [_plain(item) for item in cell]
    if isinstance(cell, dict):
        return {str(key): _plain(value) for key, value in cell.items()}
    return cell if cell is None or isinstance(cell, bool | int | str) else str(cell)


def _is_number(cell: Any) -> bool:
    return cell is None or (isinstance(cell, int | float) and not isinstance(cell, bool))
