"""The same thing done to many files, in parallel: with progress, in flat memory, and past any file that fails."""

import multiprocessing
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from itertools import islice
from typing import Generic, TypeVar

from bench.core.errors import BenchError, InputError, VideoError

T = TypeVar("T")
R = TypeVar("R")

_QUEUED_PER_WORKER = 4


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far the work is. `seconds` counts from its start."""

    done: int
    total: int
    failed: int
    seconds: float
    what: str = ""


Report = Callable[[Progress], None]


@dataclass(frozen=True, kw_only=True)
class Outcome(Generic[T, R]):
    """One task with its result, or the error that it ended in."""

    task: T
    result: R | None = None
    error: BenchError | None = None


@dataclass(frozen=True, kw_only=True)
class Failed:
    """What failed, and why, for a summary."""

    what: str
    reason: str


def silent(_progress: Progress) -> None:
    """Report to nobody."""


def do_all(
    tasks: Iterable[T], do: Callable[[T], R], *, total: int, workers: int = 0, report: Report = silent
) -> Iterator[Outcome[T, R]]:
    """`do` for every task, in `workers` processes (0: in this one), as outcomes in the order in which they end.

    `do` and the tasks must be picklable. An error becomes the task's outcome; so does a process that dies.
    """
    if workers < 0:
        raise InputError(f"{workers} workers; allowed: 0, which works in this process, and more")
    return _all_done(tasks, do, total=total, workers=workers, report=report)


def _all_done(
    tasks: Iterable[T], do: Callable[[T], R], *, total: int, workers: int, report: Report
) -> Iterator[Outcome[T, R]]:
    started, done, failed = time.monotonic(), 0, 0
    outcomes = _in_processes(tasks, do, workers=workers) if workers else (_attempt(do, task) for task in tasks)
    for outcome in outcomes:
        done, failed = done + 1, failed + (outcome.error is not None)
        report(
            Progress(done=done, total=total, failed=failed, seconds=time.monotonic() - started, what=str(outcome.task))
        )
        yield outcome


def _attempt(do: Callable[[T], R], task: T) -> Outcome[T, R]:
    try:
        return Outcome(task=task, result=do(task))
    except BenchError as error:
        return Outcome(task=task, error=error)
    except Exception as error:  # whatever an encoder or OpenCV makes of one file, the others are worth doing
        return Outcome(task=task, error=VideoError(f"{task}: {type(error).__name__}: {error}"))


def _in_processes(tasks: Iterable[T], do: Callable[[T], R], *, workers: int) -> Iterator[Outcome[T, R]]:
    """Started again with what was in flight, one by one, where a process dies, so that only the culprit is lost."""
    left = iter(tasks)
    retry: list[T] = []
    while True:
        for task in retry:
            yield _alone(do, task)
        retry = yield from _one_pool(left, do, workers=workers)
        if not retry:
            return


def _one_pool(tasks: Iterator[T], do: Callable[[T], R], *, workers: int) -> Generator[Outcome[T, R], None, list[T]]:
    """Outcomes until all is done; the tasks in flight, as the value of the generator, where a process died."""
    flying: dict[Future[Outcome[T, R]], T] = {}
    with ProcessPoolExecutor(workers, mp_context=_context()) as pool:
        try:
            while True:
                for task in islice(tasks, workers * _QUEUED_PER_WORKER - len(flying)):
                    flying[pool.submit(_attempt, do, task)] = task
                if not flying:
                    return []
                for future in wait(flying, return_when=FIRST_COMPLETED).done:
                    outcome = future.result()
                    del flying[future]
                    yield outcome
        except BrokenProcessPool:
            return list(flying.values())


def _alone(do: Callable[[T], R], task: T) -> Outcome[T, R]:
    with ProcessPoolExecutor(1, mp_context=_context()) as pool:
        try:
            return pool.submit(_attempt, do, task).result()
        except BrokenProcessPool:
            return Outcome(task=task, error=VideoError(f"{task}: the process that read it died"))


def _context() -> multiprocessing.context.ForkServerContext:
    return multiprocessing.get_context("forkserver")
