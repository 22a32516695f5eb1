"""Finds steps in a series: where its level changed, with a p value. Pure functions; docs/decisions/0008."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from bench.core.stats import median

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Places = NDArray[np.int64]
    Segments = tuple[Places, Places]  # first and past-the-last index of each
    LargestOf = Callable[[Floats], Floats]

ALPHA = 0.01
MIN_LENGTH = 2
DRAWS = 4999
SEED = 20260101
MAX_SCORE = 6.0
MIN_FOR_SEGMENTS = 16
ALPHA_FOR_ONE = 0.6  # share of alpha for a single step if segments are searched too
PENALTY = 3.0  # two steps must explain this many log(n) more than one
MAX_PLACES = 150
BLOCK = 256  # permutations at a time: few enough for the cache, enough to give up early
# Longer series get few permutations and a Gumbel distribution of their largest differences: all of them would take a
# second and 200 MB for each of 5,000 commits.
MAX_FOR_ALL_DRAWS = 150
DRAWS_OF_LONG, FIRST_DRAWS = 256, 32
NEAR = 100  # commits around the found place of a step of a long series that are tried in detail


@dataclass(frozen=True, kw_only=True)
class Step:
    """The level is `before` up to `index`, and `after` from there to the next step; `p` is 0 for exact values."""

    index: int
    before: float
    after: float
    p: float


def find_steps(values: Sequence[float], *, alpha: float = ALPHA) -> list[Step]:
    """Return the steps of noisy values in order; a level that changes and comes back gives two steps at once.

    The statistic is the largest difference of means over its standard error, between the values before and after a
    place, or between a segment and everything around it. Its p is the share of random permutations of the values with
    a larger statistic, so trying all places is accounted for. Values count by their distance from the median, at most
    six times the usual distance, so that a few outliers cannot outweigh the rest. The parts are searched again at a
    smaller `alpha`. Finally each step is placed where the values up to its neighbours are nearest to the medians of
    both sides.
    """
    values = [float(value) for value in values]
    found = _search(values, 0, alpha)
    ends = _placed(values, [0, *(index for index, _ in found), len(values)])
    levels = [median(values[start:end]) for start, end in pairwise(ends)]
    return [
        Step(index=index, before=before, after=after, p=p)
        for (_, p), index, (before, after) in zip(found, ends[1:-1], pairwise(levels), strict=True)
    ]


def commits_to_show(count: int, *, alpha: float = ALPHA) -> int | None:
    """Return how many of the last of so many commits must have a clear new level to show a step; None if none can."""
    import numpy as np

    for length in range(MIN_LENGTH, count // 2 + 1):
        scores = _scores((np.arange(count) >= count - length).astype(np.float64))
        parts = _first_parts(count)
        if _p(scores, _largest_of_parts, float(_differences(scores, parts).max())) / _alpha_for_one(count) < alpha:
            return length
    return None


def find_changes(values: Sequence[float]) -> list[Step]:
    """Return the steps of exact values: every change is one."""
    return [
        Step(index=index, before=old, after=new, p=0.0)
        for index, (old, new) in enumerate(pairwise(values), start=1)
        if old != new
    ]


def _search(values: Sequence[float], offset: int, alpha: float) -> list[tuple[int, float]]:
    """Return the index and p of each step; the first of `values` has the index `offset`."""
    cuts, p = _cuts(values, alpha)
    found = [(offset + cut, p) for cut in cuts]
    for start, end in pairwise([0, *cuts, len(values)]) if cuts else ():
        found += _search(values[start:end], offset + start, alpha * (end - start) / len(values))
    return sorted(found)


def _cuts(values: Sequence[float], alpha: float) -> tuple[tuple[int, ...], float]:
    """Return the best place of one step or both ends of a segment, with its p; no place if p is not below `alpha`.

    A segment must explain so much more than one step that it justifies a second place.
    """
    import numpy as np

    n = len(values)
    if n < 2 * MIN_LENGTH or len(set(values)) == 1:
        return (), 1.0
    scores = _scores(np.asarray(values, dtype=np.float64))
    parts = _first_parts(n)
    of_parts = _differences(scores, parts)
    if n >= MIN_FOR_SEGMENTS:
        whole = float(scores @ scores)
        segments = _segments(n)
        of_segments = _differences(scores, segments)
        if n * math.log(_unexplained(whole, of_parts) / _unexplained(whole, of_segments)) > PENALTY * math.log(n):
            best = int(of_segments.argmax())
            p = _p(scores, _largest_of_segments, of_segments[best], alpha * (1 - ALPHA_FOR_ONE))
            p /= 1 - ALPHA_FOR_ONE
            if p < alpha:
                return (int(segments[0][best]), int(segments[1][best])), p
    best = int(of_parts.argmax())
    p = _p(scores, _largest_of_parts, of_parts[best], alpha * _alpha_for_one(n)) / _alpha_for_one(n)
    return ((int(parts[1][best]),), p) if p < alpha else ((), p)


def _alpha_for_one(n: int) -> float:
    """Return the share of alpha for the search for one step in so many values."""
    return ALPHA_FOR_ONE if n >= MIN_FOR_SEGMENTS else 1.0


def _scores(values: "Floats") -> "Floats":
    """Return the distances from the median over the usual distance, clipped, minus their mean."""
    import numpy as np

    sizes = values / (np.abs(values).max() or 1.0)  # so that sums of large values do not overflow
    apart = sizes - np.median(sizes)
    usual = np.median(np.abs(apart)) or np.abs(apart).mean()
    with np.errstate(over="ignore"):  # an infinite distance is clipped
        scores = np.clip(apart / usual, -MAX_SCORE, MAX_SCORE)
    centred: Floats = scores - scores.mean()
    return centred


def _first_parts(n: int) -> "Segments":
    """Return all segments that begin with the first value and leave enough values after them."""
    import numpy as np

    ends = np.arange(MIN_LENGTH, n - MIN_LENGTH + 1)
    return np.zeros_like(ends), ends


def _segments(n: int) -> "Segments":
    """Return all long enough segments with enough values on both sides; of a long series a grid of them."""
    import numpy as np

    places = np.arange(MIN_LENGTH, n - MIN_LENGTH + 1, _spacing(n))
    firsts, lasts = np.triu_indices(len(places), 1)
    is_long = places[lasts] - places[firsts] >= MIN_LENGTH
    return places[firsts][is_long], places[lasts][is_long]


def _spacing(n: int) -> int:
    """Return how far the places are apart between which segments of so many values are tried."""
    return math.ceil(n / MAX_PLACES)


def _differences(scores: "Floats", segments: "Segments") -> "Floats":
    """Return how far each segment is from the rest, over its error. Scores have mean 0."""
    import numpy as np

    starts, ends = segments
    sums = np.append(0.0, np.cumsum(scores))
    found: Floats = np.abs(sums[ends] - sums[starts]) / _errors(ends - starts, len(scores))
    return found


def _errors(lengths: Any, n: int) -> Any:
    """Return the standard error of the sum of so many of `n` scores."""
    return (lengths * (n - lengths) / n) ** 0.5


def _largest_of_parts(draws: "Floats") -> "Floats":
    """Return for each column the largest of its `_differences` over `_first_parts`."""
    import numpy as np

    lengths = np.arange(MIN_LENGTH, len(draws) - MIN_LENGTH + 1)
    sums = np.cumsum(draws, axis=0)[MIN_LENGTH - 1 : len(draws) - MIN_LENGTH]
    found: Floats = (np.abs(sums) / _errors(lengths, len(draws))[:, None]).max(axis=0)
    return found


def _largest_of_segments(draws: "Floats") -> "Floats":
    """Return for each column the largest of its `_differences` over `_segments`.

    Goes by length: all segments of one length are two slices, which is five times faster than to index each.
    """
    import numpy as np

    n, spacing = len(draws), _spacing(len(draws))
    sums = np.cumsum(draws, axis=0)[MIN_LENGTH - 1 : n - MIN_LENGTH : spacing]
    found, apart = np.zeros(draws.shape[1]), np.empty_like(sums)
    for step in range(math.ceil(MIN_LENGTH / spacing), len(sums)):
        of_length = np.subtract(sums[step:], sums[:-step], out=apart[step:])
        largest = np.abs(of_length, out=of_length).max(axis=0) / _errors(step * spacing, n)
        np.maximum(found, largest, out=found)
    return found


def _unexplained(whole: float, differences: "Floats") -> float:
    """Return the sum of squares that the best of these leaves unexplained."""
    return max(whole - float(differences.max()) ** 2, 1e-12 * whole)


def _p(scores: "Floats", largest_of: "LargestOf", largest: float, alpha: float = 1.0) -> float:
    """Return the share of random permutations with as large a difference anywhere; 1 as soon as it exceeds `alpha`."""
    if len(scores) > MAX_FOR_ALL_DRAWS:
        return _p_of_long(scores, largest_of, largest)
    orders = _orders(len(scores))
    larger = 1
    for start in range(0, DRAWS, BLOCK):
        maxima = largest_of(scores[orders[:, start : start + BLOCK]])
        larger += int((maxima >= largest * (1 - 1e-12)).sum())
        if larger > alpha * (1 + DRAWS):
            return 1.0
    return larger / (1 + DRAWS)


def _p_of_long(scores: "Floats", largest_of: "LargestOf", largest: float) -> float:
    """Return the probability of as large a difference by a Gumbel distribution with the moments of some permutations.

    Returns 1 after a few of them if one in four has a larger difference.
    """
    import numpy as np

    rng = np.random.default_rng([SEED, len(scores)])
    maxima = np.empty(0)
    while len(maxima) < DRAWS_OF_LONG:
        draws = rng.permuted(np.tile(scores, (FIRST_DRAWS, 1)), axis=1)
        maxima = np.append(maxima, largest_of(np.ascontiguousarray(draws.T)))
        if (maxima >= largest).mean() > 1 / 4:
            return 1.0
    scale = max(float(maxima.std()) * math.sqrt(6) / math.pi, 1e-12)
    place = float(maxima.mean()) - np.euler_gamma * scale
    p = -math.expm1(-math.exp(min(700.0, -(largest - place) / scale)))
    return max(p, 1 / (1 + DRAWS))


def _placed(values: Sequence[float], ends: Sequence[int]) -> list[int]:
    """Return `ends` with each inner one placed best between its neighbours."""
    placed = list(ends)
    for number in [*range(1, len(ends) - 1)] * 2:
        start, end = placed[number - 1], placed[number + 1]
        placed[number] = start + _nearest(values[start:end], placed[number] - start)
    return placed


def _nearest(values: Sequence[float], found: int) -> int:
    """Return the place whose two parts differ least from their medians, in sum; in a long series one near `found`."""
    first, last = MIN_LENGTH, len(values) - MIN_LENGTH
    if len(values) <= 2 * NEAR:
        return min(range(first, last + 1), key=lambda place: _spread(values[:place]) + _spread(values[place:]))
    import numpy as np

    many = np.asarray(values, dtype=np.float64)

    def spread(place: int) -> float:
        return sum(float(np.abs(part - np.median(part)).sum()) for part in (many[:place], many[place:]))

    return min(range(max(first, found - NEAR), min(last, found + NEAR) + 1), key=spread)


def _spread(values: Sequence[float]) -> float:
    centre = median(values)
    return sum(abs(value - centre) for value in values)


@lru_cache(maxsize=16)
def _orders(n: int) -> "NDArray[np.int64]":
    """Return random permutations of `n` values, `(n, DRAWS)`; the seed is fixed so that results can be repeated."""
    import numpy as np

    orders = np.random.default_rng([SEED, n]).permuted(np.tile(np.arange(n), (DRAWS, 1)), axis=1)
    return np.ascontiguousarray(orders.T)
