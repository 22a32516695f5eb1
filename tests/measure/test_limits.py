"""Rooflines by hand, ceilings stored for a session, and the limits of a small model."""

from collections.abc import Callable

import pytest

from bench.measure.context import CaseContext
from bench.measure.limits import _metrics, _width, limits
from bench.measure.timing import ceilings as ceilings_module
from bench.measure.timing.ceilings import Ceilings, Roofline, ceilings_of
from bench.reference.peaks import Peak, peak_of, read_peaks

Load = Callable[..., CaseContext]
MACHINE = Ceilings(flops_per_s=100e12, bytes_per_s=1e12)
PEAK = Peak(flops_per_s={"fp32": 50e12, "bf16": 200e12}, bytes_per_s=2e12, source="a sheet")


@pytest.mark.parametrize(
    ("flops_per_byte", "roof", "by_memory"),
    [(10, 10e12, True), (99, 99e12, True), (100, 100e12, False), (1e4, 100e12, False)],
)
def test_the_roof_is_the_lower_of_two_ceilings(flops_per_byte: float, roof: float, by_memory: bool) -> None:
    line = Roofline(flops_per_s=5e12, flops_per_byte=flops_per_byte, ceilings=MACHINE)
    assert line.roof_flops_per_s == pytest.approx(roof)
    assert line.is_bound_by_memory is by_memory
    assert line.share == pytest.approx(5e12 / roof)


def test_shares_are_of_the_roof_the_product_and_the_data_sheet() -> None:
    line = Roofline(flops_per_s=5e12, flops_per_byte=10, ceilings=MACHINE)
    found = {m.name: m.value for m in _metrics(line, PEAK, precision="bf16_weights", reason="precise")}
    assert found == pytest.approx(
        {
            "limits.of_device": 50,
            "limits.of_matmul": 5,
            "limits.flops_per_s": 5e12,
            "limits.bytes_per_s": 5e11,
            "limits.mfu": 2.5,
        }
    )


@pytest.mark.parametrize(("peak", "precision"), [(None, "fp32"), (PEAK, "fp16")])
def test_an_unknown_peak_is_null_with_its_reason(peak: Peak | None, precision: str) -> None:
    mfu = _metrics(Roofline(flops_per_s=1, flops_per_byte=1, ceilings=MACHINE), peak, precision=precision, reason="")[
        -1
    ]
    assert mfu.value is None
    assert mfu.note


def test_half_precisions_move_half_the_bytes() -> None:
    assert [_width(p) for p in ("fp32", "tf32", "bf16", "fp16_weights")] == [1, 1, 0.5, 0.5]


def test_ceilings_are_measured_once_a_session_and_precision(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    measured: list[str] = []

    def measure(device: object, precision: str) -> Ceilings:
        measured.append(precision)
        return MACHINE

    monkeypatch.setattr(ceilings_module, "_measure", measure)
    first, half, later = load(), load(precision="bf16"), load()
    first.session = half.session = "one"
    later.session = "two"
    for case in (first, first, half, half, first, later, later):
        assert ceilings_of(case) == MACHINE
    assert measured == ["fp32", "bf16", "fp32"]
    nameless = load()
    ceilings_of(nameless)
    ceilings_of(nameless)
    assert len(measured) == 5, "without a session nothing can be shared"


def test_a_real_model_stays_below_the_limits_of_its_device(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ceilings_module, "_measure", lambda device, precision: MACHINE)
    case = load(batch=2)
    found = {m.name: m.value for m in limits(case, max_s=0.05)}
    assert found["limits.flops_per_s"]
    assert found["limits.of_matmul"] == pytest.approx(100 * found["limits.flops_per_s"] / 100e12)
    assert found["limits.mfu"] is None
    assert case.details["limits"]["bound_by"] in ("memory", "compute")  # type: ignore[index,call-overload]


def test_every_peak_is_dense_and_has_a_source() -> None:
    """Tensor rates of one GPU stand to each other as the hardware does: half precision is twice tf32."""
    assert len(read_peaks()) > 10
    for name, peak in read_peaks().items():
        rates = peak.flops_per_s
        assert peak.source, name
        assert rates["fp32"], name
        if rates["tf32"] and rates["fp16"]:
            assert rates["fp16"] / rates["tf32"] == pytest.approx(2, rel=0.02), name


def test_a_near_name_is_another_gpu() -> None:
    assert peak_of("NVIDIA A10") is not None
    assert peak_of("NVIDIA A10G") is None
    assert peak_of("NVIDIA A100-SXM4-40GB MIG 1g.5gb") is None


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["fp32", "tf32", "bf16"])
def test_cuda_ceilings_are_below_the_data_sheet(load: Load, precision: str) -> None:
    import torch

    found = ceilings_of(load(device="cuda", precision=precision))
    peak = peak_of(torch.cuda.get_device_name())
    rate = peak.flops_per_s[precision] if peak else None
    assert found.flops_per_s > 1e12
    assert rate is None or found.flops_per_s <= 1.02 * rate
