"""`vbench features`: the table it writes, and that a killed command goes on where it ended."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from bench.core.errors import InputError, TrainingError, WeightsError
from bench.core.schema import Clip
from bench.models.base import head_name_of
from bench.models.factory import create_model
from bench.models.weights.load_report import LoadReport, require_trained_features
from bench.train import feature_store
from bench.train.evaluating import evaluate
from bench.train.feature_table import FeatureTable, features_of_dataset

ARGUMENTS = {"num_classes": 2, "width": 0.0625}


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    file = tmp_path / "weights.pt"
    torch.save({"state_dict": create_model("c3d_search", **ARGUMENTS).state_dict()}, file)
    return file


@pytest.fixture
def write(weights: Path, tiny_root: Path, tmp_path: Path) -> Any:
    """Writes the features of the 12 evaluation videos into `f.parquet`."""

    def call(**changes: Any) -> FeatureTable:
        given: dict[str, Any] = {
            "split": "val",
            "out": tmp_path / "f.parquet",
            "weights": weights,
            "clip": "4x1x32",
            "root": tiny_root,
            "views": "2x1",
            "arguments": ARGUMENTS,
            **changes,
        }
        return features_of_dataset("c3d_search", "motions", **given)

    return call


def test_rows_have_ids_labels_classes_and_what_the_head_reads(
    write: Any, weights: Path, val_videos: Any, tmp_path: Path
) -> None:
    found = write(views="1x1")
    assert (found.rows, found.width, found.unread) == (12, 128, ())
    table = pq.read_table(tmp_path / "f.parquet")
    assert table["video"].to_pylist() == [video.id for video in val_videos.videos]
    assert table["label"].to_pylist() == [video.labels[0] for video in val_videos.videos]
    assert json.loads(table.schema.metadata[b"classes"]) == list(val_videos.classes)
    model = create_model("c3d_search", weights=weights, **ARGUMENTS).eval()
    vectors = torch.tensor(table["vector"].to_pylist())
    with torch.no_grad():
        scores = model.forward_head(vectors).softmax(1).numpy()  # type: ignore[operator]
        expected = evaluate(model, val_videos, clip=Clip.model_validate("4x1x32")).scores
    np.testing.assert_allclose(scores, expected, atol=1e-5)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["f.parquet", "weights.pt"]


def test_a_killed_command_goes_on_where_it_ended(write: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feature_store, "MOST_IN_SHARD", 5)
    whole = write(out=tmp_path / "whole.parquet")
    read_batches, seen = feature_store.batches_of, []

    def batches(model: Any, videos: Any, *args: Any, **more: Any) -> Iterator[Any]:
        for batch in read_batches(model, videos, *args, **more):
            seen.extend(videos.videos[position].id for position in batch.videos.tolist())
            yield batch
            if len(seen) == 12:
                raise KeyboardInterrupt

    monkeypatch.setattr(feature_store, "batches_of", batches)
    with pytest.raises(KeyboardInterrupt):
        write()
    assert not (tmp_path / "f.parquet").exists()
    assert (tmp_path / "f.parquet.unfinished").is_dir()
    seen.clear()
    assert write() == whole
    assert len(seen) == 12 - 5, "the first five videos lay in a whole shard"
    assert not (tmp_path / "f.parquet.unfinished").exists()
    assert pq.read_table(tmp_path / "f.parquet").equals(pq.read_table(tmp_path / "whole.parquet"))


def test_the_classifier_in_the_file_does_not_matter(write: Any, weights: Path, tmp_path: Path) -> None:
    """Without it, or with one of another form, the vectors are the same; no other weight may be missing."""
    whole = write(out=tmp_path / "whole.parquet")
    state = torch.load(weights, weights_only=True)["state_dict"]
    head = head_name_of(create_model("c3d_search", **ARGUMENTS))
    body = {key: value for key, value in state.items() if not key.startswith(f"{head}.")}
    assert len(body) < len(state)
    for other in ({}, {f"{head}.0.weight": torch.ones(7, 128), f"{head}.2.weight": torch.ones(3, 7)}):
        torch.save({"state_dict": {**body, **other}}, tmp_path / "body.pt")
        assert write(weights=tmp_path / "body.pt").width == whole.width
        assert pq.read_table(tmp_path / "f.parquet").equals(pq.read_table(tmp_path / "whole.parquet"))
    torch.save({"state_dict": dict(list(body.items())[2:])}, tmp_path / "torn.pt")
    with pytest.raises(WeightsError, match="2 keys are missing from the file"):
        write(weights=tmp_path / "torn.pt")


def test_a_random_classifier_does_not_keep_a_killed_command_from_going_on(
    write: Any, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = torch.load(weights, weights_only=True)["state_dict"]
    head = head_name_of(create_model("c3d_search", **ARGUMENTS))
    torch.save({key: v for key, v in state.items() if not key.startswith(f"{head}.")}, tmp_path / "body.pt")
    seen = []

    def take(*_: Any, about: dict[str, Any], **__: Any) -> None:
        seen.append(about)
        raise KeyboardInterrupt

    monkeypatch.setattr("bench.train.feature_table.take_features", take)
    for seed in (1, 2):
        torch.manual_seed(seed)
        with pytest.raises(KeyboardInterrupt):
            write(weights=tmp_path / "body.pt")
    assert seen[0] == seen[1]


def test_features_are_not_computed_with_random_weights() -> None:
    """An encoder's file leaves V-JEPA 2's pooler random, which makes its features."""
    model = create_model("c3d_search", **ARGUMENTS)
    head = head_name_of(model)
    report = LoadReport(path=Path("encoder.pt"), sha256="", container="", loaded=3, fresh=(f"{head}.weight",))
    model.__dict__["weights_report"] = report
    require_trained_features(model)
    model.__dict__["weights_report"] = replace(report, fresh=(f"{head}.weight", "pooler.query_tokens"))
    with pytest.raises(InputError, match=r"encoder\.pt lacks 1 weights .*: pooler\.query_tokens"):
        require_trained_features(model)


@pytest.mark.parametrize("name", ["f.csv", "f.npz", "features"])
def test_an_ending_of_another_format_is_refused(write: Any, name: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"features are written as Parquet; .* ends in \.parquet or \.pq"):
        write(out=tmp_path / name)
    assert not (tmp_path / name).exists()


def test_features_of_a_set_without_a_readable_video_are_an_error_and_leave_nothing(
    write: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feature_store, "batches_of", lambda *_, **__: iter(()))
    monkeypatch.setattr(feature_store._Taker, "stored", _nothing_readable)
    with pytest.raises(TrainingError, match="none of the 12 videos can be read"):
        write()
    assert [file.name for file in tmp_path.iterdir()] == ["weights.pt"]


def _nothing_readable(*_: Any, **__: Any) -> None:
    raise TrainingError("none of the 12 videos can be read; the first: torn")
