"""SQL over stored records: the two tables, what the SQL may not do, and how answers are printed."""

import json
import sys
from pathlib import Path

import pytest

from bench.cli.app import run_command
from bench.core.errors import InputError, MissingPackageError, StoreError
from bench.core.schema import Case, Clip, Environment, Failure, Metric, Point, Record
from bench.store import RecordStore
from bench.store.query import query_records

duckdb = pytest.importorskip("duckdb")


def record(width: object, *, run: int = 0, failed: bool = False) -> Record:
    point = Point(model="c3d", args={"width": width, "Status": 7}, clip=Clip.model_validate("16x1x112"))
    case = Case(suite="s", point=point, measures={"latency": {}})
    metrics = (
        Metric(name="latency.p50_ms", value=2.5 + run, unit="ms", better="lower", interval=(2.0, 3.0)),
        Metric(name="throughput.clips_per_s", value=8, unit="clips/s", better="higher", labels={"batch": "8"}),
    )
    return Record(
        case=case,
        case_id=case.id,
        run_index=run,
        freshness="f",
        status="error" if failed else "ok",
        error=Failure(type="Boom", message="no") if failed else None,
        metrics=() if failed else metrics,
        environment=Environment(hardware={"gpu": "H200", "gpus": ["a"]}, software={"tf32": None}),
        started_at="2026-01-01T00:00:00+00:00",
        seconds={"whole": 1.5},
    )


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name, records in {
        "one": [record(1), record(1, run=1), record("wide", failed=True)],
        "two": [record([1, 2])],
    }.items():
        for each in records:
            RecordStore(tmp_path / "results" / name).append(each)
    return tmp_path / "results"


def rows(folder: Path, sql: str) -> list[tuple[object, ...]]:
    return query_records(folder, sql).rows


def test_both_tables_hold_what_was_measured(folder: Path) -> None:
    assert rows(folder, "select count(*) from records") == [(4,)]
    assert rows(folder, "select metric, count(*), max(value) from metrics group by 1 order by 1") == [
        ("latency.p50_ms", 3, 3.5),
        ("throughput.clips_per_s", 3, 8.0),
    ]
    joined = "select record, hardware_gpu, low, labels from metrics join records using (record) where labels <> ''"
    assert rows(folder, joined + " order by 1") == [(n, "H200", None, "batch=8") for n in (0, 1, 3)]
    failed = "select error_type, error_message, seconds, title from records where status = 'error'"
    assert rows(folder, failed) == [("Boom", "no", 1.5, "c3d width=wide Status=7 16x1x112")]


def test_values_of_several_types_are_text(folder: Path) -> None:
    assert rows(folder, "select width, hardware_gpus from records order by record") == [
        ("1", '["a"]'),
        ("1", '["a"]'),
        ("wide", '["a"]'),
        ("[1, 2]", '["a"]'),
    ]


def test_names_that_differ_in_case_alone_are_both_there(folder: Path) -> None:
    assert rows(folder, "select status, status_ from records where record = 0") in ([("ok", 7)], [(7, "ok")])


FORBIDDEN = {
    "read_csv": "select * from read_csv('/etc/passwd')",
    "read_text": "select content from read_text('/etc/passwd')",
    "glob": "select * from glob('/*')",
    "file as a table": "select * from '/etc/passwd'",
    "copy": "copy records to 'stolen.csv'",
    "attach": "attach 'stolen.db'",
    "export": "export database 'stolen'",
    "install": "install httpfs",
    "load": "load httpfs",
    "setting": "set enable_external_access = true",
    "python variable": "select * from rows",
    "environment": "select getenv('HOME')",
    "delete": "delete from records",
    "two statements": "select 1; select 2",
    "a select and a copy": "select 1; copy records to 'stolen.csv'",
    "no statement": " ",
    "wrong": "selct 1",
    "unknown column": "select laten from metrics",
    "wrong cast": "select cast(title as int) from records",
}


@pytest.mark.parametrize("sql", FORBIDDEN.values(), ids=FORBIDDEN)
def test_sql_reads_the_tables_and_nothing_else(folder: Path, sql: str) -> None:
    with pytest.raises(InputError) as raised:
        query_records(folder, sql)
    assert "\n" not in str(raised.value)
    assert not [path for path in Path.cwd().iterdir() if path.name.startswith("stolen")]


def test_a_misspelt_table_has_the_nearest_name(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["query", "select * from recrds"]) == 2
    assert 'Did you mean "records"' in capsys.readouterr().err


def test_answers_are_printed_as_table_csv_or_json(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sql = "select status, count(*) n, sum(seconds) s, cast('nan' as double) x from records group by 1 order by 1"
    assert run_command(["query", sql, "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out) == [
        {"status": "error", "n": 1, "s": 1.5, "x": None},
        {"status": "ok", "n": 3, "s": 4.5, "x": None},
    ]
    assert run_command(["query", sql, str(folder / "one"), "--format", "csv"]) == 0
    assert capsys.readouterr().out == "status,n,s,x\nerror,1,1.5,\nok,2,3.0,\n"
    assert run_command(["query", "select '=1+1' a, date '2026-01-02' b, 0.1::decimal(3,1) c", "--format", "csv"]) == 0
    assert capsys.readouterr().out == "a,b,c\n'=1+1,2026-01-02,0.1\n"
    assert run_command(["query", "select chr(27) || 'x' title"]) == 0
    assert capsys.readouterr().out.split() == ["title", "\\x1bx"]


def test_without_records_or_duckdb_there_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(StoreError, match=r"no records\.jsonl"):
        query_records(tmp_path, "select 1")
    monkeypatch.setitem(sys.modules, "duckdb", None)
    with pytest.raises(MissingPackageError, match=r"pip install duckdb"):
        query_records(tmp_path, "select 1")
