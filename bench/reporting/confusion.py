"""Accuracy by class and confused classes, from the stored predictions of an evaluation."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.core.errors import InputError
from bench.core.stats import wilson_interval
from bench.core.units import DASH, plural
from bench.reporting.rendering import render
from bench.reporting.table import ColumnHead, Table, TableCell, TableRow

if TYPE_CHECKING:
    from bench.train.predictions import Predictions

MOST_CLASSES_OF_MATRIX = 60
SIDE = 480.0
TEMPLATE = """
<p>{{ videos }} of {{ title }}: of each class the share whose highest score is right, and the class that takes most of
the others.</p>
{% if squares %}
<figure class="chart">
<svg class="confusion" viewBox="0 0 {{ side }} {{ side }}" role="img" aria-label="Confusion matrix of {{ classes }}">
<rect class="frame" x="0" y="0" width="{{ side }}" height="{{ side }}"></rect>
{% for square in squares %}
<rect x="{{ square.x }}" y="{{ square.y }}" width="{{ width }}" height="{{ width }}" \
fill-opacity="{{ square.share }}"><title>{{ square.text }}</title></rect>
{% endfor %}
</svg>
<figcaption>Rows are true classes, columns predicted ones, in the order of the table; the darker, the larger the share
of the true class.</figcaption>
</figure>
{% endif %}
{{ table }}
"""


def class_accuracies(file: Path, *, title: str, name: str) -> Any:
    """A confusion matrix and a table of the classes of one file of predictions, as HTML.

    Empty for several labels a video, and for a file that cannot be read: another version of vbench may have written it.
    """
    from bench.train.predictions import read_predictions

    try:
        found = read_predictions(file)
    except InputError:
        return ""
    if found.is_multi_label or not len(found.labels):
        return ""
    matrix = found.confusion.tolist()
    return render(
        TEMPLATE,
        videos=plural(len(found.labels), "video"),
        title=title,
        classes=plural(len(matrix), "class", "classes"),
        squares=_squares(found, matrix) if len(matrix) <= MOST_CLASSES_OF_MATRIX else (),
        side=f"{SIDE:g}",
        width=f"{SIDE / len(matrix):.2f}",
        table=_table(found, matrix, name).html(),
    )


def _squares(found: "Predictions", matrix: list[list[int]]) -> list[dict[str, Any]]:
    width, names = SIDE / len(matrix), found.class_names
    return [
        {
            "x": f"{column * width:.2f}",
            "y": f"{row * width:.2f}",
            "share": f"{count / sum(counts):.3f}",
            "text": f"{names[row]} as {names[column]}: {count} of {sum(counts)}",
        }
        for row, counts in enumerate(matrix)
        for column, count in enumerate(counts)
        if count
    ]


def _table(found: "Predictions", matrix: list[list[int]], name: str) -> Table:
    heads = (
        ColumnHead(name="Class"),
        ColumnHead(name="Videos", is_number=True),
        ColumnHead(name="Right", unit="%", is_number=True, meaning="top-1 of the class, with its 95 % interval"),
        ColumnHead(name="Taken for"),
    )
    rows = tuple(_row(found.class_names, number, counts) for number, counts in enumerate(matrix) if sum(counts))
    return Table(name=f"{name}-classes", caption="Accuracy by class", heads=heads, rows=rows)


def _row(names: tuple[str, ...], number: int, counts: list[int]) -> TableRow:
    total, right = sum(counts), counts[number]
    share = wilson_interval(right, total)
    low, high = 100 * share.low, 100 * share.high
    others = [(count, names[place]) for place, count in enumerate(counts) if place != number and count]
    most = max(others, default=None, key=lambda each: each[0])
    return TableRow(
        cells=(
            TableCell(text=names[number]),
            TableCell(text=str(total), sort=total),
            TableCell(
                text=f"{100 * right / total:.1f}",
                sort=100 * right / total,
                below=f"{low:.1f}{DASH}{high:.1f}",
                low=low,
                high=high,
            ),
            TableCell(text=f"{most[1]} ({most[0]})") if most else TableCell(title="all videos are right"),
        )
    )
