"""Accuracy ledger: published accuracies of these models on these data sets, and the measured ones."""

import math
from collections import Counter
from typing import get_args

from bench.core.registry import register_section
from bench.core.units import DASH, MINUS, plural
from bench.reporting.metric_text import listed, value_text
from bench.reporting.rendering import render
from bench.reporting.reproduction import ZERO_SHOT, EvaluatedModel, LedgerEntry, Outcome, ledger
from bench.reporting.results import Results
from bench.reporting.table import ColumnHead, Table, TableCell, TableRow

HEADS = (
    ColumnHead(name="Model", meaning="name in the zoo, with the recipe and the initial weights used here"),
    ColumnHead(name="Source", meaning="where the accuracy was published, and under which name"),
    ColumnHead(name="Data set", meaning="as the source names it"),
    ColumnHead(name="Published", unit="%", is_number=True, meaning="top-1 of videos, as published"),
    ColumnHead(name="Measured", unit="%", is_number=True, meaning="top-1 of videos, mean over seeds and splits"),
    ColumnHead(
        name="Difference", unit="pt", is_number=True, meaning="measured minus published, with its 95 % interval"
    ),
    ColumnHead(name="Outcome"),
    ColumnHead(
        name="Protocol", meaning="differences, published v measured; those that rule a comparison out come first"
    ),
)
TEMPLATE = """
<p>{{ summary }} An accuracy is <em>reproduced</em> if the 95 % interval of the measured one contains it and no known
difference of the protocols rules the comparison out. <em>A claim without source</em> is quoted in the field but was
found in no primary source, so there is no result to reproduce.</p>
{{ table }}
"""


@register_section("ledger", title="Published accuracies", order=62, page="ledger")
def keep_ledger(results: Results) -> str | None:
    """One row per published accuracy and matching measured one; None if nothing is published for these models."""
    entries = ledger(results.cases)
    if not entries:
        return None
    table = Table(
        name="ledger-table",
        caption="Published and measured accuracies of these models",
        heads=HEADS,
        rows=tuple(_table_row(entry) for entry in entries),
    )
    return render(TEMPLATE, table=table.html(), summary=_summary(entries))


def _summary(entries: list[LedgerEntry]) -> str:
    counts = Counter(entry.outcome for entry in entries)
    words = [f"{counts[outcome]} {outcome}" for outcome in get_args(Outcome) if counts[outcome]]
    return f"{plural(len(entries), 'published accuracy', 'published accuracies')}: {listed(words)}."


def _table_row(entry: LedgerEntry) -> TableRow:
    row = entry.row
    claim = "" if row.status == "published" else row.status
    name = " ".join(word for word in (row.model, row.variant) if word)
    return TableRow(
        cells=(
            TableCell(text=entry.zoo, below=_training_text(entry.ours)),
            TableCell(text=row.source, below="\n".join(word for word in (name, claim) if word), title=row.note),
            TableCell(text=row.dataset),
            TableCell(text=f"{entry.published:g}", sort=entry.published),
            _ours(entry),
            _difference(entry),
            TableCell(text=entry.outcome, title=entry.reason),
            TableCell(text="; ".join(entry.differences) or entry.reason or DASH),
        )
    )


def _training_text(ours: EvaluatedModel | None) -> str:
    if ours is None:
        return ""
    point = ours.point
    views = f"{point.views or '1x1'} views"
    if ours.head == ZERO_SHOT:
        return f"zero-shot, prompts {', '.join(map(repr, ours.prompts)) or 'not recorded'}, {views}"
    weights = f"from {ours.initial_weights}" if ours.initial_weights else "from scratch"
    how = f"{value_text(point.recipe)}, {weights}" if point.recipe else f"weights {ours.initial_weights}"
    how = f"{ours.head} head on frozen features, {how}" if ours.head else how
    return f"{how}, {views}"


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
