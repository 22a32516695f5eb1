"""Which workers a plan's pending runs are given; real clusters are in `executors/`."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from bench.core.errors import InputError
from bench.core.schema import Case, Clip, Json, Point
from bench.runner import submitting
from bench.runner.executor import Executor, JobState, Workers, read_submissions
from bench.runner.running import Event, Plan
from bench.runner.staging import StagedTree
from bench.runner.submitting import dispatch, follow
from bench.store import RecordStore
from bench.store.leases import Leases
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
    assert len({workers.logs for workers in asked}) == len(asked)
    assert {workers.logs.parent for workers in asked} == {plan.store.folder.absolute() / "logs/recorder"}
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


@pytest.mark.parametrize(("device", "ranks", "is_refused"), [(None, 4, True), (None, 2, False), ("cpu", 4, False)])
def test_fewer_gpus_than_ranks_on_a_node_are_refused(
    tmp_path: Path,
    asked: list[Workers],
    monkeypatch: pytest.MonkeyPatch,
    device: str | None,
    ranks: int,
    is_refused: bool,
) -> None:
    monkeypatch.setattr(Recorder, "gpus_of_a_node", lambda self, required: 2)
    plan = planned(tmp_path, case(1, device=device, accuracy={"ranks": 2 * ranks, "nodes": 2}))
    if not is_refused:
        submit(plan)
        assert len(asked) == 1
        return
    with pytest.raises(InputError, match="4 ranks on a node need as many GPUs there, and a job has 2; request them"):
        submit(plan)
    assert not asked


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


def test_a_refusal_names_the_jobs_that_were_submitted_before_it(
    tmp_path: Path, asked: list[Workers], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = Recorder.submit

    def submit_untimed(self: Recorder, workers: Workers) -> list[str]:
        if workers.is_exclusive:
            raise InputError("no node may be exclusive")
        return first(self, workers)

    monkeypatch.setattr(Recorder, "submit", submit_untimed)
    with pytest.raises(InputError, match="no node may be exclusive; submitted before: job1, which run the other cases"):
        submit(planned(tmp_path, case(1, params={}), case(1, latency={})))
    assert [submission.jobs for submission in read_submissions(tmp_path / "results")] == [("job1",)]


def test_a_refused_submission_leaves_no_file_of_its_own(
    tmp_path: Path, asked: list[Workers], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The scripts of the submission before it stay, and those that an executor wrote before the refusal go."""

    def submit_untimed(self: Recorder, workers: Workers) -> list[str]:
        workers.logs.mkdir(parents=True)
        (workers.logs / "script.sh").touch()
        if workers.is_exclusive:
            raise InputError("no node may be exclusive")
        asked.append(workers)
        return ["job1"]

    monkeypatch.setattr(Recorder, "submit", submit_untimed)
    with pytest.raises(InputError, match="no node may be exclusive"):
        submit(planned(tmp_path, case(1, params={}), case(1, latency={})))
    [kept] = read_submissions(tmp_path / "results")
    assert [file.parent.name for file in (tmp_path / "results/logs").rglob("*.sh")] == [kept.name]
    assert [folder.name for folder in (tmp_path / "results/logs/recorder").iterdir()] == [kept.name]


DOWN = InputError("scontrol does not answer: connection refused")


@pytest.fixture
def states(monkeypatch: pytest.MonkeyPatch) -> list[JobState | InputError]:
    """What the cluster answers when it is asked for the states of jobs; the last answer is repeated."""
    answers: list[JobState | InputError] = []

    def given() -> Iterator[JobState | InputError]:
        yield from answers
        while True:
            yield answers[-1]

    source = given()

    def states(jobs: Sequence[str]) -> list[JobState]:
        answer = next(source)
        if isinstance(answer, InputError):
            raise answer
        return [answer]

    monkeypatch.setattr(Recorder, "states", states)
    for name in ("ASK_S", "POLL_S", "GRACE_S"):
        monkeypatch.setattr(submitting, name, 0.0)
    return answers


@pytest.mark.usefixtures("asked")
def test_watching_goes_on_while_the_controller_of_the_cluster_is_down(
    tmp_path: Path, states: list[JobState | InputError]
) -> None:
    states += [
        JobState(job="job1", phase="running"),
        DOWN,
        DOWN,
        JobState(job="job1", phase="failed", reason="exit code 2"),
    ]
    sent = dispatch(planned(tmp_path, case(1, params={})), "recorder", command=["vbench"], options={}, most_jobs=1)
    events: list[Event] = []
    summary = follow(sent, on_event=events.append)
    unknown = f"the states of the jobs are unknown: {DOWN}"
    assert [event.text for event in events if event.kind == "note"] == [unknown]
    assert summary.notes == (
        "1 run without a result; jobs: job1 failed exit code 2; the same command goes on",
        unknown,
    )


@pytest.mark.usefixtures("asked")
def test_watching_says_why_all_jobs_wait_whenever_that_changes(
    tmp_path: Path, states: list[JobState | InputError]
) -> None:
    reasons = ("", "Priority", "Priority", "Resources")
    states += [JobState(job="job1", phase="waiting", reason=reason) for reason in reasons]
    states += [JobState(job="job1", phase="running"), JobState(job="job1", phase="ended")]
    sent = dispatch(planned(tmp_path, case(1, params={})), "recorder", command=["vbench"], options={}, most_jobs=1)
    events: list[Event] = []
    follow(sent, on_event=events.append)
    told = [event.text for event in events if event.kind == "waiting"]
    assert told == ["all jobs wait: Priority", "all jobs wait: Resources"]


@pytest.mark.usefixtures("asked")
def test_watching_goes_on_while_a_worker_of_another_submission_holds_a_run(
    tmp_path: Path, states: list[JobState | InputError], monkeypatch: pytest.MonkeyPatch
) -> None:
    states.append(JobState(job="job1", phase="done"))
    plan = planned(tmp_path, case(1, params={}))
    sent = dispatch(plan, "recorder", command=["vbench"], options={}, most_jobs=1)
    lease = Leases(plan.store.folder, worker="other").take(plan.pending[0][0].id, 0)
    assert lease is not None
    asked: list[float] = []

    def sleep(seconds: float) -> None:
        asked.append(seconds)
        if len(asked) == 5:
            lease.release()

    monkeypatch.setattr("bench.runner.submitting.time.sleep", sleep)
    follow(sent)
    assert 5 <= len(asked) <= 7


@pytest.mark.usefixtures("asked")
def test_a_cluster_that_does_not_answer_for_long_ends_the_watching(
    tmp_path: Path, states: list[JobState | InputError], monkeypatch: pytest.MonkeyPatch
) -> None:
    states += [JobState(job="job1", phase="running"), DOWN]
    monkeypatch.setattr(submitting, "PATIENCE_S", 0.0)
    sent = dispatch(planned(tmp_path, case(1, params={})), "recorder", command=["vbench"], options={}, most_jobs=1)
    with pytest.raises(InputError, match="connection refused"):
        follow(sent)
