"""Decode: clips per second that one worker makes of video files, and the time of each step."""

from typing import TYPE_CHECKING

from bench.core.metric_spec import MetricSpec
from bench.core.registry import register_measure
from bench.core.schema import Json, Metric
from bench.measure.axis_sets import COUNT_AXES, VIDEO_AXES
from bench.measure.context import CaseContext

if TYPE_CHECKING:
    from bench.data.loading_stages import StageTimes

CLIPS = MetricSpec(
    "decode.clips_per_s",
    "clips/s",
    "higher",
    title="Decoding",
    meaning="clips per second that one worker makes of video files",
    headline=True,
)
FRAMES = MetricSpec(
    "decode.frames_per_s", "frames/s", "higher", title="Decoded frames", meaning="frames per second of decoding alone"
)
DECODE = MetricSpec("decode.decode_ms", "ms", "lower", title="Decode time", meaning="time to decode one clip")
TRANSFORM = MetricSpec(
    "decode.transform_ms", "ms", "lower", title="Transform time", meaning="time to resize, crop and normalise one clip"
)
COLLATE = MetricSpec(
    "decode.collate_ms", "ms", "lower", title="Collate time", meaning="time to stack clips into a batch, for one clip"
)


@register_measure(
    "decode",
    depends_on=COUNT_AXES | VIDEO_AXES,
    version=3,
    is_timed=True,
    metrics=(CLIPS, FRAMES, DECODE, TRANSFORM, COLLATE),
    duration_s=5.0,
)
def decode(
    case: CaseContext,
    *,
    root: str | None = None,
    options: dict[str, Json] | None = None,
    clips: int = 32,
    rounds: int = 6,
    batch: int = 8,
) -> list[Metric]:
    """Clips per second of one worker on one core, from the file to a stacked, normalised batch in main memory.

    Each of `rounds` rounds reads `clips` clips at random places of random videos. Nothing is kept in memory between
    them, but the system's file cache is not emptied. `root` and `options` go to the data set. The record names files
    that cannot be read.
    """
    from bench.data.loading_stages import time_stages
    from bench.data.transforms import Augmentation
    from bench.measure.timing.pipeline import videos_of

    videos = videos_of(case, what="decode", root=root, options=options)
    found = [
        time_stages(
            videos, clip=case.point.clip, augmentation=Augmentation(), batch=min(batch, clips), clips=clips, seed=seed
        )
        for seed in range(rounds)
    ]
    unread = sorted({failed.what for times in found for failed in times.failed})
    if unread:
        case.note("decode.unread", list(unread))
        case.warn(f"{len(unread)} videos could not be decoded: {', '.join(unread[:5])}", "see `vbench data verify`")
    return _metrics(found, frames=case.point.clip.frames)


def _metrics(rounds: "list[StageTimes]", *, frames: int) -> list[Metric]:
    from bench.measure.timing.case_timing import sampled_metric

    read = [1000 * frames / ms for r in rounds if (ms := r.ms["decode"])]
    steps = {DECODE: "decode", TRANSFORM: "transform", COLLATE: "collate"}
    return [
        sampled_metric(CLIPS, [r.clips_per_s for r in rounds]),
        sampled_metric(FRAMES, read),
        *(sampled_metric(spec, [r.ms[step] or 0.0 for r in rounds]) for spec, step in steps.items()),
    ]
