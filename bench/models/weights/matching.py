"""Copies the weights of a checkpoint into a model, strictly: every key must match in name and shape."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from bench.core.errors import WeightsError
from bench.models.base import belongs_to, head_name_of
from bench.models.weights.checkpoint import Checkpoint, Shapes, is_same_weight
from bench.models.weights.checkpoint_protocol import notes_on, protocol_of_checkpoint
from bench.models.weights.load_report import LoadReport
from bench.models.weights.translations import names_for, rows_of

SHOWN = 3
"""How many keys an error names of each kind."""

HEADLESS_CONTAINERS = ("C3D Sports-1M", "V-JEPA 2")
"""Who publishes weights without the classifier."""


@dataclass(frozen=True, kw_only=True)
class Difference:
    """Where names and shapes of a file and of a model disagree; a head with other classes is listed apart."""

    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    reshaped: tuple[str, ...]
    head: tuple[str, ...] = ()

    @property
    def is_none(self) -> bool:
        return not (self.missing or self.unexpected or self.reshaped)

    def without(self, module: str) -> "Difference":
        """Return what remains if the weights of `module` do not count."""
        kinds = (self.missing, self.unexpected, self.reshaped)
        missing, unexpected, reshaped = (tuple(key for key in keys if not belongs_to(key, module)) for keys in kinds)
        return Difference(missing=missing, unexpected=unexpected, reshaped=reshaped)


class MisfitError(WeightsError):
    """The names or shapes of a checkpoint are not those of the model."""


def copy_weights(model: nn.Module, checkpoint: Checkpoint, *, needs_head: bool = True) -> LoadReport:
    """Copy the weights of `checkpoint` into `model` and return what was loaded.

    A head with another number of classes keeps its random values, which the report's warnings state; with
    `needs_head=False`, so does one that the file lacks or has in another form. Raises
    MisfitError for any other difference, and WeightsError for weights that cannot be right (integers in place of
    floats, NaN or infinite values); then nothing is copied.
    """
    if any(parameter.is_meta for parameter in model.parameters()):
        raise WeightsError(f"weights cannot be loaded into a model on the meta device; found {checkpoint.path}")
    own = model.state_dict()
    target = {key: tuple(value.shape) for key, value in own.items()}
    head = head_name_of(model)
    names = names_for(checkpoint.shapes, target)
    state = {names[key]: value for key, value in checkpoint.state.items()}
    given = {key: tuple(value.shape) for key, value in state.items()}
    difference = compare(given, target, head=head)
    fresh = difference.head
    if not needs_head:
        difference = difference.without(head)
        in_head = [key for key in target if belongs_to(key, head)]
        fresh = tuple(key for key in in_head if key not in given or not is_same_weight(given[key], target[key]))
    classifier = getattr(model, "classifier_name", "") or head
    if checkpoint.container in HEADLESS_CONTAINERS and all(belongs_to(key, classifier) for key in difference.missing):
        fresh, difference = fresh + difference.missing, replace(difference, missing=())
    if not difference.is_none:
        raise MisfitError(_misfit(checkpoint, given, target, difference, model=model))
    kept = {key: value for key, value in state.items() if key in target and key not in fresh}
    _require_plausible(kept, own, path=str(checkpoint.path))
    with torch.no_grad():
        for key, value in kept.items():
            own[key].copy_(value.reshape(own[key].shape))
    return LoadReport(
        path=checkpoint.path,
        sha256=checkpoint.sha256,
        container=checkpoint.container,
        loaded=len(kept),
        fresh=fresh,
        ignored=checkpoint.ignored,
        entry=checkpoint.entry,
        other_entries=checkpoint.other_entries,
        is_averaged=checkpoint.is_averaged,
        file_classes=rows_of(given, head),
        model_classes=rows_of(target, head),
        input_protocol=protocol_of_checkpoint(checkpoint),
        notes=notes_on(checkpoint),
    )


def classes_in(checkpoint: Checkpoint, model: nn.Module) -> int | None:
    """Return the number of classes of the file's head; None if the file does not have the head of `model`."""
    target = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    names = names_for(checkpoint.shapes, target)
    return rows_of({names[key]: shape for key, shape in checkpoint.shapes.items()}, head_name_of(model))


def compare(given: Shapes, target: Shapes, *, head: str) -> Difference:
    """Return how a file's shapes differ from a model's. Batch counters, which old files lack, are not compared."""
    missing = [key for key in target if key not in given and not key.endswith("num_batches_tracked")]
    reshaped = [key for key in target if key in given and not is_same_weight(given[key], target[key])]
    of_head = [key for key in reshaped if belongs_to(key, head) and given[key][1:] == target[key][1:]]
    return Difference(
        missing=tuple(missing),
        unexpected=tuple(key for key in given if key not in target),
        reshaped=tuple(key for key in reshaped if key not in of_head),
        head=tuple(of_head),
    )


def implausible(state: Mapping[str, Tensor]) -> str:
    """Return why these weights cannot be right, naming the tensor, or an empty string.

    Whether integers are wrong depends on the model; here they are if most of the tensors are integers.
    """
    floats = [value for value in state.values() if value.is_floating_point()]
    named = [(key, value) for key, value in state.items() if value.ndim]
    if len(floats) * 2 < len(named):
        key, value = next(((key, value) for key, value in named if not value.is_floating_point()), ("", torch.empty(0)))
        return f"{key} is {_dtype(value)}: weights cast to integers have lost their values"
    return next((reason for key, value in state.items() if (reason := _not_finite(key, value))), "")


def _require_plausible(state: Mapping[str, Tensor], own: Mapping[str, Tensor], *, path: str) -> None:
    for key, value in state.items():
        # A single number may be whole; if all weights were cast, a larger tensor shows it.
        if value.ndim and own[key].is_floating_point() and not value.is_floating_point():
            raise WeightsError(
                f"{path}: {key} is {_dtype(value)} where the model has {_dtype(own[key])}: weights cast to integers "
                "have lost their values; use the file from before the cast"
            )
        if reason := _not_finite(key, value):
            raise WeightsError(f"{path}: {reason}; a training that diverged, or a damaged file")


def _not_finite(key: str, value: Tensor) -> str:
    # Attention masks are kept as buffers by some models and may hold -inf.
    if not value.is_floating_point() or key.endswith("mask"):
        return ""
    wrong = int((~torch.isfinite(value.float())).sum())
    return f"{key} holds {wrong} values that are not finite (NaN or infinite)" if wrong else ""


def _dtype(value: Tensor) -> str:
    return str(value.dtype).removeprefix("torch.")


def _misfit(checkpoint: Checkpoint, given: Shapes, target: Shapes, difference: Difference, *, model: nn.Module) -> str:
    reshaped = [f"{key}: file {_size(given[key])}, model {_size(target[key])}" for key in difference.reshaped]
    parts = (
        _listed(difference.missing, "missing from the file"),
        _listed(difference.unexpected, "not known to the model"),
        _listed(reshaped, "of another shape"),
    )
    problems = "; ".join(part for part in parts if part)
    return f"{checkpoint.path} does not fit this {type(model).__name__}: {problems}. {_shortcut(difference)}".strip()


def _listed(keys: Sequence[str], problem: str) -> str:
    if not keys:
        return ""
    shown = ", ".join(keys[:SHOWN]) + (", …" if len(keys) > SHOWN else "")
    return f"{len(keys)} {'key is' if len(keys) == 1 else 'keys are'} {problem} ({shown})"


def _size(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))


def _shortcut(difference: Difference) -> str:
    if difference.missing and all(".downsample." in key for key in difference.missing):
        return "The file is of a model with shortcut A, which has no weights there; this model has shortcut B."
    if not difference.missing and difference.unexpected and all(".downsample." in k for k in difference.unexpected):
        return "The file is of a model with shortcut B; this model has shortcut A, which has no weights there."
    return ""
