"""What happened epoch by epoch, as rows of a CSV file; a value that was not measured is an empty cell."""

import csv
import io
from collections.abc import Mapping
from pathlib import Path

from bench.train.checkpointing import write_text

COLUMNS = (
    "epoch",
    "step",
    "lr",
    "loss",
    "top1",
    "val_loss",
    "val_top1",
    "val_top5",
    "clips_per_s",
    "seconds",
    "energy_j",
)
Row = dict[str, float | int | None]


def write_curves(path: Path, rows: list[Row]) -> Path:
    """Write `rows`, whole or not at all. Accuracies are in percent, `seconds` and `energy_j` since the beginning."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: _cell(row.get(name)) for name in COLUMNS} for row in rows)
    return write_text(path, text.getvalue())


def read_curves(path: Path) -> list[Row]:
    """Rows as written."""
    with path.open(newline="") as file:
        return [_row(row) for row in csv.DictReader(file)]


def _cell(value: float | int | None) -> str:
    return "" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)


def _row(cells: Mapping[str, str]) -> Row:
    whole = ("epoch", "step")
    return {name: None if text == "" else int(text) if name in whole else float(text) for name, text in cells.items()}
