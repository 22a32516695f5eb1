"""Limits: FLOP/s and bytes/s of forward passes, as shares of the measured ceilings and of the data-sheet peak."""

from typing import TYPE_CHECKING

from bench.core.metric_spec import MetricSpec
from bench.core.registry import register_measure
from bench.core.schema import Metric
from bench.measure.axis_sets import TIMING_AXES
from bench.measure.context import CaseContext
from bench.reference.peaks import Peak, peak_of

if TYPE_CHECKING:
    from bench.measure.timing.ceilings import Roofline

BLOCK_STEPS = 5
NO_PEAK = "no data-sheet peak of this device and precision is known"

OF_DEVICE = MetricSpec(
    "limits.of_device",
    "%",
    "higher",
    title="Of the device",
    meaning="FLOP/s as a share of the most that this device reaches at the model's FLOPs per byte",
    headline=True,
)
OF_MATMUL = MetricSpec(
    "limits.of_matmul",
    "%",
    "higher",
    title="Of the matrix product",
    meaning="FLOP/s as a share of those of a large matrix product on this device",
)
FLOPS = MetricSpec(
    "limits.flops_per_s", "FLOP/s", "higher", title="FLOP/s", meaning="counted FLOPs of a forward pass by its time"
)
BYTES = MetricSpec(
    "limits.bytes_per_s", "B/s", "higher", title="Bytes/s", meaning="bytes that operators read and write by the time"
)
MFU = MetricSpec("limits.mfu", "%", "higher", title="MFU", meaning="FLOP/s as a share of the dense data-sheet peak")


@register_measure(
    "limits",
    depends_on=TIMING_AXES,
    version=2,
    is_timed=True,
    metrics=(OF_DEVICE, OF_MATMUL, FLOPS, BYTES, MFU),
    duration_s=8.0,
)
def limits(case: CaseContext, *, max_s: float = 5.0) -> list[Metric]:
    """How close forward passes at the case's batch come to the limits of this device.

    FLOPs are twice the counted MACs. Bytes are those that every operator reads and writes; fused kernels avoid some of
    them, so a compiled model may be above its roofline. `of_device` is the share of the roofline, which is the lower of
    the measured matrix product and the measured copy times the FLOPs per byte. `mfu` is the share of the dense
    data-sheet peak, null if none is known. The record's detail `limits` has the ceilings and the source of the peak.
    """
    from bench.core.stats import median
    from bench.measure.counting.case_counts import built_without_weights
    from bench.measure.counting.model_count import count
    from bench.measure.timing.case_timing import time_step
    from bench.measure.timing.ceilings import Roofline, ceilings_of
    from bench.measure.timing.forward import forward_of

    batch = case.point.batch or 1
    plain = built_without_weights(case)
    counted = count(plain, case.inputs(plain, batch=batch, device="meta"))
    forward = forward_of(case)(batch)
    ceilings = ceilings_of(case)
    forward.warm()
    timing = time_step(case, lambda: forward.block(BLOCK_STEPS), what="limits", max_s=max_s)
    flops, bytes_moved = 2 * counted.macs, counted.bytes_moved * _width(case.point.precision or "fp32")
    roofline = Roofline(
        flops_per_s=flops / median(timing.samples_s), flops_per_byte=flops / bytes_moved, ceilings=ceilings
    )
    peak = _peak(case)
    case.note(
        "limits",
        {
            "bound_by": "memory" if roofline.is_bound_by_memory else "compute",
            "flops_per_byte": roofline.flops_per_byte,
            "measured_flops_per_s": ceilings.flops_per_s,
            "measured_bytes_per_s": ceilings.bytes_per_s,
            "peak_source": peak.source if peak else None,
        },
    )
    return _metrics(roofline, peak, precision=case.point.precision or "fp32", reason=timing.stopped_because)


def _width(precision: str) -> float:
    """Bytes of an element in this precision, as a share of the float32 that was counted."""
    return 1.0 if precision in ("fp32", "tf32") else 0.5


def _peak(case: CaseContext) -> Peak | None:
    if not case.device.startswith("cuda"):
        return None
    import torch

    return peak_of(torch.cuda.get_device_name(case.device))


def _metrics(roofline: "Roofline", peak: Peak | None, *, precision: str, reason: str) -> list[Metric]:
    rate = peak.flops_per_s.get(precision.removesuffix("_weights")) if peak else None
    return [
        OF_DEVICE.metric(100 * roofline.share, stopped_because=reason),
        OF_MATMUL.metric(100 * roofline.flops_per_s / roofline.ceilings.flops_per_s),
        FLOPS.metric(roofline.flops_per_s),
        BYTES.metric(roofline.flops_per_s / roofline.flops_per_byte),
        MFU.metric(100 * roofline.flops_per_s / rate) if rate else MFU.metric(None, note=NO_PEAK),
    ]
