"""Runs the cases of a schedule on several devices at once: one thread for each, which supervises one worker process."""

import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Protocol

from bench.core.errors import InputError
from bench.core.schema import Record
from bench.runner.devices import Lane, PendingRun, Schedule
from bench.runner.local import SAVE_S, CaseInterrupted, CaseStop, WorkerStarts
from bench.runner.rank_processes import launcher_count


class Runner(Protocol):
    """Runs one case on one lane and stores its record."""

    def take_and_run(
        self, run: PendingRun, *, starts: WorkerStarts, lane: Lane | None, stop: CaseStop | None
    ) -> Record | None: ...


def run_lanes(schedule: Schedule, runner: Runner) -> None:
    """Run every pending run that there is time for; returns when every lane is idle.

    Ctrl-C and other signals reach the main thread, which calls this: it lets all workers save their state and raises
    CaseInterrupted with the record of one of them. A second signal, or a minute, ends them without that. What a lane
    raises, such as StoreError for a full disk, stops the others and is raised here.
    """
    if launcher_count() > 1:
        raise InputError("--devices and torchrun exclude each other: torchrun starts a process for each device itself")
    lanes = _Lanes(schedule=schedule, runner=runner)
    try:
        for lane in schedule.lanes:
            lanes.start(lane)
        lanes.wait()
    except KeyboardInterrupt as stop:
        lanes.stop_all()
        with suppress(KeyboardInterrupt):  # a second signal ends the wait
            lanes.wait(timeout_s=SAVE_S)
        lanes.call_all(CaseStop.kill)
        lanes.wait()
        if lanes.interrupted:
            raise CaseInterrupted(lanes.interrupted[0], stop) from None
        raise
    if lanes.errors:
        raise lanes.errors[0]


@dataclass(kw_only=True)
class _Lanes:
    schedule: Schedule
    runner: Runner
    changed: threading.Condition = field(default_factory=threading.Condition)
    stops: dict[Lane, CaseStop] = field(default_factory=dict)
    interrupted: list[Record] = field(default_factory=list)
    errors: list[BaseException] = field(default_factory=list)
    is_stopping: bool = False
    active: int = 0

    def start(self, lane: Lane) -> None:
        with self.changed:
            threading.Thread(target=self.work, args=(lane,), name=str(lane)).start()
            self.active += 1

    def wait(self, timeout_s: float | None = None) -> None:
        """Wait until every lane has ended. A signal would make `Thread.join` report a living thread as ended."""
        with self.changed:
            self.changed.wait_for(lambda: not self.active, timeout_s)

    def work(self, lane: Lane) -> None:
        """In the thread of `lane`: run cases until nothing is left that it may start."""
        try:
            with WorkerStarts() as starts:
                while (run := self._next(lane)) is not None:
                    try:
                        record = self.runner.take_and_run(run, starts=starts, lane=lane, stop=self.stops[lane])
                        if record is not None and record.status == "interrupted" and self.is_stopping:
                            self.interrupted.append(record)
                    finally:
                        self._finish(lane)
        except BaseException as error:  # raised again in the main thread
            self.errors.append(error)
            self.stop_all()
        finally:
            with self.changed:
                self.active -= 1
                self.changed.notify_all()

    def _next(self, lane: Lane) -> PendingRun | None:
        with self.changed:
            while not self.is_stopping and not self.schedule.has_ended:
                run = self.schedule.next(lane)
                if run is not None:
                    self.stops[lane] = CaseStop()
                    return run
                self.changed.wait()  # until another lane has finished its case
        return None

    def _finish(self, lane: Lane) -> None:
        with self.changed:
            self.schedule.finish(lane)
            del self.stops[lane]
            self.changed.notify_all()

    def stop_all(self) -> None:
        """Start nothing more, and ask every worker to save its state and stop."""
        with self.changed:
            self.is_stopping = True
            self.changed.notify_all()
        self.call_all(CaseStop.set)

    def call_all(self, action: Callable[[CaseStop], None]) -> None:
        with self.changed:
            running = list(self.stops.values())
        for stop in running:
            action(stop)
