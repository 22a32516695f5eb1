"""The ledger of reproduction: what was published of these models on these data sets, beside what came out here."""

import math
from collections import Counter
from typing import get_args

from bench.core.registry import register_section
from bench.core.units import DASH, MINUS, plural
from bench.reporting.metric_text import listed, value_text
from bench.reporting.rendering import render
from bench.reporting.reproduction import EvaluatedModel, LedgerEntry, Outcome, ledger
from bench.reporting.results import Results
from bench.reporting.table import ColumnHead, Table, TableCell, TableRow

HEADINGS = (
    ColumnHead(name="Model", meaning="of the zoo, with what it was trained by and began with here"),
    ColumnHead(name="In print", meaning="where the figure stands, and whose it is"),
    ColumnHead(name="Data set", meaning="as its source names it"),
    ColumnHead(name="Published", unit="%", is_number=True, meaning="top-1 of videos, as printed"),
    ColumnHead(name="Ours", unit="%", is_number=True, meaning="top-1 of videos, mean over seeds and splits"),
    ColumnHead(name="Difference", unit="pt", is_number=True, meaning="ours less the published, with its 95 % interval"),
    ColumnHead(name="Outcome"),
    ColumnHead(name="Protocol", meaning="what is not alike, theirs v ours; what rules a comparison out comes first"),
)
TEMPLATE = """
<p>{{ summary }} <em>Reproduced</em> is what our 95 % interval holds, where nothing that is known of the protocols
differs enough to rule it out. <em>A claim without source</em> is quoted in the field, but was found in no primary
source; it is not a result to be reproduced.</p>
{{ table }}
"""


@register_section("ledger", title="OperatorLog of reproduction", order=62)
def keep_ledger(results: Results) -> str | None:
    """One line for each published accuracy and each of ours that may answer it; None where nothing is published."""
    entries = ledger(results.cases)
    if not entries:
        return None
    table = Table(
        name="ledger-table",
        caption="Published accuracies of these models beside ours",
        heads=HEADINGS,
        rows=tuple(_line(entry) for entry in entries),
    )
    return render(TEMPLATE, table=table.html(), summary=_summary(entries))


def _summary(entries: list[LedgerEntry]) -> str:
    counts = Counter(entry.outcome for entry in entries)
    words = [f"{counts[outcome]} {outcome}" for outcome in get_args(Outcome) if counts[outcome]]
    return f"{plural(len(entries), 'published accuracy', 'published accuracies')}: {listed(words)}."


def _line(entry: LedgerEntry) -> TableRow:
    row = entry.row
    claim = "" if row.status == "published" else row.status
    name = " ".join(word for word in (row.model, row.variant) if word)
    return TableRow(
        cells=(
            TableCell(text=entry.zoo, below=_begun(entry.ours)),
            TableCell(text=row.source, below="\n".join(word for word in (name, claim) if word), title=row.note),
            TableCell(text=row.dataset),
            TableCell(text=f"{entry.published:g}", sort=entry.published),
            _ours(entry),
            _difference(entry),
            TableCell(text=entry.outcome, title=entry.reason),
            TableCell(text="; ".join(entry.differences) or entry.reason or DASH),
        )
    )


def _begun(ours: EvaluatedModel | None) -> str:
    if ours is None:
        return ""
    point = ours.point
    begun = f"from {ours.begins}" if ours.begins else "from scratch"
    how = f"{value_text(point.recipe)}, {begun}" if point.recipe else f"weights {ours.begins}"
    return f"{how}, {point.views or '1x1'} views"


def _ours(entry: LedgerEntry) -> TableCell:
    if entry.value is None:
        return TableCell(title=entry.reason or "not run")
    ends = (entry.published + entry.low, entry.published + entry.high)
    interval = f"{ends[0]:.1f}{DASH}{ends[1]:.1f}" if math.isfinite(ends[0]) else ""
    return TableCell(text=f"{entry.value:.1f}", sort=entry.value, below=interval)


def _difference(entry: LedgerEntry) -> TableCell:
    if entry.difference is None:
        return TableCell()
    interval = f"{_signed(entry.low)} to {_signed(entry.high)}" if math.isfinite(entry.low) else ""
    return TableCell(text=_signed(entry.difference), sort=entry.difference, below=interval)


def _signed(points: float) -> str:
    return f"{points:+.1f}".replace("-", MINUS)
