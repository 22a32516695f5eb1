"""What `vbench ab` prints about a budget before and after measuring; numbers by hand."""

import math

import pytest
from scipy import stats

from bench.ab.rounds import Rounds
from bench.ab.time_budget import budget_lines, duration_text, longer_budget, smallest_change
from bench.comparison.sequential import critical_t
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


def test_the_smallest_change_is_the_interval_of_pairs_with_that_spread() -> None:
    expected = critical_t(16, threshold=100) * 0.03 / 4
    assert smallest_change(16, spread=0.03, comparisons=1) == pytest.approx(math.expm1(expected))
    assert smallest_change(16, spread=0.03, comparisons=10) > smallest_change(16, spread=0.03, comparisons=1)
    assert expected > stats.t.ppf(0.995, 15) * 0.03 / 4, "an interval that holds at any time is wider than Student's"


def open_row(case: str, **fields: object) -> MetricVerdict:
    given = {"interval": (0.9, 1.2), "needed_runs": 10, **fields}
    return MetricVerdict(  # type: ignore[arg-type]
        suite="s", case_id=case, case=case, metric="latency.p50_ms", unit="ms", better="lower", base=1.0, head=1.0,
        runs=(4, 4), verdict="inconclusive", reason="", is_open=True, **given,
    )  # fmt: skip


def test_the_budget_that_would_decide_adds_the_missing_pairs() -> None:
    """Six more pairs of 10 s after 100 s are 160 s; six instead of none of a case that has not begun, too."""
    rounds = Rounds(pairs={"a": 4, "b": 0}, longest_s={"a": 10.0, "b": 10.0})
    assert longer_budget([open_row("a")], rounds, spent_s=100.0) == "--budget 3m"
    assert longer_budget([open_row("b", interval=None, needed_runs=None)], rounds, spent_s=10.0) == "--budget 70s"
    assert longer_budget([open_row("a"), open_row("b", needed_runs=None)], rounds, spent_s=10.0) is None


@pytest.mark.parametrize(("seconds", "text"), [(1, "10s"), (90, "90s"), (120, "120s"), (121, "3m"), (3600, "60m")])
def test_a_duration_is_rounded_up_to_an_argument(seconds: float, text: str) -> None:
    assert duration_text(seconds) == text
