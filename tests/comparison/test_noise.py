"""What noise is: the canary explains a machine, alarms last, drifts are gradual, flaky series are known."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.comparison.noise import LASTING, alarms, find_drifts, flakiness, noise_of, normalise
from bench.comparison.steps import Step, find_steps


def noisy(levels: Sequence[float], *, noise: float = 0.01, seed: int = 0) -> list[float]:
    return list(np.asarray(levels) * np.exp(noise * np.random.default_rng(seed).standard_normal(len(levels))))


def found_alarms(values: Sequence[float], *, can_drift: bool = True) -> list[int]:
    steps = find_steps(values)
    kept = alarms(values, steps, can_drift=can_drift)
    return [step.index for step, is_alarm in zip(steps, kept, strict=True) if is_alarm]


def test_a_time_is_divided_by_the_canary_and_a_rate_multiplied() -> None:
    canaries = [{"matmul_ms": 2.0}, {"matmul_ms": 2.0}, {"matmul_ms": 4.0}]
    assert normalise([10.0, 10.0, 20.0], canaries, is_rate=False) == ([10.0, 10.0, 10.0], "matmul")
    assert normalise([10.0, 10.0, 5.0], canaries, is_rate=True) == ([10.0, 10.0, 10.0], "matmul")


def test_the_operation_that_follows_the_values_is_used() -> None:
    """The values follow the copy; the matrix product is steady."""
    canaries = [{"copy_ms": 1.0 + n % 2, "matmul_ms": 3.0} for n in range(10)]
    normal, name = normalise([10.0 * (1 + n % 2) for n in range(10)], canaries, is_rate=False)
    assert name == "copy"
    assert max(normal) == pytest.approx(min(normal))


def test_a_canary_that_only_adds_noise_is_not_used() -> None:
    rng = np.random.default_rng(0)
    values = noisy([10.0] * 50, noise=0.002)
    canaries = [{"matmul_ms": float(np.exp(0.1 * rng.standard_normal()))} for _ in values]
    assert normalise(values, canaries, is_rate=False) == (values, "")


def test_runs_without_a_canary_stay_as_they_are() -> None:
    assert normalise([10.0, 12.0], [None, {"matmul_ms": 2.0}], is_rate=False) == ([10.0, 12.0], "matmul")
    assert normalise([10.0, 12.0], [None, None], is_rate=False) == ([10.0, 12.0], "")


def test_the_noise_of_a_commit_does_not_count_steps() -> None:
    values = noisy([10.0] * 200 + [15.0] * 200, noise=0.02)
    assert noise_of(values) == pytest.approx(0.02, rel=0.2)


@pytest.mark.parametrize("seed", range(3))
def test_a_lasting_step_is_an_alarm(seed: int) -> None:
    [place] = found_alarms(noisy([10.0] * 40 + [10.6] * 20, seed=seed))
    assert place == pytest.approx(40, abs=1)


def test_a_step_is_an_alarm_once_it_has_lasted() -> None:
    """The step itself is shown before."""
    values = noisy([10.0] * 40 + [12.0] * LASTING)
    assert found_alarms(values) == [40]
    assert found_alarms(values[:-1]) == []
    assert [step.index for step in find_steps(values[:-1])] == [40]


def test_a_small_step_is_no_alarm_unless_the_metric_cannot_drift() -> None:
    values = noisy([10.0] * 40 + [10.1] * 40, noise=0.0005)
    assert found_alarms(values) == []
    assert found_alarms(values, can_drift=False) == [40]


def test_a_machine_that_is_slow_for_some_commits_gives_no_alarm() -> None:
    """Values like neighbours: each remembers nine tenths of the one before."""
    rng = np.random.default_rng(1)
    logs = np.zeros(200)
    for number in range(1, 200):
        logs[number] = 0.9 * logs[number - 1] + 0.02 * rng.standard_normal()
    values = list(10 * np.exp(logs))
    assert find_steps(values), "the search for steps assumes that commits are independent"
    assert found_alarms(values) == []


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([20, 60]))
def test_noise_alone_is_no_alarm(seed: int, count: int) -> None:
    assert found_alarms(noisy([10.0] * count, seed=seed)) == []


def test_a_gradual_change_is_a_drift_and_a_step_is_none() -> None:
    ramp = [10.0] * 40 + list(np.linspace(10, 12, 60)) + [12.0] * 40
    values = noisy(ramp)
    steps = find_steps(values)
    [drift] = find_drifts(values, steps)
    assert (drift.start, drift.end) == (pytest.approx(40, abs=10), pytest.approx(100, abs=10))
    assert drift.steps == range(len(steps))
    assert drift.after / drift.before == pytest.approx(1.2, abs=0.02)
    sudden = noisy([10.0] * 70 + [12.0] * 70)
    assert find_drifts(sudden, find_steps(sudden)) == []
    two = noisy([10.0] * 40 + [10.8] * 40 + [11.6] * 40)
    assert len(find_steps(two)) == 2
    assert find_drifts(two, find_steps(two)) == []


def steps_at(*levels: tuple[int, float, float]) -> list[Step]:
    return [Step(index=index, before=before, after=after, p=0.001) for index, before, after in levels]


def test_a_level_that_came_back_twice_is_flaky() -> None:
    once = steps_at((10, 10.0, 12.0), (20, 12.0, 10.0))
    assert flakiness(noisy([10.0] * 60), once) is None, "a regression and its repair"
    twice = [*once, *steps_at((30, 10.0, 12.0))]
    found = flakiness(noisy([10.0] * 60), twice)
    assert found is not None
    assert found.why == "its level came back 2 times in the last 60 commits"
    # The returns are at 20 and 30; once 20 is more than a hundred commits ago, one is left.
    assert found.until_commits == 61
    assert flakiness(noisy([10.0] * (60 + 60)), twice) is not None
    assert flakiness(noisy([10.0] * (60 + 61)), twice) is None


def test_steps_in_one_direction_are_not_flaky() -> None:
    assert flakiness(noisy([10.0] * 60), steps_at((10, 10.0, 11.0), (20, 11.0, 12.0), (30, 12.0, 13.0))) is None


def test_two_states_are_flaky_until_one_has_lasted() -> None:
    rng = np.random.default_rng(0)
    states = np.where(rng.random(60) < 0.4, 12.0, 10.0)
    found = flakiness(noisy(list(states)), [])
    assert found is not None
    assert found.why.startswith("it has two states, 2")
    assert "times in the last 60 commits" in found.why
    values = noisy(list(states))
    level = float(np.median([value for value in values if abs(value / values[-1] - 1) < 0.1]))
    assert flakiness([*values, *[level] * found.until_commits], []) is None
    assert flakiness([*values, *[level] * (found.until_commits - 1)], []) is not None


def test_one_step_and_plain_noise_are_not_two_states() -> None:
    assert flakiness(noisy([10.0] * 30 + [12.0] * 30), []) is None
    assert flakiness(noisy([10.0] * 60, noise=0.05), []) is None
