"""Several streams in one process, a thread each, that send one batch after another through one network."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from queue import SimpleQueue

import torch

from bench.core.errors import InputError
from bench.measure.execution_mode import ExecutionMode
from bench.measure.timing.clocks import event
from bench.measure.timing.protocol import Sample
from bench.measure.timing.variants import Forward

# What else torch can run is made for one caller: graphs have one place for their input, and are kept by thread.
FOR_ANY_THREAD = ("off", "default", "max-autotune-no-cudagraphs")


def require_threads(mode: ExecutionMode, device: str) -> None:
    """InputError where several threads cannot run a network so at a time."""
    if mode.compile not in FOR_ANY_THREAD:
        raise InputError(
            f"concurrent cannot run {mode} from several threads; compile may be {', '.join(FOR_ANY_THREAD)} there"
        )
    if torch.device(device).type not in ("cpu", "cuda"):
        raise InputError(f"concurrent knows streams on cpu and cuda; this case runs on {device}")


@contextmanager
def opened(forwards: Sequence[Forward], *, threads_each: int) -> Iterator["Streams"]:
    """A running stream for each of `forwards`, on a CPU with so many threads of torch's own, until the block ends."""
    threads = torch.get_num_threads()
    streams = Streams(forwards, threads_each=threads_each)
    try:
        streams.start()
        yield streams
    finally:
        streams.end()
        torch.set_num_threads(threads)


class Streams:
    """Each stream sends its next batch as soon as its last one is done: a closed loop, so a stall counts once."""

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
        """One pass of each stream alone, in which what is loaded or compiled late is; then all at a time."""
        for thread in self._threads:
            thread.start()
        for _ in self._threads:
            self.next()
        self._is_open.set()

    def next(self) -> Sample:
        """The request that ended next, of whichever stream. Raises what a stream raised."""
        ended = self._ended.get()
        if isinstance(ended, BaseException):
            raise ended
        return ended

    def pause(self, seconds: float) -> None:
        """Send nothing for so long; what ended meanwhile is forgotten."""
        self._is_open.clear()
        time.sleep(seconds)
        while not self._ended.empty():
            self.next()
        self._is_open.set()

    def end(self) -> None:
        """Wait for the requests that are under way; none comes after them."""
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
        except BaseException as error:  # it is the case's, and its thread is the main one
            self._ended.put(error)

    def _sender(self, forward: Forward) -> Callable[[], Sample]:
        if forward.device.type == "cuda":
            stream = torch.cuda.Stream(forward.device)  # type: ignore[no-untyped-call]  # torch gives it no types
            return _on_cuda(forward, stream)
        torch.set_num_threads(self._threads_each)  # counts for the thread that says it
        return _on_cpu(forward, is_alone=self._threads_each == 1)


def _on_cpu(forward: Forward, *, is_alone: bool) -> Callable[[], Sample]:
    """Sends and waits. The second clock is this thread's processor time, which says nothing where torch has helpers."""

    def send() -> Sample:
        cpu_s, started_s = time.thread_time(), time.perf_counter()
        forward()
        ended_s = time.perf_counter()
        cpu_s = time.thread_time() - cpu_s
        return Sample(wall_s=ended_s - started_s, cpu_s=cpu_s if is_alone else None, ended_s=ended_s)

    return send


def _on_cuda(forward: Forward, stream: torch.cuda.Stream) -> Callable[[], Sample]:
    """Sends on a stream of its own and waits for that alone; the second clock is its events'."""

    def send() -> Sample:
        first, last = event(), event()
        started_s = time.perf_counter()
        with torch.cuda.stream(stream):
            first.record(stream)
            forward()
            last.record(stream)
        last.synchronize()
        ended_s = time.perf_counter()
        return Sample(wall_s=ended_s - started_s, device_s=first.elapsed_time(last) / 1000, ended_s=ended_s)

    return send
