"""Spread of samples: quantiles, variation and drift of the raw samples of each sampled metric."""

import math
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

from bench.core.registry import register_section
from bench.core.units import DASH, Scale, choose_scale, format_number, plural
from bench.reporting.board import Board, factor_text
from bench.reporting.chart import INK, RULE, Chart, axis, log_axis, tick_labels
from bench.reporting.metric_text import axis_name, metric_name
from bench.reporting.rendering import render
from bench.reporting.results import Results
from bench.reporting.spread import QUANTILES, SampleSpread, spreads_of
from bench.reporting.table import ColumnHead, Table, TableCell, TableRow

MOST_BOXES = 24
MOST_CHARACTERS = 800_000  # of all tables
LONGEST_LABEL = 40
BOX = {"lowerfence": 0.05, "q1": 0.25, "median": 0.5, "q3": 0.75, "upperfence": 0.95}
TEMPLATE = """
{% for group in groups %}
<h3>{{ group.title }}</h3>
{{ group.chart }}
{{ group.table.html(most_characters=most // groups | length) }}
{% endfor %}
"""


@register_section("distributions", title="Spread of the samples", order=50, page="metrics")
def show_spread(results: Results) -> str | None:
    """Boxes and quantiles of every metric with samples, by machine."""
    kinds: dict[tuple[str, str, str], list[SampleSpread]] = defaultdict(list)
    for case in results.cases:
        for spread in spreads_of(case):
            metric = spread.recorded_metric.metric
            kinds[metric.name, metric.unit, spread.recorded_metric.machine].append(spread)
    names_machine = len(results.timed_machines) > 1
    groups = [
        _group(metric, unit, machine if names_machine else "", spreads, results.board, number)
        for number, ((metric, unit, machine), spreads) in enumerate(kinds.items(), start=1)
    ]
    return render(TEMPLATE, groups=groups, most=MOST_CHARACTERS) if groups else None


@dataclass(frozen=True, kw_only=True)
class _SpreadGroup:
    """The runs of one chart and table, the lowest median first."""

    name: str
    title: str
    spreads: list[SampleSpread]
    scale: Scale
    board: Board
    factors: list[str]

    @property
    def chart(self) -> Any:
        """The box chart; empty for a single run."""
        return _chart(self).html() if len(self.spreads) > 1 else ""

    @property
    def table(self) -> Table:
        return _table(self)


def _group(
    metric: str, unit: str, machine: str, spreads: list[SampleSpread], board: Board, number: int
) -> _SpreadGroup:
    return _SpreadGroup(
        name=f"spread-{number}",
        title=metric_name(metric) + (f", machine {machine}" if machine else ""),
        spreads=sorted(spreads, key=lambda spread: spread.middle),
        scale=choose_scale([spread.middle for spread in spreads], unit),
        board=board,
        factors=board.factors_of(column for column in board.columns if column.metric == metric),
    )


def _chart(group: _SpreadGroup) -> Chart:
    shown = group.spreads[:MOST_BOXES]
    ends = {key: [s.quantiles[QUANTILES.index(q)] / group.scale.divisor for s in shown] for key, q in BOX.items()}
    is_wide = ends["upperfence"][-1] > 15 * ends["lowerfence"][0] > 0
    left_out = len(group.spreads) - len(shown)
    look = {"line": {"color": INK, "width": 1.2}, "fillcolor": RULE, "width": 0.5, "whiskerwidth": 0}
    title = f"{group.title}, {group.scale.unit}"
    names = tick_labels([_label(spread, group) for spread in shown], longest=LONGEST_LABEL)
    return Chart(
        name=group.name,
        height_px=90 + 26 * len(shown),
        traces=[{"type": "box", "orientation": "h", "y": names, "hoverinfo": "x+y", **ends, **look}],
        layout={
            "xaxis": log_axis(title, [value for values in ends.values() for value in values])
            if is_wide
            else axis(title, nticks=6),
            "yaxis": axis(type="category", autorange="reversed", showgrid=False),
        },
        caption="Boxes hold the middle half of the samples of one run, whiskers go from 5 % to 95 %, the line is the "
        "median." + (f" The lowest {len(shown)} are drawn; the table has {left_out} more." if left_out else ""),
        alt=f"{group.title} of {plural(len(shown), 'run')}, lowest median first; the table below has the values.",
    )


def _table(group: _SpreadGroup) -> Table:
    unit = group.scale.unit
    heads = [
        ColumnHead(
            name=f"{q:.0%}".replace("%", "\N{NO-BREAK SPACE}%"),
            unit=unit,
            is_number=True,
            meaning=f"{q:.0%} of the samples are below",
        )
        for q in QUANTILES
    ]
    return Table(
        name=f"{group.name}-table",
        caption=f"{group.title}: quantiles of the raw samples of each run, lowest median first",
        heads=(
            ColumnHead(name="Case"),
            *heads,
            ColumnHead(name="Largest", unit=unit, is_number=True),
            ColumnHead(name="Variation", is_number=True, meaning="standard deviation over mean"),
            ColumnHead(
                name="Drift", is_number=True, meaning="median of the last third of the samples over the first, less 1"
            ),
            ColumnHead(name="Samples", is_number=True),
            ColumnHead(name="Stopped because"),
        ),
        rows=tuple(_table_row(spread, group) for spread in group.spreads),
    )


def _table_row(spread: SampleSpread, group: _SpreadGroup) -> TableRow:
    numbers = (TableCell(text=group.scale.text(value), sort=value) for value in (*spread.quantiles, spread.largest))
    return TableRow(
        cells=(
            TableCell(text=spread.case.case.point.model, below=_settings(spread, group), title=spread.case.case.title),
            *numbers,
            _percent(spread.variation),
            _percent(spread.drift),
            TableCell(text=str(spread.count), sort=spread.count),
            TableCell(text=spread.recorded_metric.metric.stopped_because or DASH),
        )
    )


def _percent(share: float) -> TableCell:
    if not math.isfinite(share):
        return TableCell(title="not defined if the samples are 0")
    return TableCell(text=f"{format_number(100 * share, 1)} %", sort=share)


def _settings(spread: SampleSpread, group: _SpreadGroup) -> str:
    """The arguments and factors that vary, the labels of the metric, and the run."""
    case = spread.case.case
    axes = {"suite": case.suite, **case.point.named()}
    words = [group.board.args_text(case.point.model, case.point.args)]
    words += [factor_text(name, axes[name]) for name in group.factors if name in axes]
    words += [f"{axis_name(k)} {v}" for k, v in spread.recorded_metric.metric.labels.items()]
    if len(spread.case.runs) > 1:
        words.append(f"run {spread.recorded_metric.record.run_index + 1}")
    return ", ".join(word for word in words if word)


def _label(spread: SampleSpread, group: _SpreadGroup) -> str:
    return f"{spread.case.case.point.model} {_settings(spread, group)}"
