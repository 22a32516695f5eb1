"""Records grouped by case, and summaries of a metric over runs and seeds."""

import json
import math
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from bench.core.doubts import TIMING_DOUBTS, doubts_of_metrics, interval_of
from bench.core.registry import MEASURES
from bench.core.schema import Better, Case, Json, Metric, Record
from bench.core.stats import Estimate, mean_interval, median, median_interval

RUN_AXES = ("precision", "memory_format", "compile", "device", "threads", "batch")
TRAINING_AXES = ("weights", "recipe")
PROTOCOL_AXES = ("dataset", "split", "views")
SHARES = {"%": 100.0, "fraction": 1.0}  # units of shares, and the whole in them
SIGNED = ("", "1", "pt", "°C")  # units whose values may be negative
# Metrics that are the worst case of what they cover. Their summary is the worst value too: a median of worst cases
# is a number that no case has.
WORST: dict[str, Callable[[Sequence[float]], float]] = {"parity.max_difference": max, "parity.top1_agreement": min}

# Doubts: the value is shown, but is neither ranked nor marked as best, and charts draw it hollow.
OUT_OF_TOLERANCE = "out of tolerance"
UNLIKE_MACHINES = "mixed machines"
RUNS_DISAGREE = "runs disagree"
LENT = "lent"
# Remarks: the value is ranked, but the reader must know them to interpret it.
ASSUMED = "assumed protocol"
OTHER_HEAD = "other head"


@dataclass(frozen=True, kw_only=True)
class RecordedMetric:
    """One metric of one record, with the doubts about its timing.

    `machine` is the letter of the machine it was measured on; empty for counts.
    """

    record: Record
    metric: Metric
    doubts: tuple[str, ...]
    machine: str = ""

    @property
    def value(self) -> float | None:
        """The value; None if it is unknown or not finite."""
        value = self.metric.value
        return None if value is None or not math.isfinite(value) else value


@dataclass(frozen=True, kw_only=True)
class MetricSummary:
    """One metric over the runs or seeds of a case. `low` and `high` are nan if there is no interval.

    `how` describes the value and its interval, or gives the reason why there is no value; `note` comes from the
    measure. Values with `doubts` are never ranked; `remarks` are shown without that effect. `machines` are letters in
    alphabetical order; `count` is the number of known values.
    """

    value: float | None
    unit: str
    better: Better | None = None
    low: float = math.nan
    high: float = math.nan
    how: str = ""
    note: str = ""
    doubts: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()
    machines: tuple[str, ...] = ()
    count: int = 1
    is_range: bool = False
    is_lower_bound: bool = False

    @property
    def has_interval(self) -> bool:
        return math.isfinite(self.low) and math.isfinite(self.high)

    @property
    def group(self) -> str:
        """What the value may be ranked within: the letters of its machines, mostly one; empty for counts."""
        return ", ".join(self.machines)

    @property
    def is_ranked(self) -> bool:
        """Whether the value may be ranked: it is known, complete and free of doubts."""
        return self.value is not None and not self.doubts and not self.is_lower_bound


@dataclass(frozen=True, kw_only=True)
class CaseResult:
    """One case. `runs` holds the latest good record of each run, `latest` the latest record of each run, good or not.

    `machine` is the letter of the machine if runs on several machines are kept apart, else empty. `letters` are the
    letters of the machines of `runs`.
    """

    case: Case
    id: str
    machine: str
    runs: tuple[Record, ...]
    latest: tuple[Record, ...]
    letters: tuple[str, ...]

    @cached_property
    def metrics(self) -> Mapping[str, tuple[RecordedMetric, ...]]:
        """The metrics of the good runs by key, in the order of the runs."""
        found: dict[str, list[RecordedMetric]] = defaultdict(list)
        for record, letter in zip(self.runs, self.letters, strict=True):
            for metric, doubts in zip(record.metrics, doubts_of_metrics(record), strict=True):
                machine = letter if metric.is_of_machine else ""
                found[metric.key].append(RecordedMetric(record=record, metric=metric, doubts=doubts, machine=machine))
        return {key: tuple(recorded) for key, recorded in found.items()}

    @cached_property
    def summaries(self) -> Mapping[str, MetricSummary]:
        """Each of `metrics` over the runs of this case, by key."""
        return {key: summarise_values(recorded) for key, recorded in self.metrics.items()}

    @property
    def failures(self) -> tuple[Record, ...]:
        """Runs whose latest record has no result."""
        return tuple(record for record in self.latest if not record.is_good)

    @property
    def protocol(self) -> tuple[tuple[str, Json], ...]:
        """Data set, split and views of the accuracies; empty for cases without a data set."""
        point = self.case.point
        if point.dataset is None:
            return ()
        return tuple((axis, value) for axis in PROTOCOL_AXES if (value := getattr(point, axis)) is not None)


class LeftOutWarning(UserWarning):
    """Some records are not reported on."""


def without_turns(records: Iterable[Record]) -> list[Record]:
    """The records of ordinary runs. Warns about records of `vbench ab`, which only compare with their other side."""
    given = list(records)
    alone = [record for record in given if record.in_turns is None]
    if len(alone) < len(given):
        what = f"{len(given) - len(alone)} of {len(given)} records are left out: vbench ab measured them in turns"
        warnings.warn(what, LeftOutWarning, stacklevel=2)
    return alone


def gather_cases(records: Sequence[Record], letters: Mapping[int, str]) -> tuple[CaseResult, ...]:
    """Group `records`, sorted by time, into cases; `letters` maps the `id()` of a record to its machine.

    If one run of a case has several records, the last good one counts. Cases that are run on each machine separately
    give one result per machine.
    """
    latest: dict[tuple[str, str, str], dict[int, Record]] = {}
    good: dict[tuple[str, str, str], dict[int, Record]] = {}
    for record in records:
        letter = letters[id(record)] if is_run_on_each_machine(record.case) else ""
        key = (record.case.suite, record.case_id, letter)
        latest.setdefault(key, {})[record.run_index] = record
        if record.is_good:
            good.setdefault(key, {})[record.run_index] = record
    return tuple(_result(key, runs, good.get(key, {}), letters) for key, runs in latest.items())


def is_run_on_each_machine(case: Case) -> bool:
    """Whether a run on one machine leaves a run on another machine valid: the case is timed or sets a run axis.

    A training replaces one from another machine, although its cost belongs to its machine (`Metric.is_of_machine`).
    """
    if any(getattr(case.point, axis) is not None for axis in RUN_AXES):
        return True
    return any(name in MEASURES and MEASURES.get(name).is_timed for name in case.measures)


def summarise_values(recorded: Sequence[RecordedMetric]) -> MetricSummary:
    """Summarise one metric: counts are equal, seeds give the mean, runs the median, worst cases the worst.

    Values of unlike cases (cases that differ in more than the seed) are never blended: exact counts must agree, of
    worst cases the worst one is taken, and of anything else the value of the most specific case that has one.
    """
    if len({each.record.case_id for each in recorded}) == 1:  # the usual case, without a look at the points
        return _summarise_alike(recorded)
    groups: dict[str, list[RecordedMetric]] = defaultdict(list)
    for each in recorded:
        groups[_point_without_seed(each)].append(each)
    metric = recorded[0].metric
    if len(groups) == 1 or metric.is_exact:
        return _summarise_alike(recorded)
    if metric.name in WORST:
        summary = _summarise_alike(recorded)
        return summary if summary.value is None else replace(summary, how=f"the worst of {len(groups)} cases")
    known = [group for group in groups.values() if any(each.value is not None for each in group)]
    own = max(known or groups.values(), key=_specificity)  # of equals the first
    others = len(groups) - 1
    words = f"of its own case; {others} other case{'s' if others > 1 else ''} measured this too"
    summary = _summarise_alike(own)
    return summary if summary.value is None else replace(summary, note="; ".join(filter(None, [summary.note, words])))


def is_out_of_tolerance(record: Record) -> bool:
    """Whether outputs were not finite, or differed from eager fp32 by more than the precision explains."""
    parity, outputs = record.details.get("parity"), record.details.get("outputs")
    is_off = isinstance(parity, dict) and parity.get("is_within_tolerance") is False
    return is_off or (isinstance(outputs, dict) and outputs.get("are_finite") is False)


def has_assumed_protocol(record: Record) -> bool:
    """Whether given weights were evaluated under the model's default protocol, because none was given."""
    protocol = record.details.get("protocol")
    return record.case.point.recipe is None and isinstance(protocol, dict) and bool(protocol.get("assumed"))


def _summarise_alike(recorded: Sequence[RecordedMetric]) -> MetricSummary:
    first = recorded[0].metric
    values = [each.value for each in recorded if each.value is not None]
    is_worst, is_range = first.name in WORST, False
    doubts = _doubts(recorded)
    if not values or (is_worst and len(values) < len(recorded)):  # an unknown value may be the worst one
        values, estimate, how = [], Estimate(value=math.nan, low=math.nan, high=math.nan), _reason(recorded)
    elif first.is_exact:
        estimate, how = Estimate(value=values[-1], low=math.nan, high=math.nan), "exact"
        doubts = tuple(d for d in doubts if d not in (*TIMING_DOUBTS, OUT_OF_TOLERANCE))
        doubts += (RUNS_DISAGREE,) if len(set(values)) > 1 else ()
    elif len(values) == 1:
        estimate, how = _single(next(each for each in recorded if each.value is not None))
    elif is_worst:
        estimate = Estimate(value=WORST[first.name](values), low=math.nan, high=math.nan)
        how = f"the worst of {len(values)} runs"
    elif len({each.record.case.point.seed for each in recorded}) > 1:
        estimate, how = _over_seeds(recorded, values)
    else:
        estimate, how, is_range = _over_runs(values)
    is_incomplete = any(o.record.uncounted_operators and o.metric.name.startswith("macs.") for o in recorded)
    return MetricSummary(
        value=estimate.value if values else None,
        unit=first.unit,
        better=first.better,
        low=estimate.low,
        high=estimate.high,
        how=how,
        note="; ".join(sorted({o.metric.note for o in recorded if o.metric.note})) if values else "",
        doubts=doubts,
        remarks=(ASSUMED,) if any(_is_of_assumed_protocol(each) for each in recorded) else (),
        machines=_machines(recorded),
        count=len(values),
        is_range=is_range,
        is_lower_bound=is_incomplete and bool(values),
    )


def _point_without_seed(recorded: RecordedMetric) -> str:
    point = recorded.record.case.point.model_copy(update={"seed": None})
    return json.dumps(point.model_dump(mode="json"), sort_keys=True)


def _specificity(recorded: Sequence[RecordedMetric]) -> int:
    """How many axes the case of these values sets."""
    point = recorded[0].record.case.point
    return sum(getattr(point, axis) is not None for axis in (*RUN_AXES, *TRAINING_AXES, *PROTOCOL_AXES))


def _result(
    key: tuple[str, str, str], latest: dict[int, Record], good: dict[int, Record], letters: Mapping[int, str]
) -> CaseResult:
    newest, runs = list(latest.values())[-1], tuple(good[i] for i in sorted(good))
    return CaseResult(
        case=newest.case,
        id=key[1],
        machine=key[2],
        runs=runs,
        latest=tuple(latest[i] for i in sorted(latest)),
        letters=tuple(letters[id(run)] for run in runs),
    )


def _doubts(recorded: Sequence[RecordedMetric]) -> tuple[str, ...]:
    found = {doubt for o in recorded for doubt in o.doubts}
    found |= {OUT_OF_TOLERANCE for o in recorded if is_out_of_tolerance(o.record)}
    found |= {UNLIKE_MACHINES} if len(_machines(recorded)) > 1 else set()
    return tuple(sorted(found))


def _machines(recorded: Sequence[RecordedMetric]) -> tuple[str, ...]:
    """Letters of the machines of the known values; if no value is known, of all records."""
    known = [o for o in recorded if o.value is not None]
    return tuple(sorted({o.machine for o in known or recorded if o.machine}))


def _is_of_assumed_protocol(recorded: RecordedMetric) -> bool:
    return recorded.metric.is_share and has_assumed_protocol(recorded.record)


def _reason(recorded: Iterable[RecordedMetric]) -> str:
    notes = sorted({o.metric.note for o in recorded if o.metric.note})
    return "; ".join(notes) or "not known; the record gives no reason"


def _single(recorded_metric: RecordedMetric) -> tuple[Estimate, str]:
    value = float(recorded_metric.value or 0.0)
    ends = interval_of(recorded_metric.record, recorded_metric.metric)
    if ends is None:
        return Estimate(value=value, low=math.nan, high=math.nan), "one run"
    low, high = ends
    is_of_videos = recorded_metric.metric.is_share
    over = "its test videos" if is_of_videos else "its own samples"
    return Estimate(value=value, low=low, high=high), f"one run, with the 95 % interval of {over}"


def _over_seeds(recorded: Sequence[RecordedMetric], values: Sequence[float]) -> tuple[Estimate, str]:
    """Mean over seeds with the wider of two 95 % intervals: over seeds, and over the videos of the test set."""
    mean = mean_interval(values)
    own = [o.metric.interval for o in recorded if o.value is not None and o.metric.interval is not None]
    how = f"mean of {len(values)} seeds, with the 95 % interval over seeds"
    if len(own) < len(values):
        return _bounded(mean, recorded[0].metric.unit), how
    low = min(mean.low, math.fsum(i[0] for i in own) / len(own))
    high = max(mean.high, math.fsum(i[1] for i in own) / len(own))
    how = f"mean of {len(values)} seeds, with the wider 95 % interval of seeds and of test videos"
    return _bounded(Estimate(value=mean.value, low=low, high=high), recorded[0].metric.unit), how


def _bounded(estimate: Estimate, unit: str) -> Estimate:
    """Clip Student's interval, which has no bounds: shares end at 100 %, amounts with a unit at 0."""
    least = -math.inf if unit in SIGNED or estimate.value < 0 else 0.0
    most = SHARES.get(unit, math.inf)
    most = most if estimate.value <= most else math.inf
    return Estimate(value=estimate.value, low=max(estimate.low, least), high=min(estimate.high, most))


def _over_runs(values: Sequence[float]) -> tuple[Estimate, str, bool]:
    """Median over runs, how it was made, and whether its ends are a range.

    Under six runs no order statistic reaches 95 %, so the range of the runs is given instead.
    """
    estimate = median_interval(values)
    if math.isfinite(estimate.low):
        return estimate, f"median of {len(values)} runs, with its 95 % interval", False
    ends = Estimate(value=median(values), low=min(values), high=max(values))
    return ends, f"median of {len(values)} runs, with their range", True
