"""Measure `params`: the parameters and buffers of a model, each counted once."""

from typing import TYPE_CHECKING

from bench.core.registry import register_measure
from bench.core.schema import Metric
from bench.measure.axes import COUNT_AXES

if TYPE_CHECKING:
    from bench.measure.context import CaseContext


@register_measure("params", depends_on=COUNT_AXES, version=1)
def params(case: "CaseContext") -> list[Metric]:
    """Elements of parameters and buffers by identity; `never_called` counts parameters that no operator reads."""
    from bench.measure.counting.case_counts import forward_of

    counted = forward_of(case)
    if counted.never_called:
        case.note("never_called_parameters", dict(counted.never_called))
    amounts = {
        "total": counted.params,
        "trainable": counted.trainable,
        "buffers": counted.buffers,
        "never_called": sum(counted.never_called.values()),
    }
    return [
        Metric(name=f"params.{name}", value=value, unit="elements", better="lower", is_exact=True)
        for name, value in amounts.items()
    ]
