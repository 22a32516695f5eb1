"""Warm-up and stop rule on simulated clocks: steady, warming up, drifting, bimodal, spiky, on several ranks."""

import random
from collections.abc import Callable, Iterator
from itertools import count

import pytest
import torch

from bench.measure.timing.sampling import (
    Sample,
    SamplingRule,
    take_samples,
    take_samples_on_ranks,
    windows_agree,
)
from bench.train.ranks import Ranks


class Machine:
    """A machine whose step `n` takes `seconds(n)`; its clock moves by exactly that."""

    def __init__(self, seconds: Callable[[int], float]) -> None:
        self._seconds, self._steps, self.now_s = seconds, count(), 0.0

    def step(self) -> Sample:
        taken = self._seconds(next(self._steps))
        self.now_s += taken
        return Sample(wall_s=taken)

    def wait(self, seconds: float) -> None:
        self.now_s += seconds

    def clock_s(self) -> float:
        return self.now_s


def noisy(base_s: float, *, spread: float, seed: int = 0) -> Iterator[float]:
    draw = random.Random(seed)
    while True:
        yield base_s * (1 + spread * draw.random())


def test_a_steady_machine_is_measured_precisely() -> None:
    times = noisy(0.01, spread=0.01)
    machine = Machine(lambda n: next(times))
    timing = take_samples(machine.step, SamplingRule(), clock_s=machine.clock_s)
    assert timing.is_steady
    assert timing.stopped_because == "precise"
    assert len(timing.samples_s) >= 30
    assert sum(timing.samples_s) >= 3.0 - 0.1


def test_warm_up_is_left_out() -> None:
    """The first 15 steps are 10 times slower, as when kernels are chosen and caches fill."""
    times = noisy(0.01, spread=0.01)
    machine = Machine(lambda n: next(times) * (10 if n < 15 else 1))
    timing = take_samples(machine.step, SamplingRule(), clock_s=machine.clock_s)
    assert timing.warmup_samples >= 30
    assert max(timing.samples_s) < 0.011


def test_a_drifting_machine_is_marked_unsteady_and_still_sampled() -> None:
    machine = Machine(lambda n: 0.01 * 1.15 ** (n / 10))
    timing = take_samples(machine.step, SamplingRule(warmup_s=2, max_s=5), clock_s=machine.clock_s)
    assert not timing.is_steady
    assert timing.stopped_because == "unsteady"
    assert timing.samples_s


def test_time_is_up_on_a_bimodal_machine() -> None:
    machine = Machine(lambda n: 0.1 if n % 2 else 0.2)
    timing = take_samples(machine.step, SamplingRule(max_s=10), clock_s=machine.clock_s)
    assert timing.stopped_because == "time is up"
    assert sum(timing.samples_s) == pytest.approx(10, abs=0.4)


def test_noise_that_no_longer_shrinks_is_a_plateau() -> None:
    """A random walk: more samples do not tell where it will be."""
    draw, level = random.Random(1), [0.01]

    def wander(n: int) -> float:
        level[0] = max(0.005, level[0] + draw.choice((-1, 1)) * 2e-5)
        return level[0]

    machine = Machine(wander)
    timing = take_samples(machine.step, SamplingRule(max_s=1e6, precision=1e-9), clock_s=machine.clock_s)
    assert timing.stopped_because in ("plateau", "unsteady")


def test_spikes_do_not_move_the_median() -> None:
    times = noisy(0.01, spread=0.01)
    machine = Machine(lambda n: next(times) * (50 if n % 40 == 39 else 1))
    timing = take_samples(machine.step, SamplingRule(), clock_s=machine.clock_s)
    assert sorted(timing.samples_s)[len(timing.samples_s) // 2] == pytest.approx(0.01005, rel=0.01)


@pytest.mark.parametrize(
    ("after", "expected"),
    [
        ([1.0] * 10, True),
        ([9.0] + [1.0] * 9, False),
        ([1.2] * 10, False),
        ([0.85] * 10, False),
        ([1.0, 1.02] * 5, True),
        ([0.7, 1.3] * 5, False),
    ],
    ids=["the same", "first is an outlier", "slower", "mean faster by more than 10 %", "little noise", "wider"],
)
def test_two_windows_agree_if_all_four_rules_hold(after: list[float], expected: bool) -> None:
    assert windows_agree([1.0, 1.001] * 5, after) is expected


def test_a_step_longer_than_the_time_limit_still_has_samples() -> None:
    machine = Machine(lambda n: 30.0)
    timing = take_samples(machine.step, SamplingRule(), clock_s=machine.clock_s)
    assert len(timing.samples_s) == 3


def test_samples_of_a_throttled_device_are_discarded_and_it_gets_time_to_recover() -> None:
    """It throttles from second 6 to second 8, so a pause of at most 2 s lets it recover."""
    machine = Machine(lambda n: 0.02 if 6 <= machine.now_s < 8 else 0.01)
    timing = take_samples(
        machine.step,
        SamplingRule(precision=-1, max_s=12),
        clock_s=machine.clock_s,
        is_throttled=lambda: 6 <= machine.now_s < 8,
        wait=machine.wait,
    )
    assert set(timing.samples_s) == {0.01}
    assert timing.discarded == 3, "after pauses of 0.5, 1 and 2 seconds it is fast again"
    assert timing.stopped_because == "time is up"
    assert sum(timing.samples_s) == pytest.approx(12, abs=0.5), "pauses are not sampling"


def test_a_device_that_stays_throttled_still_has_samples() -> None:
    machine = Machine(lambda n: 0.02)
    timing = take_samples(
        machine.step, SamplingRule(), clock_s=machine.clock_s, is_throttled=lambda: True, wait=machine.wait
    )
    assert timing.stopped_because == "throttled"
    assert timing.samples_s == (0.02,) * 6
    assert timing.discarded == 6
    assert machine.now_s < 20


def test_a_device_that_throttles_midway_for_good_keeps_its_earlier_samples() -> None:
    machine = Machine(lambda n: 0.01 if machine.now_s < 1 else 0.03)
    timing = take_samples(
        machine.step, SamplingRule(), clock_s=machine.clock_s, is_throttled=lambda: machine.now_s > 1, wait=machine.wait
    )
    assert timing.stopped_because == "throttled"
    assert set(timing.samples_s) == {0.01}


RULE = SamplingRule(window=5, warmup_s=1.0, min_samples=10, min_s=0.1, max_s=1.0)
CPU = torch.device("cpu")


def test_the_time_of_the_slowest_rank_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    machine, sent = Machine(lambda n: 0.01), list[float]()
    monkeypatch.setattr(Ranks, "gather", lambda self, own: [own, Sample(wall_s=0.03, cpu_s=0.02)])
    monkeypatch.setattr(Ranks, "spread", lambda self, flag: sent.append(flag.item()))
    timing = take_samples_on_ranks(Ranks(rank=0, world=2), machine.step, RULE, device=CPU, clock_s=machine.clock_s)
    assert timing is not None
    assert set(timing.samples) == {Sample(wall_s=0.03, cpu_s=0.02)}
    assert sent == [1.0] * (len(timing.samples) + timing.warmup_samples) + [0.0], (
        "one flag before each step, and one at the end"
    )


def test_other_ranks_take_as_many_steps_as_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    machine, flags = Machine(lambda n: 0.01), iter([1.0, 1.0, 1.0, 0.0])
    monkeypatch.setattr(Ranks, "gather", lambda self, own: [own, own])
    monkeypatch.setattr(Ranks, "spread", lambda self, flag: flag.fill_(next(flags)))
    timing = take_samples_on_ranks(Ranks(rank=1, world=2), machine.step, RULE, device=CPU, clock_s=machine.clock_s)
    assert timing is None
    assert machine.now_s == pytest.approx(0.03)


def test_a_single_rank_is_timed_like_a_process() -> None:
    machine = Machine(lambda n: 0.01)
    timing = take_samples_on_ranks(Ranks(), machine.step, RULE, device=CPU, clock_s=machine.clock_s)
    assert timing is not None
    assert set(timing.samples_s) == {0.01}
