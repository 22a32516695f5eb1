"""Frozen evaluation of a case: metrics, intervals, costs, what the record says; and the order of known backbones."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from bench.core.errors import DatasetError, InputError
from bench.core.schema import Case, Point, Record
from bench.data.collection import open_dataset
from bench.measure import frozen as frozen_module
from bench.measure.context import CaseContext
from bench.measure.frozen import frozen
from bench.models.factory import create_model
from bench.runner.running import run
from bench.suite import read_suite
from bench.train.predictions import read_predictions

SUITES = Path(__file__).parents[2] / "suites"
TINY = {"depth": 10, "widen_factor": 0.0625, "stem_kernel_t": 3, "no_max_pool": True}


@pytest.fixture(autouse=True)
def _one_thread():
    """Threads only wait for each other on heads as small as these."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "motions"
    open_dataset(
        "motions", root=folder, split="train", clips_per_class=6, val_clips_per_class=3, frames=8, size=32, classes=6
    )
    return str(folder)


@pytest.fixture
def loaded(tmp_path):
    """A case of a tiny model; every call is a new process's view of the same results folder."""

    def load(**changes):
        point = {"model": "resnet3d", "args": TINY, "clip": "4x1x32", "dataset": "motions", **changes}
        case = Case(suite="s", point=Point.model_validate(point), measures={"frozen": {}})
        return CaseContext(case, artifacts=tmp_path / "s" / "artifacts" / case.id)

    return load


QUICK = {"epochs": 2, "blocks": 2, "head_batch": 8}


def by_key(metrics):
    return {metric.key.removeprefix("frozen."): metric for metric in metrics}


def test_each_head_and_number_of_shots_has_its_metrics_and_the_features_their_cost(loaded, root):
    case = loaded(views="2x1")
    heads = ["attentive", "linear", "knn"]
    found = by_key(frozen(case, root=root, head=heads, shots=[1, "all"], seeds=[0, 1], **QUICK))
    keys = [f"{{head={head},shots={shots}}}" for head in heads for shots in (1, "all")]
    names = [f"{name}{key}" for key in keys for name in ("top1", "top5", "mean_class", "head_seconds")]
    assert set(found) == {*names, "features_clips_per_s", "features_j_per_clip", "features_seconds"}
    for key in keys:
        top1 = found[f"top1{key}"]
        assert top1.is_share
        assert 0 <= top1.interval[0] <= top1.value <= top1.interval[1] <= 100
        assert top1.value == pytest.approx(np.mean(top1.samples or [top1.value]))
        assert found[f"top5{key}"].value >= top1.value
    assert len(found["top1{head=linear,shots=all}"].samples) == 2
    assert found["top1{head=knn,shots=all}"].note == "nothing depends on the seed"
    rate, seconds = found["features_clips_per_s"].value, found["features_seconds"].value
    assert rate * seconds == pytest.approx((36 + 18) * 2)


def test_the_record_says_how_it_was_measured(loaded, root, tmp_path):
    case = loaded()
    frozen(case, root=root, head="linear", seeds=[3], grid={"lr": [0.01, 0.1]}, **QUICK)
    about = case.details["frozen"]
    assert (about["protocol"]["dataset"], about["protocol"]["videos"], about["protocol"]["train_videos"]) == (
        "motions",
        18,
        36,
    )
    assert about["protocol"]["chosen_on"] == "held-out training videos"
    assert (about["features"]["layers"], about["features"]["pooling"], about["features"]["views"]) == (
        "last",
        "head",
        1,
    )
    (head,) = about["heads"]
    assert (head["adaptation"], head["shots"], head["grid"]) == ("frozen/linear", "all", [[0.01, 0.0], [0.1, 0.0]])
    assert head["chosen"][0]["lr"] in (0.01, 0.1)
    assert 0 <= head["chosen"][0]["held_out_top1"] <= 1
    kept = read_predictions(tmp_path / "s" / case.kept["predictions_linear_all"])
    assert len(kept.videos) == 18
    assert kept.protocol["adaptation"] == "frozen/linear"
    json.dumps(case.details)


def test_cases_with_other_heads_share_their_features(loaded, root, monkeypatch):
    frozen(loaded(), root=root, head="linear", seeds=[0], **QUICK)
    monkeypatch.setattr("bench.train.feature_store.batches_of", lambda *_, **__: pytest.fail("taken twice"))
    frozen(loaded(), root=root, head="knn", **QUICK)


def test_the_file_of_a_backbone_needs_no_classifier(loaded, root, tmp_path):
    state = create_model("resnet3d", num_classes=3, **TINY).state_dict()
    body = {key: value for key, value in state.items() if not key.startswith("fc.")}
    top1 = []
    for name, weights in (("whole", state), ("body", body)):
        torch.save({"state_dict": weights}, tmp_path / f"{name}.pth")
        found = frozen(loaded(weights=str(tmp_path / f"{name}.pth")), root=root, head="knn", neighbours=3)
        top1 += [metric.value for metric in found if metric.key.startswith("frozen.top1")]
    assert len(top1) == 2
    assert top1[0] == top1[1]


def test_unread_test_videos_count_as_wrong(loaded, root, monkeypatch):
    opened = frozen_module.CaseTraining.videos

    def damaged(self, role):
        videos = opened(self, role)
        text = Path(root) / "text.mp4"
        text.write_text("not a video")
        broken = tuple(replace(video, path=text, facts=None, sha256="") for video in videos.videos[:9])
        return replace(videos, videos=(*broken, *videos.videos[9:])) if role == "evaluated" else videos

    monkeypatch.setattr(frozen_module.CaseTraining, "videos", damaged)
    case = loaded()
    found = by_key(frozen(case, root=root, head="knn", allow_leaks=["text.mp4"], **QUICK))
    assert found["top1{head=knn,shots=all}"].value <= 50
    assert case.details["frozen"]["protocol"]["unread"] == 9
    assert any("9 test videos could not be read and count as wrong" in each.what for each in case.warnings)


@pytest.mark.parametrize(
    ("point", "options", "message"),
    [
        ({}, {"head": []}, r"head is \[\]"),
        ({}, {"shots": [1, 1]}, "shots is .*different ones"),
        ({}, {"grid": {"lr": []}}, "grid has an empty list"),
        ({}, {"layers": 2, "pooling": "head"}, "layers joins tokens"),
        ({}, {"layers": 9}, "layers is 9; .* has 1 last blocks"),
        ({"dataset": None}, {}, "no data set is given"),
        ({"views": "sliding:4"}, {}, "equally many views"),
    ],
)
def test_what_cannot_be_measured_is_refused_in_one_line(loaded, root, point, options, message):
    with pytest.raises(InputError, match=message) as caught:
        frozen(loaded(**point), root=root, **{"head": "linear", **QUICK, **options})
    assert "\n" not in str(caught.value)


def test_test_videos_among_the_training_videos_are_refused(loaded, root, monkeypatch):
    opened = frozen_module.CaseTraining.videos
    monkeypatch.setattr(frozen_module.CaseTraining, "videos", lambda self, role: opened(self, "evaluated"))
    with pytest.raises(DatasetError, match="share"):
        frozen(loaded(), root=root, head="knn", **QUICK)


def top1_of(record: Record, head: str, shots: str = "all"):
    metric = record.metric(f"frozen.top1{{head={head},shots={shots}}}")
    assert metric is not None
    assert metric.value is not None
    assert metric.interval is not None
    return metric


class IndependentHead(nn.Module):
    """An attentive classifier by torch's own layers: the same form as V-JEPA 2's, other code and initialisation."""

    def __init__(self, width: int, classes: int, *, heads: int) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(
            width, heads, 4 * width, dropout=0, activation="gelu", batch_first=True, norm_first=True
        )
        self.blocks = nn.TransformerEncoder(layer, 3, enable_nested_tensor=False)
        self.query = nn.Parameter(0.02 * torch.randn(1, 1, width))
        self.norm, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.gather = nn.MultiheadAttention(width, heads, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.last = nn.Linear(width, classes)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        tokens = self.norm(self.blocks(tokens))
        query = self.query.expand(len(tokens), -1, -1)
        query = query + self.gather(query, tokens, tokens, need_weights=False)[0]
        logits: torch.Tensor = self.last((query + self.mlp(self.norm2(query)))[:, 0])
        return logits


def independent_top1(folder: Path, record: Record) -> float:
    """Top-1 in % of the independent head, on the features that the record names; read and fitted by other code."""
    about = record.details["frozen"]
    assert isinstance(about, dict)
    sets = []
    for name in about["features"]["folders"]:
        here = folder / "artifacts" / name
        parts = [np.load(file) for file in sorted(here.glob("*.tokens.npy"))]
        notes = [json.loads(file.read_text()) for file in sorted(here.glob("0*.json"))]
        places = [place for note in notes for place in note["positions"]]
        labels = np.array(places) % 8  # `motions` lists the eight directions of each scene in turn
        sets.append((torch.from_numpy(np.concatenate(parts)[:, 0]), torch.from_numpy(labels)))
    (x, y), (test_x, test_y) = sets
    torch.manual_seed(7)
    head = IndependentHead(x.shape[2], 8, heads=math.gcd(x.shape[2], 16))
    optimizer = torch.optim.AdamW(head.parameters(), lr=1e-3, weight_decay=0.01)
    steps = 15 * -(-len(x) // 32)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(15):
        for rows in torch.randperm(len(x)).split(32):
            optimizer.zero_grad()
            F.cross_entropy(head(x[rows]), y[rows]).backward()
            optimizer.step()
            schedule.step()
    head.eval()
    with torch.inference_mode():
        return 100 * float((head(test_x).argmax(1) == test_y).float().mean())


@pytest.mark.slow
def test_the_small_suite_ranks_backbones_in_their_known_order(tmp_path: Path, monkeypatch) -> None:
    """Weights of single pictures weigh past and future alike: no head can tell a motion from its reverse, so 50 % at
    most (and noise). Weights of motions know all eight. An independent attentive head agrees on the same features.
    """
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # of the workers, as in this process
    summary = run(read_suite(SUITES / "frozen.yaml", small=True), out=tmp_path)
    assert summary.exit_code == 0
    records = {
        str(record.case.point.weights): record for record in summary.finished if "frozen" in record.case.measures
    }
    random, stills, motions = (
        records[name] for name in ("None", "inflated:stills/quick_stills", "trained:motions/quick")
    )
    for head in ("attentive", "linear", "knn"):
        assert top1_of(motions, head).interval[0] > top1_of(stills, head).interval[1]
        assert top1_of(motions, head).interval[0] > top1_of(random, head).interval[1]
        assert top1_of(stills, head).interval[0] <= 50
    ours = top1_of(motions, "attentive")
    assert ours.interval[0] <= independent_top1(summary.folder, motions) <= ours.interval[1]
