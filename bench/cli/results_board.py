"""Prints the leaderboard and the ablations of stored results in a terminal, with the same marks as the report."""

from collections.abc import Iterator, Sequence
from textwrap import fill

from rich.console import JustifyMethod
from rich.table import Table as Grid
from rich.text import Text

from bench.cli.console import console, print_text, safe_text
from bench.reporting.findings import ablation_findings
from bench.reporting.metric_table import chips_of, metric_table
from bench.reporting.metric_text import axis_name
from bench.reporting.results import Results
from bench.reporting.sections.ablations import ablation_table
from bench.reporting.sections.leaderboard import leaderboard_caption, mark_meaning, rows_in_order
from bench.reporting.table import ColumnHead, Table, TableCell

COLUMNS, GAP = 100, 2
MOST_ROWS = 40
MOST_FIRST = 40  # characters of the first column in a line, beyond which it is folded
BEST = "*"


def print_board(results: Results) -> None:
    """Print every row with its headline metrics, and each ablated factor with its findings, in at most 100 columns."""
    board = results.board
    columns = board.headlines
    rows = rows_in_order(board)
    if rows and columns:
        letters = board.machines_of(columns)
        factors = [*board.varying, *(["machine"] if len(letters) > 1 else [])]
        shown = rows[:MOST_ROWS]
        failures = results.failed_cells
        print_narrow_table(
            metric_table(board, shown, name="", caption="", columns=columns, factors=factors, failures=failures)
        )
        if len(rows) > MOST_ROWS:
            _print_wrapped(f"{len(rows) - MOST_ROWS} more rows are in the report: vbench report")
        if caption := leaderboard_caption(board, columns):
            _print_wrapped(caption)
        _print_wrapped(f"{BEST} best value of a column. A dash: unknown or not measured.")
        for mark in chips_of(rows, columns):
            _print_wrapped(f"{mark}: {mark_meaning(mark)}")
    for ablation in results.ablations:
        print_text(f"\n{axis_name(ablation.factor)}, against {ablation.baseline_text}")
        for finding in ablation_findings(ablation)[:5]:
            _print_wrapped(finding)
        print_narrow_table(ablation_table(ablation, "", caption="", has_means=not ablation.contexts))
    if results.failures:
        print_text(f"\n{len(results.failures)} failed: vbench results list prints the errors")


def print_narrow_table(table: Table) -> None:
    """Print a table in parts of at most 100 columns of text; each part begins with the first column."""
    lines = [[_head(head) for head in table.heads], *([_text(cell) for cell in row.cells] for row in table.rows)]
    widths = [max(line.cell_len for text in column for line in text.split()) for column in zip(*lines, strict=True)]
    widths[0] = min(widths[0], MOST_FIRST)
    for number, part in enumerate(_parts(widths)):
        if number:
            print_text("")
        grid = Grid(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=False)
        for place in part:
            justify: JustifyMethod = "right" if table.heads[place].is_number else "left"
            grid.add_column(justify=justify, overflow="fold", no_wrap=place > 0, max_width=max(widths[place], 1))
        for line in lines:
            grid.add_row(*(line[place] for place in part))
        console.print(grid)


def _print_wrapped(text: str) -> None:
    print_text(fill(text, COLUMNS, subsequent_indent="  ", break_on_hyphens=False))


def _parts(widths: Sequence[int]) -> Iterator[list[int]]:
    """Yield the columns of each part: the first one, and as many more as fit, at least one."""
    part = [0]
    for place in range(1, len(widths)):
        if len(part) > 1 and sum(widths[each] + GAP for each in [*part, place]) - GAP > COLUMNS:
            yield part
            part = [0]
        part.append(place)
    yield part


def _head(head: ColumnHead) -> Text:
    texts = [head.name, head.unit, *head.below.split(", ")]
    return Text("\n", style="bold").join(safe_text(text) for text in texts if text)


def _text(cell: TableCell) -> Text:
    """The value with a star if it is the best, and below it the interval or arguments and the marks."""
    below = [line for line in (*cell.below.split("\n"), *cell.chips) if line]
    value = safe_text(f"{cell.text}{BEST if cell.is_best else ''}")
    value.stylize("bold" if cell.is_best else "")
    return Text("\n").join([value, *(safe_text(line) for line in below)])
