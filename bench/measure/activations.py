"""Measure `activations`: what the operators of one forward pass write, move, and compute per byte moved."""

from typing import TYPE_CHECKING

from bench.core.metric_spec import MetricSpec
from bench.core.registry import register_measure
from bench.core.schema import Metric
from bench.measure.axis_sets import COUNT_AXES

if TYPE_CHECKING:
    from bench.measure.context import CaseContext

ELEMENTS = MetricSpec(
    "activations.elements",
    "elements",
    "lower",
    title="Activations",
    meaning="elements that the operators of one forward pass write",
    headline=True,
)
BYTES = MetricSpec(
    "activations.bytes",
    "B",
    "lower",
    title="Bytes written",
    meaning="bytes that the operators of one forward pass write",
)
MOVED = MetricSpec(
    "activations.moved_bytes",
    "B",
    "lower",
    title="Bytes moved",
    meaning="bytes that the operators read and write if nothing is fused or cached",
)
INTENSITY = MetricSpec(
    "activations.flops_per_byte", "FLOPs/byte", None, title="FLOPs per byte", meaning="FLOPs over the bytes moved"
)


@register_measure(
    "activations",
    depends_on=COUNT_AXES,
    version=2,
    metrics=(ELEMENTS, BYTES, MOVED, INTENSITY),
)
def activations(case: "CaseContext") -> list[Metric]:
    """Elements and bytes written; bytes read and written if nothing is fused or cached; FLOPs per byte of those."""
    from bench.measure.counting.case_counts import forward_of

    counted = forward_of(case)
    return [
        ELEMENTS.metric(counted.activation_elements, is_exact=True),
        BYTES.metric(counted.activation_bytes, is_exact=True),
        MOVED.metric(counted.bytes_moved, is_exact=True),
        INTENSITY.metric(counted.flops_per_byte, is_exact=True),
    ]
