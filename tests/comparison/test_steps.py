"""Steps in series: planted ones are found where they are, noise has none."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from bench.comparison.steps import DRAWS, _distances, _ranks, find_changes, find_steps


def series(*parts: tuple[int, float], noise: float = 0.01, seed: int = 0) -> list[float]:
    """Parts of a length and a level each, with relative noise."""
    levels = np.concatenate([np.full(length, level) for length, level in parts])
    return list(levels * np.exp(noise * np.random.default_rng(seed).standard_normal(len(levels))))


def test_the_statistic_is_that_of_mann_and_whitney() -> None:
    values = np.random.default_rng(1).standard_normal(12)
    found = _distances(_ranks(values)[None])[0]
    for place, distance in zip(range(2, 11), found, strict=True):
        u = scipy_stats.mannwhitneyu(values[:place], values[place:]).statistic
        n, m = place, 12 - place
        assert distance == pytest.approx(abs(u - n * m / 2) / np.sqrt(n * m * 13 / 12))


@given(st.lists(st.integers(0, 5), min_size=1, max_size=20))
def test_ranks_are_those_of_scipy(values: list[int]) -> None:
    np.testing.assert_allclose(_ranks(np.asarray(values, dtype=float)), scipy_stats.rankdata(values))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("before", "after"), [(10, 10), (15, 5), (5, 15), (40, 8)])
def test_a_planted_step_is_found_where_it_is(before: int, after: int, seed: int) -> None:
    steps = find_steps(series((before, 10.0), (after, 10.5), seed=seed))
    big = [step for step in steps if step.after / step.before > 1.03]
    assert len(big) == 1
    assert abs(big[0].index - before) <= 1
    assert big[0].after / big[0].before == pytest.approx(1.05, abs=0.02)


def test_a_clean_step_is_found_exactly_and_with_ten_values() -> None:
    [step] = find_steps([1.0, 1.1, 1.05, 1.02, 1.07, 2.0, 2.1, 2.05, 2.02, 2.07])
    assert (step.index, step.before, step.after) == (5, 1.05, 2.05)
    assert 2 / 252 * 0.7 < step.p < 0.01
    assert find_steps([1.0, 1.1, 1.05, 1.02, 2.0, 2.1, 2.05, 2.02, 2.07]) == [], "nine cannot be sure at 1 %"


def test_several_steps_are_all_found() -> None:
    steps = find_steps(series((20, 10.0), (20, 11.0), (20, 10.0)))
    assert [step.index for step in steps] == pytest.approx([20, 40], abs=1)
    assert [step.after > step.before for step in steps] == [True, False]


def test_one_odd_commit_is_no_step() -> None:
    values = series((30, 10.0))
    values[17] = 30.0
    assert find_steps(values) == []


@pytest.mark.parametrize("length", [12, 30])
def test_noise_has_steps_in_one_of_a_hundred(length: int) -> None:
    """300 series: up to 9 have a chance of 0.4 % where the rate is 1 %."""
    rng = np.random.default_rng(length)
    found = sum(bool(find_steps(list(rng.standard_t(2, length)))) for _ in range(300))
    assert found <= 9


def test_orders_of_all_values_give_the_exact_p() -> None:
    values = [3.0, 1.0, 2.0, 9.0, 8.0, 7.0]
    ranks = _ranks(np.asarray(values))
    observed = _distances(ranks[None]).max()
    every = np.asarray(list(itertools.permutations(ranks)))
    exact = float((_distances(every).max(axis=1) >= observed - 1e-12).mean())
    [step] = find_steps(values, alpha=1.0)[:1] if exact < 1 else [None]
    assert step is not None
    steps = {s.index: s.p for s in find_steps(values, alpha=1.0)}
    assert steps[3] == pytest.approx(exact, abs=4 * np.sqrt(exact * (1 - exact) / DRAWS) + 1e-3)


@settings(max_examples=30)
@given(st.lists(st.floats(-1e6, 1e6), max_size=15))
def test_any_series_is_cut_into_parts_in_order(values: list[float]) -> None:
    indices = [step.index for step in find_steps(values)]
    assert indices == sorted(set(indices))
    assert all(0 < index < len(values) for index in indices)


def test_every_change_of_a_count_is_a_step() -> None:
    assert [(s.index, s.before, s.after) for s in find_changes([7.0, 7.0, 8.0, 7.0])] == [(2, 7.0, 8.0), (3, 8.0, 7.0)]
    assert find_changes([]) == find_changes([1.0]) == []
