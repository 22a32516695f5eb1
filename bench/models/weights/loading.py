"""Loads a checkpoint file into a model; an error for a file that does not fit names what it fits instead."""

from os import PathLike

from torch import nn

from bench.core.errors import WeightsError
from bench.models.weights.checkpoint import Checkpoint, read_checkpoint
from bench.models.weights.identification import describe, fits_of
from bench.models.weights.load_report import LoadReport
from bench.models.weights.matching import SHOWN, MisfitError, copy_weights
from bench.models.weights.recognition import notes_on_head, why_detector


def load_weights(model: nn.Module, path: str | PathLike[str], *, entry: str | None = None) -> LoadReport:
    """Load the checkpoint file `path` into `model` and return what was loaded.

    A head with another number of classes keeps its random values, which the report's warnings state. Raises
    WeightsError, and loads nothing, if anything else differs; see `read_checkpoint` for `entry`.
    """
    return load_checkpoint(model, read_checkpoint(path, entry=entry))


def load_checkpoint(model: nn.Module, checkpoint: Checkpoint, *, needs_head: bool = True) -> LoadReport:
    """Load what `read_checkpoint` read; see `load_weights`, and `copy_weights` for `needs_head`."""
    try:
        return copy_weights(model, checkpoint, needs_head=needs_head)
    except MisfitError as error:
        fits = fits_of(checkpoint)
        if why_detector(checkpoint):
            note = notes_on_head(checkpoint)
            cause = note[0].upper() + note[1:]
        elif fits:
            cause = f"The file fits {' or '.join(describe(fit) for fit in fits[:SHOWN])}"
        else:
            cause = f"No model here has these weights; their names are those of: {checkpoint.container}"
        raise WeightsError(f"{error} {cause}") from None
