"""`vbench plan --executor`: the jobs of a suite with hours, GPU hours and energy, as text and as JSON."""

import json
from pathlib import Path

import pytest

from bench.catalog.catalog import Catalog
from bench.cli.app import run_command
from bench.core.schema import Environment, ModelCheck, Record
from bench.runner.running import plan
from bench.store import RecordStore

SUITE = """\
suite: parts
models: [{name: c3d_search, kernel_depth: [1, 3]}]
matrix: {clip: [4x1x16]}
measure: {params: {}, latency: {}, energy: {}}
repeat: 2
require: {gpu: H200, gpus: 2, memory: 64GiB}
"""


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder in which one of two timed cases took 1,800 s at 500 W, and counts took 90 s."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "parts.yaml").write_text(SUITE)
    monkeypatch.setattr(Catalog, "check_models", lambda self, points: [ModelCheck() for _ in points])
    counted, timed, *_ = sorted(plan("parts.yaml").suite.cases, key=lambda case: "params" not in case.measures)[::2]
    assert ("params" in counted.measures, "latency" in timed.measures) == (True, True)
    store = RecordStore(Path("results/parts"))
    for case, seconds in ((counted, 90.0), (timed, 1800.0)):
        energy = {"joules": 5000.0, "seconds": 10.0, "source": "NVML total energy"}
        store.append(
            Record(
                case=case,
                case_id=case.id,
                run_index=0,
                freshness="of another source, so that it runs again",
                started_at="2026-01-01T00:00:00+00:00",
                status="ok",
                environment=Environment(hardware={"gpu": "NVIDIA H200"}),
                details={"energy": energy} if case is timed else {},
                seconds={"whole": seconds},
            )
        )


def test_the_jobs_are_listed_by_request_with_hours_gpu_hours_and_energy(capsys: pytest.CaptureFixture[str]) -> None:
    """Four timed runs of 1,800 s on three jobs: one hour, 2 GPUs for 2 h, 500 W for 2 h. Counts: unknown power."""
    assert run_command(["plan", "parts.yaml", "--executor", "slurm", "--max-jobs", "3", "--time", "30"]) == 0
    text = capsys.readouterr().out
    lines = [" ".join(line.split()) for line in text.partition("on slurm")[2].splitlines()]
    assert lines[2:4] == [
        "not timed 2 2 90 s none unknown",
        "timed, a node each, 2 GPUs (H200), 64GiB of memory 4 3 1:00:00 4 1 kWh (gpu 1)",
    ]
    assert "energy unknown for 2 runs" in text
    assert "times from earlier runs of the case (3), runs of similar cases (3)" in text
    assert "earlier runs on NVIDIA H200" in text
    assert "jobs end after --time 0:30:00, before all runs are done" in text


def test_json_has_null_for_a_sum_with_an_unknown_part(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["plan", "parts.yaml", "--executor", "slurm", "--max-jobs", "3", "--json"]) == 0
    cluster = json.loads(capsys.readouterr().out)["cluster"]
    assert (cluster["wall_h"], cluster["gpu_h"], cluster["energy_kwh"]) == (1.0, 4.0, None)
    assert [each["energy_kwh"] for each in cluster["groups"]] == [None, 1.0]
    assert cluster["groups"][1]["energy_by_part"] == {"gpu": {"kwh": 1.0, "runs": 4}}
    assert cluster["groups"][1]["require"] == {"gpu": "H200", "gpus": 2, "memory": "64GiB"}


def test_options_of_jobs_need_an_executor(capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("plan", "run"):
        assert run_command([command, "parts.yaml", "--gres", "gpu:1"]) == 2
        assert "--gres is for jobs of a cluster; give --executor" in capsys.readouterr().err
