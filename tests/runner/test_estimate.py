"""The incremental estimate of the time left, against one computed from all records."""

from hypothesis import given
from hypothesis import strategies as st

from bench.core.registry import MEASURES
from bench.core.schema import Case, Clip, Point, Record
from bench.runner.estimate import START_SECONDS, RunEstimate

CLIP = Clip.model_validate("16x1x112")
CASES = [
    Case(suite="s", point=Point(model="c3d", clip=CLIP, batch=batch), measures={measure: {}}, runs=9)
    for measure in ("latency", "params")
    for batch in (1, 2, 3)
]


def record_of(case: Case, seconds: float) -> Record:
    return Record(
        case=case,
        case_id=case.id,
        run_index=0,
        freshness="",
        status="ok",
        started_at="2026-01-01T00:00:00+00:00",
        seconds={"whole": seconds},
    )


def computed_anew(pending: list[Case], known: list[tuple[Case, float]]) -> float:
    total = 0.0
    for case in pending:
        same = [seconds for other, seconds in known if other.id == case.id]
        alike = same or [seconds for other, seconds in known if other.measures.keys() == case.measures.keys()]
        guess = START_SECONDS + sum(MEASURES.get(name).duration_s for name in case.measures)
        total += sum(alike) / len(alike) if alike else guess
    return total


@given(
    st.lists(st.sampled_from(CASES), max_size=12),
    st.lists(st.tuples(st.sampled_from(CASES), st.floats(0.1, 100)), max_size=5),
    st.lists(st.floats(0.1, 100), min_size=12, max_size=12),
)
def test_the_estimate_is_that_of_all_records(
    pending: list[Case], known: list[tuple[Case, float]], seconds: list[float]
) -> None:
    history = ((case.id, frozenset(case.measures), s) for case, s in known)
    estimate = RunEstimate(pending, history)
    for case, took in zip(list(pending), seconds, strict=False):
        assert abs(estimate.left_s - computed_anew(pending, known)) < 1e-6
        estimate.finish(record_of(case, took))
        pending, known = pending[1:], [*known, (case, took)]
    assert abs(estimate.left_s - computed_anew(pending, known)) < 1e-6


def test_a_run_takes_the_mean_of_its_case_else_of_its_kind_else_what_its_measure_declares() -> None:
    known, alike, other = CASES[0], CASES[1], CASES[3]
    history = [(known.id, frozenset(known.measures), seconds) for seconds in (10.0, 20.0)]
    estimate = RunEstimate([known, alike, other], history)
    guess = START_SECONDS + MEASURES.get("params").duration_s
    assert [estimate.run_s(case) for case in (known, alike, other)] == [15.0, 15.0, guess]
    estimate.finish(record_of(alike, 30.0))
    assert [estimate.run_s(case) for case in (known, alike, other)] == [15.0, 30.0, guess]


def test_the_time_of_an_accuracy_without_data_is_unknown() -> None:
    point = Point(model="c3d", clip=CLIP, dataset="folder", recipe="quick")
    case = Case(suite="s", point=point, measures={"accuracy": {}})
    assert RunEstimate([case]).run_s(case) is None
    assert RunEstimate([case], [(case.id, frozenset(case.measures), 9.0)]).run_s(case) == 9.0
