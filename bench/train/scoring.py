"""Accuracies from scores: pure functions of arrays `(videos, classes)`, so that any question can be asked later."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.core.errors import TrainingError

Floats = NDArray[np.floating]
Ints = NDArray[np.integer]
Labels = NDArray[Any]  # (rows,) integers, or (rows, classes) booleans where a row may have several


def label_ranks(scores: Floats, labels: Labels) -> NDArray[np.int64]:
    """How many classes stand before each row's label, 0 for a top-1 hit; of equal scores, the lower class is first.

    Of a row's several labels the best one counts. TrainingError where a score is not finite: NaN would stand first.
    """
    finite = np.asarray(np.isfinite(scores).all(axis=1))
    if not finite.all():
        raise TrainingError(f"{int((~finite).sum())} of {len(finite)} rows of scores are not finite")
    if labels.ndim == 2:
        order = np.argsort(-scores, axis=1, kind="stable")
        return np.asarray(np.take_along_axis(labels, order, axis=1).argmax(axis=1))
    own = scores[np.arange(len(labels)), labels][:, None]
    is_before = np.arange(scores.shape[1])[None] < labels[:, None]
    ranks: NDArray[np.int64] = ((scores > own) | ((scores == own) & is_before)).sum(axis=1)
    return ranks


def confusion_matrix(scores: Floats, labels: Ints) -> NDArray[np.int64]:
    """`(classes, classes)` counts: true class in the row, highest score in the column."""
    classes = scores.shape[1]
    flat = np.bincount(labels * classes + scores.argmax(axis=1), minlength=classes * classes)
    return flat.reshape(classes, classes).astype(np.int64)


def confused_pairs(matrix: NDArray[np.int64], most: int) -> list[tuple[int, int, int]]:
    """At most so many pairs of different classes: the true one, the one it was taken for, and how many times.

    The most frequent first; of equal counts, the larger share of the true class's rows.
    """
    true, taken = np.nonzero(matrix * (1 - np.eye(len(matrix), dtype=np.int64)))
    counts, totals = matrix[true, taken], matrix.sum(axis=1)[true]
    order = np.lexsort((taken, true, totals, -counts))[:most]
    return [(int(true[row]), int(taken[row]), int(counts[row])) for row in order]


def mean_per_class(hits: NDArray[np.bool_], labels: Ints) -> float:
    """Mean over the classes that are present of the share of hits in each; nan for no videos."""
    if not len(labels):
        return float("nan")
    counts = np.bincount(labels)
    present = counts > 0
    return float((np.bincount(labels, weights=hits)[present] / counts[present]).mean())


def average_precision(scores: Floats, is_positive: NDArray[np.bool_]) -> float:
    """Area under the precision-recall steps of one class; tied scores enter together. nan without a positive."""
    positives = int(is_positive.sum())
    if not positives:
        return float("nan")
    order = np.argsort(-scores, kind="stable")
    hits = np.cumsum(is_positive[order])
    ends = np.append(np.flatnonzero(np.diff(scores[order])), len(order) - 1)
    precision, recall = hits[ends] / (ends + 1), hits[ends] / positives
    return float((precision * np.diff(recall, prepend=0.0)).sum())


def mean_average_precision(scores: Floats, targets: NDArray[np.bool_]) -> float:
    """Mean of the average precisions of the classes with a positive; scores and targets `(videos, classes)`."""
    each = [average_precision(scores[:, c], targets[:, c]) for c in range(scores.shape[1])]
    present = [value for value in each if not np.isnan(value)]
    return float(np.mean(present)) if present else float("nan")
