"""Batches of clips for training and evaluation. Their order depends on seed and epoch, never on the workers.

Worker processes start from a clean server process (forkserver): a fork of this one would copy a GPU context and
threads. A worker receives one small request per batch, decodes, transforms and normalises, and decodes the next video
while the current one is transformed. A video that cannot be read is listed in `failures`, or a warning names it.
"""

import math
import multiprocessing
import re
import warnings
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from itertools import accumulate, zip_longest
from typing import Any, Generic, Protocol, TypeVar, cast

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, get_worker_info

from bench.core.errors import BenchError, InputError, TrainingError, VideoError
from bench.core.input_change import InputChange
from bench.core.input_protocol import Channels, CropRounding, Placement, Short, ViewSampling
from bench.core.schema import Clip, SlidingWindows, Views, views_per_video
from bench.data.clips import ClipReader, DecodedCache, Reading
from bench.data.collection import Video, VideoSet
from bench.data.frame_sampling import Part, generator_of, sample_clip
from bench.data.geometry import Covering, Scaling, Size
from bench.data.transforms import FLOW_MEAN, FLOW_STD, Augmentation, Transform, normalise
from bench.data.view_rule import ClipTensors, DecodedClips, ViewRule

CACHE_BYTES = 256 << 20
SPARES = 8  # replacement candidates of a training batch in which no video can be read
# torch has no exception class for it. Fetching a batch from the memory of a dead worker fails with a ConnectionError
# or EOFError, or ends the thread that copies; messages of errors that a worker itself raised begin with "Caught".
_DEAD_WORKER = re.compile("RuntimeError: (DataLoader worker|Pin memory thread exited)|(Connection|EOF)(?!.*: Caught)")

Request = TypeVar("Request")
Made = TypeVar("Made")
PositionedVideos = tuple[tuple[int, Video], ...]  # each with its position in the set


class UnreadVideoWarning(UserWarning):
    """A video gave no clip, and the caller passed no `failures` list."""


class InputLike(Protocol):
    """One input of a model, as model classes describe it."""

    @property
    def channels(self) -> int: ...

    @property
    def modality(self) -> str: ...

    def take(self, clip_BCTHW: Tensor) -> Tensor: ...


@dataclass(frozen=True, kw_only=True)
class Normalisation:
    """`mean` and `std` of RGB per channel, on a scale of 0 to 1. Flow uses its own constants.

    With `channels` bgr the channels are reversed first; `mean` and `std` are then in the order blue, green, red.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    channels: Channels = "rgb"

    def of(self, modality: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Return mean and deviation per channel for clips of `modality`."""
        return (FLOW_MEAN, FLOW_STD) if modality == "flow" else (self.mean, self.std)

    def write(self, modality: str, clip_CTHW: Tensor, row_CTHW: Tensor) -> None:
        """Write a clip of bytes, normalised, into its row of a batch."""
        mean, std = self.of(modality)
        if modality == "rgb" and self.channels == "bgr":
            clip_CTHW = clip_CTHW.flip(0)
        normalise(clip_CTHW, mean=mean, std=std, out=row_CTHW)


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Clips with their labels. `clips` has one tensor (B * V, C, T, H, W) per input, the views of one video adjacent.

    `labels` is (B,) int64, or (B, classes) float of zeros and ones for multi-label sets. `videos` (B,) are positions in
    the set's videos.
    """

    clips: tuple[Tensor, ...]
    labels: Tensor
    videos: Tensor
    views: int


@dataclass(frozen=True, kw_only=True)
class UnreadVideo:
    """A video that gave no clip: its position in the set, its id and the reason."""

    position: int
    id: str
    reason: str


def train_batches(
    videos: VideoSet,
    *,
    clip: Clip,
    inputs: Sequence[InputLike],
    augmentation: Augmentation,
    mean: Sequence[float],
    std: Sequence[float],
    channels: Channels = "rgb",
    batch: int,
    seed: int,
    epoch: int,
    workers: int = 0,
    start: int = 0,
    rank: int = 0,
    world: int = 1,
    cache_bytes: int = CACHE_BYTES,
    scaling: Scaling | None = None,
    failures: list[UnreadVideo] | None = None,
) -> Iterator[Batch]:
    """Yield one epoch of shuffled, augmented clips, one per video, from batch `start` on.

    Every rank gets `batch` clips of each global batch of `batch * world`. The content of a clip depends only on `seed`,
    `epoch` and its video. A video that cannot be read is listed in `failures` and replaced by another clip of its
    batch, or by the next readable video of the epoch if the batch has no other clip. VideoError if there is none.
    Without workers, the decoded videos of a set that fits into `cache_bytes` are kept in memory. `scaling` has the
    filter and rounding with which frames are scaled to the augmentation's size.
    """
    size = augmentation.decode_size(clip)
    if scaling is not None and size is not None and not isinstance(size, Scaling):
        size = replace(scaling, size=size)
    positions = epoch_order(len(videos), batch=batch, seed=seed, epoch=epoch, rank=rank, world=world)
    maker = _TrainBatchMaker(
        source=_ClipSource.of(videos, inputs, size=size, cache_bytes=cache_bytes, workers=workers),
        normalisation=Normalisation(mean=tuple(mean), std=tuple(std), channels=channels),
        clip=clip,
        augmentation=augmentation,
        seed=seed,
        epoch=epoch,
    )
    requests = [
        BatchRequest.of(videos, own, spare=spare) for own, spare in zip(positions, spares_after(positions), strict=True)
    ]
    return _batches(maker, requests[start:], inputs=inputs, workers=workers, failures=failures)


def view_batches(
    videos: VideoSet,
    *,
    clip: Clip,
    inputs: Sequence[InputLike],
    views: Views = (1, 1),
    mean: Sequence[float],
    std: Sequence[float],
    channels: Channels = "rgb",
    batch: int,
    resize: Size | None = None,
    crop_rounding: CropRounding = "floor",
    sampling: ViewSampling = "blocks",
    placement: Placement = "ends",
    short: Short = "loop",
    changes: Sequence[InputChange] = (InputChange(),),
    without: Collection[int] = (),
    workers: int = 0,
    rank: int = 0,
    world: int = 1,
    cache_bytes: int = CACHE_BYTES,
    failures: list[UnreadVideo] | None = None,
) -> Iterator[Batch]:
    """Yield every video once, each with `views` (temporal, spatial) clips from one decode. `batch` counts videos.

    Spatial `full` views are whole frames. Their widths may differ between videos, as does the number of sliding
    windows: there each video is a batch of its own. `sampling`, `placement` and `short` are those of
    `bench.data.frame_sampling.sample_views`. Frames are scaled to `resize` (short side, (H, W) or a `Scaling`), by
    default to the smallest size that covers the clip. Ranks take every `world`-th video; none is repeated to fill a
    batch. A video that cannot be read is left out and listed in `failures`. Videos at the positions `without` are
    skipped.

    Several `changes` of the input share one decode: a video then has its views under the first change, under the
    second, and so on. A change that needs a decoding of its own stands alone.
    """
    is_single = views[1] == "full" or isinstance(views[0], SlidingWindows)
    batch = 1 if is_single else batch
    mine = [position for position in range(rank, len(videos), world) if position not in without]
    positions = [mine[at : at + batch] for at in range(0, len(mine), batch)]
    size = Covering(height=clip.height, width=clip.width) if resize is None else resize
    rule = ViewRule(
        clip=clip,
        views=views,
        crop_rounding=crop_rounding,
        sampling=sampling,
        placement=placement,
        short=short,
        changes=tuple(changes),
    )
    reading = rule.changed_reading(Reading(size=size, backend=videos.backend))
    videos = replace(videos, backend=reading.backend)
    maker = _ViewBatchMaker(
        source=_ClipSource.of(videos, inputs, size=reading.size, cache_bytes=cache_bytes, workers=workers),
        normalisation=Normalisation(mean=tuple(mean), std=tuple(std), channels=channels),
        rule=rule,
    )
    requests = [BatchRequest.of(videos, own) for own in positions]
    return _batches(maker, requests, inputs=inputs, workers=workers, failures=failures)


def steps_per_epoch(videos: VideoSet, *, batch: int, world: int = 1) -> int:
    """Return the number of batches that each rank gets in an epoch."""
    return len(epoch_order(len(videos), batch=batch, seed=0, epoch=0, rank=0, world=world))


def epoch_order(videos: int, *, batch: int, seed: int, epoch: int, rank: int, world: int) -> list[list[int]]:
    """Return the positions of one rank's batches. Global batches depend on `batch * world`, not on `world` alone.

    Videos left over at the end, fewer than a global batch, are skipped in this epoch.
    """
    if batch < 1:
        raise InputError(f"a batch of {batch} clips; allowed: 1 and more")
    order = np.random.default_rng((seed, epoch)).permutation(videos).tolist()
    starts = range(rank * batch, videos // (batch * world) * batch * world, batch * world)
    return [order[start : start + batch] for start in starts]


@dataclass(frozen=True, kw_only=True)
class BatchRequest:
    """What a worker is asked for: the videos of one batch, and `spare` ones in case none of them can be read."""

    videos: PositionedVideos
    spare: PositionedVideos = ()

    @classmethod
    def of(cls, videos: VideoSet, own: Sequence[int], *, spare: Sequence[int] = ()) -> "BatchRequest":
        """Look up the videos at these positions of the set."""
        chosen, spares = (tuple((place, videos.videos[place]) for place in places) for places in (own, spare))
        return cls(videos=chosen, spare=spares)


def spares_after(batches: Sequence[Sequence[int]]) -> list[list[int]]:
    """Return, for each batch, up to SPARES positions that follow it in the epoch, wrapping round to the first."""
    order = [position for batch in batches for position in batch]
    ends = accumulate(len(batch) for batch in batches)
    others = (len(order) - len(batch) for batch in batches)
    return [
        [order[(end + i) % len(order)] for i in range(min(SPARES, other))]
        for end, other in zip(ends, others, strict=True)
    ]


@dataclass(frozen=True, kw_only=True)
class _ClipSource:
    """How the clips and labels of a set are read. Holds no videos, so it is small enough to send to a worker."""

    modalities: tuple[str, ...]
    size: Size | None
    classes: int
    is_multi_label: bool
    cache_key: tuple[str, int, int] | None
    backend: str

    @classmethod
    def of(
        cls, videos: VideoSet, inputs: Sequence[InputLike], *, size: Size | None, cache_bytes: int, workers: int
    ) -> "_ClipSource":
        return cls(
            modalities=tuple(dict.fromkeys(each.modality for each in inputs)),
            size=size,
            classes=len(videos.classes),
            is_multi_label=videos.is_multi_label,
            # Every worker would hold a cache of its own, so decoded videos are kept only without workers.
            cache_key=None if workers else (f"{videos.hash} {size} {videos.backend}", len(videos), cache_bytes),
            backend=videos.backend,
        )

    def reader(self) -> ClipReader:
        cache = None if self.cache_key is None else _shared_cache(*self.cache_key)
        return ClipReader(modalities=self.modalities, size=self.size, backend=self.backend, cache=cache)

    def labels(self, videos: Sequence[Video]) -> Tensor:
        if not self.is_multi_label:
            return torch.tensor([video.labels[0] if video.labels else -1 for video in videos])
        labels = torch.zeros(len(videos), self.classes)
        for row, video in zip(labels, videos, strict=True):
            row[list(video.labels)] = 1
        return labels


@lru_cache(maxsize=4)
def _shared_cache(_name: str, videos: int, limit_bytes: int) -> DecodedCache:
    """Return one cache per set and size, so that the next epoch finds the videos that this one decoded."""
    return DecodedCache(videos=videos, limit_bytes=limit_bytes)


class _BatchTensors:
    """The clips of one batch by modality, (videos * views, C, T, H, W); each is normalised straight into its row.

    With `views` None, the batch is of one video and has as many views as that video gives.
    """

    def __init__(self, videos: int, *, views: int | None = 1, normalisation: Normalisation) -> None:
        self._videos, self.views, self._normalisation = videos, views or 1, normalisation
        self._is_open = views is None
        self._clips: dict[str, Tensor] = {}
        self.filled = 0

    def add(self, views: ClipTensors) -> None:
        """Write the views of the next video."""
        if self._is_open:
            self.views = len(next(iter(views.values())))
        for modality, clips in views.items():
            if modality not in self._clips:
                self._clips[modality] = _empty((self._videos * self.views, *clips[0].shape))
            first = self.filled * self.views
            for clip_CTHW, row_CTHW in zip(clips, self._clips[modality][first : first + self.views], strict=True):
                self._normalisation.write(modality, clip_CTHW, row_CTHW)
        self.filled += 1

    def repeat(self) -> None:
        """Copy the first videos until no row is empty."""
        used = self.filled * self.views
        for clips in self._clips.values():
            for row in range(used, len(clips)):
                clips[row] = clips[row % used]
        self.filled = self._videos

    def written(self) -> dict[str, Tensor]:
        """Return the rows that were written."""
        if self.filled == self._videos:
            return self._clips
        return {modality: clips[: self.filled * self.views].clone() for modality, clips in self._clips.items()}


def _empty(shape: Sequence[int]) -> Tensor:
    """Return uninitialised float32; in a worker it is shared memory, which reaches the main process without a copy."""
    if get_worker_info() is None:
        return torch.empty(shape)
    # torch's own collation does the same; no public function allocates shared memory without writing it twice.
    storage = torch.UntypedStorage._new_shared(4 * math.prod(shape), device="cpu")  # type: ignore[no-untyped-call]
    return torch.empty(0).set_(storage).view(*shape)


@dataclass(frozen=True, kw_only=True)
class _WorkerBatch:
    """What a worker returns for one request: clips (B * V, C, T, H, W) by modality, and the videos that gave none."""

    clips: dict[str, Tensor]
    labels: Tensor
    positions: Tensor
    views: int
    unread: tuple[UnreadVideo, ...]

    def pin_memory(self) -> "_WorkerBatch":
        """Return a copy in page-locked memory, which transfers to a GPU asynchronously."""
        clips = {modality: clips.pin_memory() for modality, clips in self.clips.items()}
        return replace(self, clips=clips, labels=self.labels.pin_memory())


@dataclass(frozen=True, kw_only=True)
class _TrainBatchMaker:
    """Makes a training batch from a request."""

    source: _ClipSource
    normalisation: Normalisation
    clip: Clip
    augmentation: Augmentation
    seed: int
    epoch: int

    def __call__(self, request: BatchRequest) -> _WorkerBatch:
        reader, transform = self.source.reader(), _built(self.augmentation, self.clip)
        return _make(
            *(read_ahead(videos, partial(self._read, reader)) for videos in (request.videos, request.spare)),
            views_of=partial(self._transformed, transform),
            tensors=_BatchTensors(len(request.videos), normalisation=self.normalisation),
            source=self.source,
        )

    def _read(self, reader: ClipReader, position: int, video: Video) -> DecodedClips:
        def choose(part: Part) -> list[tuple[int, ...]]:
            random = generator_of(self.seed, epoch=self.epoch, sample=position)
            a = self.augmentation
            return [sample_clip(part, self.clip, sampling=a.sampling, short=a.short, random=random)]

        return reader.read(video, choose)

    def _transformed(self, transform: Transform, position: int, decoded: DecodedClips) -> ClipTensors:
        draw = int(generator_of(self.seed, epoch=self.epoch, sample=position).integers(1 << 62))
        return {modality: [clip] for modality, clip in transform(decoded[0], draw).items()}


@dataclass(frozen=True, kw_only=True)
class _ViewBatchMaker:
    """Makes an evaluation batch from a request."""

    source: _ClipSource
    normalisation: Normalisation
    rule: ViewRule

    def __call__(self, request: BatchRequest) -> _WorkerBatch:
        views, ids = views_per_video(self.rule.views), {position: video.id for position, video in request.videos}
        return _make(
            read_ahead(request.videos, lambda _, video: self.rule.read(video, self.source.reader())),
            views_of=lambda position, decoded: self.rule.cut(ids[position], decoded),
            tensors=_BatchTensors(
                len(request.videos), views=views and views * len(self.rule.changes), normalisation=self.normalisation
            ),
            source=self.source,
        )


Read = TypeVar("Read")
ReadVideos = Generator[tuple[int, Video, Read | VideoError], None, None]
DecodedVideos = ReadVideos[DecodedClips]


def read_ahead(videos: PositionedVideos, read: Callable[[int, Video], Read]) -> ReadVideos[Read]:
    """Yield each video with its frames or the error; the next one is decoded while this one is used."""

    def attempt(position: int, video: Video) -> Read | VideoError:
        try:
            return read(position, video)
        except VideoError as error:
            return error

    if not videos:
        return
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(attempt, *videos[0])
        for (position, video), following in zip_longest(videos, videos[1:]):
            decoded = coming.result()
            if following is not None:
                coming = pool.submit(attempt, *following)
            yield position, video, decoded


def _make(
    decoded: DecodedVideos,
    spare: DecodedVideos | None = None,
    *,
    views_of: Callable[[int, DecodedClips], ClipTensors],
    tensors: _BatchTensors,
    source: _ClipSource,
) -> _WorkerBatch:
    """Return the batch of the `decoded` videos that can be read.

    With `spare` the batch is always full: readable clips are repeated, or the first readable spare if there is none.
    """
    used, unread = _add(decoded, tensors, views_of)
    if spare is not None:
        used = used or _add(spare, tensors, views_of, most=1)[0]
        if not used:
            raise VideoError(
                f"none of the {len(unread)} videos of a batch can be read, nor any of the {SPARES} after it; the first "
                f"error: {unread[0].reason}"
            )
        tensors.repeat()
        used = [used[i % len(used)] for i in range(tensors.filled)]
    return _WorkerBatch(
        clips=tensors.written(),
        labels=source.labels([video for _, video in used]),
        positions=torch.tensor([position for position, _ in used], dtype=torch.int64),
        views=tensors.views,
        unread=tuple(unread),
    )


def _add(
    decoded: DecodedVideos,
    tensors: _BatchTensors,
    views_of: Callable[[int, DecodedClips], ClipTensors],
    *,
    most: int | None = None,
) -> tuple[list[tuple[int, Video]], list[UnreadVideo]]:
    """Write videos into `tensors`, at most `most`; returns those written and those that cannot be read."""
    used: list[tuple[int, Video]] = []
    unread: list[UnreadVideo] = []
    with closing(decoded):  # garbage collection might close it in its own reader thread, which would wait for itself
        for position, video, clips in decoded:
            try:
                if isinstance(clips, VideoError):
                    raise clips
                tensors.add(views_of(position, clips))
            except VideoError as error:
                unread.append(UnreadVideo(position=position, id=video.id, reason=str(error)))
                continue
            used.append((position, video))
            if len(used) == most:
                break
    return used, unread


@lru_cache(maxsize=8)
def _built(augmentation: Augmentation, clip: Clip) -> Transform:
    return augmentation.build(clip)


def _batches(
    maker: Callable[[BatchRequest], _WorkerBatch],
    requests: Sequence[BatchRequest],
    *,
    inputs: Sequence[InputLike],
    workers: int,
    failures: list[UnreadVideo] | None,
) -> Iterator[Batch]:
    for made in made_by_workers(maker, requests, workers=workers):
        _record_unread(made.unread, failures)
        if not made.clips:
            continue
        clips = tuple(_taken(each, made.clips[each.modality]) for each in inputs)
        yield Batch(clips=clips, labels=made.labels, videos=made.positions, views=made.views)


def _taken(spec: InputLike, clip_BCTHW: Tensor) -> Tensor:
    """One input's frames of a clip, in page-locked memory if the clip is: else their transfer would block."""
    taken = spec.take(clip_BCTHW)
    return taken.pin_memory() if clip_BCTHW.is_pinned() and not taken.is_pinned() else taken


def made_by_workers(maker: Callable[[Request], Made], requests: Sequence[Request], *, workers: int) -> Iterator[Made]:
    """Yield what `maker` returns for each request, in order; TrainingError if a worker process dies."""
    if workers < 0:
        raise InputError(f"{workers} workers; allowed: 0 (read in this process) and more")
    if workers == 0 or not requests:
        yield from map(maker, requests)
        return
    multiprocessing.get_context("forkserver").set_forkserver_preload([__name__, "torchvision.transforms.v2"])
    loader: DataLoader[Made | BenchError] = DataLoader(
        _RequestDataset(maker),
        batch_size=None,
        sampler=cast("Any", requests),
        num_workers=min(workers, len(requests)),
        collate_fn=cast("Any", _unchanged),
        # Not `is_available`: a case on the CPU must not start CUDA.
        pin_memory=torch.cuda.is_initialized(),  # type: ignore[no-untyped-call]  # torch gives it no types
        multiprocessing_context="forkserver",
    )
    batches = iter(loader)
    while True:
        try:
            made = next(batches, None)
        except (RuntimeError, ConnectionError, EOFError) as error:
            if not _DEAD_WORKER.match(f"{type(error).__name__}: {error}"):
                raise
            raise TrainingError(
                f"a worker process that reads videos died ({error or type(error).__name__}); the kernel kills one if "
                "memory or /dev/shm is full, and a damaged video can crash a decoder: use fewer workers, or 0 to read "
                "in the main process"
            ) from error
        if made is None:
            return
        if isinstance(made, BenchError):
            raise made
        yield made


class _RequestDataset(Dataset["Made | BenchError"], Generic[Request, Made]):
    """The data set that workers hold. Requests come in as indices, so that the videos are not copied to every worker.

    A BenchError is returned, not raised, because DataLoader would bury its message in a traceback.
    """

    def __init__(self, maker: Callable[[Request], Made]) -> None:
        self._maker = maker

    def __getitem__(self, request: Any) -> "Made | BenchError":
        try:
            return self._maker(request)
        except BenchError as error:
            return error


def _unchanged(made: Made) -> Made:
    return made


def _record_unread(unread: Iterable[UnreadVideo], failures: list[UnreadVideo] | None) -> None:
    for each in unread:
        if failures is not None:
            failures.append(each)
        else:
            warnings.warn(f"video {each.id} was left out: {each.reason}", UnreadVideoWarning, stacklevel=3)
