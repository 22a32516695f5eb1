"""Parity on logits by hand, and of real variants."""

import math
from collections.abc import Callable

import pytest
import torch

from bench.measure.loaded import LoadedCase
from bench.measure.parity import is_variant, parity
from bench.measure.timing.outputs import TOLERANCES, compare
from bench.measure.timing.variants import Variant
from bench.schema import Precision

Load = Callable[..., LoadedCase]


def test_the_difference_is_a_share_of_the_largest_logit() -> None:
    wanted = torch.tensor([[1.0, -4.0], [2.0, 3.0]])
    found = torch.tensor([[1.0, -4.0], [3.5, 3.0]])
    seen = compare(wanted, found, tolerance=0.4)
    assert seen.max_difference == pytest.approx(1.5 / 4)
    assert seen.top1_agreement == 0.5
    assert seen.is_within
    assert not compare(wanted, found, tolerance=0.3).is_within


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_logits_that_are_no_numbers_are_out_of_tolerance(value: float) -> None:
    seen = compare(torch.tensor([[1.0, 2.0]]), torch.tensor([[value, 2.0]]), tolerance=1.0)
    assert seen.max_difference is None
    assert not seen.is_within


@pytest.mark.parametrize("axes", [{}, {"precision": "fp32"}, {"compile": "off", "batch": 8}])
def test_eager_fp32_is_no_variant(load: Load, axes: dict[str, str]) -> None:
    assert not is_variant(load(**axes).point)


@pytest.mark.parametrize("axes", [{"precision": "tf32"}, {"memory_format": "channels_last_3d"}, {"compile": "default"}])
def test_everything_else_is_a_variant(load: Load, axes: dict[str, str]) -> None:
    assert is_variant(load(**axes).point)


@pytest.mark.parametrize(
    "axes", [{"precision": "bf16"}, {"precision": "bf16_weights", "batch": 3}, {"memory_format": "channels_last_3d"}]
)
def test_real_variants_are_within_their_tolerance(load: Load, axes: dict[str, str]) -> None:
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


def test_a_variant_that_computes_something_else_is_found(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    """One filter of the first layer is lost where the network is cast, as by a wrong kernel."""
    forward = Variant.forward

    def faulty(self: Variant, batch: int, *, seed: int = 0) -> object:
        if self.dtype is not None:
            with torch.no_grad():
                next(self.model.parameters())[0] = 50
        return forward(self, batch, seed=seed)

    monkeypatch.setattr(Variant, "forward", faulty)
    case = load(precision="bf16_weights")
    parity(case)
    assert case.details["parity"]["is_within_tolerance"] is False  # type: ignore[index,call-overload]
    assert "out of tolerance" in case.warnings[0].what


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["tf32", "fp16", "bf16", "fp16_weights", "bf16_weights"])
def test_cuda_variants_are_within_their_tolerance(load: Load, precision: Precision) -> None:
    case = load(precision=precision, device="cuda", clip="16x1x112", args={"width": 0.25, "num_classes": 4})
    parity(case)
    assert case.details["parity"]["is_within_tolerance"] is True  # type: ignore[index,call-overload]
