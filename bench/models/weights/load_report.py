"""What of a network's weights was loaded, whoever loaded them, and what stays as it was drawn."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

from torch import nn

from bench.core.errors import InputError
from bench.core.input_protocol import InputProtocol


@dataclass(frozen=True, kw_only=True)
class LoadReport:
    """What was loaded, from which file, and what was not. `warnings` say it in words.

    Of weights that another package loaded, `path` is the name that they were asked for by, and `sha256` is empty or, of
    torchvision's, its beginning. `fresh` are weights that stay as drawn; `ignored` are entries of the file that are no
    weights.
    """

    path: Path
    sha256: str
    container: str
    loaded: int
    fresh: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()
    file_classes: int | None = None
    model_classes: int | None = None
    warnings: tuple[str, ...] = ()
    input_protocol: InputProtocol = field(default_factory=InputProtocol)


def in_words(report: LoadReport) -> LoadReport:
    """`report` with its `warnings`."""
    return replace(report, warnings=tuple(_warnings(report)))


def require_trained(model: nn.Module) -> None:
    """InputError unless all weights of `model`, which `create_model` built, were loaded: drawn ones know nothing."""
    report: LoadReport | None = model.__dict__.get("weights_report")
    if report is None:
        raise InputError("the network has no weights but those it was drawn with; name a file of weights")
    if report.fresh:
        raise InputError(next(iter(report.warnings)))


def _warnings(report: LoadReport) -> Iterable[str]:
    file, stays = report.path.name, f"{', '.join(report.fresh)} stay as drawn, train before evaluating"
    if report.fresh and report.file_classes is None:
        yield f"{file} carries no classifier: {stays}"
    elif report.fresh:
        yield f"{file} has {report.file_classes} classes and the network {report.model_classes}: {stays}"
    if report.ignored:
        yield f"{file} holds {len(report.ignored)} left-overs of a counter, such as {report.ignored[0]}: not loaded"
