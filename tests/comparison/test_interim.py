"""Interim analyses of runs in turns: what is decided after how many pairs, and how often that is wrong."""

import importlib
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from scipy import stats as scipy_stats

from bench.comparison.comparing import compare
from bench.comparison.evidence import ALPHA, change_of_pairs
from bench.comparison.interim import InterimAnalyses, open_cases
from bench.comparison.sequential import critical_t
from bench.core.errors import InputError
from bench.core.schema import Metric, Record
from bench.store import RecordStore

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def simulation() -> Iterator[ModuleType]:
    sys.path.insert(0, str(BENCHMARKS))
    yield importlib.import_module("ab_simulation")
    sys.path.remove(str(BENCHMARKS))
    for name in ("ab_simulation", "gate_simulation"):
        del sys.modules[name]


def test_a_change_of_pairs_is_students_on_logarithms() -> None:
    base, head = [10.0, 11.0, 9.0, 10.0, 12.0, 10.0], [10.6, 11.2, 9.9, 10.4, 12.5, 10.9]
    change = change_of_pairs(base, head)
    reference = scipy_stats.ttest_rel(np.log(head), np.log(base))
    interval = reference.confidence_interval(0.99)
    assert change.p == pytest.approx(reference.pvalue)
    assert change.estimate == pytest.approx(np.mean(np.log(head) - np.log(base)))
    at_99 = change.reaching(0.99)
    assert (at_99.low, at_99.high) == pytest.approx((interval.low, interval.high))


def test_constant_pairs_decide_any_change_and_zero_has_no_ratio() -> None:
    same, other = change_of_pairs([5.0] * 6, [5.0] * 6), change_of_pairs([5.0] * 6, [5.5] * 6)
    assert (same.p, same.low, same.high) == (1.0, 0.0, 0.0)
    assert other.p == 0.0
    assert other.low == other.high == pytest.approx(math.log(1.1))
    assert not change_of_pairs([0.0, 1.0], [1.0, 1.5]).is_ratio


def test_linear_drift_is_judged_as_same(simulation: ModuleType) -> None:
    """By hand: processes take 1, 2, 3, … units longer; each block's pairs sum to nothing."""
    values = np.exp(0.01 * np.arange(24.0))[None]
    steps = np.diff(np.log(simulation.in_pairs(values, factor=1.0))[0], axis=1)[:, 0]
    np.testing.assert_allclose(steps.reshape(-1, 2).sum(axis=1), 0, atol=1e-12)
    np.testing.assert_allclose(steps[:4], [0.01, -0.01, -0.01, 0.01], atol=1e-12)


@pytest.fixture
def session(tmp_path: Path, runs: Callable[..., list[Record]]) -> Callable[..., InterimAnalyses]:
    """Two folders of records, as many runs a side as there are values, and the looks at them."""

    def make(base: Sequence[float], head: Sequence[float], **given: object) -> InterimAnalyses:
        for name, values in (("base", base), ("head", head)):
            store = RecordStore(tmp_path / name)
            store.file.unlink(missing_ok=True)
            for record in runs(values):
                store.append(record)
        return InterimAnalyses(tmp_path / "base", tmp_path / "head", **given)  # type: ignore[arg-type]

    return make


QUIET = [10.0, 10.02, 9.98, 10.01, 9.99, 10.0]
LOUD = [10.0, 14.0, 8.0, 12.0, 9.0, 13.0]
CASE = "latency.p50_ms"


@pytest.mark.parametrize(
    ("factor", "verdict", "code"), [(1.0, "same", 0), (1.1, "worse", 1), (0.9, "better", 0), (1.031, "worse", 1)]
)
def test_six_quiet_pairs_decide_small_changes(
    session: Callable[..., InterimAnalyses], factor: float, verdict: str, code: int
) -> None:
    found = session(QUIET, [factor * value for value in QUIET[::-1]]).analyse()
    assert [row.verdict for row in found.rows] == [verdict]
    assert found.exit_code() == code
    assert not open_cases(found)
    assert found.rows[0].ratio == pytest.approx(factor)


def test_noise_stays_open_and_is_inconclusive_at_the_end(session: Callable[..., InterimAnalyses]) -> None:
    found = session(LOUD, LOUD[::-1]).analyse()
    assert open_cases(found) == {found.rows[0].case_id}
    assert found.exit_code() == 4


def test_two_pairs_decide_nothing_however_far_apart(session: Callable[..., InterimAnalyses]) -> None:
    found = session([1.0] * 2, [20.0] * 2).analyse()
    assert found.exit_code() == 4
    assert "2 runs a side in turns; at least 3 are needed" in found.rows[0].reason


@pytest.mark.parametrize(("factor", "pairs"), [(1.5, 3), (2.26, 3), (0.66, 3), (1.2, 4), (1.1, 5)])
def test_large_changes_are_decided_after_few_pairs(
    session: Callable[..., InterimAnalyses], factor: float, pairs: int
) -> None:
    """A planted 50 % once ended as inconclusive: 4 runs a side, at least 6 are needed."""
    for count in range(3, pairs + 1):
        found = session(QUIET[:count], [factor * value for value in QUIET[:count][::-1]]).analyse()
        expected = "inconclusive" if count < pairs else "worse" if factor > 1 else "better"
        assert found.rows[0].verdict == expected, count


def test_three_pairs_that_agree_do_not_make_a_small_change_certain(session: Callable[..., InterimAnalyses]) -> None:
    """Processes in one of two states 4 % apart agree three times in 2.8 of 100 measurements of identical code."""
    assert session([10.0, 10.01, 9.99], [10.4, 10.41, 10.39]).analyse().rows[0].verdict == "inconclusive"


def test_an_open_metric_says_how_many_runs_would_decide(session: Callable[..., InterimAnalyses]) -> None:
    row = session(LOUD, [1.5 * value for value in LOUD[::-1]]).analyse().rows[0]
    assert row.needed_runs is not None
    assert row.needed_runs > 6
    assert f"about {row.needed_runs} runs a side would decide it" in row.reason


def test_a_decision_of_an_interim_analysis_stays(
    session: Callable[..., InterimAnalyses], tmp_path: Path, runs: Callable[..., list[Record]]
) -> None:
    analyses = session(QUIET, [1.1 * value for value in QUIET])
    assert analyses.analyse().rows[0].verdict == "worse"
    for record in runs([*QUIET, 1.0, 100.0])[6:]:
        RecordStore(tmp_path / "head").append(record)
        RecordStore(tmp_path / "base").append(record)
    assert analyses.analyse().rows[0].verdict == "worse"
    assert analyses.analyse().rows[0].runs == (6, 6)


def test_more_metrics_ask_for_more_evidence(record: Callable[..., Record]) -> None:
    """Bonferroni by hand: the interval of one metric among four needs four times the e-value."""

    def side(factor: float, metrics: int) -> list[Record]:
        values = [factor * value for value in QUIET] if factor != 1 else QUIET[::-1]
        names = [f"latency.m{n}" for n in range(metrics)]
        return [
            record(*(Metric(name=name, value=v, unit="ms", better="lower") for name in names), run=index)
            for index, v in enumerate(values)
        ]

    for metrics in (1, 4):
        base, head = side(1.0, metrics), side(1.01, metrics)
        found = compare(base, head, is_interim=True)
        steps = np.log([1.01 * value for value in QUIET]) - np.log(QUIET[::-1])
        half = critical_t(6, threshold=metrics / ALPHA) * steps.std(ddof=1) / math.sqrt(6)
        interval = found.rows[0].interval
        assert interval is not None
        assert interval == pytest.approx((math.exp(steps.mean() - half), math.exp(steps.mean() + half)))


def test_runs_are_paired_by_their_index_and_a_lost_one_takes_its_partner(
    runs: Callable[..., list[Record]],
) -> None:
    base, head = runs([*QUIET, 10.0]), runs([*QUIET, 20.0])
    found = compare(base, head[:-1], is_interim=True)
    assert found.rows[0].ratio == pytest.approx(1.0)
    assert found.rows[0].runs == (7, 6)


def test_models_and_software_may_differ_if_declared(runs: Callable[..., list[Record]]) -> None:
    base, head = runs(QUIET, model="c3d"), runs(QUIET, model="i3d", args={"depth": 3})
    assert compare(base, head, is_interim=True).is_empty
    assert compare(base, head, is_interim=True, differing=["model"]).rows[0].verdict == "same"
    newer = head[0].environment.model_copy(update={"software": {"torch": "3.0"}})
    other = runs(QUIET, model="c3d", environment=newer)
    with pytest.raises(InputError, match=r"software\.torch"):
        compare(base, other)
    assert not compare(base, other, differing=["software"]).unlike


def noise_of(simulation: ModuleType, name: str) -> object:
    return next(noise for noise in simulation.ALL_NOISES if noise.__name__ == name)


@pytest.mark.parametrize("noise", ["heavy_tail", "wide_bimodal", "loud_offset", "neighbours", "following"])
def test_a_few_hundred_measurements_of_identical_code_give_few_alarms(simulation: ModuleType, noise: str) -> None:
    """The committed table has 2,000 a cell; of 150, more than 5 alarms have a chance of 0.4 % at a rate of 1 %."""
    found = simulation.simulate(noise_of(simulation, noise), factor=1.0, repeats=150, pairs=24)
    assert found.verdicts["worse"] + found.verdicts["better"] <= 5 / 150
    assert found.coverage >= 145 / 150


@pytest.mark.parametrize("noise", ["gaussian", "heavy_tail", "bimodal", "drift", "autocorrelated", "process_offset"])
def test_five_percent_are_found_if_noise_allows(simulation: ModuleType, noise: str) -> None:
    found = simulation.simulate(noise_of(simulation, noise), factor=1.05, repeats=100, pairs=24)
    assert found.verdicts["worse"] >= 0.95


def test_three_pairs_of_seven_metrics_say_how_many_are_needed(record: Callable[..., Record]) -> None:
    """The e-value of three pairs is at most 607, whatever the change, and seven comparisons need 700."""

    def side(factor: float) -> list[Record]:
        return [
            record(
                *(
                    Metric(
                        name="latency.p50_ms",
                        value=factor * (10 + 0.01 * run),
                        unit="ms",
                        better="lower",
                        labels={"batch": str(number)},
                    )
                    for number in range(7)
                ),
                run=run,
            )
            for run in range(3)
        ]

    found = compare(side(1.0), side(2.0), gate={"latency.p50_ms": "3%"}, is_interim=True)
    assert {row.reason for row in found.rows} == {
        "+100.0 %; 3 runs a side in turns; at least 4 are needed for 7 comparisons: set a longer --budget"
    }
    assert {(row.verdict, row.is_open, row.interval, row.needed_runs) for row in found.rows} == {
        ("inconclusive", True, None, 4)
    }
