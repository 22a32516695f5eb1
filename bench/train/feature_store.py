"""Features of a frozen model, taken once per video and kept in memory-mapped shards, so that heads read them often.

<folder>/features.json        identity, sizes and number of videos per shard
<folder>/00000.vectors.npy    (videos, views, width) of the first videos
<folder>/00000.tokens.npy     (videos, views, tokens, width), if tokens were asked for
<folder>/00000.json           which videos these are, and what they cost; written last, so that a shard is whole
"""

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from bench.core.errors import InputError, TrainingError
from bench.core.schema import Clip, Json, digest, views_per_video, views_text
from bench.core.units import format_value
from bench.data.clip_batches import Batch, UnreadVideo
from bench.data.collection import VideoSet
from bench.models.base import inputs_of
from bench.models.feature_readers import FeatureReader, TokenReader
from bench.train.checkpointing import locked, write_text, written_whole
from bench.train.evaluating import in_evaluation_mode
from bench.train.inference import InferenceSettings, batches_of
from bench.train.progress import ProgressClock, ProgressReport, silent

Pooling = Literal["head", "mean", "max"]
"""How tokens become a vector: as the model's own classifier reads them, or by their mean or maximum."""

ABOUT = "features.json"
SHARD_BYTES = 64 << 20
MOST_IN_SHARD = 1024  # videos; a killed process loses at most one shard


@dataclass(frozen=True, kw_only=True)
class FeatureSizes:
    """Sizes of what is kept of every view: a vector, and `tokens` of `token_width` channels (0 for none)."""

    views: int
    width: int
    tokens: int = 0
    token_width: int = 0
    dtype: str = "float32"

    @property
    def bytes_per_video(self) -> int:
        return self.views * (self.width + self.tokens * self.token_width) * np.dtype(self.dtype).itemsize


@dataclass(frozen=True, kw_only=True)
class FeatureCost:
    """What taking the features cost: seconds of reading and computing, clips, joules of the device if known."""

    seconds: float
    clips: int
    joules: float | None
    device: str


@dataclass(frozen=True, kw_only=True)
class StoredFeatures:
    """The features of a video set in `folder`; row i is video `videos[i]`, with its first label, or -1 without one.

    `unread` videos have no row. The arrays are memory-mapped: reading rows reads these rows only.
    """

    folder: Path
    sizes: FeatureSizes
    videos: tuple[str, ...]
    labels: NDArray[np.int64]
    unread: tuple[UnreadVideo, ...]
    cost: FeatureCost
    resumed: bool
    shards: tuple[tuple[str, int], ...] = field(repr=False)

    def __len__(self) -> int:
        return len(self.videos)

    def vectors(self, rows: Sequence[int] | NDArray[np.int64]) -> NDArray[np.float32]:
        """`(rows, views, width)`."""
        return self._read("vectors", rows)

    def tokens(self, rows: Sequence[int] | NDArray[np.int64]) -> NDArray[np.float32]:
        """`(rows, views, tokens, width)`."""
        return self._read("tokens", rows)

    @cached_property
    def _starts(self) -> NDArray[np.int64]:
        return np.cumsum([0, *(count for _, count in self.shards)])

    @cached_property
    def _arrays(self) -> dict[str, list[NDArray[Any]]]:
        kinds = ("vectors", "tokens") if self.sizes.tokens else ("vectors",)
        return {
            kind: [np.load(self.folder / f"{name}.{kind}.npy", mmap_mode="r") for name, _ in self.shards]
            for kind in kinds
        }

    def _read(self, kind: str, rows: Sequence[int] | NDArray[np.int64]) -> NDArray[np.float32]:
        arrays, rows = self._arrays[kind], np.asarray(rows, dtype=np.int64)
        shards = np.searchsorted(self._starts, rows, side="right") - 1
        found = np.empty((len(rows), *arrays[0].shape[1:]), dtype=np.float32)
        for shard in np.unique(shards):
            places = np.flatnonzero(shards == shard)
            found[places] = arrays[shard][rows[places] - self._starts[shard]]
        return found


def take_features(
    model: nn.Module,
    videos: VideoSet,
    settings: InferenceSettings,
    *,
    folder: Path,
    about: Mapping[str, Json],
    layers: int | None = None,
    pooling: Pooling = "head",
    with_tokens: bool = False,
    dtype: str = "float32",
    per_view: bool = True,
    joules: Callable[[], float | None] | None = None,
    report: ProgressReport = silent,
) -> StoredFeatures:
    """Take the features of every video into a folder below `folder`, named by the hash of all that they depend on.

    Stored shards are read: a second call takes nothing, and a call after a kill goes on at the first missing shard.
    `about` identifies the model and its weights; data set, views, input protocol, layers and type are added here.
    Without `per_view`, the mean over the views of each video is kept, which may then differ in number and size.
    `joules` reads the energy counter of the device. Raises InputError if videos have different numbers of views, or if
    the disk is too small; TrainingError if no video can be read.
    """
    has_equal_views = views_per_video(settings.views) is not None and settings.views[1] != "full"
    if per_view and not has_equal_views:
        raise InputError(
            "frozen features need equally many views of equal size of every video; "
            "give views such as 1x1 or 8x3 (temporal x spatial)"
        )
    identity: dict[str, Json] = {
        **about,
        "protocol": settings.protocol_of(model).as_detail(),
        "clip": str(settings.clip),
        "views": list(settings.views) if has_equal_views else views_text(settings.views),
        "dataset": [videos.name, videos.split, videos.hash, videos.flow_hash, videos.backend],
        "layers": layers,
        "pooling": pooling,
        "tokens": with_tokens,
        "dtype": dtype,
        "device": torch.device(settings.device).type,
        **({} if per_view else {"per_view": False}),
    }
    folder = folder / f"features_{digest(identity)}"
    with locked(folder):
        reader = _Reader(model, clip=settings.clip, layers=layers, pooling=pooling, with_tokens=with_tokens)
        taker = _Taker(reader, videos, settings, folder=folder, dtype=dtype, per_view=per_view)
        taker.prepare(identity)
        resumed = taker.take_missing(joules=joules, report=report)
        return taker.stored(resumed=resumed)


class _Reader:
    """Reads vectors `(B, width)`, and tokens `(B, N, D)` if they are kept, of clips."""

    def __init__(
        self, model: nn.Module, *, clip: Clip, layers: int | None, pooling: Pooling, with_tokens: bool
    ) -> None:
        if layers is not None and pooling == "head":
            raise InputError("layers joins tokens; the model's own pooling (`pooling: head`) reads its last layer only")
        needs_tokens = with_tokens or pooling != "head"
        self.read = TokenReader(model, clip=clip, layers=layers) if needs_tokens else FeatureReader(model)
        self.model, self.pooling, self.with_tokens = model, pooling, with_tokens

    def __call__(self, clips: Sequence[Tensor]) -> tuple[Tensor, Tensor | None]:
        found = self.read(*clips)
        if isinstance(found, Tensor):
            return found, None
        vectors, tokens = found
        if self.pooling != "head":
            vectors = tokens.mean(1) if self.pooling == "mean" else tokens.amax(1)
        return vectors, tokens if self.with_tokens else None


class _Taker:
    """Takes the features of one video set, shard by shard."""

    def __init__(
        self,
        reader: _Reader,
        videos: VideoSet,
        settings: InferenceSettings,
        *,
        folder: Path,
        dtype: str,
        per_view: bool,
    ) -> None:
        self.reader, self.videos, self.settings = reader, videos, settings
        self.model, self.folder, self.dtype, self.per_view = reader.model, folder, dtype, per_view
        self.views = (views_per_video(settings.views) or 1) if per_view else 1
        self.per_shard = 0

    def prepare(self, identity: Mapping[str, Json]) -> None:
        """Write or read `features.json`; raises InputError if the disk cannot hold what is missing."""
        file = self.folder / ABOUT
        if file.is_file():
            about = json.loads(file.read_text(encoding="utf-8"))
            self.sizes, self.per_shard = FeatureSizes(**about["sizes"]), about["per_shard"]
        else:
            self.sizes = self._sizes()
            self.per_shard = max(1, min(MOST_IN_SHARD, SHARD_BYTES // self.sizes.bytes_per_video))
            content = {"identity": identity, "sizes": asdict(self.sizes), "per_shard": self.per_shard}
            write_text(file, json.dumps(content, indent=1))
        missing = sum(len(self._positions(number)) for number in self._missing())
        needed, free = missing * self.sizes.bytes_per_video, shutil.disk_usage(self.folder).free
        if needed > free:
            raise InputError(
                f"the features of {missing} videos need {format_value(needed, 'B')} in {self.folder}, where "
                f"{format_value(free, 'B')} are free; take fewer views, `storage: fp16`, or heads that read no tokens "
                "(`head: [linear, knn]`)"
            )

    def take_missing(self, *, joules: Callable[[], float | None] | None, report: ProgressReport) -> bool:
        """Write every shard that is missing; returns whether some were stored before and some were not."""
        missing = self._missing()
        todo = [position for number in missing for position in self._positions(number)]
        if not todo:
            return False
        clock = ProgressClock(fraction=1 - len(todo) / len(self.videos))
        rest = replace(self.videos, videos=tuple(self.videos.videos[position] for position in todo))
        unread: list[UnreadVideo] = []
        rows: dict[int, tuple[int, tuple[NDArray[Any], ...]]] = {}  # clips and arrays of each video
        before_s, before_j = clock.seconds, joules() if joules else None
        protocol = self.settings.protocol_of(self.model)
        waiting = list(missing)

        def finish(before: int) -> None:
            """Write the shards whose videos all lie before position `before`."""
            nonlocal before_s, before_j
            while waiting and self._positions(waiting[0])[-1] < before:
                now_s, now_j = clock.seconds, joules() if joules else None
                spent = None if before_j is None or now_j is None or now_j < before_j else now_j - before_j
                self._write(waiting.pop(0), rows, unread, todo=todo, seconds=now_s - before_s, joules=spent)
                before_s, before_j = now_s, now_j

        with in_evaluation_mode(self.model), torch.inference_mode():
            for batch in batches_of(self.model, rest, self.settings, protocol, unread=unread):
                finish(todo[int(batch.videos[0])])
                found = self._read(batch)
                rows |= {
                    todo[position]: (batch.views, tuple(each[row] for each in found))
                    for row, position in enumerate(batch.videos.tolist())
                }
                if clock.count(len(batch.clips[0])):
                    done = 1 - (len(todo) - int(batch.videos[-1])) / len(self.videos)
                    report(clock.progress("features", done))
            finish(len(self.videos))
        return len(missing) < self._shards

    def stored(self, *, resumed: bool) -> StoredFeatures:
        """The features of all shards. Raises TrainingError if no video could be read."""
        notes = [self._note(number) for number in range(self._shards)]
        positions = [position for note in notes for position in note["positions"]]
        unread = tuple(UnreadVideo(**video) for note in notes for video in note["unread"])
        if not positions:
            raise TrainingError(f"none of the {len(self.videos)} videos can be read; the first: {unread[0].reason}")
        known = [note["joules"] for note in notes]
        # Shards written before this count was kept have equally many views of every video.
        clips = sum(note.get("clips", len(note["positions"]) * self.views) for note in notes)
        chosen = [self.videos.videos[position] for position in positions]
        return StoredFeatures(
            folder=self.folder,
            sizes=self.sizes,
            videos=tuple(video.id for video in chosen),
            labels=np.array([(*video.labels, -1)[0] for video in chosen], dtype=np.int64),
            unread=unread,
            cost=FeatureCost(
                seconds=sum(note["seconds"] for note in notes),
                clips=clips,
                joules=None if any(each is None for each in known) else sum(known),
                device=str(self.settings.device),
            ),
            resumed=resumed,
            shards=tuple((f"{number:05d}", len(note["positions"])) for number, note in enumerate(notes)),
        )

    def _sizes(self) -> FeatureSizes:
        with in_evaluation_mode(self.model), torch.inference_mode():
            where = next(self.model.parameters()).device
            shapes = [spec.shape(self.settings.clip, batch=1) for spec in inputs_of(self.model)]
            vectors, tokens = self.reader([torch.zeros(shape, device=where) for shape in shapes])
        count, width = (0, 0) if tokens is None else tokens.shape[1:]
        return FeatureSizes(views=self.views, width=vectors.shape[1], tokens=count, token_width=width, dtype=self.dtype)

    def _read(self, batch: Batch) -> tuple[NDArray[Any], ...]:
        """Vectors `(videos, views, width)` and tokens of a batch, at most `settings.batch` clips in one pass.

        Means over the views, unless they are kept one by one, are `(videos, 1, width)`.
        """
        device, at_once = self.settings.device, self.settings.batch
        pieces = zip(*(torch.split(clip.to(device), at_once) for clip in batch.clips), strict=True)
        found = [self.reader(piece) for piece in pieces]
        parts = [[vectors for vectors, _ in found], [tokens for _, tokens in found if tokens is not None]]
        joined = [torch.unflatten(torch.cat(part).float().cpu(), 0, (len(batch.videos), -1)) for part in parts if part]
        kept = [each if self.per_view else each.mean(1, keepdim=True) for each in joined]
        arrays = tuple(each.numpy().astype(self.dtype) for each in kept)
        for each in arrays:
            if not np.isfinite(each).all():
                raise TrainingError(
                    f"the features of {type(self.model).__name__} are not finite"
                    + ("; take them with `storage: fp32`" if self.dtype == "float16" else "")
                )
        return arrays

    @property
    def _shards(self) -> int:
        return -(-len(self.videos) // self.per_shard)

    def _positions(self, shard: int) -> range:
        return range(shard * self.per_shard, min(len(self.videos), (shard + 1) * self.per_shard))

    def _missing(self) -> list[int]:
        return [number for number in range(self._shards) if not (self.folder / f"{number:05d}.json").is_file()]

    def _note(self, shard: int) -> dict[str, Any]:
        note: dict[str, Any] = json.loads((self.folder / f"{shard:05d}.json").read_text(encoding="utf-8"))
        return note

    def _write(
        self,
        shard: int,
        rows: dict[int, tuple[int, tuple[NDArray[Any], ...]]],
        unread: Sequence[UnreadVideo],
        *,
        todo: Sequence[int],
        seconds: float,
        joules: float | None,
    ) -> None:
        own = self._positions(shard)
        positions = [position for position in own if position in rows]
        found = [rows.pop(position) for position in positions]
        kinds = ("vectors", "tokens") if self.sizes.tokens else ("vectors",)
        for place, kind in enumerate(kinds):
            array = np.stack([arrays[place] for _, arrays in found]) if found else self._empty(kind)
            with written_whole(self.folder / f"{shard:05d}.{kind}.npy") as part, part.open("wb") as file:
                np.save(file, array)
        failed = [replace(video, position=todo[video.position]) for video in unread if todo[video.position] in own]
        note = {
            "positions": positions,
            "clips": sum(clips for clips, _ in found),
            "unread": [asdict(v) for v in failed],
            "seconds": seconds,
            "joules": joules,
        }
        write_text(self.folder / f"{shard:05d}.json", json.dumps(note))

    def _empty(self, kind: str) -> NDArray[Any]:
        shape = (self.sizes.width,) if kind == "vectors" else (self.sizes.tokens, self.sizes.token_width)
        return np.empty((0, self.views, *shape), dtype=self.dtype)
