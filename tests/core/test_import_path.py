"""A repository of the user's that has a package `bench` of its own: vbench, and all that it starts, is still vbench."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bench.core import import_path
from bench.store import read_records

NETS = """
from torch import nn
from bench.core.registry import register_model


@register_model("net", clip="4x1x16")
def net(num_classes: int = 5) -> nn.Module:
    "A network for tests."
    return nn.Sequential(nn.AdaptiveAvgPool3d(1), nn.Flatten(), *[nn.Linear(3, 3) for _ in range(LAYERS)])
"""
SUITE = """\
suite: nets
plugins: [nets]
models: [net]
measure: {params: {}, macs: {counters: [torch, thop]}, cold: {}}
gate: {params.total: {max_rise: 1%}}
"""


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    (tmp_path / "bench").mkdir()
    (tmp_path / "bench/__init__.py").write_text("raise RuntimeError('this is not vbench')\n")
    (tmp_path / "nets.yaml").write_text(SUITE)
    git = ["git", "-c", "user.name=t", "-c", "user.email=t@t"]
    subprocess.run([*git, "init", "-q"], cwd=tmp_path, check=True)
    for layers in "12":
        (tmp_path / "nets.py").write_text(NETS.replace("LAYERS", layers))
        subprocess.run([*git, "add", "."], cwd=tmp_path, check=True)
        subprocess.run([*git, "commit", "-q", "-m", layers], cwd=tmp_path, check=True)
    return tmp_path


def vbench(repository: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The command as it is installed: its own folder is on no path of the user's."""
    program = "import sys; sys.path.insert(0, sys.argv.pop(1)); from bench.cli.app import main; sys.path.pop(0); main()"
    return subprocess.run(
        [sys.executable, "-P", "-c", program, import_path.OWN, *arguments],
        cwd=repository,
        env={k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | {"XDG_CACHE_HOME": str(repository / "cache")},
        capture_output=True,
        text=True,
        check=False,
    )


def test_only_another_bench_finds_another_bench(repository: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / "bench").mkdir(parents=True)
    assert not import_path.finds_another_bench([import_path.OWN, str(repository)])
    assert import_path.finds_another_bench([str(repository), import_path.OWN])
    assert import_path.finds_another_bench([str(elsewhere)]), "a folder without __init__.py is a package too"
    assert not import_path.finds_another_bench([str(elsewhere), import_path.OWN]), "that a real one goes before"
    assert not import_path.finds_another_bench([])


def test_nothing_changes_without_another_package_bench(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    environment = {"PYTHONPATH": "a", "HOME": "b"}
    assert import_path.child_environment(environment) == environment


def test_children_find_vbench_before_the_given_paths(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(repository)
    found = import_path.child_environment({"PYTHONPATH": os.pathsep.join(["a", import_path.OWN])})
    assert found == {"PYTHONPATH": os.pathsep.join([import_path.OWN, "a"]), "PYTHONSAFEPATH": "1"}


def test_models_are_found_next_to_another_package_bench(repository: Path) -> None:
    done = vbench(repository, "profile", "nets:net", "--input", "1x3x4x16x16", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["params"] == 24


@pytest.mark.slow
def test_a_suite_runs_next_to_another_package_bench(repository: Path) -> None:
    """Witnesses and cold starts are processes of processes."""
    done = vbench(repository, "run", "nets.yaml", "--out", "results")
    assert done.returncode == 0, done.stdout + done.stderr
    records = read_records(repository / "results")
    assert all(record.is_good for record in records)  # a busy machine makes timings drift
    [report] = [each for record in records for each in record.details.get("counter_reports", [])]
    assert report["tool"] == "thop"


@pytest.mark.slow
def test_two_commits_are_compared_next_to_another_package_bench(repository: Path) -> None:
    suite = repository / "counts.yaml"
    suite.write_text("suite: counts\nplugins: [nets]\nmodels: [net]\nmeasure: {params: {}}\n")
    gate = ["--gate", "params.total=1%", "--budget", "30s"]
    done = vbench(repository, "ab", "HEAD~1", ".", str(suite), *gate)
    assert (done.returncode, "worse" in done.stdout) == (1, True), done.stdout + done.stderr
