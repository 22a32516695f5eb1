"""A real HTML table that can be sorted, filtered and saved; the rows of a long one wait until they are asked for."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bench.core.units import DASH
from bench.reporting.rendering import render_file

if TYPE_CHECKING:
    from markupsafe import Markup

ROWS_AT_ONCE = 100
ROWS_WITHOUT_TOOLS = 8


@dataclass(frozen=True, kw_only=True)
class TableCell:
    """What stands in one place of a table.

    `sort` is what the column is sorted and saved by, the text itself where it is None. `below` are smaller lines below
    it, `title` the whole story, `mark` a sign after the text. A cell without text is a dash and sorts last.
    """

    text: str = DASH
    sort: float | None = None
    below: str = ""
    title: str = ""
    mark: str = ""
    is_best: bool = False

    @property
    def is_empty(self) -> bool:
        return self.text == DASH


@dataclass(frozen=True, kw_only=True)
class ColumnHead:
    """The head of a column. `meaning` explains it, `saved_as` is its name in a saved file, with the unit of `sort`."""

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
    """One row. Rows of different groups are not ranked together in columns that are sorted within the group."""

    cells: tuple[TableCell, ...]
    group: str = ""


@dataclass(frozen=True, kw_only=True)
class Table:
    """`name` is its id in the page and the name of the saved file; the first column heads the rows."""

    name: str
    caption: str
    heads: tuple[ColumnHead, ...]
    rows: tuple[TableRow, ...]

    @property
    def has_tools(self) -> bool:
        return len(self.rows) > ROWS_WITHOUT_TOOLS

    def html(self) -> "Markup":
        """The table as HTML, with its tools where it is long enough to need them."""
        return render_file(
            "table.html",
            table=self,
            shown=self.rows[:ROWS_AT_ONCE],
            waiting=self.rows[ROWS_AT_ONCE:],
            rows_at_once=ROWS_AT_ONCE,
        )


def plain_table(name: str, *, caption: str, heads: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    """A table of texts."""
    return Table(
        name=name,
        caption=caption,
        heads=tuple(ColumnHead(name=heading) for heading in heads),
        rows=tuple(TableRow(cells=tuple(TableCell(text=text or DASH) for text in row)) for row in rows),
    )
