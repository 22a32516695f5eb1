"""From video files to logits in three lanes: decode, copy to the device, model. Each alone, then all together."""

import itertools
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from bench.core.errors import InputError
from bench.data.collection import VideoSet
from bench.data.loading import train_batches
from bench.data.transforms import Augmentation
from bench.measure.timing.clocks import synchronize, time_work
from bench.measure.timing.output_check import check_outputs
from bench.measure.timing.variants import Forward, Variant
from bench.models.base import inputs_of
from bench.train.preprocessing import normalisation_of

Clips = tuple[Tensor, ...]
LEVEL = 0.9


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Which lane holds the others back, and the clips/s that the next slowest lane could take."""

    slowest: str
    clips_per_s: float
    next_slowest: str
    next_clips_per_s: float

    @property
    def is_level(self) -> bool:
        """Whether the two slowest lanes are within a tenth of each other."""
        return self.clips_per_s >= LEVEL * self.next_clips_per_s

    def __str__(self) -> str:
        rates = f"{self.clips_per_s:.4g} clips/s, {self.next_slowest} {self.next_clips_per_s:.4g}"
        if self.is_level:
            return f"no lane alone holds it back: {self.slowest} gives {rates}"
        return f"{self.slowest} holds it back: it gives {rates}"


def judge(clips_per_s: Mapping[str, float | None]) -> Verdict:
    """The verdict on the rates of at least two lanes; a lane of rate None is not there."""
    known = sorted(((rate, lane) for lane, rate in clips_per_s.items() if rate is not None))
    (rate, lane), (next_rate, next_lane) = known[:2]
    return Verdict(slowest=lane, clips_per_s=rate, next_slowest=next_lane, next_clips_per_s=next_rate)


@dataclass(frozen=True, kw_only=True)
class Pipeline:
    """The three lanes of one network over one data set. Nothing decoded is kept between epochs."""

    variant: Variant
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
        """Batches of clips in main memory, epoch after epoch, without end: decoded, scaled, normalised, stacked."""
        model = self.variant.model
        normalisation = normalisation_of(model)
        for epoch in itertools.count():
            for each in train_batches(
                self.videos,
                clip=self.variant.case.point.clip,
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
        """`clips` on the device, in the variant's dtype and memory format; on CUDA queued, not done."""
        variant = self.variant
        return tuple(
            clip.to(variant.device, non_blocking=True).to(
                dtype=variant.dtype or clip.dtype, memory_format=variant.memory_format
            )
            for clip in clips
        )

    def forward(self, clips: Clips) -> Forward:
        """The model's lane over clips that are on the device."""
        return self.variant.over(clips)

    def run(self, batches: Iterator[Clips], *, steps: int) -> None:
        """`steps` batches from their files to their logits: decoding by workers and the device overlap."""
        for clips in itertools.islice(batches, steps):
            self.forward(self.copied(clips))()
        synchronize(self.variant.device)


@dataclass(frozen=True, kw_only=True)
class LaneRates:
    """Clips/s of each lane alone, None for one that is not there, and of `blocks` of all of them together."""

    decode: float
    copy: float | None
    model: float
    together: tuple[float, ...]

    @property
    def verdict(self) -> Verdict:
        return judge({"decode": self.decode, "copy": self.copy, "model": self.model})


def time_pipeline(
    pipeline: Pipeline, *, lane_s: float, blocks: int, on_lane: Callable[[str], None] = lambda lane: None
) -> LaneRates:
    """Time every lane for `lane_s` seconds, and `blocks` blocks of all together for as long."""
    device, batches = pipeline.variant.device, pipeline.decoded()
    on_lane("decode")
    decode = _rate(lambda: next(batches), pipeline, lane_s, skip=1 + 2 * pipeline.workers)
    clips = next(batches)
    copy = None
    if device.type == "cuda":
        on_lane("copy")
        ready = tuple(clip.pin_memory() for clip in clips)
        copy = _rate(lambda: _waited(pipeline.copied(ready), device), pipeline, lane_s)
    on_lane("model")
    forward = pipeline.forward(pipeline.copied(clips))
    check_outputs(pipeline.variant.case, forward)
    model = _rate(lambda: forward.block(1), pipeline, lane_s)
    on_lane("together")
    for _ in range(2 * pipeline.workers):  # what workers had ready
        next(batches)
    slowest = min(rate for rate in (decode, copy, model) if rate is not None)
    steps = max(1, round(lane_s * slowest / pipeline.batch / blocks))
    together = [
        pipeline.batch * steps / time_work(lambda: pipeline.run(batches, steps=steps), device).wall_s
        for _ in range(blocks)
    ]
    return LaneRates(decode=decode, copy=copy, model=model, together=tuple(together))


def _rate(work: Callable[[], object], pipeline: Pipeline, seconds: float, *, skip: int = 2) -> float:
    """Clips/s of `work`, which does one batch, over `seconds` and at least three batches after `skip` others."""
    for _ in range(skip):
        work()
    started, done = time.perf_counter(), 0
    while (spent_s := time.perf_counter() - started) < seconds or done < 3:
        work()
        done += 1
    return pipeline.batch * done / spent_s


def _waited(clips: Clips, device: torch.device) -> Clips:
    synchronize(device)
    return clips
