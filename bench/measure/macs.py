"""Measure `macs`: multiply-accumulates of one clip, forward and in a train step, and what other counters print."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from bench.measure.axes import COUNT_AXES
from bench.registry import register_measure
from bench.schema import Metric

if TYPE_CHECKING:
    from bench.measure.counting.tally import Count
    from bench.measure.loaded import LoadedCase


@register_measure("macs", depends_on=COUNT_AXES, version=1)
def macs(case: "LoadedCase", *, counters: Sequence[str] = ("torch",), backward: bool = True) -> list[Metric]:
    """MACs of products (not FLOPs, which are twice that) of one clip; `train_step` is forward plus backward."""
    from bench.measure.counting.cases import forward_of, train_step_of

    forward = forward_of(case)
    metrics = [_metric("forward", forward, forward.macs)]
    if backward:
        step = train_step_of(case)
        metrics.append(_metric("train_step", step, step.macs))
    return metrics


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
