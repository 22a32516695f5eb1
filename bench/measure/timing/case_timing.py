"""Times a step of a case: takes samples, adds clocks and device state to the record, and makes metrics of samples."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

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
# Below this share of the processor time, new pages of memory cannot explain a difference that somebody would look for.
MUCH_SYSTEM_TIME = 0.1


def time_step(case: CaseContext, step: Callable[[], Sample], *, what: str, max_s: float) -> Timing:
    """Sample `step` by the default rule for at most `max_s`, after a warm-up of at most `max_s`.

    The record of `case` gets the detail `what`, and warnings if the device throttled, the timing did not become steady,
    the process waited for a core, or each step requested much new memory from the system.
    """
    watch, turns, pages = watch_throttling(case.device), process_turns(), PageCounter()

    def start() -> None:
        turns.meet()
        pages.start()

    with turns.held():
        timing = take_samples(
            in_turns(step, turns),
            SamplingRule.up_to(max_s),
            clock_s=turns.clock_s,
            is_throttled=watch.is_throttled,
            wait=time.sleep,
            on_warm=start,
        )
    new_pages = pages.stop(steps=len(timing.samples) + timing.discarded) if case.device == "cpu" else None
    case.note(what, timing_details(timing, watch) | (new_pages.as_dict() if new_pages else {}))
    warn_about_device(case, timing, what)
    waiting = descheduled_share(timing)
    if waiting is not None and waiting > FEW:
        case.warn(
            f"{what}: in {waiting:.0%} of the samples this process waited for a core",
            "stop other processes, or use fewer threads",
        )
    if new_pages is not None and new_pages.per_step >= 1 and new_pages.system_share > MUCH_SYSTEM_TIME:
        case.warn(
            f"{what}: each sample requested {new_pages.per_step:.0f} new pages of memory, and the system used "
            f"{new_pages.system_share:.0%} of the processor time; equal processes can differ in that",
            "set MALLOC_TRIM_THRESHOLD_=1073741824 and MALLOC_MMAP_THRESHOLD_=33554432, here and where the model runs",
        )
    return timing


@dataclass(frozen=True, kw_only=True)
class NewPages:
    """Pages of memory that the system gave the process in each step, and its share of the processor time."""

    per_step: float
    system_share: float

    def as_dict(self) -> dict[str, Json]:
        return {"new_pages_per_sample": round(self.per_step, 1), "system_share": round(self.system_share, 3)}


class PageCounter:
    """Counts the pages of memory that the system gives this process between `start` and `stop`.

    An allocator that returns freed memory to the system gets it back page by page, each cleared, in the next pass.
    glibc does so only with memory at the end of the heap, so it depends on what a process happened to keep there:
    docs/decisions/0009.
    """

    def start(self) -> None:
        self._before = _usage()

    def stop(self, *, steps: int) -> NewPages | None:
        """Return the counts of so many steps; None if the system does not count."""
        after = _usage()
        if self._before is None or after is None:
            return None
        pages, user_s, system_s = (new - old for new, old in zip(after, self._before, strict=True))
        return NewPages(per_step=pages / steps, system_share=system_s / (user_s + system_s) if system_s else 0.0)


def _usage() -> tuple[int, float, float] | None:
    """Pages given by the system, processor seconds in this process and in the system for it; None without POSIX."""
    try:
        import resource
    except ImportError:
        return None
    found = resource.getrusage(resource.RUSAGE_SELF)
    return found.ru_minflt, found.ru_utime, found.ru_stime


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
