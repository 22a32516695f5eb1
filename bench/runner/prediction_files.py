"""Kept predictions as they are questioned: one file, or two of the same videos, compared and fused."""

from dataclasses import dataclass
from pathlib import Path

from bench.core.errors import InputError
from bench.train.predictions import (
    Agreement,
    Predictions,
    compare_predictions,
    find_predictions,
    fuse_predictions,
    read_predictions,
    store_predictions,
)


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A file of predictions and what it holds."""

    file: Path
    found: Predictions


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Two networks on the same videos; `fused` is both as one, or None and `why_not` the reason in one line."""

    a: Asked
    b: Asked
    agreement: Agreement
    weight_b: float
    fused: Predictions | None
    why_not: str = ""


def ask(given: Path) -> Asked:
    """The predictions in a file, or in the one file below a folder; InputError where there is none, or several."""
    file = find_predictions(given)
    return Asked(file=file, found=read_predictions(file))


def pair(a: Asked, b: Asked, *, weight_b: float | None = None, target: Path | None = None) -> Pair:
    """Both compared and fused, the fused written to `target` where it is given.

    InputError unless both scored the same videos. What cannot be fused is one where a weight or a target asks for it.
    """
    weight, fused, why_not = 1.0 if weight_b is None else weight_b, None, ""
    _refuse_source(target, sources=(a.file, b.file))
    try:
        agreement = compare_predictions(a.found, b.found)
    except InputError as error:
        raise _named(error, a, b) from None
    try:
        fused = fuse_predictions(a.found, b.found, weight_b=weight)
    except InputError as error:
        if weight_b is not None or target is not None:
            raise _named(error, a, b) from None
        why_not = str(error)
    if fused is not None and target is not None:
        store_predictions(target, fused)
    return Pair(a=a, b=b, agreement=agreement, weight_b=weight, fused=fused, why_not=why_not)


def _refuse_source(target: Path | None, *, sources: tuple[Path, Path]) -> None:
    if target is not None and target.exists() and any(target.samefile(source) for source in sources):
        raise InputError(f"{target} cannot be written: it is one of the two that are to be fused")


def _named(error: InputError, a: Asked, b: Asked) -> InputError:
    return InputError(f"{a.file} and {b.file}: {error}")
