"""The project's workflows: what they run exists, and what a job needs is installed by it."""

import re
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


def test_one_job_installs_slurm_and_runs_the_tests_of_both_clusters() -> None:
    sys.path.insert(0, str(ROOT / "tests" / "runner" / "executors"))
    try:
        from slurm_cluster import PROGRAMS
    finally:
        sys.path.pop(0)
    (script,) = [scripts(job) for _, job in jobs() if "make slurm" in scripts(job)]
    assert "make ray" in script
    assert {PACKAGES[program] for program in PROGRAMS} <= set(script.split())
