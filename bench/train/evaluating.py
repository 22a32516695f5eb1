"""Accuracy of a network on videos: every view of every video goes through it once; scores are kept, figures derived."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from bench.core.errors import BenchError, InputError, TrainingError
from bench.core.schema import Clip, Views, views_per_video
from bench.core.stats import Estimate, wilson_interval
from bench.data.collection import VideoSet
from bench.data.loading import Batch, Normalisation, UnreadVideo, view_batches
from bench.data.sampling import Short, ViewSampling
from bench.models.base import VideoModel, inputs_of
from bench.train.progress import Report, Watch, silent
from bench.train.ranks import current_ranks
from bench.train.scoring import Labels, confusion_matrix, label_ranks, mean_average_precision, mean_per_class

Averaging = Literal["softmax", "sigmoid", "score"]
Amp = Literal["off", "fp16", "bf16"]


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Scores of every video that could be read, and what follows from them.

    `scores` `(videos, classes)` are means over a video's views; `labels` `(videos,)`, or `(videos, classes)` booleans
    for several labels a video; `positions` `(videos,)` the places in the video set, ascending. `clip_ranks` `(videos,
    views)` is how many classes stand before the label in each single view. `unread` videos have no score; they count
    as wrong, with `unread_labels`, unless `excludes_unread`. `averaging` says what of each view the means are of,
    and `rounding` to what the GPU rounded float32.
    """

    positions: NDArray[np.int64]
    labels: Labels
    scores: NDArray[np.float32]
    clip_ranks: NDArray[np.int64]
    unread: tuple[UnreadVideo, ...] = ()
    unread_labels: Labels
    excludes_unread: bool = False
    averaging: Averaging = "softmax"
    rounding: str | None = None
    seconds: float = 0.0

    @cached_property
    def ranks(self) -> NDArray[np.int64]:
        """How many classes stand before each video's label."""
        return label_ranks(self.scores, self.labels)

    @property
    def is_multi_label(self) -> bool:
        return self.labels.ndim == 2

    @property
    def counted(self) -> int:
        """The denominator: videos with a score, and those that could not be read unless they are left out."""
        return len(self.labels) + len(self._wrong)

    def top(self, k: int) -> Estimate:
        """Share of videos with their label among the `k` best, with its 95 % binomial interval, as fractions of 1."""
        return wilson_interval(int((self.ranks < k).sum()), self.counted)

    def clip_top(self, k: int) -> float:
        """Share of single views that alone put the label among the `k` best."""
        return float((self.clip_ranks < k).mean() * len(self.labels) / self.counted)

    @property
    def mean_class(self) -> float:
        """Mean over the classes present of each class's top-1, for one label a video."""
        hits = np.append(self.ranks < 1, np.zeros(len(self._wrong), dtype=np.bool_))
        return mean_per_class(hits, np.append(self.labels, self._wrong))

    @property
    def mean_average_precision(self) -> float:
        """Mean over the classes present of each class's average precision, for several labels a video."""
        lowest = np.full((len(self._wrong), self.scores.shape[1]), self.scores.min() - 1)
        return mean_average_precision(
            np.concatenate([self.scores, lowest]), np.concatenate([self.labels, self._wrong]).astype(np.bool_)
        )

    @property
    def confusion(self) -> NDArray[np.int64]:
        """`(classes, classes)` counts over the videos with a score: true class in the row, best score in the column."""
        return confusion_matrix(self.scores, self.labels)

    @property
    def loss(self) -> float:
        """Mean of minus the logarithm of the label's probability, where scores are probabilities.

        With `sigmoid` each class has its own, and that of its absence counts too: binary cross-entropy.
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
        """Labels of the videos that count as wrong because they could not be read."""
        return self.unread_labels[:0] if self.excludes_unread else self.unread_labels


def evaluate(
    model: nn.Module,
    videos: VideoSet,
    *,
    clip: Clip,
    views: Views = (1, 1),
    device: str | torch.device = "cpu",
    batch: int = 8,
    workers: int = 0,
    averaging: Averaging = "softmax",
    amp: Amp = "off",
    report: Report = silent,
    resize: int | tuple[int, int] | None = None,
    sampling: ViewSampling = "blocks",
    short: Short = "loop",
    excludes_unread: bool = False,
) -> Evaluation:
    """Score `videos` with `views` (temporal, spatial) clips each; `model` must be on `device`.

    Spatially `full` views are whole frames: the network slides over them where it pools over whatever it is given;
    InputError where it takes one size only.

    `batch` counts clips in one forward pass. `averaging` takes the mean over the views of probabilities, either among
    all classes (`softmax`) or of each class alone (`sigmoid`, as networks for several labels are trained), or of raw
    scores. Frames are scaled to `resize` (short side or H and W), by default just enough for the clip. A recipe says by
    what `sampling` and `short` its networks are evaluated: `Recipe.view_sampling` and `Recipe.view_short`.

    Of several ranks each scores its share and all get the whole. TrainingError where no video can be read or a score is
    not finite.
    """
    _refuse_unlabelled(videos)
    if views[1] == "full":
        require_whole_frames(model, clip)
    ranks, watch, count = current_ranks(), Watch(), views_per_video(views)
    normalisation = normalisation_of(model)
    parts: list[_Part] = []
    unread: list[UnreadVideo] = []
    batches = view_batches(
        videos,
        clip=clip,
        inputs=inputs_of(model),
        views=views,
        batch=max(1, batch // count),
        workers=workers,
        rank=ranks.rank,
        world=ranks.world,
        resize=resize,
        sampling=sampling,
        short=short,
        failures=unread,
        mean=normalisation.mean,
        std=normalisation.std,
    )
    done = 0
    with evaluating(model), torch.inference_mode(), autocast(device, amp):
        for each in batches:
            parts.append(_score(model, each, device=device, at_once=batch, averaging=averaging))
            done += len(each.labels)
            if watch.count(each.clips[0].shape[0]):
                report(watch.progress("evaluating", min(1.0, done * ranks.world / len(videos))))
    gathered = [part for of_rank in ranks.gather(parts) for part in of_rank]
    failed = [video for of_rank in ranks.gather(unread) for video in of_rank]
    if not gathered:
        raise TrainingError(f"none of the {len(failed)} videos can be read; the first: {failed[0].reason}")
    failed.sort(key=lambda video: video.position)
    return Evaluation(
        **_joined(gathered),
        unread=tuple(failed),
        unread_labels=_labels_of(videos, [video.position for video in failed]),
        excludes_unread=excludes_unread,
        averaging=averaging,
        rounding=rounding_of(device),
        seconds=watch.seconds,
    )


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """The model in evaluation mode, every module back in its own mode afterwards."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


def averaging_of(trained_on: VideoSet) -> Averaging:
    """What a network's outputs mean that was trained on these videos: a binary probability each for several labels."""
    return "sigmoid" if trained_on.is_multi_label else "softmax"


def autocast(device: str | torch.device, amp: Amp) -> torch.autocast:
    """Mixed precision on `device`, off unless asked for."""
    dtype = torch.float16 if amp == "fp16" else torch.bfloat16
    return torch.autocast(torch.device(device).type, dtype=dtype, enabled=amp != "off")


def rounding_of(device: str | torch.device) -> str | None:
    """What float32 is rounded to by layers on `device` outside of mixed precision: None where it stays as it is.

    torch lets convolutions take TF32, of 10 bits in the place of 23, wherever the GPU has it (compute capability 8).
    """
    device = torch.device(device)
    if device.type != "cuda" or torch.cuda.get_device_capability(device)[0] < 8:
        return None
    rounded = {"convolutions": torch.backends.cudnn.allow_tf32, "products": torch.backends.cuda.matmul.allow_tf32}
    return (
        f"TF32 in {' and '.join(where for where, is_so in rounded.items() if is_so)}" if any(rounded.values()) else None
    )


@dataclass(frozen=True, kw_only=True)
class _Part:
    """What one batch of videos gave, on the host."""

    positions: NDArray[np.int64]
    labels: Labels
    scores: NDArray[np.float32]
    clip_ranks: NDArray[np.int64]


def _score(model: nn.Module, batch: Batch, *, device: str | torch.device, at_once: int, averaging: Averaging) -> _Part:
    clips = [clip.to(device, non_blocking=True) for clip in batch.clips]
    pieces = zip(*(torch.split(clip, at_once) for clip in clips), strict=True)
    logits = torch.cat([logits_of(model(*piece)) for piece in pieces]).float()
    match averaging:
        case "softmax":
            scores = logits.softmax(1)
        case "sigmoid":
            scores = logits.sigmoid()
        case "score":
            scores = logits
    by_view = scores.cpu().numpy()
    labels = batch.labels.numpy() if batch.labels.ndim == 1 else batch.labels.numpy().astype(np.bool_)
    return _Part(
        positions=batch.videos.numpy(),
        labels=labels,
        scores=by_view.reshape(len(labels), batch.views, -1).mean(axis=1),
        clip_ranks=label_ranks(by_view, labels.repeat(batch.views, axis=0)).reshape(len(labels), batch.views),
    )


def logits_of(output: Any) -> Tensor:
    if not isinstance(output, Tensor) or output.ndim != 2:
        shape = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise InputError(f"the network must return logits (B, classes), found {shape}")
    return output


def _joined(parts: list[_Part]) -> dict[str, NDArray[Any]]:
    """All parts as one, by name, in the order of the set; a video that two ranks scored counts once."""
    _, first = np.unique(np.concatenate([part.positions for part in parts]), return_index=True)
    names = ("positions", "labels", "scores", "clip_ranks")
    return {name: np.concatenate([getattr(part, name) for part in parts])[first] for name in names}


def _labels_of(videos: VideoSet, positions: list[int]) -> Labels:
    """Labels of the videos at `positions`, in the form of a batch's."""
    if not videos.is_multi_label:
        return np.array([videos.videos[position].labels[0] for position in positions], dtype=np.int64)
    labels = np.zeros((len(positions), len(videos.classes)), dtype=np.bool_)
    for row, position in enumerate(positions):
        labels[row, list(videos.videos[position].labels)] = True
    return labels


def _refuse_unlabelled(videos: VideoSet) -> None:
    bare = sum(not video.labels for video in videos.videos)
    if bare or not len(videos):
        what = f"{bare} of its {len(videos)} videos have no label" if bare else "it has no videos"
        raise InputError(f"no accuracy can be taken on {videos.name} {videos.split}: {what}")


def normalisation_of(model: nn.Module) -> Normalisation:
    """What the network says, else the zoo's default."""
    return Normalisation(
        mean=tuple(getattr(model, "mean", VideoModel.mean)), std=tuple(getattr(model, "std", VideoModel.std))
    )


# What a network raises that is given another size than it was made for.
FAILURES = (BenchError, RuntimeError, ValueError, TypeError, IndexError, AssertionError, NotImplementedError)


def require_whole_frames(model: nn.Module, clip: Clip) -> None:
    """InputError where `model` takes the clip's size and no other. Tried on the meta device, where nothing is computed.

    A network that cannot be tried there at all is let through; it fails on the first frames or it does not.
    """
    wider = clip.model_copy(update={"width": 2 * clip.width})  # a little wider, strides may round away
    outline = _outline(model)
    if _takes(outline, clip) and not _takes(outline, wider):
        raise InputError(
            f"{type(model).__name__} takes frames of {clip.height}x{clip.width} only and cannot look at whole ones "
            "(views such as 10xfull); give spatial views as a number, such as 10x3"
        )


def _outline(model: nn.Module) -> nn.Module:
    """A copy of `model` in evaluation mode that holds no weights."""
    memo: dict[int, torch.Tensor] = {
        id(parameter): nn.Parameter(torch.empty_like(parameter, device="meta"), requires_grad=False)
        for parameter in model.parameters()
    }
    memo |= {id(buffer): torch.empty_like(buffer, device="meta") for buffer in model.buffers()}
    return copy.deepcopy(model, memo).eval()


def _takes(outline: nn.Module, clip: Clip) -> bool:
    clips = [torch.empty(spec.shape(clip, batch=1), device="meta") for spec in inputs_of(outline)]
    try:
        with torch.no_grad():
            outline(*clips)
    except FAILURES:
        return False
    return True
