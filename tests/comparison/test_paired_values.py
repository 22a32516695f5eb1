"""Two neighbouring runs as one pair of values: by whole runs, or turn by turn where their steps took turns."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.comparison.comparing import compare
from bench.comparison.pairing import MIN_TURNS, pair_of_values
from bench.core.schema import Metric, Record

MakeMetric = Callable[..., Metric]


def in_turns(latency: MakeMetric, *turns: tuple[int, list[float]]) -> Metric:
    samples = [sample for _, taken in turns for sample in taken]
    return latency(
        sorted(samples)[len(samples) // 2],
        samples=tuple(samples),
        turns=tuple(turn for turn, taken in turns for _ in taken),
    )


def test_a_disturbance_longer_than_a_turn_leaves_the_ratio_alone(latency: MakeMetric) -> None:
    """Everything takes three times as long from turn 4 on; head sees more of that, for it stopped later."""
    slowed = {turn: 1.0 if turn < 4 else 3.0 for turn in range(1, 13)}
    base = in_turns(latency, *((turn, [10 * slowed[turn]] * 2) for turn in range(1, 7)))
    head = in_turns(latency, *((turn, [11 * slowed[turn]]) for turn in range(1, 13)))
    assert (base.value, head.value) == (pytest.approx(30), pytest.approx(33))
    old, new = pair_of_values(base, head)
    assert new / old == pytest.approx(1.1)
    assert old == base.value


def test_turns_are_paired_by_number_and_not_by_place(latency: MakeMetric) -> None:
    """Samples of a slowed device were thrown away: head lacks turns 2 and 3, base turn 5."""
    pace = {turn: 2.0**turn for turn in range(1, 10)}
    base = in_turns(latency, *((turn, [pace[turn]]) for turn in pace if turn != 5))
    head = in_turns(latency, *((turn, [pace[turn] * 0.5, pace[turn] * 0.5]) for turn in pace if turn not in (2, 3)))
    old, new = pair_of_values(base, head)
    assert new / old == pytest.approx(0.5)


@pytest.mark.parametrize("count", [0, MIN_TURNS - 1])
def test_few_turns_are_less_precise_than_whole_runs(latency: MakeMetric, count: int) -> None:
    base = in_turns(latency, *((turn, [10.0]) for turn in range(1, 9)))
    head = latency(12.0, samples=(1.0,) * count, turns=tuple(range(1, count + 1)))
    assert pair_of_values(base, head) == (10.0, 12.0)


@given(
    st.lists(st.tuples(st.floats(-5, 1e6), st.integers(1, 40)), max_size=60),
    st.lists(st.tuples(st.floats(-5, 1e6), st.integers(1, 40)), max_size=60),
)
def test_any_turns_give_a_pair(base: list[tuple[float, int]], head: list[tuple[float, int]]) -> None:
    sides = []
    for taken in (base, head):
        samples, turns = tuple(sample for sample, _ in taken), tuple(turn for _, turn in taken)
        sides.append(Metric(name="latency.p50_ms", value=1.0, unit="ms", samples=samples, turns=turns))
    old, new = pair_of_values(*sides)
    assert old == 1.0
    assert new > 0


def test_runs_that_took_turns_are_judged_by_their_turns(latency: MakeMetric, record: Callable[..., Record]) -> None:
    """Each pair of runs lies in another weather, and p50 alone would see nothing: the turns see 5 % exactly."""
    weather = [1.0, 1.7, 1.2, 2.4, 0.9, 1.4]
    sides: list[list[Record]] = []
    for slow, stop in ((1.0, 8), (1.05, 12)):
        runs = []
        for run, factor in enumerate(weather):
            turns = [(turn, [10 * factor * slow * (1 if turn < 7 else 2)]) for turn in range(1, stop)]
            runs.append(record(in_turns(latency, *turns), run=run))
        sides.append(runs)
    [row] = compare(*sides, is_interim=True).rows
    assert (row.verdict, row.ratio) == ("worse", pytest.approx(1.05))
