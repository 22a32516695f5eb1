"""Concurrent: latency of each request and clips a second in all while several streams share one network."""

import sys
import time
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from bench.core.metric_spec import MetricSpec
from bench.core.registry import register_measure
from bench.core.schema import Metric
from bench.measure.axes import TIMING_AXES
from bench.measure.context import DEFAULT_SEED, CaseContext

if TYPE_CHECKING:
    from bench.measure.timing.forward import PreparedModel
    from bench.measure.timing.streams import StreamTiming

Count = Annotated[int, Field(ge=1, le=32)]  # torch has 32 streams for a device; further ones would share
NO_WINDOW = "the device throttled all the time"

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
    """Milliseconds of a request (p50, p95, p99) and clips a second while `streams` (1, 2 and 4) send at a time.

    Each stream is a thread of one process and sends one batch (the case's, else one clip) as soon as its last one is
    done. On CUDA it has a stream of its own, and waits for that alone. On a CPU the threads of torch are divided among
    the streams, at least one for each; more streams than threads take turns.

    The streams share Python's lock: while one launches kernels no other can, and one that waits for the lock may do so
    for Python's switch interval, which the record states. Where clips a second stop rising although the device is not
    busy, it is the lock that holds them back, and processes in the place of threads would not be.
    """
    from bench.measure.execution_mode import execution_mode_of
    from bench.measure.timing.forward import prepare_model
    from bench.measure.timing.streams import require_concurrent_mode

    require_concurrent_mode(execution_mode_of(case.point), case.device)
    counts = [streams] if isinstance(streams, int) else streams or [1, 2, 4]
    prepared = prepare_model(case)
    return [metric for count in counts for metric in _at(case, prepared, count=count, max_s=max_s)]


def _at(case: CaseContext, prepared: "PreparedModel", *, count: int, max_s: float) -> list[Metric]:
    """The metrics of `count` streams; the record's detail `concurrent at N streams` has what else is known."""
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
        sampled_metric("concurrent.p50_ms", milliseconds, unit="ms", better="lower", labels=labels, timing=timing),
        *(
            Metric(
                name=f"concurrent.p{percent}_ms",
                value=quantile(milliseconds, percent / 100),
                unit="ms",
                better="lower",
                labels=labels,
            )
            for percent in (95, 99)
        ),
        sampled_metric("concurrent.clips_per_s", rates, unit="clips/s", better="higher", labels=labels)
        if rates
        else Metric(
            name="concurrent.clips_per_s", value=None, unit="clips/s", better="higher", labels=labels, note=NO_WINDOW
        ),
    ]
