"""Suites in real child processes: a failure is a record, and finished runs are not repeated."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from bench.catalog.catalog import Catalog
from bench.cli.app import run_command
from bench.core.schema import Case, Point, model_files
from bench.runner.fingerprint import Fingerprints
from bench.runner.running import plan, run
from bench.store import read_records

PLUGIN = '''
import os
import torch
from torch import nn
from bench.models.base import VideoModel
from bench.core.registry import register_model


class Tiny(VideoModel):
    def __init__(self, num_classes):
        super().__init__()
        self.fc = nn.Linear(3, num_classes)

    def forward_features(self, *clips):
        return clips[0].mean((2, 3, 4))


@register_model("tiny", clip="4x1x8")
def tiny(num_classes: int = 5, *, mood: str = "calm") -> Tiny:
    """A model for tests."""
    if mood == "angry":
        raise ZeroDivisionError("this network never builds")
    return Tiny(num_classes)


class Deadly(Tiny):
    def forward(self, *clips):
        if not clips[0].is_meta:
            print("last words", flush=True)
            os.kill(os.getpid(), 9)
        return super().forward(*clips)


class Greedy(Tiny):
    def forward(self, *clips):
        if not clips[0].is_meta:
            torch.empty(1 << 50)
        return super().forward(*clips)


def deadly(num_classes=5):
    return Deadly(num_classes)


def greedy(num_classes=5):
    return Greedy(num_classes)
'''

SUITE = """\
suite: moods
plugins: [moody]
models:
  - {name: tiny, mood: calm}
  - {name: tiny, mood: angry}
  - {name: "moody:deadly", clip: 4x1x8}
  - {name: "moody:greedy", clip: 4x1x8}
measure:
  memory: {}
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a plug-in and a suite of moods, and a cache of its own."""
    (tmp_path / "moody.py").write_text(PLUGIN)
    (tmp_path / "moods.yaml").write_text(SUITE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path


@pytest.mark.slow
def test_failing_cases_become_records_and_the_rest_runs(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["run", "moods.yaml", "--out", "out"]) == 3
    shown = capsys.readouterr().out
    by_name = {r.case.point.model + str(r.case.point.args.get("mood", "")): r for r in read_records("out")}
    assert {name: record.status for name, record in by_name.items()} == {
        "tinycalm": "ok",
        "tinyangry": "error",
        "moody:deadly": "error",
        "moody:greedy": "oom",
    }
    deadly, angry = by_name["moody:deadly"], by_name["tinyangry"]
    assert deadly.error is not None
    assert "SIGKILL" in deadly.error.message
    assert "last words" in deadly.error.traceback
    assert angry.error is not None
    assert "never builds" in angry.error.message
    assert "1 measured, 3 failed" in shown
    assert (folder / "out" / "report" / "index.html").is_file()
    assert run_command(["plan", "moods.yaml", "--out", "out", "--json"]) == 0
    planned = json.loads(capsys.readouterr().out)
    assert (planned["runs"], planned["left"]) == (4, 3)

    pending = plan("moods.yaml", out="out").pending
    assert "calm" not in str(pending), "what is good is not measured again"
    assert len(pending) == 3


@pytest.mark.slow
def test_a_killed_run_resumes(folder: Path) -> None:
    (folder / "calm.yaml").write_text(
        "suite: calm\nplugins: [moody]\nmodels: [tiny]\nmatrix: {batch: [1, 2, 3]}\nmeasure: {memory: {}}\n"
    )
    command = [sys.executable, "-m", "bench", "run", "calm.yaml", "--out", "out"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    records = folder / "out" / "records.jsonl"
    deadline = time.monotonic() + 120
    while not records.is_file() or not records.read_bytes().endswith(b"\n"):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    before = len(read_records("out"))
    assert before < 3
    summary = run("calm.yaml", out="out")
    assert len(summary.finished) == 3 - before
    assert summary.skipped == before
    assert sorted(r.case.point.batch or 0 for r in read_records("out")) == [1, 2, 3]
    assert len({r.session for r in read_records("out")}) == 2
    assert run("calm.yaml", out="out").finished == ()


def test_the_fingerprint_covers_files_of_weights_and_recipes(folder: Path) -> None:
    file = folder / "file.yaml"
    catalog = Catalog(["moody"])
    cases = {
        "weights": ({"weights": str(file)}, {"args": {"mood": str(file)}}),
        "recipe": ({"recipe": "file"}, {"recipe": str(file)}),
    }
    for part, settings in cases.items():
        for setting in settings:
            file.write_text("before")
            point = Point(model="tiny", clip="4x1x8", **setting)  # type: ignore[arg-type]
            case = Case(suite="moods", point=point, measures={"memory": {}})
            found = Fingerprints(catalog, [folder])
            before = found.of(case).parts
            assert found.of(case).parts == before
            file.write_text("after")
            after = found.of(case).parts
            assert [name for name in before if before[name] != after[name]] == [part], setting


def test_results_depend_on_the_weights_in_a_hugging_face_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"before")
    (tmp_path / "notes.txt").write_text("before")
    assert [file.name for file in model_files(f"hf:{tmp_path}")] == ["config.json", "model.safetensors"]
    assert model_files(f"hf:{tmp_path / 'config.json'}") == model_files(f"hf:{tmp_path}")
    assert model_files("c3d") == model_files(str(tmp_path)) == model_files("hf:nowhere") == []
    monkeypatch.setenv("HOME", str(tmp_path.parent))
    assert len(model_files(f"hf:~/{tmp_path.name}")) == 2
    case = Case(suite="s", point=Point(model=f"hf:{tmp_path}", clip="8x1x32"), measures={"memory": {}})  # type: ignore[arg-type]
    catalog = SimpleNamespace(
        model=lambda name: SimpleNamespace(source=""), check_models=lambda points: [SimpleNamespace(modules={})]
    )
    fingerprints = Fingerprints(catalog, [])  # type: ignore[arg-type]
    before = fingerprints.of(case).parts
    (tmp_path / "notes.txt").write_text("after")
    assert fingerprints.of(case).parts == before
    (tmp_path / "model.safetensors").write_bytes(b"after")
    after = fingerprints.of(case).parts
    assert after != before
    (tmp_path / "preprocessor_config.json").write_text("{}")
    assert fingerprints.of(case).parts != after
