"""Threads that run the cases of several devices, with simulated cases: order, errors, and signals."""

import signal
import threading
from collections.abc import Callable

import pytest

from bench.core.errors import StopSignal, StoreError
from bench.core.schema import Case, Clip, Point, Record, Status
from bench.runner import lanes as lanes_module
from bench.runner.devices import Lane, PendingRun, Schedule
from bench.runner.lanes import run_lanes
from bench.runner.local import CaseInterrupted, CaseStop

LANES = [Lane(device="cpu"), Lane(device="cpu", number=1)]


def case_of(model: str) -> Case:
    return Case(suite="s", point=Point(model=model, clip=Clip.model_validate("4x1x16")), measures={"params": {}})


def record_of(case: Case, status: Status = "ok") -> Record:
    return Record(case=case, case_id=case.id, run_index=0, freshness="", started_at="", status=status)


class Simulated:
    """Runs each case by calling `body` with its model and stop."""

    def __init__(self, body: Callable[[str, CaseStop], Status], *, late: frozenset[str] = frozenset()) -> None:
        self.body, self.late, self.seen = body, late, list[str]()

    def take_and_run(
        self, run: PendingRun, *, starts: object, lane: Lane | None, stop: CaseStop | None
    ) -> Record | None:
        assert stop is not None
        model = run[0].point.model
        if model in self.late:
            return None
        self.seen.append(model)
        return record_of(run[0], self.body(model, stop))


def schedule_of(*models: str) -> Schedule:
    return Schedule(runs=[(case_of(model), 0) for model in models], lanes=LANES)


def test_two_lanes_run_two_cases_at_the_same_time() -> None:
    both = threading.Barrier(2, timeout=20)

    def meet(model: str, stop: CaseStop) -> Status:
        both.wait()
        return "ok"

    runner = Simulated(meet)
    run_lanes(schedule_of("a", "b", "c", "d"), runner)
    assert sorted(runner.seen) == ["a", "b", "c", "d"]


def test_a_run_without_time_is_left_out() -> None:
    runner = Simulated(lambda model, stop: "ok", late=frozenset({"b"}))
    run_lanes(schedule_of("a", "b", "c"), runner)
    assert sorted(runner.seen) == ["a", "c"]


def test_a_failed_case_does_not_keep_the_others_from_running() -> None:
    runner = Simulated(lambda model, stop: "error" if model == "a" else "ok")
    run_lanes(schedule_of("a", "b", "c"), runner)
    assert sorted(runner.seen) == ["a", "b", "c"]


def test_an_error_of_one_lane_stops_the_other_and_is_raised() -> None:
    def full_disk(model: str, stop: CaseStop) -> Status:
        if model == "a":
            raise StoreError("No space left on device")
        _wait_for(lambda: stop.is_set)
        return "interrupted"

    runner = Simulated(full_disk)
    with pytest.raises(StoreError, match="No space"):
        run_lanes(schedule_of("a", "b", "c"), runner)
    assert "c" not in runner.seen


def test_a_signal_stops_every_lane_and_starts_nothing_more() -> None:
    started = threading.Semaphore(0)

    def wait(model: str, stop: CaseStop) -> Status:
        started.release()
        _wait_for(lambda: stop.is_set)
        return "interrupted"

    runner = Simulated(wait)
    with pytest.raises(CaseInterrupted) as raised:
        _with_signals(1, started, lambda: run_lanes(schedule_of("a", "b", "c"), runner))
    assert raised.value.signal == signal.SIGTERM
    assert sorted(runner.seen) == ["a", "b"]


@pytest.mark.parametrize("signals", [1, 2])
def test_a_second_signal_or_the_end_of_the_wait_kills_what_ignores_the_first(
    monkeypatch: pytest.MonkeyPatch, signals: int
) -> None:
    monkeypatch.setattr(lanes_module, "SAVE_S", 60.0 if signals == 2 else 0.1)
    started = threading.Semaphore(0)

    def ignore(model: str, stop: CaseStop) -> Status:
        started.release()
        _wait_for(lambda: stop.is_killed)
        return "interrupted"

    with pytest.raises(CaseInterrupted):
        _with_signals(signals, started, lambda: run_lanes(schedule_of("a", "b"), Simulated(ignore)))


def _wait_for(condition: Callable[[], bool]) -> None:
    for _ in range(3000):
        if condition():
            return
        threading.Event().wait(0.01)
    raise TimeoutError


def _with_signals(number: int, started: threading.Semaphore, call: Callable[[], None]) -> None:
    """Call a function, during which `number` signals reach the main thread once two cases have started."""

    def stop(signal_number: int, frame: object) -> None:
        raise StopSignal(signal_number)

    main = threading.main_thread().ident
    assert main is not None

    def send() -> None:
        for _ in range(2):
            started.acquire(timeout=20)
        for _ in range(number):
            signal.pthread_kill(main, signal.SIGTERM)  # one that another thread gets does not wake the main thread
            threading.Event().wait(0.3)

    before = signal.signal(signal.SIGTERM, stop)
    sender = threading.Thread(target=send)
    sender.start()
    try:
        call()
    finally:
        sender.join()
        signal.signal(signal.SIGTERM, before)
