"""Steps in a series: where its level changed, and how sure that is. Pure; docs/decisions/0008."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING

from bench.core.stats import median

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Places = NDArray[np.int64]
    Stretches = tuple[Places, Places]  # where each begins and ends

ALPHA = 0.01
SHORTEST = 2
DRAWS = 4999
SEED = 20260101
FARTHEST = 6.0
ENOUGH_FOR_STRETCHES = 16
FOR_ONE = 0.6  # what a search for one step may spend of alpha where stretches are sought too
DEARER = 3.0  # by so many log(n) must two steps explain more than one
MOST_PLACES = 150
BLOCK = 2**22


@dataclass(frozen=True, kw_only=True)
class Step:
    """The level is `before` up to `index`, and `after` from there to the next step; `p` is 0 for exact values."""

    index: int
    before: float
    after: float
    p: float


def find_steps(values: Sequence[float], *, alpha: float = ALPHA) -> list[Step]:
    """Steps of noisy values, in order: one after the other, or two at once where a level changes and comes back.

    What is sought is the largest difference of means, over its standard error, between the values up to a place and
    those after it, or between a stretch and all around it. Its p is that among random orders of the same values, so
    that having tried all places is in it. Values count by their distance from the median, up to six times the usual
    one, so that a few wild ones cannot outweigh the rest. The parts are searched again, at a smaller `alpha`; in the
    end every step stands where the values up to its neighbours are nearest to the medians of both sides.
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
    """How many of so many commits, the last ones, must have a clear new level to show a step; None where none can."""
    import numpy as np

    for length in range(SHORTEST, count // 2 + 1):
        scores = _scores((np.arange(count) >= count - length).astype(np.float64))
        parts = _first_parts(count)
        if _p(scores, parts, float(_differences(scores[None], parts).max())) / _for_one(count) < alpha:
            return length
    return None


def find_changes(values: Sequence[float]) -> list[Step]:
    """Steps of exact values: every change is one."""
    return [
        Step(index=index, before=old, after=new, p=0.0)
        for index, (old, new) in enumerate(pairwise(values), start=1)
        if old != new
    ]


def _search(values: Sequence[float], offset: int, alpha: float) -> list[tuple[int, float]]:
    """Steps of `values`, whose first has the index `offset`, each with its p."""
    cuts, p = _cuts(values, alpha)
    found = [(offset + cut, p) for cut in cuts]
    for start, end in pairwise([0, *cuts, len(values)]) if cuts else ():
        found += _search(values[start:end], offset + start, alpha * (end - start) / len(values))
    return sorted(found)


def _cuts(values: Sequence[float], alpha: float) -> tuple[tuple[int, ...], float]:
    """The likeliest place of a step, or the two ends of a stretch, and the p; no place where it is not below `alpha`.

    A stretch must leave so much less unexplained than one step does that it is worth a second place.
    """
    import numpy as np

    n = len(values)
    if n < 2 * SHORTEST or len(set(values)) == 1:
        return (), 1.0
    scores = _scores(np.asarray(values, dtype=np.float64))
    parts = _first_parts(n)
    of_parts = _differences(scores[None], parts)[0]
    if n >= ENOUGH_FOR_STRETCHES:
        whole = float(scores @ scores)
        stretches = _stretches(n)
        of_stretches = _differences(scores[None], stretches)[0]
        if n * math.log(_left(whole, of_parts) / _left(whole, of_stretches)) > DEARER * math.log(n):
            best = int(of_stretches.argmax())
            p = _p(scores, stretches, of_stretches[best]) / (1 - FOR_ONE)
            if p < alpha:
                return (int(stretches[0][best]), int(stretches[1][best])), p
    best = int(of_parts.argmax())
    p = _p(scores, parts, of_parts[best]) / _for_one(n)
    return ((int(parts[1][best]),), p) if p < alpha else ((), p)


def _for_one(n: int) -> float:
    """What a search for one step in so many values may spend of alpha."""
    return FOR_ONE if n >= ENOUGH_FOR_STRETCHES else 1.0


def _scores(values: "Floats") -> "Floats":
    """Distances from the median over the usual distance, at most so many times that, less their mean."""
    import numpy as np

    sizes = values / (np.abs(values).max() or 1.0)  # whose sums no value makes too large for a float
    apart = sizes - np.median(sizes)
    usual = np.median(np.abs(apart)) or np.abs(apart).mean()
    scores = np.clip(apart / usual, -FARTHEST, FARTHEST)
    centred: Floats = scores - scores.mean()
    return centred


def _first_parts(n: int) -> "Stretches":
    """All that begin with the first value and leave enough behind them."""
    import numpy as np

    ends = np.arange(SHORTEST, n - SHORTEST + 1)
    return np.zeros_like(ends), ends


def _stretches(n: int) -> "Stretches":
    """All that are long enough and leave enough on both sides; of a long series those between every few places."""
    import numpy as np

    places = np.arange(SHORTEST, n - SHORTEST + 1, math.ceil(n / MOST_PLACES))
    firsts, lasts = np.triu_indices(len(places), 1)
    is_long = places[lasts] - places[firsts] >= SHORTEST
    return places[firsts][is_long], places[lasts][is_long]


def _differences(scores: "Floats", stretches: "Stretches") -> "Floats":
    """`(rows, stretches)`: in each row of scores of mean 0, how far a stretch is from all else, over its error."""
    import numpy as np

    n = scores.shape[1]
    starts, ends = stretches
    sums = np.pad(np.cumsum(scores, axis=1), ((0, 0), (1, 0)))
    lengths = ends - starts
    found: Floats = np.abs(sums[:, ends] - sums[:, starts]) / np.sqrt(lengths * (n - lengths) / n)
    return found


def _left(whole: float, differences: "Floats") -> float:
    """The sum of squares that the likeliest of these leaves unexplained."""
    return max(whole - float(differences.max()) ** 2, 1e-12 * whole)


def _p(scores: "Floats", stretches: "Stretches", largest: float) -> float:
    """How often random orders of the same values have as large a difference somewhere."""
    orders = _orders(len(scores))
    rows = max(1, BLOCK // len(stretches[0]))
    blocks = (_differences(scores[orders[row : row + rows]], stretches) for row in range(0, DRAWS, rows))
    return (1 + sum(int((block.max(axis=1) >= largest * (1 - 1e-12)).sum()) for block in blocks)) / (1 + DRAWS)


def _placed(values: Sequence[float], ends: Sequence[int]) -> list[int]:
    """`ends` with those between the first and the last where their neighbours, once known, put them."""
    placed = list(ends)
    for number in [*range(1, len(ends) - 1)] * 2:
        start, end = placed[number - 1], placed[number + 1]
        placed[number] = start + _nearest(values[start:end])
    return placed


def _nearest(values: Sequence[float]) -> int:
    """The place whose two parts differ least from their medians, in sum."""
    places = range(SHORTEST, len(values) - SHORTEST + 1)
    return min(places, key=lambda place: _spread(values[:place]) + _spread(values[place:]))


def _spread(values: Sequence[float]) -> float:
    centre = median(values)
    return sum(abs(value - centre) for value in values)


@lru_cache(maxsize=64)
def _orders(n: int) -> "NDArray[np.int64]":
    """Random orders of `n` values, `(DRAWS, n)`; the same ones every time, so that none is lucky."""
    import numpy as np

    orders: NDArray[np.int64] = np.random.default_rng([SEED, n]).permuted(np.tile(np.arange(n), (DRAWS, 1)), axis=1)
    return orders
