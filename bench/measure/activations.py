"""Measure `activations`: what the operators of one forward pass write, move, and compute per byte moved."""

from typing import TYPE_CHECKING

from bench.core.registry import register_measure
from bench.core.schema import Metric
from bench.measure.axes import COUNT_AXES

if TYPE_CHECKING:
    from bench.measure.context import CaseContext


@register_measure("activations", depends_on=COUNT_AXES, version=2)
def activations(case: "CaseContext") -> list[Metric]:
    """Elements and bytes written; bytes read and written if nothing is fused or cached; FLOPs per byte of those."""
    from bench.measure.counting.case_counts import forward_of

    counted = forward_of(case)
    intensity = counted.flops_per_byte
    return [
        Metric(
            name="activations.elements",
            value=counted.activation_elements,
            unit="elements",
            better="lower",
            is_exact=True,
        ),
        Metric(name="activations.bytes", value=counted.activation_bytes, unit="B", better="lower", is_exact=True),
        Metric(name="activations.moved_bytes", value=counted.bytes_moved, unit="B", better="lower", is_exact=True),
        Metric(name="activations.flops_per_byte", value=intensity, unit="FLOPs/byte", is_exact=True),
    ]
