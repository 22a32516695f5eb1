"""Intervals and tests against scipy, by hand, and by their coverage."""

import math
import random

import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from bench.core.stats import (
    Z95,
    mcnemar,
    mean_interval,
    median,
    median_interval,
    paired_difference,
    paired_shares,
    quantile,
    seeds_and_videos,
    student_t95,
    wilson_interval,
)

NUMBERS = st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=40)


@given(NUMBERS, st.floats(0, 1))
def test_quantile_is_numpys(values: list[float], q: float) -> None:
    numpy = pytest.importorskip("numpy")
    assert quantile(values, q) == pytest.approx(float(numpy.quantile(values, q)), rel=1e-9, abs=1e-6)


def test_nothing_has_no_median() -> None:
    assert math.isnan(median([]))
    assert math.isnan(mean_interval([]).value)
    assert math.isnan(wilson_interval(0, 0).value)


def test_six_samples_are_the_fewest_with_a_median_interval() -> None:
    assert math.isnan(median_interval([1, 2, 3, 4, 5]).low)
    six = median_interval([6, 1, 5, 2, 4, 3])
    assert (six.value, six.low, six.high) == (3.5, 1, 6)


@pytest.mark.parametrize("n", [6, 7, 20, 101, 200, 201, 1000])
def test_median_interval_covers_at_least_95_percent(n: int) -> None:
    """By the binomial: the interval misses when too many samples fall on one side of the true median."""
    rank = int(median_interval(list(range(n))).low)
    assert 1 - 2 * scipy.stats.binom.cdf(rank, n, 0.5) >= 0.95
    narrower = 1 - 2 * scipy.stats.binom.cdf(rank + 2, n, 0.5)
    assert narrower < 0.955, "the interval is wider than it needs to be"


def test_median_interval_covers_in_simulation() -> None:
    draw = random.Random(0)
    hits = 0
    for _ in range(1000):
        estimate = median_interval([draw.expovariate(1) for _ in range(31)])
        hits += estimate.low <= math.log(2) <= estimate.high
    assert 940 <= hits <= 995


@given(st.integers(1, 500), st.floats(0, 1))
def test_wilson_is_scipys(n: int, share: float) -> None:
    k = round(n * share)
    theirs = scipy.stats.binomtest(k, n).proportion_ci(method="wilson")
    ours = wilson_interval(k, n)
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=1e-9)
    assert ours.low <= ours.value <= ours.high


def test_mean_interval_by_hand() -> None:
    """Two values 1 and 3: mean 2, standard error 1, t(1) = 12.706."""
    estimate = mean_interval([1, 3])
    assert (estimate.value, estimate.low, estimate.high) == pytest.approx((2, 2 - 12.7062, 2 + 12.7062), abs=1e-4)
    assert math.isnan(mean_interval([5]).low)


def test_paired_differences_cancel_shared_noise() -> None:
    difference = paired_difference([11, 22, 33.5], [10, 21, 32])
    assert difference.value == pytest.approx(3.5 / 3)
    assert not difference.covers_zero
    with pytest.raises(ValueError, match="zip"):
        paired_difference([1], [1, 2])


@given(st.integers(0, 60), st.integers(0, 60))
def test_mcnemar_is_the_exact_binomial_test(a: int, b: int) -> None:
    expected = scipy.stats.binomtest(a, a + b).pvalue if a + b else 1.0
    assert mcnemar(a, b) == pytest.approx(expected, abs=1e-12)


@given(st.integers(0, 60), st.integers(0, 60), st.integers(1, 60))
def test_swapping_paired_shares_negates_the_difference(won: int, lost: int, alike: int) -> None:
    found, turned = (paired_shares(*counts, won + lost + alike) for counts in ((won, lost), (lost, won)))
    assert found.value == -turned.value == pytest.approx((won - lost) / (won + lost + alike))
    assert found.low <= found.value <= found.high
    assert (found.low, found.high) == (pytest.approx(-turned.high), pytest.approx(-turned.low))


def test_equal_paired_shares_have_wilsons_distance_from_zero() -> None:
    """With no video won or lost of n, the score test refuses d where n d^2 > z^2 (1 - d) d: d = z^2 / (n + z^2)."""
    found = paired_shares(0, 0, 100)
    assert found.high == -found.low == pytest.approx(1.959963984540054**2 / (100 + 1.959963984540054**2))


@given(st.floats(0.2, 1e7))
def test_students_quantile_is_that_of_scipy(degrees: float) -> None:
    assert student_t95(degrees) == pytest.approx(float(scipy.stats.t.ppf(0.975, degrees)), rel=1e-9)


@pytest.mark.parametrize(("degrees", "printed"), [(1, 12.706), (2, 4.303), (10, 2.228), (30, 2.042), (120, 1.980)])
def test_students_quantile_is_that_of_printed_tables(degrees: int, printed: float) -> None:
    assert round(student_t95(degrees), 3) == printed
    assert student_t95(math.inf) == Z95


@given(st.lists(st.integers(0, 1), min_size=2, max_size=40))
def test_one_seed_has_nearly_wilsons_interval(hits: list[int]) -> None:
    """One draw of n videos: the variance p (1 - p) / (n - 1) needs n - 1 independent videos, and Student's t."""
    found, n = seeds_and_videos([hits]), len(hits)
    assert found.value == sum(hits) / n
    assert 0 <= found.low <= found.value <= found.high <= 1
    wilson = wilson_interval(sum(hits), n)
    if 0 < sum(hits) < n:
        assert found.high - found.low >= wilson.high - wilson.low
    else:
        assert (found.low, found.high) == pytest.approx((wilson.low, wilson.high))


def test_equal_seeds_add_nothing() -> None:
    row = [1, 0, 1, 1, 0, 1, 1, 1, 0, 1]
    one, three = seeds_and_videos([row]), seeds_and_videos([row, row, row])
    assert three.value == pytest.approx(one.value)
    assert (three.low, three.high) == pytest.approx((one.low, one.high), abs=0.01)


def test_seeds_that_differ_widen_the_interval() -> None:
    alike = seeds_and_videos([[1] * 50 + [0] * 50] * 3)
    apart = seeds_and_videos([[1] * n + [0] * (100 - n) for n in (20, 50, 80)])
    assert apart.value == pytest.approx(alike.value)
    assert apart.high - apart.low > 2 * (alike.high - alike.low)


def test_the_variance_of_seeds_and_videos_by_hand() -> None:
    """Seeds' means 3/4 and 1/4, videos' means 1, 1/2, 1/2, 0.

    Parts: seeds 1/8 / 2 = 1/16; videos (1/4 + 0 + 0 + 1/4) / 3 / 4 = 1/24; rest: all eight residuals are +-1/4, so that
    it is 8/16 over 3 degrees, over 8 values = 1/48. Sum 1/16 + 1/24 - 1/48 = 1/12.
    """
    rows = [[1, 1, 1, 0], [1, 0, 0, 0]]
    found = seeds_and_videos(rows)
    variance = 1 / 12
    degrees = variance**2 / ((1 / 16) ** 2 / 1 + (1 / 24) ** 2 / 3 + (1 / 48) ** 2 / 3)
    n = max(1, 0.25 / variance) * (Z95 / float(scipy.stats.t.ppf(0.975, degrees))) ** 2
    half = Z95 / (1 + Z95**2 / n) * math.sqrt(0.25 / n + Z95**2 / (4 * n * n))
    assert found.value == 0.5
    assert found.high - found.low == pytest.approx(2 * half, rel=1e-6)


def test_classes_count_equally_in_the_mean_of_classes() -> None:
    found = seeds_and_videos([[1, 1, 1, 1, 0, 0]], classes=[0, 0, 0, 0, 1, 1])
    assert found.value == 0.5
    assert seeds_and_videos([[1, 0, 1, 0]], classes=[0, 1, 2, 3]).value == 0.5


def test_the_interval_over_seeds_and_videos_covers_in_simulation() -> None:
    """Seeds move the share by 0.05 and videos differ in difficulty; about 95 in 100 intervals hold the true share."""
    draw = random.Random(1)
    held = 0
    for _ in range(300):
        videos = [draw.gauss(0, 0.15) for _ in range(60)]
        rows = []
        for _ in range(3):
            seed = draw.gauss(0, 0.05)
            rows.append([float(draw.random() < min(1, max(0, 0.6 + seed + video))) for video in videos])
        found = seeds_and_videos(rows)
        held += found.low <= 0.6 <= found.high
    assert 276 <= held <= 300
