"""Drift inside one timing, and the interval of a median whose samples depend on each other. numpy is imported late.

Timings are not independent draws: clocks, caches and other processes change slowly, so neighbours resemble each other.
`timing_interval` is wide enough for that, and `find_drift` tells a level that moved from such noise. The constants were
chosen by simulation; `benchmarks/interval_coverage.py` measures their error rates.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Literal

from bench.core.stats import Estimate, median_interval, student_t95

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

FEWEST_SAMPLES = 16  # below, neither correlation nor drift can be told from noise
LEAST_CHANGE = 0.025  # half of the change that the gate promises to find
MAX_CORRELATION = 0.9  # between neighbouring blocks; above, noise and drift are the same thing

# Interval: blocks long enough to hold most of the correlation, and enough of them to estimate what is left.
INTERVAL_BLOCKS = (20, 40)
SAMPLES_PER_BLOCK = 10
LEAST_VARIANCE = 0.65  # over that of independent samples; an estimate of few blocks may be too low by chance
LEAST_CORRELATION = -0.2

# Drift: many blocks, so that the noise inside a level is known well. The pattern that fits best takes some of the
# correlation away, which is given back. The more patterns of a kind are tried, the higher the best of them scores by
# chance, which is taken off.
DRIFT_BLOCKS = 64
CORRELATION_SCALE, CORRELATION_OFFSET = 1.2, 0.1
HANDICAPS = {"trend": -0.8, "step": 0.0, "shift": 0.6}
CRITICAL_SCORE, FEW_SAMPLES = 3.3, 16  # the critical score is higher by the share 16 / n

PARTS = 8  # the interval of a drifting timing spans the medians of so many consecutive parts

Pattern = Literal["trend", "step", "shift"]


@dataclass(frozen=True, kw_only=True)
class Drift:
    """A level that moved while it was sampled: `change` is relative, from sample `start` up to before `end`.

    A `trend` moves all the time, from the first sample to the last. A `step` keeps the level that it has from `start`
    on. A `shift` returns to the first level at `end`. `score` is the size of the pattern in standard errors, less what
    chance adds.
    """

    pattern: Pattern
    change: float
    start: int
    end: int
    score: float

    def __str__(self) -> str:
        where = {
            "trend": "from the first to the last sample",
            "step": f"from sample {self.start + 1} on",
            "shift": f"in samples {self.start + 1} to {self.end}",
        }
        return f"{self.change:+.1%} {where[self.pattern]}"


def timing_interval(samples: Sequence[float]) -> Estimate:
    """Median of samples in order of time, with a 95 % interval that holds if neighbours depend on each other.

    The ranks of the interval's ends are those of a binomial(n, 1/2) whose standard deviation is multiplied by the
    square root of the long-run variance of "at most the median", over that of independent samples. It is estimated by
    batch means (Meketon & Schmeiser, 1984) of 20 to 40 blocks, times (1 + r) / (1 - r) for the correlation r that is
    left between neighbouring blocks; the quantile is Student's, by the number of independent blocks.
    If the level drifts, the interval also spans the medians of eight consecutive parts.
    With fewer than 16 samples the interval is that of independent samples, `median_interval`.
    """
    import numpy as np

    if len(samples) < FEWEST_SAMPLES:
        return median_interval(samples)
    values = np.asarray(samples, dtype=np.float64)
    ordered = np.sort(values)
    ranks = _ranks(values, ordered)
    half = _half_width_in_ranks(ranks)
    places = np.array([-half, half]) + (len(values) - 1) / 2
    low, high = np.interp(places, np.arange(len(values)), ordered)
    if _drift_of(values, ranks) is not None:
        levels = [float(np.median(part)) for part in np.array_split(values, PARTS)]
        low, high = min(low, *levels), max(high, *levels)
    return Estimate(value=float(np.median(ordered)), low=float(low), high=float(high))


def find_drift(samples: Sequence[float]) -> Drift | None:
    """The drift of samples in order of time: a trend, a step, or a level that shifts and returns; None if steady.

    The ranks of the samples are averaged in at most 64 blocks, and each pattern is fitted to these. Its score is its
    size over the noise that is left, with allowance for the correlation of neighbouring blocks. The change must be at
    least 2.5 % of the level, and the score above a critical value that stationary noise exceeds in fewer than 5 of 100
    timings. Fewer than 16 samples, or samples that are not all positive, are never called drifting.
    """
    import numpy as np

    if len(samples) < FEWEST_SAMPLES:
        return None
    values = np.asarray(samples, dtype=np.float64)
    return _drift_of(values, _ranks(values, np.sort(values)))


def _drift_of(values: "Floats", ranks: "Floats") -> Drift | None:
    if values.min() <= 0:
        return None
    count = min(DRIFT_BLOCKS, len(values))
    edges = _edges(len(values), count)
    means = _block_means(ranks, edges)
    found = [_fit(family, means - means.mean(), values, edges) for family in _families(count)]
    critical = CRITICAL_SCORE * (1 + FEW_SAMPLES / len(values))
    drifts = [drift for drift in found if abs(drift.change) >= LEAST_CHANGE and drift.score > critical]
    return max(drifts, key=lambda drift: drift.score, default=None)


@dataclass(frozen=True, kw_only=True)
class _Family:
    """Patterns of one kind over the blocks: rows of `contrasts` have mean 0 and length 1; `spans` are their blocks."""

    pattern: Pattern
    contrasts: "Floats"
    spans: tuple[tuple[int, int], ...]


@lru_cache(maxsize=DRIFT_BLOCKS)
def _families(count: int) -> tuple[_Family, ...]:
    """The trend, every step at least an eighth from the ends, and every shift of at least a sixth of the blocks."""
    import numpy as np

    eighth, sixth, margin = (max(2, round(count / parts)) for parts in (8, 6, 12))
    steps = [(start, count) for start in range(eighth, count - eighth + 1)]
    shifts = [
        (start, end)
        for start in range(margin, count - margin)
        for end in range(start + sixth, min(count - margin, start + count - sixth) + 1)
    ]
    place = np.arange(count)
    rows: dict[Pattern, Floats] = {
        "trend": np.array([place * 1.0]),
        "step": np.array([(place >= start) * 1.0 for start, _ in steps]),
        "shift": np.array([((place >= start) & (place < end)) * 1.0 for start, end in shifts]),
    }
    spans: dict[Pattern, Sequence[tuple[int, int]]] = {"trend": [(0, count)], "step": steps, "shift": shifts}
    families = []
    for pattern, row in rows.items():
        if len(row):
            centred = row - row.mean(axis=1, keepdims=True)
            contrasts = centred / np.linalg.norm(centred, axis=1, keepdims=True)
            families.append(_Family(pattern=pattern, contrasts=contrasts, spans=tuple(spans[pattern])))
    return tuple(families)


def _fit(family: _Family, means: "Floats", values: "Floats", edges: "NDArray[np.intp]") -> Drift:
    """The pattern of `family` that fits best to `means`, the ranks of each block less their overall mean."""
    import numpy as np

    sizes = family.contrasts @ means
    best = int(np.argmax(np.abs(sizes)))
    rest = means - sizes[best] * family.contrasts[best]
    correlation = CORRELATION_OFFSET + CORRELATION_SCALE * _correlation(rest)
    correlation = min(MAX_CORRELATION, max(0.0, correlation))
    noise = math.sqrt(float(rest @ rest) / (len(means) - 2) * (1 + correlation) / (1 - correlation))
    score = abs(float(sizes[best])) / max(noise, 1e-9)  # no noise is left if a clock of coarse ticks steps cleanly
    start, end = (int(edges[block]) for block in family.spans[best])
    if family.pattern == "trend":
        middle = len(values) // 2
        change = 2 * (np.median(values[middle:]) / np.median(values[:middle]) - 1)
    else:
        change = np.median(values[start:end]) / np.median(np.concatenate([values[:start], values[end:]])) - 1
    score -= HANDICAPS[family.pattern]
    return Drift(pattern=family.pattern, change=float(change), start=start, end=end, score=score)


def _half_width_in_ranks(ranks: "Floats") -> float:
    """Half the width of the median's 95 % interval, counted in order statistics."""
    fewest, most = INTERVAL_BLOCKS
    n = len(ranks)
    count = min(n, max(fewest, min(most, n // SAMPLES_PER_BLOCK)))
    edges = _edges(n, count)
    is_low = (ranks <= 0.5) * 1.0
    means = _block_means(is_low - is_low.mean(), edges)
    sizes = edges[1:] - edges[:-1]
    variance = 4 / n * float(((means * sizes) ** 2).sum()) * count / (count - 1)
    found = _correlation(_block_means(ranks, edges))
    found += (1 + 3 * max(found, 0.0)) / count  # an estimate from few blocks is too low; Kendall, Biometrika 41, 1954
    correlation = min(MAX_CORRELATION, max(LEAST_CORRELATION, found))
    spread = (1 + correlation) / (1 - correlation)
    degrees = max(1.5, count / spread - 1)
    return student_t95(degrees) * math.sqrt(max(LEAST_VARIANCE, variance * spread) * n / 4)


def _edges(n: int, count: int) -> "NDArray[np.intp]":
    """Where `count` blocks of nearly equal size begin, and where the last one ends."""
    import numpy as np

    return np.linspace(0, n, count + 1).round().astype(np.intp)


def _block_means(values: "Floats", edges: "NDArray[np.intp]") -> "Floats":
    import numpy as np

    means: Floats = np.add.reduceat(values, edges[:-1]) / (edges[1:] - edges[:-1])
    return means


def _ranks(values: "Floats", ordered: "Floats") -> "Floats":
    """Ranks as shares of 1, so that the median has 0.5; equal values share their mean rank."""
    import numpy as np

    firsts, ends = np.searchsorted(ordered, values), np.searchsorted(ordered, values, side="right")
    ranks: Floats = (firsts + ends + 1) / (2 * (len(values) + 1))
    return ranks


def _correlation(values: "Floats") -> float:
    """Correlation of neighbours; 0 if nothing varies."""
    centred = values - values.mean()
    total = float(centred @ centred)
    return float(centred[1:] @ centred[:-1]) / total if total > 0 else 0.0
