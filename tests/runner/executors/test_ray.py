"""A real Ray cluster of two nodes on this machine: `make ray`."""

import importlib.util
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

import psutil
import pytest

from bench.core.errors import InputError
from bench.core.rank_layout import RankLayout
from bench.runner.executor import Workers, read_submissions
from bench.runner.executors.ray import Ray
from bench.store import read_records
from bench.store.leases import LeaseFacts, Leases
from bench.store.stored_records import latest_runs

sys.path.insert(0, str(Path(__file__).parent))
from cluster_suite import NUMBERS, PLUGIN, SUITE

Test = TypeVar("Test", bound=Callable[..., None])
Found = TypeVar("Found")
ROOT = Path(__file__).parents[3]
TRAINING = """
suite: training
models:
  - {name: c3d_search, width: 0.0625, num_classes: 8}
matrix: {clip: [8x1x32]}
measure: {accuracy: {dataset: motions, recipe: "quick with epochs=2", views: 1x1}}
"""
OVER_NODES = TRAINING.replace("views: 1x1", "views: 1x1, ranks: 2, nodes: 2")
DEADLINE_S = 900


def in_cluster(test: Test) -> Test:
    """Mark a test that needs a real cluster."""
    is_missing = importlib.util.find_spec("ray") is None
    marks = (
        pytest.mark.ray,
        pytest.mark.skipif(is_missing, reason="ray is not installed"),
        pytest.mark.filterwarnings("ignore"),  # Ray leaves sockets and files open
    )
    for mark in marks:
        test = mark(test)
    return test


def workers(folder: Path, *, count: int = 1, is_exclusive: bool = False) -> Workers:
    return Workers(command=("true",), count=count, is_exclusive=is_exclusive, logs=folder)


def test_a_worker_that_no_node_can_serve_is_refused_with_what_there_is(tmp_path: Path) -> None:
    nodes = [{"CPU": 8.0}, {"CPU": 16.0, "GPU": 2.0}]
    assert Ray(gpus=2)._needs(workers(tmp_path), nodes) == {"num_cpus": 1, "num_gpus": 2}
    with pytest.raises(InputError, match="no node has 4 GPUs and 1 processor for a worker; nodes: 8 proc"):
        Ray(gpus=4)._needs(workers(tmp_path), nodes)


def test_a_worker_over_nodes_needs_as_many_nodes_with_room_for_its_ranks(tmp_path: Path) -> None:
    spread = replace(workers(tmp_path), gpus=2, layout=RankLayout(ranks=4, nodes=2))
    nodes = [{"CPU": 2.0, "GPU": 2.0}, {"CPU": 1.0, "GPU": 8.0}, {"CPU": 8.0, "GPU": 2.0}]
    assert Ray()._needs(spread, nodes) == {"num_cpus": 2, "num_gpus": 2}
    with pytest.raises(InputError, match="1 of 2 nodes have 2 GPUs and 2 processors for a worker; nodes: 2 proc"):
        Ray()._needs(spread, nodes[:2])


def test_a_worker_of_timed_cases_takes_all_processors_of_a_node(tmp_path: Path) -> None:
    nodes = [{"CPU": 16.0, "GPU": 1.0}, {"CPU": 16.0, "GPU": 1.0}]
    needs = Ray(gpus=1)._needs(workers(tmp_path, is_exclusive=True), nodes)
    assert needs == {"num_cpus": 16.0, "num_gpus": 1}


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    import ray
    from ray.cluster_utils import Cluster

    started = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    started.second = started.add_node(num_cpus=1, num_gpus=1)
    yield started
    ray.shutdown()  # a driver that is still connected keeps its node from being removed
    started.shutdown()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    paths = [str(tmp_path), str(ROOT), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "turns.py").write_text(PLUGIN)
    (tmp_path / "suite.yaml").write_text(SUITE)
    (tmp_path / "training.yaml").write_text(TRAINING)
    return tmp_path


def vbench(*arguments: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "bench", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def wait_for(ask: Callable[[], Found | None], what: str) -> Found:
    """Ask until the answer is true, and return it."""
    end = time.monotonic() + DEADLINE_S
    while not (found := ask()):
        assert time.monotonic() < end, f"{what} did not happen"
        time.sleep(0.2)
    return found


@in_cluster
def test_a_suite_survives_the_loss_of_a_node(folder: Path, cluster: Any) -> None:
    """Of three workers one is lost with its node and the case in flight, which runs once more elsewhere."""
    lost = cluster.add_node(num_cpus=1)
    cluster.wait_for_nodes()
    raylet = psutil.Process(lost.all_processes["raylet"][0].process.pid)
    run = ("run", "suite.yaml", "--executor", "ray", "--address", cluster.address, "--max-jobs", "3")
    started, results = vbench(*run), folder / "results" / "cluster"
    leases = Leases(results, worker="test")

    def stopped_in_a_case() -> LeaseFacts | None:
        """Stop all processes of the node if one holds a case; returns its lease."""
        processes[:] = raylet.children(recursive=True)
        for process in processes:
            process.suspend()
        held = {state.facts.process: state.facts for state in leases.states()}
        found = next((held[process.pid] for process in processes if process.pid in held), None)
        for process in processes if found is None else ():
            process.resume()
        return found

    processes: list[psutil.Process] = []
    wait_for(lambda: len(list(results.glob("records*.jsonl"))) == 3, "a record of each worker")
    in_flight = wait_for(stopped_in_a_case, "a case on the third node")
    cluster.remove_node(lost, allow_graceful=False)
    for process in processes:  # a machine takes everything with it, a raylet only its own processes
        with suppress(psutil.NoSuchProcess):
            process.kill()

    text = started.communicate(timeout=DEADLINE_S)[0]
    assert started.returncode == 3, text
    assert "Traceback" not in text
    records = read_records(results)
    winners = latest_runs(records)
    assert Counter(record.status for record in winners) == {"ok": NUMBERS, "error": 1, "timeout": 1}, text
    assert len({(r.case_id, r.run_index) for r in winners}) == len(winners) == len(records) == NUMBERS + 2
    (again_elsewhere,) = [record for record in winners if record.case_id == in_flight.case_id]
    assert again_elsewhere.started_at > in_flight.started_at
    assert [state.facts for state in leases.states()] == []
    again = vbench(*run, "--only", "width=0.1 ").communicate(timeout=DEADLINE_S)[0]
    assert "runs were done before; nothing was submitted" in again


@in_cluster
def test_a_training_on_the_node_with_a_gpu_is_a_record_like_any_other(folder: Path, cluster: Any) -> None:
    ended = vbench("run", "training.yaml", "--executor", "ray", "--address", cluster.address, "--gpus", "1")
    text = ended.communicate(timeout=DEADLINE_S)[0]
    assert ended.returncode == 0, text
    (record,) = read_records(folder / "results" / "training")
    assert record.status == "ok"


@in_cluster
def test_gpus_that_no_node_has_are_refused_before_anything_is_submitted(folder: Path, cluster: Any) -> None:
    (folder / "gpus.yaml").write_text(TRAINING + "require: {gpus: 2}\n")
    for suite, options in (("gpus.yaml", ()), ("training.yaml", ("--gpus", "2"))):
        ended = vbench("run", suite, "--executor", "ray", "--address", cluster.address, *options)
        text = ended.communicate(timeout=DEADLINE_S)[0]
        assert ended.returncode == 2, text
        assert text.splitlines()[-1].startswith(
            "vbench: --executor ray: no node has 2 GPUs and 1 processor for a worker"
        )
    assert not list((folder / "results").glob("*/submissions/*"))


@in_cluster
def test_a_training_over_two_nodes_has_a_rank_on_each(folder: Path, cluster: Any) -> None:
    (folder / "training.yaml").write_text(OVER_NODES)
    done = vbench("run", "training.yaml", "--out", "res", "--executor", "ray", "--address", cluster.address)
    text = done.communicate(timeout=DEADLINE_S)[0]
    assert done.returncode == 0, text
    [record] = read_records("res")
    training = record.details["training"]
    assert isinstance(training, dict)
    assert training["processes"] == 2
    [submission] = read_submissions(folder / "res")
    wait_for(lambda: [state.phase for state in Ray.states(submission.jobs)] == ["ended"], "the end of the job")
    import ray

    groups = ray.util.placement_group_table()
    assert {group["state"] for group in groups.values()} == {"REMOVED"}


def test_a_cluster_that_is_not_there_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("ray")
    vars(module).update(is_initialized=lambda: False)
    monkeypatch.setitem(sys.modules, "ray", module)
    with pytest.raises(InputError, match=r"no cluster at 127\.0\.0\.1:9: .*refused"):
        Ray(address="127.0.0.1:9").submit(workers(tmp_path))
