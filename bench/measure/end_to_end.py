"""End to end: clips per second from video files to logits, of each of three stages alone, and the bottleneck."""

from typing import TYPE_CHECKING

from bench.core.metric_spec import MetricSpec
from bench.core.registry import register_measure
from bench.core.schema import Json, Metric
from bench.measure.axis_sets import TIMING_AXES, VIDEO_AXES
from bench.measure.context import CaseContext

if TYPE_CHECKING:
    from bench.measure.timing.pipeline import LaneRates

BLOCKS = 6

WHOLE = MetricSpec(
    "end_to_end.clips_per_s",
    "clips/s",
    "higher",
    title="End to end",
    meaning="clips per second from video files to logits",
    headline=True,
)
DECODE = MetricSpec(
    "end_to_end.decode_clips_per_s",
    "clips/s",
    "higher",
    title="End to end, decoding alone",
    meaning="clips per second if clips are only decoded",
)
COPY = MetricSpec(
    "end_to_end.copy_clips_per_s",
    "clips/s",
    "higher",
    title="End to end, copying alone",
    meaning="clips per second if clips are only copied to the device",
)
MODEL = MetricSpec(
    "end_to_end.model_clips_per_s",
    "clips/s",
    "higher",
    title="End to end, model alone",
    meaning="clips per second if the model only runs on clips that are on the device",
)


@register_measure(
    "end_to_end",
    depends_on=TIMING_AXES | VIDEO_AXES,
    version=3,
    is_timed=True,
    metrics=(WHOLE, DECODE, COPY, MODEL),
    duration_s=20.0,
)
def end_to_end(
    case: CaseContext,
    *,
    root: str | None = None,
    options: dict[str, Json] | None = None,
    workers: int = 0,
    lane_s: float = 5.0,
) -> list[Metric]:
    """Clips per second of all stages together, and of each alone: decode by `workers`, copy to the device, model.

    Each stage is timed for `lane_s` seconds. Without workers the stages take turns in one process; else decoding
    overlaps with the rest. On a CPU nothing is copied, and that stage is null. The record's detail `end_to_end` names
    the bottleneck. `root` and `options` go to the data set; the batch is the case's, 1 by default.
    """
    from bench.measure.timing.forward import prepare_model
    from bench.measure.timing.pipeline import Pipeline, time_pipeline, videos_of

    videos = videos_of(case, what="end_to_end", root=root, options=options)
    pipeline = Pipeline(prepared=prepare_model(case), videos=videos, batch=case.point.batch or 1, workers=workers)
    rates = time_pipeline(
        pipeline, lane_s=lane_s, blocks=BLOCKS, on_stage=lambda stage: case.progress(f"end_to_end, {stage}")
    )
    bottleneck = rates.bottleneck
    case.note(
        "end_to_end",
        {
            "verdict": str(bottleneck),
            "held_back_by": None if bottleneck.is_level else bottleneck.slowest,
            "workers": workers,
            "videos": len(videos),
        },
    )
    return _metrics(rates)


def _metrics(rates: "LaneRates") -> list[Metric]:
    from bench.measure.timing.case_timing import sampled_metric

    stages = ((DECODE, rates.decode), (COPY, rates.copy), (MODEL, rates.model))
    return [
        sampled_metric(WHOLE, rates.together, note=str(rates.bottleneck)),
        *(spec.metric(rate, note="nothing is copied on a CPU" if rate is None else None) for spec, rate in stages),
    ]
