"""What a run's record says of the run itself, whatever its worker does. The worker is simulated."""

from pathlib import Path

import pytest

from bench.execution import local
from bench.execution.local import run_case
from bench.execution.worker import Job, Outcome
from bench.schema import Case, Clip, Point
from bench.store import RecordStore

CASE = Case(suite="s", point=Point(model="c3d", clip=Clip.model_validate("16x1x112")), measures={"params": {}})


def test_all_runs_of_one_process_name_the_same_session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs: list[Job] = []

    def outcome(job: Job, *_: object) -> Outcome:
        jobs.append(job)
        return Outcome(status="ok", details={"parity": 1})

    monkeypatch.setattr(local, "_outcome_of", outcome)
    records = [run_case(CASE, RecordStore(tmp_path), run_index=index, freshness="f") for index in range(2)]
    assert {record.session for record in records} == {job.session for job in jobs} == {local.SESSION}
    assert records[0].details["parity"] == 1
