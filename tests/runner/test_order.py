"""Runs of a timed case: each in its own process, interleaved over the cases."""

from dataclasses import replace
from pathlib import Path

import pytest

from bench.core.schema import Case, Clip, Point, Record
from bench.runner.running import Plan, _run_pending, run
from bench.runner.work_queue import WorkQueue
from bench.store import RecordStore, read_records
from bench.store.leases import LOCAL, Leases
from bench.suite import Suite

MEASURE = '''
import os
from bench.core.registry import register_measure
from bench.core.schema import Metric


@register_measure("whoami", depends_on={"model", "args", "clip", "batch"}, version=1, is_timed=True)
def whoami(case):
    """The process that measures."""
    return [Metric(name="whoami.pid", value=os.getpid(), unit="")]
'''
SUITE = """\
suite: order
plugins: [whoami_measure]
models: [{name: c3d_search, width: 0.05, num_classes: 4}]
matrix: {clip: [4x1x16], batch: [1, 2]}
measure: {whoami: {}}
repeat: 2
"""


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int | None, int]]:
    """Batch and run index of every run, in the order in which they were started; the fifth fails."""
    order: list[tuple[int | None, int]] = []

    def answer(case: Case, store: RecordStore, *, run_index: int, freshness: str, **_: object) -> Record:
        order.append((case.point.batch, run_index))
        return Record(
            case=case,
            case_id=case.id,
            run_index=run_index,
            freshness=freshness,
            started_at="2026-01-01T00:00:00+00:00",
            status="error" if len(order) == 5 else "ok",
        )

    monkeypatch.setattr("bench.runner.running.run_case", answer)
    return order


def planned(folder: Path) -> Plan:
    """Three timed cases of three runs and one that is counted once, with what is done of them in `folder`."""
    clip = Clip.model_validate("4x1x16")
    timed = [
        Case(suite="order", point=Point(model="c3d", clip=clip, batch=batch), measures={"latency": {}}, runs=3)
        for batch in (1, 2, 3)
    ]
    counted = Case(suite="order", point=Point(model="c3d", clip=clip), measures={"params": {}})
    suite = Suite(
        name="order",
        title="",
        description="",
        path=folder / "order.yaml",
        text="",
        cases=(counted, *timed),
        ablate=None,
        gate={},
    )
    store = RecordStore(folder)
    records = read_records(store.file) if store.file.is_file() else []
    done = frozenset((record.case_id, record.run_index) for record in records if record.is_good)
    return Plan(suite=suite, store=store, freshness={case.id: "" for case in suite.cases}, done=done)


def queue_of(folder: Path) -> WorkQueue:
    return WorkQueue(folder, Leases(folder, worker=LOCAL))


def test_runs_are_interleaved_over_the_cases(tmp_path: Path, ran: list[tuple[int | None, int]]) -> None:
    _run_pending(planned(tmp_path), lambda event: None, queue=queue_of(tmp_path))
    counts, timed = [one for one in ran if one[0] is None], [one for one in ran if one[0] is not None]
    assert counts == [(None, 0)], "what is counted is counted once"
    assert timed == [(1, 0), (2, 0), (3, 0), (1, 1), (2, 1), (3, 1), (1, 2), (2, 2), (3, 2)]


def test_a_failed_run_alone_is_repeated_under_its_own_number(tmp_path: Path, ran: list[tuple[int | None, int]]) -> None:
    _run_pending(planned(tmp_path), lambda event: None, queue=queue_of(tmp_path))
    failed = ran[4]
    del ran[:]
    _run_pending(planned(tmp_path), lambda event: None, queue=queue_of(tmp_path))
    assert ran == [failed]


@pytest.mark.slow
def test_every_run_of_a_timed_case_has_its_own_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "whoami_measure.py").write_text(MEASURE)
    (tmp_path / "order.yaml").write_text(SUITE)
    run("order.yaml", out="out")
    records = read_records("out")
    assert [(r.case.point.batch, r.run_index) for r in records] == [(1, 0), (2, 0), (1, 1), (2, 1)]
    assert len({r.metrics[0].value for r in records}) == 4


def test_trainings_run_after_counts_and_timings(tmp_path: Path) -> None:
    clip = Clip.model_validate("4x1x16")
    trained = Case(
        suite="order",
        point=Point(model="c3d", clip=clip, dataset="motions", recipe="quick", seed=0),
        measures={"accuracy": {}},
    )
    timed = Case(suite="order", point=Point(model="c3d", clip=clip), measures={"latency": {}}, runs=2)
    plan = planned(tmp_path)
    plan = replace(plan, suite=replace(plan.suite, cases=(trained, timed)))
    assert [(case.id, index) for case, index in plan.runs] == [(timed.id, 0), (timed.id, 1), (trained.id, 0)]
