"""Feature vectors of a data set as a Parquet file with one row per video, for transfer learning."""

import json
import shutil
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

from bench.core.errors import InputError, TrainingError
from bench.core.input_protocol import InputProtocol
from bench.data.clip_batches import UnreadVideo
from bench.data.collection import AnnotationWarning, open_dataset
from bench.models.weights.load_report import require_trained_features
from bench.train.accuracy_protocol import training_notes
from bench.train.checkpointing import written_whole
from bench.train.evaluating import state_hash
from bench.train.feature_store import StoredFeatures, take_features
from bench.train.inference import prepared

ENDINGS = (".parquet", ".pq")


@dataclass(frozen=True, kw_only=True)
class FeatureTable:
    """What a file of features holds: `rows` vectors of `width`, and how the videos were given to the model."""

    rows: int
    width: int
    unread: tuple[UnreadVideo, ...]
    protocol: InputProtocol


def features_of_dataset(
    model: str,
    dataset: str,
    *,
    split: str,
    out: Path,
    weights: str | PathLike[str],
    entry: str | None = None,
    clip: str | None = None,
    root: Path | None = None,
    views: str = "1x1",
    given: InputProtocol | None = None,
    arguments: Mapping[str, Any] | None = None,
    options: Mapping[str, Any] | None = None,
) -> FeatureTable:
    """Write what the classifier reads of every video of a split, averaged over the views, to the Parquet file `out`.

    `options` are the data set's. The classifier itself is not used: `weights` may lack it or have another one. Until
    the file is whole, the features lie in the folder `OUT.unfinished`: after a kill, the same call goes on there.
    Raises TrainingError if no video can be read, InputError if the model has no classifier, if `weights` lacks
    anything else, or if `out` has the ending of another format.
    """
    if out.suffix.lower() not in ENDINGS:
        raise InputError(f"{out}: features are written as Parquet; give a name that ends in {' or '.join(ENDINGS)}")
    videos = open_dataset(dataset, root=root, split=split, **(options or {}))
    if videos.missing_warning:
        warnings.warn(videos.missing_warning, AnnotationWarning, stacklevel=2)
    arguments = arguments or {}
    built, settings = prepared(
        model,
        weights=weights,
        entry=entry,
        clip=clip,
        views=views,
        given=given,
        arguments=arguments,
        needs_head=False,
    )
    require_trained_features(built)
    # A classifier that the file lacks is drawn at random: it must not decide whether a killed command goes on.
    state = state_hash(built, without=built.__dict__["weights_report"].fresh)
    about = {**training_notes(built, name=model, arguments=arguments, weights=None), "state": state}
    unfinished = out.with_name(f"{out.name}.unfinished")
    try:
        stored = take_features(built, videos, settings, folder=unfinished, about=about, per_view=False)
    except TrainingError:  # nothing to go on from
        shutil.rmtree(unfinished)
        raise
    write_features(out, stored, classes=videos.classes)
    shutil.rmtree(unfinished)
    return FeatureTable(
        rows=len(stored), width=stored.sizes.width, unread=stored.unread, protocol=settings.protocol_of(built)
    )


def write_features(path: Path, stored: StoredFeatures, *, classes: Sequence[str] = ()) -> Path:
    """Write one row per video (id, first label or -1, vector) to a Parquet file, atomically.

    Of features with several views, the vector is that of the first.
    """
    import pyarrow as pa  # late: only this function needs it
    import pyarrow.parquet as pq

    vectors = stored.vectors(range(len(stored)))[:, 0]
    columns = {"video": list(stored.videos), "label": stored.labels, "vector": list(vectors)}
    table = pa.table(columns).replace_schema_metadata({"classes": json.dumps(list(classes))})
    with written_whole(path) as part:
        pq.write_table(table, part, compression="zstd")
    return path
