"""Batches of clips for training and evaluation: in an order that depends on seed and epoch alone, never on workers.

Worker processes are started from a clean server process (never forked from one that holds a GPU or threads), get one
small work order a batch, and decode, transform and normalise; the next video is decoded while one is transformed. A
video that cannot be read is never dropped in silence: it goes into `failures`, or is warned of.
"""

import multiprocessing
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from itertools import zip_longest
from typing import Any, Protocol, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from bench.core.errors import BenchError, InputError, VideoError
from bench.core.input_protocol import Channels
from bench.core.schema import Clip, Views, views_per_video
from bench.data.clips import ClipReader, DecodedCache
from bench.data.collection import Video, VideoSet
from bench.data.geometry import Covering, Size
from bench.data.orders import Order, Placed, spares_behind
from bench.data.rows import Normalisation, Rows, Shown
from bench.data.sampling import Part, Short, ViewSampling, generator_of, sample_clip, sample_views
from bench.data.transforms import Augmentation, Transform, spatial_views, whole_view

CACHE_BYTES = 256 << 20


class UnreadVideoWarning(UserWarning):
    """A video gave no clip, and nobody asked to be told of it."""


class InputLike(Protocol):
    """One input of a network, as the networks describe it."""

    @property
    def channels(self) -> int: ...

    @property
    def modality(self) -> str: ...

    def take(self, clip_BCTHW: Tensor) -> Tensor: ...


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Clips with their labels. `clips` has one tensor (B * V, C, T, H, W) per input, the views of one video adjacent.

    `labels` is (B,) int64, or (B, classes) float of zeros and ones for multi-label sets; `videos` (B,) are positions in
    the set's videos.
    """

    clips: tuple[Tensor, ...]
    labels: Tensor
    videos: Tensor
    views: int


@dataclass(frozen=True, kw_only=True)
class Unread:
    """A video that gave no clip: its position in the set, its id, and why."""

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
    failures: list[Unread] | None = None,
) -> Iterator[Batch]:
    """One epoch of shuffled, augmented clips, one a video, from batch `start` on.

    Every rank gets `batch` clips of each global batch of `batch * world`. What a clip shows depends on `seed`, `epoch`
    and its video alone. A video that cannot be read is replaced by another clip of its batch, or by the next of the
    epoch where it has none, and told in `failures`.
    Without workers, the decoded videos of a set that fits into `cache_bytes` are kept in memory.
    """
    positions = epoch_order(len(videos), batch=batch, seed=seed, epoch=epoch, rank=rank, world=world)
    maker = _TrainMaker(
        reading=_Reading.of(
            videos, inputs, size=augmentation.decode_size(clip), cache_bytes=cache_bytes, workers=workers
        ),
        normalisation=Normalisation(mean=tuple(mean), std=tuple(std), channels=channels),
        clip=clip,
        augmentation=augmentation,
        seed=seed,
        epoch=epoch,
    )
    orders = [
        Order.of(videos, own, spare=spare) for own, spare in zip(positions, spares_behind(positions), strict=True)
    ]
    return _batches(maker, orders[start:], inputs=inputs, workers=workers, failures=failures)


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
    sampling: ViewSampling = "blocks",
    short: Short = "loop",
    workers: int = 0,
    rank: int = 0,
    world: int = 1,
    cache_bytes: int = CACHE_BYTES,
    failures: list[Unread] | None = None,
) -> Iterator[Batch]:
    """Every video once, each with `views` (temporal, spatial) clips out of one decode; `batch` counts videos.

    Spatially `full` views are whole frames; as those of two videos may differ in width, each video is a batch.

    `sampling` and `short`: see `bench.data.sampling.sample_views`; a recipe says which of them it means.

    Frames are scaled to `resize` (short side or (H, W)), by default just enough to cover the clip's size. Ranks take
    turns; no video is repeated to fill a batch. One that cannot be read is left out and told in `failures`.
    """
    mine, batch = list(range(rank, len(videos), world)), 1 if views[1] == "full" else batch
    positions = [mine[at : at + batch] for at in range(0, len(mine), batch)]
    size = Covering(height=clip.height, width=clip.width) if resize is None else resize
    maker = _ViewMaker(
        reading=_Reading.of(videos, inputs, size=size, cache_bytes=cache_bytes, workers=workers),
        normalisation=Normalisation(mean=tuple(mean), std=tuple(std), channels=channels),
        clip=clip,
        views=views,
        sampling=sampling,
        short=short,
    )
    orders = [Order.of(videos, own) for own in positions]
    return _batches(maker, orders, inputs=inputs, workers=workers, failures=failures)


def steps_per_epoch(videos: VideoSet, *, batch: int, world: int = 1) -> int:
    """Batches that each rank gets in an epoch."""
    return len(epoch_order(len(videos), batch=batch, seed=0, epoch=0, rank=0, world=world))


def epoch_order(videos: int, *, batch: int, seed: int, epoch: int, rank: int, world: int) -> list[list[int]]:
    """Positions of one rank's batches. The global batches are the same for every `world` with the same `batch * world`.

    What is left over at the end, less than a global batch, is not taken.
    """
    if batch < 1:
        raise InputError(f"a batch of {batch} clips; allowed: 1 and more")
    order = np.random.default_rng((seed, epoch)).permutation(videos).tolist()
    starts = range(rank * batch, videos // (batch * world) * batch * world, batch * world)
    return [order[start : start + batch] for start in starts]


@dataclass(frozen=True, kw_only=True)
class _Reading:
    """How the videos of a set are read, and what their labels look like; small enough to send to a worker."""

    modalities: tuple[str, ...]
    size: Size | None
    classes: int
    is_multi_label: bool
    cache_key: tuple[str, int, int] | None
    backend: str

    @classmethod
    def of(
        cls, videos: VideoSet, inputs: Sequence[InputLike], *, size: Size | None, cache_bytes: int, workers: int
    ) -> "_Reading":
        return cls(
            modalities=tuple(dict.fromkeys(each.modality for each in inputs)),
            size=size,
            classes=len(videos.classes),
            is_multi_label=videos.is_multi_label,
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
    """One cache a set and size, so that the next epoch finds what this one decoded."""
    return DecodedCache(videos=videos, limit_bytes=limit_bytes)


Decoded = list[dict[str, NDArray[np.uint8]]]


@dataclass(frozen=True, kw_only=True)
class _Made:
    """What a worker sends back for one order: clips (B * V, C, T, H, W) by modality, and the videos that gave none."""

    clips: dict[str, Tensor]
    labels: Tensor
    positions: Tensor
    views: int
    unread: tuple[Unread, ...]

    def pin_memory(self) -> "_Made":
        """In page-locked memory, for copies to a GPU that do not wait."""
        clips = {modality: clips.pin_memory() for modality, clips in self.clips.items()}
        return replace(self, clips=clips, labels=self.labels.pin_memory())


@dataclass(frozen=True, kw_only=True)
class _TrainMaker:
    """Makes training batches out of orders."""

    reading: _Reading
    normalisation: Normalisation
    clip: Clip
    augmentation: Augmentation
    seed: int
    epoch: int

    def __call__(self, order: Order) -> _Made:
        reader, transform = self.reading.reader(), _built(self.augmentation, self.clip)
        return _make(
            *(_read_ahead(placed, partial(self._read, reader)) for placed in (order.videos, order.spare)),
            views_of=partial(self._transformed, transform),
            rows=Rows(len(order.videos), normalisation=self.normalisation),
            reading=self.reading,
        )

    def _read(self, reader: ClipReader, position: int, video: Video) -> Decoded:
        def choose(part: Part) -> list[tuple[int, ...]]:
            random = generator_of(self.seed, epoch=self.epoch, sample=position)
            a = self.augmentation
            return [sample_clip(part, self.clip, sampling=a.sampling, short=a.short, random=random)]

        return reader.read(video, choose)

    def _transformed(self, transform: Transform, position: int, decoded: Decoded) -> Shown:
        draw = int(generator_of(self.seed, epoch=self.epoch, sample=position).integers(1 << 62))
        return {modality: [clip] for modality, clip in transform(decoded[0], draw).items()}


@dataclass(frozen=True, kw_only=True)
class _ViewMaker:
    """Makes evaluation batches out of orders."""

    reading: _Reading
    normalisation: Normalisation
    clip: Clip
    views: Views
    sampling: ViewSampling
    short: Short

    def __call__(self, order: Order) -> _Made:
        reader, views = self.reading.reader(), views_per_video(self.views)
        choose = partial(sample_views, clip=self.clip, views=self.views[0], sampling=self.sampling, short=self.short)
        return _make(
            _read_ahead(order.videos, lambda _, video: reader.read(video, choose)),
            views_of=self._windows,
            rows=Rows(len(order.videos), views=views, normalisation=self.normalisation),
            reading=self.reading,
        )

    def _windows(self, _position: int, decoded: Decoded) -> Shown:
        made: Shown = {modality: [] for modality in self.reading.modalities}
        for frames in decoded:
            for modality, frames_THWC in frames.items():
                made[modality] += self._views_of(frames_THWC)
        return made

    def _views_of(self, frames_THWC: NDArray[np.uint8]) -> list[Tensor]:
        spatial = self.views[1]
        if spatial == "full":
            return [whole_view(frames_THWC)]
        return spatial_views(frames_THWC, height=self.clip.height, width=self.clip.width, views=spatial)


Read = Generator[tuple[int, Video, Decoded | VideoError], None, None]


def _read_ahead(placed: Placed, read: Callable[[int, Video], Decoded]) -> Read:
    """Each video with its frames, or why there are none; the next is decoded while this one is used."""

    def attempt(position: int, video: Video) -> Decoded | VideoError:
        try:
            return read(position, video)
        except VideoError as error:
            return error

    if not placed:
        return
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(attempt, *placed[0])
        for (position, video), following in zip_longest(placed, placed[1:]):
            decoded = coming.result()
            if following is not None:
                coming = pool.submit(attempt, *following)
            yield position, video, decoded


def _make(
    read: Read, spare: Read | None = None, *, views_of: Callable[[int, Decoded], Shown], rows: Rows, reading: _Reading
) -> _Made:
    """The batch of what was `read`. Where there is `spare`, it is filled: clips that cannot be read are replaced by
    repeating the others, or the first one of `spare` where there are no others.
    """
    used, unread = _add(read, rows, views_of)
    if spare is not None:
        used = used or _add(spare, rows, views_of, most=1)[0]
        if not used:
            first = unread[0].reason
            raise VideoError(
                f"not one of the {len(unread)} videos of a batch can be read, nor one behind them: {first}"
            )
        rows.repeat()
        used = [used[i % len(used)] for i in range(rows.filled)]
    return _Made(
        clips=rows.whole(),
        labels=reading.labels([video for _, video in used]),
        positions=torch.tensor([position for position, _ in used], dtype=torch.int64),
        views=rows.views,
        unread=tuple(unread),
    )


def _add(
    read: Read, rows: Rows, views_of: Callable[[int, Decoded], Shown], *, most: int | None = None
) -> tuple[list[tuple[int, Video]], list[Unread]]:
    """Write the videos that can be read into `rows`, until there are `most`; returns them, and the others."""
    used: list[tuple[int, Video]] = []
    unread: list[Unread] = []
    with closing(read):  # here, and not where it is collected as garbage: that may be in its own thread
        for position, video, decoded in read:
            try:
                if isinstance(decoded, VideoError):
                    raise decoded
                rows.add(views_of(position, decoded))
            except VideoError as error:
                unread.append(Unread(position=position, id=video.id, reason=str(error)))
                continue
            used.append((position, video))
            if len(used) == most:
                break
    return used, unread


@lru_cache(maxsize=8)
def _built(augmentation: Augmentation, clip: Clip) -> Transform:
    return augmentation.build(clip)


def _batches(
    maker: Callable[[Order], _Made],
    orders: Sequence[Order],
    *,
    inputs: Sequence[InputLike],
    workers: int,
    failures: list[Unread] | None,
) -> Iterator[Batch]:
    for made in _worked(maker, orders, workers=workers):
        _tell(made.unread, failures)
        if not made.clips:
            continue
        clips = tuple(each.take(made.clips[each.modality]) for each in inputs)
        yield Batch(clips=clips, labels=made.labels, videos=made.positions, views=made.views)


def _worked(maker: Callable[[Order], _Made], orders: Sequence[Order], *, workers: int) -> Iterator[_Made]:
    if workers < 0:
        raise InputError(f"{workers} workers; allowed: 0, which works in this process, and more")
    if workers == 0 or not orders:
        yield from map(maker, orders)
        return
    multiprocessing.get_context("forkserver").set_forkserver_preload([__name__, "torchvision.transforms.v2"])
    loader: DataLoader[_Made | BenchError] = DataLoader(
        _Orders(maker),
        batch_size=None,
        sampler=cast("Any", orders),
        num_workers=min(workers, len(orders)),
        collate_fn=cast("Any", _unchanged),
        pin_memory=torch.cuda.is_available(),
        multiprocessing_context="forkserver",
    )
    for made in loader:
        if isinstance(made, BenchError):
            raise made
        yield made


class _Orders(Dataset["_Made | BenchError"]):
    """What a worker holds: the maker alone. The orders themselves come as if they were indices.

    An error of the user's travels as a value; DataLoader would bury its message in a traceback.
    """

    def __init__(self, maker: Callable[[Order], _Made]) -> None:
        self._maker = maker

    def __getitem__(self, order: Any) -> "_Made | BenchError":
        try:
            return self._maker(order)
        except BenchError as error:
            return error


def _unchanged(made: "_Made | BenchError") -> "_Made | BenchError":
    return made


def _tell(unread: Iterable[Unread], failures: list[Unread] | None) -> None:
    for each in unread:
        if failures is not None:
            failures.append(each)
        else:
            warnings.warn(f"video {each.id} was left out: {each.reason}", UnreadVideoWarning, stacklevel=3)
