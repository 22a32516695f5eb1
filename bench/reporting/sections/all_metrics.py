"""Every metric of every case in one table per measure, including those that the leaderboard leaves out."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from bench.core.registry import register_section
from bench.core.units import plural
from bench.reporting.board import Board, BoardRow, Column, group_of
from bench.reporting.metric_table import metric_table
from bench.reporting.rendering import render
from bench.reporting.results import Results

MOST_CHARACTERS = 1_500_000  # of all tables, because the page has to open fast
TEMPLATE = """
{% for measure in measures %}
<details><summary>{{ measure.title }}</summary>
{{ measure.table }}
</details>
{% endfor %}
"""


@register_section("metrics", title="All metrics", order=40, page="metrics")
def list_metrics(results: Results) -> str | None:
    """One folded table per measure with all of its metrics."""
    board = results.board
    measures: dict[str, list[Column]] = defaultdict(list)
    for column in board.columns:
        measures[column.metric.partition(".")[0]].append(column)
    names_machine = len(results.timed_machines) > 1
    shown = [
        _shown(board, name, columns, names_machine=names_machine, measures=len(measures))
        for name, columns in measures.items()
    ]
    return render(TEMPLATE, measures=shown) if shown else None


def _shown(board: Board, name: str, columns: list[Column], *, names_machine: bool, measures: int) -> dict[str, Any]:
    factors = _factors(board, columns, names_machine=names_machine)
    rows = _distinct(board, columns, factors)
    caption = f"{name}: every metric that was recorded"
    table = metric_table(board, rows, name=f"metrics-{name}", caption=caption, columns=columns, factors=factors)
    return {
        "title": f"{name}: {plural(len(columns), 'metric')}, {plural(len(rows), 'row')}",
        "table": table.html(most_characters=MOST_CHARACTERS // measures),
    }


def _factors(board: Board, columns: Sequence[Column], *, names_machine: bool) -> list[str]:
    """Factors that vary and that these columns depend on."""
    is_of_machine = any(column.is_of_machine for column in columns)
    return [*board.factors_of(columns), *(["machine"] if names_machine and is_of_machine else [])]


def _distinct(board: Board, columns: Sequence[Column], factors: Sequence[str]) -> list[BoardRow]:
    """Rows that have one of `columns`; rows that differ only in factors the columns do not depend on give one."""
    found: dict[tuple[str, ...], BoardRow] = {}
    for row in board.rows:
        if any(column in row.summaries for column in columns):
            values = [group_of(row, columns) if name == "machine" else str(row.factors.get(name)) for name in factors]
            found.setdefault((row.suite, row.label, *values), row)
    return list(found.values())
