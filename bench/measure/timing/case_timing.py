"""Times a step of a case: takes samples, adds clocks and device state to the record, and makes metrics of samples."""

import time
from collections.abc import Callable, Mapping, Sequence

from bench.core.drift import timing_interval
from bench.core.metric_spec import MetricSpec
from bench.core.schema import Json, Metric
from bench.core.stats import median
from bench.measure.context import CaseContext
from bench.measure.timing.sampling import Sample, SamplingRule, Timing, take_samples
from bench.measure.timing.throttling import ThrottleWatch, watch_throttling
from bench.measure.timing.turn_taking import in_turns, process_turns

# A process that computes or spins holds a core all the time; one that lost a tenth of it has waited for a core.
RUNNING_SHARE = 0.9
FEW = 0.05


def time_step(case: CaseContext, step: Callable[[], Sample], *, what: str, max_s: float) -> Timing:
    """Sample `step` by the default rule for at most `max_s`, after a warm-up of at most `max_s`.

    The record of `case` gets the detail `what`, and warnings if the device throttled, the timing did not become steady
    or the process waited for a core.
    """
    watch, turns = watch_throttling(case.device), process_turns()
    with turns.held():
        timing = take_samples(
            in_turns(step, turns),
            SamplingRule.up_to(max_s),
            clock_s=turns.clock_s,
            is_throttled=watch.is_throttled,
            wait=time.sleep,
            on_warm=turns.meet,
        )
    case.note(what, timing_details(timing, watch))
    warn_about_device(case, timing, what)
    waiting = descheduled_share(timing)
    if waiting is not None and waiting > FEW:
        case.warn(
            f"{what}: in {waiting:.0%} of the samples this process waited for a core",
            "stop other processes, or use fewer threads",
        )
    return timing


def sampled_metric(
    spec: MetricSpec,
    values: Sequence[float],
    *,
    timing: Timing | None = None,
    labels: Mapping[str, str] | None = None,
    note: str | None = None,
) -> Metric:
    """The median of `values`, in order of time, as a metric, with its 95 % interval if there are enough values.

    `timing` is given if each of its samples became one of the values, in the same order.
    """
    middle = timing_interval(values)
    return spec.metric(
        middle.value,
        labels=dict(labels or {}),
        interval=(middle.low, middle.high) if middle.low == middle.low else None,
        samples=tuple(values),
        turns=timing.turns if timing else (),
        stopped_because=timing.stopped_because if timing else None,
        note=note,
    )


def timing_details(timing: Timing, watch: ThrottleWatch | None = None) -> dict[str, Json]:
    """Details of a timing for the record: warm-up, discarded samples, the second clock, the device's state."""
    gpu = watch.summary() if watch else None
    return {
        "warmup_samples": timing.warmup_samples,
        "discarded_samples": timing.discarded,
        "stopped_because": timing.stopped_because,
        **_second_clock(timing),
        **({"gpu": gpu} if gpu else {}),
    }


def descheduled_share(timing: Timing) -> float | None:
    """Share of the samples in which the process did not hold even one core; None without processor time."""
    known = [(sample.cpu_s, sample.wall_s) for sample in timing.samples if sample.cpu_s is not None]
    return sum(cpu_s < RUNNING_SHARE * wall_s for cpu_s, wall_s in known) / len(known) if known else None


def _second_clock(timing: Timing) -> dict[str, Json]:
    """Milliseconds of each sample by the second clock: the device's events, or the processor time on a CPU.

    `launching_p50_ms` is how long queueing the work kept the host busy. If it is nearly all of `device_p50_ms`, the
    device waits for launches, and a CUDA graph helps. `launch_overhead_p50_ms`, wall minus device time, does not show
    this: it is the time before the first kernel and after the last, mostly until the host learns that the work is done.
    """
    on_device = [1000 * s.device_s for s in timing.samples if s.device_s is not None]
    if on_device:
        overhead = [1000 * (s.wall_s - s.device_s) for s in timing.samples if s.device_s is not None]
        launching = [1000 * s.launched_s for s in timing.samples if s.launched_s is not None]
        return {
            "device_p50_ms": median(on_device),
            "launch_overhead_p50_ms": median(overhead),
            **({"launching_p50_ms": median(launching)} if launching else {}),
            "device_ms": list(on_device),
        }
    on_cpu = [1000 * s.cpu_s for s in timing.samples if s.cpu_s is not None]
    if on_cpu:
        return {
            "cpu_p50_ms": median(on_cpu),
            "descheduled_share": descheduled_share(timing),
            "cpu_ms": list(on_cpu),
        }
    return {}


def warn_about_device(case: CaseContext, timing: Timing, what: str) -> None:
    """Add a warning to the record if the device throttled or the timing never became steady."""
    if timing.stopped_because == "throttled":
        case.warn(
            f"{what}: the device throttled and did not recover",
            "let it cool, raise its power limit or lock its clock: see `vbench doctor --gpu`",
        )
    elif timing.discarded:
        case.warn(
            f"{what}: {timing.discarded} samples of a throttled device were discarded", "see `vbench doctor --gpu`"
        )
    if not timing.is_steady:
        case.warn(
            f"{what} did not become steady within its warm-up",
            "see `vbench doctor` for what disturbs this machine, then run the case again",
        )
