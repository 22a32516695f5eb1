"""Finds a batch size: the largest that fits on the device, and the one of highest throughput.

The searches are pure and call a function that they are given. `BatchTrials` is that function: it tries each batch in a
child process, which may run out of memory or break without harm to the case.
"""

from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import torch

from bench.core.errors import is_out_of_memory
from bench.core.import_path import environment_with_import_path
from bench.core.process import ChildProcess, ChildTimeoutError, ReplyPipe, read_requests
from bench.measure.context import CaseContext
from bench.measure.timing.case_process import case_from_request, case_request
from bench.measure.timing.forward import Forward, forward_of, free_device_memory

LARGEST = 1 << 16
GAIN = 0.02  # a doubled batch that gains less has reached the throughput of the device
BLOCK_S = 0.2
TRIAL_S = 900.0  # the first one imports, builds and may compile


@dataclass(frozen=True, kw_only=True)
class BestBatch:
    """The batch of highest throughput, and the clips/s of every batch tried, None if it did not fit."""

    batch: int
    rates: dict[int, float | None]


def largest_that_fits(fits: Callable[[int], bool], *, limit: int = LARGEST) -> int:
    """The largest batch up to `limit` for which `fits` is true; 0 if not even 1 fits.

    Doubles until a batch does not fit, then bisects. If a batch fits, every smaller one is assumed to fit.
    """
    if not fits(1):
        return 0
    good, bad = 1, limit + 1
    while good < limit:
        batch = min(2 * good, limit)
        if not fits(batch):
            bad = batch
            break
        good = batch
    while bad - good > 1:
        middle = (good + bad) // 2
        if fits(middle):
            good = middle
        else:
            bad = middle
    return good


def best_batch(rate: Callable[[int], float | None], *, limit: int = LARGEST) -> BestBatch | None:
    """The batch of highest `rate` (clips/s, None if it does not fit), doubling from 1; None if 1 does not fit.

    Ends at the first batch that does not fit, or after two doublings in a row that gain less than 2 % over the best.
    """
    rates: dict[int, float | None] = {}
    best, without_gain, batch = 0, 0, 1
    while batch <= limit and without_gain < 2:
        found = rates[batch] = rate(batch)
        if found is None:
            break
        before = rates.get(best)
        without_gain = 0 if before is None or found > (1 + GAIN) * before else without_gain + 1
        if before is None or found > before:
            best = batch
        batch *= 2
    return BestBatch(batch=best, rates=rates) if best else None


class BatchTrials:
    """Measures the throughput of batches in a child process. `broken` holds the error of each batch that broke one.

    After a device error other than exhausted memory a process cannot be used further, so the next batch gets a new one.
    """

    def __init__(
        self, case: CaseContext, *, function: str = f"{__name__}:reply_with_rates", timeout_s: float = TRIAL_S
    ) -> None:
        self._request = case_request(case)
        self._function, self._timeout_s = function, timeout_s
        self._child: ChildProcess | None = None
        self.broken: dict[int, str] = {}

    def rate(self, batch: int) -> float | None:
        """Clips/s of a short block of passes over `batch` clips; None if they do not fit or break the process."""
        reply = self._ask(batch)
        if "clips_per_s" in reply:
            return float(reply["clips_per_s"])
        if reply["error"] != "oom":
            self.broken[batch] = str(reply["error"])
            self.close()
        return None

    def fits(self, batch: int) -> bool:
        """Whether a forward pass over `batch` clips works."""
        return self.rate(batch) is not None

    def close(self) -> None:
        """End the child, which frees all that it holds on the device."""
        if self._child is not None:
            self._child.kill()
            self._child = None

    def __enter__(self) -> "BatchTrials":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _ask(self, batch: int) -> dict[str, Any]:
        if self._child is None:
            free_device_memory()
            environment = environment_with_import_path()
            self._child = ChildProcess(self._function, self._request, environment=environment, takes_more=True)
        child = self._child
        try:
            reply = child.ask(batch, timeout_s=self._timeout_s)
        except ChildTimeoutError:
            return {"error": f"no result after {self._timeout_s:g} s"}
        if reply is None:
            last = child.last_error()
            return {"error": f"its process ended with code {child.end()}" + (f": {last}" if last else "")}
        return reply


def reply_with_rates() -> None:
    """In the child: build the case of the first request, and reply to each further one, a batch, with its clips/s."""
    requests, reply = read_requests(), ReplyPipe()
    case = case_from_request(next(requests))
    forward_over: Callable[[int], Forward] | None = None
    for batch in requests:
        try:
            forward_over = forward_over or forward_of(case)
            reply.send(clips_per_s=_rate(forward_over(batch)))
        except Exception as error:  # whatever a model or a device raises is the result of this batch
            reply.send(error="oom" if is_out_of_memory(error) else f"{type(error).__name__}: {error}")
        if torch.cuda.is_available():
            _empty_cache()


def _rate(forward: Forward) -> float:
    steps = max(2, round(BLOCK_S / max(1e-6, forward.warm().wall_s)))
    return forward.batch / forward.block(steps).wall_s


def _empty_cache() -> None:
    try:
        torch.cuda.empty_cache()
    except RuntimeError:  # the CUDA context is broken, so the parent is about to replace this process
        return
