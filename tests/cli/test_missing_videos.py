"""Missing videos are named in the terminal, the record and the report of an accuracy."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from bench import create_model
from bench.cli.app import app, run_command
from bench.data.collection import open_dataset

RECIPE = "recipe: tiny\nsource: a test\nepochs: 1\nbatch: 4\noptimizer: {name: sgd, lr: 0.01}\n"
SUITE = """
suite: missing
models: [{{name: c3d_search, width: 0.0625, clip: 4x1x32, recipe: tiny, seed: 0}}]
measure: {{accuracy: {{dataset: csv, split: val, root: {root}}}}}
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    motions = tmp_path / "motions"
    sizes = {"clips_per_class": 5, "val_clips_per_class": 5, "frames": 6, "size": 32, "classes": 2}
    for split in ("train", "val"):
        videos = open_dataset("motions", root=motions, split=split, **sizes).videos
        lines = []
        for video in videos:
            shutil.copy(video.path, tmp_path / f"{video.id}.mp4")
            lines.append(f"{video.id}.mp4 {video.labels[0]}\n")
        (tmp_path / f"{split}.csv").write_text("".join(lines))
    for video in videos[:3]:
        (tmp_path / f"{video.id}.mp4").unlink()
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes/tiny.yaml").write_text(RECIPE)
    (tmp_path / "suite.yaml").write_text(SUITE.format(root=tmp_path))
    return tmp_path


def test_many_missing_videos_are_in_terminal_record_and_report(root: Path) -> None:
    done = CliRunner().invoke(app, ["run", str(root / "suite.yaml"), "--out", str(root / "results")])
    told = "3 of 10 videos (30 %) of data set csv, split val, are missing"
    assert told in done.output
    (record,) = [json.loads(line) for file in root.rglob("records.jsonl") for line in file.read_text().splitlines()]
    assert record["status"] == "ok"
    assert [told in warning["what"] for warning in record["warnings"]].count(True) == 1
    assert record["details"]["protocol"]["missing"] == 3
    assert any(told in page.read_text(encoding="utf-8") for page in root.rglob("*.html"))


def test_weights_that_do_not_fit_are_wrong_input_and_kept_as_a_record(root: Path) -> None:
    """What only the evaluation finds has the exit code of wrong input all the same."""
    weights = create_model("c3d_search", num_classes=2, width=0.125).state_dict()
    torch.save({"state_dict": weights}, root / "w.pt")
    arguments = ["--weights", root / "w.pt", "--arg", "width=0.0625", "--clip", "4x1x32", "--out", root / "eval"]
    data = ["--dataset", "csv", "--root", root, "--split", "val"]
    code = run_command(list(map(str, ["eval", "c3d_search", *arguments, *data])))
    assert code == 2
    (line,) = (root / "eval" / "records.jsonl").read_text().splitlines()
    assert json.loads(line)["error"]["type"] == "WeightsError"
