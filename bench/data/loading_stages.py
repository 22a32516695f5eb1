"""Time the stages of loading a training clip, and derive how many workers a wanted rate needs."""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import torch

from bench.core.errors import InputError, VideoError
from bench.core.schema import Clip
from bench.data.clips import ClipReader
from bench.data.collection import VideoSet
from bench.data.frame_sampling import Part, generator_of, sample_clip
from bench.data.parallel import Failed
from bench.data.transforms import Augmentation, normalise

STAGES = ("decode", "transform", "collate", "copy")


@dataclass(frozen=True, kw_only=True)
class StageTimes:
    """Milliseconds per clip in each stage on one core; `copy` is None without a GPU.

    `clips_per_s` is the rate of one worker, which decodes, transforms and collates in turn. `workers_for_wanted` is the
    number of such workers for the wanted rate, None if no rate was given.
    """

    clips: int
    ms: dict[str, float | None]
    clips_per_s: float
    wanted_clips_per_s: float | None
    workers_for_wanted: int | None
    failed: tuple[Failed, ...]


@contextmanager
def _one_thread() -> Iterator[None]:
    """Let torch use one thread, as in the workers of a loader."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@_one_thread()
def time_stages(
    videos: VideoSet,
    *,
    clip: Clip,
    augmentation: Augmentation,
    batch: int = 8,
    clips: int = 100,
    seed: int = 0,
    wanted_clips_per_s: float | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> StageTimes:
    """Time the stages over `clips` clips of `videos` on one thread; no decoded video is kept for the next clip."""
    if not videos.videos:
        raise InputError(f"data set {videos.name}, split {videos.split}: holds no videos to time")
    seconds, failed, done = dict.fromkeys(STAGES, 0.0), list[Failed](), 0
    waiting: list[torch.Tensor] = []
    reader = ClipReader(size=augmentation.decode_size(clip), backend=videos.backend)
    transform = augmentation.build(clip)
    for number, position in enumerate(_order(len(videos), clips, seed)):
        video = videos.videos[position]
        choose = partial(_choose, clip=clip, augmentation=augmentation, seed=(seed, number, position))
        try:
            with _timed(seconds, "decode", clock):
                (frames,) = reader.read(video, choose)
        except VideoError as error:
            failed.append(Failed(what=video.id, reason=str(error)))
            continue
        with _timed(seconds, "transform", clock):
            waiting.append(normalise(transform(frames, number)["rgb"], mean=(0.45,) * 3, std=(0.225,) * 3))
        done += 1
        if len(waiting) == batch:
            _send(waiting, seconds, clock)
            waiting = []
    if not done:
        raise VideoError(f"none of {len(failed)} videos can be read; the first error: {failed[0].reason}")
    return _summary(seconds, done, failed, wanted_clips_per_s)


def _choose(part: Part, *, clip: Clip, augmentation: Augmentation, seed: tuple[int, int, int]) -> list[tuple[int, ...]]:
    random = generator_of(seed[0], epoch=seed[1], sample=seed[2])
    return [sample_clip(part, clip, sampling=augmentation.sampling, short=augmentation.short, random=random)]


def _order(videos: int, clips: int, seed: int) -> Iterator[int]:
    """Yield positions in shuffled rounds, one per epoch."""
    for epoch in range(math.ceil(clips / videos)):
        order = generator_of(seed, epoch=epoch, sample=0).permutation(videos)[: clips - epoch * videos]
        yield from (int(position) for position in order)


def _send(clips: Sequence[torch.Tensor], seconds: dict[str, float], clock: Callable[[], float]) -> None:
    with _timed(seconds, "collate", clock):
        stacked = torch.stack(list(clips))
    if torch.cuda.is_available():
        pinned = stacked.pin_memory()
        torch.cuda.synchronize()
        with _timed(seconds, "copy", clock):
            pinned.to("cuda", non_blocking=True)
            torch.cuda.synchronize()


def _summary(
    seconds: dict[str, float], done: int, failed: Sequence[Failed], wanted_clips_per_s: float | None
) -> StageTimes:
    ms: dict[str, float | None] = {stage: 1000 * seconds[stage] / done for stage in STAGES}
    if not torch.cuda.is_available():
        ms["copy"] = None
    rate = done / max(1e-9, seconds["decode"] + seconds["transform"] + seconds["collate"])
    return StageTimes(
        clips=done,
        ms=ms,
        clips_per_s=rate,
        wanted_clips_per_s=wanted_clips_per_s,
        workers_for_wanted=None if wanted_clips_per_s is None else math.ceil(wanted_clips_per_s / rate),
        failed=tuple(failed),
    )


@contextmanager
def _timed(seconds: dict[str, float], stage: str, clock: Callable[[], float]) -> Iterator[None]:
    started = clock()
    yield
    seconds[stage] += clock() - started
