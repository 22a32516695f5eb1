"""Finds a batch: the largest that fits, and the one of highest throughput. Pure: asks functions that are given."""

from collections.abc import Callable
from dataclasses import dataclass

LARGEST = 1 << 16
# More of a batch that gains less than this has reached what the device can give.
GAIN = 0.02


@dataclass(frozen=True, kw_only=True)
class Best:
    """The batch of highest rate, with the rate of every batch tried in clips/s, None where it did not fit."""

    batch: int
    rates: dict[int, float | None]


def largest_that_fits(fits: Callable[[int], bool], *, limit: int = LARGEST) -> int:
    """The largest batch up to `limit` for which `fits`, 0 where not even 1 does.

    Doubles until one does not fit, then halves the gap. What fits is taken to fit at every smaller batch too.
    """
    if not fits(1):
        return 0
    good, bad = 1, limit + 1
    while good < limit:
        batch = min(2 * good, limit)
        if not fits(batch):
            bad = batch
            break
        good = batch
    while bad - good > 1:
        middle = (good + bad) // 2
        if fits(middle):
            good = middle
        else:
            bad = middle
    return good


def best_batch(rate: Callable[[int], float | None], *, limit: int = LARGEST) -> Best | None:
    """The batch of highest `rate` (clips/s; None where it does not fit), doubling from 1; None where 1 does not fit.

    Ends at the first batch that does not fit, or when two doublings in a row gain less than 2 % over the best before.
    """
    rates: dict[int, float | None] = {}
    best, without_gain, batch = 0, 0, 1
    while batch <= limit and without_gain < 2:
        found = rates[batch] = rate(batch)
        if found is None:
            break
        before = rates.get(best)
        without_gain = 0 if before is None or found > (1 + GAIN) * before else without_gain + 1
        if before is None or found > before:
            best = batch
        batch *= 2
    return Best(batch=best, rates=rates) if best else None
