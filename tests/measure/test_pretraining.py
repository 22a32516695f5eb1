"""Pretraining: once for all cases that start from the same weights, and never confused with a file."""

import pytest
import torch
from pydantic import ValidationError

from bench.core.errors import InputError
from bench.core.schema import Case, Point, Pretraining
from bench.data.collection import open_dataset
from bench.measure.accuracy import accuracy
from bench.measure.context import CaseContext
from bench.train.checkpointing import read_weights

RECIPE = """
recipe: {name}
source: a test
epochs: 1
batch: 4
optimizer: {{name: sgd, lr: {lr}}}
"""
SIZES = {"clips_per_class": 2, "val_clips_per_class": 2, "frames": 8, "size": 32, "classes": 2}


@pytest.fixture
def data(tmp_path, monkeypatch):
    """Two sets of motions: one of 4 classes where pretraining finds it, one of 2 classes for the cases."""
    monkeypatch.setenv("VBENCH_DATA", str(tmp_path / "data"))
    open_dataset("motions", root=tmp_path / "data" / "motions", split="train", **{**SIZES, "classes": 4})
    open_dataset("motions", root=tmp_path / "few", split="train", **SIZES, seed=1)
    return str(tmp_path / "few")


@pytest.fixture
def loaded(tmp_path):
    (tmp_path / "first.yaml").write_text(RECIPE.format(name="first", lr=0.01))
    (tmp_path / "tiny.yaml").write_text(RECIPE.format(name="tiny", lr=0.02))

    def load(**changes):
        point = {"model": "c3d_search", "args": {"width": 0.0625}, "clip": "4x1x32", "dataset": "motions", "seed": 1}
        point |= {"recipe": "tiny", "weights": "trained:motions/first", **changes}
        case = Case(suite="s", point=Point.model_validate(point), measures={"accuracy": {}})
        return CaseContext(case, artifacts=tmp_path / "s" / "artifacts" / case.id, recipes=(tmp_path,))

    return load


def test_a_case_starts_from_its_pretrained_weights(loaded, data, tmp_path):
    case = loaded()
    accuracy(case, root=data)
    first = read_weights(tmp_path / "s" / case.kept["pretrained_weights"])
    second = read_weights(tmp_path / "s" / case.kept["weights"])
    assert (first["recipe"], second["recipe"]) == ("first", "tiny")
    assert (len(first["state_dict"]["fc8.bias"]), len(second["state_dict"]["fc8.bias"])) == (4, 2)
    assert case.details["pretraining"]["dataset"] == "motions"
    assert case.details["weights"]["path"].endswith("last.pt")


def test_pretraining_runs_once_for_all_cases_and_changes_the_training(loaded, data):
    first, views, afresh = loaded(), loaded(views="2x1"), loaded(weights=None)
    for case in (first, views, afresh):
        accuracy(case, root=data)
    assert not first.details["pretraining"]["was_reused"]
    assert views.details["pretraining"]["was_reused"]
    assert views.details["training"]["was_reused"]
    assert first.details["training"]["training"] != afresh.details["training"]["training"]
    assert "pretraining" not in afresh.details


def test_a_number_of_classes_that_fits_one_of_two_sets_is_refused(loaded, data):
    with pytest.raises(InputError, match="num_classes is 2, but motions has 4 classes; leave it out"):
        accuracy(loaded(args={"width": 0.0625, "num_classes": 2}), root=data)


def test_a_missing_weights_file_is_named(loaded, data):
    with pytest.raises(InputError, match=r"nowhere\.pth"):
        accuracy(loaded(weights="nowhere.pth"), root=data)


@pytest.mark.parametrize("weights", ["trained:motions", "trained:", "trained:a/b/c"])
def test_an_incomplete_pretraining_is_refused(weights):
    with pytest.raises(ValidationError, match="trained:<data set>/<recipe>"):
        Point.model_validate({"model": "m", "clip": "4x1x8", "weights": weights})


def test_a_weights_file_is_not_read_as_pretraining():
    assert Pretraining.of("trained.pth") is None
    assert Pretraining.of(None) is None
    assert Pretraining.of("trained:motions/quick") == Pretraining(dataset="motions", recipe="quick")


def test_a_model_is_trained_on_single_frames_and_inflated(loaded, data, tmp_path):
    """Of the 2D model's kernels the middle slice is what was trained; it stands in every slice, shared out."""
    resnet = {"model": "resnet3d", "args": {"depth": 10, "widen_factor": 0.0625, "stem_kernel_t": 3}}
    case = loaded(**resnet, weights="inflated:motions/first")
    accuracy(case, root=data)
    path = tmp_path / "s" / case.kept["pretrained_weights"]
    inflated, trained = read_weights(path), read_weights(path.with_name("last.pt"))
    kernel, of_2d = (content["state_dict"]["layer1.0.conv1.weight"] for content in (inflated, trained))
    for at in range(3):
        torch.testing.assert_close(kernel[:, :, at], of_2d[:, :, 1] / 3)
    assert torch.equal(inflated["state_dict"]["fc.weight"], trained["state_dict"]["fc.weight"])
    assert case.details["pretraining"]["is_inflated"]
    assert case.details["weights"]["path"].endswith("inflated.pt")
    again = loaded(**resnet, weights="inflated:motions/first", views="2x1")
    accuracy(again, root=data)
    assert again.details["training"]["was_reused"]
    assert again.details["pretraining"]["was_reused"]


def test_inflated_and_trained_weights_are_different_pretrainings():
    assert Pretraining.of("inflated:stills/quick") == Pretraining(dataset="stills", recipe="quick", is_inflated=True)
    with pytest.raises(ValueError, match="inflated:<data set>/<recipe>"):
        Pretraining.of("inflated:stills")
