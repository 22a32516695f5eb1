"""Concurrent streams: threads of one process that send batch after batch through one model, and their timing."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from queue import SimpleQueue
from typing import Protocol

import torch

from bench.core.errors import InputError
from bench.measure.execution_mode import ExecutionMode
from bench.measure.timing.clocks import timing_event
from bench.measure.timing.forward import Forward
from bench.measure.timing.sampling import Sample, SamplingRule, Timing, take_samples

# Other modes are made for one caller: CUDA graphs have one input memory and are kept per thread.
THREAD_SAFE_MODES = ("off", "default", "max-autotune-no-cudagraphs")


class RequestSource(Protocol):
    """Streams that send request after request, whether or not the results are read."""

    def next(self) -> Sample:
        """The request that ended next, of any stream; `ended_s` is the time of its end."""

    def pause(self, seconds: float) -> None:
        """Send nothing for `seconds`; requests that end meanwhile are dropped."""


@dataclass(frozen=True, kw_only=True)
class StreamTiming:
    """The times of single requests, and the requests per second of all streams in each window."""

    timing: Timing
    requests_per_s: tuple[float, ...]


def time_streams(
    source: RequestSource,
    rule: SamplingRule,
    *,
    streams: int,
    clock_s: Callable[[], float],
    is_throttled: Callable[[], bool] = lambda: False,
) -> StreamTiming:
    """Time what `source` sends until `rule` is met, whose numbers of samples are those of each stream.

    As for a single stream there is a warm-up and a stop rule, and all streams pause if the device throttles.
    """
    pauses_s: list[float] = []

    def wait(seconds: float) -> None:
        pauses_s.append(clock_s())
        source.pause(seconds)

    window = streams * rule.window
    shared = replace(rule, window=window, min_samples=streams * rule.min_samples)
    timing = take_samples(source.next, shared, clock_s=clock_s, is_throttled=is_throttled, wait=wait)
    ended_s = [sample.ended_s for sample in timing.samples if sample.ended_s is not None]
    return StreamTiming(timing=timing, requests_per_s=rates_by_window(ended_s, window=window, pauses_s=pauses_s))


def rates_by_window(ended_s: Sequence[float], *, window: int, pauses_s: Sequence[float] = ()) -> tuple[float, ...]:
    """Requests per second of each whole `window` of requests; of all requests together if there are fewer.

    A window lasts from the end of the request before it to the end of its last request. Windows with a pause in them
    are left out, so there may be none.
    """
    moments = sorted(ended_s)
    width = min(window, len(moments) - 1)
    if width < 1:
        return ()
    spans = zip(moments[::width], moments[width::width], strict=False)
    return tuple(
        width / (last - first)
        for first, last in spans
        if last > first and not any(first <= pause <= last for pause in pauses_s)
    )


def require_concurrent_mode(mode: ExecutionMode, device: str) -> None:
    """Raise InputError if several threads cannot run a model in this execution mode at the same time."""
    if mode.compile not in THREAD_SAFE_MODES:
        raise InputError(
            f"concurrent cannot run {mode} from several threads; compile may be {', '.join(THREAD_SAFE_MODES)} there"
        )
    if torch.device(device).type not in ("cpu", "cuda"):
        raise InputError(f"concurrent supports cpu and cuda; this case runs on {device}")


@contextmanager
def running_streams(forwards: Sequence[Forward], *, threads_each: int) -> Iterator["Streams"]:
    """One running stream for each of `forwards` until the block ends; on a CPU each with `threads_each` threads."""
    threads = torch.get_num_threads()
    streams = Streams(forwards, threads_each=threads_each)
    try:
        streams.start()
        yield streams
    finally:
        streams.end()
        torch.set_num_threads(threads)


class Streams:
    """Streams that send their next batch as soon as the last one is done: a closed loop, so a stall counts once."""

    def __init__(self, forwards: Sequence[Forward], *, threads_each: int) -> None:
        self.served = [0] * len(forwards)
        self._threads_each = threads_each
        self._ended: SimpleQueue[Sample | BaseException] = SimpleQueue()
        self._is_open, self._is_over = threading.Event(), threading.Event()
        self._first = threading.Lock()
        self._threads = [
            threading.Thread(target=self._serve, args=(place, forward), name=f"vbench-stream-{place}", daemon=True)
            for place, forward in enumerate(forwards)
        ]

    def start(self) -> None:
        """Run one pass of each stream alone, which loads and compiles; then let all streams send."""
        for thread in self._threads:
            thread.start()
        for _ in self._threads:
            self.next()
        self._is_open.set()

    def next(self) -> Sample:
        """The request that ended next, of any stream. Raises what a stream raised."""
        ended = self._ended.get()
        if isinstance(ended, BaseException):
            raise ended
        return ended

    def pause(self, seconds: float) -> None:
        """Send nothing for `seconds`; requests that end meanwhile are dropped."""
        self._is_open.clear()
        time.sleep(seconds)
        while not self._ended.empty():
            self.next()
        self._is_open.set()

    def end(self) -> None:
        """Wait for the requests in flight, and send no more."""
        self._is_over.set()
        self._is_open.set()
        for thread in self._threads:
            if thread.ident is not None:
                thread.join()

    def _serve(self, place: int, forward: Forward) -> None:
        try:
            send = self._sender(forward)
            with self._first:
                self._ended.put(send())
            while self._is_open.wait() and not self._is_over.is_set():
                self._ended.put(send())
                self.served[place] += 1
        except BaseException as error:  # raised again by `next` in the main thread
            self._ended.put(error)

    def _sender(self, forward: Forward) -> Callable[[], Sample]:
        if forward.device.type == "cuda":
            stream = torch.cuda.Stream(forward.device)  # type: ignore[no-untyped-call]  # torch gives it no types
            return _on_cuda(forward, stream)
        torch.set_num_threads(self._threads_each)  # holds for the calling thread
        return _on_cpu(forward, is_alone=self._threads_each == 1)


def _on_cpu(forward: Forward, *, is_alone: bool) -> Callable[[], Sample]:
    """Sends and waits. The second clock is this thread's processor time, which lacks that of torch's other threads."""

    def send() -> Sample:
        cpu_s, started_s = time.thread_time(), time.perf_counter()
        forward()
        ended_s = time.perf_counter()
        cpu_s = time.thread_time() - cpu_s
        return Sample(wall_s=ended_s - started_s, cpu_s=cpu_s if is_alone else None, ended_s=ended_s)

    return send


def _on_cuda(forward: Forward, stream: torch.cuda.Stream) -> Callable[[], Sample]:
    """Sends on its own CUDA stream and waits for that stream only; the second clock is that of events."""

    def send() -> Sample:
        first, last = timing_event(), timing_event()
        started_s = time.perf_counter()
        with torch.cuda.stream(stream):
            first.record(stream)
            forward()
            last.record(stream)
        last.synchronize()
        ended_s = time.perf_counter()
        return Sample(wall_s=ended_s - started_s, device_s=first.elapsed_time(last) / 1000, ended_s=ended_s)

    return send
