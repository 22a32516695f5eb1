"""The measures of counts, on the case context that a worker gives them."""

from pathlib import Path

import pytest

from bench.core.schema import Case, Clip, Metric, Point
from bench.measure.activations import activations
from bench.measure.context import CaseContext
from bench.measure.macs import macs
from bench.measure.memory_estimate import memory_estimate
from bench.measure.params import params

C3D_MACS = 38_547_378_176
C3D_PARAMS = 78_409_573


def case_of(model: str, clip: Clip, folder: Path) -> CaseContext:
    point = Point(model=model, clip=clip)
    case = Case(suite="test", point=point, measures={"macs": {}})
    return CaseContext(case, artifacts=folder / "artifacts" / case.id)


@pytest.fixture
def c3d(tmp_path: Path) -> CaseContext:
    return case_of("c3d", Clip(frames=16, height=112, width=112), tmp_path)


def values(metrics: list[Metric]) -> dict[str, int | float | None]:
    return {metric.name: metric.value for metric in metrics}


def test_macs_of_a_clip_and_of_a_train_step(c3d: CaseContext) -> None:
    found = macs(c3d)
    first_layer = 16 * 112 * 112 * 64 * 3 * 27
    assert values(found) == {"macs.forward": C3D_MACS, "macs.train_step": 3 * C3D_MACS - first_layer}
    assert all(metric.is_exact and metric.better == "lower" for metric in found)
    assert c3d.details["macs_by_module"]["conv1"] == first_layer
    assert c3d.uncounted_operators == {}
    assert c3d.warnings == []
    assert "counter_reports" not in c3d.details


def test_published_costs_are_in_the_record(c3d: CaseContext) -> None:
    macs(c3d, backward=False)
    assert {row["printed"] for row in c3d.details["published_costs"]} == {38.5}
    assert {row["status"] for row in c3d.details["published_costs"]} == {"published"}


def test_params_counts_parameters_and_buffers(c3d: CaseContext) -> None:
    assert values(params(c3d)) == {
        "params.total": C3D_PARAMS,
        "params.trainable": C3D_PARAMS,
        "params.buffers": 0,
        "params.never_called": 0,
    }


def test_activations_and_memory(c3d: CaseContext) -> None:
    found = values(activations(c3d))
    assert (
        found["activations.bytes"]
        == 4 * found["activations.elements"] + 8 * _pooled_elements() - 4 * _pooled_elements()
    )
    assert found["activations.moved_bytes"] > found["activations.bytes"] + 4 * C3D_PARAMS
    estimate = memory_estimate(c3d)
    inference, training = (metric.value for metric in estimate)
    assert 4 * C3D_PARAMS < inference < training
    assert all("lower bound" in str(metric.note) for metric in estimate)
    amounts = [metric for metric in (*activations(c3d), *estimate) if metric.name.endswith("bytes")]
    assert [metric.unit for metric in amounts] == ["B"] * 4


def _pooled_elements() -> int:
    """Pools also write where the largest values were, in 8 bytes each."""
    return 64 * 16 * 56 * 56 + 128 * 8 * 28 * 28 + 256 * 4 * 14 * 14 + 512 * 2 * 7 * 7 + 512 * 1 * 4 * 4


@pytest.mark.slow
def test_counter_reports_are_in_the_record(c3d: CaseContext) -> None:
    macs(c3d, counters=["torch", "fvcore"], backward=False)
    [verdict] = c3d.details["counter_reports"]
    assert (verdict["tool"], verdict["verdict"], verdict["printed"]) == ("fvcore", "agrees", C3D_MACS)
