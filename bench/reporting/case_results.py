"""Records gathered by case: the latest good record of each run, and what several of them say together."""

import math
import warnings
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from bench.core.registry import MEASURES
from bench.core.schema import Better, Case, Json, Metric, Record
from bench.core.stats import Estimate, mean_interval, median, median_interval

RUN_AXES = ("precision", "memory_format", "compile", "device", "threads", "batch")
TRAINING_AXES = ("weights", "recipe")
OUT_OF_TOLERANCE = "out of tolerance"
UNLIKE_MACHINES = "from unlike machines"
SHARES = {"%": 100.0, "fraction": 1.0}  # units of shares, and the whole in them
SIGNED = ("", "1", "pt", "°C")  # units of what may be below 0
PROTOCOL_AXES = ("dataset", "split", "views")


@dataclass(frozen=True, kw_only=True)
class RecordedMetric:
    """One metric of one record. `machine` is the letter of the machine that the figure is of, empty if of none."""

    record: Record
    metric: Metric
    machine: str = ""

    @property
    def value(self) -> float | None:
        """The value, None where it is unknown or no number."""
        value = self.metric.value
        return None if value is None or not math.isfinite(value) else value


@dataclass(frozen=True, kw_only=True)
class MetricSummary:
    """What the runs or seeds of one thing say of one metric. `low` and `high` are nan where nothing tells them.

    `how` says in words what the value and its interval are, or why there is none; `note` is what the measure said of
    it; `doubts` keep it from leading a table; `machines` are the letters of those it is of, in order.
    """

    value: float | None
    unit: str
    better: Better | None = None
    low: float = math.nan
    high: float = math.nan
    how: str = ""
    note: str = ""
    doubts: tuple[str, ...] = ()
    machines: tuple[str, ...] = ()
    is_lower_bound: bool = False

    @property
    def has_interval(self) -> bool:
        return math.isfinite(self.low) and math.isfinite(self.high)


@dataclass(frozen=True, kw_only=True)
class CaseResult:
    """One case. `runs` are its latest good records, `latest` its latest ones whatever became of them.

    `machine` is the letter of the only machine of a case whose runs on several stand beside each other, else empty;
    `letters` are those of the machines of its `runs`.
    """

    case: Case
    id: str
    machine: str
    runs: tuple[Record, ...]
    latest: tuple[Record, ...]
    letters: tuple[str, ...]

    @cached_property
    def metrics(self) -> Mapping[str, tuple[RecordedMetric, ...]]:
        """Every metric of the good runs by its key, in the order of the runs."""
        found: dict[str, list[RecordedMetric]] = defaultdict(list)
        for record, letter in zip(self.runs, self.letters, strict=True):
            for metric in record.metrics:
                machine = letter if metric.is_of_machine else ""
                found[metric.key].append(RecordedMetric(record=record, metric=metric, machine=machine))
        return {key: tuple(recorded) for key, recorded in found.items()}

    @property
    def failures(self) -> tuple[Record, ...]:
        """Runs whose latest record has no result."""
        return tuple(record for record in self.latest if not record.is_good)

    @property
    def protocol(self) -> tuple[tuple[str, Json], ...]:
        """What the accuracies were taken on; empty for cases that know no data set."""
        point = self.case.point
        if point.dataset is None:
            return ()
        return tuple((axis, value) for axis in PROTOCOL_AXES if (value := getattr(point, axis)) is not None)


class LeftOutWarning(UserWarning):
    """Some records are not reported on."""


def without_turns(records: Iterable[Record]) -> list[Record]:
    """Records of runs by themselves; warns of runs that took turns with another side's, whose figures compare only."""
    given = list(records)
    alone = [record for record in given if record.in_turns is None]
    if len(alone) < len(given):
        what = f"{len(given) - len(alone)} of {len(given)} records are left out: vbench ab measured them in turns"
        warnings.warn(what, LeftOutWarning, stacklevel=2)
    return alone


def gather_cases(records: Sequence[Record], letters: Mapping[int, str]) -> tuple[CaseResult, ...]:
    """The cases of `records`, which stand in the order of time; `letters` gives the machine of each by its `id()`.

    Where one run of a case has several records, the last good one counts; of a case that is run on each machine
    apart, that of each machine.
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
    """Whether a run on one machine replaces none on another: an axis of a run is set, or a measure is timed.

    A training replaces one on another machine, though what it cost is of its machine: `Metric.is_of_machine`.
    """
    if any(getattr(case.point, axis) is not None for axis in RUN_AXES):
        return True
    return any(name in MEASURES and MEASURES.get(name).is_timed for name in case.measures)


def summarise_values(recorded: Sequence[RecordedMetric]) -> MetricSummary:
    """One summary of the runs or seeds of one metric: equal counts, mean over seeds, median over runs."""
    first = recorded[0]
    values = [o.value for o in recorded if o.value is not None]
    machines = _machines(recorded)
    doubts = (*_doubts(recorded), *((UNLIKE_MACHINES,) if len(machines) > 1 else ()))
    is_lower_bound = any(o.record.uncounted_operators and o.metric.name.startswith("macs.") for o in recorded)
    if not values:
        estimate, how = Estimate(value=math.nan, low=math.nan, high=math.nan), _reason(recorded)
    elif first.metric.is_exact:
        estimate, how = _exact(values)
        doubts = tuple(d for d in doubts if d not in ("unsteady", "throttled", OUT_OF_TOLERANCE))
        if len(set(values)) > 1:
            doubts = (*doubts, "its runs disagree")
    elif len(values) == 1:
        estimate, how = _single(next(o for o in recorded if o.value is not None))
    elif len({o.record.case.point.seed for o in recorded}) > 1:
        estimate, how = _over_seeds(recorded, values)
    else:
        estimate, how = _over_runs(values)
    return MetricSummary(
        value=estimate.value if values else None,
        unit=first.metric.unit,
        better=first.metric.better,
        low=estimate.low,
        high=estimate.high,
        how=how,
        note="; ".join(sorted({o.metric.note for o in recorded if o.metric.note})) if values else "",
        doubts=doubts,
        machines=machines,
        is_lower_bound=is_lower_bound and bool(values),
    )


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


def _doubts(recorded: Iterable[RecordedMetric]) -> tuple[str, ...]:
    found = {o.record.status for o in recorded if o.record.status != "ok" and _is_blamed(o)}
    wrong = {OUT_OF_TOLERANCE for o in recorded if is_out_of_tolerance(o.record)}
    return (*sorted(found), *wrong)


def _machines(recorded: Sequence[RecordedMetric]) -> tuple[str, ...]:
    """Letters of the machines that the values are of; where no value is known, of those that were asked."""
    known = [o for o in recorded if o.value is not None]
    return tuple(sorted({o.machine for o in known or recorded if o.machine}))


def is_out_of_tolerance(record: Record) -> bool:
    """Whether outputs were not finite, or differed from eager fp32 by more than the precision explains."""
    parity, outputs = record.details.get("parity"), record.details.get("outputs")
    is_off = isinstance(parity, dict) and parity.get("is_within_tolerance") is False
    return is_off or (isinstance(outputs, dict) and outputs.get("are_finite") is False)


def _is_blamed(recorded_metric: RecordedMetric) -> bool:
    """Whether the record's status is about this metric: its own timing stopped so, or no timing says that it did."""
    record, metric = recorded_metric.record, recorded_metric.metric
    blamed = [_timing_of(m) for m in record.metrics if m.stopped_because == record.status]
    return not blamed or _timing_of(metric) in blamed


def _timing_of(metric: Metric) -> tuple[str, str]:
    return metric.name.partition(".")[0], str(sorted(metric.labels.items()))


def _reason(recorded: Iterable[RecordedMetric]) -> str:
    notes = sorted({o.metric.note for o in recorded if o.metric.note})
    return "; ".join(notes) or "not known; the record gives no reason"


def _exact(values: Sequence[float]) -> tuple[Estimate, str]:
    return Estimate(value=values[-1], low=math.nan, high=math.nan), "exact"


def _single(recorded_metric: RecordedMetric) -> tuple[Estimate, str]:
    value = float(recorded_metric.value or 0.0)
    if recorded_metric.metric.interval is None:
        return Estimate(value=value, low=math.nan, high=math.nan), "one run"
    low, high = recorded_metric.metric.interval
    return Estimate(value=value, low=low, high=high), "one run, with the 95 % interval of its own samples"


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
    """Student's interval knows no bounds: a share ends at 100 %, and no amount that has a unit is below 0."""
    least = -math.inf if unit in SIGNED or estimate.value < 0 else 0.0
    most = SHARES.get(unit, math.inf)
    most = most if estimate.value <= most else math.inf
    return Estimate(value=estimate.value, low=max(estimate.low, least), high=min(estimate.high, most))


def _over_runs(values: Sequence[float]) -> tuple[Estimate, str]:
    """Median over runs; under six runs no order statistic reaches 95 %, and the range is given instead."""
    estimate = median_interval(values)
    if math.isfinite(estimate.low):
        return estimate, f"median of {len(values)} runs, with its 95 % interval"
    return Estimate(value=median(values), low=min(values), high=max(values)), (
        f"median and range of {len(values)} runs"
    )
