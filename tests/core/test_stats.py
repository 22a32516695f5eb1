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
