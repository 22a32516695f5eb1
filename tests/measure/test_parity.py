"""Parity of logits by hand, and of real execution modes."""

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from bench.core.schema import Precision
from bench.measure.context import CaseContext
from bench.measure.execution_mode import ExecutionMode
from bench.measure.fastest import Trial
from bench.measure.latency import latency
from bench.measure.parity import needs_parity, parity
from bench.measure.throughput import throughput
from bench.measure.timing.forward import Forward, PreparedModel
from bench.measure.timing.parity_check import TOLERANCES, Parity, compare_logits, worst_parity

Load = Callable[..., CaseContext]


def test_the_difference_is_a_share_of_the_largest_logit() -> None:
    wanted = torch.tensor([[1.0, -4.0], [2.0, 3.0]])
    found = torch.tensor([[1.0, -4.0], [3.5, 3.0]])
    seen = compare_logits(wanted, found, tolerance=0.4)
    assert seen.max_difference == pytest.approx(1.5 / 4)
    assert seen.top1_agreement == 0.5
    assert seen.is_within
    assert not compare_logits(wanted, found, tolerance=0.3).is_within


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_logits_that_are_not_finite_are_out_of_tolerance(value: float) -> None:
    seen = compare_logits(torch.tensor([[1.0, 2.0]]), torch.tensor([[value, 2.0]]), tolerance=1.0)
    assert seen.max_difference is None
    assert not seen.is_within


@pytest.mark.parametrize("axes", [{}, {"precision": "fp32"}, {"compile": "off", "batch": 8}])
def test_eager_fp32_needs_no_parity_check(load: Load, axes: dict[str, str]) -> None:
    assert not needs_parity(load(**axes).point)


@pytest.mark.parametrize("axes", [{"precision": "tf32"}, {"memory_format": "channels_last_3d"}, {"compile": "default"}])
def test_other_execution_modes_need_a_parity_check(load: Load, axes: dict[str, str]) -> None:
    assert needs_parity(load(**axes).point)


@pytest.mark.parametrize(
    "axes", [{"precision": "bf16"}, {"precision": "bf16_weights", "batch": 3}, {"memory_format": "channels_last_3d"}]
)
def test_real_execution_modes_are_within_their_tolerance(load: Load, axes: dict[str, str]) -> None:
    case = load(**axes)
    metrics = parity(case)
    assert not any(metric.better for metric in metrics), "a gate without rules would take rounding for a regression"
    found = {m.name: m.value for m in metrics}
    assert found["parity.max_difference"] is not None
    assert found["parity.max_difference"] < TOLERANCES[case.point.precision or "fp32"]
    assert case.details["parity"]["is_within_tolerance"] is True  # type: ignore[index,call-overload]
    assert not case.warnings
    if case.point.precision:
        assert found["parity.max_difference"] > 0, "it was not eager fp32 that ran twice"


def test_an_execution_mode_with_other_outputs_is_found(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    """One filter of the first layer is lost when the model is cast, as with a wrong kernel."""
    forward = PreparedModel.forward

    def faulty(self: PreparedModel, batch: int, *, seed: int = 0) -> object:
        if self.dtype is not None:
            with torch.no_grad():
                next(self.model.parameters())[0] = 50
        return forward(self, batch, seed=seed)

    monkeypatch.setattr(PreparedModel, "forward", faulty)
    case = load(precision="bf16_weights")
    parity(case)
    assert case.details["parity"]["is_within_tolerance"] is False  # type: ignore[index,call-overload]
    assert "out of tolerance" in case.warnings[0].what


LARGE = 12


@pytest.fixture
def wrong_when_large(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """A kernel of every precision that is wrong from twelve clips on; notes the precision and batch of every pass."""
    over, seen = PreparedModel.over, list[tuple[str, int]]()

    def faulty(self: PreparedModel, clips: tuple[torch.Tensor, ...]) -> Forward:
        forward = over(self, clips)
        seen.append((self.mode.precision, forward.batch))
        return replace(forward, model=lambda *x: -forward.model(*x)) if forward.batch >= LARGE else forward

    monkeypatch.setattr(PreparedModel, "over", faulty)
    return seen


def is_within(case: CaseContext) -> object:
    return case.details["parity"]["is_within_tolerance"]  # type: ignore[index,call-overload]


def test_outputs_are_compared_at_every_timed_batch(load: Load, wrong_when_large: list[tuple[str, int]]) -> None:
    case = load(precision="bf16")
    latency(case, max_s=0.02)
    throughput(case, batch=[2, LARGE], max_s=0.02)
    case.warnings.clear()
    found = {m.name: m.value for m in parity(case)}
    by_batch = case.details["parity"]["max_difference_by_batch"]  # type: ignore[index,call-overload]
    assert list(by_batch) == ["1", "2", str(LARGE)]
    assert not is_within(case)
    assert found["parity.max_difference"] == by_batch[str(LARGE)] > 1  # type: ignore[index,operator]
    assert [w.what.partition(":")[0] for w in case.warnings] == [f"out of tolerance at batch {LARGE}"]
    assert max(batch for precision, batch in wrong_when_large if precision == "fp32") <= 8


def test_a_case_of_a_large_batch_is_compared_at_that_batch(load: Load, wrong_when_large: list[tuple[str, int]]) -> None:
    case = load(precision="bf16", batch=LARGE)
    parity(case)
    assert not is_within(case)
    assert ("bf16", LARGE) in wrong_when_large


def test_outputs_of_timed_passes_are_not_computed_again(load: Load, wrong_when_large: list[tuple[str, int]]) -> None:
    case = load(precision="bf16", batch=9)
    latency(case, max_s=0.02)
    wrong_when_large.clear()
    parity(case)
    assert is_within(case)
    assert {precision for precision, _ in wrong_when_large} == {"fp32"}


@pytest.mark.parametrize("number", [2, LARGE])
def test_the_best_mode_is_compared_again_at_the_batch_of_its_timing(
    load: Load, wrong_when_large: list[tuple[str, int]], monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def fastest(*_: object, **__: object) -> Trial:
        return Trial(mode=ExecutionMode(precision="bf16"), clips_per_s=1.0, max_difference=0.0, top1_agreement=1.0)

    monkeypatch.setattr("bench.measure.timing.mode_search.fastest_mode", fastest)
    monkeypatch.setattr("bench.measure.throughput._search", lambda case, wanted: number)
    case = load()
    found = {m.key: m for m in throughput(case, batch="best", search="best", max_s=0.02)}
    best = found["throughput.clips_per_s{batch=best,variant=best}"]
    assert (best.value is None) == (number == LARGE)
    assert (f"out of tolerance at batch {number}" in (best.note or "")) == (number == LARGE)
    assert (found["throughput.speedup{batch=best}"].value is None) == (number == LARGE)


def test_the_worst_batch_counts_and_a_value_that_is_not_finite_is_the_worst() -> None:
    def seen(difference: float | None) -> Parity:
        return Parity(max_difference=difference, top1_agreement=1.0, clips=1, tolerance=0.1)

    assert worst_parity([seen(0.1), seen(0.5), seen(0.2)]).max_difference == 0.5
    assert worst_parity([seen(0.1), seen(None), seen(9.0)]).max_difference is None


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["tf32", "fp16", "bf16", "fp16_weights", "bf16_weights"])
def test_cuda_execution_modes_are_within_their_tolerance(load: Load, precision: Precision) -> None:
    case = load(precision=precision, device="cuda", clip="16x1x112", args={"width": 0.25, "num_classes": 4})
    parity(case)
    assert case.details["parity"]["is_within_tolerance"] is True  # type: ignore[index,call-overload]
