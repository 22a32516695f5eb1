"""`vbench init` writes a suite that can be planned, and replaces a file only if it is asked to."""

from pathlib import Path

import pytest

from bench.cli.app import run_command
from bench.core.yaml_tree import read_yaml

MODEL = """
from torch import nn

def small(num_classes: int = 4, *, width: int = 2) -> nn.Module:
    return nn.Sequential(nn.Conv3d(3, width, 3), nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(width, num_classes))
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a model's file, and class folders of videos beside it."""
    (tmp_path / "project").mkdir()
    (tmp_path / "project" / "drafted_net.py").write_text(MODEL)
    for label in ("jump", "run"):
        (tmp_path / "data" / label).mkdir(parents=True)
        for number in range(5):
            (tmp_path / "data" / label / f"{number}.mp4").write_bytes(b"")
    monkeypatch.chdir(tmp_path / "project")
    monkeypatch.syspath_prepend("")
    return tmp_path / "project"


@pytest.mark.slow
def test_init_looks_at_the_model_and_the_videos_and_plans_a_suite(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(["init", "../data"]) == 0  # the model is the only one here
    out = capsys.readouterr().out
    assert "model: drafted_net.py:small at 16x1x112" in out
    assert "small_data: 3 cases, 0 of 3 runs done" in out
    assert "next: vbench run small_data.yaml" in out
    suite = read_yaml(project / "small_data.yaml").data
    assert suite["models"] == [{"name": "drafted_net.py:small", "num_classes": 2}]
    assert (project / "small_data.videos.csv").read_text().count("\n") == 11
    assert run_command(["plan", "small_data.yaml"]) == 0

    before = (project / "small_data.yaml").read_text()
    capsys.readouterr()
    assert run_command(["init", "drafted_net.py:small", "../data", "--arg", "width=3"]) == 2
    assert "small_data.yaml exists; name another file with --out, or replace it with --force" in capsys.readouterr().err
    assert (project / "small_data.yaml").read_text() == before
    assert run_command(["init", "drafted_net.py:small", "../data", "--arg", "width=3", "--force"]) == 0
    assert "width: 3" in (project / "small_data.yaml").read_text()


def test_options_of_a_data_set_need_one(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["init", "c3d", "--option", "videos=x"]) == 2
    assert capsys.readouterr().err == "vbench: --option is of a data set, and none is given; name it after the model\n"
