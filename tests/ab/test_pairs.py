"""Pairs of runs on simulated sides: which side begins, and what runs if the other failed."""

from typing import cast

import pytest

from bench.ab.pairs import Pair, run_apart, run_together
from bench.ab.sides import RunOutcome, Side, SideName

GOOD, BAD = RunOutcome(is_good=True, needs_turns=True), RunOutcome(is_good=False, needs_turns=False)


class FakeSide:
    """A side whose runs end at once with the outcome `ran`; notes its name in `begun`."""

    def __init__(self, name: SideName, ran: RunOutcome, begun: list[SideName]) -> None:
        self.name, self.ran, self.begun = name, ran, begun

    def begin(self, place: int, index: int, *, turn_address: str | None = None) -> None:
        self.begun.append(self.name)

    def result(self) -> RunOutcome:
        return self.ran


def pair_of(*, begun: list[SideName], base: RunOutcome = GOOD, head: RunOutcome = GOOD) -> Pair:
    sides: tuple[tuple[SideName, RunOutcome], ...] = (("base", base), ("head", head))
    return {name: (cast("Side", FakeSide(name, ran, begun)), 0) for name, ran in sides}


@pytest.mark.parametrize(
    ("first", "base", "head", "ran"),
    [
        ("base", GOOD, GOOD, ["base", "head"]),
        ("head", GOOD, GOOD, ["head", "base"]),
        ("base", BAD, GOOD, ["base", "head"]),
        ("base", BAD, BAD, ["base", "head"]),
        ("head", GOOD, BAD, ["head"]),
        ("head", BAD, GOOD, ["head", "base"]),
    ],
)
def test_head_is_run_whatever_became_of_base(
    first: SideName, base: RunOutcome, head: RunOutcome, ran: list[SideName]
) -> None:
    begun: list[SideName] = []
    found = run_apart(pair_of(begun=begun, base=base, head=head), first, 0)
    assert begun == ran
    assert list(found) == ran


@pytest.mark.parametrize("first", ["base", "head"])
def test_the_first_of_two_concurrent_sides_begins_first(first: SideName, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.ab.pairs.wait_for_results", lambda waiting: waiting)
    begun: list[SideName] = []
    assert set(run_together(pair_of(begun=begun), first, 0)) == {"base", "head"}
    assert begun[0] == first
