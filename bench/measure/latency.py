"""Latency: one batch at a time, waited for. Time of a forward pass only; decoding and copying are not in it."""

from typing import TYPE_CHECKING

from bench.core.metric_spec import MetricSpec
from bench.core.registry import register_measure
from bench.core.schema import Metric
from bench.measure.axes import TIMING_AXES
from bench.measure.context import CaseContext
from bench.measure.execution_mode import ExecutionMode
from bench.measure.fastest import Search, as_best, speedup

if TYPE_CHECKING:
    from bench.measure.timing.forward import Forward
    from bench.measure.timing.sampling import Timing

P50 = MetricSpec(
    "latency.p50_ms",
    "ms",
    "lower",
    title="Latency",
    meaning="median time of one forward pass; the next one starts after it has ended",
    headline=True,
)
P90 = MetricSpec(
    "latency.p90_ms", "ms", "lower", title="Latency p90", meaning="time that 90 % of the passes stay below"
)
P95 = MetricSpec(
    "latency.p95_ms", "ms", "lower", title="Latency p95", meaning="time that 95 % of the passes stay below"
)
P99 = MetricSpec(
    "latency.p99_ms", "ms", "lower", title="Latency p99", meaning="time that 99 % of the passes stay below"
)
SPEEDUP = MetricSpec(
    "latency.speedup",
    "x",
    "higher",
    title="Speedup of a pass",
    meaning="latency of eager fp32 over that of the fastest execution mode with matching outputs",
    headline=True,
)


@register_measure(
    "latency",
    depends_on=TIMING_AXES,
    version=2,
    is_timed=True,
    metrics=(P50, P90, P95, P99, SPEEDUP),
    duration_s=8.0,
    order=30,
)
def latency(case: CaseContext, *, search: Search | None = None, max_s: float = 10.0) -> list[Metric]:
    """Milliseconds of one forward pass at the case's batch (1 by default): p50 with interval, p90, p95, p99.

    The figures are the wall clock's. The record's detail `latency` has the second clock beside it: on CUDA the device's
    events, and how long launching held the host (`launching_p50_ms`: nearly all of the device's time where the device
    waits for launches); on a CPU the processor time and so whether the process had to wait for a core.
    Its detail `latency.empty_step_us` is what a pass without a network takes, which is subtracted from nothing.

    `search: best`, in a case that runs eager fp32, also tries other ways to run the network, and adds the same figures
    of the fastest whose outputs still match, labelled `variant=best`, and its speedup; or a mapping says what to try
    (`{precision: [bf16], compile: [off, default]}`).
    """
    from bench.measure.timing.forward import forward_of

    batch = case.point.batch or 1
    own = _timed(case, forward_of(case)(batch), what="latency", max_s=max_s)
    if search is None:
        return own
    from bench.measure.timing.mode_search import fastest_mode, forward_in_mode

    best = fastest_mode(case, search, batch=batch, what="latency", is_synchronous=True)
    if best is None:
        return own
    if best.mode == ExecutionMode():
        same = [as_best(each, best) for each in own]
        return [*own, *same, speedup("latency", same[0], own[0], note=str(best))]
    forward = forward_in_mode(case, best.mode, batch=batch)(batch)
    found = _timed(case, forward, what="latency of the best variant", max_s=max_s, variant="best", note=str(best))
    return [*own, *found, speedup("latency", found[0], own[0], note=str(best))]


def _timed(
    case: CaseContext,
    forward: "Forward",
    *,
    what: str,
    max_s: float,
    variant: str | None = None,
    note: str | None = None,
) -> list[Metric]:
    from bench.measure.timing.case_timing import time_step
    from bench.measure.timing.clocks import empty_step_us
    from bench.measure.timing.parity_check import keep_logits

    forward.warm()
    case.note(f"{what}.empty_step_us", empty_step_us(forward.empty().latency))
    found = _metrics(time_step(case, forward.latency, what=what, max_s=max_s))
    if variant is None:
        keep_logits(case, forward)
    labels = {"variant": variant} if variant else {}
    return [metric.model_copy(update={"labels": labels, "note": note}) for metric in found]


def _metrics(timing: "Timing") -> list[Metric]:
    from bench.core.stats import quantile
    from bench.measure.timing.case_timing import sampled_metric

    milliseconds = tuple(1000 * s for s in timing.samples_s)
    first = sampled_metric("latency.p50_ms", milliseconds, unit="ms", better="lower", timing=timing)
    rest = [
        Metric(name=f"latency.p{percent}_ms", value=quantile(milliseconds, percent / 100), unit="ms", better="lower")
        for percent in (90, 95, 99)
    ]
    return [first, *rest]
