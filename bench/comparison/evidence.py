"""The change between two sets of independent runs or of predicted videos, with its uncertainty. docs/decisions/0006.

Pure functions. This module imports numpy and scipy, so `comparing` loads it only when there are cases to compare.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, wraps
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import betainc, gammaincinv, nctdtrinc, ndtr, ndtri, stdtr, stdtrit

from bench.comparison.sequential import least_spread
from bench.core.stats import Z95, Estimate, mcnemar, paired_shares

ALPHA = 0.01
RANK_TEST_ALPHA = 0.05
POWER = 0.8
DRAWS = 4000
SEED = 20260101
MANY = 1e9
LARGEST_SQUARED = 1e150
MEDIAN_SPREAD = math.sqrt(math.pi / 2)  # of a median over that of a mean: many runs of Gaussian noise; for five 1.20

Values = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Change:
    """From base to head: `estimate` with its 95 % interval, its standard `error`, the `degrees` of freedom and `p`.

    If `is_ratio`, the estimate and interval are natural logarithms of head / base, else differences in the metric's
    unit. `spread` is the standard deviation of the estimate over `error`, 1 for a mean. `step` is the weight of a
    single video if the change is a count of videos.
    """

    is_ratio: bool
    estimate: float
    low: float
    high: float
    error: float
    degrees: float
    p: float
    sample: str
    spread: float = 1.0
    step: float = 0.0

    def reaching(self, confidence: float) -> "Change":
        """Return the same change with Student's interval at this confidence, between 0 and 1."""
        return self.within(float(stdtrit(self.degrees, (1 + confidence) / 2)))

    def within(self, critical_t: float) -> "Change":
        """Return the same change with the interval of so many standard errors on either side."""
        half = self.error * critical_t if math.isfinite(critical_t) else math.inf
        return replace(self, low=self.estimate - half, high=self.estimate + half)

    def detectable(self, tolerance: float, *, alpha: float) -> float:
        """Return the minimum detectable change with 80 % power, by the noncentral t distribution."""
        certain = self.error * _noncentrality(self.degrees, alpha)
        beyond = tolerance + self.spread * self.error * float(stdtrit(self.degrees, POWER))
        return max(certain, beyond, self.step * _discordant_needed(alpha))

    def growth_needed(self, room: float) -> float:
        """Return the factor on the number of runs that narrows the interval to `room` on either side."""
        half = max(self.high - self.estimate, self.estimate - self.low)
        times = half / room if room > 0 else math.inf
        return times * times


def _within_floats(change_of: Callable[..., Change]) -> Callable[..., Change]:
    """Return an unlimited interval for values that have no logarithms and whose squares overflow a float.

    No measurement gives such values, but a file may hold them; they must neither raise nor give a certain verdict.
    """

    @wraps(change_of)
    def checked(base: Sequence[Any], head: Sequence[Any], **given: Any) -> Change:
        values = np.concatenate([np.hstack(base), np.hstack(head)])
        if float(np.abs(values).max()) <= LARGEST_SQUARED or float(values.min()) > 0:
            with np.errstate(over="ignore", invalid="ignore"):
                found = change_of(base, head, **given)
            if math.isfinite(found.estimate) and math.isfinite(found.error):
                return found
        return Change(
            is_ratio=False,
            estimate=0.0,
            low=-math.inf,
            high=math.inf,
            error=math.inf,
            degrees=len(base) + len(head) - 2,
            p=1.0,
            sample=f"{len(base)} and {len(head)} runs",
        )

    return checked


@_within_floats
def change_of_runs(base: Sequence[float], head: Sequence[float]) -> Change:
    """Return the change between independent runs, one value each, at least two a side.

    It is the ratio of medians if all values are above 0, on logarithms so that a ratio and its inverse are judged
    alike. The interval is a bootstrap over runs of Harrell and Davis' smooth median, at the percentiles of Student's t
    for so few runs; `p` is Welch's.
    """
    old, new = np.asarray(base, dtype=np.float64), np.asarray(head, dtype=np.float64)
    is_ratio = bool((old > 0).all() and (new > 0).all())
    if is_ratio:
        old, new = np.log(old), np.log(new)
    estimate = float(np.median(new) - np.median(old))
    error, degrees, p = (float(each[0]) for each in welch(old[None], new[None]))
    low = high = estimate
    if error > 0:
        low, high = (float(each[0]) for each in bootstrap_interval(old[None], new[None], degrees=np.array([degrees])))
    return Change(
        is_ratio=is_ratio,
        estimate=estimate,
        low=min(low, estimate),
        high=max(high, estimate),
        error=error,
        degrees=degrees,
        p=p,
        sample=f"{len(old)} and {len(new)} runs",
        spread=MEDIAN_SPREAD,
    )


@_within_floats
def change_of_sessions(base: Sequence[Sequence[float]], head: Sequence[Sequence[float]]) -> Change:
    """Return the change between sessions of a machine, at least three in all: means over the medians of sessions.

    One session of head has no spread, so the spread is estimated from both sides together, with Student's interval and
    p. On logarithms if all values are above 0.
    """
    old, new = (np.array([float(np.median(session)) for session in side]) for side in (base, head))
    is_ratio = bool(min(min(session) for side in (base, head) for session in side) > 0)
    if is_ratio:
        old, new = np.log(old), np.log(new)
    degrees = len(old) + len(new) - 2
    spread = math.sqrt((len(old) * float(old.var()) + len(new) * float(new.var())) / degrees)
    estimate = float(new.mean() - old.mean())
    return _students_change(
        estimate,
        error=spread * math.sqrt(1 / len(old) + 1 / len(new)),
        degrees=degrees,
        size=_size(old, new),
        is_ratio=is_ratio,
        sample=f"{len(old)} and {len(new)} sessions",
    )


def noise_floor(sessions: Sequence[Sequence[float]], *, runs: int, are_apart: bool) -> float:
    """Return the 99 % quantile of the difference of two medians of so many `runs`, drawn from one side's values.

    The result is a share of the base. Runs are drawn with replacement, on logarithms. If the two sides `are_apart` in
    time, each median comes from one session, drawn first; else runs are drawn from their deviations within sessions.
    The quantile is widened by sqrt(n / (n - 1)) for n sessions or runs, because few values lie closer to their own
    middle than to the true one, and for sessions by the ratio of Student's t to the normal quantile. All values must be
    above 0. Returns infinity if no float holds the result.
    """
    logs = [np.log(np.asarray(session, dtype=np.float64)) for session in sessions]
    if not are_apart:
        logs = [np.concatenate([session - np.median(session) for session in logs])]
    widening, units = 1.0, len(logs[0])
    if len(logs) > 1:
        units = len(logs)
        widening = float(stdtrit(units - 1, 1 - ALPHA / 2) / ndtri(1 - ALPHA / 2))
    first, second = _drawn_medians(logs, runs=runs)
    floor = float(np.quantile(np.abs(first - second), 1 - ALPHA)) * widening * math.sqrt(units / (units - 1))
    try:
        return math.expm1(floor)
    except OverflowError:
        return math.inf


def _drawn_medians(sessions: Sequence[Values], *, runs: int) -> Values:
    """Return medians of so many `runs`, each of one session; shape `(2, DRAWS)`."""
    rng, lengths = np.random.default_rng(SEED), np.array([len(session) for session in sessions])
    table = np.zeros((len(sessions), lengths.max()))
    for row, session in zip(table, sessions, strict=True):
        row[: len(session)] = session
    which = rng.integers(0, len(sessions), (2, DRAWS, 1))
    place = (rng.random((2, DRAWS, runs)) * lengths[which]).astype(np.int64)
    medians: Values = np.median(table[which, place], axis=2)
    return medians


@_within_floats
def change_of_pairs(base: Sequence[float], head: Sequence[float], *, unit: str = "") -> Change:
    """Return the mean change over pairs of runs that were neighbours in time, at least two pairs.

    On logarithms if all values are above 0. If the code is the same, either run of a pair is the larger one equally
    often, so the differences are symmetric whatever the noise; the interval and `p` are Student's. The spread of very
    few ratios counts as at least 2 %, of instructions as 0.1 % (`sequential.py`).
    """
    old, new = np.asarray(base, dtype=np.float64), np.asarray(head, dtype=np.float64)
    is_ratio = bool((old > 0).all() and (new > 0).all())
    steps = np.log(new) - np.log(old) if is_ratio else new - old
    spread = max(float(steps.std(ddof=1)), least_spread(len(steps), unit=unit) if is_ratio else 0.0)
    return _students_change(
        float(steps.mean()),
        error=spread / math.sqrt(len(steps)),
        degrees=len(steps) - 1,
        size=_size(steps),
        is_ratio=is_ratio,
        sample=f"{len(steps)} runs a side in turns",
    )


@_within_floats
def change_of_seeds(base: Sequence[float], head: Sequence[float]) -> Change:
    """Return the mean change over at least two seeds that were trained on both sides, in the metric's unit."""
    old, new = np.asarray(base, dtype=np.float64), np.asarray(head, dtype=np.float64)
    steps = new - old
    error = float(steps.std(ddof=1)) / math.sqrt(len(steps))
    return _students_change(
        float(steps.mean()),
        error=error,
        degrees=len(steps) - 1,
        size=_size(old, new),
        is_ratio=False,
        sample=f"{len(old)} seeds",
    )


@_within_floats
def change_of_trainings(base: Sequence[float], head: Sequence[float]) -> Change:
    """Return the difference of the means of independent trainings, at least two a side, in the metric's unit."""
    old, new = np.asarray(base, dtype=np.float64), np.asarray(head, dtype=np.float64)
    error, degrees, _ = (float(each[0]) for each in welch(old[None], new[None]))
    how = f"{len(old)} and {len(new)} trainings"
    estimate = float(new.mean() - old.mean())
    return _students_change(estimate, error=error, degrees=degrees, size=_size(old, new), is_ratio=False, sample=how)


def _size(*values: Values) -> float:
    return max(float(np.abs(each).max()) for each in values)


def _students_change(
    estimate: float, *, error: float, degrees: float, size: float, is_ratio: bool, sample: str
) -> Change:
    """Return Student's interval and p; an error no larger than the rounding of values of this `size` counts as 0."""
    tiny = 2 * np.finfo(np.float64).eps * max(1.0, size)
    if error <= tiny:
        error, p = 0.0, float(abs(estimate) <= tiny)
    else:
        p = 2 * float(stdtr(degrees, -abs(estimate) / error))
    return Change(
        is_ratio=is_ratio,
        estimate=estimate,
        low=estimate,
        high=estimate,
        error=error,
        degrees=degrees,
        p=p,
        sample=sample,
    ).reaching(0.95)


def _noncentrality(degrees: float, alpha: float) -> float:
    """Return how many standard errors a change must have for Student's test at `alpha` to find it with 80 % power."""
    critical = float(stdtrit(degrees, 1 - alpha / 2))
    if degrees > MANY / 2:
        return critical + float(stdtrit(degrees, POWER))
    return float(nctdtrinc(degrees, 1 - POWER, critical))


def change_of_shares(base: Estimate, head: Estimate) -> Change:
    """Return the change between two percentages from their 95 % intervals, such as binomial intervals over videos."""
    error = math.hypot(base.high - base.low, head.high - head.low) / (2 * Z95)
    return _normal_change(head.value - base.value, error=error, sample="the intervals over videos")


def change_of_predictions(*, only_base: int, only_head: int, videos: int) -> Change:
    """Return the change in percentage points from the videos that only one side predicts right; p is McNemar's."""
    found = paired_shares(only_head, only_base, videos)
    low, high = 100 * found.low, 100 * found.high
    return Change(
        is_ratio=False,
        estimate=100 * found.value,
        low=low,
        high=high,
        error=(high - low) / (2 * Z95),
        degrees=MANY,
        p=mcnemar(only_base, only_head),
        sample=f"the same {videos} videos: {only_base} right in base only, {only_head} in head only",
        step=100 / videos,
    )


def _discordant_needed(alpha: float) -> float:
    """Return how many videos must be lost on average for McNemar's exact test at `alpha` to find it with 80 % power.

    If no video is won, the test needs the smallest number of losses whose p, 2 / 2^number, is below `alpha`.
    """
    fewest = math.floor(1 - math.log2(alpha)) + 1
    return float(gammaincinv(fewest, POWER))  # the mean of a Poisson count


def _normal_change(estimate: float, *, error: float, sample: str) -> Change:
    half = Z95 * error
    return Change(
        is_ratio=False,
        estimate=estimate,
        low=estimate - half,
        high=estimate + half,
        error=error,
        degrees=MANY,
        p=2 * float(ndtr(-abs(estimate) / error)) if error > 0 else float(estimate == 0),
        sample=sample,
    )


def welch(base: Values, head: Values) -> tuple[Values, Values, Values]:
    """Return standard error, degrees of freedom and two-sided p for each row of `(comparisons, runs)`. Welch, 1947.

    The degrees are capped at those of two sides with equal variance, because a few runs next to many too often seem to
    vary less. A row in which all runs of each side are equal has error 0 and p 0, or p 1 if the sides are equal.
    """
    n, m = base.shape[1], head.shape[1]
    old, new = base.var(axis=1, ddof=1) / n, head.var(axis=1, ddof=1) / m
    difference = head.mean(axis=1) - base.mean(axis=1)
    eps = np.finfo(np.float64).eps
    tiny = np.maximum(eps, eps * np.abs(base).max(axis=1) + eps * np.abs(head).max(axis=1))
    error = np.sqrt(old + new)
    is_still = error <= tiny
    total = np.where(is_still, 1.0, old + new)
    shares = (old / total) ** 2 / (n - 1) + (new / total) ** 2 / (m - 1)
    alike = (1 / n + 1 / m) ** 2 / (1 / (n * n * (n - 1)) + 1 / (m * m * (m - 1)))
    degrees = np.where(is_still, alike, np.minimum(alike, 1 / np.where(is_still, 1.0, shares)))
    t = np.abs(difference) / np.where(is_still, 1.0, error)
    p = np.where(is_still, (np.abs(difference) <= tiny).astype(np.float64), 2 * stdtr(degrees, -t))
    return np.where(is_still, 0.0, error), degrees, p


def bootstrap_interval(base: Values, head: Values, *, degrees: Values) -> tuple[Values, Values]:
    """Return the ends of the 95 % interval of median(head) - median(base) for each row of `(comparisons, runs)`."""
    new = np.sort(head, axis=1) @ _draws(head.shape[1], SEED + 1)
    old = np.sort(base, axis=1) @ _draws(base.shape[1], SEED)
    drawn = np.sort(new - old, axis=1)
    rank = np.floor(ndtr(stdtrit(degrees, 0.025)) * (DRAWS - 1)).astype(np.int64)
    rows = np.arange(len(drawn))
    return drawn[rows, rank], drawn[rows, DRAWS - 1 - rank]


@lru_cache(maxsize=64)
def _draws(n: int, seed: int) -> Values:
    """Return the bootstrap's draws of `n` runs, `(n, DRAWS)`: the weight of each ascending run in a draw's median.

    The seed is fixed, so that a comparison that is repeated gives the same verdict.
    """
    taken = np.sort(np.random.default_rng([seed, n]).integers(0, n, (DRAWS, n)), axis=1)
    weights = np.zeros((n, DRAWS))
    np.add.at(weights, (taken, np.arange(DRAWS)[:, None]), _median_weights(n))
    return weights


def _median_weights(n: int) -> Values:
    """Return the weights of `n` ascending values in the median of Harrell and Davis; Biometrika 69(3), 1982."""
    half = (n + 1) / 2
    weights: Values = np.diff(betainc(half, half, np.arange(n + 1) / n))
    return weights


def mann_whitney(base: Sequence[float], head: Sequence[float]) -> float:
    """Return the two-sided p of the Mann-Whitney rank test, valid for noise of any shape; 1 if all values are equal."""
    from scipy.stats import mannwhitneyu  # late: scipy.stats takes longer to import than the whole comparison

    if len({*base, *head}) == 1:
        return 1.0
    return float(mannwhitneyu(base, head, alternative="two-sided").pvalue)


def holm(p_values: Sequence[float]) -> list[float]:
    """Return each p corrected for the number of comparisons, in the given order. Holm, 1979."""
    adjusted = [1.0] * len(p_values)
    reached = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        reached = max(reached, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = reached
    return adjusted
