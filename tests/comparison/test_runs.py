"""Which records are runs of their own: copies are not, sessions that stand in one file are, a repeated run is one."""

from collections.abc import Callable
from pathlib import Path

import pytest

from bench.cli.app import run_command
from bench.comparison.baselines import save
from bench.comparison.comparing import compare
from bench.core.errors import InputError
from bench.core.schema import Record
from bench.store import RecordStore

Runs = Callable[..., list[Record]]

QUIET = [10.0, 10.02, 9.98, 10.01, 9.99]


def stored(folder: Path, records: list[Record]) -> Path:
    for record in records:
        RecordStore(folder).append(record)
    return folder


def on_day(day: int, records: list[Record]) -> list[Record]:
    """The same runs, as if they had been started on that day of January."""
    return [r.model_copy(update={"started_at": r.started_at.replace("01-01", f"01-{day:02d}")}) for r in records]


@pytest.fixture
def three_sessions(tmp_path: Path, runs: Runs) -> list[Path]:
    return [
        stored(tmp_path / f"s{day}", on_day(day, runs([value + day / 1000 for value in QUIET]))) for day in (1, 2, 3)
    ]


def counted(base: object, head: object) -> tuple[int, int]:
    (row,) = compare(base, head).rows  # type: ignore[arg-type]
    return row.runs


def test_copies_of_two_runs_are_two_runs(tmp_path: Path, runs: Runs) -> None:
    """Six of them would have been enough for a verdict."""
    for name in "abc":
        stored(tmp_path / "base" / name, runs([10.0, 10.1]))
        stored(tmp_path / "head" / name, on_day(2, runs([12.0, 12.1])))
    comparison = compare(tmp_path / "base", tmp_path / "head")
    assert [(row.runs, row.verdict) for row in comparison.rows] == [((2, 2), "inconclusive")]


def test_equal_values_of_different_runs_are_all_counted(tmp_path: Path, runs: Runs) -> None:
    stored(tmp_path / "a", runs([10.0, 10.0]))
    stored(tmp_path / "b", on_day(2, runs([10.0, 10.0])))
    assert counted([tmp_path / "a", tmp_path / "b"], on_day(3, runs(QUIET))) == (4, 5)


def test_a_baseline_of_three_sessions_has_the_runs_of_all(
    tmp_path: Path, runs: Runs, three_sessions: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    [kept] = save(three_sessions, branch="main")
    assert kept.runs == 15
    head = on_day(9, runs(QUIET))
    assert counted("baseline:main", head) == counted(three_sessions, head) == (15, 5)


def test_sessions_in_one_file_keep_all_their_runs(tmp_path: Path, runs: Runs, three_sessions: list[Path]) -> None:
    together = tmp_path / "together.jsonl"
    together.write_text("".join((folder / "records.jsonl").read_text() for folder in three_sessions))
    assert counted(together, on_day(9, runs(QUIET))) == (15, 5)


def test_in_a_results_folder_a_repeated_run_takes_the_place_of_the_one_before(tmp_path: Path, runs: Runs) -> None:
    folder = stored(tmp_path / "r", [*runs(QUIET), *on_day(2, runs([30.0, 30.0]))])
    assert counted(folder, on_day(9, runs(QUIET))) == (5, 5)


def test_an_empty_name_is_wrong_input(tmp_path: Path, runs: Runs, capsys: pytest.CaptureFixture[str]) -> None:
    """As an unset variable of a workflow gives it; it would be this folder, and perhaps head itself."""
    head = stored(tmp_path / "head", runs(QUIET))
    assert run_command(["compare", "", str(head)]) == 2
    assert "empty name" in capsys.readouterr().err
    with pytest.raises(InputError, match="empty name"):
        compare(head, [" "])


def test_comparing_results_with_themselves_is_noted(tmp_path: Path, runs: Runs) -> None:
    folder = stored(tmp_path / "r", runs(QUIET))
    assert any("with themselves" in note for note in compare(folder, folder).notes)
    assert not any("with themselves" in note for note in compare(folder, on_day(2, runs(QUIET))).notes)


@pytest.fixture
def of_workers(tmp_path: Path, runs: Runs) -> Path:
    """A results folder of a cluster: a file for each worker, none of local runs; a lost run was made again."""
    first, second, *rest = runs(QUIET)
    lost = first.model_copy(update={"status": "interrupted", "metrics": ()})
    for name, each in (("slurm-1", lost), ("slurm-1", second), *(("slurm-2", each) for each in rest)):
        RecordStore(tmp_path / "cluster", worker=name).append(each)
    (again,) = on_day(2, [first])
    RecordStore(tmp_path / "cluster", worker="slurm-2").append(again)
    return tmp_path / "cluster"


def test_a_folder_that_only_workers_wrote_is_compared(of_workers: Path, tmp_path: Path, runs: Runs) -> None:
    head = stored(tmp_path / "head", on_day(9, runs(QUIET)))
    assert counted(of_workers, head) == (5, 5)
    assert counted(head, of_workers) == (5, 5)


def test_a_run_that_two_workers_finished_counts_once(of_workers: Path, tmp_path: Path, runs: Runs) -> None:
    (twice,) = on_day(3, runs(QUIET[:1]))
    RecordStore(of_workers, worker="slurm-3").append(twice)
    assert counted(of_workers, on_day(9, runs(QUIET))) == (5, 5)
