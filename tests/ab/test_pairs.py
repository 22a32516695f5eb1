"""Pairs of runs: which side begins, and who is spared when the other fails. Sides are simulated."""

from typing import cast

import pytest

from bench.ab.pairs import Pair, run_apart, run_together
from bench.ab.sides import Ran, Side, SideName

GOOD, BAD = Ran(is_good=True, needs_turns=True), Ran(is_good=False, needs_turns=False)


class FakeSide:
    """A side whose every run ends as `ran`, at once; notes in `begun` when it was asked."""

    def __init__(self, name: SideName, ran: Ran, begun: list[SideName]) -> None:
        self.name, self.ran, self.begun = name, ran, begun

    def run(self, place: int, index: int) -> Ran:
        self.begin(place, index)
        return self.result()

    def begin(self, place: int, index: int, *, turn_address: str | None = None) -> None:
        self.begun.append(self.name)

    def result(self) -> Ran:
        return self.ran


def pair_of(*, begun: list[SideName], base: Ran = GOOD, head: Ran = GOOD) -> Pair:
    sides: tuple[tuple[SideName, Ran], ...] = (("base", base), ("head", head))
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
def test_head_is_run_whatever_became_of_base(first: SideName, base: Ran, head: Ran, ran: list[SideName]) -> None:
    begun: list[SideName] = []
    found = run_apart(pair_of(begun=begun, base=base, head=head), first, 0)
    assert begun == ran
    assert list(found) == ran


@pytest.mark.parametrize("first", ["base", "head"])
def test_of_two_at_a_time_the_first_begins_first(first: SideName, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("select.select", lambda waiting, *_: (waiting, [], []))
    begun: list[SideName] = []
    assert set(run_together(pair_of(begun=begun), first, 0)) == {"base", "head"}
    assert begun[0] == first
