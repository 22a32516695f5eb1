"""Steps in a series: where its level changed, and how sure that is. Pure; docs/decisions/0008."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING

from bench.stats import median

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

ALPHA = 0.01
SHORTEST = 2
DRAWS = 4999
SEED = 20260101


@dataclass(frozen=True, kw_only=True)
class Step:
    """The level is `before` up to `index`, and `after` from there to the next step; `p` is 0 for exact values."""

    index: int
    before: float
    after: float
    p: float


def find_steps(values: Sequence[float], *, alpha: float = ALPHA) -> list[Step]:
    """Steps of noisy values, in order: binary segmentation, each split by a rank test of the likeliest place.

    The statistic is the largest of the Mann-Whitney statistics of all places that leave two values on either side, and
    its p is that among random orders of the same values, so that having tried all places is in it. Where there is a
    step, it stands where the values are nearest to the medians of both parts. Both are searched at half the `alpha`.
    Ten values can show one step at 1 %, fewer cannot.
    """
    values = [float(value) for value in values]
    found = _search(values, 0, alpha)
    ends = [0, *(index for index, _ in found), len(values)]
    levels = [median(values[start:end]) for start, end in pairwise(ends)]
    return [
        Step(index=index, before=levels[number], after=levels[number + 1], p=p)
        for number, (index, p) in enumerate(found)
    ]


def find_changes(values: Sequence[float]) -> list[Step]:
    """Steps of exact values: every change is one."""
    return [
        Step(index=index, before=old, after=new, p=0.0)
        for index, (old, new) in enumerate(pairwise(values), start=1)
        if old != new
    ]


def _search(values: Sequence[float], offset: int, alpha: float) -> list[tuple[int, float]]:
    split = _split(values)
    if split is None or split[1] >= alpha:
        return []
    place, p = split
    before = _search(values[:place], offset, alpha / 2)
    after = _search(values[place:], offset + place, alpha / 2)
    return [*before, (offset + place, p), *after]


def _nearest(values: Sequence[float]) -> int:
    """The place whose two parts differ least from their medians, in sum; ranks alone lean towards the ends."""
    places = range(SHORTEST, len(values) - SHORTEST + 1)
    return min(places, key=lambda place: _spread(values[:place]) + _spread(values[place:]))


def _spread(values: Sequence[float]) -> float:
    centre = median(values)
    return sum(abs(value - centre) for value in values)


def _split(values: Sequence[float]) -> tuple[int, float] | None:
    """The likeliest place of a step and its p; None where there are too few values, or all are equal."""
    import numpy as np

    n = len(values)
    if n < 2 * SHORTEST or len(set(values)) == 1:
        return None
    ranks = _ranks(np.asarray(values, dtype=np.float64))
    observed = _distances(ranks[None])[0]
    drawn = _distances(ranks[_orders(n)]).max(axis=1)
    largest = observed.max()
    p = (1 + int((drawn >= largest * (1 - 1e-12)).sum())) / (1 + DRAWS)
    return _nearest(values), p


def _distances(ranks: "NDArray[np.float64]") -> "NDArray[np.float64]":
    """For each row and each place, how far the mean rank before it is from the middle, over its standard error."""
    import numpy as np

    n = ranks.shape[1]
    counts = np.arange(SHORTEST, n - SHORTEST + 1)
    sums = np.cumsum(ranks, axis=1)[:, counts - 1]
    found: NDArray[np.float64] = np.abs(sums - counts * (n + 1) / 2) / np.sqrt(counts * (n - counts) * (n + 1) / 12)
    return found


def _ranks(values: "NDArray[np.float64]") -> "NDArray[np.float64]":
    """1 for the smallest; equal values share the mean of their ranks."""
    import numpy as np

    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks: NDArray[np.float64] = (np.cumsum(counts) - (counts - 1) / 2)[places]
    return ranks


@lru_cache(maxsize=64)
def _orders(n: int) -> "NDArray[np.int64]":
    """Random orders of `n` values, `(DRAWS, n)`; the same ones every time, so that none is lucky."""
    import numpy as np

    orders: NDArray[np.int64] = np.random.default_rng([SEED, n]).permuted(np.tile(np.arange(n), (DRAWS, 1)), axis=1)
    return orders
