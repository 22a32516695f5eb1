"""The facts of the run itself in its record, with a simulated worker."""

from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest

from bench.core.process import ChildTimeoutError
from bench.core.schema import Case, Clip, Point, Status
from bench.runner import local
from bench.runner.local import LostRankError, run_case
from bench.runner.worker import WorkerRequest, WorkerResult
from bench.store import RecordStore

CASE = Case(suite="s", point=Point(model="c3d", clip=Clip.model_validate("16x1x112")), measures={"params": {}})


def test_all_runs_of_one_process_name_the_same_session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    requests: list[WorkerRequest] = []

    def result(request: WorkerRequest, *_: object, **__: object) -> tuple[WorkerResult, None]:
        requests.append(request)
        return WorkerResult(status="ok", details={"parity": 1}), None

    monkeypatch.setattr(local, "_run_worker", result)
    records = [run_case(CASE, RecordStore(tmp_path), run_index=index, freshness="f") for index in range(2)]
    assert {record.session for record in records} == {request.session for request in requests} == {local.SESSION}
    assert records[0].details["parity"] == 1


def test_a_worker_without_a_result_at_its_time_limit_is_a_timeout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[float] = []

    class Slow:
        def messages(self, *, timeout_s: float, companions: object) -> Iterator[dict[str, object]]:
            asked.append(timeout_s)
            raise ChildTimeoutError

        def kill(self) -> None:
            """Nothing to do."""

        def last_output(self) -> str:
            return ""

    monkeypatch.setattr(
        local, "worker_processes", lambda *_, **__: nullcontext(SimpleNamespace(first=Slow(), others=()))
    )
    record = run_case(CASE.model_copy(update={"timeout_s": 60.0}), RecordStore(tmp_path), run_index=0, freshness="f")
    assert asked == [60.0]
    assert record.error is not None
    assert record.error.message.startswith("not done after 60 s")


@pytest.mark.parametrize("status", ["error", "ok", "timeout"])
def test_a_case_that_failed_with_the_machine_of_a_rank_is_interrupted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: Status
) -> None:
    result = WorkerResult(status=status)
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setattr(local, "_run_worker", lambda *_, **__: (result, None))
    monkeypatch.setattr(local, "unreachable_rank", lambda case: 3)
    if status != "error":
        assert run_case(CASE, RecordStore(tmp_path), run_index=0, freshness="f").status == status
        return
    with pytest.raises(LostRankError, match="rank 3 of 4 does not answer: its machine may be lost") as raised:
        run_case(CASE, RecordStore(tmp_path), run_index=0, freshness="f")
    assert raised.value.record.status == "interrupted"
