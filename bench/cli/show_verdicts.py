"""A comparison in a terminal: the table of verdicts, what was not compared, and one line that sums it up."""

from bench.cli.console import print_table, print_text
from bench.comparison.formats import cells, headline, sections, shown_rows
from bench.comparison.outcome import Comparison

COLUMNS = ("verdict", "case", "metric", "base", "head", "change", "why")


def show_comparison(comparison: Comparison) -> None:
    """Rows that decide, the urgent ones first, then everything that has no row."""
    rows = shown_rows(comparison)
    if rows:
        print_table(COLUMNS, [cells(row) for row in rows], right=("base", "head", "change"))
    for title, lines in sections(comparison):
        print_text(f"{title}:")
        for line in lines:
            print_text(f"  {line}")
    if left := len(comparison.rows) - len(rows):
        print_text(f"{left} more metrics only inform; --json shows them")
    print_text(headline(comparison))
