"""Latency: the time of one forward pass at a time; decoding and copying are not included."""

from typing import TYPE_CHECKING

from bench.core.metric_spec import MetricSpec
from bench.core.registry import register_measure
from bench.core.schema import Metric
from bench.measure.axis_sets import TIMING_AXES
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

    The metrics are of the wall clock. The record's detail `latency` has those of a second clock: on CUDA the device's
    events, and how long the host took to launch the kernels (`launching_p50_ms`; close to the device's time if the
    device waits for launches); on a CPU the processor time, which shows if the process had to wait for a core. Its
    detail `latency.empty_step_us` is the time of a pass without a model; it is not subtracted.

    `search: best`, in a case that runs eager fp32, also tries other execution modes and adds the same metrics of the
    fastest one with matching outputs, labelled `variant=best`, and its speedup. A mapping limits what is tried:
    `{precision: [bf16], compile: [off, default]}`.
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
        return [*own, *same, speedup(SPEEDUP, same[0], own[0], note=str(best))]
    forward = forward_in_mode(case, best.mode, batch=batch)(batch)
    found = _timed(case, forward, what="latency of the best variant", max_s=max_s, variant="best", note=str(best))
    return [*own, *found, speedup(SPEEDUP, found[0], own[0], note=str(best))]


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
    shares = ((P90, 0.90), (P95, 0.95), (P99, 0.99))
    return [
        sampled_metric(P50, milliseconds, timing=timing),
        *(spec.metric(quantile(milliseconds, share)) for spec, share in shares),
    ]
