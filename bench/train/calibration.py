"""How far scores can be believed: calibration, Brier score, abstention, temperature. Pure functions.

`confidence` `(videos,)` is the score of the predicted class, `right` `(videos,)` whether it is that of the label.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from bench.core.stats import Estimate, quantile, wilson_interval
from bench.train.predictions import Predictions

Floats = NDArray[np.floating]
Bools = NDArray[np.bool_]

BINS = 15
RESAMPLES = 500
TEMPERATURES = (0.05, 20.0)
GOLDEN = (5**0.5 - 1) / 2


@dataclass(frozen=True, kw_only=True)
class ReliabilityBin:
    """One bin of a reliability curve: videos of it, their mean confidence and the share that is right."""

    videos: int
    confidence: float
    right: Estimate


@dataclass(frozen=True, kw_only=True)
class Abstention:
    """Answering only above a confidence: the share that is answered, and how much of that is right."""

    threshold: float
    coverage: float
    precision: Estimate


@dataclass(frozen=True, kw_only=True)
class Temperature:
    """A temperature fitted on one half of the videos, and the calibration error of the other half without and with it.

    Guo et al., 2017, arXiv:1706.04599.
    """

    value: float
    error_before: float
    error_after: float


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """Calibration, errors and thresholds of the scores of one model."""

    error: Estimate
    brier: float
    bins: tuple[ReliabilityBin, ...]
    aurc: float
    risk_coverage: tuple[tuple[float, float], ...]
    temperature: Temperature | None
    abstention: Abstention | None


def adaptive_bins(confidence: Floats, *, bins: int = BINS) -> list[NDArray[np.int64]]:
    """Rows in bins of equal size by confidence; some bins have one row more than others.

    Nixon et al., 2019, arXiv:1904.01685.
    """
    order = np.argsort(confidence, kind="stable")
    return [rows for rows in np.array_split(order, min(bins, len(order))) if len(rows)]


def expected_calibration_error(confidence: Floats, right: Bools, *, bins: int = BINS) -> float:
    """Mean over adaptive bins, by their size, of the distance between mean confidence and the share that is right."""
    gaps = [
        abs(float(confidence[rows].mean()) - float(right[rows].mean())) * len(rows)
        for rows in adaptive_bins(confidence, bins=bins)
    ]
    return sum(gaps) / len(confidence) if len(confidence) else float("nan")


def calibration_error_interval(confidence: Floats, right: Bools, *, bins: int = BINS, seed: int = 0) -> Estimate:
    """The expected calibration error with the 95 % interval of resampled videos.

    The error of a finite sample is biased upwards, and that of a resample once more: the interval is the basic one,
    reflected at the estimate, which takes the second bias out.
    """
    value = expected_calibration_error(confidence, right, bins=bins)
    random = np.random.default_rng(seed)
    drawn = []
    for _ in range(RESAMPLES):
        rows = random.integers(len(right), size=len(right))
        drawn.append(expected_calibration_error(confidence[rows], right[rows], bins=bins))
    low, high = 2 * value - quantile(drawn, 0.975), 2 * value - quantile(drawn, 0.025)
    return Estimate(value=value, low=max(0.0, min(value, low)), high=min(1.0, max(value, high)))


def brier_score(probabilities: Floats, labels: NDArray[np.integer]) -> float:
    """Mean over the videos of the squared distance between the probabilities and the label's one-hot vector.

    Between 0 and 2. Brier, 1950, Monthly Weather Review 78(1).
    """
    distance = probabilities.astype(np.float64).copy()
    distance[np.arange(len(labels)), labels] -= 1
    return float((distance**2).sum(axis=1).mean())


def reliability(confidence: Floats, right: Bools, *, bins: int = BINS) -> tuple[ReliabilityBin, ...]:
    """The reliability curve over adaptive bins, by ascending confidence."""
    return tuple(
        ReliabilityBin(
            videos=len(rows),
            confidence=float(confidence[rows].mean()),
            right=wilson_interval(int(right[rows].sum()), len(rows)),
        )
        for rows in adaptive_bins(confidence, bins=bins)
    )


def risk_coverage(confidence: Floats, right: Bools) -> tuple[tuple[float, float], ...]:
    """(coverage, risk): of the most confident share of the videos, the share that is wrong. Equal scores go together.

    El-Yaniv and Wiener, 2010, JMLR 11.
    """
    order = np.argsort(-confidence, kind="stable")
    wrong = np.cumsum(~right[order])
    ends = np.append(np.flatnonzero(np.diff(confidence[order])), len(order) - 1)
    return tuple((float((end + 1) / len(order)), float(wrong[end] / (end + 1))) for end in ends)


def area_under_risk_coverage(confidence: Floats, right: Bools) -> float:
    """Mean risk over all coverages 1/n, 2/n, … 1; within equal scores the risk is that of the whole group."""
    area, before = 0.0, 0.0
    for coverage, risk in risk_coverage(confidence, right):
        area += (coverage - before) * risk
        before = coverage
    return area


def fit_temperature(log_scores: Floats, labels: NDArray[np.integer]) -> float:
    """The temperature with the least negative log-likelihood of `softmax(log_scores / temperature)`.

    The loss is convex in 1 / temperature, so golden-section search over that finds its least value.
    """

    def loss(inverse: float) -> float:
        scaled = log_scores * inverse
        scaled = scaled - scaled.max(axis=1, keepdims=True)
        return float((np.log(np.exp(scaled).sum(axis=1)) - scaled[np.arange(len(labels)), labels]).mean())

    low, high = 1 / TEMPERATURES[1], 1 / TEMPERATURES[0]
    return 1 / _least(loss, low, high)


def _least(function: Callable[[float], float], low: float, high: float) -> float:
    """The place of the least value of a convex function between `low` and `high`."""
    for _ in range(80):
        left, right = high - GOLDEN * (high - low), low + GOLDEN * (high - low)
        if function(left) <= function(right):
            high = right
        else:
            low = left
    return (low + high) / 2


def judge_temperature(probabilities: Floats, labels: NDArray[np.integer]) -> Temperature | None:
    """A temperature fitted on every second video of each class and judged on the rest.

    None below four videos, and if the half to fit has no error: the lower the temperature, the better it would fit.
    """
    order = np.argsort(labels, kind="stable")
    fit, judge = order[::2], order[1::2]
    if len(labels) < 4 or (probabilities[fit].argmax(axis=1) == labels[fit]).all():
        return None
    log_scores = np.log(np.maximum(probabilities.astype(np.float64), 1e-12))
    value = fit_temperature(log_scores[fit], labels[fit])
    scaled = log_scores[judge] / value
    scaled = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    after = scaled / scaled.sum(axis=1, keepdims=True)
    right = probabilities[judge].argmax(axis=1) == labels[judge]
    return Temperature(
        value=value,
        error_before=expected_calibration_error(probabilities[judge].max(axis=1), right),
        error_after=expected_calibration_error(after.max(axis=1), right),
    )


def abstain(confidence: Floats, right: Bools, *, precision: float) -> Abstention | None:
    """The lowest confidence above which the share of right answers is at least `precision`; None if there is none.

    Its precision is on the videos that chose it, so it is a little too high.
    """
    order = np.argsort(-confidence, kind="stable")
    hits = np.cumsum(right[order])
    ends = np.append(np.flatnonzero(np.diff(confidence[order])), len(order) - 1)
    good = [int(end) for end in ends if hits[end] / (end + 1) >= precision]
    if not good:
        return None
    last = good[-1]
    return Abstention(
        threshold=float(confidence[order][last]),
        coverage=(last + 1) / len(order),
        precision=wilson_interval(int(hits[last]), last + 1),
    )


def calibrate_predictions(found: Predictions, *, precision: float | None = None) -> Calibration | None:
    """The calibration of kept predictions; None if a video may have several labels.

    Raw scores become probabilities by softmax. Scores that are no probabilities of exclusive classes, such as sigmoids,
    are taken as they are and have no temperature.
    """
    if found.is_multi_label or not len(found.labels):
        return None
    averaging, scores = found.protocol.get("averaging"), found.scores.astype(np.float64)
    if averaging == "score":
        scores = np.exp(scores - scores.max(axis=1, keepdims=True))
        scores /= scores.sum(axis=1, keepdims=True)
    calibration = calibrate(scores, found.labels, precision=precision)
    is_exclusive = averaging in (None, "softmax", "score")
    return calibration if is_exclusive else replace(calibration, temperature=None)


def calibrate(
    probabilities: Floats, labels: NDArray[np.integer], *, precision: float | None = None, bins: int = BINS
) -> Calibration:
    """All of the above, for probabilities `(videos, classes)`; `precision` asks for a threshold of "unknown"."""
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    return Calibration(
        error=calibration_error_interval(confidence, right, bins=bins),
        brier=brier_score(probabilities, labels),
        bins=reliability(confidence, right, bins=bins),
        aurc=area_under_risk_coverage(confidence, right),
        risk_coverage=risk_coverage(confidence, right),
        temperature=judge_temperature(probabilities, labels),
        abstention=None if precision is None else abstain(confidence, right, precision=precision),
    )
