"""A test on pairs of runs that may be repeated after every pair: a mixture e-value. docs/decisions/0022.

The e-value is the likelihood ratio of a changed and an unchanged head, given only Student's t of the pairs. With an
unchanged head its mean is 1 at any number of pairs, so by Ville's inequality it reaches 100 at any time in at most 1 of
100 measurements. Nothing has to be planned: measuring may stop at any time, and go on later.
"""

import math
from functools import lru_cache

MIN_PAIRS = 3
MAX_PAIRS = 64
# Variances of the assumed effect, in spreads of a pair: one for large changes on a quiet machine, one for changes about
# as large as the noise. benchmarks/sequential.md compares them.
EFFECT_VARIANCES = (400.0, 4.0)
# Three to five pairs can agree by chance, such as if processes are in one of two states. Their spread therefore counts
# as at least 2 %, more than what quiet processes of one model differ by.
FEW_PAIRS, LEAST_SPREAD = 5, 0.02
# Instruction counts have no such states: those of one model in two processes differ by 0.003 %.
LEAST_SPREADS = {"instructions": 0.001}


def least_spread(pairs: int, *, unit: str = "") -> float:
    """Return the least standard deviation of the logarithms of so many ratios; a smaller one is raised to it."""
    return LEAST_SPREADS.get(unit, LEAST_SPREAD) if pairs <= FEW_PAIRS else 0.0


def log_e_value(t: float, pairs: int) -> float:
    """Return the logarithm of the e-value against "no change" of Student's `t` of at least two pairs."""
    degrees, square = pairs - 1, min(t * t, 1e300)
    logs = [
        pairs / 2 * (math.log1p(square / degrees) - math.log1p(square / degrees / (1 + pairs * variance)))
        - math.log1p(pairs * variance) / 2
        for variance in EFFECT_VARIANCES
    ]
    largest = max(logs)
    return largest + math.log(sum(math.exp(each - largest) for each in logs) / len(logs))


@lru_cache(maxsize=4096)
def critical_t(pairs: int, *, threshold: float) -> float:
    """Return Student's t at which the e-value reaches `threshold`; infinity if so few pairs cannot reach it."""
    wanted, high = math.log(threshold), 1.0
    while log_e_value(high, pairs) < wanted:
        high *= 2
        if high > 1e12:
            return math.inf
    low = 0.0
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if log_e_value(middle, pairs) < wanted else (low, middle)
    return high


@lru_cache(maxsize=256)
def fewest_pairs(comparisons: int) -> int:
    """Return how many pairs can decide one of so many `comparisons` at 1 %: three, but four from seven comparisons on.

    The e-value of a few pairs is bounded, however large the change.
    """
    threshold = 100.0 * max(1, comparisons)
    return next(
        (n for n in range(MIN_PAIRS, MAX_PAIRS) if math.isfinite(critical_t(n, threshold=threshold))), MAX_PAIRS
    )


def pairs_needed(
    room: float, *, spread: float, threshold: float, at_least: int = MIN_PAIRS, unit: str = ""
) -> int | None:
    """Return the number of pairs that narrow the interval to `room` on either side; None if `MAX_PAIRS` do not.

    `spread` is the standard deviation of pairs, on the scale of `room`.
    """
    for pairs in range(at_least, MAX_PAIRS + 1):
        half = max(spread, least_spread(pairs, unit=unit)) / math.sqrt(pairs) * critical_t(pairs, threshold=threshold)
        if half <= room:
            return pairs
    return None
