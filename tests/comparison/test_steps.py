"""Steps in series: planted ones are found where they are, noise has none."""

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.comparison.steps import (
    DRAWS,
    _differences,
    _first_parts,
    _largest_of_parts,
    _largest_of_segments,
    _p,
    _scores,
    _segments,
    commits_to_show,
    find_changes,
    find_steps,
)


def series(*parts: tuple[int, float], noise: float = 0.01, seed: int = 0) -> list[float]:
    """Parts of a length and a level each, with relative noise."""
    levels = np.concatenate([np.full(length, level) for length, level in parts])
    return list(levels * np.exp(noise * np.random.default_rng(seed).standard_normal(len(levels))))


@pytest.mark.parametrize("stretches_of", [_first_parts, _segments])
def test_differences_are_those_of_means_over_their_error(stretches_of: Callable[[int], Any]) -> None:
    """The error is that of a sample without replacement from scores of variance 1, but for (n - 1) / n."""
    scores = np.random.default_rng(1).standard_normal(11)
    scores -= scores.mean()
    starts, ends = stretches_of(11)
    for start, end, difference in zip(starts, ends, _differences(scores, (starts, ends)), strict=True):
        inside, outside = scores[start:end], np.delete(scores, np.s_[start:end])
        error = np.sqrt(1 / len(inside) + 1 / len(outside))
        assert difference == pytest.approx(abs(inside.mean() - outside.mean()) / error)


def test_segments_leave_two_values_on_every_side() -> None:
    assert {(int(a), int(b)) for a, b in zip(*_segments(7), strict=True)} == {(2, 4), (2, 5), (3, 5)}
    assert len(_segments(5)[0]) == 0
    assert len(_segments(2000)[0]) < 150 * 150 / 2


def test_a_wild_value_counts_as_six_usual_ones() -> None:
    scores = _scores(np.asarray([0.0, 1.0, -1.0, 1.0, -1.0, 1e9, 0.5]))
    assert scores.max() - np.median(scores) == pytest.approx(6.0, abs=0.5)
    assert scores.mean() == pytest.approx(0)
    assert np.isfinite(_scores(np.asarray([1.0, 1.0, 1.0, 2.0]))).all()


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("before", "after"), [(10, 10), (15, 5), (5, 15), (40, 8)])
def test_a_planted_step_is_found_at_its_position(before: int, after: int, seed: int) -> None:
    steps = find_steps(series((before, 10.0), (after, 10.5), seed=seed))
    big = [step for step in steps if step.after / step.before > 1.03]
    assert len(big) == 1
    assert abs(big[0].index - before) <= 1
    assert big[0].after / big[0].before == pytest.approx(1.05, abs=0.02)


def test_a_clean_step_is_found_exactly_and_with_ten_values() -> None:
    [step] = find_steps([1.0, 1.1, 1.05, 1.02, 1.07, 2.0, 2.1, 2.05, 2.02, 2.07])
    assert (step.index, step.before, step.after) == (5, 1.05, 2.05)
    assert step.p == pytest.approx(2 / 252, rel=0.5)
    assert find_steps([1.0, 1.1, 1.05, 1.02, 2.0, 2.1, 2.05, 2.02, 2.07]) == [], "nine cannot be sure at 1 %"


def test_several_steps_are_all_found() -> None:
    steps = find_steps(series((20, 10.0), (20, 11.0), (20, 10.0)))
    assert [step.index for step in steps] == pytest.approx([20, 40], abs=1)
    assert [step.after > step.before for step in steps] == [True, False]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    ("length", "start", "end", "factor", "noise"),
    [(100, 40, 60, 2.0, 0.005), (100, 40, 65, 1.1, 0.01), (60, 20, 36, 1.1, 0.005), (40, 20, 24, 1.1, 0.01)],
)
def test_a_level_that_comes_back_is_found_at_both_ends(
    length: int, start: int, end: int, factor: float, noise: float, seed: int
) -> None:
    """One step alone would explain little of it, and would be put where the noise has it."""
    parts = (start, 10.0), (end - start, 10.0 * factor), (length - end, 10.0)
    steps = [s.index for s in find_steps(series(*parts, noise=noise, seed=seed)) if abs(s.after / s.before - 1) > 0.03]
    assert steps == pytest.approx([start, end], abs=1)


@pytest.mark.parametrize(("count", "needed"), [(9, None), (12, 4), (15, 3), (20, 3), (23, 3), (30, 2), (60, 2)])
def test_a_clear_step_is_found_as_soon_as_enough_commits_have_it(count: int, needed: int | None) -> None:
    """Of all orders, two have the odd ones together at an end; near 1 % only chance tells on which side p is."""
    assert commits_to_show(count) == needed
    for length in range(2, count // 2 + 1):
        p = 2 / math.comb(count, length) / (0.6 if count >= 16 else 1)
        found = find_steps(series((count - length, 10.0), (length, 20.0), noise=0.002))
        is_there = any(step.index == count - length and step.after > 19 for step in found)
        assert is_there == (needed is not None and length >= needed) or 0.0075 < p < 0.012, length


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("stretches", "length", "between"), [(2, 5, 20), (3, 10, 10), (3, 20, 20)])
def test_levels_that_come_back_several_times_are_all_found(
    stretches: int, length: int, between: int, seed: int
) -> None:
    parts = [(between, 10.0), (length, 11.0)] * stretches
    found = [step.index for step in find_steps(series(*parts, (between, 10.0), noise=0.005, seed=seed))]
    places = [n * (between + length) + own for n in range(stretches) for own in (between, between + length)]
    assert found == pytest.approx(places, abs=1)


@pytest.mark.parametrize(("length", "start", "end"), [(301, 100, 160), (640, 303, 411)])
def test_steps_of_a_long_series_are_placed_exactly(length: int, start: int, end: int) -> None:
    """Stretches of it are sought between every few places only; their ends are placed in the end."""
    parts = (start, 10.0), (end - start, 11.0), (length - end, 10.0)
    assert [step.index for step in find_steps(series(*parts, noise=0.002))] == [start, end]


def test_one_outlying_commit_is_no_step() -> None:
    values = series((30, 10.0))
    values[17] = 30.0
    assert find_steps(values) == []


@pytest.mark.parametrize("length", [12, 30])
def test_noise_has_steps_in_one_of_a_hundred(length: int) -> None:
    """300 series: up to 9 have a chance of 0.4 % where the rate is 1 %."""
    rng = np.random.default_rng(length)
    found = sum(bool(find_steps(list(rng.standard_t(2, length)))) for _ in range(300))
    assert found <= 9


@pytest.mark.parametrize("length", [16, 60, 151, 400])
@pytest.mark.parametrize(
    ("stretches_of", "largest_of"), [(_first_parts, _largest_of_parts), (_segments, _largest_of_segments)]
)
def test_the_largest_difference_of_each_column_is_that_over_all_segments(
    length: int, stretches_of: Callable[[int], Any], largest_of: Callable[[Any], Any]
) -> None:
    draws = np.random.default_rng(length).standard_normal((length, 5))
    draws -= draws.mean(axis=0)
    expected = [_differences(column, stretches_of(length)).max() for column in draws.T]
    assert largest_of(draws) == pytest.approx(expected)


def test_orders_of_all_values_give_the_exact_p() -> None:
    scores = _scores(np.asarray([3.0, 1.0, 2.0, 9.0, 8.0, 6.5, 7.0]))
    every = np.asarray(list(itertools.permutations(scores)))
    for stretches, largest_of in ((_first_parts(7), _largest_of_parts), (_segments(7), _largest_of_segments)):
        observed = float(_differences(scores, stretches).max())
        exact = float(np.mean([_differences(each, stretches).max() >= observed - 1e-12 for each in every]))
        found = _p(scores, largest_of, observed)
        assert found == pytest.approx(exact, abs=4 * np.sqrt(exact * (1 - exact) / DRAWS) + 1e-3)


@settings(max_examples=30)
@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), max_size=18))
def test_any_series_is_cut_into_parts_in_order(values: list[float]) -> None:
    indices = [step.index for step in find_steps(values)]
    assert indices == sorted(set(indices))
    assert all(0 < index < len(values) for index in indices)


def test_every_change_of_a_count_is_a_step() -> None:
    assert [(s.index, s.before, s.after) for s in find_changes([7.0, 7.0, 8.0, 7.0])] == [(2, 7.0, 8.0), (3, 8.0, 7.0)]
    assert find_changes([]) == find_changes([1.0]) == []
