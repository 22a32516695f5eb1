"""Text, tables and JSON on standard output; one line for an error on standard error."""

import json
import sys
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from bench.core.units import DASH

WIDE = 200  # columns of a table that goes to a pipe or a file
console = Console(highlight=False, width=None if sys.stdout.isatty() else WIDE)
errors = Console(stderr=True, highlight=False)


def print_text(text: str) -> None:
    """Print plain text; markup in names of models and files is not interpreted."""
    console.print(Text(text), soft_wrap=True)


def print_table(columns: Sequence[str], rows: Sequence[Sequence[object]], *, right: Sequence[str] = ()) -> None:
    """Print a table; the columns named in `right` are numbers. On a pipe, full width without borders."""
    grid = Table(box=None, pad_edge=False, header_style="bold")
    for name in columns:
        grid.add_column(name, justify="right" if name in right else "left", overflow="fold", no_wrap=name in right)
    for row in rows:
        grid.add_row(*(Text(DASH if cell is None else str(cell)) for cell in row))
    console.print(grid)


def duration(seconds: float) -> str:
    """`0:04:10`, or `12 s` below two minutes."""
    return f"{round(seconds)} s" if seconds < 120 else str(timedelta(seconds=round(seconds)))


def print_note(text: str) -> None:
    """Something said beside the answer, on standard error, so that JSON on standard output stays JSON."""
    errors.print(Text(text), soft_wrap=True)


def print_error(message: str) -> None:
    """One clear text on standard error."""
    errors.print(Text(f"vbench: {message}"), soft_wrap=True)


def first_line(text: str) -> str:
    return text.split("\n")[0]


def print_json(value: Any) -> None:
    """Print JSON for machines on standard output, unwrapped and uncoloured."""
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False) + "\n")
