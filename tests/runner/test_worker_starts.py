"""Workers of cases that are not timed are forked; those of timed cases are new interpreters."""

import os
from pathlib import Path

import pytest

from bench.core.fork_server import ForkServer
from bench.core.process import ChildProcess
from bench.core.schema import Case, Clip, Point
from bench.runner.local import WorkerStarts, is_forkable, run_case
from bench.store import RecordStore

needs_forks = pytest.mark.skipif(not ForkServer.is_available(), reason="needs pidfds, which Linux has")


def case_of(*measures: str, model: str = "c3d_search") -> Case:
    point = Point(model=model, args={"width": 0.05, "num_classes": 4}, clip=Clip.model_validate("4x1x16"))
    return Case(suite="s", point=point, measures={name: {} for name in measures})


@pytest.mark.parametrize("measures", [("params",), ("params", "macs"), ("accuracy",)])
def test_cases_whose_measures_are_not_repeated_are_forked(measures: tuple[str, ...]) -> None:
    assert is_forkable(case_of(*measures))


@pytest.mark.parametrize("measures", [("latency",), ("macs", "throughput"), ("memory",), ("energy",), ("unknown",)])
def test_timed_and_sampled_measures_get_a_new_interpreter(measures: tuple[str, ...]) -> None:
    assert not is_forkable(case_of(*measures))


@pytest.mark.slow
@needs_forks
def test_forked_cases_have_the_records_of_new_interpreters(tmp_path: Path) -> None:
    store = RecordStore(tmp_path)
    with WorkerStarts() as starts:
        forked = [
            run_case(case_of("params", "macs"), store, run_index=index, freshness="", starts=starts)
            for index in range(2)
        ]
    fresh = run_case(case_of("params", "macs"), store, run_index=2, freshness="")
    for record in forked:
        assert record.status == "ok", record.error
        assert (record.metrics, record.warnings) == (fresh.metrics, fresh.warnings)
        assert record.environment.software == fresh.environment.software
        assert record.environment.hardware == fresh.environment.hardware
        assert record.environment.state.keys() == fresh.environment.state.keys()
        assert set(record.details) == set(fresh.details)


CHECK = """
import os
def main():
    import torch
    from bench.core.process import ReplyPipe
    ReplyPipe().send(threads=len(os.listdir("/proc/self/task")), bad=torch._C._cuda_isInBadFork(),
                     initialized=torch.cuda.is_initialized(), alone=os.listdir("/proc/%d/task" % os.getppid()))
"""


@pytest.mark.slow
@needs_forks
def test_the_process_that_workers_are_forked_from_has_one_thread_and_used_no_device(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "check_fork.py").write_text(CHECK)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    server = ForkServer("bench.runner.worker:preload")
    for _ in range(2):
        with ChildProcess("check_fork:main", {}, start=server.start) as child:
            found = next(child.messages(timeout_s=120))
        assert (found["threads"], found["bad"], found["initialized"]) == (1, False, False)
        assert len(found["alone"]) == 1
    server.close()


@pytest.mark.slow
@needs_forks
def test_a_case_that_kills_the_fork_server_costs_itself_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "killing.py").write_text(
        "import os\nfrom torch import nn\n"
        "def make(num_classes: int = 4, width: float = 1):\n    os.kill(os.getppid(), 9)\n    return nn.Flatten()\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    store = RecordStore(tmp_path)
    with WorkerStarts() as starts:
        killed = run_case(case_of("params", model="killing:make"), store, run_index=0, freshness="", starts=starts)
        sound = run_case(case_of("params"), store, run_index=0, freshness="", starts=starts)
    assert killed.status == "error"
    assert "SIGKILL" in str(killed.error)
    assert sound.status == "ok"


@pytest.mark.slow
def test_a_timed_case_runs_in_the_interpreter_that_was_started_ahead(tmp_path: Path) -> None:
    store = RecordStore(tmp_path)
    case = case_of("latency").model_copy(update={"measures": {"latency": {"max_s": 0.05}}})
    with WorkerStarts() as starts:
        starts.prepare(2)
        starts.wait_until_prepared()
        first, second = starts._waiting
        second._process.kill()
        second._process.wait()
        ahead = run_case(case, store, run_index=0, freshness="", starts=starts)
        assert first._process.returncode == 0
        new = run_case(case, store, run_index=1, freshness="", starts=starts)
        assert starts._waiting == []
        starts.prepare(1)
        [unused] = starts._waiting
    assert unused._process.returncode is not None
    for record in (ahead, new):
        assert record.status in ("ok", "unsteady", "drifting"), record.error
    assert ahead.environment.software == new.environment.software
    assert ahead.environment.state.keys() == new.environment.state.keys()
    assert set(ahead.details) == set(new.details)
    assert [metric.name for metric in ahead.metrics] == [metric.name for metric in new.metrics]
