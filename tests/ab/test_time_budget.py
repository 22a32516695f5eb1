"""What `vbench ab` prints about a budget before and after measuring; numbers by hand."""

import math
import re
from typing import Any

import pytest
from scipy import stats

from bench.ab.rounds import Rounds
from bench.ab.time_budget import budget_lines, duration_text, longer_budget, smallest_change
from bench.comparison.sequential import critical_t, fewest_pairs
from bench.comparison.verdicts import MetricVerdict


def test_the_pairs_that_fit_and_what_they_show_are_stated() -> None:
    """120 s for two cases of 10 s each: 6 pairs."""
    [line] = budget_lines({"a": 8.0, "b": 12.0}, budget_s=140, left_s=120)
    assert line.startswith("2 cases x 6 pairs x 10 s in 3m: shows changes from about ")
    quiet = 100 * smallest_change(6, spread=0.01, comparisons=2)
    assert f"about {quiet:.0f} % on a quiet machine" in line


def test_a_budget_for_two_pairs_is_called_too_short_and_the_enough_one_named() -> None:
    """Three pairs of 10 s after 20 s of setting up are 50 s, six are 80 s."""
    assert list(budget_lines({"a": 10.0}, budget_s=40, left_s=20)) == [
        "1 case x 2 pairs x 10 s in 40s: too few to decide anything; large changes need --budget 50s",
        "`same` needs 6 pairs: --budget 80s",
    ]


@pytest.mark.parametrize("left_s", [-20.0, 0.0, 45.0])
def test_a_budget_shorter_than_one_pair_of_each_case_says_how_long_that_takes(left_s: float) -> None:
    """Every case gets one pair: ten of 5 s, after 15 s of setting up. Ten comparisons need four pairs."""
    budget_s = left_s + 15
    cases = {str(number): 5.0 for number in range(10)}
    given = duration_text(budget_s)
    assert list(budget_lines(cases, budget_s=budget_s, left_s=left_s)) == [
        f"10 cases x 1 pair x 5 s, at least 70s instead of {given}: too few to decide anything; large changes need "
        "--budget 4m",
        "`same` needs 6 pairs: --budget 6m",
    ]


def test_a_budget_for_more_pairs_than_are_measured_says_when_it_ends() -> None:
    """64 pairs of 5 s after 15 s are 335 s, and show changes below one percent."""
    [line] = budget_lines({"a": 5.0}, budget_s=360_000, left_s=359_985)
    quiet = 100 * smallest_change(64, spread=0.01, comparisons=1)
    assert quiet < 1
    assert line.startswith(
        f"1 case x 64 pairs x 5 s in 6m, the most that is measured: shows changes from about {quiet:.1f} %"
    )


def test_three_pairs_cannot_decide_one_of_seven_comparisons() -> None:
    """By hand: the e-value of three pairs is below (1 + 3 x 400 + 1 + 3 x 4) / 2 = 607, and seven need 700."""
    assert (fewest_pairs(1), fewest_pairs(6), fewest_pairs(7), fewest_pairs(10)) == (3, 3, 4, 4)
    assert math.isinf(smallest_change(3, spread=0.01, comparisons=7))
    seven = {str(number): 10.0 for number in range(7)}
    line = next(budget_lines(seven, budget_s=210, left_s=210))
    assert line == "7 cases x 3 pairs x 10 s in 4m: too few to decide anything; large changes need --budget 5m"


def test_changes_of_instructions_do_not_depend_on_a_quiet_machine() -> None:
    """Their spread counts as 0.1 %, so three pairs that show a change exclude one of 3 % as well."""
    [line] = budget_lines({"a": 60.0}, budget_s=200, left_s=180, of_instructions=["a"])
    least = 100 * smallest_change(3, spread=0.0, comparisons=1, unit="instructions")
    assert 1 < least < 3
    assert line == (
        f"1 case x 3 pairs x 60 s in 4m: shows changes of instructions from about {least:.0f} % on any machine"
    )
    both = next(budget_lines({"a": 60.0, "b": 5.0}, budget_s=600, left_s=600, of_instructions=["a"]))
    assert re.search(
        r"shows changes of time from about \d+ % on a quiet machine, \d+ % on a busy one; changes of instructions "
        r"from about 0\.\d % on any machine$",
        both,
    )


def test_the_smallest_change_is_the_interval_of_pairs_with_that_spread() -> None:
    expected = critical_t(16, threshold=100) * 0.03 / 4
    assert smallest_change(16, spread=0.03, comparisons=1) == pytest.approx(math.expm1(expected))
    assert smallest_change(16, spread=0.03, comparisons=10) > smallest_change(16, spread=0.03, comparisons=1)
    assert expected > stats.t.ppf(0.995, 15) * 0.03 / 4, "an interval that holds at any time is wider than Student's"


def open_row(case: str, **fields: Any) -> MetricVerdict:
    given: dict[str, Any] = {"unit": "ms", "interval": (0.9, 1.2), "needed_runs": 10, **fields}
    return MetricVerdict(
        suite="s", case_id=case, case=case, metric="latency.p50_ms", better="lower", base=1.0, head=1.0,
        runs=(4, 4), verdict="inconclusive", reason="", is_open=True, **given,
    )  # fmt: skip


def test_the_budget_that_would_decide_adds_the_missing_pairs() -> None:
    """Six more pairs of 10 s after 100 s are 160 s; six instead of none of a case that has not begun, too."""
    rounds = Rounds(pairs={"a": 4, "b": 0}, longest_s={"a": 10.0, "b": 10.0})
    assert longer_budget([open_row("a")], rounds, spent_s=100.0) == "--budget 3m"
    assert longer_budget([open_row("b", interval=None, needed_runs=None)], rounds, spent_s=10.0) == "--budget 70s"
    assert longer_budget([open_row("a"), open_row("b", needed_runs=None)], rounds, spent_s=10.0) is None
    counted = open_row("b", interval=None, needed_runs=None, unit="instructions")
    assert longer_budget([counted], rounds, spent_s=10.0) == "--budget 40s", "three pairs are enough"


@pytest.mark.parametrize(("seconds", "text"), [(1, "10s"), (90, "90s"), (120, "120s"), (121, "3m"), (3600, "60m")])
def test_a_duration_is_rounded_up_to_an_argument(seconds: float, text: str) -> None:
    assert duration_text(seconds) == text
