"""What two sets of independent runs, or of judged videos, say of the change between them. Pure; docs/decisions/0006.

This module imports numpy, so the rest of the gate imports it only once there is something to compare.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, wraps
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import betainc, gammaincinv, nctdtrinc, ndtr, ndtri, stdtr, stdtrit

from bench.core.stats import Z95, Estimate, mcnemar, paired_shares

ALPHA = 0.01
WITNESS_ALPHA = 0.05
POWER = 0.8
DRAWS = 4000
SEED = 20260101
MANY = 1e9
LARGEST_SQUARED = 1e150
STRAY_OF_MEDIANS = math.sqrt(math.pi / 2)  # of many runs of Gaussian noise; of five 1.20

Values = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Change:
    """From base to head: `estimate` with its 95 % interval, its standard `error`, the `degrees` of freedom and `p`.

    On a ratio's scale these are natural logarithms of head / base, else differences in the metric's unit. An estimate
    that is no mean strays `stray` times as far as `error` says. `step` is what a single video is worth, where videos
    that only one side gets right are counted.
    """

    is_ratio: bool
    estimate: float
    low: float
    high: float
    error: float
    degrees: float
    p: float
    how: str
    stray: float = 1.0
    step: float = 0.0

    def reaching(self, confidence: float) -> "Change":
        """The same change with Student's interval of this confidence, of 1, in the place of its own."""
        half = self.error * float(stdtrit(self.degrees, (1 + confidence) / 2))
        return replace(self, low=self.estimate - half, high=self.estimate + half)

    def detectable(self, tolerance: float, *, alpha: float) -> float:
        """The smallest change that this comparison would have called one, 80 times in 100: noncentral t."""
        certain = self.error * _noncentrality(self.degrees, alpha)
        beyond = tolerance + self.stray * self.error * float(stdtrit(self.degrees, POWER))
        return max(certain, beyond, self.step * _discordant_needed(alpha))

    def growth_needed(self, room: float) -> float:
        """How many times as many runs would narrow the interval to `room` on either side."""
        half = max(self.high - self.estimate, self.estimate - self.low)
        times = half / room if room > 0 else math.inf
        return times * times


def _within_floats(change_of: Callable[..., Change]) -> Callable[..., Change]:
    """Of values whose squares no float holds, and which have no logarithms, anything may be the change.

    Numbers of that size, which no measurement gives but a file may hold, are then neither a fault of ours nor certain.
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
            how=f"{len(base)} and {len(head)} runs",
        )

    return checked


@_within_floats
def change_of_runs(base: Sequence[float], head: Sequence[float]) -> Change:
    """Change between independent runs, one value each, at least two a side. Ratio of medians where all are above 0.

    The interval is a bootstrap over runs of Harrell and Davis' smooth median, at the percentiles that Student's t asks
    of so few runs; `p` is Welch's. On logarithms, so that a ratio and its inverse are judged alike.
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
        how=f"{len(old)} and {len(new)} runs",
        stray=STRAY_OF_MEDIANS,
    )


@_within_floats
def change_of_sessions(base: Sequence[Sequence[float]], head: Sequence[Sequence[float]]) -> Change:
    """Change between sessions of a machine, at least three in all: of the means over sessions of their runs' medians.

    One session of head says nothing of how far sessions differ, so the spread is that of both sides together: Student's
    interval and p. On logarithms where all values are above 0.
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
        how=f"{len(old)} and {len(new)} sessions",
    )


def noise_floor(sessions: Sequence[Sequence[float]], *, runs: int, are_apart: bool) -> float:
    """The share by which medians of so many `runs` differ from each other, in 99 of 100 drawn from one side's values.

    Drawn with replacement, on logarithms: where two medians to be compared `are_apart`, each from one of the
    `sessions`, itself drawn before, else from what runs differ by within theirs. Widened by sqrt(n / (n - 1)) for n
    sessions or runs, since so few lie closer to their own middle than to the true one, and for sessions, of which there
    are few, by what Student's t is wider than a normal. All values must be above 0. Infinite where no float holds it.
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
    """Medians of so many `runs` of one session each, `(2, DRAWS)`."""
    rng, lengths = np.random.default_rng(SEED), np.array([len(session) for session in sessions])
    table = np.zeros((len(sessions), lengths.max()))
    for row, session in zip(table, sessions, strict=True):
        row[: len(session)] = session
    which = rng.integers(0, len(sessions), (2, DRAWS, 1))
    place = (rng.random((2, DRAWS, runs)) * lengths[which]).astype(np.int64)
    medians: Values = np.median(table[which, place], axis=2)
    return medians


@_within_floats
def change_of_pairs(base: Sequence[float], head: Sequence[float]) -> Change:
    """Change between runs that were neighbours in time, at least two pairs: the mean over pairs of head against base.

    On logarithms where all values are above 0. Where the code is the same, either of two neighbours is the larger one
    as often, so differences are symmetric whatever the noise; the interval and `p` are Student's.
    """
    old, new = np.asarray(base, dtype=np.float64), np.asarray(head, dtype=np.float64)
    is_ratio = bool((old > 0).all() and (new > 0).all())
    steps = np.log(new) - np.log(old) if is_ratio else new - old
    return _mean_change(steps, size=_size(steps), is_ratio=is_ratio, how=f"{len(steps)} runs a side in turns")


@_within_floats
def change_of_seeds(base: Sequence[float], head: Sequence[float]) -> Change:
    """Change in the metric's unit between trainings with the same seeds, at least two: the mean over seeds."""
    old, new = np.asarray(base, dtype=np.float64), np.asarray(head, dtype=np.float64)
    return _mean_change(new - old, size=_size(old, new), is_ratio=False, how=f"{len(old)} seeds")


@_within_floats
def change_of_trainings(base: Sequence[float], head: Sequence[float]) -> Change:
    """Change in the metric's unit between independent trainings, at least two a side: the difference of their means."""
    old, new = np.asarray(base, dtype=np.float64), np.asarray(head, dtype=np.float64)
    error, degrees, _ = (float(each[0]) for each in welch(old[None], new[None]))
    how = f"{len(old)} and {len(new)} trainings"
    estimate = float(new.mean() - old.mean())
    return _students_change(estimate, error=error, degrees=degrees, size=_size(old, new), is_ratio=False, how=how)


def _mean_change(steps: Values, *, size: float, is_ratio: bool, how: str) -> Change:
    """The mean of differences that are one pair's each, with Student's interval and p."""
    error = float(steps.std(ddof=1)) / math.sqrt(len(steps))
    return _students_change(
        float(steps.mean()), error=error, degrees=len(steps) - 1, size=size, is_ratio=is_ratio, how=how
    )


def _size(*values: Values) -> float:
    return max(float(np.abs(each).max()) for each in values)


def _students_change(estimate: float, *, error: float, degrees: float, size: float, is_ratio: bool, how: str) -> Change:
    """Student's interval and p; an error that is nothing but the rounding of values of this `size` is none."""
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
        how=how,
    ).reaching(0.95)


def _noncentrality(degrees: float, alpha: float) -> float:
    """By how many standard errors a change must differ from none for Student's test at `alpha` to see it."""
    critical = float(stdtrit(degrees, 1 - alpha / 2))
    if degrees > MANY / 2:
        return critical + float(stdtrit(degrees, POWER))
    return float(nctdtrinc(degrees, 1 - POWER, critical))


def change_of_shares(base: Estimate, head: Estimate) -> Change:
    """Change between two percentages that each state their 95 % interval, such as a binomial's over its videos."""
    error = math.hypot(base.high - base.low, head.high - head.low) / (2 * Z95)
    return _normal_change(head.value - base.value, error=error, how="the intervals over videos")


def change_of_answers(*, only_base: int, only_head: int, videos: int) -> Change:
    """Change in percentage points on the same videos, from those that only one side gets right; p is McNemar's."""
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
        how=f"the same {videos} videos: {only_base} right in base only, {only_head} in head only",
        step=100 / videos,
    )


def _discordant_needed(alpha: float) -> float:
    """How many videos must be lost on average so that McNemar's exact test at `alpha` sees it 80 times in 100.

    With none won, it sees no fewer than the smallest number whose p, 2 / 2^number, is below `alpha`.
    """
    fewest = math.floor(1 - math.log2(alpha)) + 1
    return float(gammaincinv(fewest, POWER))  # the mean of Poisson's counts


def _normal_change(estimate: float, *, error: float, how: str) -> Change:
    half = Z95 * error
    return Change(
        is_ratio=False,
        estimate=estimate,
        low=estimate - half,
        high=estimate + half,
        error=error,
        degrees=MANY,
        p=2 * float(ndtr(-abs(estimate) / error)) if error > 0 else float(estimate == 0),
        how=how,
    )


def welch(base: Values, head: Values) -> tuple[Values, Values, Values]:
    """Standard error, degrees of freedom and two-sided p, row by row of `(comparisons, runs)`. Welch, 1947.

    The degrees are no more than of sides that vary alike: a few runs beside many seem too often to vary less.
    Rows in which no run differs from its side have error 0 and p 0, or p 1 where the sides are equal.
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
    """Ends of the 95 % interval of median(head) - median(base), row by row of `(comparisons, runs)`."""
    new = np.sort(head, axis=1) @ _draws(head.shape[1], SEED + 1)
    old = np.sort(base, axis=1) @ _draws(base.shape[1], SEED)
    drawn = np.sort(new - old, axis=1)
    rank = np.floor(ndtr(stdtrit(degrees, 0.025)) * (DRAWS - 1)).astype(np.int64)
    rows = np.arange(len(drawn))
    return drawn[rows, rank], drawn[rows, DRAWS - 1 - rank]


@lru_cache(maxsize=64)
def _draws(n: int, seed: int) -> Values:
    """The bootstrap's draws of `n` runs, `(n, DRAWS)`: what each run, in ascending order, weighs in a draw's median.

    The same draws in every comparison, so that none is lucky.
    """
    taken = np.sort(np.random.default_rng([seed, n]).integers(0, n, (DRAWS, n)), axis=1)
    weights = np.zeros((n, DRAWS))
    np.add.at(weights, (taken, np.arange(DRAWS)[:, None]), _median_weights(n))
    return weights


def _median_weights(n: int) -> Values:
    """What each of `n` ascending values weighs in the smooth median of Harrell and Davis; Biometrika 69(3), 1982."""
    half = (n + 1) / 2
    weights: Values = np.diff(betainc(half, half, np.arange(n + 1) / n))
    return weights


def mann_whitney(base: Sequence[float], head: Sequence[float]) -> float:
    """Two-sided p of the rank test, which no shape of the noise can mislead; 1 where all values are equal."""
    from scipy.stats import mannwhitneyu

    if len({*base, *head}) == 1:
        return 1.0
    return float(mannwhitneyu(base, head, alternative="two-sided").pvalue)


def holm(p_values: Sequence[float]) -> list[float]:
    """Each p as it counts among so many comparisons, in the given order. Holm, 1979."""
    adjusted = [1.0] * len(p_values)
    reached = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        reached = max(reached, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = reached
    return adjusted
