"""Estimates a suite on a cluster: hours, GPU hours and energy of the jobs that `vbench run --executor` would submit."""

import heapq
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from statistics import fmean

from bench.core.schema import Case, Json, Record
from bench.runner.devices import uses_device
from bench.runner.estimate import RunEstimate, Source, kind_of
from bench.runner.executor import Executor
from bench.runner.idle import is_timed_case
from bench.runner.running import Plan
from bench.runner.submitting import RunGroup, groups_of
from bench.suite.requirement import Requirement

PARTS = ("gpu", "cpu", "ram")
TRAINING_JOULES = {f"accuracy.train_{part}_j": part for part in PARTS}
HOLD_ENERGY = frozenset({"accuracy", "energy"})  # measures whose records may hold joules


@dataclass(frozen=True, kw_only=True)
class GroupEstimate:
    """The jobs of one submission; if all of them start at once, the last one ends after `wall_s`.

    `busy_s` are the seconds of all its runs together. `gpus` are those that each job holds; None if its cases may run
    on a GPU and none is requested. `joules` are by part of the machine, each of `runs_by_part` runs. Runs of unknown
    time or energy are not in these sums: `without_time` and `without_energy` are their numbers, and `unknown` has the
    reasons.
    """

    group: RunGroup
    jobs: int
    gpus: int | None
    wall_s: float
    busy_s: float
    joules: Mapping[str, float]
    runs_by_part: Mapping[str, int]
    without_time: int
    without_energy: int
    unknown: tuple[str, ...]
    sources: Counter[Source]

    @property
    def total_joules(self) -> float:
        return sum(self.joules.values())

    @property
    def gpu_s(self) -> float | None:
        return None if self.gpus is None else self.gpus * self.busy_s


@dataclass(frozen=True, kw_only=True)
class ClusterEstimate:
    """The jobs of all submissions, which are made at once. `machines` are those of the earlier runs that count."""

    groups: tuple[GroupEstimate, ...]
    machines: tuple[str, ...]
    time_limit_s: float | None

    @property
    def wall_s(self) -> float:
        return max((each.wall_s for each in self.groups), default=0.0)


def estimate_on_cluster(plan: Plan, executor: Executor, *, most_jobs: int) -> ClusterEstimate:
    """Estimate the jobs for the pending runs of a plan, with at most `most_jobs` for each kind of request.

    Times and energies come from the records of the results folder. If a GPU is required by name, only records of such a
    GPU count for the cases that run on one.
    """
    groups: list[GroupEstimate] = []
    machines: dict[str, None] = {}
    for group in groups_of(plan):
        is_like = partial(_is_like, group.require)
        earlier = [run for run in plan.history if is_like(run.environment)]
        names = (run.environment.get("gpu") or run.environment.get("cpu") for run in earlier)
        machines |= dict.fromkeys(str(name) for name in names if name)
        held = (run for run in earlier if run.is_good and not HOLD_ENERGY.isdisjoint(run.measures))
        groups.append(
            _estimate(
                group,
                plan.estimate_of(group.cases, is_like=is_like),
                MeasuredPowers(plan.store.records_of(held)),
                jobs=min(len(group.cases), most_jobs),
                gpus=_gpus_of_a_job(group, executor),
            )
        )
    return ClusterEstimate(groups=tuple(groups), machines=tuple(machines), time_limit_s=executor.time_limit_s)


def _is_like(require: Requirement | None, hardware: Mapping[str, object]) -> bool:
    return require is None or require.fits_gpu(str(hardware.get("gpu") or ""))


def _estimate(
    group: RunGroup, estimate: RunEstimate, powers: "MeasuredPowers", *, jobs: int, gpus: int | None
) -> GroupEstimate:
    free_s = [0.0] * jobs  # when each worker takes its next run, in the order of the plan
    joules: dict[str, float] = {}
    runs_by_part: Counter[str] = Counter()
    sources: Counter[Source] = Counter()
    without_time = without_energy = 0
    for case in group.cases:
        seconds, watts = estimate.run_s(case), powers.of(case)
        if seconds is None:
            without_time += 1
        else:
            heapq.heapreplace(free_s, free_s[0] + seconds)
        if (source := estimate.source_of(case)) is not None:
            sources[source] += 1
        if seconds is None or not watts:
            without_energy += 1
        else:
            runs_by_part.update(watts.keys())
            for part, power in watts.items():
                joules[part] = joules.get(part, 0.0) + power * seconds
    return GroupEstimate(
        group=group,
        jobs=jobs,
        gpus=gpus,
        wall_s=max(free_s),
        busy_s=sum(free_s),
        joules=joules,
        runs_by_part=runs_by_part,
        without_time=without_time,
        without_energy=without_energy,
        unknown=tuple(estimate.unknown),
        sources=sources,
    )


def _gpus_of_a_job(group: RunGroup, executor: Executor) -> int | None:
    gpus = executor.gpus_of_a_node(group.gpus_per_node) * group.kind.layout.nodes
    may_use_gpu = any(uses_device(case) and case.point.device != "cpu" for case in group.cases)
    return None if gpus == 0 and may_use_gpu else gpus


class MeasuredPowers:
    """Mean power of runs by part of the machine, from the joules that records hold."""

    def __init__(self, records: Iterable[Record]) -> None:
        self._watts: dict[object, dict[str, list[float]]] = {}
        for record in records:
            for part, watts in watts_of(record).items():
                for key in _keys_by_likeness(record.case):
                    self._watts.setdefault(key, {}).setdefault(part, []).append(watts)

    def of(self, case: Case) -> dict[str, float]:
        """Return the mean watts of runs of the case, else of the same measures, else of the same kind of work.

        Parts without a known value are missing.
        """
        found = next((self._watts[key] for key in _keys_by_likeness(case) if key in self._watts), {})
        return {part: fmean(watts) for part, watts in found.items()}


def _keys_by_likeness(case: Case) -> Iterator[object]:
    device = case.point.device
    yield case.id
    yield kind_of(case), device
    if case.point.recipe is not None:
        yield "training", device
    elif is_timed_case(case):
        yield "timed", device


def watts_of(record: Record) -> dict[str, float]:
    """Return the mean power that a record holds, in watts by part of the machine; unknown parts are missing.

    That of a training is the mean over its run. That of `energy` is the power under load, which is above the mean of a
    run that also loads and warms up.
    """
    joules = {TRAINING_JOULES[m.name]: m.value for m in record.metrics if m.name in TRAINING_JOULES}
    found = _quotients(joules, record.seconds.get("whole"))
    if isinstance(energy := record.details.get("energy"), dict):
        if isinstance(carbon := energy.get("codecarbon"), dict) and isinstance(carbon.get("joules"), dict):
            found |= _quotients(carbon["joules"], carbon.get("seconds"))
        counted = "gpu" if str(energy.get("source")).startswith("NVML") else "cpu"
        found |= _quotients({counted: energy.get("joules")}, energy.get("seconds"))
    return found


def _quotients(joules: Mapping[str, Json], seconds: Json) -> dict[str, float]:
    """Watts of each part whose joules are known and above zero; the counters of some machines stand still at zero."""
    if not isinstance(seconds, int | float) or seconds <= 0:
        return {}
    return {part: value / seconds for part, value in joules.items() if isinstance(value, int | float) and value > 0}
