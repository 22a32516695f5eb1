"""One metric of one case over commits: its series, and the first commit of every level."""

import re
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Literal

from bench.comparison.baselines import fingerprint_of
from bench.comparison.judging import metric_values
from bench.comparison.likeness import unlike_fields
from bench.comparison.steps import Step, find_changes, find_steps
from bench.comparison.wording import one_line
from bench.core.errors import InputError, UnknownNameError
from bench.core.git import git_environment
from bench.core.schema import Better, Case, Metric, Record
from bench.core.stats import median

Order = Literal["git", "dates", "measured"]
Known = tuple[Record, Metric]
HASH = re.compile("[0-9a-f]{40,64}")


@dataclass(frozen=True, kw_only=True)
class Moment:
    """One commit in a series: the median over its runs."""

    commit: str
    started_at: str
    value: float
    runs: int


@dataclass(frozen=True, kw_only=True)
class Turn:
    """A step of a series, named by the first commit after it. `change` is a share of the level before."""

    first: Moment
    last_before: Moment
    step: Step
    verdict: Literal["worse", "better", "changed"]

    @property
    def change(self) -> float | None:
        return self.step.after / self.step.before - 1 if self.step.before > 0 else None


@dataclass(frozen=True, kw_only=True)
class History:
    """A series in the order of its commits, told by git or by their dates, else that in which they were measured.

    Left out are runs `in_turns` with another side's; `unknown` ones, which name no commit; `uncommitted` ones, whose
    code was not, or not surely, that of their commit; `throttled` ones, where a figure of the machine is asked for;
    and `unlike` ones, which were not measured as the newest was: in `differing`.
    """

    case: Case
    metric: str
    unit: str
    moments: tuple[Moment, ...]
    turns: tuple[Turn, ...]
    order: Order = "measured"
    unknown: int = 0
    uncommitted: int = 0
    in_turns: int = 0
    throttled: int = 0
    unlike: int = 0
    differing: tuple[str, ...] = ()
    is_exact: bool = False


def history_of(records: Iterable[Record], metric: str, case: str, *, repository: Path = Path()) -> History:
    """The series of a metric (a name or key) and a case (an id, or part or pattern of its title) with its steps.

    `repository` is a folder in which git may know the commits. InputError where there is no such metric or case, where
    several cases that know the metric fit, or where its runs are of several machines.
    """
    of_case = _of_case([record for record in records if record.is_good], case, metric)
    key = _key(of_case, metric)
    measured = sorted(_known(of_case, key), key=lambda each: each[0].started_at)
    known = [(record, found) for record, found in measured if record.in_turns is None]
    if not known:
        raise InputError(
            f"{case}: all runs that know {metric} took turns with another side's, as vbench ab has them do"
        )
    steady = [(record, found) for record, found in known if record.status != "throttled" or not found.is_of_machine]
    of_commits = [(record, found) for record, found in steady if record.environment.state.get("commit")]
    committed = [
        (record, found) for record, found in of_commits if record.environment.state.get("is_dirty", False) is False
    ]
    alike, differing = _alike(committed)
    _refuse_several_machines(alike, case)
    moments, order = _ordered(_moments(alike), alike, repository)
    sample = (alike or known)[-1][1]
    values = [moment.value for moment in moments]
    is_exact = all(found.is_count for _, found in alike)
    steps = find_changes(values) if is_exact else find_steps(values)
    return History(
        case=of_case[-1].case,
        metric=key,
        unit=sample.unit,
        moments=tuple(moments),
        turns=tuple(_turn(step, moments, sample.better) for step in steps),
        order=order,
        unknown=len(steady) - len(of_commits),
        uncommitted=len(of_commits) - len(committed),
        in_turns=len(measured) - len(known),
        throttled=len(known) - len(steady),
        unlike=len(committed) - len(alike),
        differing=differing,
        is_exact=is_exact,
    )


def _known(records: Sequence[Record], key: str) -> Iterator[Known]:
    for record in records:
        found = record.metric(key)
        if found is not None and metric_values([found]):
            yield record, found


def _alike(known: Sequence[Known]) -> tuple[list[Known], tuple[str, ...]]:
    """Those that were measured as the newest, the last, was; and what the others differ in."""
    fields = [_unlike(each, known[-1]) for each in known]
    alike = [each for each, differing in zip(known, fields, strict=True) if not differing]
    return alike, tuple(dict.fromkeys(name for differing in fields for name in differing))


def _unlike(known: Known, newest: Known) -> list[str]:
    """What keeps these figures apart, but for the machine: versions, options, protocol, unit, what was not counted."""
    measure = known[1].name.partition(".")[0]
    own = measure if measure in newest[0].case.measures else None
    fields = unlike_fields([known[0]], [newest[0]], of_machine=False, measure=own)
    others = {
        "unit": known[1].unit != newest[1].unit,
        "uncounted operators": known[0].left_out_of(known[1]) != newest[0].left_out_of(newest[1]),
    }
    return [*(each.field for each in fields), *(name for name, is_unlike in others.items() if is_unlike)]


def _refuse_several_machines(known: Sequence[Known], case: str) -> None:
    machines = {fingerprint_of(record) for record, found in known if found.is_of_machine}
    if len(machines) > 1:
        raise InputError(
            f"{case}: its records are of {len(machines)} kinds of machine; name the files of one with --from"
        )


def _ordered(moments: Sequence[Moment], dated: Sequence[Known], repository: Path) -> tuple[list[Moment], Order]:
    """Moments in the order of their commits: an old commit that is measured late, as by a bisection, is still old."""
    if places := _places([moment.commit for moment in moments], repository):
        return sorted(moments, key=lambda moment: places[moment.commit]), "git"
    states = [record.environment.state for record, _ in dated]
    dates = {str(state["commit"]): str(state["committed_at"]) for state in states if state.get("committed_at")}
    if all(moment.commit in dates for moment in moments):
        return sorted(moments, key=lambda moment: dates[moment.commit]), "dates"
    return list(moments), "measured"


def _places(commits: Sequence[str], repository: Path) -> dict[str, int]:
    """By commit its place among all, parents before children; empty where git here does not know them all."""
    if not all(map(HASH.fullmatch, commits)):
        return {}
    command = ["git", "-C", str(repository), "rev-list", "--topo-order", "--reverse", "--stdin"]
    try:
        asked = "".join(f"{commit}\n" for commit in commits)
        done = subprocess.run(command, input=asked, capture_output=True, text=True, check=True, env=git_environment())
    except (OSError, subprocess.CalledProcessError):
        return {}
    wanted = set(commits)
    return {commit: place for place, commit in enumerate(done.stdout.split()) if commit in wanted}


def _of_case(records: Sequence[Record], wanted: str, metric: str) -> list[Record]:
    """Records of the one case that is `wanted`: of those that know the metric, else of all."""
    telling = [record for record in records if metric in _names_known(record)]
    fitting = _fitting(telling, wanted) or _fitting(records, wanted)
    if not fitting:
        raise UnknownNameError("case", wanted, {one_line(record.case.title) for record in records})
    if len(fitting) > 1:
        told = ", ".join(f"{one_line(title)} ({i})" for i, title in list(fitting.items())[:8])
        raise InputError(f"{wanted!r} fits {len(fitting)} cases; give one of these, or its id: {told}")
    return [record for record in records if record.case_id in fitting]


def _fitting(records: Sequence[Record], wanted: str) -> dict[str, str]:
    """By id, the titles that are exactly `wanted`, or whose id is; else those that it is a part or a pattern of."""
    titles = {record.case_id: record.case.title for record in records}
    exact = {i: title for i, title in titles.items() if wanted in (i, title)}
    return exact or {i: title for i, title in titles.items() if wanted in title or fnmatchcase(title, wanted)}


def _names_known(record: Record) -> set[str]:
    return {name for metric in record.metrics if metric_values([metric]) for name in (metric.key, metric.name)}


def _key(records: Sequence[Record], wanted: str) -> str:
    keys = {m.key: m for record in records for m in record.metrics if metric_values([m])}
    fitting = [key for key, m in keys.items() if wanted in (key, m.name)]
    if wanted in keys or len(fitting) == 1:
        return wanted if wanted in keys else fitting[0]
    if fitting:
        raise InputError(f"{wanted} was measured several times; give one of: {', '.join(fitting)}")
    raise UnknownNameError("metric", wanted, keys)


def _moments(dated: Sequence[Known]) -> list[Moment]:
    """One moment a commit; a run that stands in several files counts once."""
    once = {(r.environment.state["commit"], r.started_at, r.run_index): (r, m) for r, m in dated}
    by_commit: dict[str, list[Known]] = {}
    for record, metric in sorted(once.values(), key=lambda each: each[0].started_at):
        by_commit.setdefault(str(record.environment.state["commit"]), []).append((record, metric))
    return [
        Moment(
            commit=commit,
            started_at=members[0][0].started_at,
            value=median(metric_values([metric for _, metric in members])),
            runs=len(members),
        )
        for commit, members in by_commit.items()
    ]


def _turn(step: Step, moments: Sequence[Moment], better: Better | None) -> Turn:
    is_rise = step.after > step.before
    verdict: Literal["worse", "better", "changed"] = "changed"
    if better is not None:
        verdict = "better" if is_rise == (better == "higher") else "worse"
    return Turn(first=moments[step.index], last_before=moments[step.index - 1], step=step, verdict=verdict)
