"""Two clocks for one piece of work: the wall's, and beside it the device's events or, on a CPU, processor time."""

import itertools
import time
from collections.abc import Callable, Iterator, Sequence

import torch

from bench.core.stats import median
from bench.measure.timing.protocol import Sample


def synchronize(device: torch.device) -> None:
    """Wait until everything queued on `device` is done."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def time_work(work: Callable[[], object], device: torch.device) -> Sample:
    """Seconds of `work` until all that it queued on `device` is done, by both clocks.

    On CUDA the device's seconds lie between two events around the work. The first is passed at once, so they hold every
    gap in which the device waits for the next launch; how long launching took is told by itself. On a CPU the other
    clock is the processor time of the whole process, over all of its threads. Other accelerators have the wall clock
    alone.
    """
    if device.type == "cuda":
        return _with_events(work, device)
    cpu_s, wall_s = time.process_time(), time.perf_counter()
    work()
    synchronize(device)
    wall_s = time.perf_counter() - wall_s
    return Sample(wall_s=wall_s, cpu_s=time.process_time() - cpu_s if device.type == "cpu" else None)


def empty_step_us(step: Callable[[], Sample], *, times: int = 200) -> float:
    """Median microseconds, by the wall clock, of a `step` without work: what the clocks around it add to a sample."""
    samples = [step().wall_s for _ in range(2 * times)]
    return 1e6 * median(samples[times:])


def time_parts(parts: Sequence[Callable[[], object]], device: torch.device) -> Sample:
    """Seconds of `parts` done one after the other, together and each alone, waited for once at the end.

    On CUDA a part lasts from event to event, so that launching the next one hides behind it as in real use.
    """
    marks: list[float | torch.cuda.Event] = []
    whole = time_work(lambda: marks.extend(_marked(parts, device)), device)
    seconds = tuple(_between(first, last) for first, last in itertools.pairwise(marks))
    return whole._replace(parts_s=seconds)


def _marked(parts: Sequence[Callable[[], object]], device: torch.device) -> Iterator[float | torch.cuda.Event]:
    yield _mark(device)
    for part in parts:
        part()
        yield _mark(device)


def _mark(device: torch.device) -> float | torch.cuda.Event:
    if device.type != "cuda":
        synchronize(device)
        return time.perf_counter()
    mark = event()
    mark.record(torch.cuda.current_stream(device))
    return mark


def _between(first: float | torch.cuda.Event, last: float | torch.cuda.Event) -> float:
    if isinstance(first, float) or isinstance(last, float):
        assert isinstance(first, float)
        assert isinstance(last, float)
        return last - first
    return float(first.elapsed_time(last)) / 1000


def _with_events(work: Callable[[], object], device: torch.device) -> Sample:
    stream = torch.cuda.current_stream(device)
    first, last = event(), event()
    started = time.perf_counter()
    first.record(stream)
    work()
    last.record(stream)
    launched_s = time.perf_counter() - started
    torch.cuda.synchronize(device)
    wall_s = time.perf_counter() - started
    return Sample(wall_s=wall_s, device_s=first.elapsed_time(last) / 1000, launched_s=launched_s)


def event() -> torch.cuda.Event:
    """An event that can be timed."""
    return torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]  # torch gives it no types


def each(sample: Sample, *, of: int) -> Sample:
    """`sample` as the share of one out of `of` equal steps."""
    return sample._replace(
        wall_s=sample.wall_s / of,
        device_s=None if sample.device_s is None else sample.device_s / of,
        cpu_s=None if sample.cpu_s is None else sample.cpu_s / of,
        parts_s=tuple(part / of for part in sample.parts_s),
        launched_s=None if sample.launched_s is None else sample.launched_s / of,
    )
