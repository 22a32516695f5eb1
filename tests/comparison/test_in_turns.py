"""A whole measurement in turns over simulated sides: what `vbench ab` makes of runs that fail."""

import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import cast

import pytest

from bench.comparison.comparing import compare
from bench.comparison.looks import Looks
from bench.errors import InputError
from bench.execution.side import _marked
from bench.execution.sides import PlannedCase, Ran, Side, SideName
from bench.gating import _measured, pair_plans
from bench.schema import Metric, Record
from bench.store import RecordStore


class FakeSide:
    """A side with the cases `fine` and `frail`: runs of `frail` in `failing` end as out of memory."""

    def __init__(
        self, name: SideName, folder: Path, *, failing: Collection[int], record: Callable[..., Record]
    ) -> None:
        self.name, self.failing, self.record = name, failing, record
        self.store = RecordStore(folder / name)
        self.models = ("fine", "frail")
        self.cases = tuple(PlannedCase(id=record(model=model).case_id, title=model) for model in self.models)

    def run(self, place: int, index: int) -> Ran:
        model = self.models[place]
        is_good = model == "fine" or index not in self.failing
        latency = Metric(name="latency.p50_ms", value=10 + 0.01 * (3 * index % 5), unit="ms", better="lower")
        metrics, status = ([latency], "ok") if is_good else ([], "oom")
        self.store.append(self.record(*metrics, run=index, status=status, model=model))
        return Ran(is_good=is_good, needs_turns=is_good)


ALWAYS = range(1000)


@pytest.mark.parametrize(
    ("base", "head", "code"),
    [((), (), 0), (ALWAYS, (), 0), (ALWAYS, ALWAYS, 3), ((), ALWAYS, 3), ((4,), (), 3), ((), (4,), 3), ((7,), (), 0)],
)
def test_a_case_that_fails_is_no_verdict(
    tmp_path: Path, record: Callable[..., Record], base: Collection[int], head: Collection[int], code: int
) -> None:
    """A case that only base fails from the start is its own repair. Six runs decide, so the eighth is not made."""
    failing: tuple[tuple[SideName, Collection[int]], ...] = (("base", base), ("head", head))
    sides = [FakeSide(name, tmp_path, failing=runs, record=record) for name, runs in failing]
    pairing = pair_plans(sides[0].cases, sides[1].cases, by_place=False)
    looks = Looks(tmp_path / "base", tmp_path / "head", gate={"latency.p50_ms": "3%"})
    found = _measured(
        cast("list[Side]", sides),
        pairing,
        looks,
        deadline_s=time.monotonic() + 60,
        apart=True,
        on_note=lambda text: None,
    )
    assert found.exit_code() == code
    if (4,) in (base, head):
        (row,) = [row for row in found.rows if row.case_id == sides[1].cases[1].id]
        side = "base" if base else "head"
        assert "oom" in row.reason
        assert f"({side})" in row.reason
        assert (row.is_missing, row.is_open) == (True, False)


def test_runs_in_turns_are_compared_with_their_like_only(runs: Callable[..., list[Record]]) -> None:
    values = [10.0, 10.02, 9.98, 10.01, 9.99]
    alone, steps, processes = (runs(values, details=d) for d in ({}, {"in_turns": "steps"}, {"in_turns": "processes"}))
    assert compare(steps, steps[::-1]).rows[0].verdict == "same"
    for head in (alone, processes):
        with pytest.raises(InputError, match="measured in turns: steps in base"):
            compare(steps, head)


def test_a_run_of_a_side_says_how_it_took_turns(record: Callable[..., Record]) -> None:
    kept = record(details={"parity": 1})
    assert _marked(kept, is_sharing=True).details == {"parity": 1, "in_turns": "steps"}
    assert _marked(kept, is_sharing=False).in_turns == "processes"
    assert kept.in_turns is None


@pytest.mark.parametrize("gate", [{"latency.p50_ms": "noise"}, {"*": {"max_rise": "2noise"}}])
def test_noise_is_no_limit_in_turns(runs: Callable[..., list[Record]], gate: dict[str, str]) -> None:
    """Base's runs are 10 % apart, and each of head's is 10 % above its partner: that would be the same."""
    base = [10.0, 11.0, 9.0, 10.5, 9.5, 10.0, 11.2, 8.9]
    records = runs(base)
    with pytest.raises(InputError, match="noise is no limit for runs in turns"):
        compare(records, runs([1.1 * value for value in base]), gate=gate, shares={records[0].case_id: 1.0})
