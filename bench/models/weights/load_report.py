"""What was loaded into a model, by vbench or by another package, and which weights keep their random initial values."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from torch import nn

from bench.core.errors import InputError
from bench.core.input_protocol import InputProtocol
from bench.models.base import belongs_to, head_name_of

LISTED = 5
"""How many names a warning lists."""


@dataclass(frozen=True, kw_only=True)
class LoadReport:
    """What was loaded, from which file, and what was not.

    For weights that another package loaded, `path` is the name they were requested by, and `sha256` is empty or, for
    torchvision, the first digits. `entry` is the place of the weights within the file and `other_entries` are further
    ones. `fresh` are weights of the model that keep their random initial values; `ignored` are tensors of the file
    that belong to no model. `input_protocol` is what the file, or the zoo that it comes from, says of its input.
    """

    path: Path
    sha256: str
    container: str
    loaded: int
    fresh: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()
    entry: str = ""
    other_entries: tuple[str, ...] = ()
    is_averaged: bool = False
    file_classes: int | None = None
    model_classes: int | None = None
    input_protocol: InputProtocol = field(default_factory=InputProtocol)
    notes: tuple[str, ...] = ()

    @property
    def warnings(self) -> tuple[str, ...]:
        """Everything a user should know about these weights, one sentence each."""
        return tuple(_warnings(self))


def require_trained(model: nn.Module) -> None:
    """Raise InputError unless all weights of `model`, which `create_model` built, were loaded from somewhere."""
    report: LoadReport | None = model.__dict__.get("weights_report")
    if report is None:
        raise InputError("the model has only its random initial weights; name a file of weights")
    if report.fresh:
        raise InputError(report.warnings[0])


def require_trained_features(model: nn.Module) -> None:
    """Raise InputError if weights other than those of the classifier were not in the file that `model` was loaded from.

    The features of such a model would be random. A model without a file of weights is not refused.
    """
    report: LoadReport | None = model.__dict__.get("weights_report")
    head = head_name_of(model)
    fresh = [] if report is None else [key for key in report.fresh if not belongs_to(key, head)]
    if report is not None and fresh:
        names = ", ".join(fresh[:LISTED]) + (", …" if len(fresh) > LISTED else "")
        raise InputError(f"{report.path} lacks {len(fresh)} weights that the features are computed with: {names}")


def _warnings(report: LoadReport) -> Iterable[str]:
    fresh = ", ".join(report.fresh[:LISTED]) + (
        f" and {len(report.fresh) - LISTED} more" * (len(report.fresh) > LISTED)
    )
    file, untrained = report.path.name, f"{fresh} keep random values; train before evaluating"
    if report.fresh and report.file_classes is None:
        yield f"{file} has no classifier: {untrained}"
    elif report.fresh:
        yield f"{file} has {report.file_classes} classes and the model {report.model_classes}: {untrained}"
    if report.other_entries:
        kind = "averaged weights" if report.is_averaged else "weights"
        others = ", ".join(name or "the top level" for name in report.other_entries[:LISTED])
        taken = report.entry or "the top level"
        yield f"{file} holds several sets of weights: {kind} of {taken} are taken; also there: {others}"
    if report.ignored:
        names = ", ".join(report.ignored[:LISTED]) + (", …" if len(report.ignored) > LISTED else "")
        yield f"{file} holds {len(report.ignored)} tensors that belong to no model, not loaded: {names}"
    yield from report.notes
