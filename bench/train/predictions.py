"""Scores of every video as a Parquet file, so that no network must run again to answer another question about them."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from bench.data.collection import VideoSet
from bench.schema import Json
from bench.train.checkpointing import written_whole
from bench.train.evaluating import Evaluation
from bench.train.scoring import Labels


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


def _column(labels: Labels) -> list[Any]:
    """The label of each video, or the list of its labels."""
    return list(labels) if labels.ndim == 1 else [np.flatnonzero(row) for row in labels]


def _names(classes: tuple[str, ...], labels: Labels) -> list[Any]:
    if labels.ndim == 1:
        return [classes[label] for label in labels]
    return [[classes[label] for label in np.flatnonzero(row)] for row in labels]


def _name(classes: tuple[str, ...], index: int) -> str:
    """The class at `index`; a head may be wider than the set has classes."""
    return classes[index] if index < len(classes) else f"class {index}"
