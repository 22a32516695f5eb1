"""What a model makes of given videos: the most likely classes of each."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from bench.core.errors import InputError, TrainingError
from bench.core.input_protocol import InputProtocol
from bench.core.schema import Clip, Views, clip_from_text, views_from_text, views_per_video
from bench.data.clip_batches import Batch, UnreadVideo, view_batches
from bench.data.collection import Video, VideoSet
from bench.models.base import inputs_of
from bench.models.factory import create_model, find_model
from bench.models.weights.load_report import require_trained
from bench.train.evaluating import (
    batch_outputs,
    in_evaluation_mode,
    over_views,
    require_whole_frames,
    view_scores,
)
from bench.train.preprocessing import (
    checkpoint_protocol,
    evaluation_protocol,
    view_options,
)


@dataclass(frozen=True, kw_only=True)
class ClassProbability:
    """One class and its probability."""

    label: int
    name: str
    probability: float


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """The most likely classes of one video, best first, and of each of its views; or why it could not be read."""

    video: str
    classes: tuple[ClassProbability, ...] = ()
    views: tuple[tuple[ClassProbability, ...], ...] = ()
    error: str | None = None


@dataclass(frozen=True, kw_only=True)
class InferenceSettings:
    """How videos are given to a model: clip, (temporal, spatial) views, input protocol, clips in one pass, device."""

    clip: Clip
    views: Views = (1, 1)
    protocol: InputProtocol | None = None
    batch: int = 8
    device: str | torch.device = "cpu"
    workers: int = 0

    def protocol_of(self, model: nn.Module) -> InputProtocol:
        """The protocol to use for `model`: what is set here, else its checkpoint, else its default."""
        given = self.protocol or InputProtocol()
        return evaluation_protocol(model, given, clip=self.clip, default_clip=self.clip)


@dataclass(frozen=True, kw_only=True)
class InferenceResult:
    """The predictions of the videos, and the input protocol that was used."""

    protocol: InputProtocol
    clip: Clip
    predictions: list[Prediction] = field(default_factory=list)


def predict_videos(
    model: str,
    videos: Sequence[Path],
    *,
    weights: str | PathLike[str] | None,
    entry: str | None = None,
    clip: str | None = None,
    views: str = "1x1",
    top: int = 5,
    given: InputProtocol | None = None,
    arguments: Mapping[str, Any] | None = None,
) -> InferenceResult:
    """The `top` most likely classes of each video file or frame folder, by the model called `model`.

    `weights` may be None for a model with weights of its own, such as `torchvision:r3d_18.kinetics400_v1`; `entry`
    names those of a file that holds several. `given` are the parts of the input protocol that the user gives; the rest,
    class names included, comes from the checkpoint.
    Raises InputError if the head of the model has no trained weights.
    """
    built, settings = prepared(
        model, weights=weights, entry=entry, clip=clip, views=views, given=given, arguments=arguments or {}
    )
    require_trained(built)
    protocol = settings.protocol_of(built)
    predictions = predict(built, videos, settings, k=top)
    return InferenceResult(protocol=protocol, clip=settings.clip, predictions=predictions)


def predict(
    model: nn.Module, paths: Sequence[str | Path], settings: InferenceSettings, *, k: int = 5
) -> list[Prediction]:
    """The `k` most likely classes of every video file or frame folder, in the order given.

    Probabilities are averaged over the views as the protocol says (of raw scores, the softmax of their mean). Classes
    without a name in the protocol are called `class 0` and so on. For a file that cannot be read, `error` says why.
    """
    videos = _files_as_set(paths)
    protocol = settings.protocol_of(model)
    unread: list[UnreadVideo] = []
    found: dict[int, Prediction] = {}
    with in_evaluation_mode(model), torch.inference_mode():
        for batch in batches_of(model, videos, settings, protocol, unread=unread):
            outputs = batch_outputs(model, batch.clips, device=settings.device, at_once=settings.batch).cpu()
            for position, of_video in zip(batch.videos.tolist(), _by_video(outputs, batch), strict=True):
                found[position] = _prediction(str(paths[position]), of_video, protocol=protocol, k=k)
    for video in unread:
        found[video.position] = Prediction(video=str(paths[video.position]), error=video.reason)
    return [found[position] for position in range(len(paths))]


def prepared(
    model: str,
    *,
    weights: str | PathLike[str] | None,
    entry: str | None,
    clip: str | None,
    views: str,
    given: InputProtocol | None,
    arguments: Mapping[str, Any],
    needs_head: bool = True,
) -> tuple[nn.Module, InferenceSettings]:
    """Return the model on the best device of this machine, and its settings. `clip` wins over the checkpoint's.

    See `create_model` for `needs_head`.
    """
    given = given or InputProtocol()
    try:
        chosen_views = views_from_text(views)
    except ValueError as error:
        raise InputError(f"views: {error}, found {views!r}") from None
    device = "cuda" if torch.cuda.is_available() else "cpu"
    built = create_model(model, weights=weights, entry=entry, needs_head=needs_head, **arguments).to(device).eval()
    default = clip_from_text(find_model(model).clip)
    chosen = clip_from_text(clip) if clip else given.over(checkpoint_protocol(built)).clip_over(default)
    protocol = evaluation_protocol(built, given, clip=chosen, default_clip=default)
    return built, InferenceSettings(clip=chosen, views=chosen_views, protocol=protocol, device=device)


def _files_as_set(paths: Sequence[str | Path]) -> VideoSet:
    if not paths:
        raise InputError("no video is given")
    videos = [Video(id=f"{number} {path}", path=Path(path)) for number, path in enumerate(paths)]
    return VideoSet(name="files", split="given", classes=(), videos=tuple(videos))


def batches_of(
    model: nn.Module,
    videos: VideoSet,
    settings: InferenceSettings,
    protocol: InputProtocol,
    *,
    unread: list[UnreadVideo],
) -> Iterator[Batch]:
    """Batches of at most `settings.batch` clips, or of one video if it has more views than that."""
    if settings.views[1] == "full":
        require_whole_frames(model, settings.clip)
    return view_batches(
        videos,
        clip=settings.clip,
        inputs=inputs_of(model),
        views=settings.views,
        batch=max(1, settings.batch // (views_per_video(settings.views) or settings.batch)),
        workers=settings.workers,
        cache_bytes=0,
        failures=unread,
        **view_options(protocol, settings.clip),
    )


def _by_video(outputs: Tensor, batch: Batch) -> Tensor:
    """`(videos, views, width)`."""
    return outputs.view(len(batch.videos), batch.views, -1)


def _prediction(video: str, logits: Tensor, *, protocol: InputProtocol, k: int) -> Prediction:
    """The prediction of one video from the outputs `(views, classes)` of its views."""
    averaging = protocol.averaging or "softmax"
    if averaging == "score":
        probabilities = logits.mean(0).softmax(0).numpy()
    else:
        scores = view_scores(logits, averaging=averaging).numpy()
        probabilities = over_views(scores[None], averaging=averaging)[0]
    of_views = logits.sigmoid() if averaging == "sigmoid" else logits.softmax(1)
    names = protocol.classes or ()
    return Prediction(
        video=video,
        classes=_most_likely(probabilities, names=names, k=k),
        views=tuple(_most_likely(view, names=names, k=k) for view in of_views.numpy()),
    )


def _most_likely(probabilities: NDArray[np.float32], *, names: Sequence[str], k: int) -> tuple[ClassProbability, ...]:
    if not np.isfinite(probabilities).all():
        raise TrainingError("the outputs of the model are not finite")
    best = np.argsort(-probabilities, kind="stable")[:k]
    return tuple(
        ClassProbability(
            label=int(label),
            name=names[label] if label < len(names) else f"class {label}",
            probability=float(probabilities[label]),
        )
        for label in best
    )
