"""Measure `macs`: multiply-accumulates of one clip, forward and in a train step, and the reports of other counters."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from bench.core.metric_spec import MetricSpec
from bench.core.registry import register_measure
from bench.core.schema import Metric
from bench.measure.axis_sets import COUNT_AXES

if TYPE_CHECKING:
    from bench.measure.context import CaseContext
    from bench.measure.counting.model_count import Count

FORWARD = MetricSpec(
    "macs.forward",
    "MACs",
    "lower",
    title="MACs",
    meaning="multiply-accumulates of one forward pass over one view; 1 MAC = 2 FLOPs",
    headline=True,
)
TRAIN_STEP = MetricSpec(
    "macs.train_step",
    "MACs",
    "lower",
    title="MACs, train step",
    meaning="multiply-accumulates of forward and backward over one view",
)


@register_measure(
    "macs",
    depends_on=COUNT_AXES,
    version=1,
    metrics=(FORWARD, TRAIN_STEP),
    order=20,
)
def macs(case: "CaseContext", *, counters: Sequence[str] = ("torch",), backward: bool = True) -> list[Metric]:
    """MACs of the products in one clip's forward pass, and in a train step (forward and backward); 1 MAC = 2 FLOPs.

    `counters` names whose counts are compared: `torch` is ours, the others are fvcore, thop and ptflops, or `all`. Each
    of them runs in its own process. The record's details hold `macs_by_module`, `bytes_by_module` (read and written),
    `macs_by_operator`, published costs and how far each counter agrees with ours.
    """
    from bench.measure.counting.case_counts import forward_of, train_step_of

    forward = forward_of(case)
    metrics = [_metric(FORWARD, forward)]
    if backward:
        metrics.append(_metric(TRAIN_STEP, train_step_of(case)))
    case.note("macs_by_module", dict(forward.by_module))
    case.note("bytes_by_module", forward.bytes_by_module)
    case.note("macs_by_operator", dict(forward.by_operator))
    _add_other_counts(case, counters)
    return metrics


def _add_other_counts(case: "CaseContext", counters: Sequence[str]) -> None:
    """Add counter reports and published costs to the record; an unexplained difference becomes a warning."""
    from bench.measure.counting.case_counts import counter_reports
    from bench.measure.counting.published_costs import published_costs

    published = published_costs(case.point.model, case.point.args)
    if published:
        case.note("published_costs", [row.as_dict() for row in published])
    agreements = counter_reports(case, counters)
    if agreements:
        case.note("counter_reports", [agreement.as_dict() for agreement in agreements])
    for agreement in agreements:
        if agreement.verdict in ("unexplained", "failed"):
            case.warn(
                f"{agreement.tool} {agreement.verdict}: {agreement.why}", "see the counter reports of this record"
            )


def _metric(spec: MetricSpec, counted: "Count | None") -> Metric:
    if counted is None:
        return spec.metric(None, note="no train step was counted; the warnings of the record say why")
    missing = ", ".join(counted.uncounted_ops)
    note = f"incomplete, a lower bound: no formula for {missing}" if missing else None
    return spec.metric(counted.macs, is_exact=counted.is_complete, note=note)
