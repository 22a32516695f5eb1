"""Predictions: the scores of every video in a Parquet file, so that later questions need no second evaluation."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bench.core.errors import InputError
from bench.core.files import path_hint
from bench.core.input_change import UNCHANGED
from bench.core.schema import Json
from bench.core.stats import Estimate, mcnemar, paired_shares, wilson_interval
from bench.train.scoring import (
    Labels,
    Relabelling,
    confusion_matrix,
    find_relabelling,
    label_ranks,
    mean_average_precision,
    mean_per_class,
)

if TYPE_CHECKING:
    from pyarrow import Table

    from bench.data.collection import VideoSet
    from bench.train.evaluating import Evaluation

FILE = "predictions.parquet"
MOST_NAMED = 20  # an error lists at most this many files, and always gives their number
METADATA_KEYS = (b"classes", b"protocol", b"model", b"network")  # `network` is the old name of `model`


@dataclass(frozen=True, kw_only=True)
class Predictions:
    """The predictions of a model: `scores` `(videos, classes)`, `labels`, and how they were obtained.

    `labels` are `(videos,)`, or `(videos, classes)` booleans for several labels per video. `model` is the title of the
    case that scored them, empty if the file does not name it. Metrics are fractions of 1, over videos with a score.
    """

    videos: tuple[str, ...]
    labels: Labels
    scores: NDArray[np.float32]
    classes: tuple[str, ...]
    protocol: Mapping[str, Json]
    model: str = ""

    @cached_property
    def ranks(self) -> NDArray[np.int64]:
        """How many classes are ranked before each video's label."""
        return label_ranks(self.scores, self.labels)

    @property
    def is_multi_label(self) -> bool:
        return self.labels.ndim == 2

    @property
    def unread(self) -> int:
        """Number of videos that could not be read and therefore have no score."""
        count = self.protocol.get("unread")
        return count if isinstance(count, int) else 0

    def top(self, k: int, *, wrong: int = 0) -> Estimate:
        """Share of videos with their label among the `k` best, with its 95 % interval.

        `wrong` is a number of further videos that count as misses.
        """
        return wilson_interval(int((self.ranks < k).sum()), len(self.labels) + wrong)

    @property
    def mean_class(self) -> float:
        """Mean of the top-1 of each class that has a video, for one label per video."""
        return mean_per_class(self.ranks < 1, self.labels)

    @property
    def mean_average_precision(self) -> float:
        """Mean of the average precision of each class that has a video, for several labels per video."""
        return mean_average_precision(self.scores, self.labels)

    @property
    def confusion(self) -> NDArray[np.int64]:
        """`(classes, classes)` counts for one label per video: true class in the row, predicted one in the column."""
        return confusion_matrix(self.scores, self.labels)

    @cached_property
    def relabelling(self) -> Relabelling | None:
        """Another order of the classes that explains the predictions far better; None if there is none."""
        return None if self.is_multi_label else find_relabelling(self.scores, self.labels)

    @property
    def class_names(self) -> tuple[str, ...]:
        """A name for each score; a head may have more outputs than the set has classes."""
        return tuple(_name(self.classes, index) for index in range(self.scores.shape[1]))


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """Two models on the same videos: how many only one of them gets right, and the p value of McNemar's exact test."""

    both: int
    only_a: int
    only_b: int
    neither: int
    p: float

    @property
    def difference(self) -> Estimate:
        """Top-1 of b minus that of a, with its 95 % interval, as fractions of 1."""
        return paired_shares(self.only_b, self.only_a, self.both + self.only_a + self.only_b + self.neither)


def write_predictions(
    path: Path,
    evaluations: "Mapping[str, Evaluation]",
    videos: "VideoSet",
    *,
    protocol: Mapping[str, Json],
    model: str = "",
) -> Path:
    """Write one row per video and change of the input: id, label, predicted class, rank of the label, all scores.

    If a video may have several labels, they are a list, and the rank is that of the best one. `views_right` is the
    number of single views that are right, `clip_scores` a list of the scores of each, if the evaluation kept them.
    """
    tables = [
        _table(
            Predictions(
                videos=tuple(videos.videos[position].id for position in evaluation.positions),
                labels=evaluation.labels,
                scores=evaluation.scores,
                classes=videos.classes,
                protocol=protocol,
                model=model,
            ),
            change=change,
            views_right=(evaluation.clip_ranks == 0).sum(axis=1),
            clip_scores=evaluation.clip_scores,
        )
        for change, evaluation in evaluations.items()
    ]
    return _write_tables(path, tables)


def store_predictions(path: Path, found: Predictions, *, changed: Mapping[str, Predictions] | None = None) -> Path:
    """Write a file that `read_predictions` reads; `changed` has predictions by the change of their input.

    The column `views_right` is null, because scores of single views are unknown.
    """
    return _write_tables(
        path, [_table(each, change=name) for name, each in {UNCHANGED: found, **(changed or {})}.items()]
    )


def _write_tables(path: Path, tables: Sequence["Table"]) -> Path:
    import pyarrow as pa
    import pyarrow.parquet as pq

    from bench.train.checkpointing import written_whole

    with written_whole(path) as part:
        pq.write_table(pa.concat_tables(tables), part, compression="zstd")
    return path


def _table(
    found: Predictions,
    *,
    change: str = UNCHANGED,
    views_right: NDArray[np.integer] | None = None,
    clip_scores: NDArray[np.float32] | None = None,
) -> "Table":
    import pyarrow as pa

    best = found.scores.argmax(axis=1)
    columns: dict[str, Any] = {
        "video": list(found.videos),
        "change": [change] * len(found.videos),
        "label": _column(found.labels),
        "label_name": _names(found.classes, found.labels),
        "predicted": best,
        "predicted_name": [_name(found.classes, int(index)) for index in best],
        "rank": found.ranks,
        "views_right": pa.nulls(len(best), pa.int64()) if views_right is None else views_right,
        "scores": list(found.scores),
    }
    if clip_scores is not None:
        columns["clip_scores"] = [[view for view in views if np.isfinite(view[0])] for views in clip_scores]
    about = {
        "protocol": json.dumps(dict(found.protocol)),
        "classes": json.dumps(found.classes),
        "model": json.dumps(found.model),
    }
    return pa.table(columns).replace_schema_metadata(about)


def read_predictions(path: Path) -> Predictions:
    """Read the predictions for the unchanged input; raises InputError for another file."""
    return read_changed_predictions(path)[UNCHANGED]


def read_changed_predictions(path: Path) -> dict[str, Predictions]:
    """Read the predictions for each change of the input, the unchanged one first.

    Raises InputError for a file that vbench did not write.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            table = file.read()
        about = _about(table.schema.metadata or {})
        names = table["change"].to_pylist() if "change" in table.column_names else [UNCHANGED] * len(table)
        found = {
            name: _read_rows(table.filter(pa.array([each == name for each in names])), about)
            for name in dict.fromkeys([UNCHANGED, *names])
        }
    except (OSError, LookupError, TypeError, ValueError, pa.ArrowException) as error:
        reason = str(error).partition("\n")[0]
        raise InputError(f"{path} is not a file of predictions written by vbench: {reason}") from error
    return found


def _read_rows(rows: "Table", about: Mapping[str, Any]) -> Predictions:
    scores = _scores(rows["scores"])
    found = Predictions(
        videos=tuple(rows["video"].to_pylist()),
        labels=_labels(rows["label"].to_pylist(), classes=scores.shape[1]),
        scores=scores,
        classes=tuple(about["classes"]),
        protocol=about["protocol"],
        model=about.get("model", ""),
    )
    _require_usable(found)
    return found


def find_predictions(given: Path) -> Path:
    """`given` if it is a file, else the only file of predictions below it; raises InputError for none or several."""
    if given.is_file():
        return given
    if not given.is_dir():
        raise InputError(f"{given} is neither a file of predictions nor a folder that holds one{path_hint(given)}")
    found = sorted(given.rglob(FILE))
    if not found:
        raise InputError(
            f"no {FILE} lies below {given}; `vbench train`, `vbench eval` and suites that measure `accuracy` write them"
        )
    if len(found) > 1:
        more = f", and {len(found) - MOST_NAMED} more" if len(found) > MOST_NAMED else ""
        names = ", ".join(_file_and_model(file) for file in found[:MOST_NAMED])
        raise InputError(f"{given} holds the predictions of {len(found)} cases; give one of them: {names}{more}")
    return found[0]


def compare_predictions(a: Predictions, b: Predictions) -> Agreement:
    """Count the videos that each gets right (top-1); raises InputError unless both scored the same videos."""
    a, b = aligned(a, b)
    right_a, right_b = a.ranks == 0, b.ranks == 0
    only_a, only_b = int((right_a & ~right_b).sum()), int((right_b & ~right_a).sum())
    return Agreement(
        both=int((right_a & right_b).sum()),
        only_a=only_a,
        only_b=only_b,
        neither=int((~right_a & ~right_b).sum()),
        p=mcnemar(only_a, only_b),
    )


def fuse_predictions(a: Predictions, b: Predictions, *, weight_b: float = 1.0) -> Predictions:
    """Fuse two streams: the weighted mean of their scores, those of `b` with `weight_b`. Simonyan and Zisserman, 2014.

    The protocol of the result has what both protocols agree on, and both of them. Raises InputError unless both are
    means of the same kind of score, such as softmax.
    """
    if not (math.isfinite(weight_b) and weight_b >= 0):
        raise InputError(f"the weight of the second scores is {weight_b:g}; it must be a number of at least 0")
    kinds = [kind_of_scores(each) for each in (a, b)]
    if kinds[0] != kinds[1]:
        raise InputError(f"scores of different kinds cannot be fused: the first {kinds[0]}, the second {kinds[1]}")
    a, b = aligned(a, b)
    if a.scores.shape != b.scores.shape:
        widths = f"{a.scores.shape[1]} and {b.scores.shape[1]}"
        raise InputError(f"scores of heads of different width cannot be fused: {widths} classes")
    share_b = weight_b / (1 + weight_b)
    scores = (a.scores.astype(np.float64) * (1 - share_b) + b.scores.astype(np.float64) * share_b).astype(np.float32)
    shared = {name: value for name, value in a.protocol.items() if name in b.protocol and b.protocol[name] == value}
    protocol: dict[str, Json] = {**shared, "fused": [dict(a.protocol), dict(b.protocol)], "weight_b": weight_b}
    model = " + ".join(each.model or "a model" for each in (a, b)) if a.model or b.model else ""
    return replace(a, scores=scores, protocol=protocol, model=model)


def kind_of_scores(found: Predictions) -> str:
    """What the scores are, in words that follow "the scores"; equal for scores that may be averaged."""
    averaging = found.protocol.get("averaging")
    if not averaging:
        return "do not say what they are means of"
    return f"are means of {'raw scores' if averaging == 'score' else averaging}"


def _file_and_model(file: Path) -> str:
    """`FILE (MODEL)`, or only the file if it names no model."""
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(file) as opened:
            model = _about(opened.schema_arrow.metadata or {}).get("model")
    except (OSError, ValueError):
        model = None
    return f"{file} ({model})" if model else str(file)


def _about(metadata: Mapping[bytes, bytes]) -> dict[str, Any]:
    """The metadata of the table; raises ValueError if classes or protocol are missing.

    The model's title was called `network` before; the oldest files have none.
    """
    about = {key.decode(): json.loads(text) for key, text in metadata.items() if key in METADATA_KEYS}
    about.setdefault("model", about.pop("network", ""))
    if not (isinstance(about.get("classes"), list) and isinstance(about.get("protocol"), dict)):
        raise ValueError("its classes or its protocol are missing")
    return about


def aligned(a: Predictions, b: Predictions) -> tuple[Predictions, Predictions]:
    """`a`, and `b` in the order of `a`; raises InputError unless both are of the same videos and labels."""
    if a.classes != b.classes:
        raise InputError("the two predictions are of different classes")
    place = {video: row for row, video in enumerate(b.videos)}
    apart = set(a.videos) ^ set(b.videos)
    if apart:
        raise InputError(
            f"the two predictions are of different videos: {len(apart)} are in one only, such as {min(apart)}; "
            "a video that could not be read has no row"
        )
    order = [place[video] for video in a.videos]
    labels, scores = b.labels[order], b.scores[order]
    if labels.ndim != a.labels.ndim:
        raise InputError("only one of the two predictions is of several labels a video")
    differing = _differing(a.labels, labels)
    if differing:
        raise InputError(f"{differing} videos have another label in the second predictions")
    return a, replace(b, videos=a.videos, labels=labels, scores=scores)


def _differing(a: Labels, b: Labels) -> int:
    """How many videos have different labels; labels of a wider head are padded."""
    if a.ndim == 1:
        return int((a != b).sum())
    width = max(a.shape[1], b.shape[1])
    wide_a, wide_b = (np.pad(each, ((0, 0), (0, width - each.shape[1]))) for each in (a, b))
    return int((wide_a != wide_b).any(axis=1).sum())


def _column(labels: Labels) -> list[Any]:
    """The label of each video, or the list of its labels."""
    return list(labels) if labels.ndim == 1 else [np.flatnonzero(row) for row in labels]


def _names(classes: tuple[str, ...], labels: Labels) -> list[Any]:
    if labels.ndim == 1:
        return [_name(classes, int(label)) for label in labels]
    return [[_name(classes, int(label)) for label in np.flatnonzero(row)] for row in labels]


def _labels(column: Sequence[int | Sequence[int]], *, classes: int) -> Labels:
    """The inverse of `_column`; raises ValueError for a label without a score."""
    each = [label if isinstance(label, Sequence) else (label,) for label in column]
    if any(not 0 <= label < classes for own in each for label in own):
        raise ValueError(f"it has labels beyond its {classes} scores")
    if not any(isinstance(label, Sequence) for label in column):
        return np.array(column, dtype=np.int64)
    labels = np.zeros((len(column), classes), dtype=np.bool_)
    for row, own in zip(labels, column, strict=True):
        row[own] = True
    return labels


def _scores(column: Any) -> NDArray[np.float32]:
    """`(videos, classes)` from a column of lists; raises ValueError if they differ in length."""
    import pyarrow.compute as pc

    rows = column.combine_chunks()
    lengths = set(pc.list_value_length(rows).to_pylist())
    if len(lengths) != 1:
        raise ValueError("it has no videos" if not lengths else "its videos have different numbers of scores")
    flat: NDArray[Any] = rows.flatten().to_numpy(zero_copy_only=False)
    return flat.astype(np.float32).reshape(len(rows), lengths.pop())


def _require_usable(found: Predictions) -> None:
    """Raise ValueError if no metric can be computed from it."""
    if not np.isfinite(found.scores).all():
        raise ValueError("not all of its scores are finite")
    if len(set(found.videos)) < len(found.videos):
        raise ValueError("it has a video twice")


def _name(classes: tuple[str, ...], index: int) -> str:
    """The name of the class at `index`; a head may have more outputs than the set has classes."""
    return classes[index] if index < len(classes) else f"class {index}"


@dataclass(frozen=True, kw_only=True)
class PredictionFile:
    """A file of predictions with its content."""

    file: Path
    predictions: Predictions


@dataclass(frozen=True, kw_only=True)
class PredictionPair:
    """Two models on the same videos; `fused` is their fusion, or None with the reason in `why_not`."""

    a: PredictionFile
    b: PredictionFile
    agreement: Agreement
    weight_b: float
    fused: Predictions | None
    why_not: str = ""


def open_predictions(given: Path) -> PredictionFile:
    """Read the predictions in a file, or in the only such file below a folder; raises InputError otherwise."""
    file = find_predictions(given)
    return PredictionFile(file=file, predictions=read_predictions(file))


def pair_predictions(
    a: PredictionFile, b: PredictionFile, *, weight_b: float | None = None, target: Path | None = None
) -> PredictionPair:
    """Compare and fuse two files of predictions; the fused ones are written to `target` if it is given.

    Raises InputError unless both scored the same videos, and if they cannot be fused although a weight or a target asks
    for it.
    """
    weight, fused, why_not = 1.0 if weight_b is None else weight_b, None, ""
    _refuse_source(target, sources=(a.file, b.file))
    try:
        agreement = compare_predictions(a.predictions, b.predictions)
    except InputError as error:
        raise _named(error, a, b) from None
    try:
        fused = fuse_predictions(a.predictions, b.predictions, weight_b=weight)
    except InputError as error:
        if weight_b is not None or target is not None:
            raise _named(error, a, b) from None
        why_not = str(error)
    if fused is not None and target is not None:
        store_predictions(target, fused)
    return PredictionPair(a=a, b=b, agreement=agreement, weight_b=weight, fused=fused, why_not=why_not)


def _refuse_source(target: Path | None, *, sources: tuple[Path, Path]) -> None:
    if target is not None and target.exists() and any(target.samefile(source) for source in sources):
        raise InputError(f"{target} cannot be written: it is one of the two files to fuse")


def _named(error: InputError, a: PredictionFile, b: PredictionFile) -> InputError:
    return InputError(f"{a.file} and {b.file}: {error}")
