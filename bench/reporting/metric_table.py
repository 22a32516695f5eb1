"""Tables of board rows: one scale per column, intervals below values, doubts as chips, best values marked."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

from bench.core.schema import Record
from bench.core.units import Scale, choose_scale, format_exact
from bench.reporting.board import Board, BoardRow, Column, group_of
from bench.reporting.case_results import SHARES, MetricSummary
from bench.reporting.metric_text import STATUSES, axis_name, metric_meaning, metric_name, value_text
from bench.reporting.table import ColumnHead, Table, TableCell, TableRow

DIRECTIONS = {"lower": "; lower is better", "higher": "; higher is better", None: ""}


def metric_table(
    board: Board,
    rows: Sequence[BoardRow],
    *,
    name: str,
    caption: str,
    columns: Sequence[Column],
    factors: Sequence[str],
    page_of: Callable[[str], str] = lambda label: "",
    failures: Mapping[tuple[int, Column], Record] | None = None,
    has_all_rows: bool = True,
) -> Table:
    """A table of `rows` of `board` with these columns and factors.

    `page_of` returns the page of a model for its label. `failures` has the failed record of an empty cell, by the row's
    number in the board and the column.
    """
    # By identity, because rows hold mappings and cannot be hashed.
    numbers = {id(row): number for number, row in enumerate(board.rows)} if failures else {}
    writers = [_ColumnWriter(board, column) for column in columns]

    def cells(row: BoardRow) -> tuple[TableCell, ...]:
        return (
            replace(_model_cell(board, row), href=page_of(row.label)),
            *(_factor(row, f, columns) for f in factors),
            *(writer.cell(row, (failures or {}).get((numbers.get(id(row), -1), writer.column))) for writer in writers),
        )

    return Table(
        name=name,
        caption=caption,
        heads=(ColumnHead(name="Model"), *map(_factor_heading, factors), *(writer.heading for writer in writers)),
        rows=tuple(TableRow(cells=cells(row), group=group_of(row, columns)) for row in rows),
        has_all_rows=has_all_rows,
    )


def column_heading(column: Column, scale: Scale | None) -> ColumnHead:
    """The head of a column with values in `scale`; without a scale, of differences with their own units."""
    name = metric_name(column.metric)
    below = [*(f"{axis_name(k)} {v}" for k, v in column.labels), column.protocol_text]
    return ColumnHead(
        name=name,
        unit=scale.unit_after(name) if scale else "",
        below=", ".join(word for word in below if word),
        meaning=metric_meaning(column.metric) + DIRECTIONS[column.better],
        saved_as=f"{column.full_name} [{column.unit}]" if scale else f"{column.full_name}, against the baseline",
        is_number=True,
        is_best_first=column.better == "higher",
        is_within_group=column.is_of_machine,
    )


def scale_of_column(column: Column, values: Iterable[float | None]) -> Scale:
    """The scale of one column; shares that are not all whole keep a decimal, so that 99.8 is not shown as 100."""
    listed = [value for value in values if value is not None]
    scale = choose_scale(listed, column.unit)
    is_share = column.unit in SHARES and any(not (value / scale.divisor).is_integer() for value in listed)
    return replace(scale, decimals=max(1, scale.decimals)) if is_share else scale


def interval_kinds(rows: Sequence[BoardRow], columns: Sequence[Column]) -> list[str]:
    """The kinds of intervals in these rows, each once."""
    return sorted({r.how for row in rows for c in columns if (r := row.summaries.get(c)) and r.has_interval})


def chips_of(rows: Sequence[BoardRow], columns: Sequence[Column]) -> list[str]:
    """The doubts and remarks of these rows, each once."""
    found = [summary for row in rows for column in columns if (summary := row.summaries.get(column))]
    return sorted({chip for summary in found for chip in (*summary.doubts, *summary.remarks)})


def failure_text(failure: Record) -> str:
    """Why a cell has no value: `out of memory at batch 64`."""
    batch = failure.case.point.batch
    return f"{STATUSES[failure.status]}{f' at batch {batch}' if batch is not None else ''}"


class _ColumnWriter:
    """Writes the cells of one column in its scale and marks its best values."""

    def __init__(self, board: Board, column: Column) -> None:
        self.column = column
        summaries = [row.summaries[column] for row in board.rows if column in row.summaries]
        self._scale = scale_of_column(column, [summary.value for summary in summaries])
        self._best = board.best(column)

    @property
    def heading(self) -> ColumnHead:
        return column_heading(self.column, self._scale)

    def cell(self, row: BoardRow, failure: Record | None) -> TableCell:
        summary = row.summaries.get(self.column)
        if summary is None and failure is not None:
            return TableCell(text=failure_text(failure), title=failure.case.title)
        if summary is None:
            return TableCell(title="not measured for this row")
        if summary.value is None:
            return TableCell(title=summary.how)
        is_best = summary.is_ranked and summary.value == self._best.get(summary.group)
        return _cell(summary, self._scale, is_best=is_best)


def _cell(summary: MetricSummary, scale: Scale, *, is_best: bool) -> TableCell:
    ends = scale.span(summary.low, summary.high) if summary.has_interval else ""
    ends = f"range {ends}" if summary.is_range else ends
    words = [format_exact(summary.value, summary.unit), summary.how, summary.note, *summary.doubts, *summary.remarks]
    if summary.is_lower_bound:
        words.append("a lower bound: some operators are not counted")
    return TableCell(
        text=("≥ " if summary.is_lower_bound else "") + scale.text(summary.value),
        sort=summary.value,
        below=ends,
        title="; ".join(word for word in words if word),
        chips=(*summary.doubts, *summary.remarks),
        low=summary.low if summary.has_interval else None,
        high=summary.high if summary.has_interval else None,
        count=summary.count,
        is_best=is_best,
    )


def _model_cell(board: Board, row: BoardRow) -> TableCell:
    return TableCell(text=row.model, below=board.args_text(row.model, row.args), title=row.label)


def _factor(row: BoardRow, name: str, columns: Sequence[Column]) -> TableCell:
    value = group_of(row, columns) or None if name == "machine" else row.factors.get(name)
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if row.does_without(name):
        return TableCell(text="none")
    return TableCell(text=value_text(value), sort=float(str(value)) if is_number else None)


def _factor_heading(name: str) -> ColumnHead:
    return ColumnHead(name=axis_name(name).capitalize(), saved_as=name)
