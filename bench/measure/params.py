"""Measure `params`: the parameters and buffers of a model, each counted once."""

from typing import TYPE_CHECKING

from bench.core.metric_spec import MetricSpec
from bench.core.registry import register_measure
from bench.core.schema import Metric
from bench.measure.axis_sets import COUNT_AXES

if TYPE_CHECKING:
    from bench.measure.context import CaseContext

TOTAL = MetricSpec(
    "params.total",
    "elements",
    "lower",
    title="Parameters",
    meaning="every parameter once; a shared one is not counted twice",
    headline=True,
)
TRAINABLE = MetricSpec(
    "params.trainable", "elements", "lower", title="Trainable parameters", meaning="parameters that need a gradient"
)
BUFFERS = MetricSpec(
    "params.buffers", "elements", "lower", title="Buffers", meaning="elements of buffers, such as running means"
)
NEVER_CALLED = MetricSpec(
    "params.never_called",
    "elements",
    "lower",
    title="Unused parameters",
    meaning="parameters that no operator of a forward pass reads",
)


@register_measure(
    "params",
    depends_on=COUNT_AXES,
    version=1,
    metrics=(TOTAL, TRAINABLE, BUFFERS, NEVER_CALLED),
    order=10,
)
def params(case: "CaseContext") -> list[Metric]:
    """Elements of parameters and buffers, each tensor once; `never_called` are parameters that no operator reads."""
    from bench.measure.counting.case_counts import forward_of

    counted = forward_of(case)
    if counted.never_called:
        case.note("never_called_parameters", dict(counted.never_called))
    case.note("params_by_module", dict(counted.parameters.by_module))
    amounts = {
        TOTAL: counted.params,
        TRAINABLE: counted.trainable,
        BUFFERS: counted.buffers,
        NEVER_CALLED: sum(counted.never_called.values()),
    }
    return [spec.metric(value, is_exact=True) for spec, value in amounts.items()]
