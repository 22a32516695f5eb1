"""All series of a history at once: what became worse and why, what drifts, and which series are in quarantine."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from bench.comparison.causes import changed_layers, collapsed
from bench.comparison.history import (
    History,
    LevelChange,
    LevelVerdict,
    Order,
    commit_order,
    earlier_series,
    joined_series,
    series_history,
)
from bench.comparison.series import Series, SeriesSet
from bench.comparison.verdicts import one_line, percent
from bench.core.errors import InputError, UnknownNameError
from bench.core.schema import digest
from bench.core.units import format_value, plural

NEAR = 3  # commits by which noise may move the place of a step
MOST_OF_MACHINE, LEAST_MODELS = 0.8, 3  # share of the timings of a machine that moved at once, and of how many models


@dataclass(frozen=True, kw_only=True)
class MovedMetric:
    """One metric of one case whose level changed, on one machine if it depends on that; `change` is a share."""

    case: str
    case_id: str
    metric: str
    unit: str
    verdict: LevelVerdict
    before: float
    after: float
    change: float | None
    machine: str = ""
    is_exact: bool = False


@dataclass(frozen=True, kw_only=True)
class ChangedCommit:
    """A commit and all changes that came with it. `causes` are changed layers and machine facts, or a suspicion.

    The change came after `last_before`, the last commit with earlier values, and with `first` or before it.
    """

    first: str
    last_before: str
    measured_at: str
    verdict: LevelVerdict
    causes: tuple[str, ...]
    moved: tuple[MovedMetric, ...]


@dataclass(frozen=True, kw_only=True)
class DriftingSeries:
    """A metric whose level moves gradually from one commit to another."""

    case: str
    case_id: str
    metric: str
    machine: str
    verdict: LevelVerdict
    first: str
    last: str
    change: float | None


@dataclass(frozen=True, kw_only=True)
class QuarantinedSeries:
    """A series that gives no alarms: why, and after how many more commits on one level it does again."""

    case: str
    case_id: str
    metric: str
    machine: str
    why: str
    until_commits: int


@dataclass(frozen=True, kw_only=True)
class Overview:
    """What a history of many series shows. `machines` maps the id of each kind of machine to its name.

    `alarms` are worse; `improvements` are better; `unconfirmed` counts steps that have not lasted or are within noise.
    `without_canary` counts the timing series whose machine has no canary.
    """

    series: int
    commits: int
    order: Order
    newest: str
    machines: Mapping[str, str]
    alarms: tuple[ChangedCommit, ...]
    improvements: tuple[ChangedCommit, ...]
    drifts: tuple[DriftingSeries, ...]
    quarantine: tuple[QuarantinedSeries, ...]
    unconfirmed: int = 0
    without_canary: int = 0


@dataclass(frozen=True, kw_only=True)
class _Event:
    history: History
    change: LevelChange
    place: int
    earliest: int  # place of the last commit before


def overview_of(known: SeriesSet, *, metric: str = "*", case: str = "*", repository: Path = Path()) -> Overview:
    """Return what all series show whose metric and case match; only metrics with a better direction are searched.

    Raises UnknownNameError if none matches, and InputError if no run of them belongs to a commit.
    """
    chosen = list(_chosen(known, metric, case))
    runs = [run for series in chosen for run in series.runs]
    if not runs:
        raise InputError(f"no run of {plural(len(chosen), 'series', 'series')} was measured alone at a clean commit")
    order = commit_order(runs, repository)
    histories = [series_history(each, known.machines, order=order) for each in chosen if each.runs]
    events = [
        _Event(
            history=history,
            change=change,
            place=order.places[change.first.commit],
            earliest=order.places[change.last_before.commit],
        )
        for history in histories
        for change in history.changes
        if change.is_alarm or (change.verdict == "better" and _is_sure(history, change))
    ]
    groups = [_changed_commit(group, histories, known) for group in _grouped(events)]
    return Overview(
        series=sum(max(1, len(history.machines)) for history in histories),
        commits=len({run.commit for run in runs}),
        order=order.known_by,
        newest=max({run.commit for run in runs}, key=lambda commit: order.places[commit]),
        machines={run.machine: known.machines[run.machine] for run in runs if run.machine},
        alarms=tuple(group for group in groups if group.verdict == "worse"),
        improvements=tuple(group for group in groups if group.verdict == "better"),
        drifts=tuple(_drifts(histories)),
        quarantine=tuple(_quarantined(histories)),
        unconfirmed=sum(len(history.changes) for history in histories) - len(events),
        without_canary=sum(not machine.canary for history in histories for machine in history.machines),
    )


def _chosen(known: SeriesSet, metric: str, case: str) -> Iterator[Series]:
    """Yield the series that match, each with those of its model's former names, which are not series of their own."""
    directed = {key: series for key, series in known.series.items() if series.metric.better is not None}
    names = {key for _, key in directed} | {key.partition("{")[0] for _, key in directed}
    of_metric = {
        key: series
        for key, series in directed.items()
        if _matches(key[1], metric) or _matches(key[1].partition("{")[0], metric)
    }
    if not of_metric:
        raise UnknownNameError("metric", metric, names)
    found = {
        key: series
        for key, series in of_metric.items()
        if case == key[0] or _matches(series.case.title, case, part=True)
    }
    if not found:
        titles = {one_line(each.case.title) for each in of_metric.values()}
        raise UnknownNameError("case", case, titles, of_parts=True)
    earlier = {key: earlier_series(known, series) for key, series in found.items()}
    part_of_others = {id(each) for parts in earlier.values() for each in parts}
    for key, series in found.items():
        if id(series) not in part_of_others:
            yield joined_series([*earlier[key], series])


def _matches(text: str, wanted: str, *, part: bool = False) -> bool:
    return text == wanted or fnmatchcase(text, wanted) or (part and wanted in text)


def _is_sure(history: History, change: LevelChange) -> bool:
    """Whether an improvement is as certain as an alarm."""
    flaky = any(machine.quarantine for machine in history.machines if machine.id == change.machine)
    return change.is_significant and not flaky


def _grouped(events: Sequence[_Event]) -> list[list[_Event]]:
    """Return events that may have one cause: exact ones by commit, noisy ones with the nearest of those or others."""
    groups: dict[tuple[int, str], list[_Event]] = {}
    for event in sorted(events, key=lambda each: (not each.history.is_exact, each.place)):
        near = [
            (abs(place - event.place), place)
            for place, verdict in groups
            if verdict == event.change.verdict and event.earliest - NEAR < place <= event.place + NEAR
        ]
        place = event.place if event.history.is_exact or not near else min(near)[1]
        groups.setdefault((place, event.change.verdict), []).append(event)
    return [groups[key] for key in sorted(groups)]


def _changed_commit(group: Sequence[_Event], histories: Sequence[History], known: SeriesSet) -> ChangedCommit:
    """Return the commit of a group: that of its exact changes, else the narrowest range that all agree on."""
    exact = [event for event in group if event.history.is_exact] or list(group)
    first = min(exact, key=lambda event: event.place)
    last_before = max((event for event in exact if event.earliest < first.place), key=lambda event: event.earliest)
    return ChangedCommit(
        first=first.change.first.commit,
        last_before=last_before.change.last_before.commit,
        measured_at=first.change.first.started_at,
        verdict="worse" if first.change.verdict == "changed" else first.change.verdict,
        causes=tuple(_causes(group, histories, known)),
        moved=tuple(
            MovedMetric(
                case=one_line(event.history.case.title),
                case_id=event.history.case.id,
                metric=event.history.metric,
                unit=event.history.unit,
                verdict=event.change.verdict,
                before=event.change.step.before,
                after=event.change.step.after,
                change=event.change.change,
                machine=event.change.machine,
                is_exact=event.history.is_exact,
            )
            for event in group
        ),
    )


def _causes(group: Sequence[_Event], histories: Sequence[History], known: SeriesSet) -> Iterator[str]:
    """Yield the changed layers of each model and the changed facts of the machine; a suspicion if there are none."""
    models: dict[str, list[_Event]] = {}
    for event in group:
        point = event.history.case.point
        models.setdefault(digest({"model": point.model, "args": dict(point.args)}), []).append(event)
    explained = False
    for events in models.values():
        text = next(filter(None, (_layers_text(event, known) for event in events)), "")
        has_counts = any(event.history.is_exact for event in events)
        name = events[0].history.case.point.model
        if text or has_counts:
            explained = True
            yield text or f"{name}: its counts changed; the history does not say in which layers"
    timed = [event for event in group if not event.history.is_exact]
    facts = dict.fromkeys(text for event in timed for text in _changed_facts(event, known))
    yield from facts
    if not (explained or facts):
        yield from _without_cause(timed, histories)


def _layers_text(event: _Event, known: SeriesSet) -> str:
    """Return the layers that differ between the commits of a change, as `net: blocks.2 added: … (nets.py:19)`."""
    ids = [i for i, case in known.cases.items() if case.point.model == event.history.case.point.model]
    for case_id in ids:
        same_args = known.cases[case_id].point.args == event.history.case.point.args
        tables = known.layers.get(case_id, {})
        sides = [tables.get(commit.commit) for commit in (event.change.last_before, event.change.first)]
        if same_args and sides[0] and sides[1]:
            (old, _), (new, source) = sides[0].read(), sides[1].read()
            if changes := changed_layers(old, new):
                what = "; ".join(map(str, collapsed(changes)))
                return one_line(f"{event.history.case.point.model}: {what}{f' ({source})' if source else ''}")
    return ""


def _changed_facts(event: _Event, known: SeriesSet) -> Iterator[str]:
    old, new = (known.environments[each.facts] for each in (event.change.last_before, event.change.first))
    for name in dict.fromkeys([*old, *new]):
        if old.get(name) != new.get(name):
            before, after = (facts.get(name, "unknown") for facts in (old, new))
            yield one_line(f"the machine changed: {name}: {before} before, {after} after")


def _without_cause(timed: Sequence[_Event], histories: Sequence[History]) -> Iterator[str]:
    """Yield a suspicion if no count and no fact of the machine changed: the machine itself, or the code."""
    machines = {event.change.machine for event in timed}
    models = {event.history.case.point.model for event in timed}
    for machine in sorted(machines):
        of_machine = [
            history
            for history in histories
            if not history.is_exact and any(each.id == machine for each in history.machines)
        ]
        moved = sum(event.change.machine == machine for event in timed)
        if len(models) >= LEAST_MODELS and moved >= MOST_OF_MACHINE * len(of_machine):
            yield (
                f"{moved} of {plural(len(of_machine), 'timing')} on this machine moved at once and no count changed: "
                "probably the machine"
            )
            return
    yield "no count and no fact of the machine changed: an operator, a memory layout or a library"


def _drifts(histories: Sequence[History]) -> Iterator[DriftingSeries]:
    for history in histories:
        for drift in history.drifts:
            yield DriftingSeries(
                case=one_line(history.case.title),
                case_id=history.case.id,
                metric=history.metric,
                machine=drift.machine,
                verdict=drift.verdict,
                first=drift.first.commit,
                last=drift.last.commit,
                change=drift.after / drift.before - 1 if drift.before > 0 else None,
            )


def _quarantined(histories: Sequence[History]) -> Iterator[QuarantinedSeries]:
    for history in histories:
        for machine in history.machines:
            if machine.quarantine:
                yield QuarantinedSeries(
                    case=one_line(history.case.title),
                    case_id=history.case.id,
                    metric=history.metric,
                    machine=machine.id,
                    why=machine.quarantine.why,
                    until_commits=machine.quarantine.until_commits,
                )


def moved_text(moved: MovedMetric) -> str:
    """Return `latency.p50_ms +5.0 % (20 ms to 21 ms)`."""
    levels = f"{format_value(moved.before, moved.unit)} to {format_value(moved.after, moved.unit)}"
    change = "changed" if moved.change is None else percent(moved.change)
    return f"{one_line(moved.metric)} {change} ({levels})"
