"""A suite on a real SLURM cluster of two nodes, one of which is lost in the middle. Run by `make slurm`."""

import getpass
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import torch

from bench.store import read_records
from bench.store.stored_records import latest_runs
from bench.train.checkpointing import read_weights

pytestmark = pytest.mark.slurm

sys.path.insert(0, str(Path(__file__).parent))
from cluster_suite import NUMBERS, PLUGIN, SUITE, WIDTHS  # noqa: E402
from slurm_cluster import NODES, SlurmCluster, missing_programs, slurm_cluster  # noqa: E402

TRAINING = """
suite: training
models:
  - {name: c3d_search, width: 0.0625, num_classes: 8}
matrix: {clip: [8x1x32]}
measure: {accuracy: {dataset: motions, recipe: "quick with epochs=EPOCHS", views: 1x1, OPTIONS}}
"""
DEADLINE_S = 900


@pytest.fixture
def cluster() -> Iterator[SlurmCluster]:
    with started_cluster() as started:
        yield started


@contextmanager
def started_cluster(*, with_accounting: bool = False) -> Iterator[SlurmCluster]:
    if missing := missing_programs(with_accounting=with_accounting):
        packages = "slurmctld slurmd slurm-client munge" + " slurmdbd mariadb-server" * with_accounting
        pytest.skip(f"SLURM is not installed: {', '.join(missing)}; apt-get install {packages}")
    folder = Path(f"/tmp/vbench-slurm-{os.getpid()}")  # sockets need a short path
    shutil.rmtree(folder, ignore_errors=True)
    with slurm_cluster(folder, with_accounting=with_accounting) as started:
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


def is_worker_of_rank(process: int, rank: int) -> bool:
    """Whether a process runs the case of this rank, rather than waits for calls or loads videos."""
    with suppress(OSError):
        variables = Path(f"/proc/{process}/environ").read_bytes().split(b"\0")
        command = Path(f"/proc/{process}/cmdline").read_bytes()
        return f"RANK={rank}".encode() in variables and b"bench.runner.worker" in command
    return False


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


def training(*, epochs: int, options: str = "batch: 16") -> str:
    return TRAINING.replace("EPOCHS", str(epochs)).replace("OPTIONS", options)


def wait_for(is_true: Callable[[], object], what: str) -> None:
    end = time.monotonic() + DEADLINE_S
    while not is_true():
        assert time.monotonic() < end, f"{what} did not happen within {DEADLINE_S} s"
        time.sleep(0.3)


def test_a_training_over_two_nodes_is_that_of_two_ranks_on_one_machine(
    cluster: SlurmCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # sums of another number of threads have another order
    (tmp_path / "nodes.yaml").write_text(training(epochs=2, options="ranks: 2, nodes: 2"))
    (tmp_path / "local.yaml").write_text(training(epochs=2, options="ranks: 2"))
    ended = vbench(cluster, tmp_path, "run", "nodes.yaml", "--out", "nodes", "--executor", "slurm", "--time", "30")
    text = ended.communicate(timeout=DEADLINE_S)[0]
    assert ended.returncode == 0, text
    assert "report: nodes/report/index.html" in text
    local = vbench(cluster, tmp_path, "run", "local.yaml", "--out", "local")
    text = local.communicate(timeout=DEADLINE_S)[0]
    assert local.returncode == 0, text
    records = {name: read_records(tmp_path / name)[0] for name in ("nodes", "local")}
    shares = {
        name: {metric.name: metric.value for metric in record.metrics if metric.unit == "%"}
        for name, record in records.items()
    }
    assert shares["nodes"] == shares["local"]
    weights = {
        name: read_weights(tmp_path / name / record.artifacts["weights"])["state_dict"]
        for name, record in records.items()
    }
    assert all(torch.equal(value, weights["local"][key]) for key, value in weights["nodes"].items())
    [node_list] = re.findall(r" NodeList=(\S+)", cluster.run("scontrol", "show", "job", "--oneliner"))
    assert node_list == "n[1-2]"


def test_a_killed_rank_is_named_by_the_record_and_leaves_nothing(cluster: SlurmCluster, tmp_path: Path) -> None:
    (tmp_path / "suite.yaml").write_text(training(epochs=500, options="ranks: 2, nodes: 2"))
    running = vbench(cluster, tmp_path, "run", "suite.yaml", "--executor", "slurm", "--time", "30")
    results = tmp_path / "results" / "training"
    wait_for(lambda: list(results.glob("artifacts/*/curves.csv")), "an epoch")
    [second] = [pid for pid in workers_of("n2") if is_worker_of_rank(pid, 1)]
    os.kill(second, signal.SIGKILL)
    text = running.communicate(timeout=DEADLINE_S)[0]
    assert running.returncode == 3, text
    [record] = read_records(results)
    assert record.status == "error"
    assert record.error is not None
    assert "rank 1 of 2 died" in record.error.message
    wait_for(lambda: not cluster.run("squeue", "-h"), "an empty queue")
    assert [pid for node in NODES for pid in workers_of(node)] == []
    assert list((results / "leases").glob("*.json")) == []


def test_a_requeued_job_over_two_nodes_meets_at_a_new_address_and_goes_on(
    cluster: SlurmCluster, tmp_path: Path
) -> None:
    (tmp_path / "suite.yaml").write_text(training(epochs=6, options="ranks: 2, nodes: 2"))
    following = vbench(cluster, tmp_path, "run", "suite.yaml", "--executor", "slurm", "--time", "30")
    results = tmp_path / "results" / "training"
    wait_for(lambda: list(results.glob("artifacts/*/curves.csv")), "an epoch")
    [job] = running_jobs(cluster)
    cluster.run("scontrol", "requeue", job)
    wait_for(lambda: "BeginTime" in cluster.run("squeue", "-h", "-o", "%R"), "the pause after a requeue")
    cluster.run("scontrol", "update", f"JobId={job}", "StartTime=now")
    text = following.communicate(timeout=DEADLINE_S)[0]
    assert following.returncode == 0, text
    assert [record.is_good for record in read_records(results)][-1]
    assert len(good_records(results)) == 1
    assert len(list((results / "logs/slurm/rendezvous").glob(f"slurm-{job}-*.json"))) == 2


def test_a_training_saves_its_state_before_the_limit_of_its_job(cluster: SlurmCluster, tmp_path: Path) -> None:
    (tmp_path / "suite.yaml").write_text(training(epochs=500))
    ended = vbench(cluster, tmp_path, "run", "suite.yaml", "--executor", "slurm", "--time", "1")
    text = ended.communicate(timeout=DEADLINE_S)[0]
    assert ended.returncode == 3, text
    [record] = read_records(tmp_path / "results" / "training")
    assert record.status == "interrupted"
    assert record.error is not None
    assert record.error.message.startswith("stopped in epoch ")  # with its state, not killed
    again = vbench(cluster, tmp_path, "plan", "suite.yaml", "--why").communicate()[0]
    assert "interrupted" in again


def test_jobs_of_a_stage_do_not_see_later_edits(cluster: SlurmCluster, tmp_path: Path) -> None:
    (tmp_path / "turns.py").write_text(PLUGIN)
    widths = re.sub(r"width: \[.*\]", "width: [0.1, 0.2]", SUITE)
    (tmp_path / "suite.yaml").write_text(widths)
    subprocess.run(["git", "init", "--quiet", str(tmp_path)], check=True)
    submitted = vbench(cluster, tmp_path, "run", "suite.yaml", "--executor", "slurm", "--time", "30", "--stage")
    results = tmp_path / "results" / "cluster"
    wait_for(lambda: list((results / "submissions").glob("*.json")), "a submission")
    (tmp_path / "turns.py").write_text(f"{PLUGIN}\nraise RuntimeError('edited')\n")
    text = submitted.communicate(timeout=DEADLINE_S)[0]
    assert submitted.returncode == 0, text
    assert f"staged: {results}/.staged/" in text
    (tmp_path / "turns.py").write_text(PLUGIN)
    again = vbench(cluster, tmp_path, "run", "suite.yaml", "--executor", "slurm", "--stage").communicate()[0]
    assert "all 2 runs were done before; nothing was submitted" in again
    [stage] = json.loads(vbench(cluster, tmp_path, "status", str(results), "--json").communicate()[0])["staged_trees"]
    assert stage["jobs"] == []


def suite_of_turns(folder: Path, *, number: int, seconds: float = 1) -> str:
    """Write a suite of some cases, each of which takes a while, and its plug-in; returns the name of its file."""
    (folder / "turns.py").write_text(PLUGIN.replace("else 1)", f"else {seconds})"))
    (folder / "suite.yaml").write_text(SUITE.replace(str(WIDTHS), str(WIDTHS[:number])))
    return "suite.yaml"


def good_records(results: Path) -> list[str]:
    """The case of each good record, sorted; a case with two of them is there twice."""
    return sorted(record.case_id for record in read_records(results) if record.is_good)


def status_of(cluster: SlurmCluster, folder: Path) -> dict[str, Any]:
    done = vbench(cluster, folder, "status", "results/cluster", "--json")
    found: dict[str, Any] = json.loads(done.communicate(timeout=60)[0])
    return found


def running_jobs(cluster: SlurmCluster) -> list[str]:
    return cluster.run("squeue", "-h", "-r", "-o", "%i", "--states=RUNNING").split()


def test_a_drained_cluster_makes_jobs_wait_and_a_requeued_job_loses_nothing(
    cluster: SlurmCluster, tmp_path: Path
) -> None:
    suite, results = suite_of_turns(tmp_path, number=6, seconds=4), tmp_path / "results" / "cluster"
    cluster.run("scontrol", "update", "NodeName=n1,n2", "State=DRAIN", "Reason=service")
    following = vbench(cluster, tmp_path, "run", suite, "--executor", "slurm", "--time", "30", "--max-jobs", "2")
    wait_for(lambda: "Drain" in cluster.run("squeue", "-h", "-o", "%R").title(), "the reason of the wait")
    found = status_of(cluster, tmp_path)
    assert {job["phase"] for job in found["jobs"]} == {"waiting"}
    assert "ReqNodeNotAvail" in found["jobs"][0]["reason"] or "drain" in found["jobs"][0]["reason"].lower()
    assert (found["planned"], found["left"], found["working"]) == (6, 6, [])

    cluster.run("scontrol", "update", "NodeName=n1,n2", "State=RESUME")
    wait_for(lambda: records_in(results), "a record")
    requeued = running_jobs(cluster)[0]
    cluster.run("scontrol", "requeue", requeued)
    text = following.communicate(timeout=DEADLINE_S)[0]
    assert following.returncode == 0, text
    assert len(good_records(results)) == len(set(good_records(results))) == 6
    assert "Restarts=1" in cluster.run("scontrol", "show", "job", "--oneliner", requeued)
    assert status_of(cluster, tmp_path)["working"] == []


def test_a_closed_partition_refuses_jobs_in_one_line(cluster: SlurmCluster, tmp_path: Path) -> None:
    suite = suite_of_turns(tmp_path, number=1)
    cluster.run("scontrol", "update", "PartitionName=main", "State=DRAIN")
    refused = vbench(cluster, tmp_path, "run", suite, "--executor", "slurm")
    text = refused.communicate(timeout=300)[0]
    assert refused.returncode == 2
    assert text.splitlines()[-1].startswith("vbench: SLURM refuses the jobs: "), text
    assert "partition" in text.splitlines()[-1]
    assert status_of(cluster, tmp_path)["jobs"] == []


def test_a_full_disk_fails_the_jobs_and_the_same_command_goes_on(cluster: SlurmCluster, tmp_path: Path) -> None:
    suite, results = suite_of_turns(tmp_path, number=6, seconds=3), tmp_path / "results" / "cluster"
    results.mkdir(parents=True)
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "none", str(results)], check=False)
    if mounted.returncode:
        pytest.skip("no file system can be mounted here")
    try:
        submit = ("run", suite, "--executor", "slurm", "--time", "30", "--max-jobs", "2")
        following = vbench(cluster, tmp_path, *submit)
        wait_for(lambda: records_in(results), "a record")
        fill_up(results / "other.bin")
        text = following.communicate(timeout=DEADLINE_S)[0]
        assert following.returncode == 2, text  # the report does not fit either
        assert "failed exit code 2" in text
        assert "the same command goes on" in text
        assert "No space left on device" in text.splitlines()[-1]
        found = status_of(cluster, tmp_path)
        assert {job["phase"] for job in found["jobs"]} == {"failed"}
        assert found["left"] > 0
        assert found["working"] == []
        (results / "other.bin").unlink()
        again = vbench(cluster, tmp_path, *submit)
        text = again.communicate(timeout=DEADLINE_S)[0]
        assert again.returncode == 0, text
        assert len(good_records(results)) == len(set(good_records(results))) == 6
    finally:
        subprocess.run(["umount", "--lazy", str(results)], check=True)


def fill_up(file: Path) -> None:
    with file.open("wb", buffering=0) as opened, suppress(OSError):
        while True:
            opened.write(bytes(4096))


def test_with_accounting_a_cancelled_job_loses_nothing_and_a_full_quota_is_one_line(tmp_path: Path) -> None:
    with started_cluster(with_accounting=True) as cluster:
        suite, results = suite_of_turns(tmp_path, number=6, seconds=3), tmp_path / "results" / "cluster"
        submit = ("run", suite, "--executor", "slurm", "--time", "30", "--max-jobs", "2")
        following = vbench(cluster, tmp_path, *submit)
        wait_for(lambda: records_in(results), "a record")
        cancelled = running_jobs(cluster)[0]
        cluster.run("scancel", cancelled)
        text = following.communicate(timeout=DEADLINE_S)[0]
        assert following.returncode == 0, text
        assert len(good_records(results)) == len(set(good_records(results))) == 6
        accounted = cluster.run("sacct", "--noheader", "--parsable2", "--allocations", "--format=JobID,State")
        states = dict(line.split("|") for line in accounted.splitlines())
        assert states.pop(cancelled).startswith("CANCELLED")
        assert set(states.values()) == {"COMPLETED"}
        assert {job["phase"] for job in status_of(cluster, tmp_path)["jobs"]} == {"cancelled", "done"}

        cluster.run("sacctmgr", "--immediate", "modify", "user", getpass.getuser(), "set", "MaxSubmitJobs=0")
        refused = vbench(cluster, tmp_path, *submit, "--rerun", "all")
        text = refused.communicate(timeout=300)[0]
        assert refused.returncode == 2
        assert "SLURM refuses the jobs: " in text.splitlines()[-1]
        assert "policy" in text.splitlines()[-1]


def test_what_the_cluster_refuses_is_one_line(cluster: SlurmCluster, tmp_path: Path) -> None:
    (tmp_path / "suite.yaml").write_text(training(epochs=2))
    ended = vbench(cluster, tmp_path, "run", "suite.yaml", "--executor", "slurm", "--partition", "nope")
    text = ended.communicate(timeout=300)[0]
    assert ended.returncode == 2
    assert text.splitlines()[-1] == (
        "vbench: SLURM refuses the jobs: Batch job submission failed: Invalid partition name specified"
    )
