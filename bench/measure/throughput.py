"""Throughput: clips per second at given batch sizes, with several batches in flight to keep the device busy."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from bench.core.metric_spec import MetricSpec
from bench.core.registry import register_measure
from bench.core.schema import Batch, Metric
from bench.measure.axis_sets import TIMING_AXES
from bench.measure.context import CaseContext
from bench.measure.execution_mode import ExecutionMode
from bench.measure.fastest import Search, as_best, speedup

if TYPE_CHECKING:
    from bench.measure.timing.forward import Forward

BLOCK_S = 0.05
MOST_ON_CPU = 256
NO_MAX_ON_CPU = "a CPU shares its memory with other processes, so no batch is the largest that fits"
Searched = Literal["max", "best"]
Size = Batch | Searched
Views = Annotated[str, Field(pattern=r"^[1-9]\d*x[1-9]\d*$")]

CLIPS = MetricSpec(
    "throughput.clips_per_s",
    "clips/s",
    "higher",
    title="Throughput",
    meaning="clips per second with several batches in flight",
    headline=True,
)
VIDEOS = MetricSpec(
    "throughput.videos_per_s",
    "videos/s",
    "higher",
    title="Video throughput",
    meaning="videos per second if every video takes as many clips as it has views",
)
SPEEDUP = MetricSpec(
    "throughput.speedup",
    "x",
    "higher",
    title="Speedup",
    meaning="throughput of the fastest execution mode with matching outputs over that of eager fp32",
    headline=True,
)
LARGEST_BATCH = MetricSpec(
    "throughput.max_batch",
    "clips",
    "higher",
    title="Largest batch",
    meaning="most clips of a batch that fits the device",
)
BEST_BATCH = MetricSpec(
    "throughput.best_batch", "clips", None, title="Best batch", meaning="batch of the highest throughput"
)


@register_measure(
    "throughput",
    depends_on=TIMING_AXES,
    version=4,
    is_timed=True,
    metrics=(CLIPS, SPEEDUP, VIDEOS, LARGEST_BATCH, BEST_BATCH),
    duration_s=12.0,
    order=40,
)
def throughput(
    case: CaseContext,
    *,
    batch: Size | list[Size] | None = None,
    search: Search | None = None,
    views: Views | None = None,
    max_s: float = 10.0,
) -> list[Metric]:
    """Clips per second at each batch size (the case's own, else 1), labelled with it.

    `max` is the largest batch that fits the device, `best` the batch of the highest throughput; both are searched in a
    process of their own, and are metrics too. `views` (temporal x spatial) adds videos per second, with one clip for
    each view of a video.

    `search: best`, in a case that runs eager fp32, also tries other execution modes and adds the throughput of the
    fastest one with matching outputs, labelled `variant=best`, and its speedup. A mapping limits what is tried:
    `{precision: [bf16], compile: [off, default]}`. Batches `max` and `best` are searched again for that mode.
    """
    sizes = batch if isinstance(batch, list) else [batch or case.point.batch or 1]
    found = {size: _search(case, size) for size in sizes if isinstance(size, str)}
    numbers = {size: found[size] if isinstance(size, str) else size for size in sizes}
    metrics = [metric for name, size in found.items() for metric in _searched(name, size, device=case.device)]
    own = _own(case, {size: number for size, number in numbers.items() if number}, max_s=max_s)
    metrics += own.values()
    if search is not None:
        for size, metric in own.items():
            metrics += _fastest(case, search, size, number=numbers[size] or 1, own=metric, max_s=max_s)
    return [*metrics, *_videos(metrics, views)]


def _own(case: CaseContext, numbers: Mapping[Size, int], *, max_s: float) -> dict[Size, Metric]:
    """Throughput of the case in its own execution mode at each batch size."""
    from bench.measure.timing.forward import forward_of

    at = forward_of(case)
    found: dict[Size, Metric] = {}
    for size, number in numbers.items():
        case.progress(f"throughput, batch {number}")
        found[size] = _throughput(case, at(number), of=case, label=str(size), max_s=max_s)
    return found


def _fastest(case: CaseContext, search: Search, size: Size, *, number: int, own: Metric, max_s: float) -> list[Metric]:
    """Throughput of the fastest execution mode with matching outputs, searched at batch `number`, and its speedup."""
    from bench.measure.timing.forward import forward_of, free_device_memory
    from bench.measure.timing.mode_search import case_in_mode, fastest_mode, recheck_parity

    best = fastest_mode(case, search, batch=number, what="throughput", is_synchronous=False)
    if best is None:
        return []
    if best.mode == ExecutionMode():
        same = as_best(own, best)
        return [same, speedup(SPEEDUP, same, own, note=same.note or "")]
    if isinstance(size, str):
        number = _search(case_in_mode(case, best.mode, batch=number), size) or number
    free_device_memory()
    timed = case_in_mode(case, best.mode, batch=number)
    found = _throughput(case, forward_of(timed)(number), of=timed, label=str(size), max_s=max_s)
    found = as_best(found, recheck_parity(case, timed, best))
    return [found, speedup(SPEEDUP, found, own, note=found.note or "")]


def _search(case: CaseContext, wanted: Searched) -> int | None:
    """The largest or the best batch; None if it is unknown here or not even one clip fits."""
    from bench.measure.timing.batch_search import LARGEST, BatchTrials, best_batch, largest_that_fits

    on_cpu = case.device.startswith("cpu")
    if wanted == "max" and on_cpu:
        return None
    with BatchTrials(case) as trials:

        def clips_per_s(batch: int) -> float | None:
            case.progress(f"throughput, trying batch {batch}")
            return trials.rate(batch)

        if wanted == "max":
            size = largest_that_fits(lambda batch: clips_per_s(batch) is not None) or None
        else:
            best = best_batch(clips_per_s, limit=MOST_ON_CPU if on_cpu else LARGEST)
            size = best.batch if best else None
            case.note("throughput.searched", {str(k): v for k, v in best.rates.items()} if best else None)
    for broken, error in trials.broken.items():
        case.warn(f"batch {broken} ended its process: {error}", "smaller batches were measured in a new one")
    return size


def _searched(name: Searched, size: int | None, *, device: str) -> list[Metric]:
    """The batch of a search as a metric; if none was found, its throughput too, both null with the reason."""
    spec = LARGEST_BATCH if name == "max" else BEST_BATCH
    if size:
        return [spec.metric(size)]
    why = NO_MAX_ON_CPU if device.startswith("cpu") else "not even one clip fits"
    return [spec.metric(None, note=why), CLIPS.metric(None, labels={"batch": name}, note=why)]


def _throughput(case: CaseContext, forward: "Forward", *, of: CaseContext, label: str, max_s: float) -> Metric:
    """Throughput of a pass `of` the case, or of a copy of it in its best execution mode, for the record of `case`."""
    from bench.measure.timing.case_timing import sampled_metric, time_step
    from bench.measure.timing.parity_check import keep_logits

    what = f"throughput at batch {label}" + ("" if of is case else " of the best variant")
    steps = max(1, math.ceil(BLOCK_S / forward.warm().wall_s))
    timing = time_step(case, lambda: forward.block(steps), what=what, max_s=max_s)
    keep_logits(of, forward)
    return sampled_metric(
        CLIPS,
        [forward.batch / seconds for seconds in timing.samples_s],
        labels={"batch": label},
        timing=timing,
        note=None if label == str(forward.batch) else f"batch {forward.batch}",
    )


def _videos(metrics: Sequence[Metric], views: str | None) -> list[Metric]:
    """Videos per second for each metric of clips per second; none without `views`."""
    if views is None:
        return []
    temporal, spatial = map(int, views.split("x"))
    clips = temporal * spatial
    return [
        metric.model_copy(
            update={
                "name": VIDEOS.name,
                "unit": VIDEOS.unit,
                "value": None if metric.value is None else metric.value / clips,
                "samples": tuple(rate / clips for rate in metric.samples),
                "interval": None if metric.interval is None else tuple(end / clips for end in metric.interval),
                "labels": {**metric.labels, "views": views},
            }
        )
        for metric in metrics
        if metric.name == CLIPS.name
    ]
