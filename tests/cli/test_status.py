"""`vbench status`: the jobs of a results folder as text."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from bench.cli.app import run_command
from bench.runner import folder_status
from bench.runner.executor import Executor, JobState, Submission, Workers
from bench.store import RecordStore


class Cluster(Executor):
    """A thousand jobs: the first two run, one has failed, and the rest waits."""

    name = "many"

    def submit(self, workers: Workers) -> list[str]:
        raise AssertionError("the status starts nothing")

    @classmethod
    def states(cls, jobs: Sequence[str]) -> list[JobState]:
        running = [JobState(job=job, phase="running", node=f"n{number}") for number, job in enumerate(jobs[:2])]
        failed = JobState(job=jobs[2], phase="failed", node="n2", reason="exit code 2")
        return [*running, failed, *(JobState(job=job, phase="waiting", reason="Resources") for job in jobs[3:])]

    @classmethod
    def cancel(cls, jobs: Sequence[str]) -> None:
        raise AssertionError("the status cancels nothing")


def test_a_thousand_jobs_are_a_few_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(folder_status, "executor_class", lambda name: Cluster)
    RecordStore(tmp_path).write_suite({"name": "s", "planned": {"a": 2000}})
    submission = Submission.now("many", options={}, is_exclusive=False, marks={})
    submission.with_jobs([f"7_{task}" for task in range(1000)]).write(tmp_path)
    assert run_command(["status", str(tmp_path)]) == 0
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert "7_0 running n0" in lines
    assert "7_2 failed n2 exit code 2" in lines
    assert "7_3, 7_4, 7_5 and 994 more waiting Resources" in lines
    assert lines[-1] == "2000 runs to do"
    assert len(lines) < 12
