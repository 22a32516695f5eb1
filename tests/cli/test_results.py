"""The commands `vbench results …` on small results folders."""

import csv
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from bench.cli.app import run_command
from bench.core.schema import Case, Environment, Failure, Metric, Point, Record
from bench.store import RecordStore, StoreWarning, read_records
from bench.store.leases import Leases
from bench.train.predictions import Predictions, read_predictions, store_predictions


def record(run: int = 0, *, batch: int = 1, error: str = "", **rest: Any) -> Record:
    point = Point(model="c3d", clip="16x1x112", batch=batch)  # type: ignore[arg-type]
    case = Case(suite="s", point=point, measures={"latency": {}})
    metric = Metric(name="latency.p50_ms", value=2.5 + run, unit="ms", better="lower", interval=(2.0, 3.5))
    top1 = Metric(name="accuracy.top1", value=61.5, unit="%", better="higher")
    given = {
        "freshness": "f",
        "status": "error" if error else "ok",
        "metrics": () if error else (metric, top1),
        "error": Failure(type="RuntimeError", message=error) if error else None,
        "started_at": f"2026-01-01T00:00:0{run}+00:00",
    }
    return Record(case=case, case_id=case.id, run_index=run, **{**given, **rest})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    store = RecordStore(tmp_path / "res")
    for item in (record(0), record(1, error="boom"), record(1), record(0, batch=2)):
        store.append(item)
    return tmp_path / "res"


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    assert run_command(["results", *map(str, arguments)]) == 0, capsys.readouterr().err
    return capsys.readouterr().out


def test_list_names_every_run_and_its_metrics_or_error(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shown = run(capsys, "list", folder)
    assert shown.count(record().case_id) == 3
    assert "RuntimeError: boom" in shown
    assert "latency.p50_ms 3.5 ms" in shown
    found = json.loads(run(capsys, "list", folder, "--json"))
    assert [(item["run_index"], item["status"]) for item in found] == [(0, "ok"), (1, "error"), (1, "ok"), (0, "ok")]


def test_show_takes_the_first_digits_of_one_case(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    case_id = record(batch=2).case_id
    [found] = json.loads(run(capsys, "show", folder, "--case", case_id[:6]))
    assert Record.model_validate(found) == record(0, batch=2)
    assert run_command(["results", "show", str(folder), "--run", "0"]) == 2
    assert run_command(["results", "show", str(folder), "--case", case_id, "--run", "9"]) == 2


def test_export_to_csv_has_a_row_for_each_metric_and_failure(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = list(csv.DictReader(io.StringIO(run(capsys, "export", folder))))
    assert [(r["run"], r["status"], r["metric"], r["value"]) for r in rows[:3]] == [
        ("0", "ok", "latency.p50_ms", "2.5"),
        ("0", "ok", "accuracy.top1", "61.5"),
        ("1", "error", "", ""),
    ]
    assert len(rows) == 7


def test_a_cell_that_a_spreadsheet_would_run_is_quoted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    case = record().case.model_copy(update={"suite": "=cmd()"})
    RecordStore(tmp_path).append(record().model_copy(update={"case": case}))
    assert "'=cmd()" in run(capsys, "export", tmp_path)


def test_other_formats_hold_the_same_values(folder: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    run(capsys, "export", folder, "--to", "parquet", "--out", tmp_path / "x.parquet")
    assert sorted(pd.read_parquet(tmp_path / "x.parquet")["value"].dropna()) == [2.5, 2.5, 3.5, 61.5, 61.5, 61.5]
    lines = run(capsys, "export", folder, "--to", "jsonl").splitlines()
    assert [Record.model_validate_json(line) for line in lines] == read_records(folder)
    bencher = json.loads(run(capsys, "export", folder, "--to", "bencher"))
    assert bencher[record().case.title]["latency.p50_ms"] == {"value": 3.0, "lower_value": 2.5, "upper_value": 3.5}, (
        "the median of two runs, and both of them"
    )
    entries = json.loads(run(capsys, "export", folder, "--to", "github-action-benchmark"))
    assert {(e["unit"], e["extra"]) for e in entries} == {("ms", "lower is better"), ("%", "higher is better")}
    index = json.loads(run(capsys, "export", folder, "--to", "hf-eval-results"))["model-index"]
    assert index[0]["results"][0]["metrics"] == [{"name": "accuracy.top1", "type": "accuracy", "value": 61.5}]
    assert "| latency.p50_ms | 2.5 |" in run(capsys, "export", folder, "--to", "markdown")
    assert r"latency.p50\_ms & 2.5 &" in run(capsys, "export", folder, "--to", "latex")
    assert run_command(["results", "export", str(folder), "--to", "parquet"]) == 2


def test_merge_takes_each_run_once(folder: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    RecordStore(tmp_path / "more").append(record(5))
    for expected in ("5 records added", "0 records added"):
        assert expected in run(capsys, "merge", folder, tmp_path / "more", folder, "--out", tmp_path / "all")
    assert len(read_records(tmp_path / "all")) == 5


def test_prune_keeps_one_record_of_each_run(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "1 record would be removed, 3 stay" in run(capsys, "prune", folder, "--dry-run")
    assert len(read_records(folder)) == 4
    run(capsys, "prune", folder)
    assert read_records(folder) == [record(0), record(1), record(0, batch=2)]


def test_prune_keeps_the_first_of_two_good_records_and_the_last_failure(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    again = record(0, started_at="2027-01-01T00:00:00+00:00")
    for item in (record(0), again, record(2, error="first"), record(2, error="second"), record(0, freshness="g")):
        RecordStore(tmp_path).append(item)
    run(capsys, "prune", tmp_path)
    assert read_records(tmp_path) == [record(0), record(2, error="second"), record(0, freshness="g")]


def test_repair_moves_damaged_lines_aside(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "nothing is damaged" in run(capsys, "repair", folder)
    content = (folder / "records.jsonl").read_bytes().splitlines(keepends=True)
    (folder / "records.jsonl").write_bytes(b"".join([content[0], b"{broken\n", *content[1:]]))
    assert "1 damaged line was moved to records.damaged; 4 records stay" in run(capsys, "repair", folder)
    assert len(read_records(folder)) == 4


def test_scrub_cleans_the_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state: dict[str, Any] = {"env.NVIDIA_API_KEY": "nvapi-7", "env.OMP_NUM_THREADS": "2"}
    secret = record(environment=Environment(state=state), details={"path": "/home/ada/x"})
    RecordStore(tmp_path).append(secret)
    assert "1 record would be cleaned" in run(capsys, "scrub", tmp_path, "--dry-run")
    assert "nvapi-7" in (tmp_path / "records.jsonl").read_text()
    assert "1 record cleaned" in run(capsys, "scrub", tmp_path)
    content = (tmp_path / "records.jsonl").read_text()
    assert "nvapi-7" not in content
    assert "/home/ada" not in content
    [found] = read_records(tmp_path)
    assert found.environment.state == {"env.OMP_NUM_THREADS": "2"}
    assert found.details == {"path": "~/x"}


def test_scrub_cleans_logs_damaged_lines_texts_and_predictions(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    RecordStore(tmp_path).append(record())
    secret = "HF_TOKEN=hf_secret in /home/ada/x\n"
    texts = ("logs/a.log", "logs/a.rank1.log", "leases/a-0.json", "artifacts/a/curve.csv", "records.damaged")
    texts += ("logs/slurm/1/7_0_log.out", "submissions/1.json")
    for name in (*texts, "artifacts/a/state.pth"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(secret)
    stored = Predictions(
        videos=("/home/ada/v",),
        labels=np.array([0]),
        scores=np.array([[0.5, 0.25]], dtype=np.float32),
        classes=("a", "b"),
        protocol={"weights": "/home/ada/w.pth", "views": "1x1"},
        model="c3d",
    )
    file = store_predictions(tmp_path / "artifacts/a/predictions.parquet", stored)
    assert "8 other files would be cleaned" in run(capsys, "scrub", tmp_path, "--dry-run")
    assert (tmp_path / "logs/a.log").read_text() == secret
    assert "8 other files cleaned" in run(capsys, "scrub", tmp_path)
    assert {(tmp_path / name).read_text() for name in texts} == {"HF_TOKEN=*** in ~/x\n"}
    found = read_predictions(file)
    assert found.protocol == {"weights": "~/w.pth", "views": "1x1"}
    assert found.scores.tolist() == [[0.5, 0.25]]
    assert "0 records cleaned" in run(capsys, "scrub", tmp_path)


def test_a_folder_with_records_of_a_newer_version_is_not_rewritten(tmp_path: Path) -> None:
    store = RecordStore(tmp_path)
    for item in (record(1, error="boom"), record(1)):
        store.append(item)
    with store.file.open("a") as file:
        file.write('{"schema_version": 99}\n')
    before = store.file.read_bytes()
    with pytest.warns(StoreWarning, match="version 99"):
        assert run_command(["results", "prune", str(tmp_path)]) == 2
    assert store.file.read_bytes() == before


@pytest.mark.parametrize("command", ["prune", "repair", "scrub"])
def test_a_file_of_another_name_is_not_changed(tmp_path: Path, command: str) -> None:
    (tmp_path / "other.jsonl").write_text(record().model_dump_json() + "\n")
    assert run_command(["results", command, str(tmp_path / "other.jsonl")]) == 2


@pytest.fixture
def cluster(tmp_path: Path) -> Path:
    """A results folder that two workers of a cluster wrote, without a file of local runs; one run was made twice."""
    first, second = (RecordStore(tmp_path, worker=name) for name in ("slurm-1", "slurm-2"))
    later = "2027-01-01T00:00:00+00:00"
    first.append(record(0, error="boom"))
    first.append(record(1))
    second.append(record(0, started_at=later))
    return tmp_path


def test_prune_looks_at_the_records_of_all_workers(cluster: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "slurm-1.jsonl: 1 record removed, 1 stay" in run(capsys, "prune", cluster)
    assert [(each.run_index, each.status) for each in read_records(cluster)] == [(1, "ok"), (0, "ok")]


def test_the_files_of_workers_are_scrubbed_and_repaired(cluster: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = cluster / "records.slurm-1.jsonl"
    RecordStore.of(file).append(record(2, environment=Environment(state={"env.NVIDIA_API_KEY": "nvapi-7"})))
    with file.open("a") as lines:
        lines.write("{broken\n")
    (cluster / "discarded.jsonl").write_text("HF_TOKEN=hf_secret in /home/ada/x\n")
    assert "1 damaged line was moved" in run(capsys, "repair", cluster)
    out = run(capsys, "scrub", cluster)
    assert "1 record cleaned" in out
    assert "1 other file cleaned" in out
    assert "nvapi-7" not in file.read_text()
    assert (cluster / "discarded.jsonl").read_text() == "HF_TOKEN=*** in ~/x\n"


@pytest.mark.parametrize("command", ["prune", "repair", "scrub"])
def test_records_are_not_changed_while_a_worker_appends(
    cluster: Path, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    lease = Leases(cluster, worker="slurm-1").take("a", 0)
    assert lease is not None
    before = (cluster / "records.slurm-1.jsonl").read_bytes()
    assert run_command(["results", command, str(cluster)]) == 2
    assert "is in use by worker slurm-1" in capsys.readouterr().err
    assert (cluster / "records.slurm-1.jsonl").read_bytes() == before


@pytest.mark.parametrize("form", ["markdown", "latex"])
def test_a_table_for_a_document_holds_no_control_characters(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], form: str
) -> None:
    case = record().case.model_copy(update={"suite": "a\x1b[2J\u202eb"})
    RecordStore(tmp_path).append(record().model_copy(update={"case": case}))
    shown = run(capsys, "export", tmp_path, "--to", form)
    assert "x1b[2J" in shown
    assert not {"\x1b", "\u202e"} & set(shown)
