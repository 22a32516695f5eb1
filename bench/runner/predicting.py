"""Classes and pooled vectors of videos, from a checkpoint: what `vbench predict` and `vbench features` do."""

from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.core.errors import InputError
from bench.core.schema import clip_from_text, views_from_text

if TYPE_CHECKING:
    from torch import nn

    from bench.train.predicting import Features, Prediction, Viewing


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
) -> "list[Prediction]":
    """The `top` likeliest classes of each video. `classes` is a file with one name a line, in the network's order.

    `weights` may be None for a network that brings its own, such as `torchvision:r3d_18.kinetics400_v1`. InputError
    where the network's head is as it was drawn.
    """
    from bench.models.weights.load_report import require_trained
    from bench.train.predicting import predict

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
) -> "Features":
    """Pooled vectors of every video of a split, written to the Parquet file `out`; `options` are the data set's."""
    from bench.data.collection import open_dataset
    from bench.train.predicting import features, write_features

    videos = open_dataset(dataset, root=root, split=split, **(options or {}))
    network, viewing = _ready(model, weights=weights, clip=clip, views=views, arguments=arguments or {})
    found = features(network, videos, viewing)
    write_features(out, found, classes=videos.classes)
    return found


def _ready(
    model: str, *, weights: str | PathLike[str] | None, clip: str | None, views: str, arguments: Mapping[str, Any]
) -> "tuple[nn.Module, Viewing]":
    """The network on the best device here, and how it looks at videos."""
    import torch

    from bench.models.factory import create_model, find_model
    from bench.train.predicting import Viewing

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
