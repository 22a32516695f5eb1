"""One metric of one case over commits: the series, and the first commit of every new level."""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Literal

from bench.comparison.baselines import fingerprint_of
from bench.comparison.compatibility import incompatibilities
from bench.comparison.runs import metric_values
from bench.comparison.steps import Step, find_changes, find_steps
from bench.comparison.verdicts import one_line
from bench.core.errors import InputError, UnknownNameError
from bench.core.git import run_git
from bench.core.schema import Better, Case, Metric, Record
from bench.core.stats import median

Order = Literal["git", "dates", "measured"]
Known = tuple[Record, Metric]
HASH = re.compile("[0-9a-f]{40,64}")


@dataclass(frozen=True, kw_only=True)
class CommitValue:
    """The median over the runs of one commit."""

    commit: str
    started_at: str
    value: float
    runs: int


@dataclass(frozen=True, kw_only=True)
class LevelChange:
    """A step of a series, named by the first commit after it."""

    first: CommitValue
    last_before: CommitValue
    step: Step
    verdict: Literal["worse", "better", "changed"]

    @property
    def change(self) -> float | None:
        """The change as a share of the level before; None if that is not above 0."""
        return self.step.after / self.step.before - 1 if self.step.before > 0 else None


@dataclass(frozen=True, kw_only=True)
class History:
    """A series in the order of its commits: by git, else by their dates, else in the order of measuring.

    The counts are of runs that are left out: `in_turns` were part of an A/B measurement; `unknown` name no commit;
    `uncommitted` had local changes or may have had; `throttled` count only for machine-dependent metrics; `unlike`
    were not measured as the newest was, in the fields `differing`.
    """

    case: Case
    metric: str
    unit: str
    commits: tuple[CommitValue, ...]
    changes: tuple[LevelChange, ...]
    order: Order = "measured"
    unknown: int = 0
    uncommitted: int = 0
    in_turns: int = 0
    throttled: int = 0
    unlike: int = 0
    differing: tuple[str, ...] = ()
    is_exact: bool = False


def history_of(
    records: Iterable[Record], metric: str, case: str, *, repository: Path = Path(), former: Sequence[str] = ()
) -> History:
    """Return the series of a metric (a name or key) and a case (an id, or part or pattern of its title) with its steps.

    `former` are cases that this one continues, such as those of a model's earlier name. `repository` is a folder in
    which git may know the commits. Raises InputError if there is no such metric or case, if several cases with the
    metric match, or if its runs come from several kinds of machine.
    """
    good = [record for record in records if record.is_good]
    of_case = [record for name in (*former, case) for record in _of_case(good, name, metric)]
    key = _key(of_case, metric)
    measured = sorted(_known(of_case, key), key=lambda each: each[0].started_at)
    known = [(record, found) for record, found in measured if record.in_turns is None]
    if not known:
        raise InputError(
            f"{case}: all runs with {metric} were part of an A/B measurement (vbench ab); a history needs others"
        )
    steady = [(record, found) for record, found in known if record.status != "throttled" or not found.is_of_machine]
    of_commits = [(record, found) for record, found in steady if record.environment.state.get("commit")]
    committed = [
        (record, found) for record, found in of_commits if record.environment.state.get("is_dirty", False) is False
    ]
    alike, differing = _like_newest(committed)
    _refuse_several_machines(alike, case)
    commits, order = _ordered(_by_commit(alike), alike, repository)
    sample = (alike or known)[-1][1]
    values = [each.value for each in commits]
    is_exact = all(found.is_count for _, found in alike)
    steps = find_changes(values) if is_exact else find_steps(values)
    return History(
        case=of_case[-1].case,
        metric=key,
        unit=sample.unit,
        commits=tuple(commits),
        changes=tuple(_level_change(step, commits, sample.better) for step in steps),
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


def _like_newest(known: Sequence[Known]) -> tuple[list[Known], tuple[str, ...]]:
    """Return the runs that were measured as the last one was, and the fields in which the others differ."""
    fields = [_differing_fields(each, known[-1]) for each in known]
    alike = [each for each, differing in zip(known, fields, strict=True) if not differing]
    return alike, tuple(dict.fromkeys(name for differing in fields for name in differing))


def _differing_fields(known: Known, newest: Known) -> list[str]:
    """Return the fields that forbid comparing these values, except the machine: versions, options, protocol, unit."""
    measure = known[1].name.partition(".")[0]
    own = measure if measure in newest[0].case.measures else None
    fields = incompatibilities([known[0]], [newest[0]], of_machine=False, measure=own)
    others = {
        "unit": known[1].unit != newest[1].unit,
        "uncounted operators": known[0].left_out_of(known[1]) != newest[0].left_out_of(newest[1]),
    }
    return [*(each.field for each in fields), *(name for name, is_unlike in others.items() if is_unlike)]


def _refuse_several_machines(known: Sequence[Known], case: str) -> None:
    machines = {fingerprint_of(record) for record, found in known if found.is_of_machine}
    if len(machines) > 1:
        raise InputError(
            f"{case}: its records come from {len(machines)} kinds of machine; give the files of one with --from"
        )


def _ordered(
    commits: Sequence[CommitValue], dated: Sequence[Known], repository: Path
) -> tuple[list[CommitValue], Order]:
    """Return the values in commit order, because a bisection measures old commits late."""
    if places := _places([each.commit for each in commits], repository):
        return sorted(commits, key=lambda each: places[each.commit]), "git"
    states = [record.environment.state for record, _ in dated]
    dates = {str(state["commit"]): str(state["committed_at"]) for state in states if state.get("committed_at")}
    if all(each.commit in dates for each in commits):
        return sorted(commits, key=lambda each: dates[each.commit]), "dates"
    return list(commits), "measured"


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


def _of_case(records: Sequence[Record], wanted: str, metric: str) -> list[Record]:
    """Return the records of the one case that matches `wanted`, among those with the metric, else among all."""
    with_metric = [record for record in records if metric in _names_known(record)]
    matching = _matching(with_metric, wanted) or _matching(records, wanted)
    if not matching:
        raise UnknownNameError("case", wanted, {one_line(record.case.title) for record in records})
    if len(matching) > 1:
        listed = ", ".join(f"{one_line(title)} ({i})" for i, title in list(matching.items())[:8])
        raise InputError(f"{wanted!r} matches {len(matching)} cases; give one of these, or its id: {listed}")
    return [record for record in records if record.case_id in matching]


def _matching(records: Sequence[Record], wanted: str) -> dict[str, str]:
    """Return by id the titles that equal `wanted` or whose id does; else those that contain or match it."""
    titles = {record.case_id: record.case.title for record in records}
    exact = {i: title for i, title in titles.items() if wanted in (i, title)}
    return exact or {i: title for i, title in titles.items() if wanted in title or fnmatchcase(title, wanted)}


def _names_known(record: Record) -> set[str]:
    return {name for metric in record.metrics if metric_values([metric]) for name in (metric.key, metric.name)}


def _key(records: Sequence[Record], wanted: str) -> str:
    keys = {m.key: m for record in records for m in record.metrics if metric_values([m])}
    matching = [key for key, m in keys.items() if wanted in (key, m.name)]
    if wanted in keys or len(matching) == 1:
        return wanted if wanted in keys else matching[0]
    if matching:
        raise InputError(f"{wanted} was measured several times; give one of: {', '.join(matching)}")
    raise UnknownNameError("metric", wanted, keys)


def _by_commit(dated: Sequence[Known]) -> list[CommitValue]:
    """Return one value per commit; a run that is in several files counts once."""
    once = {(r.environment.state["commit"], r.started_at, r.run_index): (r, m) for r, m in dated}
    grouped: dict[str, list[Known]] = {}
    for record, metric in sorted(once.values(), key=lambda each: each[0].started_at):
        grouped.setdefault(str(record.environment.state["commit"]), []).append((record, metric))
    return [
        CommitValue(
            commit=commit,
            started_at=members[0][0].started_at,
            value=median(metric_values([metric for _, metric in members])),
            runs=len(members),
        )
        for commit, members in grouped.items()
    ]


def _level_change(step: Step, commits: Sequence[CommitValue], better: Better | None) -> LevelChange:
    is_rise = step.after > step.before
    verdict: Literal["worse", "better", "changed"] = "changed"
    if better is not None:
        verdict = "better" if is_rise == (better == "higher") else "worse"
    return LevelChange(first=commits[step.index], last_before=commits[step.index - 1], step=step, verdict=verdict)
