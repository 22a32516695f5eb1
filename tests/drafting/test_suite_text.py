"""The written suite is valid, names what was found, and gives a reason where it departs from a default."""

from pathlib import Path
from typing import Any

import pytest

from bench.core.errors import InputError
from bench.core.schema import clip_from_text
from bench.core.yaml_tree import Tree, read_yaml
from bench.drafting.found_model import FoundModel
from bench.drafting.found_videos import FoundVideos
from bench.drafting.suite_text import suite_name, suite_text
from bench.suite.file import SuiteFile, check_suite

VIDEOS = FoundVideos(
    dataset="csv",
    root=Path("/data/my: videos"),
    options={"annotations": "/x/{split}, all.csv", "first_label": 1},
    split="test",
    classes=("0", "1", "2"),
    counts={"train": 100, "test": 20},
    frames=40,
    fps=29.97,
    size="320x240",
    remarks=("a remark # with: signs" * 9,),
)


def model(**changes: Any) -> FoundModel:
    facts: dict[str, Any] = {"given": {}, "defaults": {"num_classes": 400, "width": 16, "norm": None}}
    counts = {"clip": clip_from_text("16x4x112"), "params": 8112, "macs": 32_520_000}
    return FoundModel(**{"name": "my_models:small", **facts, **counts, **changes})


def read(text: str, folder: Path) -> tuple[SuiteFile, Tree]:
    (folder / "s.yaml").write_text(text, encoding="utf-8")
    tree = read_yaml(folder / "s.yaml")
    return check_suite(tree), tree


def test_the_suite_holds_what_was_found(tmp_path: Path) -> None:
    text = suite_text(model(), VIDEOS, name="mine", command="vbench init 'a b' # c")
    suite, _ = read(text, tmp_path)
    assert suite.models == [{"name": "my_models:small", "num_classes": 3}]
    assert suite.measure["accuracy"] == {
        "dataset": "csv",
        "root": "/data/my: videos",
        "options": {"annotations": "/x/{split}, all.csv", "first_label": 1},
        "split": "test",
        "recipe": "start",
        "seeds": [0],
        "views": "1x1",
    }
    assert "3 classes; 100 videos in train, 20 videos in test; 320x240 pixels; 29.97 frames per second" in text
    assert max(map(len, text.splitlines())) <= 130


def test_a_stride_that_no_short_video_allows_is_made_smaller(tmp_path: Path) -> None:
    suite, _ = read(suite_text(model(), VIDEOS, name="mine", command=""), tmp_path)
    assert suite.matrix == {"clip": ["16x2x112"]}  # 40 frames hold 16 of every second one, not of every third


@pytest.mark.parametrize(("videos", "recipe"), [(64, "start"), (63, "start with batch=8"), (3, "start with batch=2")])
def test_few_videos_get_a_smaller_batch(videos: int, recipe: str, tmp_path: Path) -> None:
    found = FoundVideos(dataset="folder", classes=("a", "b"), counts={"train": videos, "val": 2})
    suite, _ = read(suite_text(model(), found, name="mine", command=""), tmp_path)
    accuracy = suite.measure["accuracy"]
    assert accuracy is not None
    assert accuracy["recipe"] == recipe


def test_without_videos_costs_are_measured(tmp_path: Path) -> None:
    suite, _ = read(suite_text(model(given={"width": 4}), None, name="mine", command=""), tmp_path)
    assert suite.models == [{"name": "my_models:small", "width": 4}]
    assert list(suite.measure) == ["params", "macs", "latency", "throughput", "memory"]


def test_a_model_with_too_few_outputs_is_refused() -> None:
    fixed = model(defaults={}, outputs=2)
    with pytest.raises(
        InputError, match=r"my_models:small has 2 outputs and takes no argument num_classes, .* 3 classes"
    ):
        suite_text(fixed, VIDEOS, name="mine", command="")
    assert '- {name: "my_models:small"}' in suite_text(model(defaults={}, outputs=3), VIDEOS, name="mine", command="")


def test_names_of_suites_are_made_of_model_and_data(tmp_path: Path) -> None:
    assert suite_name("my.models:Small Net", "/data/Mine 2") == "small_net_mine_2"
    assert suite_name("torchvision:r3d_18") == "r3d_18"
    assert suite_name("c3d", str(tmp_path / "all.csv")) == "c3d_all"
    assert suite_name("nets/my_net.py") == "my_net"
    assert suite_name("x:é") == "mine"
