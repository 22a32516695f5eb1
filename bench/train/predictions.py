"""Scores of every video as a Parquet file, so that no network must run again to answer another question about them."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.data.collection import VideoSet
from bench.errors import InputError
from bench.schema import Json
from bench.stats import Estimate, mcnemar, wilson_interval
from bench.train.checkpointing import written_whole
from bench.train.evaluating import Evaluation
from bench.train.scoring import Labels, label_ranks


@dataclass(frozen=True, kw_only=True)
class Predictions:
    """What a network said of each video: `scores` `(videos, classes)`, `labels`, and how it was asked.

    `labels` are `(videos,)`, or `(videos, classes)` booleans for several labels a video.
    """

    videos: tuple[str, ...]
    labels: Labels
    scores: NDArray[np.float32]
    classes: tuple[str, ...]
    protocol: Mapping[str, Json]

    def top(self, k: int) -> Estimate:
        """Share of videos with their label among the `k` best, with its 95 % interval, as fractions of 1."""
        return wilson_interval(int((label_ranks(self.scores, self.labels) < k).sum()), len(self.labels))


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """Two networks on the same videos: how many only one of them gets right, and the exact p of McNemar's test."""

    both: int
    only_a: int
    only_b: int
    neither: int
    p: float


def write_predictions(path: Path, evaluation: Evaluation, videos: VideoSet, *, protocol: Mapping[str, Json]) -> Path:
    """Write a row for each video: id, label, best class, rank of the label, hits among its views, all scores.

    Where a video may have several labels, they are a list, and its rank is that of the best one.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    best = evaluation.scores.argmax(axis=1)
    columns = {
        "video": [videos.videos[position].id for position in evaluation.positions],
        "label": _column(evaluation.labels),
        "label_name": _names(videos.classes, evaluation.labels),
        "predicted": best,
        "predicted_name": [_name(videos.classes, index) for index in best],
        "rank": evaluation.ranks,
        "views_right": (evaluation.clip_ranks == 0).sum(axis=1),
        "scores": list(evaluation.scores),
    }
    about = {"protocol": json.dumps(dict(protocol)), "classes": json.dumps(videos.classes)}
    table = pa.table(columns).replace_schema_metadata(about)
    with written_whole(path) as part:
        pq.write_table(table, part, compression="zstd")
    return path


def read_predictions(path: Path) -> Predictions:
    """What `write_predictions` wrote; InputError where the file is something else."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path)
        about = table.schema.metadata or {}
        classes = json.loads(about[b"classes"])
        return Predictions(
            videos=tuple(table["video"].to_pylist()),
            labels=_labels(table["label"].to_pylist(), classes=len(classes)),
            scores=np.array(table["scores"].to_pylist(), dtype=np.float32),
            classes=tuple(classes),
            protocol=json.loads(about[b"protocol"]),
        )
    except (OSError, KeyError, pa.ArrowInvalid) as error:
        raise InputError(f"{path} is not a file of predictions written by vbench: {error}") from error


def compare_predictions(a: Predictions, b: Predictions) -> Agreement:
    """Which videos each gets right (top-1); InputError unless both scored the same videos."""
    a, b = _aligned(a, b)
    right_a, right_b = (label_ranks(each.scores, each.labels) == 0 for each in (a, b))
    only_a, only_b = int((right_a & ~right_b).sum()), int((right_b & ~right_a).sum())
    return Agreement(
        both=int((right_a & right_b).sum()),
        only_a=only_a,
        only_b=only_b,
        neither=int((~right_a & ~right_b).sum()),
        p=mcnemar(only_a, only_b),
    )


def fuse_predictions(a: Predictions, b: Predictions, *, weight_b: float = 1.0) -> Predictions:
    """Both streams as one: the mean of their scores, `b`'s with `weight_b`. Simonyan and Zisserman, 2014."""
    a, b = _aligned(a, b)
    scores = ((a.scores + weight_b * b.scores) / (1 + weight_b)).astype(np.float32)
    protocol: dict[str, Json] = {"fused": [dict(a.protocol), dict(b.protocol)], "weight_b": weight_b}
    return Predictions(videos=a.videos, labels=a.labels, scores=scores, classes=a.classes, protocol=protocol)


def _aligned(a: Predictions, b: Predictions) -> tuple[Predictions, Predictions]:
    """`b` in the order of `a`."""
    if a.classes != b.classes:
        raise InputError("the two predictions are of different classes")
    place = {video: row for row, video in enumerate(b.videos)}
    apart = set(a.videos) ^ set(b.videos)
    if apart:
        raise InputError(
            f"the two predictions are of different videos: {len(apart)} are in one only, such as {min(apart)}"
        )
    order = [place[video] for video in a.videos]
    labels, scores = b.labels[order], b.scores[order]
    if labels.ndim != a.labels.ndim:
        raise InputError("only one of the two predictions is of several labels a video")
    differing = int((labels != a.labels).reshape(len(labels), -1).any(axis=1).sum())
    if differing:
        raise InputError(f"{differing} videos have another label in the second predictions")
    return a, Predictions(videos=a.videos, labels=labels, scores=scores, classes=b.classes, protocol=b.protocol)


def _column(labels: Labels) -> list[Any]:
    """The label of each video, or the list of its labels."""
    return list(labels) if labels.ndim == 1 else [np.flatnonzero(row) for row in labels]


def _names(classes: tuple[str, ...], labels: Labels) -> list[Any]:
    if labels.ndim == 1:
        return [classes[label] for label in labels]
    return [[classes[label] for label in np.flatnonzero(row)] for row in labels]


def _labels(column: Sequence[int | Sequence[int]], *, classes: int) -> Labels:
    """What `_column` made of labels, back."""
    if not any(isinstance(label, Sequence) for label in column):
        return np.array(column, dtype=np.int64)
    labels = np.zeros((len(column), classes), dtype=np.bool_)
    for row, own in zip(labels, column, strict=True):
        row[own] = True
    return labels


def _name(classes: tuple[str, ...], index: int) -> str:
    """The class at `index`; a head may be wider than the set has classes."""
    return classes[index] if index < len(classes) else f"class {index}"
