"""Intervals and tests for small samples. Pure functions; only McNemar's test needs scipy, which it imports late."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

Z95 = 1.959963984540054
BISECTIONS = 50
NEWTON_STEPS, FRACTION_TERMS, MANY_DEGREES = 200, 1000, 3000


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A value with the ends of its 95 % interval; both ends are nan if there are too few samples."""

    value: float
    low: float
    high: float

    @property
    def covers_zero(self) -> bool:
        return not (self.low > 0 or self.high < 0)


def quantile(samples: Sequence[float], q: float) -> float:
    """The `q` quantile (0..1) by linear interpolation between order statistics; nan for no samples."""
    if not samples:
        return math.nan
    ordered = sorted(samples)
    position = q * (len(ordered) - 1)
    below = math.floor(position)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (position - below) * (ordered[above] - ordered[below])


def median(samples: Sequence[float]) -> float:
    """The middle value; nan for no samples."""
    return quantile(samples, 0.5)


def median_interval(samples: Sequence[float]) -> Estimate:
    """Median with its distribution-free 95 % interval, from the order statistics of a binomial(n, 1/2).

    Source: Conover, Practical Nonparametric Statistics, section 3.2, with the normal approximation above 200 samples.
    With fewer than 6 samples no pair of order statistics reaches 95 %, so both ends are nan.
    """
    n = len(samples)
    rank = _interval_rank(n)
    if rank is None:
        return Estimate(value=median(samples), low=math.nan, high=math.nan)
    ordered = sorted(samples)
    return Estimate(value=median(ordered), low=ordered[rank], high=ordered[n - 1 - rank])


def _interval_rank(n: int) -> int | None:
    """Largest r with P(Binomial(n, 1/2) <= r) <= 0.025; order statistics r+1 … n-r then cover the median at 95 %."""
    if n > 200:
        return max(0, math.floor((n - Z95 * math.sqrt(n)) / 2) - 1)
    tail, rank = 0.0, None
    for r in range(n // 2):
        tail += math.comb(n, r) / 2**n
        if tail > 0.025:
            break
        rank = r
    return rank


def wilson_interval(successes: int, n: int) -> Estimate:
    """Share of successes with its 95 % score interval, as fractions of 1. Wilson, 1927, JASA 22(158)."""
    if n == 0:
        return Estimate(value=math.nan, low=math.nan, high=math.nan)
    return _wilson(successes / n, n)


def _wilson(share: float, n: float) -> Estimate:
    z2 = Z95 * Z95
    centre = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = Z95 / (1 + z2 / n) * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n))
    return Estimate(value=share, low=max(0.0, min(share, centre - half)), high=min(1.0, max(share, centre + half)))


def seeds_and_videos(hits: Sequence[Sequence[float]], classes: Sequence[int] | None = None) -> Estimate:
    """Share of hits with its 95 % interval over other seeds and other videos; fractions of 1.

    `hits` has a row per seed with 0 or 1 for every video, the videos in one order. With the `classes` of the videos it
    is the mean over the classes of the share in each, whose videos are then drawn within their class.

    Seeds and videos are crossed random effects: the variance is that of the seeds' means plus that of the videos'
    means less the rest that both contain, with Satterthwaite's degrees of freedom (Biometrics Bulletin 2, 1946). The
    interval is Wilson's for the number of videos that independent draws would need for this variance (Korn and
    Graubard, Survey Methodology 24, 1998), so that it stays within 0 and 1. With one seed, the seeds' part is left out.
    """
    seeds, videos = len(hits), len(hits[0]) if hits else 0
    if not videos:
        return Estimate(value=math.nan, low=math.nan, high=math.nan)
    strata: dict[int, list[int]] = {}
    for place, label in enumerate(classes or [0] * videos):
        strata.setdefault(label, []).append(place)
    of_seeds = [_mean([_mean([row[place] for place in own]) for own in strata.values()]) for row in hits]
    share = _mean(of_seeds)
    seed_part = _variance(of_seeds) / seeds if seeds > 1 else 0.0
    video_part = rest_part = squares = 0.0
    if seeds > 1:
        squares += seed_part**2 / (seeds - 1)
    for own in (own for own in strata.values() if len(own) > 1):
        n, weight = len(own), 1 / len(strata) ** 2
        of_videos = [_mean([row[place] for row in hits]) for place in own]
        part = weight * _variance(of_videos) / n
        video_part, squares = video_part + part, squares + part**2 / (n - 1)
        if seeds > 1:
            part = weight * _residual_variance([[row[place] for place in own] for row in hits]) / (seeds * n)
            rest_part, squares = rest_part + part, squares + part**2 / ((seeds - 1) * (n - 1))
    # Never below the videos' part alone: by chance, the seeds' part may come out smaller than the rest.
    variance, spread = max(video_part, seed_part + video_part - rest_part), share * (1 - share)
    if variance <= 0 or spread <= 0:
        return _wilson(share, videos)
    t = student_t95(max(1.0, variance**2 / squares))
    return _wilson(share, max(1.0, min(spread / variance, seeds * videos)) * (Z95 / t) ** 2)


def _residual_variance(rows: Sequence[Sequence[float]]) -> float:
    """What is left of the variance of a table after the means of its rows and columns."""
    of_rows, of_columns = [_mean(row) for row in rows], [_mean(column) for column in zip(*rows, strict=True)]
    centre = _mean(of_rows)
    squares = (
        (x - r - c + centre) ** 2
        for row, r in zip(rows, of_rows, strict=True)
        for x, c in zip(row, of_columns, strict=True)
    )
    return math.fsum(squares) / ((len(of_rows) - 1) * (len(of_columns) - 1))


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def _variance(values: Sequence[float]) -> float:
    centre = _mean(values)
    return math.fsum((value - centre) ** 2 for value in values) / (len(values) - 1)


def mean_interval(values: Sequence[float]) -> Estimate:
    """Mean with Student's 95 % interval; the ends are nan for fewer than two values."""
    n = len(values)
    if n == 0:
        return Estimate(value=math.nan, low=math.nan, high=math.nan)
    mean = math.fsum(values) / n
    if n == 1:
        return Estimate(value=mean, low=math.nan, high=math.nan)
    spread = math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (n - 1))
    half = student_t95(n - 1) * spread / math.sqrt(n)
    return Estimate(value=mean, low=mean - half, high=mean + half)


def paired_difference(a: Sequence[float], b: Sequence[float]) -> Estimate:
    """Mean of `a - b`, pair by pair, with Student's 95 % interval."""
    return mean_interval([x - y for x, y in zip(a, b, strict=True)])


def paired_shares(won: int, lost: int, n: int) -> Estimate:
    """Difference of two shares of the same `n`, `won` in the first only and `lost` in the second only; fractions of 1.

    The interval contains the differences that a score test does not reject at 5 %. Tango, Statistics in Medicine 17,
    1998. Each difference is tested with its own variance, so that few discordant videos do not look like little noise.
    """

    def is_rejected(difference: float) -> bool:
        b = (2 * n - won + lost) * difference - won - lost
        c = -lost * difference * (1 - difference)
        likeliest_lost = (math.sqrt(max(0.0, b * b - 8 * n * c)) - b) / (4 * n)
        variance = n * (2 * likeliest_lost + difference * (1 - difference))
        return (won - lost - n * difference) ** 2 > Z95**2 * variance

    def end(outer: float) -> float:
        inner = (won - lost) / n
        for _ in range(BISECTIONS):
            middle = (inner + outer) / 2
            inner, outer = (inner, middle) if is_rejected(middle) else (middle, outer)
        return inner

    return Estimate(value=(won - lost) / n, low=end(-1.0), high=end(1.0))


@lru_cache(1024)
def student_t95(degrees: float) -> float:
    """Two-sided 95 % quantile of Student's t.

    Newton's method from the normal quantile, to the right of which the tail falls convexly; for many degrees the
    expansion around it (Abramowitz and Stegun, 26.7.5). Not by scipy: every timing needs this, also on machines with
    little but torch.
    """
    if degrees > MANY_DEGREES:
        z = Z95
        return z + (z**3 + z) / (4 * degrees) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * degrees**2)
    t, scale = Z95, math.lgamma((degrees + 1) / 2) - math.lgamma(degrees / 2) - math.log(degrees * math.pi) / 2
    for _ in range(NEWTON_STEPS):
        density = math.exp(scale - (degrees + 1) / 2 * math.log1p(t * t / degrees))
        step = (_student_tail(t, degrees) - 0.05) / (2 * density)
        t += step
        if abs(step) < 1e-13 * t:
            break
    return t


def _student_tail(t: float, degrees: float) -> float:
    """The probability that Student's t is beyond `t` on either side: a regularised incomplete beta function."""
    x, a, b = degrees / (degrees + t * t), degrees / 2, 0.5
    front = math.exp(
        math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log(t * t / (degrees + t * t))
    )
    if x < (a + 1) / (a + b + 2):
        return front * _beta_fraction(x, a, b) / a
    return 1 - front * _beta_fraction(1 - x, b, a) / b


def _beta_fraction(x: float, a: float, b: float) -> float:
    """The continued fraction of the incomplete beta function, by Lentz's method (DLMF 8.17.22)."""
    c, d = 1.0, 1 / (1 - (a + b) * x / (a + 1))
    value = d
    for m in range(1, FRACTION_TERMS):
        for coefficient in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            d, c = 1 / (1 + coefficient * d), 1 + coefficient / c
            value *= d * c
        if abs(d * c - 1) < 1e-15:
            break
    return value


def holm(p_values: Sequence[float]) -> list[float]:
    """The p values corrected for their number, in their order: any of them below 5 % is a false alarm once in twenty.

    Holm, 1979, Scandinavian Journal of Statistics 6(2).
    """
    order = sorted(range(len(p_values)), key=lambda place: p_values[place])
    corrected, least = [0.0] * len(p_values), 0.0
    for number, place in enumerate(order):
        least = max(least, min(1.0, (len(p_values) - number) * p_values[place]))
        corrected[place] = least
    return corrected


def mcnemar(only_a: int, only_b: int) -> float:
    """Exact two-sided p that two models differ, from the videos that only one of them gets right.

    McNemar, 1947; the exact form is a binomial test of `only_a` out of `only_a + only_b` at one half.
    """
    from scipy.special import bdtr

    n = only_a + only_b
    if n == 0:
        return 1.0
    return min(1.0, 2 * float(bdtr(min(only_a, only_b), n, 0.5)))
