"""Throughput: clips per second with the device kept busy, a few batches in flight, for each batch size asked for."""

import math
import time
from typing import TYPE_CHECKING

from bench.measure.axes import TIMING_AXES
from bench.measure.latency import say_unsteady
from bench.measure.loaded import LoadedCase
from bench.registry import register_measure
from bench.schema import Batch, Metric

if TYPE_CHECKING:
    from bench.measure.timing.variants import Forward

BLOCK_S = 0.05


@register_measure("throughput", depends_on=TIMING_AXES, version=1, is_timed=True)
def throughput(case: LoadedCase, *, batch: Batch | list[Batch] | None = None, max_s: float = 10.0) -> list[Metric]:
    """Clips per second at each batch size (the case's own, else 1), labelled with it."""
    from bench.measure.timing.variants import forward_of

    at = forward_of(case)
    sizes = batch if isinstance(batch, list) else [batch or case.point.batch or 1]
    metrics = []
    for size in sizes:
        case.progress(f"throughput, batch {size}")
        metrics.append(_throughput(case, at(size), max_s=max_s))
    return metrics


def _throughput(case: LoadedCase, forward: "Forward", *, max_s: float) -> Metric:
    from bench.measure.timing.protocol import Protocol, take_samples
    from bench.stats import median_interval

    forward.latency_s()
    steps = max(1, math.ceil(BLOCK_S / forward.latency_s()))
    timing = take_samples(lambda: forward.block_s(steps) / steps, Protocol(max_s=max_s), clock_s=time.perf_counter)
    say_unsteady(case, timing, f"throughput at batch {forward.batch}")
    rates = tuple(forward.batch / seconds for seconds in timing.samples_s)
    middle = median_interval(rates)
    return Metric(
        name="throughput.clips_per_s",
        value=middle.value,
        unit="clips/s",
        better="higher",
        labels={"batch": str(forward.batch)},
        interval=(middle.low, middle.high) if middle.low == middle.low else None,
        samples=rates,
        stopped_because=timing.stopped_because,
    )
