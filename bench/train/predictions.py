"""Scores of every video as a Parquet file, so that no network must run again to answer another question about them."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench.data.collection import VideoSet
from bench.errors import InputError
from bench.schema import Json
from bench.stats import Estimate, mcnemar, wilson_interval
from bench.train.checkpointing import written_whole
from bench.train.evaluating import Evaluation
from bench.train.scoring import label_ranks


@dataclass(frozen=True, kw_only=True)
class Predictions:
    """What a network said of each video: `scores` `(videos, classes)`, `labels` `(videos,)`, and how it was asked."""

    videos: tuple[str, ...]
    labels: NDArray[np.int64]
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
    """Write a row for each video: id, label, best class, rank of the label, hits among its views, all scores."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    best = evaluation.scores.argmax(axis=1)
    columns = {
        "video": [videos.videos[position].id for position in evaluation.positions],
        "label": evaluation.labels,
        "label_name": [videos.classes[label] for label in evaluation.labels],
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
        return Predictions(
            videos=tuple(table["video"].to_pylist()),
            labels=table["label"].to_numpy().astype(np.int64),
            scores=np.array(table["scores"].to_pylist(), dtype=np.float32),
            classes=tuple(json.loads(about[b"classes"])),
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
    if (labels != a.labels).any():
        raise InputError(f"{int((labels != a.labels).sum())} videos have another label in the second predictions")
    return a, Predictions(videos=a.videos, labels=labels, scores=scores, classes=b.classes, protocol=b.protocol)


def _name(classes: tuple[str, ...], index: int) -> str:
    """The class at `index`; a head may be wider than the set has classes."""
    return classes[index] if index < len(classes) else f"class {index}"
