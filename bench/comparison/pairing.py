"""Which case of head belongs to which case of base, and which runs of the two were measured close in time."""

import math
from collections import Counter
from collections.abc import Callable, Collection, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import groupby, pairwise
from operator import itemgetter

from bench.comparison.compatibility import RUN_AXES
from bench.comparison.runs import CaseRuns, MetricRuns, Run, SideRuns, metric_values
from bench.comparison.verdicts import UncomparedCase
from bench.core.schema import Metric, Record, digest
from bench.core.stats import median

MIN_RUNS = 4
MIN_TURNS = 5
MIN_SESSIONS = 5
SESSION_GAP = timedelta(hours=1)
LARGEST_LOGARITHM = 709.0

CaseKey = Callable[[CaseRuns], Hashable]
Values = tuple[float, ...]
SessionValues = tuple[tuple[Values, ...], tuple[Values, ...]]


@dataclass(frozen=True, kw_only=True)
class CasePair:
    """One case with successful runs on both sides."""

    base: CaseRuns
    head: CaseRuns


def pair_cases(
    base: SideRuns, head: SideRuns, *, differing: Collection[str] = (), partners: Mapping[str, str] | None = None
) -> list[CasePair]:
    """Pair cases by suite and id, then by id in suites of other names, then by point with other measures.

    Cases of renamed models are paired with those of their former names. Only if no case matches, cases are paired that
    differ in how they ran, such as in precision. If `model` is in `differing`, model names are ignored, and model
    arguments too unless they distinguish cases. `partners` maps ids of head to ids of base and replaces all of this.
    """
    old, new = ([case for case in side.cases.values() if case.runs] for side in (base, head))
    if partners is not None:
        return _matched(old, [case for case in new if case.id in partners], _id, lambda case: partners[case.id])
    if "model" in differing:
        return _matched_by(old, new, (_point_without("model"), _point_without("model", "args")))
    pairs = _matched_by(old, new, (_suite_and_id, _id, _point))
    used = {id(case) for pair in pairs for case in (pair.base, pair.head)}
    left, come = ([case for case in side if id(case) not in used] for side in (old, new))
    pairs += _matched(
        left, [case for case in come if case.case.point.model in head.renamed], _point, _former(head.renamed)
    )
    return pairs or _matched(old, new, _point_without(*RUN_AXES))


def measured_alike(pair: CasePair) -> CasePair:
    """Return the pair with the runs that were measured in one way: alone, or in turns with the other side.

    A folder may hold both. If both sides have runs of several ways, the one with more runs on the poorer side is used,
    and of equal ones the runs that were measured alone. A pair without a common way stays as it is.
    """
    ways = [[record.in_turns for record in side.records] for side in (pair.base, pair.head)]
    common = [way for way in dict.fromkeys(ways[0]) if way in ways[1]]
    if not common or len({*map(str, ways[0]), *map(str, ways[1])}) == 1:
        return pair
    best = max(common, key=lambda way: (min(side.count(way) for side in ways), way is None))
    base, head = (
        replace(side, runs=tuple(run for run in side.runs if run.record.in_turns == best))
        for side in (pair.base, pair.head)
    )
    return CasePair(base=base, head=head)


def unpaired_cases(
    base: SideRuns, head: SideRuns, pairs: Sequence[CasePair]
) -> tuple[list[UncomparedCase], list[UncomparedCase]]:
    """Return cases of base that head lacks, and cases of head that base lacks; failed cases are in neither list."""
    paired = {id(case) for pair in pairs for case in (pair.base, pair.head)}
    missing = [
        _uncompared(case, "base", "base has results and head has none for this case")
        for key, case in base.cases.items()
        if id(case) not in paired and case.runs and not _is_failed(key, head)
    ]
    added = [
        _uncompared(case, "head", "failed in base" if _is_failed(key, base) else "is not in base")
        for key, case in head.cases.items()
        if id(case) not in paired and case.runs
    ]
    return missing, added


def _is_failed(key: tuple[str, str], side: SideRuns) -> bool:
    return key in side.cases and not side.cases[key].runs


def failed_runs(side: SideRuns, name: str, *, other: SideRuns) -> Iterator[UncomparedCase]:
    """Yield every run of this side that ended without a result, unless both sides skip the case."""
    for key, case in side.cases.items():
        has_other = key in other.cases and bool(other.cases[key].runs)
        for record in case.failures:
            if record.status == "skipped" and not has_other:
                continue
            run = f"run {record.run_index} of {case.case.runs}" if case.case.runs > 1 else "the run"
            yield _uncompared(case, name, f"{run} ended as {record.status}{_error_text(record)}")


def wrong_outputs(pairs: Sequence[CasePair]) -> Iterator[UncomparedCase]:
    """Yield cases whose outputs are out of tolerance in head only, because the speed of wrong outputs is no result."""
    for pair in pairs:
        if _has_parity(pair.base) is not False and _has_parity(pair.head) is False:
            yield _uncompared(
                pair.head, "head", "its outputs are out of tolerance (parity), so its speed is not compared"
            )


def _has_parity(case: CaseRuns) -> bool | None:
    """Whether the outputs of every run are finite and match eager fp32 within tolerance; None if no run checked it."""
    noted = [(record.details.get("parity"), "is_within_tolerance") for record in case.records]
    noted += [(record.details.get("outputs"), "are_finite") for record in case.records]
    known = [bool(each[key]) for each, key in noted if isinstance(each, dict)]
    return all(known) if known else None


def _uncompared(case: CaseRuns, side: str, why: str) -> UncomparedCase:
    return UncomparedCase(
        suite=case.case.suite,
        case_id=case.id,
        case=case.case.title,
        side="base" if side == "base" else "head",
        why=why,
    )


def _error_text(record: Record) -> str:
    if record.error is None:
        return ""
    return f": {record.error.type}: {record.error.message.partition(chr(10))[0]}"


def _matched_by(base: Sequence[CaseRuns], head: Sequence[CaseRuns], keys: Sequence[CaseKey]) -> list[CasePair]:
    """Pair by the first key, then the remaining cases by the next key."""
    pairs: list[CasePair] = []
    for key in keys:
        used = {id(case) for pair in pairs for case in (pair.base, pair.head)}
        old, new = ([case for case in side if id(case) not in used] for side in (base, head))
        pairs += _matched(old, new, key)
    return pairs


def _matched(
    base: Sequence[CaseRuns], head: Sequence[CaseRuns], key: CaseKey, key_in_head: CaseKey | None = None
) -> list[CasePair]:
    """Pair cases with equal keys, if each key occurs once on either side."""
    old, new = [key(case) for case in base], [(key_in_head or key)(case) for case in head]
    counts = Counter(old), Counter(new)
    by_key = dict(zip(new, head, strict=True))
    return [
        CasePair(base=case, head=by_key[k])
        for case, k in zip(base, old, strict=True)
        if counts[0][k] == counts[1][k] == 1
    ]


def _suite_and_id(case: CaseRuns) -> Hashable:
    return case.case.suite, case.id


def _id(case: CaseRuns) -> Hashable:
    return case.id


def _point(case: CaseRuns) -> Hashable:
    return digest(case.case.point.model_dump(mode="json", exclude_none=True))


def _former(renamed: Mapping[str, str]) -> CaseKey:
    """Key by the point as it was before the model was renamed."""

    def key(case: CaseRuns) -> Hashable:
        point = case.case.point.model_dump(mode="json", exclude_none=True)
        return digest({**point, "model": renamed.get(point["model"], point["model"])})

    return key


def _point_without(*axes: str) -> CaseKey:
    """Key by the point without these axes, and by the measures."""

    def key(case: CaseRuns) -> Hashable:
        point = case.case.point.model_dump(mode="json", exclude_none=True, exclude=set(axes))
        return digest([point, sorted(case.case.measures)])

    return key


def paired_values(base: MetricRuns, head: MetricRuns) -> list[tuple[float, float]]:
    """Return the values of runs with equal index: an A/B measurement takes such runs one right after the other."""
    old, new = ({run.record.run_index: metric for run, metric in side.known} for side in (base, head))
    return [pair_of_values(old[index], new[index]) for index in sorted(old.keys() & new.keys())]


def pair_of_values(base: Metric, head: Metric) -> tuple[float, float]:
    """Return the values of one metric in two runs that were measured together.

    If their steps took turns, head's value is base's value times the median over turns of head's turn / base's turn:
    a disturbance that lasts longer than a turn affects both and cancels in the ratio.
    """
    old, new = metric_values([base, head])
    before, after = _turn_medians(base), _turn_medians(head)
    steps = [math.log(after[turn]) - math.log(before[turn]) for turn in before.keys() & after.keys()]
    scaled = old * ratio_of(median(steps)) if len(steps) >= MIN_TURNS else new
    return old, scaled if math.isfinite(scaled) else new


def ratio_of(logarithm: float) -> float:
    """Return e to the power of `logarithm`; infinity if no float holds it."""
    return math.exp(logarithm) if logarithm < LARGEST_LOGARITHM else math.inf


def _turn_medians(metric: Metric) -> dict[int, float]:
    """Return the median of each turn's samples by turn number; empty if any sample is not above 0."""
    if any(sample <= 0 for sample in metric.samples):
        return {}
    numbered = zip(metric.turns, metric.samples, strict=False)
    return {turn: median([sample for _, sample in each]) for turn, each in groupby(numbered, key=itemgetter(0))}


# Runs of one session share the clocks, temperature and neighbours of their machine: docs/decisions/0006.


def shared_session_values(base: MetricRuns, head: MetricRuns) -> tuple[Values, Values] | None:
    """Return the values from sessions that hold runs of both sides; None for fewer than four a side.

    A session ends where another invocation of vbench began an hour or more after the previous run.
    """
    shared = [session for session in _values_by_session(base, head) if all(session)]
    old, new = (tuple(value for session in shared for value in session[side]) for side in (0, 1))
    return (old, new) if min(len(old), len(new)) >= MIN_RUNS else None


def separate_sessions(base: MetricRuns, head: MetricRuns) -> SessionValues | None:
    """Return the values of either side by session; None if enough runs share sessions to be compared directly.

    If too few do, the runs of base and of head in one session count as a session each.
    """
    if shared_session_values(base, head) is not None:
        return None
    found = _values_by_session(base, head)
    return tuple(old for old, _ in found if old), tuple(new for _, new in found if new)


def are_enough_sessions(sessions: Sequence[Sequence[Sequence[float]]] | None) -> bool:
    """Whether there are so many sessions of both sides together that their spread can be estimated."""
    return sessions is not None and sum(map(len, sessions)) >= MIN_SESSIONS


def sessions_of_side(side: MetricRuns) -> tuple[Values, ...]:
    """Return the values of one side by session."""
    return tuple(old for old, _ in _values_by_session(side, replace(side, known=())))


def _values_by_session(base: MetricRuns, head: MetricRuns) -> list[tuple[Values, Values]]:
    """Return for each session the values of base and those of head."""
    values = {
        id(run): (side, value)
        for side, runs in enumerate((base, head))
        for (run, _), value in zip(runs.known, runs.values, strict=True)
    }
    found = []
    for session in _sessions([run for runs in (base, head) for run, _ in runs.known]):
        members = [values[id(run)] for run in session]
        old, new = (tuple(value for side, value in members if side == number) for number in (0, 1))
        found.append((old, new))
    return found


def _sessions(runs: Sequence[Run]) -> Iterator[list[Run]]:
    """Yield runs in the order of their start, by session."""
    ordered = sorted(runs, key=lambda run: (run.record.started_at, run.record.run_index))
    session = ordered[:1]
    for before, run in pairwise(ordered):
        if _begins_session(before, run):
            yield session
            session = []
        session.append(run)
    if session:
        yield session


def _begins_session(before: Run, run: Run) -> bool:
    try:
        first, second = (datetime.fromisoformat(each.record.started_at) for each in (before, run))
        return _is_other_invocation(before, run) and second - first >= SESSION_GAP
    except (ValueError, TypeError):  # a time is missing, or only one of the two has a time zone
        return False


def _is_other_invocation(before: Run, run: Run) -> bool:
    """Decide by the session ids in the records; without ids by folder, and by a run index that does not rise."""
    named = {before.record.session, run.record.session}
    if named != {None}:
        return len(named) > 1
    return run.folder != before.folder or run.record.run_index <= before.record.run_index
