"""Measure `macs`: multiply-accumulates of one clip, forward and in a train step, and the reports of other counters."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from bench.core.registry import register_measure
from bench.core.schema import Metric
from bench.measure.axes import COUNT_AXES

if TYPE_CHECKING:
    from bench.measure.context import CaseContext
    from bench.measure.counting.model_count import Count


@register_measure("macs", depends_on=COUNT_AXES, version=1)
def macs(case: "CaseContext", *, counters: Sequence[str] = ("torch",), backward: bool = True) -> list[Metric]:
    """MACs of products (not FLOPs, which are twice that) of one clip; `train_step` is forward plus backward.

    `counters` may name fvcore, thop, ptflops or all besides `torch`, our own count; each runs in its own process. The
    record gets `macs_by_module`, `macs_by_operator`, published costs, and how each counter agrees with ours.
    """
    from bench.measure.counting.case_counts import forward_of, train_step_of

    forward = forward_of(case)
    metrics = [_metric("forward", forward, forward.macs)]
    if backward:
        step = train_step_of(case)
        metrics.append(_metric("train_step", step, None if step is None else step.macs))
    case.note("macs_by_module", dict(forward.by_module))
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


def _metric(name: str, counted: "Count | None", value: int | None) -> Metric:
    if counted is None:
        note = "no train step was counted; the warnings of the record say why"
        return Metric(name=f"macs.{name}", value=None, unit="MACs", better="lower", is_exact=False, note=note)
    missing = ", ".join(counted.uncounted_ops)
    return Metric(
        name=f"macs.{name}",
        value=value,
        unit="MACs",
        better="lower",
        is_exact=counted.is_complete,
        note=f"incomplete, a lower bound: no formula for {missing}" if missing else None,
    )
