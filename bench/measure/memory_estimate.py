"""Measure `memory_estimate`: a lower bound of peak memory for one clip, without running anything on a device."""

from typing import TYPE_CHECKING

from bench.core.registry import register_measure
from bench.core.schema import Metric
from bench.measure.axes import COUNT_AXES

if TYPE_CHECKING:
    from bench.measure.context import CaseContext

BOUND = "a lower bound: without kernel workspaces, allocator overhead and optimizer state"


@register_measure("memory_estimate", depends_on=COUNT_AXES, version=2)
def memory_estimate(case: "CaseContext") -> list[Metric]:
    """Bytes of all tensors alive at the peak of inference and of a train step, weights included."""
    from dataclasses import asdict

    from bench.measure.counting.case_counts import built_without_weights
    from bench.measure.counting.peak_memory import peak_memory_estimate

    model = built_without_weights(case)
    estimate = peak_memory_estimate(model, case.inputs(model, batch=1, device="meta"))
    case.note("memory_estimate", asdict(estimate))
    amounts = {"inference_bytes": estimate.inference_bytes, "training_bytes": estimate.training_bytes}
    note = "; ".join([BOUND, *estimate.notes])
    return [
        Metric(name=f"memory_estimate.{name}", value=value, unit="B", better="lower", is_exact=True, note=note)
        for name, value in amounts.items()
    ]
