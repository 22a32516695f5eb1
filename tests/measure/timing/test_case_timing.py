"""What the second clock says of a timing."""

import os

import pytest
import torch

from bench.measure.timing import clocks
from bench.measure.timing.case_timing import descheduled_share, timing_details
from bench.measure.timing.clocks import per_step, time_work
from bench.measure.timing.sampling import Sample, StopReason, Timing
from bench.measure.timing.turn_taking import TURNS_PER_CORE, TurnTaking, in_turns


def timing(*samples: Sample, reason: StopReason = "precise") -> Timing:
    return Timing(samples=samples, warmup_samples=20, is_steady=True, stopped_because=reason)


def test_launching_is_how_long_the_host_was_held_and_not_what_the_wall_has_more_than_the_device() -> None:
    """A network of many small kernels: the device is done as soon as the last one is launched."""
    found = timing_details(
        timing(*(Sample(wall_s=s + 0.0001, device_s=s, launched_s=s - 0.0001) for s in (0.001, 0.002, 0.0025)))
    )
    assert found["device_ms"] == pytest.approx([1, 2, 2.5])
    assert found["device_p50_ms"] == pytest.approx(2)
    assert found["launching_p50_ms"] == pytest.approx(1.9)
    assert found["launch_overhead_p50_ms"] == pytest.approx(0.1)


def test_of_a_queue_in_which_launching_waits_it_is_not_told() -> None:
    assert "launching_p50_ms" not in timing_details(timing(Sample(wall_s=0.003, device_s=0.002)))


def test_events_are_recorded_around_the_work_and_launching_ends_where_waiting_begins(
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


def test_a_process_that_waited_for_a_core_is_seen() -> None:
    busy, on_two_cores, waiting = (Sample(wall_s=0.01, cpu_s=s) for s in (0.0099, 0.0190, 0.0050))
    assert descheduled_share(timing(busy, on_two_cores, waiting, waiting)) == 0.5
    assert timing_details(timing(busy, waiting))["cpu_ms"] == pytest.approx([9.9, 5.0])
    assert descheduled_share(timing(Sample(wall_s=1, device_s=1))) is None


def test_work_on_a_cpu_has_wall_and_processor_time() -> None:
    square = torch.ones(300, 300)
    sample = time_work(lambda: square @ square, torch.device("cpu"))
    assert sample.wall_s > 0
    assert sample.cpu_s is not None
    assert sample.cpu_s > 0
    assert sample.device_s is None


def test_a_share_of_a_block_leaves_unknown_clocks_unknown() -> None:
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


class AlwaysPassedOn(TurnTaking):
    """A floor that is granted anew for each step."""

    @property
    def is_shared(self) -> bool:
        return True

    def pass_on(self) -> None:
        self.turn += 1


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system does not say which cores a process has")
def test_a_process_of_one_thread_begins_on_its_next_core_every_few_turns_and_may_be_moved_from_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cores, threads = os.sched_getaffinity(0), torch.get_num_threads()
    asked: list[tuple[int, set[int]]] = []
    floor = AlwaysPassedOn()
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 3, 5})
    monkeypatch.setattr(os, "sched_setaffinity", lambda pid, wanted: asked.append((floor.turn, set(wanted))))
    try:
        torch.set_num_threads(1)
        turned = in_turns(lambda: Sample(wall_s=0.01), floor)
        assert [turned().turn for _ in range(3 * TURNS_PER_CORE)] == list(range(1, 3 * TURNS_PER_CORE + 1))
        alone, asked = asked, []
        torch.set_num_threads(2)
        in_turns(lambda: Sample(wall_s=0.01), AlwaysPassedOn())()
    finally:
        torch.set_num_threads(threads)
    turns = [TURNS_PER_CORE, 2 * TURNS_PER_CORE, 3 * TURNS_PER_CORE]
    assert alone == [
        each for turn, core in zip(turns, (3, 5, 0), strict=True) for each in ((turn, {core}), (turn, {0, 3, 5}))
    ]
    assert asked == []
    monkeypatch.undo()
    assert os.sched_getaffinity(0) == cores
