"""Records as columns, and the cache of large files: right, added to, and never believed over the file."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.core.files import cache_folder
from bench.core.schema import Case, Clip, Environment, Failure, Metric, Point, Record
from bench.store import (
    RecordStore,
    StoreWarning,
    list_runs,
    load_records,
    read_records,
    read_values,
    record_store,
    record_tables,
)

HARDWARE: tuple[dict[str, Any], ...] = (
    {"cpu": "Xeon", "cpu_cores": 2},
    {"cpu": "Xeon", "cpu_cores": 2, "gpu": "H200", "gpus": ["H200", "H200"]},
)


def record(number: int, *, args: dict[str, Any] | None = None, metrics: tuple[Metric, ...] | None = None) -> Record:
    point = Point(model="c3d", args=args or {"width": number % 3}, clip=Clip.model_validate("16x1x112"))
    case = Case(suite="s", point=point, measures={"latency": {}})
    own = (
        Metric(name="latency.p50_ms", value=number + 0.5, unit="ms", better="lower", interval=(1.0, 2.0)),
        Metric(name="params.total", value=10 + number, unit="elements", is_exact=True, labels={"b": "2", "a": "1"}),
    )
    return Record(
        case=case,
        case_id=case.id,
        run_index=number,
        freshness="f",
        status="error" if metrics == () else "ok",
        error=Failure(type="Boom", message="no") if metrics == () else None,
        metrics=own if metrics is None else metrics,
        environment=Environment(hardware=HARDWARE[number % 2], software={"torch": "2.11"}),
        started_at=f"2026-01-01T00:00:{number % 60:02}+00:00",
    )


def rows_of(records: list[Record]) -> list[dict[str, Any]]:
    """The rows that a frame must have, from whole records."""
    rows = []
    for each in records:
        facts = {
            **each.case.point.named(),
            "suite": each.case.suite,
            "case_id": each.case_id,
            "run_index": each.run_index,
            "status": each.status,
            "started_at": each.started_at,
            **{f"hardware.{k}": v for k, v in each.environment.hardware.items()},
            **{f"software.{k}": v for k, v in each.environment.software.items()},
        }
        for metric in each.metrics:
            low, high = metric.interval or (None, None)
            labels = ",".join(f"{k}={v}" for k, v in sorted(metric.labels.items()))
            own = {"metric": metric.name, "labels": labels, "value": metric.value, "low": low, "high": high}
            rows.append({**facts, **own, "unit": metric.unit, "better": metric.better})
        if not each.metrics:
            rows.append({**facts, "metric": None})
    return rows


@pytest.fixture
def cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A results folder whose records are cached however few they are."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(record_tables, "CACHED_FROM_BYTES", 0)
    return tmp_path / "res"


def fill(folder: Path, *records: Record) -> None:
    for each in records:
        RecordStore(folder).append(each)


def parsed_lines(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The lines that are parsed from here on."""
    parsed: list[bytes] = []
    real = record_tables.parse_line
    monkeypatch.setattr(record_tables, "parse_line", lambda line: parsed.append(line) or real(line))
    return parsed


ARGS = st.dictionaries(
    st.sampled_from(["width", "depth", "mode", "stage"]),
    st.none() | st.booleans() | st.integers(-9, 9) | st.floats(-9, 9) | st.text(max_size=3) | st.lists(st.integers()),
    max_size=3,
)
VALUES = st.none() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False)


@given(st.lists(st.tuples(ARGS, st.lists(VALUES, max_size=3)), min_size=1, max_size=6))
def test_a_frame_is_that_of_the_whole_records(
    tmp_path_factory: pytest.TempPathFactory, given_records: list[tuple[dict[str, Any], list[Any]]]
) -> None:
    folder = tmp_path_factory.mktemp("frame")
    for number, (args, values) in enumerate(given_records):
        metrics = tuple(Metric(name="a.b", value=value, unit="") for value in values)
        fill(folder, record(number, args=args, metrics=metrics))
    expected = pd.DataFrame(rows_of(read_records(folder)))
    found = load_records(folder)
    assert set(expected.columns) <= set(found.columns)
    for name in expected.columns:
        wanted, got = list(expected[name]), list(found[name])
        assert len(wanted) == len(got)
        for one, other in zip(wanted, got, strict=True):
            if isinstance(one, list):
                assert one == other
            elif pd.isna(one):
                assert pd.isna(other)
            else:
                assert one == other or float(one) == pytest.approx(float(other))


def test_a_cached_frame_is_the_parsed_one(cached: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(cached, *(record(n) for n in range(5)), record(5, metrics=()))
    parsed = parsed_lines(monkeypatch)
    first = load_records(cached)
    assert len(parsed) == 6
    pd.testing.assert_frame_equal(load_records(cached), first)
    assert len(parsed) == 6


def test_only_appended_lines_are_parsed(cached: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(cached, record(0), record(1))
    load_records(cached)
    fill(cached, record(2, args={"new": "x"}))
    parsed = parsed_lines(monkeypatch)
    frame = load_records(cached)
    assert len(parsed) == 1
    assert list(frame["value"]) == [0.5, 10, 1.5, 11, 2.5, 12]
    assert frame.equals(load_records([cached]))
    assert len(parsed) == 1


def test_a_changed_file_of_same_size_and_time_is_parsed_again(cached: Path) -> None:
    fill(cached, record(0), record(1))
    load_records(cached)
    file = cached / "records.jsonl"
    before = file.stat()
    file.write_bytes(file.read_bytes().replace(b'"value":0.5', b'"value":7.5'))
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (file.stat().st_size, file.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    assert load_records(cached)["value"].iloc[0] == 7.5


def test_a_file_that_became_shorter_is_parsed_again(cached: Path) -> None:
    fill(cached, record(0), record(1))
    load_records(cached)
    file = cached / "records.jsonl"
    file.write_bytes(file.read_bytes().splitlines(keepends=True)[1])
    assert list(load_records(cached)["run_index"].unique()) == [1]


DAMAGES = {
    "nothing": b"",
    "another shape": b'{"version": 3}',
    "a list": b"[]",
    "no text": b"\xff\xfe\x00",
    "deep": b"[" * 100_000,
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
@pytest.mark.parametrize("name", ["facts.json", "records.parquet", "metrics.parquet"])
def test_a_damaged_cache_is_built_again(cached: Path, name: str, damage: bytes) -> None:
    fill(cached, record(0), record(1))
    first = load_records(cached)
    [file] = cache_folder().rglob(name)
    sound = file.read_bytes()
    file.write_bytes(damage)
    pd.testing.assert_frame_equal(load_records(cached), first)
    pd.testing.assert_frame_equal(load_records(cached), first)
    if name == "facts.json":
        assert json.loads(file.read_bytes())["lines"] == 2
    assert len(file.read_bytes()) == len(sound)


def test_a_deleted_or_forbidden_cache_costs_only_time(cached: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(cached, record(0), record(1))
    first = load_records(cached)
    shutil.rmtree(cache_folder())
    pd.testing.assert_frame_equal(load_records(cached), first)
    monkeypatch.setenv("XDG_CACHE_HOME", "/dev/null")
    pd.testing.assert_frame_equal(load_records(cached), first)


def test_damaged_lines_are_named_with_and_without_the_cache(cached: Path) -> None:
    fill(cached, record(0), record(1))
    file = cached / "records.jsonl"
    first, second = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(first + b"{}\n" + second + second[:-40])
    for _ in range(2):
        with pytest.warns(StoreWarning) as warned:
            frame = load_records(cached)
        assert [str(w.message).split(": ")[0] for w in warned] == [f"{file}:2", f"{file}:4"]
        assert list(frame["run_index"].unique()) == [0, 1]


def test_secrets_of_old_records_never_reach_a_frame(tmp_path: Path) -> None:
    environment = Environment(state={"env.NVIDIA_API_KEY": "nvapi-1"})
    fill(tmp_path, record(0).model_copy(update={"environment": environment}))
    assert "nvapi-1" not in load_records(tmp_path).to_json()


def test_runs_are_the_same_with_and_without_the_cache(cached: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    same = {"fingerprint": {"measures": "m", "model source": "s"}, "seconds": {"whole": 2.5, "latency": 1.0}}
    records = [record(n).model_copy(update=same if n % 2 else {}) for n in range(4)]
    fill(cached, *records, record(4, metrics=()))
    parsed, again = RecordStore(cached).runs(), RecordStore(cached).runs()
    monkeypatch.setattr(record_tables, "CACHED_FROM_BYTES", 1 << 30)
    assert RecordStore(cached).runs() == parsed == again
    assert [run.seconds for run in parsed] == [None, 2.5, None, 2.5, None]
    assert parsed[1].fingerprint == same["fingerprint"]
    assert parsed[1].measures == {"latency"}
    assert parsed[1].environment == {"torch": "2.11", "gpu": "H200", "cpu": "Xeon"}, "only what a plan compares"
    assert [r.run_index for r in RecordStore(cached).records_of(reversed(parsed))] == [4, 3, 2, 1, 0]


def test_offsets_stay_right_behind_damaged_lines_and_after_appending(cached: Path) -> None:
    fill(cached, record(0))
    (cached / "records.jsonl").write_bytes(b"{}\n" + (cached / "records.jsonl").read_bytes() + b"\n")
    for number in (1, 2):
        with pytest.warns(StoreWarning):
            RecordStore(cached).runs()
        fill(cached, record(number))
    with pytest.warns(StoreWarning):
        runs = RecordStore(cached).runs()
    assert [r.run_index for r in RecordStore(cached).records_of(runs)] == [0, 1, 2]


def test_a_plan_parses_no_stored_line_twice_and_reads_no_metrics(cached: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(cached, record(0), record(1))
    RecordStore(cached).runs()
    parsed = parsed_lines(monkeypatch)
    [metrics] = cache_folder().rglob("metrics.parquet")
    monkeypatch.setattr("pyarrow.parquet.ParquetFile", lambda file: pq_file(file, not_of=metrics.read_bytes()))
    assert [run.run_index for run in RecordStore(cached).runs()] == [0, 1]
    assert parsed == []


def pq_file(file: Any, *, not_of: bytes, real: Any = pq.ParquetFile) -> Any:
    assert file.getvalue() != not_of
    return real(file)


def checked_lines(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The lines that `repair` reads as records from here on."""
    checked: list[bytes] = []
    real = record_store.is_sound
    monkeypatch.setattr(record_store, "is_sound", lambda line: checked.append(line) or real(line))
    return checked


def test_repair_checks_only_lines_that_were_added(cached: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, checked = RecordStore(cached), checked_lines(monkeypatch)
    fill(cached, record(0), record(1))
    assert store.repair() is None
    assert store.repair() is None
    assert len(checked) == 2
    fill(cached, record(2))
    with store.file.open("ab") as file:
        file.write(b"{}\n")
    assert "1 damaged line was moved to records.damaged; 3 records stay" in (store.repair() or "")
    assert len(checked) == 4
    assert [r.run_index for r in read_records(cached)] == [0, 1, 2]
    assert (cached / "records.damaged").read_bytes() == b"{}\n"


@pytest.mark.parametrize("change", ["damaged", "shorter", "cache"])
def test_repair_checks_all_lines_of_a_file_that_changed(cached: Path, change: str) -> None:
    store = RecordStore(cached)
    fill(cached, record(0), record(1))
    store.repair()
    before, content = store.file.stat(), store.file.read_bytes()
    if change == "damaged":
        store.file.write_bytes(content.replace(b'"case_id"', b'"c\x00se_id"', 1))
    elif change == "shorter":
        store.file.write_bytes(content[:-9])
    else:
        [file] = cache_folder().rglob("sound.json")
        file.write_text('{"version": 1}')
        store.file.write_bytes(content + b"x\n")
    os.utime(store.file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert "1 damaged line" in (store.repair() or "")


def test_a_list_of_many_shows_the_first_metrics_with_a_direction(cached: Path) -> None:
    metrics = [Metric(name=f"latency.p{n}_ms", value=n or None, unit="ms", better="lower") for n in range(6)]
    exact = Metric(name="params.total", value=2**60 + 1, unit="elements", labels={"b": "2", "a": "1"})
    fill(cached, record(0, metrics=(exact, *metrics)), record(1, metrics=()), record(2, metrics=(exact,)))
    every, first = list(list_runs(cached)), list(list_runs(cached, headlines=3))
    assert [len(run.metrics) for run in every] == [7, 0, 1]
    assert every[0].metrics[0] == ("params.total{a=1,b=2}", 2**60 + 1, "elements", None)
    assert [[key for key, *_ in run.metrics] for run in first] == [
        ["latency.p1_ms", "latency.p2_ms", "latency.p3_ms"],
        [],
        [],
    ]
    assert (first[1].error_type, first[1].status, first[0].title) == ("Boom", "error", "c3d width=0 16x1x112")


def test_planning_and_listing_of_cached_records_do_not_import_pandas(cached: Path) -> None:
    fill(cached, record(0), record(1, metrics=()))
    code = (
        "import sys; from pathlib import Path; from bench.store import RecordStore, list_runs, record_tables;"
        f"record_tables.CACHED_FROM_BYTES = 0; folder = Path({str(cached)!r});"
        "RecordStore(folder).runs(); seen = 'pandas' in sys.modules; "
        "RecordStore(folder).runs(); list(list_runs(folder, headlines=3)); print(seen, 'pandas' in sys.modules)"
    )
    RecordStore(cached).runs()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert not done.stderr, done.stderr[-2000:]
    assert done.stdout == "False False\n"


def test_values_of_a_metric_are_the_same_with_and_without_the_cache(
    cached: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unknown = Metric(name="latency.p50_ms", value=None, unit="ms", note="why")
    fill(cached, record(0), record(1), record(2, metrics=(unknown,)), record(3, args={"width": 7}))
    expected = [
        ({"model": "c3d", "clip": "16x1x112", "width": width}, HARDWARE[place], value)
        for width, place, value in ((0, 0, 0.5), (1, 1, 1.5), (7, 1, 3.5))
    ]
    assert list(read_values(cached / "records.jsonl", "latency.p50_ms")) == expected
    assert list(read_values(cached / "records.jsonl", "latency.p50_ms")) == expected
    assert [value for *_, value in read_values(cached / "records.jsonl", "params.total")] == [10, 11, 13]
    monkeypatch.setattr(record_tables, "CACHED_FROM_BYTES", 1 << 30)
    assert list(read_values(cached / "records.jsonl", "latency.p50_ms")) == expected
