"""Roofline: achieved FLOP/s and measured ceilings by machine. Williams et al., 2009, doi 10.1145/1498765.1498785."""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from bench.core.registry import register_section
from bench.core.schema import Json
from bench.core.units import DASH, choose_scale, format_number, format_value
from bench.reporting.case_results import CaseResult
from bench.reporting.chart import ACCENT, MUTED, Chart, escaped, log_axis
from bench.reporting.links import Links
from bench.reporting.metric_text import value_text
from bench.reporting.rendering import render
from bench.reporting.results import Results
from bench.reporting.table import ColumnHead, Table, TableCell, TableRow

MOST_POINTS = 400
TEMPLATE = """
<p>The line is the roof of a machine in one precision: the lower of its measured copy bandwidth times FLOPs per byte,
and its measured matrix product. Bytes are those that every operator reads and writes; fused operators avoid some of
them, so a compiled model may be above its roof.</p>
{% for chart in charts %}
{{ chart }}
{% endfor %}
{{ table }}
"""


@dataclass(frozen=True, kw_only=True)
class RooflinePoint:
    """One run: `intensity` in FLOPs per byte, `achieved` in FLOP/s, and the two ceilings in FLOP/s and bytes/s."""

    label: str
    machine: str
    precision: str
    intensity: float
    achieved: float
    peak_flops: float
    peak_bytes: float
    bound_by: str
    page: str

    @property
    def share(self) -> float:
        """The share of the roof at this intensity."""
        return self.achieved / min(self.peak_flops, self.intensity * self.peak_bytes)


@register_section("roofline", title="Roofline", order=0, page="roofline")
def draw_rooflines(results: Results) -> str | None:
    """One chart per machine and precision, and a table of all runs with the measure `limits`."""
    return rooflines(results, results.cases, results.links, "roofline") or None


def rooflines(results: Results, cases: Iterable[CaseResult], links: Links, name: str) -> str:
    """The charts and the table of `cases` with names that begin with `name`; empty without the measure `limits`."""
    points = list(_points(results, cases, links))
    if not points:
        return ""
    groups: dict[tuple[str, str], list[RooflinePoint]] = defaultdict(list)
    for point in points:
        groups[point.machine, point.precision].append(point)
    charts = [_chart(group, f"{name}-{number}").html() for number, group in enumerate(groups.values(), start=1)]
    return render(TEMPLATE, charts=charts, table=_table(points, f"{name}-table").html())


def _points(results: Results, cases: Iterable[CaseResult], links: Links) -> Iterator[RooflinePoint]:
    for case in cases:
        for record in case.runs:
            found, achieved = record.details.get("limits"), record.metric("limits.flops_per_s")
            if isinstance(found, dict) and achieved is not None and achieved.value:
                names = ("flops_per_byte", "measured_flops_per_s", "measured_bytes_per_s")
                intensity, flops, moved = (_number(found.get(name)) for name in names)
                if intensity and flops and moved:
                    yield RooflinePoint(
                        label=case.case.title,
                        machine=results.letter_of(record),
                        precision=value_text(case.case.point.precision or "fp32"),
                        intensity=intensity,
                        achieved=float(achieved.value),
                        peak_flops=flops,
                        peak_bytes=moved,
                        bound_by=value_text(found.get("bound_by")),
                        page=links.page(results.case_names[id(case)]),
                    )


def _chart(points: list[RooflinePoint], name: str) -> Chart:
    """Both axes are logarithmic; the roof is that of the first point."""
    shown, first = points[:MOST_POINTS], points[0]
    ridge = first.peak_flops / first.peak_bytes
    ends = [min(ridge, *(p.intensity for p in shown)) / 3, ridge, max(ridge, *(p.intensity for p in shown)) * 3]
    scale = choose_scale([p.achieved for p in shown] + [first.peak_flops], "FLOP/s")
    roof = [min(first.peak_flops, x * first.peak_bytes) for x in ends]
    left_out = f" {len(points) - len(shown)} more runs are in the table." if len(points) > len(shown) else ""
    caption = f"Machine {first.machine}, {first.precision}: achieved FLOP/s over FLOPs per byte.{left_out}"
    return Chart(
        name=name,
        traces=[
            {
                "type": "scatter",
                "mode": "lines",
                "x": ends,
                "y": [y / scale.divisor for y in roof],
                "line": {"color": MUTED},
                "hoverinfo": "skip",
            },
            {
                "type": "scatter",
                "mode": "markers",
                "x": [p.intensity for p in shown],
                "y": [p.achieved / scale.divisor for p in shown],
                "customdata": [escaped(p.label) for p in shown],
                "ids": [p.page for p in shown],
                "marker": {"color": ACCENT, "size": 8},
                "hovertemplate": f"%{{customdata}}<br>%{{y:.4g}} {scale.unit} at %{{x:.3g}} FLOPs per byte"
                "<extra></extra>",
            },
        ],
        layout={
            "xaxis": log_axis("FLOPs per byte", ends),
            "yaxis": log_axis(scale.unit, [y / scale.divisor for y in (*roof, *(p.achieved for p in shown))]),
        },
        caption=caption,
        alt=caption,
    )


def _table(points: list[RooflinePoint], name: str) -> Table:
    heads = (
        ColumnHead(name="Case"),
        ColumnHead(name="Machine"),
        ColumnHead(name="Precision"),
        ColumnHead(name="FLOPs per byte", is_number=True),
        ColumnHead(name="Achieved", is_number=True, meaning="FLOP/s of the forward pass", is_best_first=True),
        ColumnHead(name="Matrix product", is_number=True, meaning="FLOP/s of the measured ceiling"),
        ColumnHead(name="Copy", is_number=True, meaning="bytes/s of the measured ceiling"),
        ColumnHead(name="Of the roof", unit="%", is_number=True, is_best_first=True),
        ColumnHead(name="Bound by"),
    )
    return Table(
        name=name,
        caption="Runs with the measure limits",
        heads=heads,
        rows=tuple(TableRow(cells=_cells(point)) for point in points),
    )


def _cells(point: RooflinePoint) -> tuple[TableCell, ...]:
    return (
        TableCell(text=point.label, href=point.page),
        TableCell(text=point.machine),
        TableCell(text=point.precision),
        TableCell(text=format_number(point.intensity, 1), sort=point.intensity),
        *(_rate(value, unit) for value, unit in ((point.achieved, "FLOP/s"), (point.peak_flops, "FLOP/s"))),
        _rate(point.peak_bytes, "B/s"),
        TableCell(text=format_number(100 * point.share, 1), sort=100 * point.share),
        TableCell(text=point.bound_by or DASH),
    )


def _rate(value: float, unit: str) -> TableCell:
    return TableCell(text=format_value(value, unit), sort=value)


def _number(value: Json) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) and value > 0 else None
