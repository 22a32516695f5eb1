"""Concurrent: latency of each request, and clips per second of all, while several streams share one model."""

import sys
import time
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from bench.core.metric_spec import MetricSpec
from bench.core.registry import register_measure
from bench.core.schema import Metric
from bench.measure.axis_sets import TIMING_AXES
from bench.measure.context import DEFAULT_SEED, CaseContext

if TYPE_CHECKING:
    from bench.measure.timing.forward import PreparedModel
    from bench.measure.timing.streams import StreamTiming

Count = Annotated[int, Field(ge=1, le=32)]  # torch has a pool of 32 streams for a device and reuses them beyond that
NO_WINDOW = "the device was throttled all the time"

P50 = MetricSpec(
    "concurrent.p50_ms",
    "ms",
    "lower",
    title="Request latency",
    meaning="median time of one request while several streams send requests",
    headline=True,
)
P95 = MetricSpec(
    "concurrent.p95_ms", "ms", "lower", title="Request latency p95", meaning="time that 95 % of the requests stay below"
)
P99 = MetricSpec(
    "concurrent.p99_ms", "ms", "lower", title="Request latency p99", meaning="time that 99 % of the requests stay below"
)
CLIPS = MetricSpec(
    "concurrent.clips_per_s",
    "clips/s",
    "higher",
    title="Throughput of all streams",
    meaning="clips per second of all streams together",
)


@register_measure(
    "concurrent",
    depends_on=TIMING_AXES,
    version=1,
    is_timed=True,
    metrics=(P50, P95, P99, CLIPS),
    duration_s=30.0,
)
def concurrent(case: CaseContext, *, streams: Count | list[Count] | None = None, max_s: float = 10.0) -> list[Metric]:
    """Milliseconds of a request (p50, p95, p99) and clips per second of all `streams` (by default 1, 2 and 4).

    Each stream is a thread of one process. It sends one batch (the case's, else one clip) as soon as its last one is
    done. On CUDA it has its own stream of the device, and waits for that one only. On a CPU the threads of torch are
    divided among the streams, at least one for each; more streams than threads take turns.

    The streams share Python's interpreter lock: only one can launch kernels at a time, and a waiting one may wait for
    Python's switch interval, which is in the record. If clips per second stop rising although the device is not busy,
    the lock is the limit, and processes instead of threads would be faster.
    """
    from bench.measure.execution_mode import execution_mode_of
    from bench.measure.timing.forward import prepare_model
    from bench.measure.timing.streams import require_concurrent_mode

    require_concurrent_mode(execution_mode_of(case.point), case.device)
    counts = [streams] if isinstance(streams, int) else streams or [1, 2, 4]
    prepared = prepare_model(case)
    return [metric for count in counts for metric in _at(case, prepared, count=count, max_s=max_s)]


def _at(case: CaseContext, prepared: "PreparedModel", *, count: int, max_s: float) -> list[Metric]:
    """The metrics of `count` streams; adds the detail `concurrent at N streams` to the record."""
    import torch

    from bench.measure.timing.case_timing import timing_details, warn_about_device
    from bench.measure.timing.forward import check_outputs
    from bench.measure.timing.sampling import SamplingRule
    from bench.measure.timing.streams import running_streams, time_streams
    from bench.measure.timing.throttling import watch_throttling

    what, batch = f"concurrent at {count} streams", case.point.batch or 1
    case.progress(what)
    forwards = [prepared.forward(batch, seed=DEFAULT_SEED + place) for place in range(count)]
    check_outputs(case, forwards[0])
    forwards[0].synchronize()
    threads_each = max(1, torch.get_num_threads() // count)
    watch = watch_throttling(case.device)
    with running_streams(forwards, threads_each=threads_each) as streams:
        before_cpu_s, before_s = time.process_time(), time.perf_counter()
        found = time_streams(
            streams,
            SamplingRule.up_to(max_s),
            streams=count,
            clock_s=time.perf_counter,
            is_throttled=watch.is_throttled,
        )
        cores_busy = (time.process_time() - before_cpu_s) / (time.perf_counter() - before_s)
    warn_about_device(case, found.timing, what)
    case.note(
        what,
        {
            **timing_details(found.timing, watch),
            "requests_by_stream": list(streams.served),
            "cores_busy": cores_busy,
            "switch_interval_ms": 1000 * sys.getswitchinterval(),
            **({"torch_threads_by_stream": threads_each} if case.device.startswith("cpu") else {}),
        },
    )
    return _metrics(found, batch=batch, streams=count)


def _metrics(found: "StreamTiming", *, batch: int, streams: int) -> list[Metric]:
    from bench.core.stats import quantile
    from bench.measure.timing.case_timing import sampled_metric

    labels, timing = {"streams": str(streams)}, found.timing
    milliseconds = [1000 * s for s in timing.samples_s]
    rates = [batch * rate for rate in found.requests_per_s]
    return [
        sampled_metric(P50, milliseconds, labels=labels, timing=timing),
        *(spec.metric(quantile(milliseconds, share), labels=labels) for spec, share in ((P95, 0.95), (P99, 0.99))),
        sampled_metric(CLIPS, rates, labels=labels) if rates else CLIPS.metric(None, labels=labels, note=NO_WINDOW),
    ]
