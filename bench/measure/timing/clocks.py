"""Two clocks for one piece of work: the wall's, and beside it the device's events or, on a CPU, processor time."""

import time
from collections.abc import Callable

import torch

from bench.measure.timing.protocol import Sample


def synchronize(device: torch.device) -> None:
    """Wait until everything queued on `device` is done."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def time_work(work: Callable[[], object], device: torch.device) -> Sample:
    """Seconds of `work` until all that it queued on `device` is done, by both clocks.

    On CUDA the device's seconds lie between two events around the work: wall less device is what launching and waiting
    cost. On a CPU the other clock is the processor time of the whole process, over all of its threads. Other
    accelerators have the wall clock alone.
    """
    if device.type == "cuda":
        return _with_events(work, device)
    cpu_s, wall_s = time.process_time(), time.perf_counter()
    work()
    synchronize(device)
    wall_s = time.perf_counter() - wall_s
    return Sample(wall_s=wall_s, cpu_s=time.process_time() - cpu_s if device.type == "cpu" else None)


def _with_events(work: Callable[[], object], device: torch.device) -> Sample:
    stream = torch.cuda.current_stream(device)
    first, last = event(), event()
    started = time.perf_counter()
    first.record(stream)
    work()
    last.record(stream)
    torch.cuda.synchronize(device)
    wall_s = time.perf_counter() - started
    return Sample(wall_s=wall_s, device_s=first.elapsed_time(last) / 1000)


def event() -> torch.cuda.Event:
    """An event that can be timed."""
    return torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]  # torch gives it no types


def each(sample: Sample, *, of: int) -> Sample:
    """`sample` as the share of one out of `of` equal steps."""
    return Sample(*(None if seconds is None else seconds / of for seconds in sample))  # type: ignore[arg-type]  # wall_s is never None
