"""Measure `macs`: multiply-accumulates of one clip, forward and in a train step, and what other counters print."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from bench.core.registry import register_measure
from bench.core.schema import Metric
from bench.measure.axes import COUNT_AXES

if TYPE_CHECKING:
    from bench.measure.context import LoadedCase
    from bench.measure.counting.tally import Count


@register_measure("macs", depends_on=COUNT_AXES, version=1)
def macs(case: "LoadedCase", *, counters: Sequence[str] = ("torch",), backward: bool = True) -> list[Metric]:
    """MACs of products (not FLOPs, which are twice that) of one clip; `train_step` is forward plus backward.

    `counters` beside `torch`, which is ours, are fvcore, thop, ptflops or all: each is heard in a process of its own.
    The record gets `macs_by_module`, `macs_by_operator`, what is in print, and the verdict on each counter.
    """
    from bench.measure.counting.cases import forward_of, train_step_of

    forward = forward_of(case)
    metrics = [_metric("forward", forward, forward.macs)]
    if backward:
        step = train_step_of(case)
        metrics.append(_metric("train_step", step, step.macs))
    case.note("macs_by_module", dict(forward.by_module))
    case.note("macs_by_operator", dict(forward.by_operator))
    _hear_others(case, counters)
    return metrics


def _hear_others(case: "LoadedCase", counters: Sequence[str]) -> None:
    """Put witnesses and printed costs into the record; a difference that nobody can explain is a warning."""
    from bench.measure.counting.beside import published_beside
    from bench.measure.counting.cases import witnesses_of

    beside = published_beside(case.point.model, case.point.args)
    if beside:
        case.note("published_costs", [row.as_dict() for row in beside])
    verdicts = witnesses_of(case, counters)
    if verdicts:
        case.note("witnesses", [verdict.as_dict() for verdict in verdicts])
    for verdict in verdicts:
        if verdict.verdict in ("unexplained", "failed"):
            case.warn(f"{verdict.tool} {verdict.verdict}: {verdict.why}", "look at the witness table of this record")


def _metric(name: str, counted: "Count", value: int) -> Metric:
    missing = ", ".join(counted.uncounted_ops)
    return Metric(
        name=f"macs.{name}",
        value=value,
        unit="MACs",
        better="lower",
        is_exact=counted.is_complete,
        note=f"incomplete, a lower bound: no formula for {missing}" if missing else None,
    )
