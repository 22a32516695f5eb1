"""One metric of one case over commits: the series of each machine, and the first commit of every new level."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Literal

from bench.comparison.compatibility import incompatibilities
from bench.comparison.noise import Drift, Flakiness, alarms, find_drifts, flakiness, noise_of, normalise
from bench.comparison.series import Series, SeriesRun, SeriesSet, series_of
from bench.comparison.steps import Step, find_changes, find_steps
from bench.comparison.verdicts import one_line
from bench.core.errors import InputError, UnknownNameError
from bench.core.git import run_git
from bench.core.schema import Better, Case, Metric, Record
from bench.core.stats import median

Order = Literal["git", "dates", "measured"]
LevelVerdict = Literal["worse", "better", "changed"]
HASH = re.compile("[0-9a-f]{40,64}")
TIMES = frozenset({"ns", "us", "ms", "s", "min", "h"})


@dataclass(frozen=True, kw_only=True)
class CommitValue:
    """The median over the runs of one commit on one machine.

    `normalised` is the value without the speed of the machine, as the canary shows it; levels are found in these.
    `machine` is empty for what does not depend on one.
    """

    commit: str
    started_at: str
    value: float
    runs: int
    normalised: float
    machine: str = ""
    facts: int = 0


@dataclass(frozen=True, kw_only=True)
class LevelChange:
    """A step of the series of one machine, named by the first commit after it.

    It is significant if it lasts and exceeds the noise (`noise.alarms`), and an alarm if it also makes the metric worse
    and the series is not in quarantine.
    """

    first: CommitValue
    last_before: CommitValue
    step: Step
    verdict: LevelVerdict
    machine: str = ""
    is_significant: bool = False
    is_alarm: bool = False

    @property
    def change(self) -> float | None:
        """The change as a share of the level before; None if that is not above 0."""
        return self.step.after / self.step.before - 1 if self.step.before > 0 else None


@dataclass(frozen=True, kw_only=True)
class LevelDrift:
    """A level that moves gradually from the commit `first` to `last`; none of them is the cause."""

    first: CommitValue
    last: CommitValue
    before: float
    after: float
    verdict: LevelVerdict
    machine: str = ""


@dataclass(frozen=True, kw_only=True)
class MachineSeries:
    """What one machine contributes to a history. `noise` is the usual deviation of one commit, as a share.

    `canary` names the operation that the values are divided by; empty if they are as measured. `without_canary` runs
    have none while others do. `quarantine` says why the series is too flaky for alarms.
    """

    id: str
    name: str
    commits: int
    level: float
    noise: float
    canary: str = ""
    without_canary: int = 0
    quarantine: Flakiness | None = None


@dataclass(frozen=True, kw_only=True)
class History:
    """A series in the order of its commits: by git, else by their dates, else in the order of measuring.

    Each machine has a series of its own: a commit measured on two is twice in `commits`. `former` are earlier names of
    the model whose runs are part of the series. The counts are of runs that are left out: `in_turns` were part of an
    A/B measurement; `unknown` name no commit; `uncommitted` had local changes or may have had; `throttled` count only
    for machine-dependent metrics; `unlike` were not measured as the newest was, in the fields `differing`.
    """

    case: Case
    metric: str
    unit: str
    commits: tuple[CommitValue, ...]
    changes: tuple[LevelChange, ...]
    order: Order = "measured"
    drifts: tuple[LevelDrift, ...] = ()
    machines: tuple[MachineSeries, ...] = ()
    former: tuple[str, ...] = ()
    better: Better | None = None
    unknown: int = 0
    uncommitted: int = 0
    in_turns: int = 0
    throttled: int = 0
    unlike: int = 0
    differing: tuple[str, ...] = ()
    is_exact: bool = False


@dataclass(frozen=True, kw_only=True)
class CommitOrder:
    """Where each commit stands, and how that is known."""

    places: Mapping[str, int]
    known_by: Order


def history_of(
    records: Iterable[Record] | SeriesSet,
    metric: str,
    case: str,
    *,
    repository: Path = Path(),
    former: Sequence[str] = (),
) -> History:
    """Return the series of a metric (a name or key) and a case (an id, or part or pattern of its title) with its steps.

    `former` are cases that this one continues, such as those of a model's earlier name; those that a suite names as
    `renamed:` are found without. `repository` is a folder in which git may know the commits. Raises InputError if there
    is no such metric or case, or if several cases with the metric match.
    """
    known = records if isinstance(records, SeriesSet) else series_of(records)
    wanted = [each for name in (*former, case) for each in _of_case(known, name, metric)]
    key = _key(known, wanted, metric)
    found = [known.series[each, key] for each in wanted if (each, key) in known.series]
    newest = found[-1]
    joined = joined_series([*earlier_series(known, newest), *found])
    if not (joined.runs or joined.unknown or joined.uncommitted or joined.throttled):
        raise InputError(
            f"{case}: all runs with {metric} were part of an A/B measurement (vbench ab); a history needs others"
        )
    return series_history(joined, known.machines, repository=repository)


def earlier_series(known: SeriesSet, series: Series) -> list[Series]:
    """Return the series of the same point under the former names of its model, by `renamed:` in the suites."""
    point, measures = series.case.point, sorted(series.case.measures)
    name, found, seen = point.model, list[Series](), {point.model}
    while (name := known.renamed.get(name, "")) and name not in seen:
        seen.add(name)
        former = point.model_copy(update={"model": name})
        for (_, key), each in known.series.items():
            same = each.case.point == former and sorted(each.case.measures) == measures
            if same and key == series.metric.key:
                found.insert(0, each)
    return found


def joined_series(parts: Sequence[Series]) -> Series:
    """Return one series of several, the newest last; it has the case and metric of the newest."""
    if len(parts) == 1:
        return parts[0]
    last = parts[-1]
    joined = Series(case=last.case, metric=last.metric)
    for each in {id(part): part for part in parts}.values():  # `--former` may name a case that `renamed:` does too
        joined.runs += [run._replace(way=run.way + len(joined.ways)) for run in each.runs]
        joined.ways += each.ways
        for name in ("in_turns", "throttled", "unknown", "uncommitted"):
            setattr(joined, name, getattr(joined, name) + getattr(each, name))
    return joined


def series_history(
    series: Series, machines: Mapping[str, str], *, repository: Path = Path(), order: CommitOrder | None = None
) -> History:
    """Return commits, levels, drifts and alarms of one series; `order` if the order of its commits is known."""
    measured = sorted(series.runs, key=lambda run: run.started_at)
    alike, differing = _like_newest(series, measured)
    order = order or commit_order(alike, repository)
    sample = series.ways[alike[-1].way][1] if alike else series.metric
    is_exact = all(series.ways[way][1].is_count for way in {run.way for run in alike})
    by_machine: dict[str, list[SeriesRun]] = {}
    for run in alike:
        by_machine.setdefault(run.machine, []).append(run)
    parts = [
        _of_machine(runs, sample, machine=machine, name=machines.get(machine, ""), order=order, is_exact=is_exact)
        for machine, runs in by_machine.items()
    ]
    place = order.places
    models = dict.fromkeys(series.ways[run.way][0].case.point.model for run in alike)
    return History(
        case=series.case,
        metric=sample.key,
        unit=sample.unit,
        better=sample.better,
        commits=tuple(sorted((c for part in parts for c in part[1]), key=lambda each: place[each.commit])),
        changes=tuple(sorted((c for part in parts for c in part[2]), key=lambda each: place[each.first.commit])),
        drifts=tuple(sorted((d for part in parts for d in part[3]), key=lambda each: place[each.first.commit])),
        machines=tuple(part[0] for part in parts if part[0].id),
        former=tuple(name for name in models if name != series.case.point.model),
        order=order.known_by,
        unknown=series.unknown,
        uncommitted=series.uncommitted,
        in_turns=series.in_turns,
        throttled=series.throttled,
        unlike=len(measured) - len(alike),
        differing=differing,
        is_exact=is_exact,
    )


def _of_machine(
    runs: Sequence[SeriesRun], sample: Metric, *, machine: str, name: str, order: CommitOrder, is_exact: bool
) -> tuple[MachineSeries, list[CommitValue], list[LevelChange], list[LevelDrift]]:
    """Return the part of a history that comes from one machine."""
    is_rate = sample.unit.endswith("/s")
    can_be_normalised = sample.can_drift and (is_rate or sample.unit in TIMES)
    canaries = [run.canary if can_be_normalised else None for run in runs]
    normal, canary = normalise([run.value for run in runs], canaries, is_rate=is_rate)
    commits = _by_commit(runs, normal, machine, order)
    values = [each.normalised for each in commits]
    steps = find_changes(values) if is_exact else find_steps(values)
    drifts = [] if is_exact else find_drifts(values, steps)
    quarantine = flakiness(values, steps) if sample.is_of_machine else None
    significant = [True] * len(steps) if is_exact else alarms(values, steps, can_drift=sample.can_drift)
    gradual = {number for drift in drifts for number in drift.steps}
    changes = [
        LevelChange(
            first=commits[step.index],
            last_before=commits[step.index - 1],
            step=step,
            verdict=(verdict := _verdict(step.before, step.after, sample.better)),
            machine=machine,
            is_significant=is_significant,
            is_alarm=is_significant and verdict == "worse" and quarantine is None,
        )
        for number, (step, is_significant) in enumerate(zip(steps, significant, strict=True))
        if number not in gradual
    ]
    about = MachineSeries(
        id=machine,
        name=name,
        commits=len(commits),
        level=median(values),
        noise=noise_of(values),
        canary=canary,
        without_canary=sum(each is None for each in canaries) if canary else 0,
        quarantine=quarantine,
    )
    return about, commits, changes, [_level_drift(drift, commits, sample.better, machine) for drift in drifts]


def _like_newest(series: Series, measured: Sequence[SeriesRun]) -> tuple[list[SeriesRun], tuple[str, ...]]:
    """Return the runs that were measured as the last one was, and the fields in which the others differ."""
    if not measured:
        return [], ()
    newest = series.ways[measured[-1].way]
    fields = {way: _differing_fields(series.ways[way], newest) for way in dict.fromkeys(run.way for run in measured)}
    return [run for run in measured if not fields[run.way]], tuple(
        dict.fromkeys(name for differing in fields.values() for name in differing)
    )


def _differing_fields(known: tuple[Record, Metric], newest: tuple[Record, Metric]) -> list[str]:
    """Return the fields that forbid comparing these values, except the machine: versions, options, protocol, unit."""
    measure = known[1].name.partition(".")[0]
    own = measure if measure in newest[0].case.measures else None
    fields = incompatibilities([known[0]], [newest[0]], of_machine=False, measure=own)
    others = {
        "unit": known[1].unit != newest[1].unit,
        "uncounted operators": known[0].left_out_of(known[1]) != newest[0].left_out_of(newest[1]),
    }
    return [*(each.field for each in fields), *(name for name, is_unlike in others.items() if is_unlike)]


def commit_order(runs: Sequence[SeriesRun], repository: Path) -> CommitOrder:
    """Return the order of the commits of these runs, because a bisection measures old commits late."""
    commits = dict.fromkeys(run.commit for run in sorted(runs, key=lambda run: run.started_at))
    if places := _places(list(commits), repository):
        return CommitOrder(places=places, known_by="git")
    dates = {run.commit: run.committed_at for run in runs if run.committed_at}
    if all(commit in dates for commit in commits):
        in_order: list[str] = sorted(commits, key=lambda commit: dates[commit])
        return CommitOrder(places={commit: place for place, commit in enumerate(in_order)}, known_by="dates")
    return CommitOrder(places={commit: place for place, commit in enumerate(commits)}, known_by="measured")


def _places(commits: Sequence[str], repository: Path) -> dict[str, int]:
    """Return each commit's place, parents before children; empty if git here does not know all of them."""
    if not all(map(HASH.fullmatch, commits)):
        return {}
    names = "".join(f"{commit}\n" for commit in commits)
    try:
        done = run_git("-C", str(repository), "rev-list", "--topo-order", "--reverse", "--stdin", stdin=names)
    except OSError:
        return {}
    if done.returncode:
        return {}
    wanted = set(commits)
    return {commit: place for place, commit in enumerate(done.stdout.split()) if commit in wanted}


def _of_case(known: SeriesSet, wanted: str, metric: str) -> list[str]:
    """Return the id of the one case that matches `wanted`, among those with the metric, else among all."""
    with_metric = {each for each, key in known.series if metric in (key, key.partition("{")[0])}
    matching = _matching({i: case for i, case in known.cases.items() if i in with_metric}, wanted)
    matching = matching or _matching(known.cases, wanted)
    if not matching:
        titles = {one_line(case.title) for case in known.cases.values()}
        raise UnknownNameError("case", wanted, titles, of_parts=True)
    if len(matching) > 1:
        if not with_metric:
            raise UnknownNameError("metric", metric, {key.partition("{")[0] for _, key in known.series})
        listed = ", ".join(f"{one_line(title)} ({i})" for i, title in list(matching.items())[:8])
        raise InputError(f"{wanted!r} matches {len(matching)} cases; give one of these, or its id: {listed}")
    return list(matching)


def _matching(cases: Mapping[str, Case], wanted: str) -> dict[str, str]:
    """Return by id the titles that equal `wanted` or whose id does; else those that contain or match it."""
    titles = {i: case.title for i, case in cases.items()}
    exact = {i: title for i, title in titles.items() if wanted in (i, title)}
    return exact or {i: title for i, title in titles.items() if wanted in title or fnmatchcase(title, wanted)}


def _key(known: SeriesSet, cases: Sequence[str], wanted: str) -> str:
    keys = dict.fromkeys(key for each, key in known.series if each in cases)
    matching = [key for key in keys if wanted in (key, key.partition("{")[0])]
    if wanted in keys or len(matching) == 1:
        return wanted if wanted in keys else matching[0]
    if matching:
        raise InputError(f"{wanted} was measured several times; give one of: {', '.join(matching)}")
    names = keys if "{" in wanted else {key.partition("{")[0] for key in keys}
    raise UnknownNameError("metric", wanted, names)


def _by_commit(
    runs: Sequence[SeriesRun], normal: Sequence[float], machine: str, order: CommitOrder
) -> list[CommitValue]:
    """Return one value per commit, in their order."""
    grouped: dict[str, list[tuple[SeriesRun, float]]] = {}
    for run, value in zip(runs, normal, strict=True):
        grouped.setdefault(run.commit, []).append((run, value))
    return [
        CommitValue(
            commit=commit,
            started_at=grouped[commit][0][0].started_at,
            value=median([run.value for run, _ in grouped[commit]]),
            runs=len(grouped[commit]),
            normalised=median([value for _, value in grouped[commit]]),
            machine=machine,
            facts=grouped[commit][-1][0].facts,
        )
        for commit in sorted(grouped, key=lambda commit: order.places[commit])
    ]


def _level_drift(drift: Drift, commits: Sequence[CommitValue], better: Better | None, machine: str) -> LevelDrift:
    return LevelDrift(
        first=commits[drift.start],
        last=commits[drift.end],
        before=drift.before,
        after=drift.after,
        verdict=_verdict(drift.before, drift.after, better),
        machine=machine,
    )


def _verdict(before: float, after: float, better: Better | None) -> LevelVerdict:
    if better is None:
        return "changed"
    return "better" if (after > before) == (better == "higher") else "worse"
