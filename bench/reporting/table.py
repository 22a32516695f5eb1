"""HTML tables that can be sorted, filtered and saved; further rows of a long table are shown on request."""

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
    """One row. Columns with `is_within_group` sort the rows of each group separately."""

    cells: tuple[TableCell, ...]
    group: str = ""


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table; `name` is its id in the page and the name of the saved file. The first column heads the rows.

    Names of columns in a saved file are made unique. A table without `has_all_rows` is part of one that a script
    shows, so it is not sorted, filtered or saved by itself.
    """

    name: str
    caption: str
    heads: tuple[ColumnHead, ...]
    rows: tuple[TableRow, ...]
    has_all_rows: bool = True

    @property
    def has_tools(self) -> bool:
        return self.has_all_rows and len(self.rows) > ROWS_WITHOUT_TOOLS

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

    def html(self) -> "Markup":
        """The table as HTML, with search and saving if it has more than `ROWS_WITHOUT_TOOLS` rows."""
        return render_file(
            "table.html",
            table=self,
            saved_names=self.saved_names,
            shown=self.rows[:ROWS_AT_ONCE] if self.has_all_rows else self.rows,
            waiting=self.rows[ROWS_AT_ONCE:] if self.has_all_rows else (),
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
