"""Who is measured when: simulated runs on a simulated clock."""

from collections.abc import Collection, Mapping, Sequence

import pytest

from bench.ab.rounds import Rounds, measure_rounds
from bench.ab.sides import RunOutcome, SideName
from bench.comparison.sequential import MAX_PAIRS

GOOD, COUNT = RunOutcome(is_good=True, needs_turns=True), RunOutcome(is_good=True, needs_turns=False)


class Job:
    """Runs that take `seconds` each; a case is decided after `decided[case]` pairs. Notes every call."""

    def __init__(
        self, *, decided: Mapping[str, int], seconds: float = 1.0, ran: Mapping[str, RunOutcome] | None = None
    ) -> None:
        self.decided, self.seconds, self.ran_as = decided, seconds, ran or {}
        self.now = 0.0
        self.ran: list[tuple[str, str, int]] = []
        self.analysed: list[dict[str, int]] = []

    def run(self, first: SideName, case: str, index: int) -> Sequence[RunOutcome]:
        ran = []
        for side in (first, "head" if first == "base" else "base"):
            self.now += self.seconds
            self.ran.append((side, case, index))
            ran.append(self.ran_as.get(case, GOOD))
            if not ran[-1].is_good:
                break
        return ran

    def analyse(self, pairs: Mapping[str, int]) -> Collection[str]:
        self.analysed.append(dict(pairs))
        return {case for case, count in pairs.items() if count < self.decided[case]}

    def measure(self, cases: Sequence[str], deadline_s: float = 1e9) -> Rounds:
        return measure_rounds(cases, self.run, self.analyse, deadline_s=deadline_s, clock_s=lambda: self.now)


def test_pairs_are_a_b_b_a_and_then_the_mirror_of_that() -> None:
    job = Job(decided={"c": 6})
    rounds = job.measure(["c"])
    assert "".join(side[0] for side, _, _ in job.ran) == "bhhbhbbhbhhb"
    assert [index for side, _, index in job.ran if side == "base"] == [0, 1, 2, 3, 4, 5]
    assert [index for side, _, index in job.ran if side == "head"] == [0, 1, 2, 3, 4, 5]
    assert (rounds.pairs, rounds.stopped_because) == ({"c": 6}, "decided")


def test_every_pair_from_the_third_on_is_analysed() -> None:
    job = Job(decided={"c": 5})
    job.measure(["c"])
    assert job.analysed == [{"c": 3}, {"c": 4}, {"c": 5}]


def test_cases_alternate_and_a_decided_one_is_not_measured_further() -> None:
    job = Job(decided={"quick": 3, "slow": 5})
    rounds = job.measure(["quick", "slow"])
    assert rounds.pairs == {"quick": 3, "slow": 5}
    assert [case for _, case, _ in job.ran[::2]] == ["quick", "slow"] * 3 + ["slow"] * 2
    assert job.analysed == [{"quick": 3, "slow": 3}, {"slow": 4}, {"slow": 5}]


def test_the_last_analysis_comes_when_no_further_pair_fits() -> None:
    job = Job(decided={"c": 99})
    rounds = job.measure(["c"], deadline_s=9.0)
    assert (rounds.pairs, rounds.longest_s, rounds.stopped_because) == ({"c": 4}, {"c": 2.0}, "time is up")
    assert job.analysed == [{"c": 3}, {"c": 4}, {"c": 4}]
    assert job.now <= 9


def test_every_case_gets_one_pair_however_short_the_time() -> None:
    job = Job(decided={"a": 99, "b": 99})
    assert job.measure(["a", "b"], deadline_s=0.0).pairs == {"a": 1, "b": 1}
    assert job.analysed == [{"a": 1, "b": 1}]


def test_measuring_ends_after_the_largest_number_of_pairs() -> None:
    job = Job(decided={"c": 999})
    assert job.measure(["c"]).stopped_because == "enough"
    assert job.analysed[-1] == {"c": MAX_PAIRS}


def test_a_case_that_fails_is_not_measured_again_and_the_others_are() -> None:
    job = Job(decided={"bad": 3, "good": 3}, ran={"bad": RunOutcome(is_good=False, needs_turns=False)})
    rounds = job.measure(["bad", "good"])
    assert rounds.failed == ["bad"]
    assert [case for _, case, _ in job.ran].count("bad") == 1
    assert rounds.pairs == {"bad": 0, "good": 3}


def test_what_one_run_a_side_settles_is_measured_once() -> None:
    job = Job(decided={}, ran={"counts": COUNT})
    rounds = job.measure(["counts"])
    assert job.ran == [("base", "counts", 0), ("head", "counts", 0)]
    assert rounds.settled == ["counts"]
    assert job.analysed == []


@pytest.mark.parametrize("cases", [[], ["a"], ["a", "b", "c"]])
def test_measuring_ends_for_any_number_of_cases(cases: list[str]) -> None:
    assert set(Job(decided=dict.fromkeys(cases, 99), seconds=7).measure(cases, deadline_s=100).pairs) == set(cases)
