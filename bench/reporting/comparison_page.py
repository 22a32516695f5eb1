"""A comparison as one HTML file: verdicts with intervals and minimum detectable changes, drawn without a script."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.core.units import DASH, format_exact, format_number, format_signed, format_value
from bench.reporting.chart import short_names
from bench.reporting.rendering import DrawnSection, render
from bench.reporting.site import write_single_page
from bench.reporting.table import ColumnHead, Table, TableCell, TableRow

MOST_BARS = 60
WIDTH, NAME_WIDTH, ROW_HEIGHT = 860.0, 380.0, 24.0
LONGEST_NAME = 58
URGENCY = ("worse", "inconclusive", "better", "same")  # urgent ones come first, and are drawn if there are many
VERDICT_CLASSES = {"worse": "worse", "better": "better", "inconclusive": "unclear", "same": "even"}
HEADS = (
    ColumnHead(name="Verdict"),
    ColumnHead(name="Case"),
    ColumnHead(name="Metric"),
    ColumnHead(name="Base", is_number=True),
    ColumnHead(name="Head", is_number=True),
    ColumnHead(name="Change", unit="%", is_number=True, meaning="head / base minus 1, with its 95 % interval"),
    ColumnHead(
        name="Detectable",
        unit="%",
        is_number=True,
        meaning="minimum detectable change: seen in 80 of 100 repeats of this comparison",
    ),
    ColumnHead(name="Limit", meaning="the limit of the gate"),
    ColumnHead(name="Runs", meaning="of base and head"),
    ColumnHead(name="Why"),
)
SUMMARY = """
<p class="finding">{{ headline }}</p>
<p>Base: <code>{{ base }}</code>. Head: <code>{{ head }}</code>.</p>
{% if forest %}
<figure class="chart">
{{ forest }}
<figcaption>Change from base to head with its 95 % interval, of the metrics that decide. The shaded band is the minimum
detectable change.{% if left_out %} {{ left_out }} more are in the table.{% endif %}</figcaption>
</figure>
{% endif %}
"""
FOREST = """
<svg class="forest" data-explained viewBox="0 0 {{ width }} {{ height }}" role="img" \
aria-label="Changes from base to head">
<line x1="{{ zero }}" x2="{{ zero }}" y1="0" y2="{{ height - 22 }}"></line>
{% for bar in bars %}
<g><title>{{ bar.text }}</title>
<text x="0" y="{{ bar.y + 4 }}">{{ bar.name }}</text>
{% if bar.band %}<rect class="band" x="{{ bar.band[0] }}" y="{{ bar.y - 9 }}" width="{{ bar.band[1] }}" \
height="18"></rect>{% endif %}
{% if bar.ends %}<rect class="{{ bar.kind }}" x="{{ bar.ends[0] }}" y="{{ bar.y - 1 }}" width="{{ bar.ends[1] }}" \
height="2"></rect>{% endif %}
<circle class="{{ bar.kind }}" cx="{{ bar.x }}" cy="{{ bar.y }}" r="4.5"></circle>
</g>
{% endfor %}
{% for tick in ticks %}
<text class="tick" x="{{ tick[0] }}" y="{{ height - 4 }}">{{ tick[1] }}</text>
{% endfor %}
</svg>
"""
LINES = "<ul class='findings'>{% for line in lines %}<li>{{ line }}</li>{% endfor %}</ul>"
CAUSES = """
<ul class="findings">
{% for verdict, title, lines in causes %}
<li><b>{{ verdict }}</b>: {{ title }}<ul>{% for line in lines %}<li>{{ line }}</li>{% endfor %}</ul></li>
{% endfor %}
</ul>
"""


def write_comparison_page(
    file: Path,
    rows: Sequence[Mapping[str, Any]],
    *,
    base: str,
    head: str,
    headline: str,
    causes: Sequence[tuple[str, str, Sequence[str]]] = (),
    lists: Sequence[tuple[str, Sequence[str]]] = (),
) -> Path:
    """Write a page of `rows` (verdicts as `vbench compare --json` prints them) and return its path.

    `causes` are verdict and layers of each changed model, and the metrics that they move. `lists` are titled lines:
    what could not be compared, and notes.
    """
    rows = sorted(rows, key=lambda row: (not row["is_deciding"], URGENCY.index(row["verdict"])))
    deciding = [row for row in rows if row["is_deciding"] and row["ratio"] is not None and row["ratio"] > 0]
    summary = render(
        SUMMARY,
        headline=headline,
        base=base,
        head=head,
        forest=_forest(deciding[:MOST_BARS]) if deciding else "",
        left_out=max(0, len(deciding) - MOST_BARS),
    )
    table = Table(
        name="verdicts", caption="Every verdict", heads=HEADS, rows=tuple(TableRow(cells=_cells(row)) for row in rows)
    )
    sections = [DrawnSection(name="summary", title="Summary", html=summary)]
    if causes:
        html = render(CAUSES, causes=causes)
        sections.append(DrawnSection(name="causes", title="Changed layers", html=html))
    if rows:
        sections.append(DrawnSection(name="verdicts-list", title="Verdicts", html=table.html()))
    for number, (title, lines) in enumerate(lists, start=1):
        sections.append(DrawnSection(name=f"list-{number}", title=title, html=render(LINES, lines=lines)))
    return write_single_page(file, sections, title="Comparison of base and head", description="")


def _cells(row: Mapping[str, Any]) -> tuple[TableCell, ...]:
    marks = [word for word, holds in (("across", row["is_across"]), ("not gated", not row["is_deciding"])) if holds]
    interval = row["interval"]
    change = None if row["ratio"] is None else 100 * (row["ratio"] - 1)
    ends = [100 * (end - 1) for end in interval] if interval and all(map(math.isfinite, interval)) else None
    detectable = None if row["detectable"] is None else 100 * row["detectable"]
    return (
        TableCell(text=row["verdict"], chips=tuple(marks), is_best=False),
        TableCell(text=row["case"], below=f"suite {row['suite']}"),
        TableCell(text=row["metric"]),
        *(
            TableCell()
            if value is None
            else TableCell(text=format_value(value, row["unit"]), sort=value, title=format_exact(value, row["unit"]))
            for value in (row["base"], row["head"])
        ),
        TableCell()
        if change is None
        else TableCell(
            text=_signed(change),
            sort=change,
            below=f"{_signed(ends[0])} to {_signed(ends[1])}" if ends else "",
            low=ends[0] if ends else None,
            high=ends[1] if ends else None,
        ),
        TableCell() if detectable is None else TableCell(text=format_number(detectable, 1), sort=detectable),
        TableCell(text=row["limit"] or DASH),
        TableCell(text=" and ".join(map(str, row["runs"]))),
        TableCell(text=row["reason"] or DASH),
    )


def _signed(percent: float) -> str:
    return format_signed(percent, 1)


def _forest(rows: Sequence[Mapping[str, Any]]) -> Any:
    """Points with intervals on one axis of logarithmic ratios, so that halving is as far as doubling."""
    logs = [(math.log(float(row["ratio"])), _log_ends(row["interval"])) for row in rows]
    bands = [math.log1p(row["detectable"]) if row["detectable"] else 0.0 for row in rows]
    reach: float = max([0.02, *(abs(x) for middle, ends in logs for x in (middle, *(ends or ()))), *bands]) * 1.08
    middle_x = NAME_WIDTH + (WIDTH - NAME_WIDTH) / 2

    def place(log_ratio: float) -> float:
        return round(middle_x + log_ratio / reach * (WIDTH - NAME_WIDTH) / 2, 1)

    bars = []
    names = [f"{row['case']} {row['metric']}" for row in rows]
    shown = short_names(names, longest=LONGEST_NAME)
    for number, (row, (log_ratio, ends), band) in enumerate(zip(rows, logs, bands, strict=True)):
        name = names[number]
        bars.append(
            {
                "name": shown[number],
                "text": f"{name}: {_signed(100 * (row['ratio'] - 1))} %, {row['verdict']}",
                "kind": VERDICT_CLASSES.get(row["verdict"], "even"),
                "y": 14 + number * ROW_HEIGHT,
                "x": place(log_ratio),
                "ends": (place(ends[0]), round(place(ends[1]) - place(ends[0]), 1)) if ends else None,
                "band": (place(-band), round(place(band) - place(-band), 1)) if band else None,
            }
        )
    ticks = [(place(x), f"{_signed(100 * math.expm1(x))} %") for x in (-reach * 0.8, 0.0, reach * 0.8)]
    height = 14 + len(rows) * ROW_HEIGHT + 22
    return render(FOREST, bars=bars, ticks=ticks, zero=place(0.0), width=f"{WIDTH:g}", height=height)


def _log_ends(interval: Sequence[float] | None) -> tuple[float, float] | None:
    if not interval or not all(math.isfinite(end) and end > 0 for end in interval):
        return None
    return math.log(interval[0]), math.log(interval[1])
