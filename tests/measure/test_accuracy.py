from dataclasses import replace

import pytest
import torch
from pydantic import TypeAdapter, ValidationError
from torchvision.models.video import r3d_18

from bench.core.errors import InputError, UnknownNameError
from bench.core.input_protocol import InputProtocol
from bench.core.registry import MEASURES
from bench.core.schema import Case, Point
from bench.data.collection import open_dataset
from bench.data.split_names import evaluated_split, trained_split
from bench.measure.accuracy import accuracy
from bench.measure.case_training import CaseTraining
from bench.measure.context import CaseContext
from bench.train.checkpointing import read_weights
from bench.train.evaluating import evaluate_changes
from bench.train.predictions import read_changed_predictions, read_predictions
from bench.train.ranks import Ranks

RECIPE = """
recipe: tiny
source: a test
epochs: 1
batch: 4
optimizer: {name: sgd, lr: 0.01}
"""


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "motions"
    open_dataset(
        "motions", root=folder, split="train", clips_per_class=4, val_clips_per_class=3, frames=8, size=32, classes=2
    )
    return str(folder)


@pytest.fixture
def loaded(tmp_path):
    """A case of a tiny model; every call is a new process's view of the same results folder."""
    (tmp_path / "tiny.yaml").write_text(RECIPE)

    def load(**changes):
        point = {"model": "c3d_search", "args": {"width": 0.0625}, "clip": "4x1x32", "dataset": "motions", "seed": 1}
        point |= {"recipe": "tiny", **changes}
        case = Case(suite="s", point=Point.model_validate(point), measures={"accuracy": {}})
        return CaseContext(case, artifacts=tmp_path / "s" / "artifacts" / case.id, recipes=(tmp_path,))

    return load


def by_name(metrics):
    return {metric.name.removeprefix("accuracy."): metric for metric in metrics}


def test_a_case_is_trained_evaluated_and_described(loaded, root, tmp_path):
    case = loaded(views="2x1")
    found = by_name(accuracy(case, root=root))
    assert set(found) == {"top1", "clip_top1", "mean_class", "train_seconds", "evaluation_seconds"}
    low, high = found["top1"].interval
    assert 0 <= low <= found["top1"].value <= high <= 100
    protocol, training = case.details["protocol"], case.details["training"]
    assert (protocol["dataset"], protocol["split"], protocol["videos"], protocol["views"]) == (
        "motions",
        "val",
        6,
        "2x1",
    )
    assert (protocol["frames"], protocol["stride"], protocol["crop"], protocol["unread"]) == (4, 1, [32, 32], 0)
    assert (training["recipe"], training["seed"], training["was_reused"]) == ("tiny", 1, False)
    kept = read_predictions(tmp_path / "s" / case.kept["predictions"])
    assert kept.model == case.case.title
    assert 100 * kept.top(1).value == pytest.approx(found["top1"].value)


FOLLOWED = {
    "sampling: segments": ("sections", "loop", None),
    "sampling: random, short: clamp": ("blocks", "clamp", 4),
    "sampling: random": ("blocks", "loop", 4),
}


@pytest.mark.parametrize("augmentation", FOLLOWED)
def test_evaluation_follows_the_sampling_and_short_of_the_recipe(augmentation, loaded, root, tmp_path, monkeypatch):
    """Of clips that are longer than their videos, so that what fills them counts."""
    sampling, short, stride = FOLLOWED[augmentation]
    looks = []

    def seen(*args, **options):
        looks.append((options["protocol"].sampling, options["protocol"].short))
        return evaluate_changes(*args, **options)

    monkeypatch.setattr("bench.train.evaluating.evaluate_changes", seen)
    (tmp_path / "followed.yaml").write_text(f"{RECIPE}augmentation: {{{augmentation}}}\n".replace("tiny", "followed"))
    case = loaded(recipe="followed", clip="4x4x32")
    found = by_name(accuracy(case, root=root))
    assert looks == [(sampling, short)] * 2
    protocol = case.details["protocol"]
    assert (protocol["sampling"], protocol["short_videos"], protocol["stride"]) == (sampling, short, stride)
    curves = (tmp_path / "s" / case.kept["curves"]).read_text().splitlines()
    validated = dict(zip(*(line.split(",") for line in (curves[0], curves[-1])), strict=True))
    assert float(validated["val_top1"]) == pytest.approx(found["top1"].value, rel=1e-4)


def test_a_suite_can_give_the_input_protocol_of_weights(loaded, root, tmp_path):
    trained = loaded()
    accuracy(trained, root=root)
    given = {"recipe": None, "weights": str(tmp_path / "s" / trained.kept["weights"]), "clip": "4x4x32"}
    scores = {}
    for sampling, short in (("sections", None), (None, "clamp"), (None, None)):
        case = loaded(**given)
        accuracy(case, root=root, sampling=sampling, short=short)
        protocol = case.details["protocol"]
        assert (protocol["sampling"], protocol["short_videos"]) == (sampling or "blocks", short or "loop")
        scores[sampling, short] = read_predictions(tmp_path / "s" / case.kept["predictions"]).scores.tolist()
    assert scores["sections", None] != scores[None, None] != scores[None, "clamp"]


def test_reach_adds_the_time_to_an_accuracy(loaded, root):
    found = {metric.key: metric for metric in accuracy(loaded(), root=root, reach=[1, 100.0])}
    reached = found["accuracy.time_to_top1_s{top1=1}"]
    assert 0 < reached.value <= found["accuracy.train_seconds"].value
    missed = found["accuracy.time_to_top1_s{top1=100}"]
    assert missed.value is None
    assert missed.note.startswith("not reached: the best of 1 epochs had ")


@pytest.mark.parametrize(("device", "read"), [("cuda", "cuda:3"), ("cuda:1", "cuda:1"), ("cpu", "cpu")])
def test_each_rank_reads_the_counter_of_its_own_gpu(device, read, loaded, monkeypatch):
    """NVML takes a device without a number for the first, on every rank."""
    asked = []
    monkeypatch.setattr("bench.measure.energy_counter.counter_of", asked.append)
    monkeypatch.setattr("torch.cuda.current_device", lambda: 3)
    nothing = {"root": None, "options": {}, "workers": 0, "allow_leaks": (), "tensorboard": False, "country": None}
    nothing["given"] = InputProtocol()
    CaseTraining(case=loaded(device=device), ranks=Ranks(), **nothing).joule_counter()
    assert asked == [read]


def test_a_model_is_trained_in_training_mode(loaded, root, tmp_path):
    """Batch norm counts the steps that it takes statistics of, and those of evaluation do not count."""
    case = loaded(model="resnet3d", args={"depth": 10})
    accuracy(case, root=root)
    saved = read_weights(tmp_path / "s" / case.kept["weights"])
    counted = {int(value) for name, value in saved["state_dict"].items() if name.endswith("num_batches_tracked")}
    assert counted == {saved["steps"]} != {0}


def test_other_views_reuse_the_finished_training(loaded, root):
    first, other = loaded(views="1x1"), loaded(views="2x2")
    accuracy(first, root=root)
    accuracy(other, root=root)
    assert other.details["training"]["was_reused"]
    assert other.kept["weights"] == first.kept["weights"]


def test_another_seed_or_recipe_is_another_training(loaded, root, tmp_path):
    first, seed = loaded(), loaded(seed=2)
    (tmp_path / "other.yaml").write_text(RECIPE.replace("lr: 0.01", "lr: 0.02"))
    other = loaded(recipe="other")
    for case in (first, seed, other):
        accuracy(case, root=root)
    assert len({case.details["training"]["training"] for case in (first, seed, other)}) == 3


def test_the_best_epoch_by_one_set_is_another_training(loaded, root):
    """Which epoch is best depends on what is validated; what stands there may have been validated on other videos."""
    trainings = []
    for options in ({}, {"checkpoint": "best"}, {"reach": [50.0]}):
        case = loaded()
        accuracy(case, root=root, **options)
        trainings.append(case.details["training"])
    assert [training["was_reused"] for training in trainings] == [False, False, True]
    assert trainings[1]["training"] == trainings[2]["training"] != trainings[0]["training"]
    assert {training["validated_on"] for training in trainings} == {"motions val"}


def test_videos_with_several_labels_are_trained_and_evaluated(loaded, root, tmp_path, monkeypatch):
    def several(*args, **options):
        found = open_dataset(*args, **options)
        videos = (replace(found.videos[0], labels=(0, 1)), *found.videos[1:])
        return replace(found, videos=videos, is_multi_label=True)

    monkeypatch.setattr("bench.data.collection.open_dataset", several)
    case = loaded()
    found = by_name(accuracy(case, root=root))
    assert 0 < found["map"].value <= 100
    assert (case.details["protocol"]["averaging"], case.warnings) == ("sigmoid", [])
    kept = read_predictions(tmp_path / "s" / case.kept["predictions"])
    assert (kept.labels.shape, kept.labels.sum()) == ((6, 2), 7)
    given = loaded(recipe=None, weights=str(tmp_path / "s" / case.kept["weights"]))
    accuracy(given, root=root)
    assert (given.details["protocol"]["averaging"], given.warnings) == ("sigmoid", [])
    torch.save(read_weights(tmp_path / "s" / case.kept["weights"])["state_dict"], tmp_path / "bare.pt")
    bare = loaded(recipe=None, weights=str(tmp_path / "bare.pt"))
    accuracy(bare, root=root)
    assert bare.details["protocol"]["averaging"] == "softmax"
    assert any("averaging: sigmoid" in warning.remedy for warning in bare.warnings)


def test_weights_are_evaluated_without_training(loaded, root, tmp_path):
    trained = loaded()
    before = by_name(accuracy(trained, root=root))
    again = loaded(recipe=None, weights=str(tmp_path / "s" / trained.kept["weights"]))
    after = by_name(accuracy(again, root=root))
    assert after["top1"].value == before["top1"].value
    assert "train_seconds" not in after
    assert again.details["training"]["recipe"] is None


def test_weights_whose_head_does_not_fit_are_not_evaluated_without_training(loaded, root, tmp_path):
    trained = loaded()
    accuracy(trained, root=root)
    weights = read_weights(tmp_path / "s" / trained.kept["weights"])["state_dict"]
    weights |= {"fc8.weight": torch.zeros(5, 128), "fc8.bias": torch.zeros(5)}
    torch.save(weights, tmp_path / "five.pt")
    with pytest.raises(InputError, match=r"five.pt has 5 classes and motions has 2, .* --labels FILE"):
        accuracy(loaded(recipe=None, weights=str(tmp_path / "five.pt")), root=root)
    accuracy(loaded(weights=str(tmp_path / "five.pt")), root=root)


def test_a_model_with_its_own_weights_is_evaluated(loaded, root, monkeypatch):
    monkeypatch.setattr("torchvision.models._api.WeightsEnum.get_state_dict", lambda self, **_: r3d_18().state_dict())
    case = loaded(model="torchvision:r3d_18.kinetics400_v1", args={"num_classes": 400}, recipe=None)
    assert "top1" in by_name(accuracy(case, root=root))
    training = case.details["training"]
    assert training == {"recipe": None, "weights": "torchvision:r3d_18.kinetics400_v1", "weights_hash": "b3b3357e"}


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"recipe": None}, "needs a recipe to train with, or weights to evaluate"),
        ({"dataset": None}, "no data set is given; name one in the suite"),
        ({"recipe": "tyni"}, "unknown recipe 'tyni'"),
    ],
)
def test_a_missing_axis_is_named_in_the_error(loaded, root, changes, told):
    with pytest.raises(InputError, match=told):
        accuracy(loaded(**changes), root=root)


FIXED = """
from torch import nn

def fixed(num_classes: int = 2) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 4 * 32 * 32, num_classes))
"""


def test_whole_frames_of_a_model_with_one_size_are_refused_before_training(loaded, root, tmp_path, monkeypatch):
    (tmp_path / "networks_of_one_size.py").write_text(FIXED)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(InputError, match="takes frames of 32x32 only; it cannot be evaluated on whole frames"):
        accuracy(loaded(views="2xfull", model="networks_of_one_size:fixed", args={}), root=root)
    assert not list((tmp_path / "s").glob("artifacts/training_*"))


def test_whole_frames_are_in_the_protocol(loaded, root):
    case = loaded(views="2xfull", model="resnet3d", args={"depth": 10, "widen_factor": 0.0625})
    accuracy(case, root=root)
    assert case.details["protocol"]["crop"] == "none: whole frames"


def test_fewer_classes_than_the_set_has_are_refused(loaded, root):
    with pytest.raises(InputError, match="num_classes is 1, but motions has 2 classes"):
        accuracy(loaded(args={"width": 0.0625, "num_classes": 1}), root=root)


def test_more_ranks_than_were_started_are_refused(loaded, root):
    with pytest.raises(InputError, match="`ranks` is 2, but 1 joined; leave `ranks` out under torchrun"):
        accuracy(loaded(), root=root, ranks=2)


@pytest.mark.parametrize(
    ("split", "known", "evaluated", "trained"),
    [
        (None, ("train", "val"), "val", "train"),
        (None, ("train", "val", "test"), "val", "train"),
        ("test", ("train", "val", "test"), "test", "train"),
        (2, ("train1", "test1", "train2", "test2"), "test2", "train2"),
        ("test1", ("train1", "test1", "train2", "test2"), "test1", "train1"),
        (None, ("train", "validation"), "validation", "train"),
    ],
)
def test_each_evaluated_split_has_its_training_split(split, known, evaluated, trained):
    assert evaluated_split(split, known=known, dataset="d") == evaluated
    assert trained_split(split, known=known, dataset="d") == trained


def test_an_unknown_split_is_named_in_the_error():
    with pytest.raises(UnknownNameError, match="unknown split '4' in data set d"):
        evaluated_split(4, known=("train1", "test1"), dataset="d")


def test_changed_input_has_metrics_and_predictions_of_its_own(loaded, root, tmp_path):
    case = loaded()
    found = {metric.key: metric for metric in accuracy(case, root=root, change=["reversed", "noise"])}
    plain = by_name(accuracy(loaded(), root=root))
    assert found["accuracy.top1"].value == plain["top1"].value
    assert {key for key in found if "top1{" in key} == {
        "accuracy.top1{change=reversed}",
        "accuracy.top1{change=noise:0.1}",
        "accuracy.clip_top1{change=reversed}",
        "accuracy.clip_top1{change=noise:0.1}",
    }
    assert case.details["protocol"]["changes"] == ["none", "reversed", "noise:0.1"]
    kept = read_changed_predictions(case.artifacts / "predictions.parquet")
    for name, predictions in kept.items():
        key = "accuracy.top1" if name == "none" else f"accuracy.top1{{change={name}}}"
        assert 100 * predictions.top(1).value == pytest.approx(found[key].value)
    assert len({predictions.videos for predictions in kept.values()}) == 1
    assert not (case.artifacts / "unfinished").exists()


def test_a_suite_states_changes_of_the_input_with_their_values():
    checked = TypeAdapter(MEASURES.get("accuracy").option_types["change"])
    assert checked.validate_python("reversed") == ["none", "reversed"]
    assert checked.validate_python(["jpeg", "none"]) == ["none", "jpeg:30"]
    with pytest.raises(ValidationError, match=r"unknown change 'revrsed'; did you mean: reversed"):
        checked.validate_python(["revrsed"])
