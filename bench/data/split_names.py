"""Which split of a data set is trained on and which is evaluated, by the names that data sets use."""

import re
from collections.abc import Iterable

from bench.core.errors import UnknownNameError

TRAINED = ("train", "train{}")
EVALUATED = ("val", "validation", "test", "val{}", "validation{}", "test{}")


def trained_split(split: int | str | None, *, known: Iterable[str], dataset: str) -> str:
    """Return the split to train on if `split` is evaluated: `train`, or `train2` for `test2`.

    Raises UnknownNameError if the data set has no such split.
    """
    number = re.search(r"\d+$", str(split))
    return _first(TRAINED, number[0] if number else None, known=known, dataset=dataset)


def evaluated_split(split: int | str | None, *, known: Iterable[str], dataset: str) -> str:
    """Return the split that `split` means: a name, a number (1 for `test1`), or None for the usual one.

    Raises UnknownNameError if the data set has no such split.
    """
    known = tuple(known)
    return str(split) if split in known else _first(EVALUATED, split, known=known, dataset=dataset)


def _first(patterns: Iterable[str], number: int | str | None, *, known: Iterable[str], dataset: str) -> str:
    known = tuple(known)
    names = [pattern.format(number) for pattern in patterns if ("{}" in pattern) == (number is not None)]
    for name in names:
        if name in known:
            return name
    raise UnknownNameError("split", names[0] if number is None else str(number), known, where=f"data set {dataset}")
