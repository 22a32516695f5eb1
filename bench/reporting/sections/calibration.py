"""Calibration: how far each model's scores can be believed, as a table, reliability curves and risk over coverage."""

from typing import TYPE_CHECKING, Any

from bench.core.errors import InputError
from bench.core.registry import register_section
from bench.core.units import DASH, plural
from bench.reporting.chart import MUTED, SERIES, Chart, axis, escaped
from bench.reporting.rendering import render
from bench.reporting.results import Results
from bench.reporting.table import ColumnHead, Table, TableCell, TableRow

if TYPE_CHECKING:
    from bench.train.calibration import Calibration

MOST_CASES = 24
MOST_POINTS = 200  # of a risk-coverage curve, which has a point per video
HEADS = (
    ColumnHead(name="Case"),
    ColumnHead(
        name="Calibration error",
        unit="%",
        is_number=True,
        meaning="mean distance between confidence and accuracy over 15 bins of equal size, with its 95 % interval",
    ),
    ColumnHead(name="Brier", is_number=True, meaning="squared distance between probabilities and label, 0 to 2"),
    ColumnHead(name="AURC", unit="%", is_number=True, meaning="mean error over all shares of most confident videos"),
    ColumnHead(name="Temperature", is_number=True, meaning="fitted on one half of the videos; above 1: too confident"),
    ColumnHead(name="Error after", unit="%", is_number=True, meaning="of the other half, with that temperature"),
)
TEMPLATE = """
<p>A model is calibrated if, of the videos to which it gives a confidence of 80 %, it gets 80 % right.</p>
{{ table }}
<div class="charts">
{% for chart in charts %}{{ chart }}{% endfor %}
</div>
{% if left_out %}<p class="muted">{{ left_out }} more cases have predictions; see <code>vbench predictions</code>.</p>
{% endif %}
"""


@register_section("calibration", title="Calibration", order=57, page="calibration")
def show_calibration(results: Results) -> str | None:
    """A table of all cases with kept predictions, and their curves."""
    from bench.train.calibration import calibrate_predictions
    from bench.train.predictions import read_predictions

    files = [(case.case.title, results.artifact(case.runs[-1], "predictions")) for case in results.cases if case.runs]
    known = [(title, file) for title, file in files if file is not None]
    found: list[tuple[str, Calibration]] = []
    for title, file in known[:MOST_CASES]:
        try:
            calibration = calibrate_predictions(read_predictions(file))
        except InputError:  # such as a damaged file, or one of another version; the others are still shown
            continue
        if calibration is not None:
            found.append((title, calibration))
    if not found:
        return None
    rows = tuple(_row(title, calibration, number) for number, (title, calibration) in enumerate(found, start=1))
    table = Table(name="calibration-table", caption="Calibration", heads=HEADS, rows=rows)
    charts = [_reliability(found).html(), _risk(found).html()]
    return render(TEMPLATE, table=table.html(), charts=charts, left_out=len(known[MOST_CASES:]))


def _row(title: str, found: "Calibration", number: int) -> TableRow:
    value, low, high = (100 * each for each in (found.error.value, found.error.low, found.error.high))
    temperature = found.temperature
    return TableRow(
        cells=(
            TableCell(text=title, below=f"line {number}"),
            TableCell(text=f"{value:.1f}", sort=value, below=f"{low:.1f}{DASH}{high:.1f}", low=low, high=high),
            TableCell(text=f"{found.brier:.3f}", sort=found.brier),
            TableCell(text=f"{100 * found.aurc:.1f}", sort=100 * found.aurc),
            TableCell() if temperature is None else TableCell(text=f"{temperature.value:.2f}", sort=temperature.value),
            TableCell()
            if temperature is None
            else TableCell(text=f"{100 * temperature.error_after:.1f}", sort=100 * temperature.error_after),
        )
    )


def _reliability(found: "list[tuple[str, Calibration]]") -> Chart:
    ideal = {
        "type": "scatter",
        "mode": "lines",
        "x": [0, 100],
        "y": [0, 100],
        "line": {"color": MUTED, "width": 1, "dash": "dot"},
        "hoverinfo": "skip",
    }
    lines = [
        _trace(
            title,
            number,
            [100 * each.confidence for each in calibration.bins],
            [100 * each.right.value for each in calibration.bins],
        )
        for number, (title, calibration) in enumerate(found, start=1)
    ]
    return Chart(
        name="reliability",
        traces=[ideal, *lines],
        layout={"xaxis": axis("Confidence, %", nticks=6), "yaxis": axis("Right, %", nticks=6)},
        caption="Reliability: below the dotted line a model is too confident. The table has the number of each line.",
        alt=f"Share of right answers by confidence, of {plural(len(found), 'case')}.",
    )


def _risk(found: "list[tuple[str, Calibration]]") -> Chart:
    lines = []
    for number, (title, calibration) in enumerate(found, start=1):
        points = calibration.risk_coverage
        kept = points[:: -(-len(points) // MOST_POINTS)]
        lines.append(_trace(title, number, [100 * c for c, _ in kept], [100 * r for _, r in kept]))
    return Chart(
        name="risk-coverage",
        traces=lines,
        layout={"xaxis": axis("Answered, %", nticks=6), "yaxis": axis("Wrong, %", nticks=6)},
        caption="Risk over coverage: errors among the most confident share of the videos.",
        alt=f"Share of wrong answers by coverage, of {plural(len(found), 'case')}.",
    )


def _trace(title: str, number: int, x: list[float], y: list[float]) -> dict[str, Any]:
    """A line with its number at the last point, since six colours and a name under the mouse tell too few apart."""
    colour = SERIES[(number - 1) % len(SERIES)]
    return {
        "type": "scatter",
        "mode": "lines+markers+text" if len(x) < 30 else "lines+text",
        "x": x,
        "y": y,
        "text": [*[""] * (len(x) - 1), str(number)],
        "textposition": "top center",
        "cliponaxis": False,
        "name": escaped(title),
        "line": {"color": colour, "width": 1.6},
        "marker": {"color": colour},
        "hovertemplate": "%{fullData.name}<br>%{x:.1f}: %{y:.1f}<extra></extra>",
    }
