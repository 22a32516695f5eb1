"""Accuracies over the official splits of a data set and their mean, which is what papers print."""

from collections.abc import Iterator

from bench.core.registry import register_section
from bench.core.units import DASH
from bench.reporting.board import settings
from bench.reporting.cases import Reading
from bench.reporting.page import render
from bench.reporting.reproduction import Ours, networks_of
from bench.reporting.results import Results
from bench.reporting.table import Cell, Heading, Line, Table
from bench.reporting.wording import value_text

TEMPLATE = """
<p>Top-1 in percent. The interval of a mean is the mean of the splits' own intervals, as wide as if all of them erred
alike. A mean stands where every split of the table has a result.</p>
{{ table }}
"""


@register_section("splits", title="Mean over splits", order=36)
def average_splits(results: Results) -> str | None:
    """One line per network, training and data set that was evaluated on several numbered splits."""
    networks = [ours for ours in networks_of(results.cases) if _folds(ours)]
    folds = sorted({fold for ours in networks for fold in _folds(ours)})
    if len(folds) < 2:
        return None
    table = Table(
        name="splits-table",
        caption="Top-1 by split, and the mean over splits",
        headings=(
            Heading(name="Network"),
            Heading(name="Data set"),
            *(Heading(name=f"Split {fold}", unit="%", is_number=True) for fold in folds),
            Heading(name="Mean", unit="%", is_number=True),
        ),
        lines=tuple(_line(ours, folds) for ours in networks),
    )
    return render(TEMPLATE, table=table.html())


def _folds(ours: Ours) -> list[int]:
    return [fold for fold in ours.folds if fold is not None]


def _line(ours: Ours, folds: list[int]) -> Line:
    mean = ours.reading("accuracy.top1", folds=folds)
    return Line(
        cells=(
            Cell(text=ours.point.model, below="\n".join(_words(ours))),
            Cell(text=value_text(ours.point.dataset)),
            *(_cell(ours.reading("accuracy.top1", folds=[fold])) for fold in folds),
            _cell(mean),
        )
    )


def _words(ours: Ours) -> Iterator[str]:
    """What tells one network's training from another's."""
    if ours.point.args:
        yield settings(ours.point.args)
    words = [ours.point.recipe or "", f"from {ours.point.weights}" if ours.point.weights else ""]
    yield ", ".join(word for word in words if word)


def _cell(reading: Reading | None) -> Cell:
    if reading is None or reading.value is None:
        return Cell(title="not measured on every split of this table")
    interval = f"{reading.low:.1f}{DASH}{reading.high:.1f}" if reading.has_interval else ""
    return Cell(text=f"{reading.value:.1f}", sort=reading.value, below=interval, title=reading.how)
