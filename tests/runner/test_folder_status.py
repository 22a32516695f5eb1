"""Which staged trees of a results folder jobs still run from, and which are removed."""

import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from bench.runner import folder_status
from bench.runner.executor import JobPhase, JobState, Submission
from bench.runner.folder_status import remove_unused_trees
from bench.store import RecordStore
from bench.store.stored_records import record_files

PHASES: dict[str, JobPhase] = {"1": "done", "2": "running", "3": "cancelled", "4": "waiting"}


class Cluster:
    """Stands in for an executor; knows the jobs of `PHASES`."""

    @classmethod
    def states(cls, jobs: Sequence[str]) -> list[JobState]:
        return [JobState(job=job, phase=PHASES[job]) for job in jobs]


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A results folder with staged trees: an old unused one, two with jobs, a new one, and one in another folder."""
    monkeypatch.setattr(folder_status, "executor_class", lambda name: Cluster)
    folder = tmp_path / "results"
    for number, (name, jobs) in enumerate({"old": ("1", "3"), "busy": ("1", "2"), "waits": ("4",)}.items()):
        submit(folder, folder / ".staged" / name, jobs, number)
    submit(folder, tmp_path / "elsewhere/stage", ("3",), 7)
    (folder / ".staged/new").mkdir()
    (folder / ".staged/.copying").mkdir()
    (folder / ".staged/busy/records.jsonl").write_text("{}\n")
    RecordStore(folder).write_suite({"name": "s", "planned": {}})
    return folder


def submit(folder: Path, stage: Path, jobs: tuple[str, ...], number: int) -> None:
    stage.mkdir(parents=True)
    os.utime(stage, (1e9, 1e9))
    Submission(
        name=str(number), executor="x", options={}, is_exclusive=False, submitted_at="", marks={}, jobs=jobs,
        stage=str(stage),
    ).write(folder)  # fmt: skip


def test_the_status_names_the_jobs_that_run_from_each_staged_tree(results: Path) -> None:
    found = {stage.folder.name: stage.jobs for stage in folder_status.folder_status(results).staged_trees}
    assert found == {"busy": ("2",), "new": (), "old": (), "waits": ("4",), "stage": ()}


def test_only_old_staged_trees_of_the_folder_that_no_job_runs_from_are_removed(results: Path) -> None:
    assert [stage.name for stage in remove_unused_trees(results)] == ["old"]
    assert {stage.name for stage in (results / ".staged").iterdir()} == {"busy", "waits", "new", ".copying"}
    assert (results.parent / "elsewhere/stage").is_dir()


def test_a_staged_tree_stays_if_the_cluster_cannot_be_asked(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def states(jobs: Sequence[str]) -> list[JobState]:
        raise folder_status.InputError("squeue is not on this machine")

    monkeypatch.setattr(Cluster, "states", states)
    assert remove_unused_trees(results) == []


def test_records_in_a_staged_tree_are_no_results(results: Path) -> None:
    (results / "records.jsonl").write_text("{}\n")
    assert record_files(results.parent) == [results / "records.jsonl"]
