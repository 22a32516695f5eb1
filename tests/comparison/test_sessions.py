"""Base and head in sessions of their own: which runs share one, and how much of a change is believed then."""

import math
from collections.abc import Callable, Sequence
from itertools import count
from pathlib import Path

import numpy as np
import pytest
from scipy import stats as scipy_stats

from bench.comparison.comparing import compare
from bench.comparison.evidence import change_of_sessions, noise_floor
from bench.comparison.pairing import SessionValues, separate_sessions
from bench.comparison.runs import MetricRuns, Run
from bench.comparison.verdicts import MetricVerdict
from bench.core.schema import Record
from bench.store import RecordStore

QUIET = [10.00, 10.02, 9.98, 10.01, 9.99]
KEY = "latency.p50_ms"
Runs = Callable[..., list[Record]]


def times(values: Sequence[float], factor: float) -> list[float]:
    return [value * factor for value in values]


@pytest.fixture
def on_day(runs: Runs) -> Callable[..., list[Record]]:
    """Runs a minute apart on a day of January, after midnight by so many."""

    def make(values: Sequence[float], day: int, *, minute: int = 0, **given: object) -> list[Record]:
        made = runs(values, **given)
        at = [f"2026-01-{day:02d}T00:{minute + place:02d}:00" for place in range(len(made))]
        return [record.model_copy(update={"started_at": when}) for record, when in zip(made, at, strict=True)]

    return make


def only(base: object, head: object, **given: object) -> MetricVerdict:
    (row,) = compare(base, head, **given).rows  # type: ignore[arg-type]
    return row


def order(runs: Runs, text: str, *, hours: int = 0) -> SessionValues | None:
    """SessionValues of runs that take place in this order, a minute or so many hours apart: `A` is base, `B` is head.

    Values are the places in the order; a bar begins another invocation of vbench.
    """
    sides: tuple[list[Run], list[Run]] = ([], [])
    place, index, folder = count(), 0, 0
    for letter in text:
        if letter == "|":
            index, folder = 0, folder + 1
            continue
        now = next(place)
        at = f"2026-01-{1 + now * hours // 24:02d}T{now * hours % 24:02d}:{0 if hours else now:02d}:00"
        [record] = runs([float(now)])
        record = record.model_copy(update={"started_at": at, "run_index": index})
        sides["AB".index(letter)].append(Run(record=record, folder=Path(str(folder))))
        index += 1
    return separate_sessions(*(MetricRuns.of(side, KEY) for side in sides))


@pytest.mark.parametrize("text", ["ABABABAB", "AAAABBBB", "A|B|A|B|AA|BB", "AA|AA|BBBBB", "AABBBBAA"])
def test_runs_within_the_hour_share_a_session(runs: Runs, text: str) -> None:
    assert order(runs, text) is None


def test_too_few_runs_in_a_session_of_both_are_a_session_on_either_side(runs: Runs) -> None:
    assert order(runs, "AAABBBB") == (((0, 1, 2),), ((3, 4, 5, 6),))
    assert order(runs, "AA|A|B", hours=1) == (((0, 1), (2,)), ((3,),))
    assert order(runs, "AAAA|AABB|BBBB", hours=0) is None, "one session, in several invocations"


def test_another_session_is_another_invocation_an_hour_or_more_later(runs: Runs) -> None:
    assert order(runs, "AA|AA|BBB", hours=1) == (((0, 1), (2, 3)), ((4, 5, 6),))
    assert order(runs, "BBB|AAA|BB|A", hours=1) == (((3, 4, 5), (8,)), ((0, 1, 2), (6, 7)))
    assert order(runs, "AAAA|BBB", hours=5) == (((0, 1, 2, 3),), ((4, 5, 6),)), "one invocation may take its time"


def test_a_session_that_holds_runs_of_both_makes_all_of_them_comparable(runs: Runs) -> None:
    assert order(runs, "ABABABAB|AA", hours=0) is None


def test_enough_runs_of_shared_sessions_are_compared_alone(
    nightly: Callable[..., list[Path]], on_day: Callable[..., list[Record]]
) -> None:
    """Half an hour after the fourth night, which was 8 % slower than those before, head is 2 % slower than that."""
    nights = nightly(1.0, 1.001, 0.999, 1.08)
    row = only(nights, on_day(times(QUIET, 1.08 * 1.02), 4, minute=30))
    assert row.verdict == "same"
    assert row.runs == (5, 5)
    assert row.ratio == pytest.approx(1.02)
    assert row.base == pytest.approx(10.8)
    assert "over the 5 and 5 runs of sessions that hold both" in row.reason
    worse = only(nights, on_day(times(QUIET, 1.08 * 1.05), 4, minute=30))
    assert worse.verdict == "worse"


def test_a_session_of_both_with_too_few_runs_leaves_the_other_sessions_to_tell(
    nightly: Callable[..., list[Path]], on_day: Callable[..., list[Record]]
) -> None:
    nights = nightly(1.0, 1.001, 0.999, 1.0005)
    head = [*on_day(QUIET[:2], 4, minute=30), *on_day(QUIET[:3], 9)]
    assert "over 4 and 2 sessions" in only(nights, head).reason


def test_times_that_cannot_be_read_or_are_equal_are_no_crash(runs: Runs) -> None:
    base, head = runs(QUIET, started_at="at noon"), runs(QUIET, started_at="at noon")
    assert only(base, head).verdict == "same"
    assert only(runs(QUIET, started_at="a"), runs(QUIET, started_at="2026-01-01T00:00:00+00:00")).verdict == "same"


def test_two_sessions_are_compared_by_runs_with_a_note(on_day: Callable[..., list[Record]]) -> None:
    base, head = on_day(QUIET, 1), on_day(times(QUIET, 1.035), 2)
    row = only(base, head)
    assert row.verdict == "worse"
    assert "sessions" not in row.reason
    assert any("one after the other" in note for note in compare(base, head).notes)


@pytest.fixture
def nightly(tmp_path: Path, on_day: Callable[..., list[Record]]) -> Callable[..., list[Path]]:
    """Results of one session a night, each as much slower than the first as its factor says."""

    def make(*factors: float) -> list[Path]:
        folders = []
        for day, factor in enumerate(factors, start=1):
            store = RecordStore(tmp_path / f"night{day}")
            for record in on_day(times(QUIET, factor), day):
                store.append(record)
            folders.append(store.folder)
        return folders

    return make


def test_sessions_of_base_give_the_spread_between_sessions(
    nightly: Callable[..., list[Path]], on_day: Callable[..., list[Record]]
) -> None:
    quiet = nightly(1.0, 1.001, 0.999, 1.0005, 0.9995)
    assert only(quiet, on_day(times(QUIET, 1.035), 20)).verdict == "worse"
    row = only(quiet, on_day(QUIET, 20))
    assert row.verdict == "same"
    assert "over 5 and 1 sessions" in row.reason


def test_verdicts_over_sessions_have_no_note_on_two_sessions(
    nightly: Callable[..., list[Path]], on_day: Callable[..., list[Record]]
) -> None:
    nights = nightly(1.0, 1.001, 0.999, 1.0005, 0.9995)
    assert not compare(nights, on_day(QUIET, 20)).notes
    assert any("one after the other" in note for note in compare(nights[:3], on_day(QUIET, 20)).notes)


def test_loud_sessions_of_base_make_a_change_uncertain(
    nightly: Callable[..., list[Path]], on_day: Callable[..., list[Record]]
) -> None:
    row = only(nightly(1.0, 1.03, 0.97, 1.02, 0.98), on_day(times(QUIET, 1.08), 20))
    assert row.verdict == "inconclusive"
    assert "more sessions would decide it" in row.reason


def test_a_change_between_sessions_is_students_on_their_medians() -> None:
    base = [[10.0, 10.1, 9.9], [10.4, 10.5, 10.3], [9.8, 9.7, 9.9], [10.2, 10.2, 10.6]]
    head = [[11.0, 11.1, 11.2], [10.8, 10.6, 10.7]]
    medians = [[math.log(float(np.median(each))) for each in side] for side in (base, head)]
    reference = scipy_stats.ttest_ind(medians[1], medians[0], equal_var=True)
    interval = reference.confidence_interval(0.95)
    change = change_of_sessions(base, head)
    assert (change.low, change.high) == pytest.approx((interval.low, interval.high))
    assert change.p == pytest.approx(reference.pvalue)
    assert not change_of_sessions([[0.0], [1.0]], [[2.0]]).is_ratio


def test_a_folder_that_is_continued_another_day_holds_two_sessions(runs: Runs, tmp_path: Path) -> None:
    """`repeat` was raised from 5 to 10 some days later, or a run was resumed: the index goes on, in the same folder."""
    records = runs([*QUIET, *times(QUIET, 1.05)])
    days = [1] * 5 + [5] * 5
    told = [
        record.model_copy(
            update={"started_at": f"2026-01-{day:02d}T00:{place:02d}:00", "details": {"session": f"day {day}"}}
        )
        for place, (record, day) in enumerate(zip(records, days, strict=True))
    ]

    def sessions(records: Sequence[Record]) -> list[int]:
        sample = MetricRuns.of([Run(record=record, folder=tmp_path) for record in records], KEY)
        found = separate_sessions(sample, MetricRuns.of([], KEY))
        return [] if found is None else [len(session) for session in found[0]]

    assert sessions(told) == [5, 5]
    one = [record.model_copy(update={"details": {"session": "one"}}) for record in told]
    assert sessions(one) == [10], "one invocation that took days"
    assert sessions([*(record.model_copy(update={"details": {}}) for record in told[:5]), *told[5:]]) == [5, 5]


def test_a_noise_limit_uses_the_spread_between_sessions_of_base(
    nightly: Callable[..., list[Path]], on_day: Callable[..., list[Record]]
) -> None:
    """Nights are up to 2 % apart and their runs 0.2 %: head 3 % slower on another day is within, 40 % is not."""
    rule = {KEY: "noise"}
    nights = nightly(1.0, 1.02, 0.99)
    row = only(nights, on_day(times(QUIET, 1.03), 9), gate=rule)
    assert row.verdict == "same"
    assert "over 3 sessions) is allowed" in row.reason
    assert only(nights, on_day(times(QUIET, 1.4), 9), gate=rule).verdict == "worse"
    reason = only(nightly(1.0, 1.02), on_day(QUIET, 9), gate=rule).reason
    assert reason.startswith("two sessions of base cannot show")


def test_noise_of_one_session_is_marked_and_shared_sessions_add_none(
    nightly: Callable[..., list[Path]], on_day: Callable[..., list[Record]]
) -> None:
    one = on_day([*QUIET, *QUIET], 1)
    assert ", of one session) is allowed" in only(one, on_day(QUIET, 9), gate={KEY: "noise"}).reason
    both = [*on_day(QUIET, 1), *on_day(times(QUIET, 1.5), 2)]
    head = [*on_day(QUIET, 1, minute=20), *on_day(times(QUIET, 1.5), 2, minute=20)]
    limit = only(both, head, gate={KEY: "noise"}).limit
    assert 0 < float(limit.removeprefix("noise (").removesuffix("%)")) < 0.5


def test_the_floor_of_a_few_sessions_holds_the_next_one() -> None:
    """Of 150 machines whose nights are 2 % apart, five bases of three nights at most are beyond; 36 were, of runs."""
    rng = np.random.default_rng(9)
    beyond = 0
    for _ in range(150):
        *nights, last = rng.normal(0, 0.02, 4)
        base = [night + rng.normal(0, 0.003, 8) for night in nights]
        floor = noise_floor([np.exp(night).tolist() for night in base], runs=5, are_apart=True)
        beyond += abs(np.median(last + rng.normal(0, 0.003, 5)) - np.median(np.concatenate(base))) > math.log1p(floor)
    assert beyond <= 5
