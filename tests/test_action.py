"""`action.yml` as a workflow runs it: its own steps, by a real bash, with inputs and defaults filled in."""

import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest

from bench.yaml_tree import read_yaml

ACTION = Path(__file__).parents[1] / "action.yml"
NETS = """
from torch import nn
from bench.registry import register_model


class Net(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.layer = nn.Conv3d(3, WIDTH, 3)
        self.fc = nn.Linear(WIDTH, num_classes)

    def forward(self, clips):
        return self.fc(self.layer(clips).mean((2, 3, 4)))


@register_model("net", clip="4x1x16")
def net(num_classes: int = 5) -> Net:
    "A network for tests."
    return Net(num_classes)
"""
SUITE = """\
suite: counts
plugins: [nets]
models: [net]
measure: {params: {}}
gate:
  params.total: {max_rise: 1%}
"""


def git(folder: Path, *arguments: str) -> None:
    command = ["git", "-c", "user.name=t", "-c", "user.email=t@t", *arguments]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository whose last commit widens its network."""
    folder = tmp_path / "repository"
    folder.mkdir()
    git(folder, "init", "-q", "-b", "main")
    (folder / "counts.yaml").write_text(SUITE)
    for width in (8, 16):
        (folder / "nets.py").write_text(NETS.replace("WIDTH", str(width)))
        git(folder, "add", ".")
        git(folder, "commit", "-q", "-m", f"{width} wide")
    return folder


def run_action(repository: Path, **inputs: str) -> tuple[int, str, str]:
    """The exit code of the step that ends the action, its outputs and the summary."""
    action: dict[str, Any] = read_yaml(ACTION).data
    given = {name: str(each.get("default", "")) for name, each in action["inputs"].items()} | inputs
    assert given.keys() == action["inputs"].keys(), "an input that the action does not have"
    output, summary = (repository.parent / name for name in ("output.txt", "summary.md"))
    files = {"GITHUB_OUTPUT": str(output), "GITHUB_STEP_SUMMARY": str(summary)}
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = {**os.environ, **files, "PATH": path, "XDG_CACHE_HOME": str(repository.parent / "cache")}
    for step in action["runs"]["steps"]:
        if not _is_due(step.get("if"), given):
            continue
        variables = {name: _filled(text, given) for name, text in (step.get("env") or {}).items()}
        done = subprocess.run(
            ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step["run"]],
            cwd=repository,
            env={**environment, **variables},
            capture_output=True,
            text=True,
        )
        if done.returncode:
            break
    return done.returncode, output.read_text(), summary.read_text() if summary.is_file() else done.stderr


def _filled(text: str, given: dict[str, str]) -> str:
    return re.sub(r"\$\{\{ inputs\.([\w-]+) \}\}", lambda found: given[found[1]], text)


def _is_due(condition: str | None, given: dict[str, str]) -> bool:
    """`inputs.NAME == ''` and `!= ''`, joined by `&&`: all that the action asks."""
    for part in (condition or "").split("&&") if condition else ():
        name, sign = re.fullmatch(r"inputs\.([\w-]+) (==|!=) ''", part.strip()).groups()  # type: ignore[union-attr]
        if (given[name] == "") != (sign == "=="):
            return False
    return True


@pytest.mark.slow
def test_base_and_head_are_measured_in_one_job(repository: Path) -> None:
    code, outputs, summary = run_action(
        repository, **{"suite": "counts.yaml", "base-ref": "HEAD~1", "install": "", "budget": "2m"}
    )
    assert code == 1, summary
    assert outputs == "exit-code=1\n"
    assert "params.total" in summary
    assert "slower" in summary
    verdicts = ET.parse(repository / "vbench-gate" / "verdicts.xml").getroot()
    assert verdicts.findall(".//failure")
    assert (repository / "vbench-gate" / "verdicts.smaller.json").is_file()


@pytest.mark.slow
def test_head_is_measured_and_compared_with_records_that_are_kept(repository: Path) -> None:
    first = {"suite": "counts.yaml", "base": "vbench-gate/head", "install": ""}
    assert run_action(repository, **first)[0] == 0
    code, outputs, summary = run_action(repository, **{**first, "gate": "params.totl=1%\nparams.total=1%"})
    assert (code, outputs.splitlines()[-1]) == (3, "exit-code=3"), summary


@pytest.mark.slow
def test_what_cannot_be_measured_is_exit_2_or_3_and_never_a_regression(repository: Path) -> None:
    broken = {"suite": "counts.yaml", "base-ref": "no-such-branch", "install": ""}
    code, outputs, said = run_action(repository, **broken)
    assert (code, outputs) == (2, "exit-code=2\n")
    assert "no-such-branch" in said
