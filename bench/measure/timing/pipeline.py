"""From video files to logits in three stages: decode, copy to the device, model. Timed one by one, then together."""

import itertools
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from bench.core.errors import InputError
from bench.core.registry import DATASETS
from bench.data.clip_batches import train_batches
from bench.data.collection import VideoSet, open_dataset
from bench.data.split_names import evaluated_split
from bench.data.transforms import Augmentation
from bench.measure.context import CaseContext
from bench.measure.timing.clocks import synchronize, time_work
from bench.measure.timing.forward import Forward, PreparedModel, check_outputs
from bench.models.base import inputs_of
from bench.train.preprocessing import normalisation_of

Clips = tuple[Tensor, ...]
BALANCED = 0.9


def videos_of(case: CaseContext, *, what: str, root: str | None, options: Mapping[str, Any] | None) -> VideoSet:
    """The videos that the case would be evaluated on. Raises InputError if it names no data set."""
    point = case.point
    if point.dataset is None:
        raise InputError(
            f"{what} needs video files; name a data set in the suite, such as `{what}: {{dataset: ucf101}}`"
        )
    split = evaluated_split(point.split, known=DATASETS.get(point.dataset).splits, dataset=point.dataset)
    case.progress(f"opening {point.dataset} {split}")
    return open_dataset(point.dataset, root=root, split=split, **(options or {}))


@dataclass(frozen=True, kw_only=True)
class Bottleneck:
    """The slowest stage and its clips/s, and those of the next slowest stage."""

    slowest: str
    clips_per_s: float
    next_slowest: str
    next_clips_per_s: float

    @property
    def is_level(self) -> bool:
        """Whether the two slowest stages are within a tenth of each other."""
        return self.clips_per_s >= BALANCED * self.next_clips_per_s

    def __str__(self) -> str:
        rates = f"{self.clips_per_s:.4g} clips/s, {self.next_slowest} {self.next_clips_per_s:.4g}"
        if self.is_level:
            return f"no single stage is the bottleneck: {self.slowest} reaches {rates}"
        return f"{self.slowest} is the bottleneck: it reaches {rates}"


def find_bottleneck(clips_per_s: Mapping[str, float | None]) -> Bottleneck:
    """The bottleneck of at least two stages; a stage with rate None does not exist."""
    known = sorted(((rate, stage) for stage, rate in clips_per_s.items() if rate is not None))
    (rate, stage), (next_rate, next_stage) = known[:2]
    return Bottleneck(slowest=stage, clips_per_s=rate, next_slowest=next_stage, next_clips_per_s=next_rate)


@dataclass(frozen=True, kw_only=True)
class Pipeline:
    """The three stages of one model over one data set. Decoded frames are not kept between epochs."""

    prepared: PreparedModel
    videos: VideoSet
    batch: int
    workers: int

    def __post_init__(self) -> None:
        if len(self.videos) < self.batch:
            raise InputError(
                f"data set {self.videos.name}, split {self.videos.split}, holds {len(self.videos)} videos, "
                f"fewer than a batch of {self.batch}; give a smaller batch"
            )

    def decoded(self) -> Iterator[Clips]:
        """Batches of clips in main memory, epoch after epoch without end: decoded, scaled, normalised, stacked."""
        model = self.prepared.model
        normalisation = normalisation_of(model)
        for epoch in itertools.count():
            for each in train_batches(
                self.videos,
                clip=self.prepared.case.point.clip,
                inputs=inputs_of(model),
                augmentation=Augmentation(),
                mean=normalisation.mean,
                std=normalisation.std,
                batch=self.batch,
                seed=0,
                epoch=epoch,
                workers=self.workers,
                cache_bytes=0,
            ):
                yield each.clips

    def copied(self, clips: Clips) -> Clips:
        """`clips` on the device, in the model's dtype and memory format; on CUDA the copy is queued, not done."""
        prepared = self.prepared
        return tuple(
            clip.to(prepared.device, non_blocking=True).to(
                dtype=prepared.dtype or clip.dtype, memory_format=prepared.memory_format
            )
            for clip in clips
        )

    def forward(self, clips: Clips) -> Forward:
        """The model's stage over clips on the device."""
        return self.prepared.over(clips)

    def run(self, batches: Iterator[Clips], *, steps: int) -> None:
        """Run `steps` batches from files to logits: decoding by workers overlaps with the device."""
        for clips in itertools.islice(batches, steps):
            self.forward(self.copied(clips))()
        synchronize(self.prepared.device)


@dataclass(frozen=True, kw_only=True)
class LaneRates:
    """Clips/s of each stage alone, None for a stage that does not exist, and of blocks of all stages together."""

    decode: float
    copy: float | None
    model: float
    together: tuple[float, ...]

    @property
    def bottleneck(self) -> Bottleneck:
        return find_bottleneck({"decode": self.decode, "copy": self.copy, "model": self.model})


def time_pipeline(
    pipeline: Pipeline, *, lane_s: float, blocks: int, on_stage: Callable[[str], None] = lambda stage: None
) -> LaneRates:
    """Time each stage for `lane_s` seconds, then all stages together for as long, in `blocks` blocks."""
    device, batches = pipeline.prepared.device, pipeline.decoded()
    on_stage("decode")
    decode = _rate(lambda: next(batches), pipeline, lane_s, skip=1 + 2 * pipeline.workers)
    clips = next(batches)
    copy = None
    if device.type == "cuda":
        on_stage("copy")

        def copy_and_wait() -> None:
            copied = pipeline.copied(clips)  # in page-locked memory if workers decoded them, as in the whole pipeline
            synchronize(device)
            del copied  # not before the copy is done

        copy = _rate(copy_and_wait, pipeline, lane_s)
    on_stage("model")
    forward = pipeline.forward(pipeline.copied(clips))
    check_outputs(pipeline.prepared.case, forward)
    model = _rate(lambda: forward.block(1), pipeline, lane_s)
    on_stage("together")
    for _ in range(2 * pipeline.workers):  # batches that workers have decoded in the meantime
        next(batches)
    slowest = min(rate for rate in (decode, copy, model) if rate is not None)
    steps = max(1, round(lane_s * slowest / pipeline.batch / blocks))
    together = [
        pipeline.batch * steps / time_work(lambda: pipeline.run(batches, steps=steps), device).wall_s
        for _ in range(blocks)
    ]
    return LaneRates(decode=decode, copy=copy, model=model, together=tuple(together))


def _rate(work: Callable[[], object], pipeline: Pipeline, seconds: float, *, skip: int = 2) -> float:
    """Clips/s of `work`, which does one batch, over `seconds` and at least three batches, after `skip` others."""
    for _ in range(skip):
        work()
    started, done = time.perf_counter(), 0
    while (spent_s := time.perf_counter() - started) < seconds or done < 3:
        work()
        done += 1
    return pipeline.batch * done / spent_s
