"""Run one function over many files in parallel: with progress, in constant memory, and past every file that fails."""

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
    """How many tasks are finished; `seconds` counts from the start, `what` is the task that just finished."""

    done: int
    total: int
    failed: int
    seconds: float
    what: str = ""


OnProgress = Callable[[Progress], None]


@dataclass(frozen=True, kw_only=True)
class Outcome(Generic[T, R]):
    """One task with its result or its error."""

    task: T
    result: R | None = None
    error: BenchError | None = None


@dataclass(frozen=True, kw_only=True)
class Failed:
    """What failed and the reason, for a summary."""

    what: str
    reason: str


def no_progress(_progress: Progress) -> None:
    """Show no progress."""


def for_each_task(
    tasks: Iterable[T], do: Callable[[T], R], *, total: int, workers: int = 0, on_progress: OnProgress = no_progress
) -> Iterator[Outcome[T, R]]:
    """Call `do` for every task in `workers` processes (0: in this one); yield outcomes in the order of completion.

    `do` and the tasks must be picklable. An exception, or the death of the process, becomes the outcome of its task.
    """
    if workers < 0:
        raise InputError(f"{workers} workers; allowed: 0 (work in this process) and more")
    return _outcomes(tasks, do, total=total, workers=workers, on_progress=on_progress)


def _outcomes(
    tasks: Iterable[T], do: Callable[[T], R], *, total: int, workers: int, on_progress: OnProgress
) -> Iterator[Outcome[T, R]]:
    started, done, failed = time.monotonic(), 0, 0
    outcomes = _in_processes(tasks, do, workers=workers) if workers else (_attempt(do, task) for task in tasks)
    for outcome in outcomes:
        done, failed = done + 1, failed + (outcome.error is not None)
        on_progress(
            Progress(done=done, total=total, failed=failed, seconds=time.monotonic() - started, what=str(outcome.task))
        )
        yield outcome


def _attempt(do: Callable[[T], R], task: T) -> Outcome[T, R]:
    try:
        return Outcome(task=task, result=do(task))
    except BenchError as error:
        return Outcome(task=task, error=error)
    except Exception as error:  # an encoder or OpenCV may raise anything for one file; the others go on
        return Outcome(task=task, error=VideoError(f"{task}: {type(error).__name__}: {error}"))


def _in_processes(tasks: Iterable[T], do: Callable[[T], R], *, workers: int) -> Iterator[Outcome[T, R]]:
    """Yield all outcomes. If a process dies, its pool's unfinished tasks run again one by one to find the culprit."""
    left = iter(tasks)
    retry: list[T] = []
    while True:
        for task in retry:
            yield _alone(do, task)
        retry = yield from _one_pool(left, do, workers=workers)
        if not retry:
            return


def _one_pool(tasks: Iterator[T], do: Callable[[T], R], *, workers: int) -> Generator[Outcome[T, R], None, list[T]]:
    """Yield outcomes until all tasks are done; returns the unfinished tasks if a process died."""
    running: dict[Future[Outcome[T, R]], T] = {}
    with ProcessPoolExecutor(workers, mp_context=_context()) as pool:
        try:
            while True:
                for task in islice(tasks, workers * _QUEUED_PER_WORKER - len(running)):
                    running[pool.submit(_attempt, do, task)] = task
                if not running:
                    return []
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    outcome = future.result()
                    del running[future]
                    yield outcome
        except BrokenProcessPool:
            return list(running.values())


def _alone(do: Callable[[T], R], task: T) -> Outcome[T, R]:
    with ProcessPoolExecutor(1, mp_context=_context()) as pool:
        try:
            return pool.submit(_attempt, do, task).result()
        except BrokenProcessPool:
            return Outcome(task=task, error=VideoError(f"{task}: the process that read it died"))


def _context() -> multiprocessing.context.ForkServerContext:
    return multiprocessing.get_context("forkserver")  # a fork of this process would copy torch's threads
