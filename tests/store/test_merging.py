"""Merging results folders: records and the files that they name."""

import os
from pathlib import Path
from typing import Any

import pytest

from bench.cli.app import run_command
from bench.core.errors import StoreError
from bench.core.schema import Case, Point, Record
from bench.store import RecordStore, merging, read_records
from bench.store.merging import merge_results


def shard(folder: Path, run: int, *, log: str = "log", **rest: Any) -> Record:
    """A results folder with one record, its log, its predictions, a training and a suite."""
    case = Case(
        suite="s",
        point=Point(model="c3d", clip="16x1x112"),  # type: ignore[arg-type]
        measures={"accuracy": {}},
    )
    files = {
        f"logs/{case.id}.log": log,
        f"artifacts/{case.id}/predictions.parquet": f"predictions of run {run}",
        "artifacts/training_1234/last.pt": "weights",
        "artifacts/training_1234/state.pt": "state",
        "artifacts/training_1234/.lock": "1",
        "suite.json": "{}",
    }
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)
    names = [*files][:3]
    record = Record(
        case=case,
        case_id=case.id,
        run_index=run,
        freshness="f",
        status="ok",
        details={"weights": {"path": names[2], "sha256": "0"}},
        artifacts=dict(zip(("log", "predictions", "weights"), names, strict=True)),
        started_at=f"2026-01-01T00:00:0{run}+00:00",
    )
    RecordStore(folder).append(record.model_copy(update=rest))
    return record.model_copy(update=rest)


def named_files(folder: Path, record: Record) -> dict[str, str]:
    return {name: (folder / path).read_text() for name, path in record.artifacts.items()}


def test_the_files_of_each_record_come_along_and_none_replaces_another(tmp_path: Path) -> None:
    first, second = shard(tmp_path / "a", 0, log="one"), shard(tmp_path / "b", 1, log="two")
    merged = merge_results([tmp_path / "a", tmp_path / "b"], tmp_path / "all")
    assert (merged.records, merged.files, merged.notes) == (2, 7, [])
    found = read_records(tmp_path / "all")
    assert named_files(tmp_path / "all", found[0]) == {
        "log": "one",
        "predictions": "predictions of run 0",
        "weights": "weights",
    }
    assert named_files(tmp_path / "all", found[1]) == {
        "log": "two",
        "predictions": "predictions of run 1",
        "weights": "weights",
    }
    assert found[0] == first
    assert found[1].artifacts["log"] != second.artifacts["log"]
    assert (tmp_path / "all/artifacts/training_1234/state.pt").read_text() == "state"
    assert not (tmp_path / "all/artifacts/training_1234/.lock").exists()
    assert (tmp_path / "all/suite.json").read_text() == "{}"


def test_a_second_merge_adds_nothing(tmp_path: Path) -> None:
    shard(tmp_path / "a", 0)
    merge_results(tmp_path / "a", tmp_path / "all")
    before = {file: file.read_bytes() for file in (tmp_path / "all").rglob("*") if file.is_file()}
    merged = merge_results([tmp_path / "a", tmp_path / "all"], tmp_path / "all")
    assert (merged.records, merged.files) == (0, 0)
    assert {file: file.read_bytes() for file in (tmp_path / "all").rglob("*") if file.is_file()} == before


def test_weights_under_a_taken_name_are_renamed_in_the_record_too(tmp_path: Path) -> None:
    shard(tmp_path / "a", 0)
    shard(tmp_path / "b", 1)
    (tmp_path / "b/artifacts/training_1234/last.pt").write_text("other weights")
    merge_results([tmp_path / "a", tmp_path / "b"], tmp_path / "all")
    second = read_records(tmp_path / "all")[1]
    weights = second.details["weights"]
    assert isinstance(weights, dict)
    assert weights["path"] == second.artifacts["weights"]
    assert (tmp_path / "all" / str(weights["path"])).read_text() == "other weights"


@pytest.mark.parametrize(
    "path", ["../secret", "/etc/hostname", "logs/link", "logs/../../secret", "artifacts", "gone", "a\0b", "x" * 300]
)
def test_a_record_cannot_bring_files_from_elsewhere(tmp_path: Path, path: str) -> None:
    (tmp_path / "secret").write_text("secret")
    shard(tmp_path / "a", 0, artifacts={"log": path}, details={"weights": {"path": path}})
    os.symlink(tmp_path / "secret", tmp_path / "a/logs/link")
    merged = merge_results(tmp_path / "a", tmp_path / "all")
    assert read_records(tmp_path / "all")[0].artifacts == {}
    assert len(merged.notes) == 1
    assert "there is no such file" in merged.notes[0]
    assert "secret" not in {f.read_text() for f in (tmp_path / "all").rglob("*") if f.is_file()}


def test_a_copy_that_differs_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shard(tmp_path / "a", 0)
    monkeypatch.setattr(merging.shutil, "copyfile", lambda file, target: target.write_text("torn"))
    with pytest.raises(StoreError, match="changed while it was copied"):
        merge_results(tmp_path / "a", tmp_path / "all")
    assert not (tmp_path / "all/records.jsonl").exists()
    assert not [f for f in (tmp_path / "all").rglob("*") if f.is_file() and f.name != ".lock"]


def test_another_suite_is_noted_and_an_unwritable_file_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shard(tmp_path / "a", 0)
    shard(tmp_path / "b", 1)
    (tmp_path / "b/suite.json").write_text('{"name": "other"}')
    command = ["results", "merge", str(tmp_path / "a"), str(tmp_path / "b"), "--out", str(tmp_path / "all")]
    assert run_command(command) == 0
    shown = capsys.readouterr()
    assert "2 records and 6 files added" in shown.out
    assert "describes another suite" in shown.err
    shard(tmp_path / "c", 2)
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken/logs").write_text("a file, not a folder")
    command[2:] = [str(tmp_path / "c"), "--out", str(tmp_path / "taken")]
    assert run_command(command) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1
