"""Steps of several ranks, in one process on simulated clocks."""

import pytest
import torch

from bench.measure.timing.sampling import Sample, SamplingRule, take_samples_on_ranks
from bench.train.ranks import Ranks

RULE = SamplingRule(window=5, warmup_s=1.0, min_samples=10, min_s=0.1, max_s=1.0)
CPU = torch.device("cpu")


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def step(self) -> Sample:
        self.now_s += 0.01
        return Sample(wall_s=0.01)


def test_the_slowest_rank_s_time_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, said = Clock(), list[float]()
    monkeypatch.setattr(Ranks, "gather", lambda self, own: [own, Sample(wall_s=0.03, cpu_s=0.02)])
    monkeypatch.setattr(Ranks, "spread", lambda self, word: said.append(word.item()))
    timing = take_samples_on_ranks(Ranks(rank=0, world=2), clock.step, RULE, device=CPU, clock_s=lambda: clock.now_s)
    assert timing is not None
    assert set(timing.samples) == {Sample(wall_s=0.03, cpu_s=0.02)}
    assert said == [1.0] * (len(timing.samples) + timing.warmup_samples) + [0.0], "one word a step, and a last one"


def test_a_rank_that_follows_takes_as_many_steps_as_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, words = Clock(), iter([1.0, 1.0, 1.0, 0.0])
    monkeypatch.setattr(Ranks, "gather", lambda self, own: [own, own])
    monkeypatch.setattr(Ranks, "spread", lambda self, word: word.fill_(next(words)))
    timing = take_samples_on_ranks(Ranks(rank=1, world=2), clock.step, RULE, device=CPU, clock_s=lambda: clock.now_s)
    assert timing is None
    assert clock.now_s == pytest.approx(0.03)


def test_one_rank_alone_is_timed_as_ever() -> None:
    clock = Clock()
    timing = take_samples_on_ranks(Ranks(), clock.step, RULE, device=CPU, clock_s=lambda: clock.now_s)
    assert timing is not None
    assert set(timing.samples_s) == {0.01}
