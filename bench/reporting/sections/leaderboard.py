"""One row per model, clip, execution mode and training, ordered by the first metric that ranks them."""

from bench.core.doubts import DRIFTING, IMPRECISE, THROTTLED, UNSTEADY
from bench.core.registry import register_section
from bench.core.units import plural
from bench.reporting.board import Board, BoardRow, Column, group_of
from bench.reporting.case_results import (
    ASSUMED,
    LENT,
    OTHER_HEAD,
    OUT_OF_TOLERANCE,
    RUN_AXES,
    RUNS_DISAGREE,
    TRAINING_AXES,
    UNLIKE_MACHINES,
)
from bench.reporting.links import BOARD_CSV
from bench.reporting.metric_table import chips_of, interval_kinds, metric_table
from bench.reporting.metric_text import listed, settings_text
from bench.reporting.rendering import render
from bench.reporting.results import Results

DOUBTS = {
    UNSTEADY: f"the samples never became steady, or their interval is wider than ±{IMPRECISE:.0%}",
    THROTTLED: "the device lowered its clocks during the measurement",
    DRIFTING: "the level of the samples moved during the measurement, or the machine changed (canary)",
    RUNS_DISAGREE: "runs of an exact count disagree",
    OUT_OF_TOLERANCE: "the outputs differ from eager fp32 by more than the precision explains",
    UNLIKE_MACHINES: "the seeds were measured on unlike machines",
    LENT: "the accuracy was measured in another precision than this row is run in",
}
REMARKS = {
    ASSUMED: "nobody stated how the weights want their input, so the model's defaults were used",
    OTHER_HEAD: "the accuracy was measured with a head for the classes of the data set; counts and timings of the row "
    "are those of the model's default head, because the suite names no num_classes",
}
MOST_ROWS = 200  # of the table that is in the page itself; the script shows all rows from the data file
TEMPLATE = """
{% if machines | length > 1 %}
<p class="loud"><strong>The timings below come from unlike machines</strong>
({% for machine in machines %}{{ machine.letter }}: {{ machine.name }}{{ ", " if not loop.last }}{% endfor %}).
The best value is marked for each machine separately, and sorting by a timing keeps the machines separate.
<a href="{{ machines_page }}">How they differ</a>.</p>
{% endif %}
<div class="plain-board">
{{ table }}
{% if left_out %}<p class="muted">The first {{ shown }} of {{ rows }} rows are shown without a script.</p>{% endif %}
{% if csv %}<p><a href="{{ csv }}" download>All rows and metrics as CSV</a></p>{% endif %}
</div>
<div data-module="board"></div>
{% if failed %}
<p class="muted">{{ failed }} without any result: <a href="{{ failures_page }}">what failed and why</a>.</p>
{% endif %}
<p class="muted">The best value of a column is bold. A dash: unknown or not measured.</p>
<dl class="legend">
{% for name, meaning in legend %}
<dt>{{ name }}</dt><dd>{{ meaning }}</dd>
{% endfor %}
</dl>
"""


@register_section("leaderboard", title="Leaderboard", order=10, page="board")
def rank(results: Results) -> str | None:
    """A table of every row with its headline metrics."""
    board, columns = results.board, results.board.headlines
    if not board.rows or not columns:
        return None
    rows, letters = rows_in_order(board), board.machines_of(columns)
    machines = [machine for machine in results.timed_machines if machine.letter in letters]
    table = metric_table(
        board,
        rows[:MOST_ROWS],
        name="leaderboard-table",
        caption=leaderboard_caption(board, columns),
        columns=columns,
        factors=[*board.varying, *(["machine"] if len(machines) > 1 else [])],
        page_of=results.model_page_of,
        failures=results.failed_cells,
        has_all_rows=False,
    )
    failed = len(results.failed_cases)
    return render(
        TEMPLATE,
        machines=machines,
        table=table.html(),
        legend=_legend(board, columns),
        left_out=max(0, len(rows) - MOST_ROWS),
        shown=MOST_ROWS,
        rows=len(rows),
        csv="" if results.links.is_single_file else BOARD_CSV,
        failed=plural(failed, "case is", "cases are") if failed else "",
        machines_page=results.links.page("machines"),
        failures_page=results.links.page("failures"),
    )


def rows_in_order(board: Board) -> list[BoardRow]:
    """Rows in the order of the ranking column: by machine if it is a timing, rows without a value last.

    Rows with a doubtful value, or with outputs out of tolerance, come after all ranked rows.
    """
    column = ranked_by(board.headlines)
    if column is None:
        return list(board.rows)
    sign = -1 if column.better == "higher" else 1

    def place(row: BoardRow) -> tuple[bool, str, bool, float]:
        summary = row.summaries.get(column)
        value = summary.value if summary else None
        is_unranked = _is_wrong(row) or bool(summary and summary.doubts)
        return value is None, group_of(row, [column]), is_unranked, sign * value if value is not None else 0.0

    return sorted(board.rows, key=place)


def _is_wrong(row: BoardRow) -> bool:
    return any(OUT_OF_TOLERANCE in summary.doubts for summary in row.summaries.values())


def ranked_by(columns: tuple[Column, ...]) -> Column | None:
    """What orders the rows: the first accuracy, else the first throughput, else the first metric with a direction."""
    directed = [column for column in columns if column.better]
    wanted = ("accuracy.", "throughput.", "")
    return next((c for prefix in wanted for c in directed if c.metric.startswith(prefix)), None)


def leaderboard_caption(board: Board, columns: tuple[Column, ...]) -> str:
    """The settings that all rows share, and the metric that orders them."""
    column, same = ranked_by(columns), board.constant_args
    shared = {"in every row": {**board.constant, **same}}
    for model, args in board.constant_args_of.items():
        shared[f"in every {model}"] = {name: value for name, value in args.items() if name not in same}
    shared["if timed"] = board.constant_among(RUN_AXES)
    shared["if trained"] = board.constant_among(TRAINING_AXES)
    parts = [f"{scope}: {settings_text(values)}" for scope, values in shared.items() if values]
    order = f"Ordered by {column.name}{' on ' + column.protocol_text if column.protocol else ''}." if column else ""
    return f"{'The same ' + '; '.join(parts) + '. ' if parts else ''}{order}"


def mark_meaning(mark: str) -> str:
    """What a mark of a value means: a doubt, for which it is not ranked, or a remark."""
    return DOUBTS.get(mark, REMARKS.get(mark, mark))


def _legend(board: Board, columns: tuple[Column, ...]) -> list[tuple[str, str]]:
    """What the small numbers and the marks mean, and why a headline has no value in any row."""
    rows = board.rows
    kinds = interval_kinds(rows, columns)
    chips = chips_of(rows, columns)
    return [
        *([("Small numbers", f"intervals: {listed(kinds, most=len(kinds))}")] if kinds else []),
        *((chip, f"not ranked: {DOUBTS.get(chip, chip)}") for chip in chips if chip not in REMARKS),
        *((chip, REMARKS[chip]) for chip in chips if chip in REMARKS),
        *((column.name, f"no value in any row: {why}") for column, why in board.unknown.items()),
    ]
