"""A real Ray cluster of two nodes on this machine: `make ray`."""

import importlib.util
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from time import monotonic, sleep
from types import ModuleType
from typing import Any

import pytest

from bench.core.errors import InputError
from bench.core.rank_layout import RankLayout
from bench.runner.executor import Workers, read_submissions
from bench.runner.executors.ray import Ray
from bench.store import read_records

HAS_RAY = importlib.util.find_spec("ray") is not None
in_cluster = [
    pytest.mark.ray,
    pytest.mark.skipif(not HAS_RAY, reason="ray is not installed"),
    pytest.mark.filterwarnings("ignore"),
]
ROOT = Path(__file__).parents[3]
MEASURE = '''
import os, time
from bench import Metric, register_measure

@register_measure("work", depends_on={"model", "args", "clip", "batch"}, version=1)
def work(case, *, seconds: float = 1.0):
    """Fails for the third batch, is killed for the fourth."""
    if case.point.batch == 3:
        raise RuntimeError("meant to fail")
    if case.point.batch == 4:
        os.kill(os.getpid(), 9)
    time.sleep(seconds)
    return [Metric(name="work.done", value=1, unit="")]
'''
SUITE = """\
suite: shared
plugins: [ray_work]
models: [{name: c3d_search, width: 0.05, num_classes: 4}]
matrix: {clip: [4x1x16], batch: [1, 2, 3, 4, 5, 6]}
measure: {work: {seconds: SECONDS}}
timeout_s: 300
"""
TRAINING = """\
suite: training
models: [{name: c3d_search, width: 0.0625, num_classes: 8}]
matrix: {clip: [8x1x32]}
measure: {accuracy: {dataset: motions, recipe: "quick with epochs=2", views: 1x1, ranks: 2, nodes: 2}}
"""


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
    started.second = started.add_node(num_cpus=1)
    yield started
    ray.shutdown()  # a driver that is still connected keeps its node from being removed
    started.shutdown()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    paths = [str(tmp_path), str(ROOT), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "ray_work.py").write_text(MEASURE)
    (tmp_path / "shared.yaml").write_text(SUITE.replace("SECONDS", "1.0"))
    return tmp_path


def vbench(*arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "bench", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=500, check=False)


@pytest.mark.parametrize("mark", [pytest.param(None, marks=in_cluster)], ids=[""])
def test_a_suite_with_failing_and_killed_cases_runs_once_on_two_nodes(folder: Path, cluster: Any, mark: None) -> None:
    run = ("run", "shared.yaml", "--out", "res", "--executor", "ray", "--address", cluster.address, "--max-jobs", "2")
    done = vbench(*run)
    assert done.returncode == 3, done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    records = read_records("res")
    statuses = {record.case.point.batch: record.status for record in records}
    assert statuses == {1: "ok", 2: "ok", 3: "error", 4: "error", 5: "ok", 6: "ok"}
    assert set(Counter(record.case.point.batch for record in records).values()) == {1}


@pytest.mark.parametrize("mark", [pytest.param(None, marks=in_cluster)], ids=[""])
def test_a_training_over_two_nodes_has_a_rank_on_each(folder: Path, cluster: Any, mark: None) -> None:
    (folder / "training.yaml").write_text(TRAINING)
    done = vbench("run", "training.yaml", "--out", "res", "--executor", "ray", "--address", cluster.address)
    assert done.returncode == 0, done.stdout + done.stderr
    [record] = read_records("res")
    training = record.details["training"]
    assert isinstance(training, dict)
    assert training["processes"] == 2
    [submission] = read_submissions(folder / "res")
    deadline = monotonic() + 60
    while any(state.phase == "running" for state in Ray.states(submission.jobs)) and monotonic() < deadline:
        sleep(0.5)
    import ray

    assert [state.phase for state in Ray.states(submission.jobs)] == ["ended"]
    groups = ray.util.placement_group_table()
    assert {group["state"] for group in groups.values()} == {"REMOVED"}


def test_a_cluster_that_is_not_there_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("ray")
    vars(module).update(is_initialized=lambda: False)
    monkeypatch.setitem(sys.modules, "ray", module)
    with pytest.raises(InputError, match=r"no cluster at 127\.0\.0\.1:9: .*refused"):
        Ray(address="127.0.0.1:9").submit(workers(tmp_path))
