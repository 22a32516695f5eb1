"""Records on disk: durable lines, torn tails, a lock, migrations, and a frame."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.core.errors import StoreError
from bench.core.schema import Case, Failure, Metric, Point, Record
from bench.store import RecordStore, StoreWarning, load_records, read_records, read_suite_info


def record(run_index: int = 0, *, value: float | None = 2.5, message: str = "") -> Record:
    case = Case(suite="s", point=Point(model="c3d", clip="16x1x112", args={"kernel_depth": 3}), measures={"macs": {}})  # type: ignore[arg-type]
    metric = Metric(
        name="latency.p50_ms", value=value, unit="ms", better="lower", samples=(2.0, 3.0), labels={"batch": "8"}
    )
    return Record(
        case=case,
        case_id=case.id,
        run_index=run_index,
        freshness="f",
        status="error" if message else "ok",
        metrics=() if message else (metric,),
        error=Failure(type="RuntimeError", message=message) if message else None,
        started_at="2026-01-01T00:00:00+00:00",
    )


@given(st.text(), st.floats(allow_nan=False, allow_infinity=False))
def test_what_is_appended_is_read_back(tmp_path_factory: pytest.TempPathFactory, text: str, value: float) -> None:
    store = RecordStore(tmp_path_factory.mktemp("results"))
    written = [record(0, value=value), record(1, message=text or "x"), record(2, value=None)]
    for item in written:
        store.append(item)
    assert read_records(store.folder) == written


@pytest.mark.parametrize("cut", [1, 40, 400])
def test_a_torn_last_line_is_moved_aside_and_said(tmp_path: Path, cut: int) -> None:
    store = RecordStore(tmp_path)
    store.append(record(0))
    whole = store.file.stat().st_size
    store.append(record(1))
    os.truncate(store.file, whole + cut)
    with pytest.warns(StoreWarning, match="cut off"):
        assert read_records(tmp_path) == [record(0)]
    assert "records.torn" in (store.repair() or "")
    assert store.repair() is None
    store.append(record(2))
    assert read_records(tmp_path) == [record(0), record(2)]
    assert (tmp_path / "records.torn").stat().st_size == cut + 1


def test_what_the_system_does_not_let_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "records.jsonl").mkdir()
    with pytest.raises(StoreError, match=r"records\.jsonl cannot be read: Is a directory"):
        read_records(tmp_path)

    def refuse(self: Path, encoding: str) -> str:
        raise PermissionError(13, "Permission denied", str(self))

    (tmp_path / "suite.json").write_text("{}")
    monkeypatch.setattr(Path, "read_text", refuse)
    with pytest.raises(StoreError, match=r"suite\.json cannot be read: Permission denied"):
        read_suite_info(tmp_path)


def test_what_the_system_does_not_let_write_is_named(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file")
    store = RecordStore(tmp_path / "taken" / "results")
    for write in (lambda: store.append(record()), lambda: store.write_suite({}), lambda: store.lock().__enter__()):
        with pytest.raises(StoreError, match=r"taken.* cannot be written: Not a directory"):
            write()


def test_a_pattern_takes_what_holds_records_of_all_that_it_matches(tmp_path: Path) -> None:
    """Such as the folder of a run that broke before its first record, notes beside it, or a link to nowhere."""
    RecordStore(tmp_path / "m1").append(record(0))
    (tmp_path / "m2").mkdir()
    (tmp_path / "m.txt").write_text("notes\n")
    (tmp_path / "m3").symlink_to(tmp_path / "nowhere")
    assert read_records(tmp_path / "m*") == [record(0)]
    assert read_records(tmp_path / "*" / "*.jsonl") == [record(0)]
    assert read_records(tmp_path / "**") == [record(0)], "once, though its folder and the one above both match"
    for nothing in ("m2", "m2*", "m3", "m3*", "n*"):
        with pytest.raises(StoreError, match=r"no records\.jsonl"):
            read_records(tmp_path / nothing)


def test_a_bad_line_in_the_middle_is_named(tmp_path: Path) -> None:
    store = RecordStore(tmp_path)
    store.append(record(0))
    with store.file.open("a") as file:
        file.write('{"schema_version":1,"oops":1}\n')
    with pytest.raises(StoreError, match=r"records\.jsonl:2: not a record of vbench"):
        read_records(tmp_path)


def test_a_newer_version_is_refused_with_its_number(tmp_path: Path) -> None:
    (tmp_path / "records.jsonl").write_text('{"schema_version": 99}\n')
    with pytest.raises(StoreError, match="version 99"):
        read_records(tmp_path)


def test_a_source_without_records_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"no records\.jsonl in"):
        read_records(tmp_path / "nowhere")


def test_a_second_process_is_kept_out_and_told_who_holds_the_folder(tmp_path: Path) -> None:
    code = "import sys, pathlib, bench.store as s\nwith s.RecordStore(pathlib.Path(sys.argv[1])).lock(): pass"
    with RecordStore(tmp_path).lock():
        done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert f"in use by process {os.getpid()}" in done.stderr
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False).returncode == 0


def test_a_frame_has_a_row_per_metric_and_keeps_failures(tmp_path: Path) -> None:
    store = RecordStore(tmp_path)
    store.append(record(0))
    store.append(record(1, message="boom"))
    frame = load_records(tmp_path)
    assert list(frame["metric"].fillna("none")) == ["latency.p50_ms", "none"]
    assert frame.loc[0, "labels"] == "batch=8"
    assert frame.loc[0, "kernel_depth"] == 3
    assert frame.loc[1, "status"] == "error"


def test_suite_facts_are_kept_beside_the_records(tmp_path: Path) -> None:
    assert read_suite_info(tmp_path) == {}
    RecordStore(tmp_path).write_suite({"name": "s", "title": "Wie tief?"})
    assert read_suite_info(tmp_path) == {"name": "s", "title": "Wie tief?"}
