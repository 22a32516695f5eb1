"""Accuracy of a model on videos: the model scores every view of every video once, and all metrics follow from that."""

import copy
import hashlib
import json
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from bench.core.errors import BenchError, InputError, TrainingError
from bench.core.input_change import UNCHANGED, InputChange
from bench.core.input_protocol import Averaging, InputProtocol
from bench.core.schema import Clip, Views, views_per_video
from bench.core.stats import Estimate, wilson_interval
from bench.data.clip_batches import Batch, UnreadVideo, view_batches
from bench.data.collection import VideoSet
from bench.models.base import inputs_of
from bench.train.checkpointing import read_arrays, written_whole
from bench.train.preprocessing import evaluation_protocol, view_options, with_matching_classes
from bench.train.progress import ProgressClock, ProgressReport, silent
from bench.train.ranks import current_ranks
from bench.train.scoring import (
    Labels,
    class_columns,
    confusion_matrix,
    label_ranks,
    mean_average_precision,
    mean_per_class,
)

Amp = Literal["off", "fp16", "bf16"]
SAVE_EVERY_S = 30.0  # what a kill may cost of an evaluation
NO_OUTPUT = -1e4  # logit of a class that the model does not know; finite, so that means of raw scores stay finite


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Scores of every video that could be read, and the metrics that follow from them.

    `scores` `(videos, classes)` are averaged over a video's views. `labels` are `(videos,)`, or `(videos, classes)`
    booleans if a video may have several. `positions` `(videos,)` are places in the video set, ascending. `clip_ranks`
    `(videos, views)` is the number of classes ranked before the label in each single view. `clip_scores` `(videos,
    views, classes)` are the scores of single views if they were asked for. If videos have different numbers of views,
    the rest of a row is filled: ranks with -1, scores with NaN. `unread` videos have no score; they count as
    wrong, with `unread_labels`, unless `excludes_unread` is true. `rounding` is what the GPU rounded float32 to.
    """

    positions: NDArray[np.int64]
    labels: Labels
    scores: NDArray[np.float32]
    clip_ranks: NDArray[np.int64]
    clip_scores: NDArray[np.float32] | None = None
    unread: tuple[UnreadVideo, ...] = ()
    unread_labels: Labels
    excludes_unread: bool = False
    averaging: Averaging = "softmax"
    rounding: str | None = None
    seconds: float = 0.0

    @cached_property
    def ranks(self) -> NDArray[np.int64]:
        """How many classes are ranked before each video's label."""
        return label_ranks(self.scores, self.labels)

    @property
    def is_multi_label(self) -> bool:
        return self.labels.ndim == 2

    @property
    def counted(self) -> int:
        """The denominator: videos with a score, and unread ones unless they are excluded."""
        return len(self.labels) + len(self._wrong)

    def top(self, k: int) -> Estimate:
        """Share of videos with their label among the `k` best, with its 95 % binomial interval, as fractions of 1."""
        return wilson_interval(int((self.ranks < k).sum()), self.counted)

    def clip_top(self, k: int) -> float:
        """Share of single views that have the label among the `k` best; every video has the same weight."""
        is_view = self.clip_ranks >= 0
        of_videos = ((self.clip_ranks < k) & is_view).sum(axis=1) / is_view.sum(axis=1)
        return float(of_videos.sum() / self.counted)

    @property
    def mean_class(self) -> float:
        """Mean of the top-1 of each class that has a video, for one label a video."""
        hits = np.append(self.ranks < 1, np.zeros(len(self._wrong), dtype=np.bool_))
        return mean_per_class(hits, np.append(self.labels, self._wrong))

    @property
    def mean_average_precision(self) -> float:
        """Mean of the average precision of each class that has a video, for several labels a video."""
        lowest = np.full((len(self._wrong), self.scores.shape[1]), self.scores.min() - 1)
        return mean_average_precision(
            np.concatenate([self.scores, lowest]), np.concatenate([self.labels, self._wrong]).astype(np.bool_)
        )

    @property
    def confusion(self) -> NDArray[np.int64]:
        """`(classes, classes)` counts over the videos with a score: true class in the row, predicted in the column."""
        return confusion_matrix(self.scores, self.labels)

    @property
    def loss(self) -> float:
        """Mean of minus the logarithm of the label's probability, if scores are probabilities.

        With `sigmoid` this is binary cross-entropy: the absence of each other class counts too.
        """
        if self.averaging == "sigmoid":
            return float(-np.log(np.where(self._one_hot, self.scores, 1 - self.scores).clip(1e-12)).mean())
        own = self.scores[self.labels] if self.is_multi_label else self.scores[np.arange(len(self.labels)), self.labels]
        return float(-np.log(own.clip(1e-12)).mean())

    @property
    def _one_hot(self) -> Labels:
        return self.labels if self.is_multi_label else np.arange(self.scores.shape[1]) == self.labels[:, None]

    @property
    def _wrong(self) -> Labels:
        """Labels of the unread videos that count as wrong."""
        return self.unread_labels[:0] if self.excludes_unread else self.unread_labels


def evaluate(
    model: nn.Module,
    videos: VideoSet,
    *,
    clip: Clip,
    views: Views = (1, 1),
    protocol: InputProtocol | None = None,
    device: str | torch.device = "cpu",
    batch: int = 8,
    workers: int = 0,
    amp: Amp = "off",
    report: ProgressReport = silent,
    excludes_unread: bool = False,
    keeps_clip_scores: bool = False,
) -> Evaluation:
    """Score `videos` with `views` (temporal, spatial) clips each; `model` must be on `device`.

    `protocol` says how clips are prepared, how the scores of views are averaged and what the outputs stand for; what it
    leaves open comes from the model's checkpoint, else from the model's default. Spatially `full` views are whole
    frames. `batch` counts clips in one forward pass.

    Each of several ranks scores its share and returns the whole. Raises InputError if a video has no label, if the
    model takes one size only but views are `full`, or if it knows none of the classes; TrainingError if no video can be
    read or a score is not finite.
    """
    found = evaluate_changes(
        model,
        videos,
        changes=(InputChange(),),
        clip=clip,
        views=views,
        protocol=protocol,
        device=device,
        batch=batch,
        workers=workers,
        amp=amp,
        report=report,
        excludes_unread=excludes_unread,
        keeps_clip_scores=keeps_clip_scores,
    )
    return found[UNCHANGED]


def evaluate_changes(
    model: nn.Module,
    videos: VideoSet,
    *,
    changes: Sequence[InputChange],
    clip: Clip,
    views: Views = (1, 1),
    protocol: InputProtocol | None = None,
    device: str | torch.device = "cpu",
    batch: int = 8,
    workers: int = 0,
    amp: Amp = "off",
    report: ProgressReport = silent,
    excludes_unread: bool = False,
    keeps_clip_scores: bool = False,
    unfinished: Path | None = None,
) -> dict[str, Evaluation]:
    """Score `videos` under each of `changes`; everything else is as in `evaluate`.

    Changes of frame order and pixels share the decoding of the unchanged clips; each other change has a pass of its
    own. With a folder `unfinished`, what is scored is stored there every half minute, so that the same call after a
    kill goes on there; the caller removes the folder. Raises InputError for changes of a model that takes flow.
    """
    _require_labels(videos)
    if views[1] == "full":
        require_whole_frames(model, clip)
    if len(changes) > 1 and any(each.modality == "flow" for each in inputs_of(model)):
        raise InputError("changes of the input are for models that take RGB frames; this one takes optical flow")
    merged = evaluation_protocol(model, protocol or InputProtocol(), clip=clip, default_clip=clip)
    protocol = with_matching_classes(merged, videos)
    averaging = protocol.averaging or "softmax"
    columns = None if protocol.classes is None else class_columns(protocol.classes, videos.classes)
    ranks, count = current_ranks(), views_per_video(views) or batch
    groups = _sharing_a_decode(changes)
    about = [videos.hash, protocol, clip, views, ranks.rank, ranks.world, keeps_clip_scores]
    if unfinished is not None:
        about.append(state_hash(model))
    stores = [ScoredVideos.opened(unfinished, group=group, about=about) for group in groups]
    whole = len(videos) * len(changes) / ranks.world
    done = sum(store.done * len(group) for store, group in zip(stores, groups, strict=True))
    clock = ProgressClock(fraction=done / whole)
    with in_evaluation_mode(model), torch.inference_mode(), autocast(device, amp):
        for store, group in zip(stores, groups, strict=True):
            batches = view_batches(
                videos,
                clip=clip,
                inputs=inputs_of(model),
                views=views,
                batch=max(1, batch // (count * len(group))),
                changes=group,
                without=store.positions,
                workers=workers,
                rank=ranks.rank,
                world=ranks.world,
                failures=store.unread,
                **view_options(protocol, clip),
            )
            for each in batches:
                logits = ordered(batch_outputs(model, each.clips, device=device, at_once=batch), columns)
                store.add(
                    _scored(logits, each, averaging=averaging, keeps_clip_scores=keeps_clip_scores, of=len(group))
                )
                done += len(each.labels) * len(group)
                if clock.count(each.clips[0].shape[0]):
                    report(clock.progress(_what(group, changes), min(1.0, done / whole)))
            store.save()
    common = {"excludes_unread": excludes_unread, "averaging": averaging, "rounding": rounding_of(device)}
    return {
        str(change): _gathered(store, number, videos, seconds=clock.seconds / len(changes), **common)
        for store, group in zip(stores, groups, strict=True)
        for number, change in enumerate(group)
    }


def _sharing_a_decode(changes: Sequence[InputChange]) -> list[tuple[InputChange, ...]]:
    """The changes in groups with one decode each; the first group has the unchanged input."""
    shared = tuple(change for change in changes if change.shares_decoding)
    return [group for group in (shared, *((change,) for change in changes if not change.shares_decoding)) if group]


def _what(group: Sequence[InputChange], changes: Sequence[InputChange]) -> str:
    """What a pass does, for its progress."""
    if len(changes) == 1:
        return "evaluating"
    return f"evaluating {group[0]}" if len(group) == 1 else f"evaluating {len(group)} of {len(changes)} changes"


def _gathered(store: "ScoredVideos", number: int, videos: VideoSet, **common: Any) -> Evaluation:
    """The evaluation of one change of a group, from the parts that all ranks have scored."""
    ranks = current_ranks()
    gathered = [parts[number] for of_rank in ranks.gather(store.parts) for parts in of_rank]
    failed = [video for of_rank in ranks.gather(store.unread) for video in of_rank]
    if not gathered:
        raise TrainingError(f"none of the {len(failed)} videos can be read; the first: {failed[0].reason}")
    failed.sort(key=lambda video: video.position)
    arrays: dict[str, Any] = _joined(gathered)
    unread_labels = _labels_at(videos, [video.position for video in failed])
    return Evaluation(**arrays, unread=tuple(failed), unread_labels=unread_labels, **common)


@contextmanager
def in_evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Put the model into evaluation mode for the block, and every module back into its own mode afterwards."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


def autocast(device: str | torch.device, amp: Amp) -> torch.autocast:
    """Mixed precision on `device`, off unless asked for."""
    dtype = torch.float16 if amp == "fp16" else torch.bfloat16
    return torch.autocast(torch.device(device).type, dtype=dtype, enabled=amp != "off")


def rounding_of(device: str | torch.device) -> str | None:
    """What layers on `device` round float32 to without mixed precision, in words; None if it stays as it is.

    By default torch lets convolutions use TF32 (10 bits of mantissa instead of 23) on GPUs of compute capability 8 on.
    """
    device = torch.device(device)
    if device.type != "cuda" or torch.cuda.get_device_capability(device)[0] < 8:
        return None
    # Not `allow_tf32`: reading that raises once a plug-in has set `fp32_precision`.
    backends: Any = torch.backends  # torch gives these switches no types
    switches = {"convolutions": backends.cudnn.conv, "products": backends.cuda.matmul}
    layers = [name for name, switch in switches.items() if switch.fp32_precision == "tf32"]
    return f"TF32 in {' and '.join(layers)}" if layers else None


def batch_outputs(model: nn.Module, clips: Sequence[Tensor], *, device: str | torch.device, at_once: int) -> Tensor:
    """The outputs `(clips, width)` float32 of the inputs of a batch, on `device`.

    At most `at_once` clips are in one forward pass.
    """
    moved = [clip.to(device, non_blocking=True) for clip in clips]
    pieces = zip(*(torch.split(clip, at_once) for clip in moved), strict=True)
    return torch.cat([checked_logits(model(*piece)) for piece in pieces]).float()


def checked_logits(output: Any) -> Tensor:
    """`output` if it is a tensor (B, classes), else InputError."""
    if not isinstance(output, Tensor) or output.ndim != 2:
        shape = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise InputError(f"the model must return logits (B, classes), found {shape}")
    return output


def ordered(logits: Tensor, columns: Sequence[int | None] | None) -> Tensor:
    """Outputs `(clips, width)` with column i taken from `columns[i]`, and the rest of the outputs behind them.

    None stands for a class that the model does not know: it is always ranked last. Without `columns` nothing moves.
    Raises InputError if the model has fewer outputs than its class list has names.
    """
    if columns is None:
        return logits
    highest = max(column for column in columns if column is not None)
    if highest >= logits.shape[1]:
        raise InputError(f"the class list has {highest + 1} names or more; the model has {logits.shape[1]} outputs")
    rest = sorted(set(range(logits.shape[1])) - set(columns))
    if None not in columns and [*columns, *rest] == list(range(logits.shape[1])):
        return logits
    unknown = logits.new_full((len(logits),), NO_OUTPUT)
    known = [unknown if column is None else logits[:, column] for column in (*columns, *rest)]
    return torch.stack(known, dim=1)


def view_scores(logits: Tensor, *, averaging: Averaging, is_multi_label: bool = False) -> Tensor:
    """What each view contributes to the score of its video, of the same shape as `logits`."""
    match averaging:
        case "softmax":
            return logits.softmax(1)
        case "sigmoid":
            return logits.sigmoid()
        case "score":
            return logits
        case "max":
            return logits.sigmoid() if is_multi_label else logits.softmax(1)


def over_views(scores_BVC: NDArray[np.float32], *, averaging: Averaging) -> NDArray[np.float32]:
    """The score `(B, classes)` of each video: the mean over its views, or their maximum."""
    result: NDArray[np.float32] = scores_BVC.max(axis=1) if averaging == "max" else scores_BVC.mean(axis=1)
    return result


@dataclass(frozen=True, kw_only=True)
class ScoredBatch:
    """The scores of one batch of videos under one change, on the host."""

    positions: NDArray[np.int64]
    labels: Labels
    scores: NDArray[np.float32]
    clip_ranks: NDArray[np.int64]
    clip_scores: NDArray[np.float32] | None


class ScoredVideos:
    """What one rank has scored under a group of changes that share a decode: for each batch a part per change.

    With a file, the parts are stored in it, and `opened` reads them back.
    """

    def __init__(self, file: Path | None = None) -> None:
        self.file = file
        self.parts: list[tuple[ScoredBatch, ...]] = []
        self.unread: list[UnreadVideo] = []
        self._saved_at = time.monotonic()

    @classmethod
    def opened(cls, folder: Path | None, *, group: Sequence[InputChange], about: Sequence[Any]) -> "ScoredVideos":
        """The store of one group in `folder`, with what an earlier call for the same model, videos and clips saved."""
        if folder is None:
            return cls()
        content = json.dumps([[str(change) for change in group], [str(each) for each in about]])
        store = cls(folder / f"scored_{hashlib.sha256(content.encode()).hexdigest()[:12]}.npz")
        store._load(len(group))
        return store

    @property
    def positions(self) -> frozenset[int]:
        """Places of the videos that were scored or could not be read."""
        scored = [int(place) for parts in self.parts for place in parts[0].positions]
        return frozenset([*scored, *(video.position for video in self.unread)])

    @property
    def done(self) -> int:
        return len(self.positions)

    def add(self, parts: tuple[ScoredBatch, ...]) -> None:
        """Add the parts of one batch; stores all of them if the last time is long ago."""
        self.parts.append(parts)
        if time.monotonic() - self._saved_at >= SAVE_EVERY_S:
            self.save()

    def save(self) -> None:
        """Write everything so far; a kill during it leaves the earlier file."""
        if self.file is None or not self.parts:
            return
        self.file.parent.mkdir(parents=True, exist_ok=True)
        arrays: dict[str, NDArray[Any]] = {}
        for number in range(len(self.parts[0])):
            joined = _joined([parts[number] for parts in self.parts])
            arrays |= {f"{name}_{number}": values for name, values in joined.items()}
        unread = json.dumps([[video.position, video.id, video.reason] for video in self.unread])
        with written_whole(self.file) as part, part.open("wb") as file:
            np.savez(file, unread=np.array(unread), **arrays)  # type: ignore[arg-type]  # numpy types the rest as bool
        self._saved_at = time.monotonic()

    def _load(self, changes: int) -> None:
        stored = {} if self.file is None else read_arrays(self.file)
        if not stored:
            return
        names = [field.name for field in fields(ScoredBatch)]
        named: list[dict[str, Any]] = [
            {name: stored.get(f"{name}_{number}") for name in names} for number in range(changes)
        ]
        unread = json.loads(str(stored["unread"]))
        self.parts = [tuple(ScoredBatch(**arrays) for arrays in named)]
        self.unread = [UnreadVideo(position=place, id=id_, reason=why) for place, id_, why in unread]


def state_hash(model: nn.Module, *, without: Collection[str] = ()) -> str:
    """12 hex digits over all parameters and buffers of `model` but `without`, with their names, shapes and types."""
    total = hashlib.sha256()
    for name, tensor in sorted((name, each) for name, each in model.state_dict().items() if name not in without):
        total.update(f"\0{name}\0{tuple(tensor.shape)}\0{tensor.dtype}\n".encode())
        total.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return total.hexdigest()[:12]


def _scored(
    logits: Tensor, batch: Batch, *, averaging: Averaging, keeps_clip_scores: bool, of: int = 1
) -> tuple[ScoredBatch, ...]:
    """The scores of a batch under each `of` several changes, whose views of a video follow each other."""
    is_multi_label = batch.labels.ndim == 2
    by_view = view_scores(logits, averaging=averaging, is_multi_label=is_multi_label).cpu().numpy()
    labels = batch.labels.numpy().astype(np.bool_) if is_multi_label else batch.labels.numpy()
    by_change = by_view.reshape(len(labels), of, batch.views // of, -1)
    return tuple(
        _scored_change(by_change[:, number], labels, batch, averaging=averaging, keeps_clip_scores=keeps_clip_scores)
        for number in range(of)
    )


def _scored_change(
    scores_BVC: NDArray[np.float32], labels: Labels, batch: Batch, *, averaging: Averaging, keeps_clip_scores: bool
) -> ScoredBatch:
    views = scores_BVC.shape[1]
    by_view = scores_BVC.reshape(len(labels) * views, -1)
    return ScoredBatch(
        positions=batch.videos.numpy(),
        labels=labels,
        scores=over_views(scores_BVC, averaging=averaging),
        clip_ranks=label_ranks(by_view, labels.repeat(views, axis=0)).reshape(len(labels), views),
        clip_scores=scores_BVC if keeps_clip_scores else None,
    )


def _joined(parts: list[ScoredBatch]) -> dict[str, NDArray[Any]]:
    """The fields of all parts, in the order of the set; a video that two ranks scored counts once."""
    _, first = np.unique(np.concatenate([part.positions for part in parts]), return_index=True)
    names = ["positions", "labels", "scores", "clip_ranks"]
    if parts[0].clip_scores is not None:
        names.append("clip_scores")
    return {name: _stacked([getattr(part, name) for part in parts])[first] for name in names}


def _stacked(arrays: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """The arrays one below the other; those with fewer views are filled, ranks with -1 and scores with NaN."""
    if arrays[0].ndim < 2 or len({each.shape[1] for each in arrays}) == 1:
        return np.concatenate(arrays)
    most = max(each.shape[1] for each in arrays)
    fill = -1 if arrays[0].dtype.kind == "i" else np.nan
    padding = [[(0, 0), (0, most - each.shape[1]), *[(0, 0)] * (each.ndim - 2)] for each in arrays]
    return np.concatenate(
        [np.pad(each, wide, constant_values=fill) for each, wide in zip(arrays, padding, strict=True)]
    )


def _labels_at(videos: VideoSet, positions: list[int]) -> Labels:
    """Labels of the videos at `positions`, in the form of a batch's."""
    if not videos.is_multi_label:
        return np.array([videos.videos[position].labels[0] for position in positions], dtype=np.int64)
    labels = np.zeros((len(positions), len(videos.classes)), dtype=np.bool_)
    for row, position in enumerate(positions):
        labels[row, list(videos.videos[position].labels)] = True
    return labels


def _require_labels(videos: VideoSet) -> None:
    unlabelled = sum(not video.labels for video in videos.videos)
    if unlabelled or not len(videos):
        why = f"{unlabelled} of its {len(videos)} videos have no label" if unlabelled else "it has no videos"
        raise InputError(f"accuracy cannot be measured on {videos.name} {videos.split}: {why}")


# What models raise if they are given a size that they were not made for.
SIZE_ERRORS = (BenchError, RuntimeError, ValueError, TypeError, IndexError, AssertionError, NotImplementedError)


def require_whole_frames(model: nn.Module, clip: Clip) -> None:
    """Raise InputError if `model` takes the clip's size and no other.

    This is tried on the meta device, where nothing is computed. A model that fails there with the clip itself passes:
    only real frames can tell.
    """
    wider = clip.model_copy(update={"width": 2 * clip.width})  # strides may round a slightly wider one away
    meta_copy = _meta_copy(model)
    if _takes(meta_copy, clip) and not _takes(meta_copy, wider):
        raise InputError(
            f"{type(model).__name__} takes frames of {clip.height}x{clip.width} only; it cannot be evaluated on whole "
            "frames (views such as 10xfull); give the number of crops, such as 10x3"
        )


def _meta_copy(model: nn.Module) -> nn.Module:
    """A copy of `model` without storage, in evaluation mode."""
    memo: dict[int, torch.Tensor] = {
        id(parameter): nn.Parameter(torch.empty_like(parameter, device="meta"), requires_grad=False)
        for parameter in model.parameters()
    }
    memo |= {id(buffer): torch.empty_like(buffer, device="meta") for buffer in model.buffers()}
    return copy.deepcopy(model, memo).eval()


def _takes(meta_copy: nn.Module, clip: Clip) -> bool:
    clips = [torch.empty(spec.shape(clip, batch=1), device="meta") for spec in inputs_of(meta_copy)]
    try:
        with torch.no_grad():
            meta_copy(*clips)
    except SIZE_ERRORS:
        return False
    return True
