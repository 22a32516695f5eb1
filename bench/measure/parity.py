"""Parity: how far the logits of an execution mode are from those of eager fp32, and how often top-1 agrees."""

from bench.core.metric_spec import MetricSpec
from bench.core.registry import register_measure
from bench.core.schema import Metric, Point
from bench.measure.axis_sets import TIMING_AXES
from bench.measure.context import CaseContext
from bench.measure.execution_mode import ExecutionMode, execution_mode_of

DIFFERENCE = MetricSpec(
    "parity.max_difference",
    "fraction",
    None,
    title="Parity",
    meaning="largest difference of a logit from eager fp32, as a share of the largest logit",
    headline=True,
)
AGREEMENT = MetricSpec(
    "parity.top1_agreement",
    "%",
    None,
    title="Top-1 agreement",
    meaning="share of the clips whose best class is that of eager fp32",
)


@register_measure(
    "parity",
    depends_on=TIMING_AXES,
    version=2,
    is_sampled=True,
    metrics=(DIFFERENCE, AGREEMENT),
    order=80,
)
def parity(case: CaseContext, *, clips: int = 8) -> list[Metric]:
    """Largest difference as a share of the largest logit, and top-1 agreement in percent, over at least `clips` clips.

    It is measured with every timed execution mode, at every batch at which latency or throughput were timed: the worst
    difference counts, and agreement is over all clips. A mode outside the tolerance gets a warning, is marked in the
    record's detail `parity`, and is not ranked first: it may be fast because it computes something else. Within the
    tolerance a smaller difference is not better: rounding is the same in all runs of one build and differs in the next.
    """
    from bench.measure.timing.parity_check import compare_with_eager, worst_parity

    found = compare_with_eager(case, clips=clips)
    most, all_clips = worst_parity(found.values()), sum(each.clips for each in found.values())
    case.note(
        "parity",
        {
            "is_within_tolerance": most.is_within,
            "tolerance": most.tolerance,
            "clips": all_clips,
            "max_difference_by_batch": {str(batch): each.max_difference for batch, each in found.items()},
        },
    )
    for batch, each in found.items():
        if not each.is_within:
            case.warn(
                f"out of tolerance at batch {batch}: {each}",
                "do not rely on the speed of this execution mode before its outputs are understood",
            )
    agreeing = sum(each.top1_agreement * each.clips for each in found.values()) / all_clips
    return [
        DIFFERENCE.metric(
            most.max_difference, note=None if most.max_difference is not None else "its logits are not finite"
        ),
        AGREEMENT.metric(100 * agreeing),
    ]


def needs_parity(point: Point) -> bool:
    """Whether the execution mode of `point` is another than eager, contiguous fp32."""
    return execution_mode_of(point) != ExecutionMode()
