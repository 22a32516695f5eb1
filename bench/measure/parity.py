"""Parity: how far a variant's logits are from those of eager fp32 on the same clips, and how often top-1 agrees."""

from bench.measure.axes import TIMING_AXES
from bench.measure.loaded import LoadedCase
from bench.measure.ways import Way, way_of
from bench.registry import register_measure
from bench.schema import Metric, Point


@register_measure("parity", depends_on=TIMING_AXES, version=1)
def parity(case: LoadedCase, *, clips: int = 8) -> list[Metric]:
    """Largest difference as a share of the largest logit, and top-1 agreement in percent, over at least `clips` clips.

    Taken by itself beside every timed variant. One out of tolerance is warned of, marked in the record's detail
    `parity`, and leads no leaderboard: it may be fast because it computes something else. Within it, less is no better:
    rounding is the same in every run of one build and another in the next.
    """
    from bench.measure.timing.outputs import compare_with_eager

    found = compare_with_eager(case, clips=clips)
    case.note(
        "parity",
        {"is_within_tolerance": found.is_within, "tolerance": found.tolerance, "clips": found.clips},
    )
    if not found.is_within:
        case.warn(
            f"out of tolerance: {found.in_words}",
            "do not use this variant's speed before its outputs are understood",
        )
    return [
        Metric(
            name="parity.max_difference",
            value=found.max_difference,
            unit="fraction",
            note=None if found.max_difference is not None else "its logits are not finite",
        ),
        Metric(name="parity.top1_agreement", value=100 * found.top1_agreement, unit="%"),
    ]


def is_variant(point: Point) -> bool:
    """Whether a point runs its network in another way than eager, contiguous fp32."""
    return way_of(point) != Way()
