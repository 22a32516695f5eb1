"""A comparison in a terminal: the table of verdicts, what was not compared, and one line that sums it up."""

from bench.cli.console import say, table
from bench.comparison.formats import cells, headline, sections, shown_rows
from bench.comparison.outcome import Comparison

COLUMNS = ("verdict", "case", "metric", "base", "head", "change", "why")


def show_comparison(comparison: Comparison) -> None:
    """Rows that decide, the urgent ones first, then everything that has no row."""
    rows = shown_rows(comparison)
    if rows:
        table(COLUMNS, [cells(row) for row in rows], right=("base", "head", "change"))
    for title, lines in sections(comparison):
        say(f"{title}:")
        for line in lines:
            say(f"  {line}")
    if left := len(comparison.rows) - len(rows):
        say(f"{left} more metrics only inform; --json shows them")
    say(headline(comparison))
