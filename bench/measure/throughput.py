"""Throughput: clips per second with the device kept busy, a few batches in flight, for each batch size asked for."""

import math
from typing import TYPE_CHECKING

from bench.measure.axes import TIMING_AXES
from bench.measure.loaded import LoadedCase
from bench.registry import register_measure
from bench.schema import Batch, Metric

if TYPE_CHECKING:
    from bench.measure.timing.variants import Forward

BLOCK_S = 0.05


@register_measure("throughput", depends_on=TIMING_AXES, version=2, is_timed=True)
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
    from bench.measure.timing.taking import take
    from bench.stats import median_interval

    forward.latency()
    steps = max(1, math.ceil(BLOCK_S / forward.latency().wall_s))
    what = f"throughput at batch {forward.batch}"
    timing = take(case, lambda: forward.block(steps), what=what, max_s=max_s)
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
