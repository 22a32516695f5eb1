"""A real Ray cluster of two nodes on this machine: `make ray`."""

import importlib.util
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, TypeVar

import psutil
import pytest

from bench.core.errors import InputError
from bench.core.rank_layout import RankLayout
from bench.runner.executor import Workers, read_submissions
from bench.runner.executors import ray as ray_executor
from bench.runner.executors.ray import Ray, _actor_class
from bench.store import read_records
from bench.store.leases import LeaseFacts, Leases
from bench.store.stored_records import latest_runs

sys.path.insert(0, str(Path(__file__).parent))
from cluster_suite import GOOD, PLUGIN, commit_all, turns_suite, write_suite

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
LONG_OVER_NODES = """
suite: training
models:
  - {name: c3d_search, width: 0.0625, num_classes: 2}
matrix: {clip: [4x1x32]}
measure:
  accuracy: {dataset: motions, root: few, recipe: "tiny.yaml with epochs=60", views: 1x1, ranks: 2, nodes: 2}
"""
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


def test_a_worker_of_timed_cases_runs_on_the_largest_nodes_which_have_no_room_for_others(tmp_path: Path) -> None:
    """Half a node is no exclusive place; a larger node without the GPU does not count."""
    nodes = [{"CPU": 16.0, "GPU": 1.0}, {"CPU": 32.0, "GPU": 1.0}, {"CPU": 64.0}, {"CPU": 32.0, "GPU": 4.0}]
    timed = workers(tmp_path, is_exclusive=True)
    assert Ray(gpus=1)._needs(timed, nodes) == {"num_cpus": 32.0, "num_gpus": 1}
    assert Ray()._needs(timed, nodes) == {"num_cpus": 64.0, "num_gpus": 0}
    spread = replace(timed, layout=RankLayout(ranks=2, nodes=2))
    with pytest.raises(InputError, match="1 of 2 nodes have 0 GPUs and 64 processors for a worker"):
        Ray()._needs(spread, nodes)


def test_each_rank_of_a_node_has_a_processor_of_its_own(tmp_path: Path) -> None:
    on_one = replace(workers(tmp_path), gpus=4, layout=RankLayout(ranks=4))
    assert Ray()._needs(on_one, [{"CPU": 8.0, "GPU": 4.0}]) == {"num_cpus": 4, "num_gpus": 4}
    with pytest.raises(InputError, match="no node has 4 GPUs and 4 processors"):
        Ray()._needs(on_one, [{"CPU": 2.0, "GPU": 4.0}])


def test_two_hundred_waiting_workers_are_asked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that waits for resources never answers, so that asking one after another takes half an hour."""
    waits: list[tuple[int, float]] = []
    errors = {name: type(name, (Exception,), {}) for name in ("RayError", "GetTimeoutError", "ActorUnavailableError")}

    def get_actor(name: str, *, namespace: str) -> Any:
        if name == "gone":
            raise ValueError
        return SimpleNamespace(node=SimpleNamespace(remote=lambda: name))

    def get(answer: str, *, timeout: float) -> str:
        assert timeout == 0
        if answer != "runs":
            raise errors["GetTimeoutError"]
        return "a machine"

    module = ModuleType("ray")
    vars(module).update(
        is_initialized=lambda: True,
        exceptions=SimpleNamespace(**errors),
        get_actor=get_actor,
        get=get,
        wait=lambda answers, *, num_returns, timeout: waits.append((num_returns, timeout)),
    )
    monkeypatch.setitem(sys.modules, "ray", module)
    monkeypatch.setattr(ray_executor, "_connected_to", [])
    jobs = ["runs@auto", "gone@auto", *(f"waits{number}@auto" for number in range(200))]
    states = Ray.states(jobs)
    assert [state.job for state in states] == jobs
    assert [state.phase for state in states] == ["running", "ended"] + ["waiting"] * 200
    assert waits == [(201, ray_executor.ASK_S)]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    import ray
    from ray.cluster_utils import Cluster

    started = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    started.gpu_nodes = [started.add_node(num_cpus=1, num_gpus=1)]
    yield started
    ray.shutdown()  # a driver that is still connected keeps its node from being removed
    started.shutdown()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    paths = [str(tmp_path), str(ROOT), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    write_suite(tmp_path)
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
    assert Counter(record.status for record in winners) == {"ok": GOOD, "error": 1, "timeout": 1}, text
    assert len({(r.case_id, r.run_index) for r in winners}) == len(winners) == len(records) == GOOD + 2
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


@in_cluster
def test_jobs_of_a_stage_do_not_see_later_edits(folder: Path, cluster: Any) -> None:
    (folder / "suite.yaml").write_text(turns_suite([0.1, 0.2]))
    commit = commit_all(folder)
    run = ("run", "suite.yaml", "--executor", "ray", "--address", cluster.address, "--stage")
    started, results = vbench(*run), folder / "results" / "cluster"
    wait_for(lambda: list((results / "submissions").glob("*.json")), "a submission")
    (folder / "turns.py").write_text(f"{PLUGIN}\nraise RuntimeError('edited')\n")
    text = started.communicate(timeout=DEADLINE_S)[0]
    assert started.returncode == 0, text
    assert f"staged: {results}/.staged/" in text
    records = read_records(results)
    assert [record.status for record in records] == ["ok", "ok"]
    (submission, *_) = read_submissions(results)
    assert Path(submission.stage).parent == results / ".staged"
    found = {(record.environment.state["commit"], record.environment.state["staged_tree"]) for record in records}
    assert found == {(commit, Path(submission.stage).name)}
    assert {record.environment.state["env.CUDA_VISIBLE_DEVICES"] for record in records} == {""}, "none was requested"


@in_cluster
@pytest.mark.parametrize("rank", [1, 0])
def test_a_case_over_two_nodes_runs_again_after_the_loss_of_one(folder: Path, cluster: Any, rank: int) -> None:
    """The node of one rank is lost in the middle of a training; Ray has a third node with a GPU to go on with."""
    cluster.gpu_nodes += [cluster.add_node(num_cpus=1, num_gpus=1) for _ in range(3 - len(cluster.gpu_nodes))]
    cluster.wait_for_nodes()
    (folder / "training.yaml").write_text(LONG_OVER_NODES)
    run = ("run", "training.yaml", "--out", "res", "--executor", "ray", "--address", cluster.address, "--gpus", "1")
    started = vbench(*run)
    wait_for(lambda: list((folder / "res").glob("artifacts/*/curves.csv")), "an epoch")
    lost = next(node for node in cluster.gpu_nodes if has_rank(processes_of(node), rank))
    processes = processes_of(lost)
    cluster.gpu_nodes.remove(lost)
    cluster.remove_node(lost, allow_graceful=False)
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.kill()

    text = started.communicate(timeout=DEADLINE_S)[0]
    assert started.returncode == 0, text
    records = read_records("res")
    assert [record.status for record in records if record.is_good] == ["ok"]
    assert {record.status for record in records} <= {"ok", "interrupted"}
    training = latest_runs(records)[0].details["training"]
    assert isinstance(training, dict)
    assert training["processes"] == 2
    [submission] = read_submissions(folder / "res")
    worker = submission.jobs[0].partition("@")[0]
    assert (folder / "res/logs/ray" / submission.name / f"rendezvous/{worker}-restart1.json").is_file()
    wait_for(lambda: [state.phase for state in Ray.states(submission.jobs)] == ["ended"], "the end of the job")
    assert not list((folder / "res/leases").glob("*.json"))


def processes_of(node: Any) -> list[psutil.Process]:
    """Return the processes that the raylet of a node has started: the loss of its machine ends all of them."""
    return psutil.Process(node.all_processes["raylet"][0].process.pid).children(recursive=True)


def has_rank(processes: list[psutil.Process], rank: int) -> bool:
    for process in processes:
        with suppress(psutil.Error):
            if process.environ().get("RANK") == str(rank):
                return True
    return False


class Group:
    """Stands in for Ray in the processes of two ranks: their actors, and whether Ray has started one again."""

    def __init__(self) -> None:
        self.actors: dict[str, Any] = {}
        self.restarted: set[str] = set()
        self.silent: set[str] = set()
        self.is_removed = threading.Event()

    def module(self, own: str) -> ModuleType:
        """Return what `import ray` gives in the process of the actor `own`."""
        group, errors = self, ModuleType("ray.exceptions")
        errors.RayError = type("RayError", (Exception,), {})  # type: ignore[attr-defined]

        def get(answers: list[Any], *, timeout: float) -> list[Any]:
            if any(answer is None for answer in answers):
                raise errors.RayError
            return answers

        module = ModuleType("ray")
        vars(module).update(
            exceptions=errors,
            get=get,
            get_actor=lambda name, *, namespace: Handle(group, name),
            get_runtime_context=lambda: SimpleNamespace(was_current_actor_reconstructed=own in group.restarted),
            util=SimpleNamespace(
                get_current_placement_group=lambda: group, remove_placement_group=lambda _: group.is_removed.set()
            ),
        )
        return module


class Handle:
    """A handle of an actor, whose methods have `remote`."""

    def __init__(self, group: Group, name: str) -> None:
        self.start_again = SimpleNamespace(remote=lambda: group.actors[name].start_again())
        self.node = SimpleNamespace(remote=lambda: None if name in group.silent else "a machine")


StartRank = Callable[[Group, int, tuple[str, str]], Any]


@pytest.fixture
def start_rank(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StartRank]:
    """Starts the actor of a rank of two, with the shell commands of its first and second start."""
    for name, value in (("LEAVE_S", 0.0), ("RESTART_S", 60.0), ("STOP_S", 1.0)):
        monkeypatch.setattr(ray_executor, name, value)

    def start(group: Group, rank: int, commands: tuple[str, str]) -> Any:
        own, other = ("a", "b") if rank == 0 else ("b", "a")
        monkeypatch.setitem(sys.modules, "ray", group.module(own))
        starts = [(["sh", "-c", command], {"RANK": str(rank)}) for command in commands]
        group.actors[own] = _actor_class()(starts, str(tmp_path / f"{own}.log"), str(tmp_path), [other])
        return group.actors[own]

    before = set(threading.enumerate())
    yield start
    for thread in set(threading.enumerate()) - before:  # they import Ray as long as they run
        thread.join(60)


@pytest.mark.parametrize("code", [0, 3])
def test_the_first_rank_ends_all_when_it_has_ended(start_rank: StartRank, tmp_path: Path, code: int) -> None:
    """Also after an error, if the others are there."""
    group = Group()
    start_rank(group, 0, (f"exit {code}", "echo again >> again"))
    assert group.is_removed.wait(20)
    assert not (tmp_path / "again").exists()


def test_a_rank_starts_again_with_one_that_was_lost(start_rank: StartRank, tmp_path: Path) -> None:
    group = Group()
    first = start_rank(group, 0, ("exec sleep 600", "echo first >> again"))
    wait_for(lambda: first._process is not None, "the first start")
    group.restarted.add("b")
    start_rank(group, 1, ("echo wrong >> again", "sleep 1; echo second >> again"))
    assert group.is_removed.wait(20)
    wait_for(lambda: len((tmp_path / "again").read_text().split()) == 2, "both ranks")
    assert sorted((tmp_path / "again").read_text().split()) == ["first", "second"]


def test_a_rank_that_noticed_the_loss_first_waits_for_the_lost_one(start_rank: StartRank, tmp_path: Path) -> None:
    group = Group()
    group.silent.add("b")
    first = start_rank(group, 0, ("exit 3", "echo again >> again"))
    wait_for(lambda: first._process is not None and first._process.poll() == 3, "the end of the first start")
    assert not group.is_removed.wait(0.5)
    group.silent.clear()
    first.start_again()
    assert group.is_removed.wait(20)
    assert (tmp_path / "again").read_text() == "again\n"


def test_ranks_end_if_no_machine_takes_the_place_of_a_lost_one(
    start_rank: StartRank, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_executor, "RESTART_S", 0.1)
    for rank in (0, 1):
        group = Group()
        group.silent |= {"a", "b"}
        start_rank(group, rank, ("exit 3", "echo again >> again"))
        assert group.is_removed.wait(20)
    assert not (tmp_path / "again").exists()


def test_a_cluster_that_is_not_there_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("ray")
    vars(module).update(is_initialized=lambda: False)
    monkeypatch.setitem(sys.modules, "ray", module)
    with pytest.raises(InputError, match=r"no cluster at 127\.0\.0\.1:9: .*refused"):
        Ray(address="127.0.0.1:9").submit(workers(tmp_path))


def test_jobs_of_two_clusters_are_each_asked_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection that the program itself has made stays."""
    monkeypatch.setattr(ray_executor, "_connected_to", [])
    monkeypatch.setattr(ray_executor, "_require_answer", lambda address: None)
    now: list[str] = []
    asked: list[str] = []
    module = ModuleType("ray")
    vars(module).update(
        is_initialized=lambda: bool(now),
        init=lambda *, address, **_: (now.append(address), asked.append(address)),
        shutdown=now.clear,
    )
    monkeypatch.setitem(sys.modules, "ray", module)
    for address in ("a:1", "a:1", "b:1", "a:1"):
        ray_executor._connected(address)
    assert asked == ["a:1", "b:1", "a:1"]
    monkeypatch.setattr(ray_executor, "_connected_to", [])
    ray_executor._connected("c:1")
    assert asked == ["a:1", "b:1", "a:1"]
