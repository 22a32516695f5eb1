"""Measure `memory_estimate`: a lower bound of peak memory for one clip, without running anything on a device."""

from dataclasses import asdict
from typing import TYPE_CHECKING

from bench.core.metric_spec import MetricSpec
from bench.core.registry import register_measure
from bench.core.schema import Metric
from bench.measure.axis_sets import COUNT_AXES

if TYPE_CHECKING:
    from bench.measure.context import CaseContext

BOUND = "a lower bound: without kernel workspaces, allocator overhead and optimizer state"

INFERENCE = MetricSpec(
    "memory_estimate.inference_bytes",
    "B",
    "lower",
    title="Memory of inference, at least",
    meaning="bytes of all tensors alive at the peak of a forward pass, weights included",
    headline=True,
)
TRAINING = MetricSpec(
    "memory_estimate.training_bytes",
    "B",
    "lower",
    title="Memory of training, at least",
    meaning="bytes of all tensors alive at the peak of a train step, weights included",
)


@register_measure(
    "memory_estimate",
    depends_on=COUNT_AXES,
    version=2,
    metrics=(INFERENCE, TRAINING),
)
def memory_estimate(case: "CaseContext") -> list[Metric]:
    """Bytes of all tensors alive at the peak of inference and of a train step, weights included."""
    from bench.measure.counting.case_counts import built_without_weights
    from bench.measure.counting.peak_memory import peak_memory_estimate

    model = built_without_weights(case)
    estimate = peak_memory_estimate(model, case.inputs(model, batch=1, device="meta"))
    case.note("memory_estimate", asdict(estimate))
    note = "; ".join([BOUND, *estimate.notes])
    return [
        INFERENCE.metric(estimate.inference_bytes, is_exact=True, note=note),
        TRAINING.metric(estimate.training_bytes, is_exact=True, note=note),
    ]
