"""Memory of one forward pass, in a pass of its own: allocated and reserved by torch, and held by the process."""

import gc
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from bench.core.metric_spec import MetricSpec
from bench.core.registry import register_measure
from bench.core.schema import Metric
from bench.measure.axis_sets import TIMING_AXES
from bench.measure.context import CaseContext
from bench.measure.execution_mode import ENGINES

if TYPE_CHECKING:
    from bench.measure.timing.forward import Forward

NOT_ON_CPU = "torch does not count what it allocates on a CPU; see memory.peak_rss_bytes"
NOT_OF_ENGINES = "{} allocates memory that torch does not count"
NOT_OF_REPLAYS = "{} replays a CUDA graph, whose memory torch does not count"
REPLAYED = ("reduce-overhead", "max-autotune")

ALLOCATED = MetricSpec(
    "memory.peak_allocated_bytes",
    "B",
    "lower",
    title="Peak memory",
    meaning="most bytes that tensors held in one forward pass, weights included",
    headline=True,
)
PROCESS = MetricSpec(
    "memory.peak_rss_bytes",
    "B",
    "lower",
    title="Process memory",
    meaning="most main memory that the whole process held",
    headline=True,
    stands_in_for=ALLOCATED.name,
)
RESERVED = MetricSpec(
    "memory.peak_reserved_bytes",
    "B",
    "lower",
    title="Reserved memory",
    meaning="most bytes that torch's allocator reserved on the device in one forward pass",
)
GROWTH = MetricSpec(
    "memory.rss_growth_bytes",
    "B",
    "lower",
    title="Growth of process memory",
    meaning="peak of main memory in one forward pass, less what the process held before it",
)


@register_measure(
    "memory",
    depends_on=TIMING_AXES,
    version=2,
    is_sampled=True,
    metrics=(ALLOCATED, PROCESS, RESERVED, GROWTH),
    duration_s=2.0,
    order=50,
)
def memory(case: CaseContext) -> list[Metric]:
    """Peak bytes of one forward pass, weights included.

    `peak_allocated` and `peak_reserved` are counted by torch's allocator on an accelerator. `peak_rss` is the main
    memory of the whole process, `rss_growth` its peak in the pass less what it held before. If the case compiles, a
    pass before the measured one does.
    """
    from bench.measure.timing.forward import check_outputs, prepare_model

    mode = case.point.compile or "off"
    forward = prepare_model(case).forward(case.point.batch or 1)
    if mode != "off" or forward.device.type != "cpu":
        forward.warm()
    gc.collect()
    rss_before = _reset_peak_rss()
    allocated, reserved = _device_peaks(forward)
    peak = _status_bytes("VmHWM")
    check_outputs(case, forward)  # after the measured pass, because it would warm up the allocator
    why = NOT_ON_CPU
    if forward.device.type != "cpu" and (mode in ENGINES or mode in REPLAYED):
        allocated, reserved = None, None
        why = (NOT_OF_ENGINES if mode in ENGINES else NOT_OF_REPLAYS).format(mode)
    growth = None if peak is None or rss_before is None else max(0, peak - rss_before)
    return [
        _bytes(ALLOCATED, allocated, note=why),
        _bytes(RESERVED, reserved, note=why),
        _bytes(PROCESS, peak, note="this system does not report the peak of a process"),
        _bytes(GROWTH, growth, note="this system cannot reset the peak of a process"),
    ]


def _device_peaks(forward: "Forward") -> tuple[int | None, int | None]:
    """Bytes allocated and reserved at the peak of one pass; None on a CPU."""
    import torch

    if forward.device.type != "cuda":
        forward()
        forward.synchronize()
        return None, None
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(forward.device)
    forward()
    forward.synchronize()
    return torch.cuda.max_memory_allocated(forward.device), torch.cuda.max_memory_reserved(forward.device)


def _reset_peak_rss() -> int | None:
    """Reset the peak of the process to the bytes it holds now, and return them; None if the system cannot."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
        return _status_bytes("VmRSS")
    return None


def _status_bytes(field: str) -> int | None:
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
            if line.startswith(f"{field}:"):
                return int(line.split()[1]) * 1024
    return None


def _bytes(spec: MetricSpec, value: int | None, *, note: str) -> Metric:
    return spec.metric(value, note=note if value is None else None)
