"""Both clocks of a piece of work, and their own overhead."""

from collections.abc import Callable
from itertools import chain, repeat

import pytest
import torch

from bench.measure.context import CaseContext
from bench.measure.latency import latency
from bench.measure.timing import clocks
from bench.measure.timing.clocks import empty_step_us, per_step, time_work
from bench.measure.timing.forward import forward_of
from bench.measure.timing.sampling import Sample


def test_an_empty_step_is_a_median_without_the_warm_up() -> None:
    seconds = chain(repeat(1.0, 3), [2e-6, 9e-6, 3e-6])
    assert empty_step_us(lambda: Sample(wall_s=next(seconds)), times=3) == pytest.approx(3.0)


def test_an_empty_pass_has_the_clips_and_no_model(load: Callable[..., CaseContext]) -> None:
    forward = forward_of(load())(1)
    assert (forward.empty()() == forward.inputs[0]).all()
    assert forward.empty().autocast == forward.autocast


def test_latency_records_an_empty_step_and_subtracts_it_from_nothing(
    load: Callable[..., CaseContext], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bench.measure.timing.clocks.empty_step_us", lambda step: 5e6)
    case = load()
    p50 = latency(case, max_s=0.1)[0]
    assert case.details["latency.empty_step_us"] == 5e6
    assert 0 < (p50.value or 0) < 5000, "five seconds would have made it negative"


def test_events_are_recorded_around_the_work_and_launching_ends_when_waiting_begins(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By a clock that counts the seconds of each step: 1 to record, 5 to launch, 1 to record, 3 to wait."""
    now_s = 0.0

    def take(seconds: float) -> None:
        nonlocal now_s
        now_s += seconds

    class Event:
        def record(self, stream: object) -> None:
            take(1)

        def elapsed_time(self, last: object) -> float:
            return 8000.0

    monkeypatch.setattr(clocks, "timing_event", Event)
    monkeypatch.setattr(clocks.time, "perf_counter", lambda: now_s)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: None)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: take(3))
    sample = time_work(lambda: take(5), torch.device("cuda"))
    assert sample == Sample(wall_s=10, device_s=8, launched_s=7)


def test_work_on_a_cpu_has_wall_and_processor_time() -> None:
    square = torch.ones(300, 300)
    sample = time_work(lambda: square @ square, torch.device("cpu"))
    assert sample.wall_s > 0
    assert sample.cpu_s is not None
    assert sample.cpu_s > 0
    assert sample.device_s is None


def test_the_mean_of_a_block_leaves_unknown_clocks_unknown() -> None:
    assert per_step(Sample(wall_s=3.0, cpu_s=6.0), steps=3) == Sample(wall_s=1.0, device_s=None, cpu_s=2.0)


@pytest.mark.gpu
def test_device_time_lies_within_wall_time() -> None:
    square = torch.ones(2048, 2048, device="cuda")
    time_work(lambda: square @ square, torch.device("cuda"))
    sample = time_work(lambda: square @ square, torch.device("cuda"))
    assert sample.device_s is not None
    assert 0 < sample.device_s < sample.wall_s
    assert 0 < (sample.launched_s or 0) < sample.wall_s
    assert sample.cpu_s is None
