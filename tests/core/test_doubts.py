"""Which timings of a record are doubtful, and how a doubtful value is printed."""

import math
import random
from typing import Any

import pytest

from bench.core.doubts import interval_of, measured_text, record_doubts, timing_doubts
from bench.core.drift import timing_interval
from bench.core.schema import Case, Clip, Metric, Point, Record, Status
from bench.core.stats import median
from bench.core.units import format_doubtful

RNG = random.Random(5)
STEADY = tuple(8 + 0.05 * RNG.gauss(0, 1) for _ in range(60))
STEPPED = tuple(sample * (1.08 if place > 30 else 1) for place, sample in enumerate(STEADY))
WILD = tuple(8 * math.exp(0.8 * RNG.gauss(0, 1)) for _ in range(40))


def timing(name: str, samples: tuple[float, ...] = STEADY, *, unit: str = "ms", **rest: Any) -> Metric:
    estimate = timing_interval(samples)
    fields = {"interval": (estimate.low, estimate.high), "stopped_because": "time is up", **rest}
    return Metric(name=name, value=median(samples), unit=unit, better="lower", samples=samples, **fields)


def record(*metrics: Metric, status: Status = "ok", **details: Any) -> Record:
    case = Case(suite="s", point=Point(model="m", clip=Clip.model_validate("16x1x112")), measures={"latency": {}})
    return Record(
        case=case,
        case_id=case.id,
        run_index=0,
        freshness="",
        status=status,
        metrics=metrics,
        details=details,
        started_at="2026-01-01T00:00:00+00:00",
    )


P90 = Metric(name="latency.p90_ms", value=9.0, unit="ms", better="lower")
MEMORY = Metric(name="memory.peak_allocated_bytes", value=1e9, unit="B", better="lower")


def test_a_steady_timing_is_not_doubted() -> None:
    found = record(timing("latency.p50_ms"), P90, MEMORY, drift={})
    assert [timing_doubts(found, metric) for metric in found.metrics] == [(), (), ()]
    assert record_doubts(found) == ()


def test_a_drift_concerns_all_metrics_of_its_timing_and_no_other() -> None:
    found = record(timing("latency.p50_ms", STEPPED), P90, timing("train_step.step_ms"), MEMORY, status="drifting")
    doubts = [timing_doubts(found, metric) for metric in found.metrics]
    assert doubts == [("drifting",), ("drifting",), (), ()]
    assert record_doubts(found) == ("drifting",)


def test_a_drift_of_one_batch_is_none_of_another() -> None:
    one, eight = (
        timing("throughput.clips_per_s", samples, unit="clips/s", labels={"batch": batch})
        for batch, samples in (("1", STEPPED), ("8", STEADY))
    )
    videos = one.model_copy(update={"name": "throughput.videos_per_s", "labels": {"batch": "1", "views": "10x3"}})
    found = record(one, eight, videos, status="drifting")
    assert [timing_doubts(found, metric) for metric in found.metrics] == [("drifting",), (), ("drifting",)]


def test_the_stored_test_for_drift_is_believed() -> None:
    assert timing_doubts(record(timing("latency.p50_ms", STEPPED), drift={}), P90) == ()
    stored = {"latency.p50_ms": {"pattern": "step", "change": 0.03, "start": 9, "end": 60}}
    assert timing_doubts(record(timing("latency.p50_ms"), drift=stored), P90) == ("drifting",)


def test_samples_that_vary_too_much_are_unsteady() -> None:
    found = record(timing("latency.p50_ms", WILD), drift={})
    assert timing_doubts(found, found.metrics[0]) == ("unsteady",)


@pytest.mark.parametrize(("ratio", "doubts"), [(1.04, ()), (1.06, ("drifting",)), (0.9, ("drifting",))])
def test_the_canary_concerns_every_timing(ratio: float, doubts: tuple[str, ...]) -> None:
    found = record(timing("latency.p50_ms"), MEMORY, drift={}, canary={"copy_ms": {"ratio": ratio}})
    assert [timing_doubts(found, metric) for metric in found.metrics] == [doubts, ()]


def test_a_status_without_a_timing_that_caused_it_concerns_all_timings() -> None:
    found = record(timing("latency.p50_ms"), MEMORY, status="drifting", drift={})
    assert [timing_doubts(found, metric) for metric in found.metrics] == [("drifting",), ()]


def test_a_status_concerns_the_timing_that_stopped_for_it() -> None:
    slow = timing("train_step.step_ms", stopped_because="throttled")
    found = record(timing("latency.p50_ms"), slow, status="throttled", drift={})
    assert [timing_doubts(found, metric) for metric in found.metrics] == [(), ("throttled",)]


def test_drift_cancels_out_in_turn_taking() -> None:
    canary = {"copy_ms": {"ratio": 1.3}}
    found = record(timing("latency.p50_ms", STEPPED, turns=(1,) * 60), in_turns="steps", canary=canary)
    assert timing_doubts(found, found.metrics[0]) == ()


def test_the_status_drifting_is_no_doubt_in_turn_taking() -> None:
    """A worker that takes turns gets this status if its canary moved, which both sides share."""
    canary = {"matmul_ms": {"before": 1.0, "after": 1.3, "ratio": 1.3}}
    found = record(timing("latency.p50_ms"), status="drifting", canary=canary, in_turns="steps")
    assert timing_doubts(found, found.metrics[0]) == ()
    alone = found.model_copy(update={"details": {"canary": canary}})
    assert timing_doubts(alone, alone.metrics[0]) == ("drifting",)


def test_the_interval_of_an_earlier_record_is_computed_from_its_samples() -> None:
    metric = timing("latency.p50_ms", STEPPED, interval=(8.0, 8.1))
    assert interval_of(record(metric, drift={}), metric) == (8.0, 8.1)
    low, high = interval_of(record(metric), metric) or (math.nan, math.nan)
    assert (low, high) == pytest.approx((timing_interval(STEPPED).low, timing_interval(STEPPED).high))
    few = timing("latency.p50_ms", (8.0, 9.0, 8.5), interval=None)
    assert interval_of(record(few), few) is None


@pytest.mark.parametrize(
    ("value", "half_width", "text"),
    [
        (515.3, 300.0, "~500 ms"),
        (515.3, 40.0, "~520 ms"),
        (515.3, 0.1, "~515 ms"),
        (515.3, None, "~500 ms"),
        (978.188, None, "~1 s"),
        (0.0, None, "0 s"),
        (5.0, 60.0, "~5 ms"),
    ],
)
def test_a_doubtful_value_has_the_digits_that_its_interval_supports(
    value: float, half_width: float | None, text: str
) -> None:
    assert format_doubtful(value, "ms", half_width=half_width) == text


def test_a_steady_value_is_printed_with_four_digits_and_a_doubtful_one_is_not() -> None:
    metric = timing("latency.p50_ms").model_copy(update={"value": 8.1234})
    assert measured_text(record(metric, drift={}), metric) == "8.123 ms"
    drifting = timing("latency.p50_ms", STEPPED)
    assert measured_text(record(drifting), drifting).startswith("~")
