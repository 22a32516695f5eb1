"""What a network says of given videos: the most likely classes of each, or the vector that its classifier reads."""

import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from bench.core.errors import InputError, TrainingError
from bench.core.schema import Clip, Views, clip_from_text, views_from_text, views_per_video
from bench.data.collection import AnnotationWarning, Video, VideoSet, open_dataset
from bench.data.loading import Batch, UnreadVideo, view_batches
from bench.data.sampling import Short, ViewSampling
from bench.models.base import VideoModel, head_name_of, inputs_of
from bench.models.factory import create_model, find_model
from bench.models.weights.load_report import require_trained
from bench.train.checkpointing import written_whole
from bench.train.evaluating import evaluating, logits_of, normalisation_of, require_whole_frames


@dataclass(frozen=True, kw_only=True)
class Guess:
    """One class and its probability."""

    label: int
    name: str
    probability: float


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """The likeliest classes of one video, best first, and of each of its views; or why it could not be read."""

    video: str
    guesses: tuple[Guess, ...] = ()
    views: tuple[tuple[Guess, ...], ...] = ()
    error: str | None = None


@dataclass(frozen=True, kw_only=True)
class Features:
    """Pooled vectors `(videos, width)`, means over the views, with the videos' ids and first labels (-1 for none)."""

    videos: tuple[str, ...]
    labels: NDArray[np.int64]
    vectors: NDArray[np.float32]
    unread: tuple[UnreadVideo, ...]


@dataclass(frozen=True, kw_only=True)
class Viewing:
    """How videos are looked at: clip, (temporal, spatial) views, scaling, clips in one pass, device, workers.

    `sampling` and `short`: see `bench.data.sampling.sample_views`.
    """

    clip: Clip
    views: Views = (1, 1)
    resize: int | tuple[int, int] | None = None
    sampling: ViewSampling = "blocks"
    short: Short = "loop"
    batch: int = 8
    device: str | torch.device = "cpu"
    workers: int = 0


def predict(
    model: nn.Module,
    paths: Sequence[str | Path],
    viewing: Viewing,
    *,
    classes: Sequence[str] = (),
    k: int = 5,
) -> list[Prediction]:
    """The `k` likeliest classes of every video file or frame folder, in the order given; probabilities are means.

    `classes` name the outputs; without them they are `class 0` and so on. A file that cannot be read has an `error`.
    """
    videos = _files_as_set(paths)
    unread: list[UnreadVideo] = []
    found: dict[int, Prediction] = {}
    with evaluating(model), torch.inference_mode():
        for batch in _batches(model, videos, viewing, unread=unread):
            outputs = _outputs(model, batch, viewing)
            for position, views in zip(batch.videos.tolist(), _by_video(outputs.softmax(1), batch), strict=True):
                found[position] = _prediction(str(paths[position]), views, classes=classes, k=k)
    for video in unread:
        found[video.position] = Prediction(video=str(paths[video.position]), error=video.reason)
    return [found[position] for position in range(len(paths))]


def features(model: nn.Module, videos: VideoSet, viewing: Viewing) -> Features:
    """What the classifier of `model` reads of each video, the mean over its views; labels are not needed.

    TrainingError where no video can be read.
    """
    unread: list[UnreadVideo] = []
    rows: dict[int, NDArray[np.float32]] = {}
    reader = FeatureReader(model)
    with evaluating(model), torch.inference_mode():
        for batch in _batches(model, videos, viewing, unread=unread):
            vectors = _outputs(reader, batch, viewing)
            rows |= zip(batch.videos.tolist(), (each.mean(0) for each in _by_video(vectors, batch)), strict=True)
    if not rows:
        raise TrainingError(f"none of the {len(videos)} videos can be read; the first: {unread[0].reason}")
    order = sorted(rows)
    return Features(
        videos=tuple(videos.videos[position].id for position in order),
        labels=np.array([(*videos.videos[position].labels, -1)[0] for position in order], dtype=np.int64),
        vectors=np.stack([rows[position] for position in order]),
        unread=tuple(unread),
    )


def write_features(path: Path, found: Features, *, classes: Sequence[str] = ()) -> Path:
    """Write one row a video (id, label, vector) to a Parquet file, whole or not at all."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = {"video": list(found.videos), "label": found.labels, "vector": list(found.vectors)}
    table = pa.table(columns).replace_schema_metadata({"classes": json.dumps(list(classes))})
    with written_whole(path) as part:
        pq.write_table(table, part, compression="zstd")
    return path


class FeatureReader(nn.Module):
    """Gives the pooled vector `(B, features)` of any network: what its last layer, the classifier, reads.

    InputError for a network in which no classifier is found.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model, self.head = model, head_name_of(model)
        if not self.head:
            raise InputError(f"{type(model).__name__} has no linear layer or convolution whose input would be features")

    def forward(self, *clips: Tensor) -> Tensor:
        if isinstance(self.model, VideoModel):
            return self.model.forward_features(*clips)
        seen: list[Tensor] = []
        hook = self.model.get_submodule(self.head).register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
        try:
            self.model(*clips)
        finally:
            hook.remove()
        return seen[-1] if seen[-1].ndim == 2 else seen[-1].flatten(2).mean(2)


def _files_as_set(paths: Sequence[str | Path]) -> VideoSet:
    if not paths:
        raise InputError("no video is given")
    videos = [Video(id=f"{number} {path}", path=Path(path)) for number, path in enumerate(paths)]
    return VideoSet(name="files", split="given", classes=(), videos=tuple(videos))


def _batches(model: nn.Module, videos: VideoSet, viewing: Viewing, *, unread: list[UnreadVideo]) -> Iterator[Batch]:
    """Batches of at most `viewing.batch` clips where a video has no more views than that."""
    if viewing.views[1] == "full":
        require_whole_frames(model, viewing.clip)
    normalisation = normalisation_of(model)
    return view_batches(
        videos,
        clip=viewing.clip,
        inputs=inputs_of(model),
        views=viewing.views,
        mean=normalisation.mean,
        std=normalisation.std,
        batch=max(1, viewing.batch // views_per_video(viewing.views)),
        resize=viewing.resize,
        sampling=viewing.sampling,
        short=viewing.short,
        workers=viewing.workers,
        cache_bytes=0,
        failures=unread,
    )


def _outputs(network: nn.Module, batch: Batch, viewing: Viewing) -> Tensor:
    """What `network` gives for every clip of a batch, `(clips, width)` float32 on the host."""
    clips = [clip.to(viewing.device, non_blocking=True) for clip in batch.clips]
    pieces = zip(*(torch.split(clip, viewing.batch) for clip in clips), strict=True)
    return torch.cat([logits_of(network(*piece)) for piece in pieces]).float().cpu()


def _by_video(outputs: Tensor, batch: Batch) -> NDArray[np.float32]:
    """`(videos, views, width)`."""
    return outputs.view(len(batch.videos), batch.views, -1).numpy()


def _prediction(video: str, views: NDArray[np.float32], *, classes: Sequence[str], k: int) -> Prediction:
    by_view = tuple(_guesses(view, classes=classes, k=k) for view in views)
    return Prediction(video=video, guesses=_guesses(views.mean(axis=0), classes=classes, k=k), views=by_view)


def _guesses(probabilities: NDArray[np.float32], *, classes: Sequence[str], k: int) -> tuple[Guess, ...]:
    if not np.isfinite(probabilities).all():
        raise TrainingError("the network's outputs are not finite")
    best = np.argsort(-probabilities, kind="stable")[:k]
    return tuple(
        Guess(
            label=int(label),
            name=classes[label] if label < len(classes) else f"class {label}",
            probability=float(probabilities[label]),
        )
        for label in best
    )


def predict_videos(
    model: str,
    videos: Sequence[Path],
    *,
    weights: str | PathLike[str] | None,
    clip: str | None = None,
    views: str = "1x1",
    top: int = 5,
    classes: Path | None = None,
    arguments: Mapping[str, Any] | None = None,
) -> list[Prediction]:
    """The `top` likeliest classes of each video. `classes` is a file with one name a line, in the network's order.

    `weights` may be None for a network that brings its own, such as `torchvision:r3d_18.kinetics400_v1`. InputError
    where the network's head is as it was drawn.
    """
    names = [] if classes is None else _names(classes)
    network, viewing = _ready(model, weights=weights, clip=clip, views=views, arguments=arguments or {})
    require_trained(network)
    return predict(network, videos, viewing, classes=names, k=top)


def features_of_dataset(
    model: str,
    dataset: str,
    *,
    split: str,
    out: Path,
    weights: str | PathLike[str],
    clip: str | None = None,
    root: Path | None = None,
    views: str = "1x1",
    arguments: Mapping[str, Any] | None = None,
    options: Mapping[str, Any] | None = None,
) -> Features:
    """Pooled vectors of every video of a split, written to the Parquet file `out`; `options` are the data set's."""
    videos = open_dataset(dataset, root=root, split=split, **(options or {}))
    if videos.missing_warning:
        warnings.warn(videos.missing_warning, AnnotationWarning, stacklevel=2)
    network, viewing = _ready(model, weights=weights, clip=clip, views=views, arguments=arguments or {})
    found = features(network, videos, viewing)
    write_features(out, found, classes=videos.classes)
    return found


def _ready(
    model: str, *, weights: str | PathLike[str] | None, clip: str | None, views: str, arguments: Mapping[str, Any]
) -> tuple[nn.Module, Viewing]:
    """The network on the best device here, and how it looks at videos."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        seen_as = views_from_text(views)
        looked_at = clip_from_text(clip or find_model(model).clip)
    except ValueError as error:
        raise InputError(str(error)) from None
    network = create_model(model, weights=weights, **arguments).to(device).eval()
    return network, Viewing(clip=looked_at, views=seen_as, device=device)


def _names(file: Path) -> list[str]:
    if not file.is_file():
        raise InputError(f"{file} is not a file; --classes wants one class name a line")
    return [line.strip() for line in file.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
