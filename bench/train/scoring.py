"""Accuracies from scores, as pure functions of arrays `(videos, classes)`."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.core.errors import InputError, TrainingError
from bench.core.stats import Estimate, mcnemar, wilson_interval

Floats = NDArray[np.floating]
Ints = NDArray[np.integer]
Labels = NDArray[Any]  # (rows,) integers, or (rows, classes) booleans if a row may have several

# Another class order is reported from here on: a chance of 1 in 100, and a gain that no list of classes gives by luck.
RELABELLING_P, RELABELLING_GAIN = 0.01, 0.2


def label_ranks(scores: Floats, labels: Labels) -> NDArray[np.int64]:
    """How many classes are ranked before each row's label, 0 for a top-1 hit; of equal scores the lower class is first.

    If a row has several labels, the best one counts. Raises TrainingError if a score is not finite: NaN would be first.
    """
    finite = np.asarray(np.isfinite(scores).all(axis=1))
    if not finite.all():
        raise TrainingError(f"{int((~finite).sum())} of {len(finite)} rows of scores are not finite")
    if labels.ndim == 2:
        order = np.argsort(-scores, axis=1, kind="stable")
        width = scores.shape[1] - labels.shape[1]  # a head may have more outputs than the set has classes
        wide = np.pad(labels, ((0, 0), (0, width))) if width > 0 else labels
        return np.asarray(np.take_along_axis(wide, order, axis=1).argmax(axis=1))
    own = scores[np.arange(len(labels)), labels][:, None]
    is_before = np.arange(scores.shape[1])[None] < labels[:, None]
    ranks: NDArray[np.int64] = ((scores > own) | ((scores == own) & is_before)).sum(axis=1)
    return ranks


def confusion_matrix(scores: Floats, labels: Ints) -> NDArray[np.int64]:
    """`(classes, classes)` counts: true class in the row, class with the highest score in the column."""
    classes = scores.shape[1]
    flat = np.bincount(labels * classes + scores.argmax(axis=1), minlength=classes * classes)
    return flat.reshape(classes, classes).astype(np.int64)


@dataclass(frozen=True, kw_only=True)
class ClassScore:
    """One class of a confusion matrix: its videos, those that are right, and how often the class was predicted.

    `share` is right / videos with its 95 % interval, nan without a video. `taken_for` is the class that most of the
    others were taken for, and `taken` how many were; None and 0 if all videos are right.
    """

    number: int
    videos: int
    right: int
    predicted: int
    taken_for: int | None
    taken: int

    @property
    def share(self) -> Estimate:
        return wilson_interval(self.right, self.videos)


def class_scores(matrix: NDArray[np.int64]) -> list[ClassScore]:
    """Every class of `(classes, classes)` counts, true class in the row; classes without a video too."""
    others = matrix * (1 - np.eye(len(matrix), dtype=np.int64))
    return [
        ClassScore(
            number=number,
            videos=int(matrix[number].sum()),
            right=int(matrix[number, number]),
            predicted=int(matrix[:, number].sum()),
            taken_for=int(row.argmax()) if row.any() else None,
            taken=int(row.max()),
        )
        for number, row in enumerate(others)
    ]


def confused_pairs(matrix: NDArray[np.int64], most: int) -> list[tuple[int, int, int]]:
    """At most `most` pairs of different classes (true, predicted, count), the most frequent first.

    Of equal counts, the pair with the larger share of the true class's rows is first.
    """
    true, predicted = np.nonzero(matrix * (1 - np.eye(len(matrix), dtype=np.int64)))
    counts, totals = matrix[true, predicted], matrix.sum(axis=1)[true]
    order = np.lexsort((predicted, true, totals, -counts))[:most]
    return [(int(true[row]), int(predicted[row]), int(counts[row])) for row in order]


def mean_per_class(hits: NDArray[np.bool_], labels: Ints) -> float:
    """Mean over the classes that are present of the share of hits in each; nan without videos."""
    if not len(labels):
        return float("nan")
    totals, right = np.bincount(labels), np.bincount(labels, weights=hits)
    present = totals > 0
    return float((right[present] / totals[present]).mean())


def average_precision(scores: Floats, is_positive: NDArray[np.bool_]) -> float:
    """Area under the precision-recall steps of one class; equal scores enter together. nan without a positive."""
    positives = int(is_positive.sum())
    if not positives:
        return float("nan")
    order = np.argsort(-scores, kind="stable")
    hits = np.cumsum(is_positive[order])
    ends = np.append(np.flatnonzero(np.diff(scores[order])), len(order) - 1)
    precision, recall = hits[ends] / (ends + 1), hits[ends] / positives
    return float((precision * np.diff(recall, prepend=0.0)).sum())


def mean_average_precision(scores: Floats, targets: NDArray[np.bool_]) -> float:
    """Mean of the average precisions of the classes with a positive; scores and targets are `(videos, classes)`."""
    each = [average_precision(scores[:, c], targets[:, c]) for c in range(targets.shape[1])]
    present = [value for value in each if not np.isnan(value)]
    return float(np.mean(present)) if present else float("nan")


def class_columns(outputs: Sequence[str], classes: Sequence[str]) -> list[int | None]:
    """For each of a data set's `classes` the output of a model whose `outputs` have these names; None if none has it.

    Names are equal if they differ in case, spaces and punctuation only, unless several outputs would be. Raises
    InputError if the model knows none of the classes.
    """
    exact = {name: index for index, name in enumerate(outputs)}
    plain: dict[str, list[int]] = {}
    for index, name in enumerate(outputs):
        plain.setdefault(_plain_name(name), []).append(index)
    columns: list[int | None] = []
    for name in classes:
        near = plain.get(_plain_name(name), [])
        columns.append(exact.get(name, near[0] if len(near) == 1 else None))
    if all(column is None for column in columns):
        raise InputError(
            f"the model knows none of the data set's {len(classes)} classes ({_first_names(classes)}); its own are "
            f"{_first_names(outputs)}: give the data set it was trained for, or the right class list by --labels FILE"
        )
    return columns


def knows_a_class(outputs: Sequence[str], classes: Sequence[str]) -> bool:
    """Return whether any of a data set's `classes` is among the `outputs` of a model, as `class_columns` compares."""
    return not {_plain_name(name) for name in outputs}.isdisjoint(map(_plain_name, classes))


@dataclass(frozen=True, kw_only=True)
class Relabelling:
    """A one-to-one renumbering of the classes that explains predictions better: top-1 as they are and renumbered.

    `mapping[c]` is the class that predictions of class c stand for. Both shares are fractions of 1 over `videos`.
    """

    mapping: tuple[int, ...]
    top1_as_is: float
    top1_relabelled: float
    videos: int

    def __str__(self) -> str:
        return (
            f"the predictions agree with the labels far better in another order of the classes: top-1 is "
            f"{100 * self.top1_as_is:.1f} % as they are and {100 * self.top1_relabelled:.1f} % with the classes "
            f"renumbered (found on one half of {self.videos} videos, judged on the other)"
        )


RELABELLING_REMEDY = "give the class names in the order of the model's outputs: --labels FILE, one name a line"


def find_relabelling(scores: Floats, labels: Ints) -> Relabelling | None:
    """The renumbering of the classes under which predictions are far better than as they are; None if there is none.

    A renumbering is found on each half of the videos and judged on the other half, so that it cannot gain by fitting
    noise: it must raise top-1 by a fifth of the videos, and McNemar's exact test must agree.
    """
    predicted, classes = scores.argmax(axis=1), scores.shape[1]
    halves = _halves(labels)
    renumbered = np.empty_like(predicted)
    for fit, judge in (halves, halves[::-1]):
        renumbered[judge] = _best_mapping(predicted[fit], labels[fit], classes=classes)[predicted[judge]]
    is_right, would_be_right = predicted == labels, renumbered == labels
    gain = float(would_be_right.mean() - is_right.mean())
    lost, won = int((is_right & ~would_be_right).sum()), int((would_be_right & ~is_right).sum())
    if gain < RELABELLING_GAIN or mcnemar(lost, won) >= RELABELLING_P:
        return None
    return Relabelling(
        mapping=tuple(int(c) for c in _best_mapping(predicted, labels, classes=classes)),
        top1_as_is=float(is_right.mean()),
        top1_relabelled=float(would_be_right.mean()),
        videos=len(labels),
    )


def _halves(labels: Ints) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Two halves of the rows, with the rows of each class shared evenly."""
    order = np.argsort(labels, kind="stable")
    return order[::2], order[1::2]


def _best_mapping(predicted: Ints, labels: Ints, *, classes: int) -> NDArray[np.int64]:
    """The one-to-one mapping of predicted classes to true ones with the most hits."""
    from scipy.optimize import linear_sum_assignment  # late: reading predictions needs no scipy

    hits = np.bincount(predicted * classes + labels, minlength=classes * classes).reshape(classes, classes)
    # Of equal numbers of hits, a class keeps its own number.
    _, mapping = linear_sum_assignment(-(hits + 0.5 * np.eye(classes) / classes))
    return np.asarray(mapping, dtype=np.int64)


def _plain_name(name: str) -> str:
    return re.sub(r"[\W_]+", "", name.casefold())


def _first_names(names: Sequence[str]) -> str:
    return ", ".join(repr(name) for name in names[:3]) + (", …" if len(names) > 3 else "")
