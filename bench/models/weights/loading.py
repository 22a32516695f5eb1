"""Loads a checkpoint into a network, strictly: whatever does not fit is an error that names keys and cause."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from os import PathLike

import torch
from torch import Tensor, nn

from bench.core.errors import WeightsError
from bench.models.base import belongs_to, head_name_of
from bench.models.weights.checkpoint import Checkpoint, Shapes, read_checkpoint
from bench.models.weights.checkpoint_protocol import protocol_of_checkpoint
from bench.models.weights.identification import describe, fits_of
from bench.models.weights.load_report import LoadReport, in_words
from bench.models.weights.translations import names_for, rows_of

SHOWN = 3
"""How many keys an error names of each kind."""

HEADLESS_CONTAINERS = ("C3D Sports-1M",)
"""Who publishes weights without the classifier."""


@dataclass(frozen=True, kw_only=True)
class Difference:
    """Where names and shapes of a file and of a network disagree; the head's classes are kept apart."""

    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    reshaped: tuple[str, ...]
    head: tuple[str, ...] = ()

    @property
    def is_none(self) -> bool:
        return not (self.missing or self.unexpected or self.reshaped)


def load_weights(model: nn.Module, path: str | PathLike[str]) -> LoadReport:
    """Load the checkpoint file `path` into `model`; WeightsError, and nothing is loaded, unless it fits.

    A head with another number of classes is left out and stays as it was drawn, which `warnings` says.
    """
    return load_checkpoint(model, read_checkpoint(path))


def load_checkpoint(model: nn.Module, checkpoint: Checkpoint) -> LoadReport:
    """Load what `read_checkpoint` read; see `load_weights`."""
    target = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    if any(parameter.is_meta for parameter in model.parameters()):
        raise WeightsError(f"weights cannot be loaded on the meta device, which holds none; found {checkpoint.path}")
    head = head_name_of(model)
    names = names_for(checkpoint.shapes, target)
    state = {names[key]: value for key, value in checkpoint.state.items()}
    given = _shapes(state)
    difference = compare(given, target, head=head)
    fresh = difference.head
    if checkpoint.container in HEADLESS_CONTAINERS and all(belongs_to(key, head) for key in difference.missing):
        fresh, difference = fresh + difference.missing, replace(difference, missing=())
    if not difference.is_none:
        raise WeightsError(_misfit(checkpoint, given, target, difference, model=model))
    kept = {key: value for key, value in state.items() if key not in difference.head}
    _copy(model, kept)
    report = LoadReport(
        path=checkpoint.path,
        sha256=checkpoint.sha256,
        container=checkpoint.container,
        loaded=len(kept),
        fresh=fresh,
        ignored=checkpoint.ignored,
        file_classes=rows_of(given, head),
        model_classes=rows_of(target, head),
        input_protocol=protocol_of_checkpoint(checkpoint),
    )
    return in_words(report)


def classes_in(checkpoint: Checkpoint, model: nn.Module) -> int | None:
    """Number of classes of the file's head, if the file has the head of `model`."""
    target = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    names = names_for(checkpoint.shapes, target)
    return rows_of({names[key]: shape for key, shape in checkpoint.shapes.items()}, head_name_of(model))


def compare(given: Shapes, target: Shapes, *, head: str) -> Difference:
    """Difference of a file's shapes from a network's. Counters of batches, which old files lack, do not count."""
    missing = [key for key in target if key not in given and not key.endswith("num_batches_tracked")]
    reshaped = [key for key in target if key in given and given[key] != target[key]]
    of_head = [key for key in reshaped if belongs_to(key, head) and given[key][1:] == target[key][1:]]
    return Difference(
        missing=tuple(missing),
        unexpected=tuple(key for key in given if key not in target),
        reshaped=tuple(key for key in reshaped if key not in of_head),
        head=tuple(of_head),
    )


def _shapes(state: Mapping[str, Tensor]) -> Shapes:
    return {key: tuple(value.shape) for key, value in state.items()}


@torch.no_grad()
def _copy(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    for key, value in model.state_dict().items():
        if key in state:
            value.copy_(state[key])


def _misfit(checkpoint: Checkpoint, given: Shapes, target: Shapes, difference: Difference, *, model: nn.Module) -> str:
    reshaped = [f"{key}: file {_size(given[key])}, network {_size(target[key])}" for key in difference.reshaped]
    parts = (
        _listed(difference.missing, "missing from the file"),
        _listed(difference.unexpected, "not known to the network"),
        _listed(reshaped, "of another shape"),
    )
    what = "; ".join(part for part in parts if part)
    return f"{checkpoint.path} does not fit this {type(model).__name__}: {what}. {_cause(checkpoint, difference)}"


def _listed(keys: Sequence[str], problem: str) -> str:
    if not keys:
        return ""
    shown = ", ".join(keys[:SHOWN]) + (", …" if len(keys) > SHOWN else "")
    return f"{len(keys)} {'key is' if len(keys) == 1 else 'keys are'} {problem} ({shown})"


def _size(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))


def _cause(checkpoint: Checkpoint, difference: Difference) -> str:
    """The likeliest reason: what the file fits instead, else whose it is."""
    fits = fits_of(checkpoint)
    if fits:
        return f"{_shortcut(difference)}The file fits {' or '.join(describe(fit) for fit in fits[:SHOWN])}"
    return f"{_shortcut(difference)}No network here has these weights; their names are those of: {checkpoint.container}"


def _shortcut(difference: Difference) -> str:
    if difference.missing and all(".downsample." in key for key in difference.missing):
        return "The file is of a network with shortcut A, which has no weights there; this one has shortcut B. "
    if not difference.missing and difference.unexpected and all(".downsample." in k for k in difference.unexpected):
        return "The file is of a network with shortcut B; this one has shortcut A, which has no weights there. "
    return ""
