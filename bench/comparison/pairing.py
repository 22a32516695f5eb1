"""Which case of head answers to which case of base, and which are left over."""

from collections import Counter
from collections.abc import Callable, Collection, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from bench.comparison.likeness import RUN_AXES
from bench.comparison.outcome import Uncompared
from bench.comparison.sides import CaseRuns, Side
from bench.core.schema import Record, digest

Key = Callable[[CaseRuns], Hashable]


@dataclass(frozen=True, kw_only=True)
class Pair:
    """One case with good runs on both sides."""

    base: CaseRuns
    head: CaseRuns


def pair_cases(
    base: Side, head: Side, *, differing: Collection[str] = (), partners: Mapping[str, str] | None = None
) -> list[Pair]:
    """Cases of one suite and point, then of one case in suites of other names, then of one point with other measures.

    Only where nothing at all is the same are cases paired that differ in how they were run, such as in precision. Where
    `model` is among what is meant to differ, models do not matter, and their arguments only where they tell cases
    apart. Where `partners` are known, ids of base by ids of head, those are the pairs.
    """
    old, new = ([case for case in side.cases.values() if case.runs] for side in (base, head))
    if partners is not None:
        return _matched(old, [case for case in new if case.id in partners], _id, lambda case: partners[case.id])
    if "model" in differing:
        return _matched_by(old, new, (_point_but_name, _point_but_model))
    return _matched_by(old, new, (_suite_and_id, _id, _point)) or _matched(old, new, _point_but_run)


def left_over(base: Side, head: Side, pairs: Sequence[Pair]) -> tuple[list[Uncompared], list[Uncompared]]:
    """Cases of base that head lacks, and cases of head that base lacks. A case that failed on its side is no gap."""
    paired = {id(case) for pair in pairs for case in (pair.base, pair.head)}
    missing = [
        _uncompared(case, "base", "has results in base and none in head that answer to them")
        for key, case in base.cases.items()
        if id(case) not in paired and case.runs and not _is_failed(key, head)
    ]
    added = [
        _uncompared(case, "head", "failed in base" if _is_failed(key, base) else "is not in base")
        for key, case in head.cases.items()
        if id(case) not in paired and case.runs
    ]
    return missing, added


def _is_failed(key: tuple[str, str], side: Side) -> bool:
    return key in side.cases and not side.cases[key].runs


def failures_of(side: Side, name: str, *, other: Side) -> Iterator[Uncompared]:
    """Every run of this side that ended without a result and was not done again; what both sides skip is none."""
    for key, case in side.cases.items():
        has_other = key in other.cases and bool(other.cases[key].runs)
        for record in case.failures:
            if record.status == "skipped" and not has_other:
                continue
            of = f"run {record.run_index} of {case.case.runs}" if case.case.runs > 1 else "the run"
            yield _uncompared(case, name, f"{of} ended as {record.status}{_error_text(record)}")


def departures_of(pairs: Sequence[Pair]) -> Iterator[Uncompared]:
    """Cases whose outputs are out of tolerance in head and were not in base: how fast they are says nothing."""
    for pair in pairs:
        if _is_within(pair.base) is not False and _is_within(pair.head) is False:
            yield _uncompared(
                pair.head, "head", "its outputs are out of tolerance (parity), so how fast it is says nothing"
            )


def _is_within(case: CaseRuns) -> bool | None:
    """Whether every run's outputs are within tolerance of eager fp32; None where none was looked at."""
    noted = [record.details.get("parity") for record in case.records]
    known = [bool(each["is_within_tolerance"]) for each in noted if isinstance(each, dict)]
    return all(known) if known else None


def _uncompared(case: CaseRuns, side: str, why: str) -> Uncompared:
    return Uncompared(
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


def _matched_by(base: Sequence[CaseRuns], head: Sequence[CaseRuns], keys: Sequence[Key]) -> list[Pair]:
    """Pairs by the first key, then of the rest by the next."""
    pairs: list[Pair] = []
    for key in keys:
        used = {id(case) for pair in pairs for case in (pair.base, pair.head)}
        old, new = ([case for case in side if id(case) not in used] for side in (base, head))
        pairs += _matched(old, new, key)
    return pairs


def _matched(
    base: Sequence[CaseRuns], head: Sequence[CaseRuns], key: Key, key_in_head: Key | None = None
) -> list[Pair]:
    """Pairs with equal keys, where a key names one case on either side."""
    old, new = [key(case) for case in base], [(key_in_head or key)(case) for case in head]
    counts = Counter(old), Counter(new)
    by_key = dict(zip(new, head, strict=True))
    return [
        Pair(base=case, head=by_key[k]) for case, k in zip(base, old, strict=True) if counts[0][k] == counts[1][k] == 1
    ]


def _suite_and_id(case: CaseRuns) -> Hashable:
    return case.case.suite, case.id


def _id(case: CaseRuns) -> Hashable:
    return case.id


def _point(case: CaseRuns) -> Hashable:
    return digest(case.case.point.model_dump(mode="json", exclude_none=True))


def _point_but_name(case: CaseRuns) -> Hashable:
    point = case.case.point.model_dump(mode="json", exclude_none=True, exclude={"model"})
    return digest([point, sorted(case.case.measures)])


def _point_but_model(case: CaseRuns) -> Hashable:
    point = case.case.point.model_dump(mode="json", exclude_none=True, exclude={"model", "args"})
    return digest([point, sorted(case.case.measures)])


def _point_but_run(case: CaseRuns) -> Hashable:
    point = case.case.point.model_dump(mode="json", exclude_none=True, exclude=set(RUN_AXES))
    return digest([point, sorted(case.case.measures)])
