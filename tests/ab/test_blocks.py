"""Who is measured when: simulated runs on a simulated clock."""

from collections.abc import Collection, Mapping, Sequence

import pytest

from bench.ab.blocks import BlockResult, measure_blocks
from bench.ab.sides import RunOutcome, SideName

ANALYSED = (3, 4, 6)
GOOD, COUNT = RunOutcome(is_good=True, needs_turns=True), RunOutcome(is_good=True, needs_turns=False)


class Job:
    """Runs that take `seconds` each; a case is decided after `decided[case]` blocks. Notes every call."""

    def __init__(
        self, *, decided: Mapping[str, int], seconds: float = 1.0, ran: Mapping[str, RunOutcome] | None = None
    ) -> None:
        self.decided, self.seconds, self.ran_as = decided, seconds, ran or {}
        self.now = 0.0
        self.ran: list[tuple[str, str, int]] = []
        self.analysed: list[tuple[dict[str, int], bool]] = []

    def run(self, first: SideName, case: str, index: int) -> Sequence[RunOutcome]:
        ran = []
        for side in (first, "head" if first == "base" else "base"):
            self.now += self.seconds
            self.ran.append((side, case, index))
            ran.append(self.ran_as.get(case, GOOD))
            if not ran[-1].is_good:
                break
        return ran

    def analyse(self, blocks: Mapping[str, int], is_last: bool) -> Collection[str]:
        self.analysed.append((dict(blocks), is_last))
        return {case for case, count in blocks.items() if count < self.decided[case]}

    def measure(self, cases: Sequence[str], deadline_s: float = 1e9) -> BlockResult:
        return measure_blocks(
            cases, self.run, self.analyse, analysed=ANALYSED, deadline_s=deadline_s, clock_s=lambda: self.now
        )


def test_a_block_is_a_b_b_a_and_the_next_its_mirror() -> None:
    job = Job(decided={"c": 3})
    turns = job.measure(["c"])
    assert "".join(side[0] for side, _, _ in job.ran) == "bhhbhbbhbhhb"
    assert [index for side, _, index in job.ran if side == "base"] == [0, 1, 2, 3, 4, 5]
    assert [index for side, _, index in job.ran if side == "head"] == [0, 1, 2, 3, 4, 5]
    assert (turns.blocks, turns.stopped_because) == ({"c": 3}, "decided")
    assert job.analysed == [({"c": 3}, False)]


def test_cases_alternate_and_a_decided_one_is_not_measured_further() -> None:
    job = Job(decided={"quick": 3, "slow": 6})
    turns = job.measure(["quick", "slow"])
    assert turns.blocks == {"quick": 3, "slow": 6}
    assert [case for _, case, _ in job.ran[:16:4]] == ["quick", "slow", "quick", "slow"]
    assert [blocks for blocks, _ in job.analysed] == [{"quick": 3, "slow": 3}, {"slow": 4}, {"slow": 6}]


def test_the_last_analysis_comes_when_no_further_block_fits() -> None:
    job = Job(decided={"c": 99})
    turns = job.measure(["c"], deadline_s=21.0)
    assert turns.blocks == {"c": 5}
    assert turns.stopped_because == "time is up"
    assert job.analysed == [({"c": 3}, False), ({"c": 4}, False), ({"c": 5}, True)]
    assert job.now <= 21


def test_every_case_gets_one_block_however_short_the_time() -> None:
    job = Job(decided={"a": 99, "b": 99})
    assert job.measure(["a", "b"], deadline_s=0.0).blocks == {"a": 1, "b": 1}
    assert job.analysed == [({"a": 1, "b": 1}, True)]


def test_measuring_ends_after_the_last_analysis() -> None:
    job = Job(decided={"c": 99})
    assert job.measure(["c"]).stopped_because == "enough"
    assert job.analysed[-1] == ({"c": 6}, True)


def test_a_case_that_fails_is_not_measured_again_and_the_others_are() -> None:
    job = Job(decided={"bad": 3, "good": 3}, ran={"bad": RunOutcome(is_good=False, needs_turns=False)})
    turns = job.measure(["bad", "good"])
    assert turns.failed == ["bad"]
    assert [case for _, case, _ in job.ran].count("bad") == 1
    assert turns.blocks == {"bad": 0, "good": 3}


def test_counts_are_taken_once_a_side() -> None:
    job = Job(decided={}, ran={"counts": COUNT})
    turns = job.measure(["counts"])
    assert job.ran == [("base", "counts", 0), ("head", "counts", 0)]
    assert turns.settled == ["counts"]
    assert job.analysed == []


@pytest.mark.parametrize("cases", [[], ["a"], ["a", "b", "c"]])
def test_measuring_ends_for_any_number_of_cases(cases: list[str]) -> None:
    assert set(Job(decided=dict.fromkeys(cases, 99), seconds=7).measure(cases, deadline_s=100).blocks) == set(cases)
