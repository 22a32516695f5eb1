"""A suite on a real SLURM cluster of two nodes, one of which is lost in the middle. Run by `make slurm`."""

import getpass
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from bench.runner.executor import read_submissions
from bench.store import read_records
from bench.store.stored_records import latest_runs
from bench.train.checkpointing import read_weights

pytestmark = pytest.mark.slurm

sys.path.insert(0, str(Path(__file__).parent))  # pytest imports tests by their file, so this folder is not on it
from cluster_suite import GOOD, PLUGIN, TRAINED, WIDTHS, commit_all, turns_suite, write_suite  # noqa: E402
from slurm_cluster import (  # noqa: E402
    MOST_TASKS,
    NODES,
    SlurmCluster,
    missing_programs,
    processes_of,
    slurm_cluster,
    wait_until,
)

TRAINING = """
suite: training
models:
  - {name: c3d_search, width: 0.0625, num_classes: 8}
matrix: {clip: [8x1x32]}
measure: {accuracy: {dataset: motions, recipe: "quick with epochs=EPOCHS", views: 1x1, OPTIONS}}
"""
DEADLINE_S = 900
FOLDER = Path(f"/tmp/vbench-slurm-{os.getpid()}")  # sockets need a short path
wait_for = partial(wait_until, within_s=DEADLINE_S)


@pytest.fixture
def cluster() -> Iterator[SlurmCluster]:
    with started_cluster() as started:
        yield started


@contextmanager
def started_cluster(*, with_accounting: bool = False) -> Iterator[SlurmCluster]:
    if missing := missing_programs(with_accounting=with_accounting):
        packages = "slurmctld slurmd slurm-client munge" + " slurmdbd mariadb-server" * with_accounting
        pytest.skip(f"SLURM is not installed: {', '.join(missing)}; apt-get install {packages}")
    try:
        with slurm_cluster(FOLDER, with_accounting=with_accounting) as started:
            yield started
    finally:
        shutil.rmtree(FOLDER)


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


@pytest.mark.parametrize("with_accounting", [False, True], ids=["without accounting", "with accounting"])
def test_a_suite_survives_a_lost_node_a_cancelled_and_a_requeued_job_and_two_submissions(
    tmp_path: Path, with_accounting: bool
) -> None:
    """Without accounting the processes of the lost node die with it; with accounting they go on, as orphans."""
    with started_cluster(with_accounting=with_accounting) as cluster:
        write_suite(tmp_path)
        results = tmp_path / "results" / "cluster"
        submit = ("run", "suite.yaml", "--executor", "slurm", "--max-jobs", "3", "--time", "30")
        first, second = vbench(cluster, tmp_path, *submit), vbench(cluster, tmp_path, *submit, "--detach")
        assert second.wait(300) == 0, second.communicate()[0]

        wait_for(lambda: records_in(results) >= 6, "the sixth record")
        cluster.kill_node("n1")
        for process in () if with_accounting else workers_of("n1"):
            os.kill(process, signal.SIGKILL)
        cancelled, requeued = [job for job, node in running_jobs(cluster).items() if node == "n2"]
        cluster.run("scancel", cancelled)
        cluster.run("scontrol", "requeue", requeued)

        text = first.communicate(timeout=DEADLINE_S)[0]
        second.communicate()
        assert first.returncode == 3, text
        assert "Traceback" not in text
        records = read_records(results)
        winners = latest_runs(records)
        states = Counter(record.status for record in winners)
        assert len({(r.case_id, r.run_index) for r in winners}) == len(winners) == GOOD + 2
        assert states == {"ok": GOOD, "error": 1, "timeout": 1}, text
        assert len(good_records(results)) == len(set(good_records(results))), "a run has two results"
        assert sum("accuracy.top1" in {metric.name for metric in record.metrics} for record in winners) == len(TRAINED)

        found = status_of(cluster, tmp_path)
        assert (found["planned"], found["left"], found["working"]) == (GOOD + 2, 0, [])
        assert {job["phase"] for job in found["jobs"] if job["job"] == cancelled} == {"cancelled"}
        again = vbench(cluster, tmp_path, *submit, "--only", "width=0.1 ")
        assert "runs were done before; nothing was submitted" in again.communicate(timeout=300)[0]
        wait_for(lambda: not any(map(workers_of, NODES)), "the end of all workers")
        if with_accounting:
            accounted = cluster.run("sacct", "--noheader", "--parsable2", "--allocations", "--format=JobID,State")
            states_of_jobs = dict(line.split("|") for line in accounted.splitlines())
            assert states_of_jobs[cancelled].startswith("CANCELLED")
            refuse_submissions(cluster)
            refused = vbench(cluster, tmp_path, *submit, "--rerun", "all")
            [line] = refused.communicate(timeout=300)[0].splitlines()
            assert refused.returncode == 2
            assert line.startswith("vbench: SLURM refuses the jobs: ")
            assert "policy" in line


def refuse_submissions(cluster: SlurmCluster) -> None:
    """Set the quota of the user's jobs to zero."""
    cluster.run("sacctmgr", "--immediate", "modify", "user", getpass.getuser(), "set", "MaxSubmitJobs=0")


def training(*, epochs: int, options: str = "batch: 16") -> str:
    return TRAINING.replace("EPOCHS", str(epochs)).replace("OPTIONS", options)


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
    assert [record.is_good for record in latest_runs(read_records(results))] == [True]
    assert len(good_records(results)) == 1
    assert len(list((results / "logs/slurm").glob(f"*/rendezvous/slurm-{job}*.json"))) == 2


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
    suite_of_turns(tmp_path, number=2)
    commit = commit_all(tmp_path)
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
    states = [record.environment.state for record in read_records(results)]
    assert {(state["commit"], state["staged_tree"]) for state in states} == {(commit, Path(stage["folder"]).name)}


def suite_of_turns(folder: Path, *, number: int, seconds: float = 1) -> str:
    """Write a suite of some cases, each of which takes a while, and its plug-in; returns the name of its file."""
    (folder / "turns.py").write_text(PLUGIN.replace("else 1)", f"else {seconds})"))
    (folder / "suite.yaml").write_text(turns_suite(WIDTHS[:number]))
    return "suite.yaml"


def good_records(results: Path) -> list[str]:
    """The case of each good record, sorted; a case with two of them is there twice."""
    return sorted(record.case_id for record in read_records(results) if record.is_good)


def status_of(cluster: SlurmCluster, folder: Path) -> dict[str, Any]:
    done = vbench(cluster, folder, "status", "results/cluster", "--json")
    found: dict[str, Any] = json.loads(done.communicate(timeout=60)[0])
    return found


def running_jobs(cluster: SlurmCluster) -> dict[str, str]:
    """Return the nodes of the running jobs, by job."""
    lines = cluster.run("squeue", "-h", "-r", "-o", "%i %N", "--states=RUNNING").splitlines()
    return dict(line.split() for line in lines)


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

    cancel_every_second_job(cluster, tmp_path, suite)
    cluster.run("scontrol", "update", "NodeName=n1,n2", "State=RESUME")
    wait_for(lambda: records_in(results), "a record")
    requeued = next(iter(running_jobs(cluster)))
    cluster.run("scontrol", "requeue", requeued)
    text = following.communicate(timeout=DEADLINE_S)[0]
    assert following.returncode == 0, text
    assert len(good_records(results)) == len(set(good_records(results))) == 6
    assert "Restarts=1" in cluster.run("scontrol", "show", "job", "--oneliner", requeued)
    assert status_of(cluster, tmp_path)["working"] == []


def cancel_every_second_job(cluster: SlurmCluster, folder: Path, suite: str) -> None:
    """Submit six more jobs that wait, cancel three, which leaves an array with gaps, and then the others."""
    more = vbench(cluster, folder, "run", suite, "--executor", "slurm", "--max-jobs", "6", "--detach")
    text = more.communicate(timeout=300)[0]
    assert more.returncode == 0, text
    jobs = read_submissions(folder / "results" / "cluster")[-1].jobs
    cluster.run("scancel", *jobs[1::2])
    phases = {job["job"]: job["phase"] for job in status_of(cluster, folder)["jobs"]}
    # SLURM forgets tasks that were cancelled before they had a job of their own.
    assert [phases[job] for job in jobs] == ["waiting", "ended"] * 3
    cluster.run("scancel", *jobs[::2])


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


REFUSALS = (
    (("--partition", "nope"), "invalid partition specified: nope; .*; this cluster has: main"),
    (("--partition", "mian"), r"invalid partition specified: mian; .*; did you mean: main\?"),
    (("--gres", "gpu:8"), "Invalid generic resource .*; this cluster has: none"),
    (("--job-option", "nodelist=elsewhere"), ".*Invalid node name specified"),
    (("--job-option", "no-such=1"), "unrecognized option '--no-such=1'"),
    (
        ("--max-jobs", str(MOST_TASKS + 1)),
        f".*Invalid job array specification; .* {MOST_TASKS} jobs .*; give --max-jobs {MOST_TASKS} or less",
    ),
)


def test_what_the_cluster_refuses_is_one_line_and_leaves_nothing(cluster: SlurmCluster, tmp_path: Path) -> None:
    suite = suite_of_turns(tmp_path, number=MOST_TASKS + 1)

    def line_of(*options: str) -> str:
        ended = vbench(cluster, tmp_path, "run", suite, "--executor", "slurm", *options)
        [line] = ended.communicate(timeout=300)[0].splitlines()
        assert ended.returncode == 2
        assert not list((tmp_path / "results" / "cluster").glob("submissions/*"))
        assert not list((tmp_path / "results" / "cluster").glob("logs/slurm/*"))
        return line

    for options, said in REFUSALS:
        line = line_of(*options)
        assert re.fullmatch(f"vbench: SLURM refuses the jobs: {said}", line), line
    cluster.run("scontrol", "update", "PartitionName=main", "State=DRAIN")
    line = line_of()
    assert re.fullmatch("vbench: SLURM refuses the jobs: .*partition.*", line), line
    assert status_of(cluster, tmp_path)["jobs"] == []


def test_nothing_is_left_behind(tmp_path_factory: pytest.TempPathFactory) -> None:
    """The clusters of the tests above have ended, with all that they started."""
    assert processes_of(FOLDER) == []
    assert not FOLDER.exists()
    for table in ("/proc/mounts", "/proc/net/unix"):
        text = Path(table).read_text()
        assert f"{FOLDER}/" not in text
        assert f"{tmp_path_factory.getbasetemp()}/" not in text
