"""Videos to look at: confident errors, and labels that are probably wrong.

Probable label errors follow confident learning: a class counts as confident for a video if its score is at least the
mean score that the class has on videos of its own label. Northcutt et al., 2021, arXiv:1911.00068.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bench.core.errors import InputError, suggest
from bench.train.predictions import Predictions


@dataclass(frozen=True, kw_only=True)
class Suspect:
    """One video: its label, what was predicted, and the scores of both."""

    video: str
    label: str
    predicted: str
    label_score: float
    predicted_score: float


def confident_errors(found: Predictions, *, true: str | None = None, predicted: str | None = None) -> list[Suspect]:
    """Wrong videos, the most confident first; only those of one cell of the confusion matrix if classes are given.

    With `true` and `predicted` the same, these are the right videos of that class. Raises UnknownNameError for an
    unknown class, InputError if videos have several labels.
    """
    rows = _rows(found, true=true, predicted=predicted)
    best = found.scores.argmax(axis=1)
    if true is None or true != predicted:
        rows &= best != found.labels
    order = np.flatnonzero(rows)
    return _suspects(found, order[np.argsort(-found.scores[order, best[order]], kind="stable")])


def probable_label_errors(
    found: Predictions, *, true: str | None = None, predicted: str | None = None
) -> list[Suspect]:
    """Videos for which another class is confident and their own label is not, the largest difference first.

    `true` and `predicted` are the label and the other class, if only some are wanted. Raises InputError for an unknown
    class, and if videos have several labels.
    """
    _require_single(found)
    rows, classes = np.arange(len(found.labels)), found.scores.shape[1]
    own = found.scores[rows, found.labels]
    thresholds = np.full(classes, np.inf)
    for label in np.unique(found.labels):
        thresholds[label] = own[found.labels == label].mean()
    others = np.where(found.scores >= thresholds, found.scores, -np.inf)
    others[rows, found.labels] = -np.inf
    is_suspect = np.isfinite(others.max(axis=1)) & (own < thresholds[found.labels])
    if true is not None:
        is_suspect &= found.labels == _class(found, true)
    if predicted is not None:
        is_suspect &= others.argmax(axis=1) == _class(found, predicted)
    order = np.flatnonzero(is_suspect)
    margins = others.max(axis=1)[order] - own[order]
    return _suspects(found, order[np.argsort(-margins, kind="stable")], predicted=others.argmax(axis=1))


def _rows(found: Predictions, *, true: str | None, predicted: str | None) -> np.ndarray:
    _require_single(found)
    rows = np.ones(len(found.labels), dtype=np.bool_)
    for name, values in ((true, found.labels), (predicted, found.scores.argmax(axis=1))):
        if name is not None:
            rows &= values == _class(found, name)
    return rows


def _class(found: Predictions, name: str) -> int:
    """The number of a class by its name; raises InputError with the nearest names."""
    names = found.class_names
    if name not in names:
        raise InputError(f"unknown class {name!r}; {suggest(name, names)}")
    return names.index(name)


def _require_single(found: Predictions) -> None:
    if found.is_multi_label:
        raise InputError("errors are listed for one label a video; these videos have several")


def _suspects(found: Predictions, rows: np.ndarray, *, predicted: np.ndarray | None = None) -> list[Suspect]:
    chosen = found.scores.argmax(axis=1) if predicted is None else predicted
    names: Sequence[str] = found.class_names
    return [
        Suspect(
            video=found.videos[row],
            label=names[int(found.labels[row])],
            predicted=names[int(chosen[row])],
            label_score=float(found.scores[row, found.labels[row]]),
            predicted_score=float(found.scores[row, chosen[row]]),
        )
        for row in rows
    ]
