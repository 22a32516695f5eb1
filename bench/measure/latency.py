"""Latency: one batch at a time, waited for. Time of a forward pass only; decoding and copying are not in it."""

from typing import TYPE_CHECKING

from bench.measure.axes import TIMING_AXES
from bench.measure.loaded import LoadedCase
from bench.registry import register_measure
from bench.schema import Metric

if TYPE_CHECKING:
    from bench.measure.timing.protocol import Timing


@register_measure("latency", depends_on=TIMING_AXES, version=2, is_timed=True)
def latency(case: LoadedCase, *, max_s: float = 10.0) -> list[Metric]:
    """Milliseconds of one forward pass at the case's batch (1 by default): p50 with interval, p90, p95, p99.

    The figures are the wall clock's. The record's detail `latency` has the second clock beside it: the device's events
    on CUDA and so what launching costs, on a CPU the processor time and so whether the process had to wait for a core.
    """
    from bench.measure.timing.taking import take
    from bench.measure.timing.variants import forward_of

    forward = forward_of(case)(case.point.batch or 1)
    forward.latency()
    return _metrics(take(case, forward.latency, what="latency", max_s=max_s))


def _metrics(timing: "Timing") -> list[Metric]:
    from bench.measure.timing.figures import sampled
    from bench.stats import quantile

    milliseconds = tuple(1000 * s for s in timing.samples_s)
    first = sampled("latency.p50_ms", milliseconds, unit="ms", better="lower", timing=timing)
    rest = [
        Metric(name=f"latency.p{percent}_ms", value=quantile(milliseconds, percent / 100), unit="ms", better="lower")
        for percent in (90, 95, 99)
    ]
    return [first, *rest]
