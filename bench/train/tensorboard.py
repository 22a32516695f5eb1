"""The curves of a training once more, as TensorBoard reads them."""

import math
from pathlib import Path
from types import TracebackType

from bench.core.errors import MissingPackageError
from bench.train.curves import Row

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
    """Takes the rows of the curves as they come; what a resumed training repeats replaces what was there."""

    def __init__(self, folder: Path, *, from_step: int) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise MissingPackageError(
                "tensorboard", needed_for="`tensorboard: true`", install="pip install tensorboard"
            ) from None
        self._writer = SummaryWriter(str(folder), purge_step=from_step + 1)

    def write(self, row: Row) -> None:
        """One epoch, at its step; what was not measured is left out."""
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
