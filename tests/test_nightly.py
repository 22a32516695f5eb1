"""The nightly job: its script is run with a stand-in for vbench, and its workflow is what the page shows."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / ".github" / "examples"
SCRIPT = EXAMPLES / "bisect-alarms.sh"
STAND_IN = """\
#!/usr/bin/env bash
echo "$*" >> calls
case "$1 $*" in
  run*) exit "${RUN_CODE:-0}" ;;
  history*--json*) cat history.json ;;
  bisect*) echo "first bad commit: 1234"; exit "${BISECT_CODE:-1}" ;;
esac
"""


def moved(metric: str, change: float | None, *, is_exact: bool = False) -> dict[str, Any]:
    return {"metric": metric, "case_id": "abc123", "change": change, "is_exact": is_exact}


def alarm(*metrics: dict[str, Any]) -> dict[str, Any]:
    return {"first": "b" * 40, "last_before": "a" * 40, "moved": list(metrics)}


def run_script(folder: Path, alarms: list[dict[str, Any]], **environment: str) -> tuple[int, str, list[str]]:
    """Exit code, output, and the calls of vbench."""
    program = folder / "bin" / "vbench"
    program.parent.mkdir(exist_ok=True)
    program.write_text(STAND_IN)
    program.chmod(0o755)
    (folder / "history.json").write_text(json.dumps({"alarms": alarms}))
    path = f"{program.parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", str(SCRIPT), "speed.yaml", "kept"],
        cwd=folder,
        env={**os.environ, "PATH": path, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    calls = (folder / "calls").read_text().splitlines() if (folder / "calls").exists() else []
    return done.returncode, done.stdout + done.stderr, calls


def test_a_night_without_alarms_measures_and_saves(tmp_path: Path) -> None:
    code, _, calls = run_script(tmp_path, [])
    assert code == 0
    assert calls == [
        "run speed.yaml --out results/nightly",
        "baseline save results/nightly --branch main --folder kept",
        "history --branch main --folder kept --html alarms.html --atom alarms.xml",
        "history --branch main --folder kept --json",
    ]


def test_each_alarm_is_bisected_by_its_surest_metric(tmp_path: Path) -> None:
    """Exact metrics first, without a limit; else the largest change, with half of it as the limit."""
    timed, small = moved("latency.p50_ms", 0.2), moved("throughput.clips_per_s", -0.02)
    exact = moved("macs.forward", 0.4, is_exact=True)
    code, output, calls = run_script(tmp_path, [alarm(small, timed), alarm(timed, exact), alarm(small)])
    good, bad = "a" * 40, "b" * 40
    assert [call.split(" --budget")[0] for call in calls[4:]] == [
        f"bisect latency.p50_ms abc123 {good} {bad} --suite speed.yaml --limit 10.0%",
        f"bisect macs.forward abc123 {good} {bad} --suite speed.yaml --limit 0",
        f"bisect throughput.clips_per_s abc123 {good} {bad} --suite speed.yaml --limit 3.0%",
    ]
    assert code == 1
    assert "::error title=vbench::latency.p50_ms: first bad commit: 1234" in output


@pytest.mark.parametrize(
    ("bisect", "code", "said"),
    [("0", 0, "was not confirmed"), ("4", 4, "one of several commits"), ("2", 0, "ended with exit code 2")],
)
def test_the_end_of_a_bisection_decides_the_job(tmp_path: Path, bisect: str, code: int, said: str) -> None:
    found = run_script(tmp_path, [alarm(moved("latency.p50_ms", 0.2))], BISECT_CODE=bisect)
    assert found[0] == code
    assert said in found[1]


def test_failed_cases_do_not_end_the_night_and_wrong_input_does(tmp_path: Path) -> None:
    assert (run_script(tmp_path, [], RUN_CODE="3")[0], len(run_script(tmp_path, [])[2])) == (0, 8)
    (tmp_path / "calls").unlink()
    code, _, calls = run_script(tmp_path, [], RUN_CODE="2")
    assert (code, len(calls)) == (2, 1)


def test_the_workflow_calls_the_script(tmp_path: Path) -> None:
    workflow = YAML(typ="safe").load((EXAMPLES / "nightly.yml").read_text(encoding="utf-8"))
    steps = workflow["jobs"]["history"]["steps"]
    assert any(step.get("run") == "bash bisect-alarms.sh speed.yaml history main" for step in steps)


def test_every_program_that_the_workflow_installs_is_an_address_or_in_the_repository() -> None:
    """`pip install ./vbench` needs a checkout of vbench inside the user's repository, which no step makes."""
    workflow = YAML(typ="safe").load((EXAMPLES / "nightly.yml").read_text(encoding="utf-8"))
    scripts = [step["run"] for step in workflow["jobs"]["history"]["steps"] if "pip install" in step.get("run", "")]
    assert [script.split()[-1] for script in scripts] == ['"git+https://github.com/OWNER/vbench@v0.1"']


def test_the_shell_of_the_nightly_job_is_clean(tmp_path: Path) -> None:
    shellcheck = shutil.which("shellcheck")
    if shellcheck is None:
        pytest.skip("shellcheck is not installed")
    workflow = YAML(typ="safe").load((EXAMPLES / "nightly.yml").read_text(encoding="utf-8"))
    scripts = [step["run"] for step in workflow["jobs"]["history"]["steps"] if "\n" in step.get("run", "")]
    files = [SCRIPT]
    for number, text in enumerate(scripts):
        (tmp_path / f"{number}.sh").write_text(f"#!/bin/bash\n{text}")
        files.append(tmp_path / f"{number}.sh")
    found = subprocess.run([shellcheck, *map(str, files)], capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout


NETS = """
from torch import nn
from bench.core.registry import register_model


class Net(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.layers = nn.Sequential(*[nn.Conv3d(3, 3, 3, padding=1) for _ in range(LAYERS)])
        self.fc = nn.Linear(3, num_classes)

    def forward(self, clips):
        return self.fc(self.layers(clips).mean((2, 3, 4)))


@register_model("net", clip="4x1x16")
def net(num_classes: int = 5) -> nn.Module:
    "A model for tests."
    return Net(num_classes)
"""
SUITE = "suite: speed\nplugins: [nets]\nmodels: [net]\nmeasure: {params: {}, macs: {}}\n"


def git(folder: Path, *arguments: str) -> str:
    command = ["git", "-c", "user.name=t", "-c", "user.email=t@t", *arguments]
    return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout.strip()


def night(checkout: Path, cache: Path) -> tuple[int, str]:
    """Update the checkout of a self-hosted runner, then run the shell of the workflow; exit code and output."""
    git(checkout, "fetch", "-q", "origin", "main")
    git(checkout, "checkout", "-q", "--detach", "origin/main")
    steps = YAML(typ="safe").load((EXAMPLES / "nightly.yml").read_text(encoding="utf-8"))["jobs"]["history"]["steps"]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    variables = {"PATH": path, "XDG_CACHE_HOME": str(cache), "GITHUB_SHA": git(checkout, "rev-parse", "HEAD")}
    code, said = 0, ""
    for step in steps:
        script = step.get("run", "pip")
        if script.startswith("pip") or (code and step.get("if") != "always()"):
            continue
        done = subprocess.run(
            ["bash", "-e", "-c", script],
            cwd=checkout,
            env={**os.environ, **variables, **step.get("env", {})},
            capture_output=True,
            text=True,
            check=False,
        )
        code, said = code or done.returncode, said + done.stdout + done.stderr
    return code, said


@pytest.mark.slow
def test_three_nights_of_a_real_repository_find_the_planted_commit_once(tmp_path: Path) -> None:
    """The second night measures the sixth commit; the fourth added a layer.

    By hand: it has 3 x 3 x 27 weights and 3 biases, over 4 x 16 x 16 places.
    """
    origin, work, checkout = (tmp_path / name for name in ("origin", "work", "checkout"))
    git(tmp_path, "init", "-q", "--bare", "-b", "main", str(origin))
    git(tmp_path, "clone", "-q", str(origin), str(work))
    (work / "speed.yaml").write_text(SUITE)
    shutil.copy(SCRIPT, work)
    commits = []
    for number in range(6):
        (work / "nets.py").write_text(NETS.replace("LAYERS", "1" if number < 3 else "2"))
        (work / "notes.txt").write_text(f"{number}\n")
        git(work, "add", ".")
        git(work, "commit", "-q", "-m", f"commit {number}")
        commits.append(git(work, "rev-parse", "HEAD"))
    git(work, "push", "-q", "origin", f"{commits[0]}:refs/heads/main")
    git(tmp_path, "clone", "-q", str(origin), str(checkout))

    code, said = night(checkout, tmp_path / "cache")
    assert code == 0, said
    assert "no alarm" in said

    git(work, "push", "-q", "origin", "HEAD:refs/heads/main")
    code, said = night(checkout, tmp_path / "cache")
    assert code == 1, said
    assert f"worse from {commits[5]}, after {commits[0]}:" in said
    assert "  net: layers.1 added: +248.8 kMACs, +246 parameters (nets.py:" in said
    assert f": first bad commit: {commits[3]}" in said
    assert said.count("::error title=vbench::") == 1, "one cause, one alarm, one bisection"

    code, said = night(checkout, tmp_path / "cache")
    assert code == 1, said
    assert "commits were judged before" in said
    assert " against " not in said, "nothing was measured again"
    kept = git(origin, "ls-tree", "-r", "--name-only", "vbench-history").splitlines()
    assert kept
    assert all(name.startswith(".vbench/") for name in kept)
    assert git(origin, "log", "--format=%s", "vbench-history").splitlines() == [
        f"History of {commits[5]}",
        f"History of {commits[0]}",
        "history",
    ]
