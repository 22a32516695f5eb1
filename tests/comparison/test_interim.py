"""InterimAnalyses at runs taken in turns: what each may spend, what is decided, and how often that is wrong."""

import importlib
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from bench.comparison.comparing import compare
from bench.comparison.evidence import ALPHA, change_of_pairs
from bench.comparison.interim import ANALYSED_BLOCKS, InterimAnalyses, alpha_share, open_cases
from bench.comparison.verdicts import Comparison
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


@given(st.integers(0, 40))
def test_no_sequence_of_analyses_spends_more_than_the_error_rate(last: int) -> None:
    """InterimAnalyses whose evidence a later one shares are counted in that one."""
    before = [alpha_share(blocks, is_last=False) for blocks in range(last)]
    assert sum(before) + alpha_share(last, is_last=True) <= 1 + 1e-12
    if last >= ANALYSED_BLOCKS[0]:
        assert sum(before) + alpha_share(last, is_last=True) == pytest.approx(1)


def test_nothing_is_spent_between_analyses_and_before_the_first() -> None:
    assert [alpha_share(blocks, is_last=False) for blocks in (0, 1, 2, 5, 7)] == [0.0] * 5
    assert alpha_share(2, is_last=True) == 0.0
    assert alpha_share(3, is_last=False) == 1 / 8
    assert alpha_share(32, is_last=True) == pytest.approx(1 / 8)


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


def case_of(comparison: Comparison) -> str:
    return comparison.rows[0].case_id


def look(session: InterimAnalyses, blocks: int, *, is_last: bool = False) -> Comparison:
    case = case_of(session.analyse({}))
    return session.analyse({case: blocks}, is_last=is_last)


@pytest.mark.parametrize(
    ("factor", "verdict", "code"), [(1.0, "same", 0), (1.1, "worse", 1), (0.9, "better", 0), (1.031, "worse", 1)]
)
def test_quiet_runs_are_decided_at_the_first_look(
    session: Callable[..., InterimAnalyses], factor: float, verdict: str, code: int
) -> None:
    found = look(session(QUIET, [factor * value for value in QUIET[::-1]]), 3)
    assert [row.verdict for row in found.rows] == [verdict]
    assert found.exit_code() == code
    assert not open_cases(found)
    assert found.rows[0].ratio == pytest.approx(factor)


def test_noise_stays_open_and_is_inconclusive_at_the_end(session: Callable[..., InterimAnalyses]) -> None:
    looks = session(LOUD, LOUD[::-1])
    found = look(looks, 3)
    assert open_cases(found) == {case_of(found)}
    assert look(looks, 3, is_last=True).exit_code() == 4


def test_too_few_runs_decide_nothing_even_if_far_apart(session: Callable[..., InterimAnalyses]) -> None:
    found = look(session([1.0] * 4, [2.0] * 4), 2, is_last=True)
    assert found.exit_code() == 4
    assert "at least 6" in found.rows[0].reason


def test_no_verdict_between_looks(session: Callable[..., InterimAnalyses]) -> None:
    looks = session([*QUIET, *QUIET[:4]], [1.2 * value for value in [*QUIET, *QUIET[:4]]])
    assert open_cases(look(looks, 5))
    assert look(looks, 6).rows[0].verdict == "worse"


def test_a_decision_of_an_interim_analysis_stays(
    session: Callable[..., InterimAnalyses], tmp_path: Path, runs: Callable[..., list[Record]]
) -> None:
    looks = session(QUIET, [1.1 * value for value in QUIET])
    assert look(looks, 3).rows[0].verdict == "worse"
    for record in runs([*QUIET, 1.0, 100.0])[6:]:
        RecordStore(tmp_path / "head").append(record)
        RecordStore(tmp_path / "base").append(record)
    assert look(looks, 4).rows[0].verdict == "worse"
    assert looks.analyse({}).rows[0].runs == (6, 6)


def test_more_metrics_ask_for_more_evidence(record: Callable[..., Record]) -> None:
    """Bonferroni by hand: the interval of one metric among four is that of a quarter of the error rate."""

    def side(factor: float, metrics: int) -> list[Record]:
        values = [factor * value for value in QUIET] if factor != 1 else QUIET[::-1]
        names = [f"latency.m{n}" for n in range(metrics)]
        return [
            record(*(Metric(name=name, value=v, unit="ms", better="lower") for name in names), run=index)
            for index, v in enumerate(values)
        ]

    for metrics in (1, 4):
        base, head = side(1.0, metrics), side(1.01, metrics)
        found = compare(base, head, shares={head[0].case_id: 0.125})
        steps = np.log([1.01 * value for value in QUIET]) - np.log(QUIET[::-1])
        half = scipy_stats.t.ppf(1 - ALPHA / 8 / metrics / 2, 5) * steps.std(ddof=1) / math.sqrt(6)
        interval = found.rows[0].interval
        assert interval is not None
        assert interval == pytest.approx((math.exp(steps.mean() - half), math.exp(steps.mean() + half)))


def test_runs_are_paired_by_their_index_and_a_lost_one_takes_its_partner(
    runs: Callable[..., list[Record]],
) -> None:
    base, head = runs([*QUIET, 10.0]), runs([*QUIET, 20.0])
    found = compare(base, head[:-1], shares={base[0].case_id: 1.0})
    assert found.rows[0].ratio == pytest.approx(1.0)
    assert found.rows[0].runs == (7, 6)


def test_models_and_software_may_differ_if_declared(runs: Callable[..., list[Record]]) -> None:
    base, head = runs(QUIET, model="c3d"), runs(QUIET, model="i3d", args={"depth": 3})
    shares = {head[0].case_id: 1.0}
    assert compare(base, head, shares=shares).is_empty
    assert compare(base, head, shares=shares, differing=["model"]).rows[0].verdict == "same"
    newer = head[0].environment.model_copy(update={"software": {"torch": "3.0"}})
    other = runs(QUIET, model="c3d", environment=newer)
    with pytest.raises(InputError, match=r"software\.torch"):
        compare(base, other)
    assert not compare(base, other, differing=["software"]).unlike


def noise_of(simulation: ModuleType, name: str) -> object:
    return next(noise for noise in simulation.ALL_NOISES if noise.__name__ == name)


@pytest.mark.parametrize("noise", ["heavy_tail", "wide_bimodal", "loud_offset", "neighbours", "following"])
def test_a_few_hundred_measurements_of_identical_code_give_few_alarms(simulation: ModuleType, noise: str) -> None:
    """The committed table has 2,000 a cell; of 150, up to 5 alarms have a chance of 0.4 % where the rate is 1 %."""
    found = simulation.simulate(noise_of(simulation, noise), factor=1.0, repeats=150, blocks=12)
    assert found.verdicts["worse"] + found.verdicts["better"] <= 5 / 150
    assert found.coverage >= 145 / 150


@pytest.mark.parametrize("noise", ["gaussian", "heavy_tail", "bimodal", "drift", "autocorrelated", "process_offset"])
def test_five_percent_are_found_if_noise_allows(simulation: ModuleType, noise: str) -> None:
    found = simulation.simulate(noise_of(simulation, noise), factor=1.05, repeats=100, blocks=12)
    assert found.verdicts["worse"] >= 0.95
