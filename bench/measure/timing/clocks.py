"""Times one piece of work by two clocks: wall clock and device events, or processor time on a CPU."""

import itertools
import time
from collections.abc import Callable, Iterator, Sequence

import torch

from bench.core.stats import median
from bench.measure.timing.sampling import Sample


def synchronize(device: torch.device) -> None:
    """Wait until everything queued on `device` is done."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def time_work(work: Callable[[], object], device: torch.device) -> Sample:
    """Seconds of `work` until everything that it queued on `device` is done, by both clocks.

    On CUDA the device time lies between two events around the work. The first event passes at once, so this time
    includes every gap in which the device waits for the next launch; the time of launching is measured as well. On a
    CPU the second clock is the processor time of all threads of this process. Other accelerators have the wall clock
    only.
    """
    if device.type == "cuda":
        stream = torch.cuda.current_stream(device)
        first, last = timing_event(), timing_event()
        started = time.perf_counter()
        first.record(stream)
        work()
        last.record(stream)
        launched_s = time.perf_counter() - started
        torch.cuda.synchronize(device)
        wall_s = time.perf_counter() - started
        return Sample(wall_s=wall_s, device_s=first.elapsed_time(last) / 1000, launched_s=launched_s)
    cpu_s, wall_s = time.process_time(), time.perf_counter()
    work()
    synchronize(device)
    wall_s = time.perf_counter() - wall_s
    return Sample(wall_s=wall_s, cpu_s=time.process_time() - cpu_s if device.type == "cpu" else None)


def empty_step_us(step: Callable[[], Sample], *, times: int = 200) -> float:
    """Median wall microseconds of a `step` without work: the overhead that the clocks add to a sample."""
    samples = [step().wall_s for _ in range(2 * times)]
    return 1e6 * median(samples[times:])


def time_parts(parts: Sequence[Callable[[], object]], device: torch.device) -> Sample:
    """Seconds of `parts` run one after the other: of all together, waited for once at the end, and of each part.

    On CUDA a part lasts from event to event, so the launch of the next part overlaps with it, as in real use.
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
    mark = timing_event()
    mark.record(torch.cuda.current_stream(device))
    return mark


def _between(first: float | torch.cuda.Event, last: float | torch.cuda.Event) -> float:
    if isinstance(first, float) or isinstance(last, float):
        assert isinstance(first, float)
        assert isinstance(last, float)
        return last - first
    return float(first.elapsed_time(last)) / 1000


def timing_event() -> torch.cuda.Event:
    """A CUDA event with a time stamp."""
    return torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]  # torch gives it no types


def per_step(sample: Sample, *, steps: int) -> Sample:
    """The mean of one step in a sample of `steps` steps."""
    return sample._replace(
        wall_s=sample.wall_s / steps,
        device_s=None if sample.device_s is None else sample.device_s / steps,
        cpu_s=None if sample.cpu_s is None else sample.cpu_s / steps,
        parts_s=tuple(part / steps for part in sample.parts_s),
        launched_s=None if sample.launched_s is None else sample.launched_s / steps,
    )
