"""Accuracy refuses test videos that share material with the training set."""

import shutil
from pathlib import Path

import pytest

from bench.core.errors import DatasetError
from bench.core.schema import Case, Point
from bench.data.collection import open_dataset
from bench.data.index import index_folder
from bench.measure.accuracy import accuracy
from bench.measure.context import CaseContext

RECIPE = """
recipe: tiny
source: a test
epochs: 1
batch: 2
optimizer: {name: sgd, lr: 0.01}
"""


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    """Four videos of two classes."""
    root = tmp_path_factory.mktemp("data") / "motions"
    videos = open_dataset(
        "motions", root=root, split="train", clips_per_class=2, val_clips_per_class=1, frames=8, size=32, classes=2
    )
    return [video.path for video in videos.videos]


@pytest.fixture
def root(films, tmp_path):
    """Lays out class folders: `{"train/a/v_A_g01_c01": 0}` puts film 0 there."""

    def lay_out(places: dict[str, int]) -> str:
        for name, film in places.items():
            path = tmp_path / "set" / f"{name}.mp4"
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(films[film], path)
        return str(tmp_path / "set")

    return lay_out


@pytest.fixture
def case(tmp_path):
    (tmp_path / "tiny.yaml").write_text(RECIPE)
    point = Point(model="c3d_search", args={"width": 0.0625}, clip="4x1x32", dataset="folder", seed=1, recipe="tiny")
    made = Case(suite="s", point=point, measures={"accuracy": {}})
    return CaseContext(made, artifacts=tmp_path / "s" / "artifacts" / made.id, recipes=(tmp_path,))


SAME_GROUP = {"train/a/v_A_g01_c01": 0, "train/b/v_B_g02_c01": 1, "val/a/v_A_g01_c02": 2, "val/b/v_B_g03_c01": 3}
SAME_FILE = {"train/a/one": 0, "train/b/two": 1, "val/a/three": 2, "val/b/copy": 1}
APART = {"train/a/v_A_g01_c01": 0, "train/b/v_B_g01_c01": 1, "val/a/v_A_g02_c01": 2, "val/b/v_B_g02_c01": 3}


def test_a_group_in_both_sets_is_refused_before_training(case, root, tmp_path):
    with pytest.raises(DatasetError, match=r"1 videos of val share .* group v_A_g01"):
        accuracy(case, root=root(SAME_GROUP))
    assert not list((tmp_path / "s" / "artifacts").glob("training_*"))


def test_a_group_allowed_by_name_is_in_the_protocol_with_a_warning(case, root):
    accuracy(case, root=root(SAME_GROUP), allow_leaks=["group v_A_g01"])
    protocol = case.details["protocol"]
    assert (protocol["shared_with_training"], protocol["leaks_allowed"]) == ({"folder": 1}, ["group v_A_g01"])
    assert "1 of 2 test videos share material" in case.warnings[0].what


def test_allowing_one_leak_does_not_allow_another(case, root):
    with pytest.raises(DatasetError, match="group v_A_g01"):
        accuracy(case, root=root(SAME_GROUP), allow_leaks=["group v_A_g02", "v_A_g01"])


def test_equal_files_in_both_sets_are_refused_if_an_index_knows_them(case, root):
    folder = root(SAME_FILE)
    index_folder(folder)
    with pytest.raises(DatasetError, match=r"b/copy and b/two share file [0-9a-f]{64}"):
        accuracy(case, root=folder)
    accuracy(case, root=folder, allow_leaks=["b/copy"])
    assert case.details["protocol"]["shared_with_training"] == {"folder": 1}


def test_the_protocol_states_that_sets_share_nothing(case, root):
    accuracy(case, root=root(APART))
    assert case.details["protocol"]["shared_with_training"] == {"folder": 0}
    assert not [warned for warned in case.warnings if "share" in warned.what]


def test_leaks_of_weights_trained_elsewhere_are_unknown(case, root, tmp_path):
    accuracy(case, root=root(APART))
    weights = tmp_path / "s" / case.kept["weights"]
    point = case.point.model_copy(update={"recipe": None, "weights": str(weights)})
    made = Case(suite="s", point=point, measures={"accuracy": {}})
    given = CaseContext(made, artifacts=Path(tmp_path / "s" / "artifacts" / made.id))
    accuracy(given, root=str(tmp_path / "set"))
    assert given.details["protocol"]["shared_with_training"] is None
