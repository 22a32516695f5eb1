"""The worker processes of a case: one, several ranks started here, or those of several launchers."""

import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest
import torch
from torch.distributed import HashStore

from bench.cli.app import run_shared_command
from bench.core.errors import InputError, TrainingError
from bench.core.host_address import reachable_name
from bench.core.process import ChildProcess
from bench.core.rank_layout import RankLayout
from bench.core.schema import Case, Point
from bench.data.collection import open_dataset
from bench.runner import rank_processes
from bench.runner.executor import Workers
from bench.runner.job_kind import is_shared
from bench.runner.local import _cause
from bench.runner.rank_processes import (
    WorkerGroup,
    _LauncherCalls,
    _log_of,
    _variables_of_ranks,
    find_first_launcher,
    launcher_count,
    run_on_first_launcher,
    unreachable_rank,
)
from bench.store import read_records
from bench.train.checkpointing import read_weights

RECIPE = """
recipe: tiny
source: a test
epochs: 2
batch: 4
optimizer: {name: sgd, lr: 0.05}
dropout: 0.0
"""
FACTORY = """
import os
from torch import nn
from bench.models.factory import create_model

def ill(num_classes: int = 2) -> nn.Module:
    if os.environ.get("RANK") == "1":
        raise ValueError("this rank is ill")
    return create_model("c3d_search", width=0.0625, num_classes=num_classes)
"""


def case(**measures) -> Case:
    point = Point.model_validate({"model": "c3d_search", "clip": "4x1x16"})
    return Case(suite="s", point=point, measures=measures)


@pytest.fixture
def alone(monkeypatch):
    for name in rank_processes.RANK_VARIABLES:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def launched(monkeypatch):
    """As torchrun starts the second of two launchers."""
    for name, value in {
        "RANK": "1",
        "WORLD_SIZE": "2",
        "LOCAL_RANK": "1",
        "MASTER_ADDR": "here",
        "MASTER_PORT": "1",
    }.items():
        monkeypatch.setenv(name, value)


@pytest.mark.usefixtures("alone")
def test_without_ranks_a_case_has_one_worker_and_a_command_runs_here():
    (environment,) = _variables_of_ranks(case(accuracy={}), {})
    assert "RANK" not in environment
    assert launcher_count() == 1
    assert run_on_first_launcher(lambda: 3) == 3


@pytest.mark.usefixtures("alone")
def test_each_rank_has_its_number_and_ranks_share_the_cores(monkeypatch):
    monkeypatch.setattr(rank_processes, "usable_cpus", lambda: 7)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    environments = _variables_of_ranks(case(accuracy={"ranks": 3}), {})
    assert [e["RANK"] for e in environments] == [e["LOCAL_RANK"] for e in environments] == ["0", "1", "2"]
    assert {(e["WORLD_SIZE"], e["MASTER_ADDR"], e["OMP_NUM_THREADS"]) for e in environments} == {
        ("3", "127.0.0.1", "2")
    }
    assert len({e["MASTER_PORT"] for e in environments}) == 1


@pytest.mark.usefixtures("launched")
def test_a_case_without_ranks_has_one_worker_without_rank_variables():
    counted = case(params={}, macs={})
    assert not is_shared(counted)
    (environment,) = _variables_of_ranks(counted, {})
    assert not {"RANK", "WORLD_SIZE", "MASTER_ADDR"} & set(environment)


@pytest.mark.usefixtures("launched")
def test_other_ranks_join_every_call_and_exit_with_the_code_of_the_first(monkeypatch, tmp_path):
    store, answered = HashStore(), []

    def meet(self):
        self.store = store

    class Worker:
        def __init__(self, job, environment, *, log):
            answered.append((job["case"], environment["VBENCH_CALL"], log.name))

        def __enter__(self):
            return self

        def __exit__(self, *error):
            return None

        def messages(self):
            return iter(())

    monkeypatch.setattr(_LauncherCalls, "__post_init__", meet)
    monkeypatch.setattr(rank_processes, "_start_worker", Worker)
    first = _LauncherCalls(is_first=True)
    with ThreadPoolExecutor() as pool:
        following = pool.submit(run_on_first_launcher, lambda: pytest.fail("only the first runs the command"))
        calls = [first.call({"case": name, "log": str(tmp_path / f"{name}.log")}) for name in ("a", "b")]
        first.end(4)
        assert following.result(timeout=20) == 4
    assert answered == [("a", calls[0], "a.rank1.log"), ("b", calls[1], "b.rank1.log")]


@pytest.mark.usefixtures("launched")
def test_a_rank_is_lost_if_its_launcher_neither_answers_nor_sends_heartbeats(monkeypatch):
    for name, value in (("WAIT_S", 0.1), ("BEAT_S", 0.01)):
        monkeypatch.setattr(rank_processes, name, value)
    store = HashStore()
    monkeypatch.setattr(_LauncherCalls, "__post_init__", lambda self: setattr(self, "store", store))
    shared = case(accuracy={"ranks": 2})
    with rank_processes._leading(_LauncherCalls(is_first=True)):
        assert unreachable_rank(case(params={})) is None
        assert unreachable_rank(shared) == 1
        with rank_processes._beating(store, 1):  # as while the worker of this rank runs
            assert unreachable_rank(shared) is None
        with ThreadPoolExecutor() as pool:
            following = pool.submit(run_on_first_launcher, lambda: pytest.fail("only the first runs the command"))
            monkeypatch.setattr(rank_processes, "WAIT_S", 20.0)
            assert unreachable_rank(shared) is None
            assert _LauncherCalls.leading is not None
            _LauncherCalls.leading.end(0)
            assert following.result(timeout=20) == 0


@pytest.mark.usefixtures("launched")
def test_a_launcher_that_does_not_answer_ends_the_job_and_not_the_case(monkeypatch):
    monkeypatch.setattr(rank_processes, "WAIT_S", 0.1)
    monkeypatch.setattr(_LauncherCalls, "__post_init__", lambda self: setattr(self, "store", HashStore()))
    with pytest.raises(TrainingError, match=r"rank 1 of 2 does not answer within 0 s"):
        _LauncherCalls(is_first=True).call({"case": "a"})


@pytest.mark.usefixtures("launched")
def test_the_first_launcher_waits_for_one_that_starts_minutes_later(monkeypatch):
    store = HashStore()
    monkeypatch.setattr(_LauncherCalls, "__post_init__", lambda self: setattr(self, "store", store))
    calls = _LauncherCalls(is_first=True)
    monkeypatch.setattr(rank_processes, "JOIN_S", 0.1)
    with pytest.raises(TrainingError, match="rank 1 of 2 did not start within 0 s"):
        calls.await_others()
    monkeypatch.setattr(rank_processes, "JOIN_S", 20.0)
    with ThreadPoolExecutor() as pool:
        following = pool.submit(run_on_first_launcher, lambda: pytest.fail("only the first runs the command"))
        calls.await_others()
        calls.end(0)
        assert following.result(timeout=20) == 0


def test_launchers_of_several_nodes_find_each_other_by_a_file(tmp_path):
    layout = RankLayout(ranks=4, nodes=2)
    workers = Workers(command=(), count=1, is_exclusive=False, logs=tmp_path, layout=layout)
    code = (
        "import os, bench.runner.rank_processes as r; r.usable_cpus = lambda: 6; r.POLL_S = 0.05;"
        "r.run_on_first_launcher.__globals__['_LauncherCalls'] = lambda **_: exit(print("
        "*(os.environ[n] for n in ('RANK', 'GROUP_RANK', 'LOCAL_RANK', 'WORLD_SIZE', 'LOCAL_WORLD_SIZE',"
        " 'OMP_NUM_THREADS', 'MASTER_ADDR', 'MASTER_PORT'))));"
        "r.run_on_first_launcher(lambda: 1)"
    )

    def launched(rank):
        plain = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
        environment = {**plain, **workers.variables_of_rank(rank, start="job-0")}
        command = [sys.executable, "-c", code]
        return subprocess.check_output(command, env=environment, text=True, timeout=100).split()

    with ThreadPoolExecutor() as pool:
        found = list(pool.map(launched, (3, 2, 1, 0)))
    assert sorted(each[:3] for each in found) == [["0", "0", "0"], ["1", "0", "1"], ["2", "1", "0"], ["3", "1", "1"]]
    [shared] = {tuple(each[3:]) for each in found}
    assert shared[:4] == ("4", "2", "3", reachable_name())
    assert shared[4].isdecimal()


@pytest.mark.usefixtures("launched")
def test_a_first_launcher_that_never_starts_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(rank_processes, "JOIN_S", 0.0)
    with pytest.raises(TrainingError, match=r"rank 0 of 2 did not start within 0 s: there is no .*job\.json"):
        find_first_launcher(tmp_path / "job.json")


@pytest.mark.usefixtures("alone")
def test_one_machine_does_not_pretend_to_be_several():
    with pytest.raises(InputError, match=r"needs 2 nodes with 1 rank each: --executor slurm or ray, or vbench on each"):
        _variables_of_ranks(case(accuracy={"nodes": 2}), {})


@pytest.mark.usefixtures("launched")
def test_other_ranks_exit_with_3_if_the_first_is_gone(monkeypatch, capsys):
    class Gone(HashStore):
        def wait(self, *_):
            raise torch.distributed.DistNetworkError("failed to recv, got 0 bytes")

    monkeypatch.setattr(_LauncherCalls, "__post_init__", lambda self: setattr(self, "store", Gone()))
    assert run_shared_command(["train"]) == 3
    assert "rank 0 of 2 died, or its launcher: the rendezvous store is gone" in capsys.readouterr().err


@pytest.mark.usefixtures("launched")
def test_a_failing_first_rank_passes_its_exit_code_to_the_others(monkeypatch):
    store = HashStore()
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setattr(rank_processes, "LEAVE_S", 0.1)
    monkeypatch.setattr(_LauncherCalls, "__post_init__", lambda self: setattr(self, "store", store))
    assert run_shared_command(["train", "--no-such-option"]) == 2
    assert store.check(["0"])
    assert json.loads(store.get("0")) == {"exit": 2}


def test_incomplete_launcher_variables_are_refused(monkeypatch, capsys, alone):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    assert run_shared_command(["train"]) == 2
    assert "MASTER_ADDR and MASTER_PORT is not set; start vbench with torchrun" in " ".join(
        capsys.readouterr().err.split()
    )
    monkeypatch.setenv("WORLD_SIZE", "two")
    assert run_shared_command(["train"]) == 2


def test_the_first_rank_writes_the_log_that_the_record_names():
    assert _log_of(Path("x.log"), 0) == Path("x.log")
    assert _log_of(Path("x.log"), 2) == Path("x.rank2.log")


@pytest.fixture
def folder(tmp_path, monkeypatch, alone):
    """A working folder with a tiny data set, a recipe, and a model that one rank cannot build."""
    sizes = {"clips_per_class": 4, "val_clips_per_class": 3, "frames": 8, "size": 32, "classes": 2}
    open_dataset("motions", root=tmp_path / "few", split="train", **sizes)
    (tmp_path / "tiny.yaml").write_text(RECIPE)
    (tmp_path / "networks.py").write_text(FACTORY)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return tmp_path


def train(folder, *options, model="c3d_search", launcher=(sys.executable,)):
    """`vbench train` in `folder`; returns how it ended."""
    given = ["--dataset", "motions", "--root", "few", "--recipe", "tiny.yaml", "--clip", "4x1x32"]
    width = [] if ":" in model else ["--arg", "width=0.0625"]
    command = [*launcher, "-m", "bench", "train", model, *given, *width, *options]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=240, check=False)


def torchrun(processes):
    return (sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}")


@pytest.mark.slow
def test_ranks_started_by_vbench_or_torchrun_train_the_same_weights_as_one_process(folder):
    ended = {
        "one": train(folder, "--out", "one"),
        "two": train(folder, "--out", "two", "--ranks", "2"),
        "run": train(folder, "--out", "run", launcher=torchrun(2)),
    }
    assert [process.returncode for process in ended.values()] == [0, 0, 0], ended
    said = {name: process.stdout.replace(name, "").count("train: 1 measured") for name, process in ended.items()}
    assert said == {"one": 1, "two": 1, "run": 1}, "the first rank alone prints"
    weights, top1 = {}, {}
    for name in ended:
        (record,) = read_records(folder / name / "records.jsonl")
        assert record.details["training"]["processes"] == (1 if name == "one" else 2)
        top1[name] = record.metric("accuracy.top1").value
        weights[name] = read_weights(folder / name / record.artifacts["weights"])["state_dict"]
    assert len(set(top1.values())) == 1
    for key, value in weights["one"].items():
        torch.testing.assert_close(weights["two"][key], value, rtol=1e-4, atol=1e-6)
        assert torch.equal(weights["two"][key], weights["run"][key])


@pytest.mark.slow
@pytest.mark.parametrize("launcher", [(sys.executable,), torchrun(2)], ids=["ranks", "torchrun"])
def test_a_rank_that_fails_ends_the_case_with_its_error_and_the_command_with_3(folder, launcher):
    ranks = () if len(launcher) > 1 else ("--ranks", "2")
    started = time.monotonic()
    ended = train(folder, "--out", "out", *ranks, model="networks:ill", launcher=launcher)
    assert time.monotonic() - started < 240, "a rank that is waited for holds the others for 10 minutes or more"
    assert ended.returncode == (1 if len(launcher) > 1 else 3), "torchrun ends with 1 whatever its processes end with"
    (record,) = read_records(folder / "out" / "records.jsonl")
    assert record.status == "error"
    assert "rank 1 of 2 failed" in record.error.message
    assert "this rank is ill" in record.error.message
    logs = folder / "out" / "logs"
    assert "this rank is ill" in (logs / f"{record.case_id}.rank1.log").read_text()
    assert not json.loads((folder / "out" / "suite.json").read_text())["gate"]


def test_the_record_gives_the_last_line_of_a_worker_that_ended_itself(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rank.py").write_text(
        "import sys; from bench.core.process import read_request; sys.exit(read_request())"
    )

    def cause(*messages):
        with ExitStack() as stack:
            group = [
                stack.enter_context(ChildProcess("rank", m, log=tmp_path / f"{n}.log")) for n, m in enumerate(messages)
            ]
            assert list(group[0].messages(timeout_s=30, companions=group[1:])) == []
            for other in group[1:]:
                other.end(within_s=20)
            return _cause(WorkerGroup(first=group[0], others=tuple(group[1:])))

    assert (
        cause("loading\nvbench: rank 1 of 2 died: no heartbeat for 31 s") == "rank 1 of 2 died: no heartbeat for 31 s"
    )
    assert cause(3) == "the process ended with code 3 before it had a result"
    assert cause("broken", 5) == "rank 1 ended with code 5"
