"""HTML tables that can be sorted, filtered and saved; further rows of a long table are shown on request."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from bench.core.units import DASH
from bench.reporting.rendering import safe

if TYPE_CHECKING:
    from markupsafe import Markup

ROWS_AT_ONCE = 100
ROWS_WITHOUT_TOOLS = 8
LONG_TEXT = 60  # characters from which on a cell keeps some width, lest a wide table wraps it into many short lines
LONG_WORD = 50  # characters of a word from which on it is broken, lest it pushes other columns off the page
MOST_CHARACTERS = 800_000  # of the rows of one table; a page has a few tables and must stay below 3 MB


TOOLS = """<div class="tools" hidden>
<label>Filter rows <input type="search" autocomplete="off" spellcheck="false"></label>
<output aria-live="polite">{rows} rows</output>
<button type="button" data-do="save">Save as CSV</button>
</div>"""
MORE = """<p class="more"><button type="button" data-do="more">Show {at_once} more</button>
<noscript>{waiting} more rows need a script to be shown.</noscript></p>"""
LEFT_OUT = """<p class="muted">The first {kept} of {rows} rows are in this page; bench.load_records in Python gives
all.</p>"""


@dataclass(frozen=True, kw_only=True)
class TableCell:
    """One cell of a table.

    Columns are sorted and saved by `sort`, or by the text if that is None. `below` holds smaller lines, `title` the
    full description, `chips` short marks behind the text. `low`, `high` and `count` (of values) are saved with the
    value. A cell without text is a dash and sorts last; the text links to `href`.
    """

    text: str = DASH
    sort: float | None = None
    below: str = ""
    title: str = ""
    chips: tuple[str, ...] = ()
    low: float | None = None
    high: float | None = None
    count: int | None = None
    is_best: bool = False
    href: str = ""

    @property
    def is_empty(self) -> bool:
        return self.text == DASH


@dataclass(frozen=True, kw_only=True)
class ColumnHead:
    """The head of a column. `meaning` explains it; `saved_as` is its name in a saved file, with the unit of `sort`."""

    name: str
    unit: str = ""
    below: str = ""
    meaning: str = ""
    saved_as: str = ""
    is_number: bool = False
    is_best_first: bool = False
    is_within_group: bool = False


@dataclass(frozen=True, kw_only=True)
class TableRow:
    """One row. Columns with `is_within_group` sort the rows of each group separately; `anchor` is the id of the row."""

    cells: tuple[TableCell, ...]
    group: str = ""
    anchor: str = ""


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table; `name` is its id in the page and the name of the saved file. The first column heads the rows.

    Names of columns in a saved file are made unique. A table without `has_all_rows` is part of one that a script
    shows, so it is not sorted, filtered or saved by itself. With `is_small_table_saved`, search and saving are offered
    however few rows there are.
    """

    name: str
    caption: str
    heads: tuple[ColumnHead, ...]
    rows: tuple[TableRow, ...]
    has_all_rows: bool = True
    is_small_table_saved: bool = False

    @property
    def has_tools(self) -> bool:
        return self.has_all_rows and (self.is_small_table_saved or len(self.rows) > ROWS_WITHOUT_TOOLS)

    @property
    def saved_names(self) -> list[str]:
        """Unique names of the columns in a saved file."""
        names: dict[str, None] = {}
        for head in self.heads:
            name = wanted = head.saved_as or head.name
            number = 1
            while name in names:
                number += 1
                name = f"{wanted} ({number})"
            names[name] = None
        return list(names)

    def html(self, *, most_characters: int = MOST_CHARACTERS) -> "Markup":
        """The table as HTML, with search and saving if it has more than `ROWS_WITHOUT_TOOLS` rows.

        Rows that would make it longer than `most_characters` are left out, and a line below it tells how many. Written
        without a template, which takes ten times as long for the many cells of a report.
        """
        from markupsafe import Markup

        lines: list[str] = []
        length = 0
        for line in self._rows_html():
            length += len(line)
            if lines and length > most_characters:
                break
            lines.append(line)
        most = ROWS_AT_ONCE if self.has_all_rows else len(lines)
        caption = f"{safe(self.name)}-caption"
        parts = [
            f'<div class="table" data-table="{safe(self.name)}" data-at-once="{ROWS_AT_ONCE}">',
            f'<p class="caption" id="{caption}">{safe(self.caption)}</p>',
            TOOLS.format(rows=len(lines)) if self.has_tools else "",
            f'<div class="scroll" role="region" tabindex="0" aria-labelledby="{caption}">',
            f'<table id="{safe(self.name)}" aria-labelledby="{caption}">',
            f"<thead><tr>{_heads_html(self.heads, tuple(self.saved_names))}</tr></thead>",
            "<tbody>",
            *lines[:most],
            "</tbody>\n</table>\n</div>",
        ]
        if waiting := lines[most:]:
            parts += ["<template>\n<table><tbody>", *waiting, "</tbody></table>\n</template>"]
            parts.append(MORE.format(at_once=ROWS_AT_ONCE, waiting=len(waiting)))
        if len(lines) < len(self.rows):
            parts.append(LEFT_OUT.format(kept=len(lines), rows=len(self.rows)))
        return Markup("\n".join(part for part in [*parts, "</div>"] if part))

    def _rows_html(self) -> Iterator[str]:
        is_text = [not head.is_number for head in self.heads]
        for row in self.rows:
            group = f' data-group="{safe(row.group)}"' if row.group else ""
            cells = "".join(
                _cell_html(cell, is_first=place == 0, is_text=is_text[place]) for place, cell in enumerate(row.cells)
            )
            anchor = f' id="{safe(row.anchor)}"' if row.anchor else ""
            yield f"<tr{anchor}{group}>{cells}</tr>"


@lru_cache(maxsize=256)  # thousands of tables of cases have the same heads
def _heads_html(heads: tuple[ColumnHead, ...], saved_names: tuple[str, ...]) -> "Markup":
    from markupsafe import Markup

    return Markup("".join(_head_html(head, name) for head, name in zip(heads, saved_names, strict=True)))


def _head_html(head: ColumnHead, saved_name: str) -> str:
    attributes = ' scope="col"' + (' class="number"' if head.is_number else "")
    attributes += f' title="{safe(head.meaning)}"' if head.meaning else ""
    attributes += ' data-first="descending"' if head.is_best_first else ""
    attributes += " data-within" if head.is_within_group else ""
    unit = f' <span class="unit">{safe(head.unit)}</span>' if head.unit else ""
    below = f"<small>{safe(head.below)}</small>" if head.below else ""
    return f'<th{attributes} data-name="{safe(saved_name)}">{safe(head.name)}{unit}{below}</th>'


def _cell_html(cell: TableCell, *, is_first: bool, is_text: bool) -> str:
    attributes = ' scope="row"' if is_first else ""
    if cell.sort is not None:
        attributes += f' data-sort="{cell.sort}"'
    elif cell.is_empty:
        attributes += ' data-sort=""'
    if cell.low is not None:
        attributes += f' data-low="{cell.low}" data-high="{cell.high}"'
    if cell.count is not None:
        attributes += f' data-n="{cell.count}"'
    if cell.chips:
        attributes += f' data-marks="{safe("; ".join(cell.chips))}"'
    if cell.title:
        attributes += f' title="{safe(cell.title)}"'
    is_none = cell.is_empty and not cell.is_best
    is_plain_text = is_text and not is_first
    marks = (
        ("best", cell.is_best),
        ("none", is_none),
        ("text", is_plain_text),
        ("long", is_plain_text and len(cell.text) > LONG_TEXT),
        ("broken", len(cell.text) > LONG_WORD and max(map(len, cell.text.split())) > LONG_WORD),
    )
    kinds = [name for name, holds in marks if holds]
    attributes += f' class="{" ".join(kinds)}"' if kinds else ""
    text = safe(cell.text)
    inside = f'<a href="{safe(cell.href)}">{text}</a>' if cell.href else text
    inside += "".join(f'<span class="chip">{safe(chip)}</span>' for chip in cell.chips)
    inside += '<span class="unseen"> (best)</span>' if cell.is_best else ""
    inside += f'<span class="unseen"> ({safe(cell.title)})</span>' if cell.is_empty and cell.title else ""
    inside += "".join(f"<small>{safe(part)}</small>" for part in cell.below.split("\n")) if cell.below else ""
    tag = "th" if is_first else "td"
    return f"<{tag}{attributes}>{inside}</{tag}>"


def plain_table(name: str, *, caption: str, heads: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    """A table of texts."""
    return Table(
        name=name,
        caption=caption,
        heads=tuple(ColumnHead(name=heading) for heading in heads),
        rows=tuple(TableRow(cells=tuple(TableCell(text=text or DASH) for text in row)) for row in rows),
    )
