"""A whole measurement in turns over simulated sides: what `vbench ab` makes of runs that fail."""

import time
from collections.abc import Callable, Collection
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
import pytest
from numpy.typing import NDArray

from bench.ab.gate import Measurement, pair_plans
from bench.ab.side_child import _as_ab_record
from bench.ab.sides import PlannedCase, RunOutcome, Side, SideName
from bench.comparison.comparing import compare
from bench.comparison.interim import InterimAnalyses
from bench.core.errors import InputError
from bench.core.schema import Metric, Record
from bench.runner.idle import IdleWait, MachineUse
from bench.store import RecordStore

Values = NDArray[np.float64]


class FakeSide:
    """A side with the cases `fine` and `frail`: runs of `frail` in `failing` end as out of memory."""

    def __init__(
        self, name: SideName, folder: Path, *, failing: Collection[int], record: Callable[..., Record]
    ) -> None:
        self.name, self.failing, self.record = name, failing, record
        self.store = RecordStore(folder / name)
        self.models, self.macs = ("fine", "frail"), 100.0
        self.cases = tuple(PlannedCase(id=record(model=model).case_id, title=model) for model in self.models)

    def prepare(self, count: int) -> None:
        """Nothing is started ahead."""

    def wait_until_prepared(self) -> None:
        """Nothing to wait for."""

    def begin(self, place: int, index: int) -> None:
        self.begun = place, index

    def result(self) -> RunOutcome:
        place, index = self.begun
        model = self.models[place]
        is_good = model == "fine" or index not in self.failing
        latency = Metric(name="latency.p50_ms", value=10 + 0.01 * (3 * index % 5), unit="ms", better="lower")
        if self.cases[place].is_counted:
            latency = Metric(name="macs.forward", value=self.macs, unit="MACs", better="lower", is_exact=True)
        metrics, status = ([latency], "ok") if is_good else ([], "oom")
        self.store.append(self.record(*metrics, run=index, status=status, model=model))
        return RunOutcome(is_good=is_good, needs_turns=is_good)


ALWAYS = range(1000)


@pytest.mark.parametrize(
    ("base", "head", "code"),
    [((), (), 0), (ALWAYS, (), 0), (ALWAYS, ALWAYS, 3), ((), ALWAYS, 3), ((4,), (), 3), ((), (4,), 3), ((7,), (), 0)],
)
def test_a_failed_case_has_no_verdict(
    tmp_path: Path, record: Callable[..., Record], base: Collection[int], head: Collection[int], code: int
) -> None:
    """A case that only base fails from the start is its own repair. Six runs decide, so the eighth is not made."""
    failing: tuple[tuple[SideName, Collection[int]], ...] = (("base", base), ("head", head))
    sides = [FakeSide(name, tmp_path, failing=runs, record=record) for name, runs in failing]
    pairing = pair_plans(sides[0].cases, sides[1].cases, by_place=False)
    looks = InterimAnalyses(tmp_path / "base", tmp_path / "head", gate={"latency.p50_ms": "3%"})
    measurement = Measurement(cast("list[Side]", sides), pairing, looks, is_apart=True, on_note=lambda text: None)
    found = measurement.run(started_s=time.monotonic(), budget_s=60)
    assert found.exit_code() == code
    if (4,) in (base, head):
        (row,) = [row for row in found.rows if row.case_id == sides[1].cases[1].id]
        side = "base" if base else "head"
        assert "oom" in row.reason
        assert f"({side})" in row.reason
        assert (row.is_missing, row.is_open) == (True, False)


def test_counts_are_compared_before_anything_is_timed(tmp_path: Path, record: Callable[..., Record]) -> None:
    """Two cases: the counted one is measured once a side, noted, and only then the budget and the pairs follow."""
    names: tuple[SideName, SideName] = ("base", "head")
    sides = [FakeSide(name, tmp_path, failing=(), record=record) for name in names]
    for side in sides:
        side.cases = (replace(side.cases[0], is_counted=True), side.cases[1])
        side.macs = 100.0 if side.name == "base" else 110.0
    notes: list[str] = []
    looks = InterimAnalyses(tmp_path / "base", tmp_path / "head")
    pairing = pair_plans(sides[0].cases, sides[1].cases, by_place=False)
    measurement = Measurement(cast("list[Side]", sides), pairing, looks, is_apart=True, on_note=notes.append)
    found = measurement.run(started_s=time.monotonic(), budget_s=60)
    assert "macs.forward: worse: +10.0 %" in notes[0]
    assert notes[1].startswith("counts: 0 of 1 are the same, after ")
    assert "1 case x " in notes[2]
    assert [row.runs for row in found.rows] == [(1, 1), (6, 6)]
    assert found.exit_code() == 1


def test_timing_waits_for_an_idle_machine_without_using_up_the_budget(
    tmp_path: Path, record: Callable[..., Record], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The machine stays busy for 1,000 s; the budget of 60 s is still there afterwards."""
    busy = MachineUse(other_cores=1.5, cores=2, gpu_busy_share=None)

    def wait(limit_s: float, *, on_wait: Callable[[str], None]) -> IdleWait:
        on_wait(f"waiting at most {limit_s:g} s for an idle machine")
        return IdleWait(waited_s=1000.0, use=busy)

    monkeypatch.setattr("bench.ab.gate.wait_until_idle", wait)
    names: tuple[SideName, SideName] = ("base", "head")
    sides = cast("list[Side]", [FakeSide(name, tmp_path, failing=(), record=record) for name in names])
    notes: list[str] = []
    measurement = Measurement(
        sides,
        pair_plans(sides[0].cases, sides[1].cases, by_place=False),
        InterimAnalyses(tmp_path / "base", tmp_path / "head"),
        is_apart=True,
        wait_idle_s=1000.0,
        on_note=notes.append,
    )
    found = measurement.run(started_s=time.monotonic() - 1000, budget_s=60)
    assert notes[:2] == [
        "waiting at most 1000 s for an idle machine",
        "the machine is still not idle: other processes use 1.5 of 2 cores",
    ]
    assert found.exit_code() == 0


def test_runs_in_turns_are_only_compared_with_runs_of_the_same_kind(runs: Callable[..., list[Record]]) -> None:
    values = [10.0, 10.02, 9.98, 10.01, 9.99]
    alone, steps, processes = (runs(values, details=d) for d in ({}, {"in_turns": "steps"}, {"in_turns": "processes"}))
    assert compare(steps, steps[::-1]).rows[0].verdict == "same"
    for head in (alone, processes):
        with pytest.raises(InputError, match="measured in turns: steps in base"):
            compare(steps, head)


def test_a_run_of_a_side_records_its_turns(record: Callable[..., Record]) -> None:
    kept = record(details={"parity": 1})
    assert _as_ab_record(kept, kept.case, by="steps").details == {"parity": 1, "in_turns": "steps"}
    assert _as_ab_record(kept, kept.case, by="processes").in_turns == "processes"
    assert kept.in_turns is None


@pytest.mark.parametrize("gate", [{"latency.p50_ms": "noise"}, {"*": {"max_rise": "2noise"}}])
def test_a_noise_limit_is_refused_in_turns(runs: Callable[..., list[Record]], gate: dict[str, str]) -> None:
    """Base's runs are 10 % apart, and each of head's is 10 % above its partner: that would be the same."""
    base = [10.0, 11.0, 9.0, 10.5, 9.5, 10.0, 11.2, 8.9]
    records = runs(base)
    with pytest.raises(InputError, match="runs in turns cannot have a limit of noise"):
        compare(records, runs([1.1 * value for value in base]), gate=gate, is_interim=True)


def side_of(rng: np.random.Generator, disturbed: Values, factor: float) -> tuple[Metric, ...]:
    """Ten metrics of one process: twenty turns as `disturbed`, and a level that each draws for itself, heavy-tailed."""
    metrics = []
    for number in range(10):
        level = np.log(factor) + 0.01 * rng.standard_t(3)
        samples = 10 * np.exp(disturbed + level + 0.005 * rng.standard_normal(20))
        facts = {"samples": tuple(samples), "turns": tuple(range(1, 21)), "labels": {"batch": str(number)}}
        metrics.append(
            Metric(name="latency.p50_ms", value=float(np.median(samples)), unit="ms", better="lower", **facts)
        )
    return tuple(metrics)


@pytest.mark.slow
@pytest.mark.parametrize(("factor", "fewest", "most"), [(1.0, 0, 2), (1.25, 24, 24)])
def test_ten_metrics_with_steps_in_turns_are_wrong_in_one_of_a_hundred_measurements(
    tmp_path: Path, record: Callable[..., Record], factor: float, fewest: int, most: int
) -> None:
    """All the way as `vbench ab` goes, on a machine whose speed halves and doubles from turn to turn for both sides.

    Of 24 measurements, analysed after 6 and 8 pairs, more than two with any alarm have a chance of 0.2 % at most.
    """
    rng = np.random.default_rng(7)
    called = 0
    for number in range(24):
        stores = [RecordStore(tmp_path / f"{number}" / side) for side in ("base", "head")]
        looks = InterimAnalyses(stores[0].folder, stores[1].folder, gate={"latency.p50_ms": "3%"})
        for index in range(8):
            disturbed = 0.7 * rng.standard_normal(20)
            for store, times in zip(stores, (1.0, factor), strict=True):
                store.append(record(*side_of(rng, disturbed, times), run=index))
            if index in (5, 7):
                found = looks.analyse()
        called += any(row.verdict in ("worse", "better") for row in found.rows)
    assert fewest <= called <= most
