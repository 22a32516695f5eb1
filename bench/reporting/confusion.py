"""Accuracy by class and confused classes, from the stored predictions of an evaluation."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from bench.core.errors import InputError
from bench.core.spreadsheet import csv_text
from bench.core.units import DASH, plural
from bench.reporting.contact_sheet import cell_name, error_cells
from bench.reporting.rendering import link_list, render
from bench.reporting.table import ColumnHead, Table, TableCell, TableRow

if TYPE_CHECKING:
    from bench.train.predictions import Predictions
    from bench.train.scoring import ClassScore

MOST_CLASSES_OF_MATRIX = 60
SIDE = 480.0
TEMPLATE = """
<p>{{ videos }} of {{ title }}: of each class the share whose highest score is right, and the class that takes most of
the others.</p>
{% if squares %}
<figure class="chart">
<svg class="confusion" data-explained viewBox="0 0 {{ side }} {{ side }}" role="{{ "group" if is_linked else "img" }}" \
aria-label="Confusion matrix of {{ classes }}">
<rect class="frame" x="0" y="0" width="{{ side }}" height="{{ side }}"></rect>
{% for square in squares %}
{% if square.href %}
<a href="{{ square.href }}" aria-label="{{ square.text }}" data-links="{{ square.links }}">\
<title>{{ square.text }}</title>
{% else %}
<g><title>{{ square.text }}</title>
{% endif %}
<rect x="{{ square.x }}" y="{{ square.y }}" width="{{ width }}" height="{{ width }}" \
fill-opacity="{{ square.share }}"></rect>{{ "</a>" | safe if square.href else "</g>" | safe }}
{% endfor %}
</svg>
<figcaption>Rows are true classes, columns predicted ones, in the order of the table; the darker, the larger the share
of the true class.
{% if is_linked %}
A cell with errors leads to their frames.
{% endif %}
<a href="{{ csv }}" download="{{ file_name }}">Save as CSV</a></figcaption>
</figure>
{% else %}
<p>The confusion matrix of so many classes is not drawn; <code>vbench predictions FILE --matrix confusion.csv</code>
writes it.</p>
{% endif %}
{% if is_linked %}
<p><a href="{{ errors_page() }}">Frames of the errors</a></p>
{% endif %}
{{ table }}
"""


def class_accuracies(
    file: Path, *, title: str, name: str, most_clips: int = 0, errors_page: Callable[..., str] = str
) -> Any:
    """A confusion matrix and a table of the classes of one file of predictions, as HTML.

    With `most_clips` each cell that has errors leads to its contact sheet; `errors_page` gives the address of the page
    of all sheets, or of one section of it. Empty if `single_label_predictions` finds nothing.
    """
    found = single_label_predictions(file)
    if found is None:
        return ""
    cells = error_cells(found, most=most_clips)
    matrix = found.confusion.tolist()
    is_drawn = len(matrix) <= MOST_CLASSES_OF_MATRIX
    return render(
        TEMPLATE,
        videos=plural(len(found.labels), "video"),
        title=title,
        classes=plural(len(matrix), "class", "classes"),
        squares=_squares(found, matrix, {cell: errors_page(cell_name(name, *cell)) for cell in cells})
        if is_drawn
        else (),
        is_linked=bool(cells),
        errors_page=errors_page,
        csv=f"data:text/csv;charset=utf-8,{quote(matrix_csv(found))}" if is_drawn else "",
        file_name=f"{name}-confusion.csv",
        side=f"{SIDE:g}",
        width=f"{SIDE / len(matrix):.2f}",
        table=_table(found, name).html(),
    )


def single_label_predictions(file: Path) -> "Predictions | None":
    """The predictions in `file`; None for several labels a video, no videos, or a file that cannot be read.

    Another version of vbench may have written it.
    """
    from bench.train.predictions import read_predictions

    try:
        found = read_predictions(file)
    except InputError:
        return None
    return None if found.is_multi_label or not len(found.labels) else found


def matrix_csv(found: "Predictions") -> str:
    """The confusion matrix as CSV: a row for each true class, a column for each predicted one, counts of videos."""
    names = found.class_names
    rows = [(name, *counts) for name, counts in zip(names, found.confusion.tolist(), strict=True)]
    return csv_text(("true class", *names), rows)


def _squares(
    found: "Predictions", matrix: list[list[int]], sheets: Mapping[tuple[int, int], str]
) -> list[dict[str, Any]]:
    width, names = SIDE / len(matrix), found.class_names
    return [
        {
            "x": f"{column * width:.2f}",
            "y": f"{row * width:.2f}",
            "share": f"{count / sum(counts):.3f}",
            "text": f"{names[row]} as {names[column]}: {count} of {sum(counts)}",
            "href": sheets.get((row, column), ""),
            "links": link_list([(sheets.get((row, column), ""), "Frames of these errors")]),
        }
        for row, counts in enumerate(matrix)
        for column, count in enumerate(counts)
        if count
    ]


def _table(found: "Predictions", name: str) -> Table:
    from bench.train.scoring import class_scores

    heads = (
        ColumnHead(name="Class"),
        ColumnHead(name="Videos", is_number=True),
        ColumnHead(name="Right", unit="%", is_number=True, meaning="top-1 of the class, with its 95 % interval"),
        ColumnHead(name="Taken for"),
    )
    rows = tuple(_row(each, found.class_names) for each in class_scores(found.confusion) if each.videos)
    return Table(name=f"{name}-classes", caption="Accuracy by class", heads=heads, rows=rows, is_small_table_saved=True)


def _row(score: "ClassScore", names: tuple[str, ...]) -> TableRow:
    low, high = 100 * score.share.low, 100 * score.share.high
    return TableRow(
        cells=(
            TableCell(text=names[score.number]),
            TableCell(text=str(score.videos), sort=score.videos),
            TableCell(
                text=f"{100 * score.share.value:.1f}",
                sort=100 * score.share.value,
                below=f"{low:.1f}{DASH}{high:.1f}",
                low=low,
                high=high,
            ),
            TableCell(title="all videos are right")
            if score.taken_for is None
            else TableCell(text=f"{names[score.taken_for]} ({score.taken})"),
        )
    )
