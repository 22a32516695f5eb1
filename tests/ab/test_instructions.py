"""`vbench ab` with the measure `instructions`: a planted change is decided, and nothing calls it time."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from bench.store import read_records

PLUGIN = """
from torch import nn
from bench.core.registry import register_model


@register_model("net", clip="4x1x16")
def net(num_classes: int = 4) -> nn.Module:
    "Equal layers, so that a tenth more of them are a tenth more instructions."
    return nn.Sequential(*[nn.Conv3d(3, 3, 3, padding=1) for _ in range(LAYERS)], nn.Flatten(), nn.Linear(3072, 4))
"""
SUITE = """\
suite: instructions
plugins: [nets]
models: [net]
measure: {instructions: {passes: 2}}
gate: {instructions.forward: {max_rise: 3%}}
"""


def git(folder: Path, *arguments: str) -> None:
    command = ["git", "-c", "user.name=t", "-c", "user.email=t@t", *arguments]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("valgrind") is None, reason="needs valgrind")
def test_a_tenth_more_instructions_are_worse_after_three_pairs_and_are_never_called_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Takes two minutes: valgrind makes the import of torch twenty times slower, and nothing else tests it as used."""
    folder = tmp_path / "repository"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    git(folder, "init", "-q", "-b", "main")
    (folder / "nets.yaml").write_text(SUITE)
    for layers in (20, 22):
        (folder / "nets.py").write_text(PLUGIN.replace("LAYERS", str(layers)))
        git(folder, "add", ".")
        git(folder, "commit", "-q", "-m", f"{layers} layers")
    command = [sys.executable, "-m", "bench", "ab", "HEAD~1", "HEAD", "nets.yaml", "--budget", "20m"]
    page = ["--out", "out", "--json", "--html", "verdicts.html", "--write", "verdicts.md"]
    done = subprocess.run([*command, *page], capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    [row] = json.loads(done.stdout)["rows"]
    assert row["metric"].startswith("instructions.forward{by=")
    assert (row["verdict"], row["unit"], row["runs"]) == ("worse", "instructions", [3, 3])
    assert 1.09 < row["ratio"] < 1.11
    assert 1.06 < row["interval"][0] < row["ratio"] < row["interval"][1] < 1.14
    for side in ("base", "head"):
        for record in read_records(folder / "out" / side):
            passes = record.details["instructions"]["passes"]  # type: ignore[index, call-overload]
            assert max(passes) / min(passes) < 1.005
    assert [note for note in json.loads(done.stdout)["notes"] if note.startswith("instructions are not time: ")]
    [budget] = [line for line in done.stderr.splitlines() if " pairs x " in line]
    assert budget.startswith("1 case x ")
    assert ": shows changes of instructions from about 0." in budget
    said = done.stdout + done.stderr + (folder / "verdicts.md").read_text()
    for word in ("quiet machine", "latency", "slower than", "faster", " ms", "seconds"):
        assert word not in said.replace("are usually slower", ""), word
