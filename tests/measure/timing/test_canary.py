"""The canary: its comparison, its clock and its warm-up."""

import itertools

import pytest
import torch

from bench.measure.timing import canary
from bench.measure.timing.canary import compare_canary, describe_drift, time_canary
from bench.measure.timing.sampling import Sample


def test_a_ratio_above_one_is_a_slower_machine() -> None:
    compared = compare_canary({"matmul_ms": 2.0, "copy_ms": 4.0}, {"matmul_ms": 2.5, "copy_ms": 4.0})
    assert compared["matmul_ms"] == {"before": 2.0, "after": 2.5, "ratio": 1.25}
    assert describe_drift(compared) == ["matmul +25%"]


@pytest.mark.parametrize(("after", "seen"), [(1.04, []), (0.96, []), (1.06, ["copy +6%"]), (0.9, ["copy -10%"])])
def test_drift_beyond_its_limit_is_found_in_both_directions(after: float, seen: list[str]) -> None:
    assert describe_drift(compare_canary({"copy_ms": 1.0}, {"copy_ms": after})) == seen


def test_the_canary_runs_on_a_cpu() -> None:
    assert all(ms > 0 for ms in time_canary(torch.device("cpu")).values())


def test_the_canary_is_timed_by_the_devices_own_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """The wall time of 0.2 ms of work varies by as much as a drift."""
    walls = itertools.cycle([0.0004, 0.0005, 0.0006])
    monkeypatch.setattr(canary, "time_work", lambda work, device: Sample(wall_s=next(walls), device_s=0.0002))
    assert canary._median_ms(lambda: None, torch.device("cuda")) == pytest.approx(0.2)


@pytest.mark.parametrize(("device", "at_least_s"), [("cpu", 0.0), ("cuda", 0.2)])
def test_nothing_is_timed_before_the_clock_of_a_gpu_is_up(
    monkeypatch: pytest.MonkeyPatch, device: str, at_least_s: float
) -> None:
    ends_s: list[float] = [0.0]

    def time_matmul(work: object, device: torch.device) -> Sample:
        ends_s.append(ends_s[-1] + 0.03)
        return Sample(wall_s=0.03)

    monkeypatch.setattr(canary, "time_work", time_matmul)
    monkeypatch.setattr(canary.time, "perf_counter", lambda: ends_s[-1])
    canary._ramp_up(lambda: None, torch.device(device))
    assert ends_s[-1] >= at_least_s
    assert ends_s[-2] <= at_least_s, "and no longer"


@pytest.mark.gpu
def test_the_canary_runs_on_a_gpu() -> None:
    assert all(ms > 0 for ms in time_canary(torch.device("cuda")).values())
