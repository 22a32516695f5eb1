"""Data files of a site. A page that was opened from disk may load a script but not fetch, so each file is a script.

A file `data/NAME.js` is exactly `vbench_data["NAME"] = <JSON>;`. docs/site-data.md documents the JSON of each file.
"""

import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from bench.core.control_characters import CONTROL
from bench.core.schema import Metric, Record
from bench.core.spreadsheet import csv_text
from bench.core.units import Scale
from bench.reporting.board import BoardRow, Column, group_of
from bench.reporting.case_results import CaseResult, MetricSummary
from bench.reporting.metric_table import failure_text, scale_of_column
from bench.reporting.metric_text import axis_name, metric_meaning, value_text
from bench.reporting.rendering import RIGHT_TO_LEFT, harmless
from bench.reporting.results import Results
from bench.reporting.sections.leaderboard import ranked_by, rows_in_order

SCHEMA = 1
CSV_BEGINNING = "model,arguments,suite,"  # tells the file of an earlier report from files of others
# What `harmless` would change in a text of JSON: control characters, escaped or not, and letters from right to left.
NEEDS_CLEANING = re.compile(rf"\\[bfru]|{CONTROL.pattern}|{RIGHT_TO_LEFT.pattern}")


def data_script(name: str, data: Mapping[str, Any]) -> str:
    """The text of the data file `name`."""
    return f"vbench_data[{json.dumps(name)}] = {as_json(data)};\n"


def as_json(data: Any) -> str:
    """`data` as JSON without `<`, `>` and `&`; null for what is not finite, control characters made visible."""
    try:
        text = json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    except ValueError:  # something is not finite
        text = ""
    is_plain = text.isascii() and text.isprintable() and "\\" not in text  # much faster than the search
    if not text or (not is_plain and NEEDS_CLEANING.search(text)):
        text = json.dumps(_cleaned(data), ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def board_data(results: Results) -> dict[str, Any]:
    """The board: one row per model, execution mode and machine in the order of rank, with a cell per known column."""
    board = results.board
    columns = list(board.columns)
    scales = {c: scale_of_column(c, [r.summaries[c].value for r in board.rows if c in r.summaries]) for c in columns}
    best = {column: board.best(column) for column in columns}
    bands = {column: board.rank_bands(column) for column in columns}
    explanations: dict[str, int] = {}
    rows = []
    numbers = {id(row): number for number, row in enumerate(board.rows)}
    for row in rows_in_order(board):
        number = numbers[id(row)]
        cells: dict[str, Any] = {}
        for place, column in enumerate(columns):
            if (summary := row.summaries.get(column)) is not None:
                is_best = summary.is_ranked and summary.value == best[column].get(summary.group)
                cell = _cell(summary, scales[column], explanations)
                band = bands[column].get(number)
                cells[str(place)] = {**cell, **({"best": True} if is_best else {}), **({"rank": band} if band else {})}
            elif (failure := results.failed_cells.get((number, column))) is not None:
                cells[str(place)] = _failed_cell(results, failure)
        rows.append({**_row(results, row), "cells": cells})
    return {
        "schema": SCHEMA,
        "factors": [{"name": name, "title": axis_name(name)} for name in board.varying],
        "machines": [{"letter": machine.letter, "name": machine.name} for machine in results.machines],
        "columns": [_column(column, scales[column], is_headline=column in board.headlines) for column in columns],
        "ranked_by": None if (order := ranked_by(board.headlines)) is None else columns.index(order),
        "explanations": list(explanations),
        "rows": [*rows, *(_failed_row(results, case, columns) for case in results.failed_cases)],
    }


def board_csv(data: Mapping[str, Any]) -> str:
    """All rows and columns of `board_data` as CSV: each metric with its interval, number of values and status."""
    factors, columns = data["factors"], data["columns"]
    heads = ["model", "arguments", "suite", *(factor["title"] for factor in factors), "machine"]
    for column in columns:
        name = f"{column['title']} [{column['unit']}]" if column["unit"] else column["title"]
        heads += [name, *(f"{name} {what}" for what in ("low", "high", "n", "status"))]
    rows = (_csv_row(row, factors, len(columns)) for row in data["rows"])
    return csv_text([harmless(head) for head in heads], (map(_cleaned, row) for row in rows))


def _csv_row(row: Mapping[str, Any], factors: Sequence[Mapping[str, str]], columns: int) -> list[Any]:
    known = [row["factors"].get(factor["name"]) for factor in factors]
    texts = [None if value is None else value_text(value) for value in known]
    cells: list[Any] = [row["model"], row["args"], row["suite"], *texts, row["machine"]]
    for place in range(columns):
        cell = row["cells"].get(str(place), {})
        marks = "; ".join([*cell.get("doubts", ()), *cell.get("remarks", ())])
        status = cell["text"] if "failure" in cell else row.get("failure") or marks
        cells += [*(cell.get(name) for name in ("value", "low", "high", "n")), status]
    return cells


def case_data(case: CaseResult) -> dict[str, Any]:
    """One case: the latest record of each run without its samples, and the samples of each metric by run."""
    return {
        "schema": SCHEMA,
        "title": case.case.title,
        "records": [_without_samples(record) for record in case.latest],
        "samples": [
            {"run": record.run_index, **_samples(metric)}
            for record in case.runs
            for metric in record.metrics
            if metric.samples
        ],
    }


def _column(column: Column, scale: Scale, *, is_headline: bool) -> dict[str, Any]:
    return {
        "metric": column.metric,
        "title": column.full_name,
        "unit": column.unit,
        "shown_unit": scale.unit_after(column.name),
        "whole_unit": scale.unit,
        "divisor": scale.divisor,
        "better": column.better,
        "meaning": metric_meaning(column.metric),
        "labels": dict(column.labels),
        "protocol": dict(column.protocol),
        "is_of_machine": column.is_of_machine,
        "is_headline": is_headline,
    }


def _row(results: Results, row: BoardRow) -> dict[str, Any]:
    return {
        "suite": row.suite,
        "model": row.model,
        "args": results.board.args_text(row.model, row.args),
        "label": results.board.label(row, []),
        "factors": dict(row.factors),
        "machine": group_of(row, row.summaries),
        "page": results.model_page_of(row.label),
    }


def _failed_cell(results: Results, failure: Record) -> dict[str, Any]:
    return {"failure": failure.status, "text": failure_text(failure), "page": results.case_page_of(failure)}


def _failed_row(results: Results, case: CaseResult, columns: Sequence[Column]) -> dict[str, Any]:
    """A row of a case without any result: the status of its latest record, also in the cells that it should fill."""
    point = case.case.point
    axes = {k: v for k, v in point.named().items() if k not in ("model", *point.args)}
    axes["suite"] = case.case.suite
    failure = case.failures[-1]
    return {
        "suite": case.case.suite,
        "model": point.model,
        "args": results.board.args_text(point.model, point.args),
        "label": case.case.title,
        "factors": axes,
        "machine": results.letter_of(failure),
        "page": results.case_page_of(failure),
        "failure": failure_text(failure),
        "cells": {
            str(place): _failed_cell(results, failure)
            for place, column in enumerate(columns)
            if column.metric.partition(".")[0] in case.case.measures and column.protocol == case.protocol
        },
    }


def _cell(summary: MetricSummary, scale: Scale, explanations: dict[str, int]) -> dict[str, Any]:
    """A cell; empty parts are left out. `how` is an index into the list of explanations, which repeat often."""
    how = "; ".join(word for word in (summary.how, summary.note) if word)
    cell: dict[str, Any] = {"value": summary.value, "how": explanations.setdefault(how, len(explanations))}
    if summary.value is not None:
        cell |= {"text": scale.text(summary.value), "n": summary.count}
    if summary.has_interval:
        cell |= {"low": summary.low, "high": summary.high, "interval": scale.span(summary.low, summary.high)}
    marks = {"doubts": list(summary.doubts), "remarks": list(summary.remarks)}
    flags = {"is_range": summary.is_range, "is_lower_bound": summary.is_lower_bound}
    return {**cell, **{name: value for name, value in {**marks, **flags}.items() if value}}


def _samples(metric: Metric) -> dict[str, Any]:
    return {
        "metric": metric.key,
        "unit": metric.unit,
        "stopped_because": metric.stopped_because,
        "values": list(metric.samples),
    }


def _without_samples(record: Record) -> dict[str, Any]:
    return record.model_dump(mode="json", exclude={"metrics": {"__all__": {"samples", "turns"}}})


def _cleaned(data: Any) -> Any:
    if isinstance(data, str):
        return harmless(data)
    if isinstance(data, float):
        return data if math.isfinite(data) else None
    if isinstance(data, Mapping):
        return {harmless(str(key)): _cleaned(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [_cleaned(value) for value in data]
    return data
