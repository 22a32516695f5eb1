"""Records on disk: durable lines, torn tails, a lock, migrations, and a frame."""

import json
import os
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.core.errors import StoreError
from bench.core.schema import Case, Environment, Failure, Metric, Point, Record
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
def test_appended_records_are_read_back(tmp_path_factory: pytest.TempPathFactory, text: str, value: float) -> None:
    store = RecordStore(tmp_path_factory.mktemp("results"))
    written = [record(0, value=value), record(1, message=text or "x"), record(2, value=None)]
    for item in written:
        store.append(item)
    assert read_records(store.folder) == written


@pytest.mark.parametrize("cut", [1, 40, 400])
def test_a_torn_last_line_is_set_aside_with_a_warning(tmp_path: Path, cut: int) -> None:
    store = RecordStore(tmp_path)
    store.append(record(0))
    whole = store.file.stat().st_size
    store.append(record(1))
    os.truncate(store.file, whole + cut)
    with pytest.warns(StoreWarning, match="cut off"):
        assert read_records(tmp_path) == [record(0)]
    assert "records.damaged" in (store.repair() or "")
    assert store.repair() is None
    store.append(record(2))
    assert read_records(tmp_path) == [record(0), record(2)]
    assert (tmp_path / "records.damaged").stat().st_size == cut + 1


def test_unreadable_files_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "records.jsonl").mkdir()
    with pytest.raises(StoreError, match=r"records\.jsonl cannot be read: Is a directory"):
        read_records(tmp_path)

    def refuse(self: Path, encoding: str) -> str:
        raise PermissionError(13, "Permission denied", str(self))

    (tmp_path / "suite.json").write_text("{}")
    monkeypatch.setattr(Path, "read_text", refuse)
    with pytest.raises(StoreError, match=r"suite\.json cannot be read: Permission denied"):
        read_suite_info(tmp_path)


def test_unwritable_files_are_named(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file")
    store = RecordStore(tmp_path / "taken" / "results")
    for write in (lambda: store.append(record()), lambda: store.write_suite({}), lambda: store.lock().__enter__()):
        with pytest.raises(StoreError, match=r"taken.* cannot be written: Not a directory"):
            write()


def test_a_pattern_takes_every_match_that_holds_records(tmp_path: Path) -> None:
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


BAD_LINES = {
    "another object": b'{"schema_version":1,"oops":1}',
    "one flipped byte": b'\x01{"schema_version":1}',
    "no object": b"[1, 2]",
    "not UTF-8": b"\xff\xfe",
    "nested deeply": b"[" * 100_000 + b"]" * 100_000,
    "nested deeply in a record": b'{"schema_version":1,"details":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "version of no meaning": b'{"schema_version": -3}',
    "version is a text": b'{"schema_version": "1"}',
    "version is true": b'{"schema_version": true}',
    "empty object": b"{}",
}


@pytest.mark.parametrize("line", BAD_LINES.values(), ids=BAD_LINES)
def test_a_damaged_line_is_named_and_left_out_and_repair_sets_it_aside(tmp_path: Path, line: bytes) -> None:
    store = RecordStore(tmp_path)
    store.append(record(0))
    with store.file.open("ab") as file:
        file.write(line + b"\n")
    store.append(record(1))
    with pytest.warns(StoreWarning, match=r"records\.jsonl:2: not a record of vbench"):
        assert read_records(tmp_path) == [record(0), record(1)]
    with pytest.warns(StoreWarning, match=r"records\.jsonl:2"):
        assert [run.run_index for run in store.runs()] == [0, 1], "planning counts the runs that readers read"
    assert "1 damaged line was moved to records.damaged; 2 records stay" in (store.repair() or "")
    assert (tmp_path / "records.damaged").read_bytes() == line + b"\n"
    assert read_records(tmp_path) == [record(0), record(1)]
    assert store.repair() is None


@given(st.integers(0, 2000), st.integers(0, 255))
def test_one_changed_byte_never_hides_the_other_records(
    tmp_path_factory: pytest.TempPathFactory, place: int, byte: int
) -> None:
    store = RecordStore(tmp_path_factory.mktemp("results"))
    for index in range(3):
        store.append(record(index))
    content = bytearray(store.file.read_bytes())
    lines = bytes(content).splitlines()
    place %= len(content) - 1
    hit = bytes(content[:place]).count(b"\n")
    content[place] = byte
    store.file.write_bytes(content)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", StoreWarning)
        left = {item.run_index for item in read_records(store.folder) if item in map(record, range(3))}
    spared = {0, 1, 2} - {hit, hit + 1 if place == sum(len(line) + 1 for line in lines[: hit + 1]) - 1 else hit}
    assert left >= spared


def test_a_record_of_a_newer_version_is_left_out_but_not_set_aside(tmp_path: Path) -> None:
    store = RecordStore(tmp_path)
    store.append(record(0))
    with store.file.open("a") as file:
        file.write('{"schema_version": 99}\n')
    with pytest.warns(StoreWarning, match="version 99"):
        assert read_records(tmp_path) == [record(0)]
    assert store.repair() is None


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "records.jsonl").symlink_to("/dev/full")
    with pytest.raises(StoreError, match=r"records\.jsonl cannot be written: No space left on device"):
        RecordStore(tmp_path).append(record())


def test_a_record_cut_by_a_full_disk_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = RecordStore(tmp_path)
    store.append(record(0))
    real, calls = os.write, iter([40])

    def write(descriptor: int, content: bytes) -> int:
        if (room := next(calls, None)) is None:
            raise OSError(28, "No space left on device")
        return real(descriptor, content[:room])

    monkeypatch.setattr("bench.store.record_store.os.write", write)
    with pytest.raises(StoreError, match="No space left"):
        store.append(record(1))
    monkeypatch.undo()
    store.append(record(2))
    assert read_records(tmp_path) == [record(0), record(2)]


def test_secrets_of_old_records_do_not_pass_a_reader(tmp_path: Path) -> None:
    state: dict[str, Any] = {"env.NVIDIA_API_KEY": "nvapi-1", "env.OMP_NUM_THREADS": "2", "commit": "abc"}
    old = record().model_copy(update={"environment": Environment(state=state)})
    RecordStore(tmp_path).append(old)
    with pytest.warns(StoreWarning, match="may be secret"):
        [found] = read_records(tmp_path)
    assert found.environment.state == {"env.OMP_NUM_THREADS": "2", "commit": "abc"}


def test_a_file_of_only_a_newer_version_is_refused_with_its_number(tmp_path: Path) -> None:
    (tmp_path / "records.jsonl").write_text('{"schema_version": 99}\n')
    with pytest.raises(StoreError, match="version 99"):
        read_records(tmp_path)


def test_a_source_without_records_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"no records\.jsonl in"):
        read_records(tmp_path / "nowhere")


def test_a_second_process_is_refused_and_the_error_names_the_holder(tmp_path: Path) -> None:
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


def test_suite_facts_are_stored_with_the_records(tmp_path: Path) -> None:
    assert read_suite_info(tmp_path) == {}
    RecordStore(tmp_path).write_suite({"name": "s", "title": "Wie tief?"})
    assert read_suite_info(tmp_path) == {"name": "s", "title": "Wie tief?"}


def test_what_a_case_logs_is_cleaned_and_what_was_there_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = RecordStore(tmp_path)
    assert store.log_sizes("abc") == {}
    (tmp_path / "logs").mkdir()
    store.log("abc").write_text("HF_TOKEN=hf_old\n")
    before = store.log_sizes("abc")
    for file in (store.log("abc"), tmp_path / "logs" / "abc.rank1.log"):
        with file.open("a") as log:
            log.write("HF_TOKEN=hf_new in /home/ada/x\n")
    store.clean_logs("abc", before=before, identify=False)
    assert store.log("abc").read_text() == "HF_TOKEN=hf_old\nHF_TOKEN=*** in ~/x\n"
    assert (tmp_path / "logs" / "abc.rank1.log").read_text() == "HF_TOKEN=*** in ~/x\n"

    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("bench.core.privacy.write_atomically", refuse)
    with pytest.warns(StoreWarning, match="may hold secrets"):
        store.clean_logs("abc", before={}, identify=True)
    assert not store.log("abc").exists()


@pytest.mark.parametrize(
    ("facts", "place"),
    [
        ([], ""),
        ({"planned": {"a": "2"}}, "planned.a: "),
        ({"planned": {"a": -1}}, "planned.a: "),
        ({"planned": 3}, "planned: "),
        ({"gate": []}, "gate: "),
        ({"ablate": {"baseline": [], "factors": ["depth"]}}, "ablate.baseline: "),
        ({"ablate": {"factors": [3]}}, "ablate.factors.0: "),
    ],
)
def test_a_stored_suite_of_another_form_is_named(tmp_path: Path, facts: object, place: str) -> None:
    (tmp_path / "suite.json").write_text(json.dumps(facts))
    with pytest.raises(StoreError, match=rf"suite\.json does not describe a suite.*{place}.*run the suite again"):
        read_suite_info(tmp_path)
