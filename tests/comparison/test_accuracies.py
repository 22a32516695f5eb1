"""Accuracies of several trainings: over seeds by pairs, over runs by Welch, and one model by its videos only."""

from collections.abc import Callable, Sequence

import numpy as np
import pytest
from scipy import stats as scipy_stats

from bench.comparison.comparing import compare
from bench.comparison.verdicts import MetricVerdict
from bench.core.schema import Metric, Record

Make = Callable[..., Record]
RULE = {"accuracy.top1": "0.5pt"}


def top1(value: float, name: str = "accuracy.top1") -> Metric:
    """An accuracy on about 10,000 videos."""
    return Metric(name=name, value=value, unit="%", better="higher", interval=(value - 1, value + 1))


@pytest.fixture
def seeds(record: Make) -> Callable[..., list[Record]]:
    """One training a seed, with each of these accuracies."""

    def make(values: Sequence[float], **given: object) -> list[Record]:
        about = {"recipe": "quick", "dataset": "motions", "measures": {"accuracy": {}}, **given}
        return [record(top1(float(value)), seed=seed, **about) for seed, value in enumerate(values)]

    return make


@pytest.fixture
def repeated(record: Make) -> Callable[..., list[Record]]:
    """Runs of one case with each of these accuracies."""

    def make(values: Sequence[float]) -> list[Record]:
        return [record(top1(value), run=run, measures={"accuracy": {}}) for run, value in enumerate(values)]

    return make


def judged(base: list[Record], head: list[Record]) -> tuple[MetricVerdict, ...]:
    return compare(base, head, gate=RULE).rows


def test_seeds_are_judged_together_by_students_interval_of_their_differences(
    seeds: Callable[..., list[Record]],
) -> None:
    base, head = [60.0, 62.0, 61.0, 60.5], [55.0, 57.2, 55.7, 55.6]
    rows = judged(seeds(base), seeds(head))
    steps = np.subtract(head, base)
    half = scipy_stats.t.ppf(0.975, 3) * steps.std(ddof=1) / 2
    assert len(rows) == 4
    for row in rows:
        assert (row.verdict, row.base, row.head) == ("worse", float(np.mean(base)), float(np.mean(head)))
        assert row.interval == pytest.approx(
            (1 + (steps.mean() - half) / row.base, 1 + (steps.mean() + half) / row.base)
        )
        assert row.p == pytest.approx(scipy_stats.ttest_rel(head, base).pvalue), "all seeds are one comparison"
        assert "over 4 seeds" in row.reason


def test_opposite_changes_of_two_seeds_are_no_regression(seeds: Callable[..., list[Record]]) -> None:
    """Each alone is far beyond what its videos allow for."""
    for row in judged(seeds([50.0, 60.0, 70.0]), seeds([60.0, 50.0, 69.0])):
        assert row.verdict == "inconclusive"
        assert "more seeds would decide it" in row.reason


def test_training_identical_code_again_raises_at_most_one_alarm_in_a_hundred(
    seeds: Callable[..., list[Record]],
) -> None:
    """400 pairs of three trainings that are 1.5 points apart; at 1 % more than 10 alarms are seen once in 300 times."""
    rng = np.random.default_rng(3)
    drawn = np.round(60 + 1.5 * rng.standard_normal((400, 2, 3)), 2)
    verdicts = [judged(seeds(base), seeds(head))[0].verdict for base, head in drawn]
    assert verdicts.count("worse") + verdicts.count("better") <= 10


def test_seeds_that_score_as_before_are_the_same_and_equal_means_are_not_enough(
    seeds: Callable[..., list[Record]],
) -> None:
    assert {row.verdict for row in judged(seeds([50.0, 60.0]), seeds([50.0, 60.0]))} == {"same"}
    assert {row.verdict for row in judged(seeds([50.0, 60.0]), seeds([60.0, 50.0]))} == {"inconclusive"}


def test_equal_changes_of_all_seeds_leave_their_spread_unknown(seeds: Callable[..., list[Record]]) -> None:
    """On a hundred videos, two trainings that lose one video each are no certain loss."""
    for base, head in (([50.0, 60.0], [49.0, 59.0]), ([50.3, 60.1, 70.7], [49.0, 58.8, 69.4])):
        for row in judged(seeds(base), seeds(head)):
            assert (row.verdict, row.interval) == ("inconclusive", None)


def test_recipes_are_not_pooled(seeds: Callable[..., list[Record]]) -> None:
    """Of two recipes each is judged by its own seeds; the one that became worse does not blame the other."""
    base = [*seeds([60.0, 62.0, 61.0]), *seeds([80.0, 81.0, 80.4], recipe="long")]
    head = [*seeds([60.1, 62.0, 60.9]), *seeds([60.0, 61.2, 60.3], recipe="long")]
    rows = judged(base, head)
    assert [row.verdict for row in rows[3:]] == ["worse"] * 3
    assert all("over 3 seeds" in row.reason and row.verdict != "worse" for row in rows[:3])


def test_runs_of_one_case_are_judged_by_their_means(repeated: Callable[..., list[Record]]) -> None:
    """The medians are equal in the first, and the last runs in neither say what the others do."""
    [row] = judged(repeated([60.0, 60.0, 60.0]), repeated([60.0, 60.0, 20.0]))
    assert (row.verdict, row.base) == ("inconclusive", 60.0)
    assert row.head == pytest.approx(140 / 3)
    [row] = judged(repeated([50.0, 60.0, 70.0]), repeated([70.0, 70.0, 70.0]))
    assert (row.verdict, row.base, row.head) == ("inconclusive", 60.0, 70.0)
    base, head = [60.0, 60.4, 60.2, 60.1], [50.0, 50.3, 50.6, 50.2]
    [row] = judged(repeated(base), repeated(head))
    assert row.verdict == "worse"
    assert row.p == pytest.approx(scipy_stats.ttest_ind(head, base, equal_var=False).pvalue)
    assert "over 4 and 4 runs" in row.reason


def test_one_training_against_several_that_differ_cannot_tell(repeated: Callable[..., list[Record]]) -> None:
    [row] = judged(repeated([60.0]), repeated([50.0, 51.0]))
    assert row.verdict == "inconclusive"
    assert "1 training in base and 2 in head" in row.reason


def test_one_model_evaluated_several_times_is_judged_by_its_videos(
    repeated: Callable[..., list[Record]], seeds: Callable[..., list[Record]]
) -> None:
    [row] = judged(repeated([60.0, 60.0]), repeated([50.0, 50.0]))
    assert row.verdict == "worse"
    assert "by the intervals over videos, one model a side" in row.reason
    [row] = judged(seeds([60.0]), seeds([50.0]))
    assert "one training a side, and another training may change as much" in row.reason
