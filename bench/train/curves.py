"""The curves of a training: one row per epoch in a CSV file, and the same for TensorBoard."""

import csv
import io
import math
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

from bench.core.errors import MissingPackageError
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
EpochRow = dict[str, float | int | None]


def write_curves(path: Path, rows: list[EpochRow]) -> Path:
    """Write `rows` to `path` atomically; a value that was not measured is an empty cell.

    Accuracies are in percent; `seconds` and `energy_j` count from the start of the training.
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: _cell(row.get(name)) for name in COLUMNS} for row in rows)
    return write_text(path, text.getvalue())


def read_curves(path: Path) -> list[EpochRow]:
    """The rows that `write_curves` wrote."""
    with path.open(newline="") as file:
        return [_row(row) for row in csv.DictReader(file)]


def _cell(value: float | int | None) -> str:
    return "" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)


def _row(cells: Mapping[str, str]) -> EpochRow:
    whole = ("epoch", "step")
    return {name: None if text == "" else int(text) if name in whole else float(text) for name, text in cells.items()}


TAGS = {
    "loss": "loss/train",
    "val_loss": "loss/val",
    "top1": "top1/train",
    "val_top1": "top1/val",
    "val_top5": "top5/val",
    "lr": "rate/lr",
    "clips_per_s": "speed/clips_per_s",
}


class EventFile:
    """Writes rows to TensorBoard as they come; epochs that a resumed training repeats replace the old ones."""

    def __init__(self, folder: Path, *, from_step: int) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise MissingPackageError(
                "tensorboard", needed_for="`tensorboard: true`", install="pip install tensorboard"
            ) from None
        self._writer = SummaryWriter(str(folder), purge_step=from_step + 1)

    def write(self, row: EpochRow) -> None:
        """Write one epoch at its step; values that were not measured are left out."""
        for name, tag in TAGS.items():
            value = row.get(name)
            if value is not None and math.isfinite(value):
                self._writer.add_scalar(tag, value, global_step=row["step"])
        self._writer.flush()

    def __enter__(self) -> "EventFile":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._writer.close()
