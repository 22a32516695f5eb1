"""A diagnosis as one HTML file: the result in words, the lines for the suite, and every candidate that was tried."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.core.units import DASH, format_signed
from bench.reporting.chart import short_names
from bench.reporting.rendering import DrawnSection, render
from bench.reporting.site import write_single_page
from bench.reporting.table import ColumnHead, Table, TableCell, TableRow

WIDTH, NAME_WIDTH, ROW_HEIGHT = 860.0, 380.0, 24.0
LONGEST_NAME = 58
MOST_BARS = 30
HEADS = (
    ColumnHead(name="Candidate"),
    ColumnHead(name="Outcome"),
    ColumnHead(name="Videos", is_number=True),
    ColumnHead(
        name="Gain", unit="points", is_number=True, meaning="of top-1 on the same videos, with its 95 % interval"
    ),
    ColumnHead(name="p", is_number=True, meaning="McNemar's exact test, not corrected for the number of candidates"),
)
SUMMARY = """
<ul class="findings">
{% for sentence in sentences %}<li>{{ sentence }}</li>
{% endfor %}
</ul>
{% if lines %}
<p>Write this into the suite:</p>
<pre><code>{{ lines }}</code></pre>
{% endif %}
{% if bars %}
<figure class="chart">
<svg class="forest" data-explained viewBox="0 0 {{ width }} {{ height }}" role="img" \
aria-label="Gain of each candidate">
<line x1="{{ zero }}" x2="{{ zero }}" y1="0" y2="{{ height - 22 }}"></line>
{% for bar in bars %}
<g><title>{{ bar.text }}</title>
<text x="0" y="{{ bar.y + 4 }}">{{ bar.name }}</text>
<rect class="{{ bar.kind }}" x="{{ bar.left }}" y="{{ bar.y - 1 }}" width="{{ bar.width }}" height="2"></rect>
<circle class="{{ bar.kind }}" cx="{{ bar.x }}" cy="{{ bar.y }}" r="4.5"></circle>
</g>
{% endfor %}
{% for tick in ticks %}<text class="tick" x="{{ tick[0] }}" y="{{ height - 4 }}">{{ tick[1] }}</text>
{% endfor %}
</svg>
<figcaption>Gain of top-1 in points with its 95 % interval, of the candidates that gain or lose most.</figcaption>
</figure>
{% endif %}
"""


def write_diagnosis_page(file: Path, diagnosis: Mapping[str, Any], *, title: str, lines: str) -> Path:
    """Write the page of a diagnosis, as `vbench diagnose --json` prints it; `lines` are those of the suite."""
    trials: Sequence[Mapping[str, Any]] = diagnosis["candidates"]
    known = sorted((t for t in trials if t["gain_points"] is not None), key=lambda t: -t["gain_points"]["value"])
    few = known if len(known) <= MOST_BARS else [*known[: MOST_BARS // 2], *known[-MOST_BARS // 2 :]]
    html = render(SUMMARY, sentences=diagnosis["sentences"], lines=lines, **_forest(few))
    table = Table(
        name="candidates", caption="Every candidate", heads=HEADS, rows=tuple(TableRow(cells=_cells(t)) for t in trials)
    )
    sections = [
        DrawnSection(name="summary", title="What explains the accuracy", html=html),
        DrawnSection(name="candidates-list", title="Candidates", html=table.html()),
    ]
    return write_single_page(file, sections, title=title, description="")


def _forest(trials: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The values of the forest plot of the gains, for the template."""
    ends = [abs(trial["gain_points"][end]) for trial in trials for end in ("low", "high")]
    most = max([end for end in ends if math.isfinite(end)], default=1.0) or 1.0
    zero = NAME_WIDTH + (WIDTH - NAME_WIDTH) / 2
    scale = (WIDTH - NAME_WIDTH) / 2 / most * 0.95

    def place(points: float) -> float:
        return round(zero + scale * points, 1)

    bars = []
    names = [f"{trial['topic']}: {trial['what']}" for trial in trials]
    shown = short_names(names, longest=LONGEST_NAME)
    for number, (trial, name) in enumerate(zip(trials, names, strict=True)):
        gain = trial["gain_points"]
        is_cause = trial["outcome"] == "cause"
        bars.append(
            {
                "name": shown[number],
                "text": f"{name}: {format_signed(gain['value'], 1)} points ({_interval(gain)})",
                "kind": "better" if is_cause else "even",
                "x": place(gain["value"]),
                "left": place(gain["low"]),
                "width": round(scale * (gain["high"] - gain["low"]), 1),
                "y": (number + 0.5) * ROW_HEIGHT,
            }
        )
    ticks = [(place(points), format_signed(points, 0)) for points in (-0.8 * most, 0.0, 0.8 * most)]
    height = len(trials) * ROW_HEIGHT + 24
    return {"bars": bars, "ticks": ticks, "zero": zero, "width": WIDTH, "height": height}


def _interval(gain: Mapping[str, float]) -> str:
    return f"{format_signed(gain['low'], 1)} to {format_signed(gain['high'], 1)}"


def _cells(trial: Mapping[str, Any]) -> tuple[TableCell, ...]:
    gain, p = trial["gain_points"], trial["p"]
    return (
        TableCell(text=trial["topic"], below=trial["what"]),
        TableCell(text=trial["outcome"]),
        TableCell(text=str(trial["videos"]) if trial["videos"] else DASH, sort=trial["videos"] or None),
        TableCell()
        if gain is None
        else TableCell(
            text=format_signed(gain["value"], 1),
            sort=gain["value"],
            below=_interval(gain),
            low=gain["low"],
            high=gain["high"],
        ),
        TableCell() if p is None else TableCell(text=f"{p:.2g}", sort=p),
    )
