"""A suite on a real SLURM cluster of two nodes, one of which is lost in the middle. Run by `make slurm`."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.store import read_records
from bench.store.stored_records import latest_runs

pytestmark = pytest.mark.slurm

sys.path.insert(0, str(Path(__file__).parent))
from slurm_cluster import SlurmCluster, missing_programs, slurm_cluster  # noqa: E402

PLUGIN = '''
"""A measure that takes a second, and never ends, or fails, for some models."""

import time

from bench import COUNT_AXES, CaseContext, Metric, MetricSpec, register_measure

TURNS = MetricSpec("turn.count", "1", "lower", title="Turns", meaning="turns taken", headline=True)


@register_measure("turn", depends_on=COUNT_AXES, version=1, metrics=[TURNS], duration_s=1)
def turn(case: CaseContext) -> list[Metric]:
    if case.point.args["width"] == 1.5:
        raise ZeroDivisionError("this case always fails")
    time.sleep(3600 if case.point.args["width"] == 2.0 else 1)
    return [TURNS.metric(1, is_exact=True)]
'''
NUMBERS = 38
WIDTHS = [*(round(0.1 + number / 50, 2) for number in range(NUMBERS)), 1.5, 2.0]
SUITE = f"""
suite: cluster
timeout_s: 60
plugins: [turns]
models:
  - {{name: c3d_search, width: {WIDTHS}, num_classes: 3}}
matrix: {{clip: [1x1x32]}}
measure: {{turn: {{}}}}
"""
TRAINING = """
suite: training
models:
  - {name: c3d_search, width: 0.0625, num_classes: 8}
matrix: {clip: [8x1x32]}
measure: {accuracy: {dataset: motions, recipe: "quick with epochs=4", views: 1x1}}
"""
DEADLINE_S = 900


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[SlurmCluster]:
    if missing := missing_programs():
        pytest.skip(
            f"SLURM is not installed: {', '.join(missing)}; apt-get install slurmctld slurmd slurm-client munge"
        )
    folder = Path(f"/tmp/vbench-slurm-{os.getpid()}")  # sockets need a short path
    shutil.rmtree(folder, ignore_errors=True)
    with slurm_cluster(folder) as started:
        yield started
    shutil.rmtree(folder, ignore_errors=True)


def vbench(cluster: SlurmCluster, folder: Path, *arguments: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "bench", *arguments],
        cwd=folder,
        env=cluster.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def records_in(folder: Path) -> int:
    return sum(len(file.read_bytes().splitlines()) for file in folder.glob("records*.jsonl"))


def workers_of(node: str) -> list[int]:
    """Processes of jobs on this node."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if f"SLURMD_NODENAME={node}\0".encode() in (process / "environ").read_bytes():
                found.append(int(process.name))
        except OSError:
            continue
    return found


def test_a_suite_survives_a_lost_node_a_cancelled_job_and_two_submissions(
    cluster: SlurmCluster, tmp_path: Path
) -> None:
    (tmp_path / "turns.py").write_text(PLUGIN)
    (tmp_path / "suite.yaml").write_text(SUITE)
    results = tmp_path / "results" / "cluster"
    submit = ("run", "suite.yaml", "--executor", "slurm", "--max-jobs", "3", "--time", "30")
    first, second = vbench(cluster, tmp_path, *submit), vbench(cluster, tmp_path, *submit, "--detach")
    assert second.wait(300) == 0, second.communicate()[0]

    end = time.monotonic() + DEADLINE_S
    while records_in(results) < 6 and time.monotonic() < end:
        time.sleep(0.5)
    cluster.kill_node("n1")
    for process in workers_of("n1"):
        os.kill(process, signal.SIGKILL)
    running = cluster.run("squeue", "-h", "-o", "%i %N", "--states=RUNNING").split("\n")
    on_n2 = [line.split()[0] for line in running if line.endswith("n2")]
    cluster.run("scancel", on_n2[0])

    text = first.communicate(timeout=DEADLINE_S)[0]
    second.communicate()
    assert first.returncode == 3, text
    winners = latest_runs(read_records(results))
    states = Counter(record.status for record in winners)
    assert len({(r.case_id, r.run_index) for r in winners}) == len(winners) == NUMBERS + 2
    assert states == {"ok": NUMBERS, "error": 1, "timeout": 1}, text
    good = Counter(record.case_id for record in read_records(results) if record.is_good)
    assert set(good.values()) == {1}, "a run has two results"

    status = vbench(cluster, tmp_path, "status", str(results), "--json").communicate()[0]
    found = json.loads(status)
    assert (found["planned"], found["left"], found["working"]) == (NUMBERS + 2, 0, [])
    assert {"cancelled"} <= {job["phase"] for job in found["jobs"]}
    again = vbench(cluster, tmp_path, *submit, "--only", "width=0.1 ")
    assert "runs were done before; nothing was submitted" in again.communicate(timeout=300)[0]


def test_a_training_on_the_cluster_is_a_record_like_any_other(cluster: SlurmCluster, tmp_path: Path) -> None:
    (tmp_path / "suite.yaml").write_text(TRAINING)
    ended = vbench(cluster, tmp_path, "run", "suite.yaml", "--executor", "slurm", "--time", "30")
    text = ended.communicate(timeout=DEADLINE_S)[0]
    assert ended.returncode == 0, text
    (record,) = read_records(tmp_path / "results" / "training")
    assert record.status == "ok"
    assert "report: results/training/report/index.html" in text


def test_what_the_cluster_refuses_is_one_line(cluster: SlurmCluster, tmp_path: Path) -> None:
    (tmp_path / "suite.yaml").write_text(TRAINING)
    ended = vbench(cluster, tmp_path, "run", "suite.yaml", "--executor", "slurm", "--partition", "nope")
    text = ended.communicate(timeout=300)[0]
    assert ended.returncode == 2
    assert text.splitlines()[-1] == (
        "vbench: SLURM refuses the jobs: Batch job submission failed: Invalid partition name specified"
    )
