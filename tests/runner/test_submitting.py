"""Which workers a plan's pending runs are given; real clusters are in `executors/`."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from bench.core.errors import InputError
from bench.core.schema import Case, Clip, Json, Point
from bench.runner import submitting
from bench.runner.executor import Executor, JobState, Workers, read_submissions
from bench.runner.running import Plan
from bench.runner.staging import StagedTree
from bench.runner.submitting import dispatch
from bench.store import RecordStore
from bench.suite import Suite
from bench.suite.requirement import Requirement

CLIP = Clip.model_validate("4x1x16")


class Recorder(Executor):
    """An executor that keeps what it was asked to start."""

    name = "recorder"
    spans_nodes = True
    asked: list[Workers]

    def submit(self, workers: Workers) -> list[str]:
        type(self).asked.append(workers)
        return [f"job{len(self.asked)}"]

    @classmethod
    def states(cls, jobs: Sequence[str]) -> list[JobState]:
        return []

    @classmethod
    def cancel(cls, jobs: Sequence[str]) -> None:
        pass


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Workers]:
    Recorder.asked = []
    monkeypatch.setattr(submitting, "executor_class", lambda name: Recorder)
    return Recorder.asked


def case(number: int, *, device: str | None = None, **measures: dict[str, Json]) -> Case:
    return Case(suite="s", point=Point(model="c3d", clip=CLIP, batch=number, device=device), measures=measures)


def planned(folder: Path, *cases: Case, require: Requirement | None = None) -> Plan:
    suite = Suite(
        name="s", title="s", description="", path=folder / "s.yaml", text="", cases=cases, ablate=None, gate={},
        require=require,
    )  # fmt: skip
    return Plan(suite=suite, store=RecordStore(folder / "results"), freshness={}, done=frozenset())


def submit(plan: Plan) -> tuple[str, ...]:
    return dispatch(plan, "recorder", command=["vbench", "run"], options={}, most_jobs=4).jobs


def test_each_kind_of_case_has_workers_of_its_own(tmp_path: Path, asked: list[Workers]) -> None:
    spread = {"ranks": 8, "nodes": 2}
    plan = planned(
        tmp_path,
        *(case(number, params={}) for number in range(1, 7)),
        case(1, latency={}),
        case(1, accuracy={"ranks": 8}),
        case(1, accuracy=spread),
        case(2, accuracy=spread),
    )
    assert submit(plan) == ("job1", "job2", "job3", "job4")
    found = [(w.command[-1], w.count, w.layout.ranks, w.layout.nodes, w.is_exclusive) for w in asked]
    assert found == [
        ("untimed", 4, 1, 1, False),
        ("untimed,ranks=8,nodes=1", 1, 8, 1, False),
        ("untimed,ranks=8,nodes=2", 2, 8, 2, False),
        ("timed", 1, 1, 1, True),
    ]
    assert len({workers.logs for workers in asked}) == 1
    assert [submission.jobs for submission in read_submissions(plan.store.folder)] != []


@pytest.mark.parametrize(
    ("require", "device", "options", "gpus"),
    [
        (None, None, {"ranks": 8}, 0),
        (None, "cuda", {"ranks": 8}, 8),
        (None, "cuda", {"ranks": 8, "nodes": 4}, 2),
        (None, "cpu", {"ranks": 8}, 0),
        (Requirement(gpu="H200"), None, {"ranks": 8, "nodes": 2}, 4),
        (Requirement(gpus=8), None, {"ranks": 8, "nodes": 2}, 8),
        (Requirement(gpu="H200"), None, {}, 1),
    ],
)
def test_a_node_has_a_gpu_for_each_of_its_ranks(
    tmp_path: Path,
    asked: list[Workers],
    require: Requirement | None,
    device: str | None,
    options: dict[str, Json],
    gpus: int,
) -> None:
    submit(planned(tmp_path, case(1, device=device, accuracy=options), require=require))
    assert [workers.gpus for workers in asked] == [gpus]


def test_counts_need_nothing_of_what_the_suite_requires(tmp_path: Path, asked: list[Workers]) -> None:
    required = Requirement(gpus=1, memory="2GiB")
    submit(planned(tmp_path, case(1, params={}), case(1, accuracy={}), require=required))
    submit(planned(tmp_path / "other", case(1, params={}), require=required))
    assert [(workers.gpus, workers.memory_bytes) for workers in asked] == [(1, 2 << 30), (0, None)]


def test_workers_of_a_stage_run_in_its_copy_of_the_working_folder(
    tmp_path: Path, asked: list[Workers], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tree/part").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "tree/part")
    monkeypatch.setenv("VBENCH_DATA", "/data")
    stage = StagedTree(root=tmp_path / "tree", folder=tmp_path / "copy", files=1, size_bytes=1, is_new=True)
    plan = planned(tmp_path, case(1, params={}))
    dispatch(plan, "recorder", command=["vbench"], options={}, most_jobs=1, stage=stage)
    submit(plan)
    assert [workers.folder for workers in asked] == [tmp_path / "copy/part", tmp_path / "tree/part"]
    assert {workers.variables["VBENCH_DATA"] for workers in asked} == {"/data"}
    assert {each.stage for each in read_submissions(plan.store.folder)} == {"", str(tmp_path / "copy")}


def test_an_executor_of_single_machines_refuses_cases_over_several(
    tmp_path: Path, asked: list[Workers], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Recorder, "spans_nodes", False)
    with pytest.raises(InputError, match="--executor recorder cannot run cases over 2 nodes"):
        submit(planned(tmp_path, case(1, params={}), case(1, accuracy={"nodes": 2})))
    assert not asked
    assert read_submissions(tmp_path / "results") == []
