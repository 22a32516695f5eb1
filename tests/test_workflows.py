"""The project's workflows: what they run exists, and what a job needs is installed by it."""

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from bench.core.yaml_tree import read_yaml

ROOT = Path(__file__).parents[1]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
# Debian's package of each program that a SLURM cluster of the tests needs.
PACKAGES = {
    "munged": "munge",
    "slurmctld": "slurmctld",
    "slurmd": "slurmd",
    "slurmdbd": "slurmdbd",
    "mariadbd": "mariadb-server",
    "sbatch": "slurm-client",
    "squeue": "slurm-client",
    "scontrol": "slurm-client",
    "scancel": "slurm-client",
    "sacctmgr": "slurm-client",
}


def jobs() -> list[tuple[str, Mapping[str, Any]]]:
    found = []
    for file in WORKFLOWS:
        for name, job in read_yaml(file).data["jobs"].items():
            found.append((f"{file.name}:{name}", job))
    return found


def scripts(job: Mapping[str, Any]) -> str:
    return "\n".join(step.get("run", "") for step in job.get("steps", ()))


@pytest.mark.parametrize(("name", "job"), jobs(), ids=[name for name, _ in jobs()])
def test_every_job_has_a_time_limit_and_runs_targets_of_the_makefile(name: str, job: Mapping[str, Any]) -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert job.get("timeout-minutes"), f"{name} may hang for six hours"
    assert set(re.findall(r"\bmake ([a-z]+)", scripts(job))) <= targets


def test_the_documented_gitlab_job_compares_with_the_commit_where_the_branch_left_its_target(tmp_path: Path) -> None:
    """The script of the page, with a `vbench` that only notes its arguments. The target has gained a commit since."""
    page = (ROOT / "docs" / "gate-in-ci.md").read_text(encoding="utf-8")
    [block] = re.findall(r"^## GitLab\n\n```yaml\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    (tmp_path / "gitlab.yml").write_text(block)
    script = read_yaml(tmp_path / "gitlab.yml").data["gate"]["script"]
    (tmp_path / "bin").mkdir()
    for program in ("vbench", "pip"):
        (tmp_path / "bin" / program).write_text(f'#!/bin/sh\necho {program} "$@"\n')
        (tmp_path / "bin" / program).chmod(0o755)
    history = """
        git init -q -b main target && cd target
        commit() { git -c user.name=t -c user.email=t@t commit -q --allow-empty -m "$1"; }
        commit shared && shared=$(git rev-parse HEAD) && git branch feature && commit later
        cd .. && git clone -q -b feature target job && cd job && commit change
    """
    environment = {
        "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}",
        "CI_MERGE_REQUEST_TARGET_BRANCH_NAME": "main",
        "CI_NODE_INDEX": "2",
        "CI_NODE_TOTAL": "3",
    }
    commands = "\n".join(["set -eu", history, *script, "echo shared $shared"])
    done = subprocess.run(["bash", "-c", commands], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    installed, measured, shared = done.stdout.splitlines()
    assert installed.startswith("pip install ")
    assert measured.startswith(f"vbench ab {shared.split()[1]} . speed.yaml --budget 20m --shard 2/3 --out records ")


def test_one_job_installs_slurm_and_runs_the_tests_of_both_clusters() -> None:
    sys.path.insert(0, str(ROOT / "tests" / "runner" / "executors"))
    try:
        from slurm_cluster import PROGRAMS
    finally:
        sys.path.pop(0)
    (script,) = [scripts(job) for _, job in jobs() if "make slurm" in scripts(job)]
    assert "make ray" in script
    assert {PACKAGES[program] for program in PROGRAMS} <= set(script.split())
