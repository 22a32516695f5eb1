"""Charts of cost against accuracy (or throughput), with the Pareto frontier."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bench.core.registry import register_section
from bench.core.units import Scale, choose_scale, plural
from bench.reporting.board import Board, BoardRow, Column, group_of
from bench.reporting.case_results import OTHER_HEAD
from bench.reporting.chart import ACCENT, MUTED, PAPER, Chart, axis, error_bars, escaped, log_axis
from bench.reporting.metric_table import metric_table
from bench.reporting.metric_text import listed, metric_name
from bench.reporting.rendering import render
from bench.reporting.results import Results

if TYPE_CHECKING:
    from markupsafe import Markup

COSTS = (
    "macs.forward",
    "latency.p50_ms",
    "params.total",
    "energy.j_per_clip",
    "memory.peak_allocated_bytes",
)
MOST_CHARTS = 4
MOST_GAINS = 3
MOST_POINTS = 400
CIRCLED = "①②③④⑤⑥⑦⑧⑨⑩"  # larger ones are missing from many fonts
MOST_NUMBERS = 20
MOST_BARS = 40
MOST_CHARACTERS = 200_000  # of the table below the charts of one gain
LINEAR = {"type": "linear", "nticks": 5}
TEMPLATE = """
<p>Numbered points are on the frontier: no other model here gives more for less. If intervals overlap, the order is
open. Hollow points are not ranked: their timing is doubtful (unsteady, drifting, throttled), their count is incomplete,
or their accuracy is lent from another precision.</p>
{% for gain in gains %}
<h3>{{ gain.title }}</h3>
<div class="charts">
{% for chart in gain.charts %}
{{ chart }}
{% endfor %}
</div>
<details><summary>The points of these charts as a table</summary>
{{ gain.table }}
</details>
{% if gain.left_out %}<p class="muted">{{ gain.left_out }} more charts of this gain are not drawn; the tables have their
values.</p>{% endif %}
{% endfor %}
{% if left_out %}<p class="muted">{{ left_out }} more accuracies are not drawn; the tables have them.</p>{% endif %}
"""


@dataclass(frozen=True, kw_only=True)
class ChartPoint:
    """One row in a chart: cost, gain and the interval of the gain. Unranked points are drawn hollow."""

    label: str
    cost: float
    gain: float
    low: float
    high: float
    chips: tuple[str, ...] = ()
    is_ranked: bool = True
    is_other_head: bool = False
    page: str = ""


@register_section("trade-off", title="Cost and gain", order=30, page="trade-offs")
def weigh(results: Results) -> str | None:
    """Scatter charts of each gain over each cost that at least two rows have."""
    board = results.board
    gains = [_drawn(results, gain) for gain in _all_gains(board)[:MOST_GAINS]]
    shown = [gain for gain in gains if gain["charts"]]
    left_out = len(_all_gains(board)) - len(gains)
    return render(TEMPLATE, gains=shown, left_out=left_out) if shown else None


def frontier(points: Sequence[ChartPoint]) -> list[ChartPoint]:
    """The points that no other point beats in cost and gain, in the order of cost; equal points stay together."""
    ordered = sorted(points, key=lambda p: (p.cost, -p.gain))
    kept: list[ChartPoint] = []
    for point in ordered:
        is_level = kept and point.cost == kept[-1].cost and point.gain == kept[-1].gain
        if not kept or point.gain > kept[-1].gain or is_level:
            kept.append(point)
    return kept


def _all_gains(board: Board) -> list[Column]:
    """The accuracies; if there are none, the first throughput."""
    accuracies = [c for c in board.headlines if c.metric == "accuracy.top1"]
    others = [c for c in board.headlines if c.metric == "throughput.clips_per_s"]
    return accuracies or others[:1]


def _drawn(results: Results, gain: Column) -> dict[str, Any]:
    """The first charts of one gain, their points as a table, and how many more charts there would be."""
    board = results.board
    number, charts = board.columns.index(gain), list(_charts(results, gain))
    shown = [
        _chart(board, cost, gain, machine=machine, points=points, name=f"{number}-{place}").html()
        for place, (cost, machine, points) in enumerate(charts[:MOST_CHARTS], start=1)
    ]
    costs = list(dict.fromkeys(cost for cost, _, _ in charts[:MOST_CHARTS]))
    table = _table(results, gain, costs, name=f"trade-off-{number}-points") if shown else ""
    return {"title": _title(gain), "charts": shown, "table": table, "left_out": len(charts) - len(shown)}


def _table(results: Results, gain: Column, costs: Sequence[Column], *, name: str) -> "Markup":
    """The rows that are points of a chart, best gain first: what a chart names only under the mouse."""

    def value(row: BoardRow, column: Column) -> float | None:
        summary = row.summaries.get(column)
        return None if summary is None else summary.value

    board = results.board
    rows = [row for row in board.rows if value(row, gain) is not None and any(value(row, c) is not None for c in costs)]
    return metric_table(
        board,
        sorted(rows, key=lambda row: -(value(row, gain) or 0.0)),
        name=name,
        caption=f"{gain.name} and costs of every point",
        columns=[gain, *costs],
        factors=[*board.varying, *(["machine"] if _has_machines(board) else [])],
        page_of=results.model_page_of,
    ).html(most_characters=MOST_CHARACTERS)


def _charts(results: Results, gain: Column) -> Iterator[tuple[Column, str, list[ChartPoint]]]:
    """Cost, machine and points of every chart with two different points."""
    costs = [c for name in COSTS for c in results.board.headlines if c.metric == name and c.better != "higher"]
    for cost in costs:
        for machine, points in _points(results, cost, gain).items():
            if len({(p.cost, p.gain) for p in points}) > 1:
                yield cost, machine, points


def _points(results: Results, cost: Column, gain: Column) -> dict[str, list[ChartPoint]]:
    """Points by machine, which is empty if neither is measured on one; rows at the same place give one point."""
    board, found = results.board, dict[str, dict[tuple[str, float, float], ChartPoint]]()
    for row in board.rows:
        x, y = row.summaries.get(cost), row.summaries.get(gain)
        if x is None or y is None or x.value is None or y.value is None:
            continue
        machine = group_of(row, [cost, gain])
        chips = [*x.doubts, *y.doubts, *x.remarks, *y.remarks, *(["incomplete count"] if x.is_lower_bound else [])]
        label = board.label(row, [cost, gain])
        point = ChartPoint(
            label=label,
            chips=tuple(dict.fromkeys(chips)),
            cost=x.value,
            gain=y.value,
            low=y.low,
            high=y.high,
            is_ranked=x.is_ranked and y.is_ranked,
            is_other_head=OTHER_HEAD in y.remarks,
            page=results.model_page_of(row.label),
        )
        found.setdefault(machine, {}).setdefault((label, x.value, y.value), point)
    return {machine: list(points.values()) for machine, points in found.items()}


def _chart(board: Board, cost: Column, gain: Column, *, machine: str, points: list[ChartPoint], name: str) -> Chart:
    ranked = [p for p in points if p.is_ranked]
    best = frontier(ranked)
    rest, hollow = [p for p in ranked if p not in best], [p for p in points if not p.is_ranked]
    kept = {"ranked": rest[:MOST_POINTS], "hollow": hollow[:MOST_POINTS]}
    left_out = len(rest) + len(hollow) - sum(map(len, kept.values()))
    across, up = choose_scale([p.cost for p in points], cost.unit), choose_scale([p.gain for p in points], gain.unit)
    is_wide = min(p.cost for p in points) > 0 and max(p.cost for p in points) > 15 * min(p.cost for p in points)
    label = metric_name(cost.metric) + (f", machine {machine}" if machine and _has_machines(board) else "")
    draw = _ScatterScales(across=across, up=up)
    traces = [
        draw.scatter(kept["hollow"], {"color": PAPER, "size": 8, "line": {"color": MUTED, "width": 1.4}}),
        draw.scatter(kept["ranked"], {"color": MUTED, "size": 8}),
    ]
    numbered = len(best) <= MOST_NUMBERS
    traces += [
        draw.line(best),
        draw.scatter(best, {"color": ACCENT, "size": 16 if numbered else 8}, is_numbered=numbered),
    ]
    caption = _caption(best, points, cost=cost, gain=gain, left_out=left_out)
    return Chart(
        name=f"trade-off-{name}",
        traces=traces,
        layout={
            "xaxis": log_axis(_with_unit(label, across), [p.cost / across.divisor for p in points])
            if is_wide
            else axis(_with_unit(label, across), **LINEAR),
            "yaxis": axis(_with_unit(metric_name(gain.metric), up), nticks=6),
            "margin": {"t": 12},
        },
        caption=caption,
        alt=caption,
    )


@dataclass(frozen=True, kw_only=True)
class _ScatterScales:
    """Makes traces of points in the scales of one chart."""

    across: Scale
    up: Scale

    def scatter(self, points: list[ChartPoint], marker: dict[str, Any], *, is_numbered: bool = False) -> dict[str, Any]:
        ys = [p.gain / self.up.divisor for p in points]
        lows, highs = ([getattr(p, end) / self.up.divisor for p in points] for end in ("low", "high"))
        units = [f"%{{y:.4g}} {self.up.unit}", f"%{{x:.4g}} {self.across.unit}"]
        labels = [escaped(", ".join([p.label, *p.chips])) for p in points]
        bars = error_bars(ys, lows, highs, color=marker.get("line", marker)["color"]) if len(points) < MOST_BARS else {}
        return {
            "type": "scatter",
            "mode": "markers+text" if is_numbered else "markers",
            "x": [p.cost / self.across.divisor for p in points],
            "y": ys,
            "text": [str(number) for number in range(1, 1 + len(points))] if is_numbered else [],
            "textfont": {"size": 10, "color": PAPER},
            "cliponaxis": False,
            "customdata": labels,
            "ids": [p.page for p in points],  # the script opens the page of a point that is clicked
            "hovertemplate": f"%{{customdata}}<br>{' at '.join(units)}<extra></extra>",
            "marker": {**marker, "symbol": ["diamond" if p.is_other_head else "circle" for p in points]},
            "error_y": bars,
        }

    def line(self, points: list[ChartPoint]) -> dict[str, Any]:
        """The frontier as steps: the best gain for at most this cost."""
        return {
            "type": "scatter",
            "mode": "lines",
            "x": [p.cost / self.across.divisor for p in points],
            "y": [p.gain / self.up.divisor for p in points],
            "line": {"color": ACCENT, "width": 1.2, "shape": "hv"},
            "hoverinfo": "skip",
        }


def _caption(best: list[ChartPoint], points: Sequence[ChartPoint], *, cost: Column, gain: Column, left_out: int) -> str:
    """The caption of a chart: the frontier by name, and what is hollow, of another head or not drawn, by number."""
    numbers = list(CIRCLED) if len(best) <= len(CIRCLED) else [f"{number}:" for number in range(1, 1 + len(best))]
    is_numbered = len(best) <= MOST_NUMBERS
    labels = [
        f"{n}\N{NO-BREAK SPACE}{p.label}" if is_numbered else p.label for n, p in zip(numbers, best, strict=False)
    ]
    names = listed(labels, most=MOST_NUMBERS)
    words = f"{metric_name(gain.metric)} against {metric_name(cost.metric)}"
    ranked = sum(p.is_ranked for p in points)
    sentences = [f"{words}: {len(best)} of {ranked} on the frontier." if ranked else f"{words}: no point is ranked."]
    sentences += [f"{names}."] if best else []
    hollow, other_head = sum(not p.is_ranked for p in points), sum(p.is_other_head for p in points)
    if hollow:
        sentences.append(f"{plural(hollow, 'point is', 'points are')} hollow and not ranked.")
    if other_head:
        sentences.append(
            f"The accuracy of {'all' if other_head == len(points) else other_head} points was measured with the head "
            "of the data set, the cost with the model's default head (diamonds)."
        )
    if left_out:
        sentences.append(f"{plural(left_out, 'more point is', 'more points are')} not drawn.")
    return " ".join(sentences)


def _title(gain: Column) -> str:
    return f"{gain.name} on {gain.protocol_text}" if gain.protocol else gain.name


def _with_unit(label: str, scale: Scale) -> str:
    unit = scale.unit_after(label)
    return f"{label}, {unit}" if unit else label


def _has_machines(board: Board) -> bool:
    return len(board.machines_of(board.columns)) > 1
