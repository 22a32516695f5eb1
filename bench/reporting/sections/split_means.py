"""Accuracies on the official splits of a data set and their mean, which papers report."""

from collections.abc import Iterator

from bench.core.registry import register_section
from bench.core.units import DASH
from bench.reporting.board import settings
from bench.reporting.case_results import MetricSummary
from bench.reporting.metric_text import value_text
from bench.reporting.rendering import render
from bench.reporting.reproduction import EvaluatedModel, evaluated_models
from bench.reporting.results import Results
from bench.reporting.table import ColumnHead, Table, TableCell, TableRow

TEMPLATE = """
<p>Top-1 in percent. The interval of a mean is the mean of the intervals of the splits, which is right for fully
correlated errors and too wide otherwise. A mean is given only if every split of the table has a result.</p>
{{ table }}
"""


@register_section("splits", title="Mean over splits", order=36, page="protocols")
def average_splits(results: Results) -> str | None:
    """One row per model, training and data set that was evaluated on several numbered splits."""
    models = [ours for ours in evaluated_models(results.cases) if _folds(ours)]
    folds = sorted({fold for ours in models for fold in _folds(ours)})
    if len(folds) < 2:
        return None
    table = Table(
        name="splits-table",
        caption="Top-1 by split, and the mean over splits",
        heads=(
            ColumnHead(name="Model"),
            ColumnHead(name="Data set"),
            *(ColumnHead(name=f"Split {fold}", unit="%", is_number=True) for fold in folds),
            ColumnHead(name="Mean", unit="%", is_number=True),
        ),
        rows=tuple(_table_row(ours, folds) for ours in models),
    )
    return render(TEMPLATE, table=table.html())


def _folds(ours: EvaluatedModel) -> list[int]:
    return [fold for fold in ours.folds if fold is not None]


def _table_row(ours: EvaluatedModel, folds: list[int]) -> TableRow:
    mean = ours.summary("accuracy.top1", folds=folds)
    return TableRow(
        cells=(
            TableCell(text=ours.point.model, below="\n".join(_words(ours))),
            TableCell(text=value_text(ours.point.dataset)),
            *(_cell(ours.summary("accuracy.top1", folds=[fold])) for fold in folds),
            _cell(mean),
        )
    )


def _words(ours: EvaluatedModel) -> Iterator[str]:
    """The arguments, the recipe and the initial weights."""
    if ours.point.args:
        yield settings(ours.point.args)
    words = [ours.point.recipe or "", f"from {ours.point.weights}" if ours.point.weights else ""]
    yield ", ".join(word for word in words if word)


def _cell(summary: MetricSummary | None) -> TableCell:
    if summary is None or summary.value is None:
        return TableCell(title="not measured on every split of this table")
    interval = f"{summary.low:.1f}{DASH}{summary.high:.1f}" if summary.has_interval else ""
    return TableCell(text=f"{summary.value:.1f}", sort=summary.value, below=interval, title=summary.how)
