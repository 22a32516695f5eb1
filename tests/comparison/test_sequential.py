"""The e-value of pairs: against numerical integrals, and how often a limit is ever passed."""

import importlib
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import integrate, stats

from bench.comparison.evidence import change_of_pairs
from bench.comparison.sequential import (
    EFFECT_VARIANCES,
    MAX_PAIRS,
    MIN_PAIRS,
    critical_t,
    least_spread,
    log_e_value,
    pairs_needed,
)

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.mark.parametrize("pairs", [2, 3, 4, 8, 40])
def test_the_mean_e_value_of_identical_code_is_one(pairs: int) -> None:
    """Integrated over the logarithm of t, because much of the mean comes from rare and very large t."""
    mean, _ = integrate.quad(
        lambda x: 2 * math.exp(log_e_value(math.exp(x), pairs) + stats.t.logpdf(math.exp(x), pairs - 1) + x),
        -20,
        25,
        limit=1000,
    )
    assert mean == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize(("pairs", "t"), [(3, 4.0), (6, 0.3), (6, 9.0), (20, 2.5)])
def test_the_e_value_is_a_likelihood_ratio_of_students_t(pairs: int, t: float) -> None:
    """Independent: the noncentral density of t, integrated over a normal effect, over the central one."""

    def likelihood(variance: float) -> float:
        spread = math.sqrt(variance)
        found, _ = integrate.quad(
            lambda effect: stats.nct.pdf(t, pairs - 1, effect * math.sqrt(pairs)) * stats.norm.pdf(effect, 0, spread),
            -6 * spread,
            6 * spread,
            limit=500,
            points=[t / math.sqrt(pairs)],
        )
        return float(found)

    mixture = sum(map(likelihood, EFFECT_VARIANCES)) / len(EFFECT_VARIANCES)
    assert math.exp(log_e_value(t, pairs)) == pytest.approx(mixture / stats.t.pdf(t, pairs - 1), rel=1e-3)


@given(st.integers(MIN_PAIRS, MAX_PAIRS), st.floats(100, 1e5))
def test_the_critical_t_is_where_the_e_value_reaches_its_threshold(pairs: int, threshold: float) -> None:
    critical = critical_t(pairs, threshold=threshold)
    if math.isfinite(critical):
        assert log_e_value(critical, pairs) == pytest.approx(math.log(threshold), abs=1e-6)
        assert log_e_value(-critical, pairs) == log_e_value(critical, pairs)
    else:
        assert log_e_value(1e9, pairs) < math.log(threshold)


def test_three_pairs_can_decide_one_metric_and_not_a_hundred() -> None:
    assert math.isfinite(critical_t(3, threshold=100))
    assert critical_t(3, threshold=10_000) == math.inf
    assert critical_t(4, threshold=10_000) < 100


def test_the_threshold_is_ever_passed_in_at_most_one_of_a_hundred_measurements_of_identical_code() -> None:
    """Gaussian pairs, analysed after every pair up to 64. Of 20,000, 1 % is 200; 240 has a chance of 0.3 %."""
    steps = np.random.default_rng(1).standard_normal((20_000, MAX_PAIRS))
    has_passed = np.zeros(len(steps), dtype=bool)
    for pairs in range(MIN_PAIRS, MAX_PAIRS + 1):
        taken = steps[:, :pairs]
        t = taken.mean(axis=1) / (taken.std(axis=1, ddof=1) / math.sqrt(pairs))
        has_passed |= np.abs(t) >= critical_t(pairs, threshold=100)
    assert 20 < has_passed.sum() < 240


def test_few_pairs_that_agree_by_chance_count_as_two_percent_apart() -> None:
    assert [least_spread(pairs) for pairs in (3, 5, 6)] == [0.02, 0.02, 0.0]


def test_few_pairs_of_instructions_count_as_a_thousandth_apart() -> None:
    """So that three pairs find an added layer of 2 %, which takes valgrind minutes; the same pairs of times do not."""
    assert [least_spread(pairs, unit="instructions") for pairs in (3, 5, 6)] == [0.001, 0.001, 0.0]
    base, head = [1e9, 1.0001e9, 1e9], [1.02e9, 1.0201e9, 1.0202e9]
    critical = critical_t(3, threshold=100)
    assert change_of_pairs(base, head, unit="instructions").within(critical).low > 0
    assert change_of_pairs(base, head, unit="ms").within(critical).low < 0
    assert pairs_needed(0.03, spread=0.0001, threshold=100, unit="instructions") == 3
    assert pairs_needed(0.03, spread=0.0001, threshold=100, unit="ms") == 6


def test_the_benchmark_simulates_the_test_that_the_gate_uses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    simulated = importlib.import_module("sequential").mixture
    steps = np.random.default_rng(3).normal(0.02, 0.03, 9)
    for pairs in (3, 6, 9):
        change = change_of_pairs(np.ones(pairs), np.exp(steps[:pairs])).within(critical_t(pairs, threshold=500))
        low, high = simulated(steps[None, :pairs], 5)
        assert (change.low, change.high) == pytest.approx((low[0], high[0]))


def test_the_pairs_needed_narrow_the_interval_and_one_fewer_does_not() -> None:
    needed = pairs_needed(0.03, spread=0.03, threshold=100)
    assert needed is not None

    def half(pairs: int) -> float:
        return critical_t(pairs, threshold=100) * 0.03 / math.sqrt(pairs)

    assert half(needed) <= 0.03 < half(needed - 1)
    assert pairs_needed(0.001, spread=0.3, threshold=100) is None
    assert pairs_needed(-0.01, spread=0.01, threshold=100) is None
