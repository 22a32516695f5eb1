"""One row per model, clip, way of running and way of training; what may be ranked together is ranked."""

from bench.core.registry import register_section
from bench.reporting.board import Board, BoardRow, Column, group_of
from bench.reporting.case_results import OUT_OF_TOLERANCE, RUN_AXES, TRAINING_AXES, UNLIKE_MACHINES
from bench.reporting.metric_table import MARKS, doubts_of, interval_kinds, metric_table
from bench.reporting.metric_text import listed, settings_text
from bench.reporting.rendering import render
from bench.reporting.results import Results

MEANINGS = {
    "unsteady": "never became steady while it was measured",
    "throttled": "the device slowed itself down while it was measured",
    "its runs disagree": "runs of an exact count disagree",
    OUT_OF_TOLERANCE: "gives other outputs than eager fp32, by more than its rounding explains",
    UNLIKE_MACHINES: "is of seeds that were taken on unlike machines",
}
CLASSES = (
    "Where a model names no num_classes, its accuracy is that with as many classes as the data set has, its other "
    "figures are those with the model's own number of classes."
)
TEMPLATE = """
{% if machines | length > 1 %}
<p class="loud"><strong>The timings below come from unlike machines</strong>
({% for machine in machines %}{{ machine.letter }}: {{ machine.name }}{{ ", " if not loop.last }}{% endfor %}).
The best value is marked on each machine apart, and sorting by a timing keeps the machines apart.
<a href="#environment">How they differ</a>.</p>
{% endif %}
{{ table }}
<p class="muted">{{ legend }}</p>
"""


@register_section("leaderboard", title="Leaderboard", order=10)
def rank(results: Results) -> str | None:
    """A table of every row with its headline metrics."""
    board, columns = results.board, results.board.headlines
    if not board.rows or not columns:
        return None
    rows, letters = _ordered(board, columns), board.machines_of(columns)
    machines = [machine for machine in results.timed_machines if machine.letter in letters]
    table = metric_table(
        board,
        rows,
        name="leaderboard-table",
        caption=_caption(board, columns),
        columns=columns,
        factors=[*board.varying, *(["machine"] if len(machines) > 1 else [])],
    )
    return render(TEMPLATE, machines=machines, table=table.html(), legend=_legend(board, columns))


def _ordered(board: Board, columns: tuple[Column, ...]) -> list[BoardRow]:
    """Rows by the column they are ranked by: machines apart where it is a timing, rows without a value last.

    A row whose outputs are out of tolerance comes after all rows that it could have beaten.
    """
    column = _ranked_by(columns)
    if column is None:
        return list(board.rows)
    sign = -1 if column.better == "higher" else 1

    def place(row: BoardRow) -> tuple[bool, str, bool, float]:
        summary = row.summaries.get(column)
        value = summary.value if summary else None
        return value is None, group_of(row, [column]), _is_wrong(row), sign * value if value is not None else 0.0

    return sorted(board.rows, key=place)


def _is_wrong(row: BoardRow) -> bool:
    return any(OUT_OF_TOLERANCE in summary.doubts for summary in row.summaries.values())


def _ranked_by(columns: tuple[Column, ...]) -> Column | None:
    """The first accuracy, else the first throughput, else the first metric with a direction."""
    directed = [column for column in columns if column.better]
    wanted = ("accuracy.", "throughput.", "")
    return next((c for prefix in wanted for c in directed if c.metric.startswith(prefix)), None)


def _caption(board: Board, columns: tuple[Column, ...]) -> str:
    column, same = _ranked_by(columns), board.constant_args
    shared = {"in every row": {**board.constant, **same}}
    for model, args in board.constant_args_of.items():
        shared[f"in every {model}"] = {name: value for name, value in args.items() if name not in same}
    shared["where it was run"] = board.constant_among(RUN_AXES)
    shared["where it was trained"] = board.constant_among(TRAINING_AXES)
    said = [f"{where}: {settings_text(values)}" for where, values in shared.items() if values]
    order = f"Ordered by {column.name}{' on ' + column.protocol_text if column.protocol else ''}." if column else ""
    return f"{'The same ' + '; '.join(said) + '. ' if said else ''}{order}"


def _legend(board: Board, columns: tuple[Column, ...]) -> str:
    rows = board.rows
    doubts = [doubt for doubt in doubts_of(rows, columns) if doubt in MARKS]
    marks = "".join(f" {MARKS[doubt]} {MEANINGS[doubt]}, so it is not marked as best." for doubt in doubts)
    kinds = interval_kinds(rows, columns)
    small = f" The small figures are intervals: {listed(kinds)}." if kinds else ""
    missing = "".join(f" {column.name} is known of none: {why}." for column, why in board.unknown.items())
    classes = f" {CLASSES}" if any(_has_other_head(row) for row in rows) else ""
    return f"The best value of a column is bold.{small}{marks}{classes}{missing} A dash is not known or not measured."


def _has_other_head(row: BoardRow) -> bool:
    """Whether a row without a number of classes was evaluated, with that of a data set, and counted or timed too."""
    kinds = {column.metric.startswith("accuracy.") for column in row.summaries}
    return "num_classes" not in row.args and kinds == {True, False}
