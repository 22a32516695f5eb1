"""Makers of metrics, records and sides of a comparison, small enough to reckon with by hand."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from bench.core.schema import Case, Clip, Environment, Failure, Metric, Point, Record

GPU = Environment(
    hardware={"gpu": "H100", "gpu_driver": "570.1", "cpu": "EPYC"},
    software={"torch": "2.12.0", "python": "3.12.1", "cudnn": 91002},
)


def make_record(*metrics: Metric, run: int = 0, status: str = "ok", **given: Any) -> Record:
    """One run of a case; `model`, `suite` and any axis of the point may be given."""
    axes = {name: given.pop(name) for name in list(given) if name in Point.model_fields}
    point = Point.model_validate({"model": "c3d", "clip": Clip.model_validate("16x1x112"), **axes})
    case = Case(suite=given.pop("suite", "s"), point=point, measures=given.pop("measures", {"latency": {}}), runs=5)
    facts = {"environment": GPU, "freshness": "f", "started_at": f"2026-01-01T00:{run:02d}:00", **given}
    error = Failure(type="RuntimeError", message="no\nmore") if status in ("error", "oom", "timeout") else None
    return Record(case=case, case_id=case.id, run_index=run, status=status, metrics=metrics, error=error, **facts)  # type: ignore[arg-type]


def make_latency(value: float | None, **given: Any) -> Metric:
    return Metric(**{"name": "latency.p50_ms", "value": value, "unit": "ms", "better": "lower", **given})


def make_params(value: int) -> Metric:
    return Metric(name="params.total", value=value, unit="elements", better="lower", is_exact=True)


@pytest.fixture(scope="session")
def record() -> Callable[..., Record]:
    return make_record


@pytest.fixture(scope="session")
def latency() -> Callable[..., Metric]:
    return make_latency


@pytest.fixture(scope="session")
def params() -> Callable[[int], Metric]:
    return make_params


@pytest.fixture(scope="session")
def runs() -> Callable[..., list[Record]]:
    """One record a value: latencies in ms of as many runs."""

    def make(values: Sequence[float], **given: Any) -> list[Record]:
        return [make_record(make_latency(value), run=index, **given) for index, value in enumerate(values)]

    return make
