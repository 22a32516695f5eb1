"""Doubts about a timed value: it was unsteady, throttled, or the machine or the timing drifted.

Doubtful values are shown, but neither ranked nor drawn as if they were good. Records that were written before drift was
tested are judged by their raw samples.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache

from bench.core.drift import find_drift, timing_interval
from bench.core.schema import Json, Metric, Record
from bench.core.stats import Estimate
from bench.core.units import format_doubtful, format_value

UNSTEADY, DRIFTING, THROTTLED = "unsteady", "drifting", "throttled"
TIMING_DOUBTS = (UNSTEADY, DRIFTING, THROTTLED)
# Relative change of the canary that makes a case drift: the smallest change that the gate promises to find.
CANARY_LIMIT = 0.05
IMPRECISE = 0.1  # relative half-width of the interval above which the samples vary too much for a result
Timing = tuple[str, str]


def timing_doubts(record: Record, metric: Metric) -> tuple[str, ...]:
    """The doubts about `metric`, in alphabetical order; none about counts and shares, which no clock changes.

    A status concerns the timings that caused it: those that stopped for it, drifted, or have a wide interval. If none
    did, it concerns all timings of the record. The two sides of `vbench ab` share the drift of the machine turn by
    turn, so that it cancels out.
    """
    return _timing_doubts(record, [metric])[0]


def doubts_of_metrics(record: Record) -> list[tuple[str, ...]]:
    """The `timing_doubts` of each metric of `record` in their order, with one pass over all samples."""
    return _timing_doubts(record, record.metrics)


def _timing_doubts(record: Record, metrics: Sequence[Metric]) -> list[tuple[str, ...]]:
    """The doubts about each of `metrics`, which are of `record`."""
    if not any(metric.can_drift for metric in metrics):
        return [()] * len(metrics)
    raised = [(timing_of(each), doubts) for each in record.metrics if (doubts := sampling_doubts(record, each))]
    considered = [doubt for doubt in TIMING_DOUBTS if doubt != DRIFTING or record.in_turns is None]
    caused = {doubt: {timing for timing, doubts in raised if doubt in doubts} for doubt in considered}
    by_canary = {DRIFTING} if has_canary_moved(record.details) and record.in_turns is None else set[str]()
    if not raised and not by_canary and record.status not in considered:
        return [()] * len(metrics)

    def of_metric(metric: Metric) -> tuple[str, ...]:
        found = set(by_canary)
        for doubt, timings in caused.items():
            if timing_of(metric) in timings or (doubt == record.status and not timings and not found):
                found.add(doubt)
        return tuple(sorted(found))

    return [of_metric(metric) if metric.can_drift else () for metric in metrics]


def sampling_doubts(record: Record, metric: Metric) -> set[str]:
    """The doubts that the samples of this metric raise; none if it has no samples of its own."""
    found = {str(metric.stopped_because)} if metric.stopped_because in (UNSTEADY, THROTTLED) else set()
    if not is_sampled_timing(metric) or record.in_turns is not None:
        return found
    if is_imprecise(metric, interval_of(record, metric)):
        found.add(UNSTEADY)
    if _has_drifted(record, metric):
        found.add(DRIFTING)
    return found


def interval_of(record: Record, metric: Metric) -> tuple[float, float] | None:
    """The 95 % interval of a metric; that of a timing stored before drift was tested is computed from its samples."""
    if "drift" in record.details or not is_sampled_timing(metric) or record.in_turns is not None:
        return metric.interval
    estimate = _interval(metric.samples)
    return (estimate.low, estimate.high) if estimate.low == estimate.low else None


def measured_text(record: Record, metric: Metric) -> str:
    """The value with its unit; with `~` and only the digits that its interval supports if it is doubtful."""
    return value_text(metric, doubts=timing_doubts(record, metric), interval=interval_of(record, metric))


def value_text(metric: Metric, *, doubts: Sequence[str], interval: tuple[float, float] | None) -> str:
    """As `measured_text`, for a metric whose doubts are known."""
    if metric.value is None or not doubts:
        return format_value(metric.value, metric.unit)
    half_width = None if interval is None else (interval[1] - interval[0]) / 2
    return format_doubtful(metric.value, metric.unit, half_width=half_width)


def record_doubts(record: Record) -> tuple[str, ...]:
    """The doubts about any timing of this record, in alphabetical order."""
    found = {doubt for doubts in doubts_of_metrics(record) for doubt in doubts}
    return tuple(sorted(found | ({record.status} & set(TIMING_DOUBTS))))


def has_canary_moved(details: Mapping[str, Json]) -> bool:
    """Whether the canary in the details of a record took more or less time after the case than before, by over 5 %."""
    canary = details.get("canary")
    times = canary.values() if isinstance(canary, dict) else ()
    ratios = [each.get("ratio") for each in times if isinstance(each, dict)]
    known = [ratio for ratio in ratios if isinstance(ratio, int | float) and ratio > 0]
    return any(max(ratio, 1 / ratio) > 1 + CANARY_LIMIT for ratio in known)


def is_imprecise(metric: Metric, interval: tuple[float, float] | None) -> bool:
    """Whether the interval of a value is wider than 10 % of it on either side."""
    if interval is None or not metric.value:
        return False
    return interval[1] - interval[0] > 2 * IMPRECISE * abs(metric.value)


def is_sampled_timing(metric: Metric) -> bool:
    """Whether the value is the median of samples in order of time."""
    return metric.stopped_because is not None and bool(metric.samples) and metric.can_drift


def timing_of(metric: Metric) -> Timing:
    """What identifies the timing behind a metric: its measure and its labels, but for the views of a video."""
    labels = {name: value for name, value in metric.labels.items() if name != "views"}
    return metric.name.partition(".")[0], str(sorted(labels.items()))


def _has_drifted(record: Record, metric: Metric) -> bool:
    stored = record.details.get("drift")
    return metric.key in stored if isinstance(stored, dict) else _drift_of_samples(metric.samples)


@lru_cache(maxsize=2**16)  # a report needs each timing several times, for all of its records
def _drift_of_samples(samples: tuple[float, ...]) -> bool:
    return find_drift(samples) is not None


@lru_cache(maxsize=2**16)
def _interval(samples: tuple[float, ...]) -> Estimate:
    return timing_interval(samples)
