"""Parts of a suite by shard, pattern and id, and the order and end of a run with a budget."""

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.core.errors import InputError
from bench.core.schema import Case, Clip, Point, Record
from bench.runner import running
from bench.runner.running import Plan, _run_pending
from bench.runner.selection import Selection, shard_from_text
from bench.runner.work_queue import WorkQueue
from bench.store import RecordStore, RunFacts, read_records
from bench.store.leases import LOCAL, Leases
from bench.suite import Suite

CLIP = Clip.model_validate("4x1x16")


def case(model: str, measure: str, *, batch: int = 1, runs: int = 1) -> Case:
    return Case(suite="s", point=Point(model=model, clip=CLIP, batch=batch), measures={measure: {}}, runs=runs)


CASES = [case("c3d", "latency"), case("c3d", "params"), case("resnet3d_50", "latency"), case("x3d_s", "throughput")]


@given(st.integers(1, 30), st.integers(1, 30))
def test_shards_share_every_case_once_and_evenly(number: int, shards: int) -> None:
    cases = [case("c3d", "latency", batch=batch) for batch in range(1, number + 1)]
    if shards > number:
        with pytest.raises(InputError, match=f"only {number} cases to share"):
            Selection(shard=(1, shards)).of(cases)
        return
    parts = [Selection(shard=(i, shards)).of(cases) for i in range(1, shards + 1)]
    assert sorted(c.point.batch or 0 for part in parts for c in part) == list(range(1, number + 1))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


@pytest.mark.parametrize(
    ("only", "found"),
    [
        (("c3d",), [0, 1]),
        (("3d",), [0, 1, 2, 3]),
        (("resnet*",), [2]),
        (("latency",), [0, 2]),
        (("*4x1x16",), [0, 1, 2, 3]),
        (("through*", "params"), [1, 3]),
        (("c3d batch=1*",), [0, 1]),
        (("[cl]3d*",), [0, 1]),
    ],
)
def test_patterns_are_for_titles_models_and_measures(only: tuple[str, ...], found: list[int]) -> None:
    assert [CASES.index(each) for each in Selection(only=only).of(CASES)] == found


def test_a_part_of_a_title_is_found_whatever_characters_it_has() -> None:
    listed = case("c3d", "params").model_copy(deep=True)
    listed.point.args["kernel_depth"] = [1, 3]
    assert "[1, 3]" in listed.title
    assert Selection(only=("[1, 3]",)).of([*CASES, listed]) == (listed,)
    with pytest.raises(InputError, match="--only '' is empty"):
        Selection(only=("",)).of(CASES)


def test_a_pattern_that_matches_nothing_has_the_nearest_name() -> None:
    with pytest.raises(InputError, match=r"--only 'latancy' matches no case; did you mean: latency\?"):
        Selection(only=("c3d", "latancy")).of(CASES)


def test_cases_are_named_by_their_ids_or_first_digits() -> None:
    ids = [each.id for each in CASES]
    assert Selection(cases=(ids[1], ids[3][:8])).of(CASES) == (CASES[1], CASES[3])
    with pytest.raises(InputError, match="no case has the id 'zzz'"):
        Selection(cases=("zzz",)).of(CASES)
    with pytest.raises(InputError, match="no case has the id ''"):
        Selection(cases=("",)).of(CASES)
    many = [case("c3d", "latency", batch=batch) for batch in range(1, 40)]
    with pytest.raises(InputError, match="cases have ids that begin with"):
        Selection(cases=(max("0123456789abcdef", key=lambda d: sum(c.id[0] == d for c in many)),)).of(many)


def test_conditions_that_exclude_each_other_are_an_error() -> None:
    with pytest.raises(InputError, match="together"):
        Selection(only=("c3d",), cases=(CASES[2].id,)).of(CASES)


@pytest.mark.parametrize("text", ["", "3", "0/8", "9/8", "-1/8", "1/0", "a/b", "1/8/2", "1 / 8", "1.5/8", "٣/٨x"])
def test_a_shard_that_is_none_is_wrong_input(text: str) -> None:
    with pytest.raises(InputError, match="--shard"):
        shard_from_text(text)


def planned(folder: Path, history: dict[int, tuple[int, float]]) -> Plan:
    """Three cases of three runs; `history` has for a case how many runs are done and how long one took."""
    cases = tuple(case("c3d", "latency", batch=batch, runs=3) for batch in (1, 2, 3))
    suite = Suite(
        name="s", title="", description="", path=folder / "s.yaml", text="", cases=cases, ablate=None, gate={}
    )
    runs = tuple(
        RunFacts(
            case_id=cases[batch - 1].id,
            run_index=index,
            freshness="",
            status="ok",
            measures=frozenset({"latency"}),
            seconds=seconds,
        )
        for batch, (number, seconds) in history.items()
        for index in range(number)
    )
    done = frozenset((run.case_id, run.run_index) for run in runs)
    return Plan(suite=suite, store=RecordStore(folder), freshness={c.id: "" for c in cases}, done=done, history=runs)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time of the run; each case takes 10 s."""
    now = [0.0]

    def answer(case: Case, store: RecordStore, *, run_index: int, freshness: str, **_: object) -> Record:
        now[0] += 10
        return Record(
            case=case,
            case_id=case.id,
            run_index=run_index,
            freshness=freshness,
            started_at="2026-01-01T00:00:00+00:00",
            status="ok",
            seconds={"whole": 10.0},
        )

    monkeypatch.setattr(running, "run_case", answer)
    monkeypatch.setattr(running, "monotonic", lambda: now[0])
    return now


def order(plan: Plan, *, deadline: float) -> list[tuple[int | None, int]]:
    queue = WorkQueue(plan.store.folder, Leases(plan.store.folder, worker=LOCAL))
    _run_pending(plan, lambda event: None, queue=queue, deadline=deadline)
    return [(record.case.point.batch, record.run_index) for record in read_records(plan.store.file)]


def test_a_budget_takes_cases_without_results_first_then_those_with_the_fewest(
    tmp_path: Path, clock: list[float]
) -> None:
    plan = planned(tmp_path, {1: (2, 10.0), 2: (1, 10.0)})
    assert order(plan, deadline=1000) == [(3, 0), (2, 1), (3, 1), (1, 2), (2, 2), (3, 2)]


def test_a_budget_takes_cases_that_were_never_tried_before_those_that_failed(
    tmp_path: Path, clock: list[float]
) -> None:
    plan = planned(tmp_path, {1: (1, 10.0), 2: (1, 10.0)})
    failed, good = plan.history
    history = (failed._replace(status="error"), good)
    plan = replace(plan, history=history, done=frozenset({(good.case_id, good.run_index)}))
    assert order(plan, deadline=45) == [(3, 0), (1, 0), (1, 1), (2, 1)]


def test_no_run_starts_after_the_budget_nor_one_that_would_end_after_it(tmp_path: Path, clock: list[float]) -> None:
    assert order(planned(tmp_path / "a", {}), deadline=25) == [(1, 0), (2, 0), (3, 0)]
    clock[0] = 0
    long = planned(tmp_path / "b", {1: (1, 10.0), 2: (2, 500.0), 3: (1, 10.0)})
    assert order(long, deadline=35) == [(1, 1), (3, 1), (1, 2)]
