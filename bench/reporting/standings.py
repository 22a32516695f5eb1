"""Rows of a board as a table: each column in one scale, intervals below, doubts marked, the best of what compares."""

from collections.abc import Iterable, Sequence
from dataclasses import replace

from bench.core.units import Scale, choose_scale, format_exact
from bench.reporting.board import Board, Column, Row, group_of
from bench.reporting.cases import OUT_OF_TOLERANCE, SHARES, UNLIKE_MACHINES, Reading
from bench.reporting.table import Cell, Heading, Line, Table
from bench.reporting.wording import axis_name, metric_meaning, metric_name, value_text

MARKS = {"unsteady": "†", "throttled": "‡", "its runs disagree": "§", OUT_OF_TOLERANCE: "¶", UNLIKE_MACHINES: "‖"}
DIRECTIONS = {"lower": "; lower is better", "higher": "; higher is better", None: ""}


def standings(
    board: Board, rows: Sequence[Row], *, name: str, caption: str, columns: Sequence[Column], factors: Sequence[str]
) -> Table:
    """A table of `rows` of `board` with these columns, and the factors that tell the rows apart."""
    writers = [_Writer(board, column) for column in columns]

    def cells(row: Row) -> tuple[Cell, ...]:
        return (
            _network(board, row),
            *(_factor(row, f, columns) for f in factors),
            *(writer.cell(row) for writer in writers),
        )

    return Table(
        name=name,
        caption=caption,
        headings=(Heading(name="Network"), *map(_factor_heading, factors), *(writer.heading for writer in writers)),
        lines=tuple(Line(cells=cells(row), group=group_of(row, columns)) for row in rows),
    )


def column_heading(column: Column, scale: Scale | None) -> Heading:
    """The head of a column whose values are written in `scale`; without one, of differences that bring their units."""
    name = metric_name(column.metric)
    below = [*(f"{axis_name(k)} {v}" for k, v in column.labels), column.protocol_text]
    return Heading(
        name=name,
        unit=scale.unit_after(name) if scale else "",
        below=", ".join(word for word in below if word),
        meaning=metric_meaning(column.metric) + DIRECTIONS[column.better],
        saved_as=f"{column.name} [{column.unit}]" if scale else f"{column.name}, against the baseline",
        is_number=True,
        is_best_first=column.better == "higher",
        is_within_group=column.is_of_machine,
    )


def scale_of_column(column: Column, values: Iterable[float | None]) -> Scale:
    """The scale of one column of a table; shares that are not all whole keep a decimal, so that 99.8 is no 100."""
    listed = [value for value in values if value is not None]
    scale = choose_scale(listed, column.unit)
    is_share = column.unit in SHARES and any(not (value / scale.divisor).is_integer() for value in listed)
    return replace(scale, decimals=max(1, scale.decimals)) if is_share else scale


def interval_kinds(rows: Sequence[Row], columns: Sequence[Column]) -> list[str]:
    """What the intervals of these rows are, each kind once."""
    return sorted({r.how for row in rows for c in columns if (r := row.readings.get(c)) and r.has_interval})


def doubts_of(rows: Sequence[Row], columns: Sequence[Column]) -> list[str]:
    """What is doubtful about some of these readings, each doubt once."""
    return sorted({doubt for row in rows for c in columns if (r := row.readings.get(c)) for doubt in r.doubts})


class _Writer:
    """Writes one column: knows its scale and its best values."""

    def __init__(self, board: Board, column: Column) -> None:
        self._column = column
        readings = [row.readings[column] for row in board.rows if column in row.readings]
        self._scale = scale_of_column(column, [reading.value for reading in readings])
        self._best = board.best(column)

    @property
    def heading(self) -> Heading:
        return column_heading(self._column, self._scale)

    def cell(self, row: Row) -> Cell:
        reading = row.readings.get(self._column)
        if reading is None:
            return Cell(title="not measured for this row")
        if reading.value is None:
            return Cell(title=reading.how)
        is_level = reading.value == self._best.get(group_of(row, [self._column]))
        return _cell(reading, self._scale, is_best=is_level and not reading.doubts and not reading.is_lower_bound)


def _cell(reading: Reading, scale: Scale, *, is_best: bool) -> Cell:
    ends = scale.span(reading.low, reading.high) if reading.has_interval else ""
    words = [format_exact(reading.value, reading.unit), reading.how, reading.note, *reading.doubts]
    if reading.is_lower_bound:
        words.append("a lower bound: some operators are not counted")
    return Cell(
        text=("≥ " if reading.is_lower_bound else "") + scale.text(reading.value),
        sort=reading.value,
        below=ends,
        title="; ".join(word for word in words if word),
        mark="".join(MARKS.get(doubt, "") for doubt in reading.doubts),
        is_best=is_best,
    )


def _network(board: Board, row: Row) -> Cell:
    return Cell(text=row.model, below=board.args_text(row.model, row.args), title=row.label)


def _factor(row: Row, name: str, columns: Sequence[Column]) -> Cell:
    value = group_of(row, columns) or None if name == "machine" else row.factors.get(name)
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if row.does_without(name):
        return Cell(text="none")
    return Cell(text=value_text(value), sort=float(str(value)) if is_number else None)


def _factor_heading(name: str) -> Heading:
    return Heading(name=axis_name(name).capitalize(), saved_as=name)
