"""Prints text, tables and JSON on standard output, notes and errors on standard error."""

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from rich.cells import cell_len
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table
from rich.text import Text

from bench.core.control_characters import CONTROL, visible
from bench.core.units import DASH

if TYPE_CHECKING:
    from bench.train.progress import ProgressReport

WIDE = 200  # columns of a table in a pipe or a file
MANY_ROWS = 1000
PAGE = 100  # columns of a page of text


class _PipeConsole(Console):
    def on_broken_pipe(self) -> None:
        """Leave the exit code to the command; rich would end it with 1, which means a regression here."""
        raise


console = _PipeConsole(highlight=False, width=None if sys.stdout.isatty() else WIDE)
errors = Console(stderr=True, highlight=False)


def safe_text(text: str) -> Text:
    """`text` without rich markup and with visible control characters: names and errors may come from strangers."""
    return Text(visible(text))


def print_text(text: str) -> None:
    """Print plain text."""
    console.print(safe_text(text), soft_wrap=True)


def print_page(markdown: str) -> None:
    """Print a page of Markdown: drawn in a terminal, as it is in a pipe."""
    if console.is_terminal:
        from rich.markdown import Markdown  # imports a parser that nothing else needs

        console.print(Markdown(markdown), width=min(console.width, PAGE))
    else:
        sys.stdout.write(markdown)


def print_table(columns: Sequence[str], rows: Sequence[Sequence[object]], *, right: Sequence[str] = ()) -> None:
    """Print a table; the columns named in `right` hold numbers. In a pipe it has full width and no borders."""
    if len(rows) > MANY_ROWS:  # rich takes a millisecond per row
        _print_long_table(columns, rows, right=right)
        return
    grid = Table(box=None, pad_edge=False, header_style="bold")
    for name in columns:
        grid.add_column(name, justify="right" if name in right else "left", overflow="fold", no_wrap=name in right)
    for row in rows:
        grid.add_row(*(safe_text(DASH if cell is None else str(cell)) for cell in row))
    console.print(grid)


def _print_long_table(columns: Sequence[str], rows: Sequence[Sequence[object]], *, right: Sequence[str]) -> None:
    padded = []
    for place, (name, column) in enumerate(zip(columns, zip(*rows, strict=True), strict=True)):
        cells = [name, *(DASH if cell is None else str(cell) for cell in column)]
        if not "".join(cells).isprintable():  # few names and errors have control characters
            cells = list(map(visible, cells))
        is_right = name in right
        if is_right or place < len(columns) - 1:  # the last column needs no space after it
            cells = _padded(cells, is_right=is_right)
        padded.append(cells)
    sys.stdout.writelines(" ".join(row).rstrip() + "\n" for row in zip(*padded, strict=True))


def _padded(cells: list[str], *, is_right: bool) -> list[str]:
    """The cells with spaces before them, or behind them, so that all are as wide as the widest."""
    if all(map(str.isascii, cells)):
        width = max(map(len, cells))
        return [cell.rjust(width) if is_right else cell.ljust(width) for cell in cells]
    widths = list(map(cell_len, cells))
    spaces = [" " * (max(widths) - width) for width in widths]
    return [space + cell if is_right else cell + space for cell, space in zip(cells, spaces, strict=True)]


def print_exported(text: str) -> None:
    """Write `text` to standard output as it is, to a terminal with visible control characters."""
    sys.stdout.write(visible(text) if sys.stdout.isatty() else text)


def duration(seconds: float) -> str:
    """`0:04:10`, or `12 s` below two minutes."""
    return f"{round(seconds)} s" if seconds < 120 else str(timedelta(seconds=round(seconds)))


def print_note(text: str) -> None:
    """Print a note on standard error, so that JSON on standard output stays JSON."""
    errors.print(safe_text(text), soft_wrap=True)


def print_error(message: str, *, more: str | None = None) -> None:
    """Print an error message on standard error; in a terminal also `more`, the command that explains it."""
    errors.print(safe_text(f"vbench: {message}"), soft_wrap=True)
    if more is not None and errors.is_terminal:
        errors.print(safe_text(f"  more: {more}"), style="dim")


def first_line(text: str) -> str:
    return text.split("\n")[0]


def print_json(value: Any) -> None:
    """Print JSON on standard output, without line wrapping or colours."""
    text = json.dumps(value, indent=2, ensure_ascii=False)
    sys.stdout.write(CONTROL.sub(lambda match: f"\\u{ord(match[0]):04x}", text) + "\n")


@contextmanager
def shown_progress() -> Iterator["ProgressReport"]:
    """A function that shows the progress of an evaluation on one line of the terminal; nothing in a pipe."""
    if not errors.is_terminal:
        yield lambda _: None
        return
    with errors.status("") as status:
        yield lambda progress: status.update(safe_text(f"{progress.fraction:.0%} {progress}"))


@contextmanager
def progress_bar(what: str) -> Iterator[Callable[[int, int], None] | None]:
    """Show a bar on standard error during the block, moved by `advance(done, total)`; None if that is no terminal."""
    if not errors.is_terminal:
        yield None
        return
    bar = Progress(TextColumn(what), BarColumn(), MofNCompleteColumn(), console=errors, transient=True)
    with bar:
        task = bar.add_task("", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
