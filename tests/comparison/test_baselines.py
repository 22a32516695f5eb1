"""Baselines by branch and machine: saved, listed, promoted, and found again for records like theirs."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from bench.cli.app import run_command
from bench.comparison.baselines import baseline_files, fingerprint_of, listed, promote, save
from bench.comparison.comparing import compare
from bench.core.errors import InputError
from bench.core.schema import Environment, Metric, Record
from bench.store import RecordStore, read_records

QUIET = [10.0, 10.02, 9.98, 10.01, 9.99]
OTHER = Environment(hardware={"gpu": "A100", "gpu_driver": "570.1"}, software={"torch": "2.12.0", "python": "3.12.1"})


@pytest.fixture
def stored(tmp_path: Path, runs: Callable[..., list[Record]]) -> Callable[..., str]:
    """Latencies times `factor` in a results folder, of the given suite and environment."""

    def write(factor: float = 1.0, *extra: Record, **given: object) -> str:
        folder = tmp_path / f"results{len(list(tmp_path.iterdir()))}"
        for record in [*runs([factor * value for value in QUIET], **given), *extra]:
            RecordStore(folder).append(record)
        return str(folder)

    return write


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def test_head_is_compared_with_the_saved_records(here: Path, stored: Callable[..., str]) -> None:
    assert run_command(["baseline", "save", stored(), "--branch", "feature/fast"]) == 0
    assert (here / ".vbench/baselines/feature%2Ffast/s").is_dir()
    assert run_command(["compare", "baseline:feature/fast", stored()]) == 0
    assert run_command(["compare", "baseline:feature/fast", stored(1.1)]) == 1
    assert compare("baseline:feature/fast", stored(1.1)).base == "baseline:feature/fast"
    assert compare(f"baseline:feature/fast:{here}", stored(1.0)).exit_code() == 0


def test_a_baseline_remembers_how_its_measures_measured(here: Path, stored: Callable[..., str]) -> None:
    save(stored(details={"measure_versions": {"latency": 1}}), branch="main")
    assert compare("baseline:main", stored(details={"measure_versions": {"latency": 1}})).rows[0].verdict == "same"
    with pytest.raises(InputError, match=r"latency \(version\)"):
        compare("baseline:main", stored(details={"measure_versions": {"latency": 2}}))


def test_a_branch_without_baselines_is_wrong_input(
    here: Path, stored: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(["compare", "baseline:main", stored()]) == 2
    save(stored(), branch="main")
    assert run_command(["compare", "baseline:mian", stored()]) == 2
    assert "did you mean: main" in capsys.readouterr().err
    assert run_command(["compare", "baseline:main", stored(suite="t")]) == 2
    assert "no baseline of suite t" in capsys.readouterr().err


def test_each_kind_of_machine_has_a_baseline_of_its_own(here: Path, stored: Callable[..., str]) -> None:
    save(stored(), branch="main")
    with pytest.raises(InputError, match="H100"):
        compare("baseline:main", stored(environment=OTHER))
    across = compare("baseline:main", stored(environment=OTHER), across=True)
    assert [row.is_across for row in across.rows] == [True]
    save(stored(2.0, environment=OTHER), branch="main")
    assert len(listed()) == 2
    assert compare("baseline:main", stored(2.0, environment=OTHER)).rows[0].verdict == "same"
    assert compare("baseline:main", stored(1.0)).rows[0].verdict == "same"


def test_facts_that_vary_between_runs_do_not_make_another_machine(runs: Callable[..., list[Record]]) -> None:
    first, second = runs([1.0, 2.0])
    busy = first.environment.model_copy(update={"state": {"load_1min": 7.0, "commit": "abc"}})
    assert fingerprint_of(first) == fingerprint_of(second.model_copy(update={"environment": busy}))
    assert fingerprint_of(first) != fingerprint_of(first.model_copy(update={"environment": OTHER}))


def test_counts_are_of_any_machine(
    here: Path, stored: Callable[..., str], record: Callable[..., Record], params: Callable[[int], Metric]
) -> None:
    def counts(number: int) -> Record:
        return record(params(number), measures={"params": {}})

    saved = save(stored(1.0, counts(7)), branch="main")
    assert sorted(each.fingerprint == "any" for each in saved) == [False, True]
    elsewhere = record(params(7), measures={"params": {}}, environment=OTHER)
    [missing] = compare("baseline:main", [elsewhere]).missing
    assert "head has none" in missing.why, "timings that head lacks are told"
    assert compare("baseline:main", stored(1.0, counts(8))).exit_code() == 1
    assert compare("baseline:main", stored(1.0, counts(7))).exit_code() == 0


def test_a_head_that_measured_nothing_is_incomplete(
    here: Path, stored: Callable[..., str], record: Callable[..., Record]
) -> None:
    save(stored(), branch="main")
    (here / "empty").mkdir()
    assert run_command(["compare", "baseline:main", "empty"]) == 3
    assert compare("baseline:main", [record(status="error")]).exit_code() == 3


def test_saving_replaces_the_suite_and_leaves_others(here: Path, stored: Callable[..., str]) -> None:
    for suite, factor in (("s", 1.0), ("t", 1.0), ("s", 2.0)):
        save(stored(factor, suite=suite), branch="main")
    assert [(each.suite, each.runs) for each in listed()] == [("s", 5), ("t", 5)]
    assert compare("baseline:main", stored(2.0)).rows[0].verdict == "same"
    assert not compare("baseline:main", stored(2.0)).missing, "other suites are not asked for"
    history = read_records(here / ".vbench/history/main/s" / listed()[0].path.name)
    assert len(history) == 10


@pytest.fixture
def both(runs: Callable[..., list[Record]], tmp_path: Path) -> Callable[..., str]:
    """Results of two cases, `c3d` and `c3d_search`; `second` says how the latter ends, None leaves it out."""

    def write(day: int, *, factor: float = 1.0, second: str | None = "ok") -> str:
        folder = tmp_path / f"both{day}"
        records = runs(QUIET)
        if second is not None:
            values = QUIET if second == "ok" else []
            records += runs([factor * value for value in values], model="c3d_search")
        if second not in (None, "ok"):
            records += [make_failed(record, second) for record in runs(QUIET, model="c3d_search")]
        for record in records:
            at = f"2026-02-{day:02d}T00:00:{record.run_index:02d}"
            RecordStore(folder).append(record.model_copy(update={"started_at": at}))
        return str(folder)

    return write


def make_failed(record: Record, status: str) -> Record:
    return record.model_copy(update={"status": status, "metrics": ()})


@pytest.mark.parametrize("is_whole", [False, True])
def test_a_failed_case_keeps_its_baseline_and_is_reported(
    here: Path, both: Callable[..., str], capsys: pytest.CaptureFixture[str], is_whole: bool
) -> None:
    save(both(1), branch="main")
    command = ["baseline", "save", both(2, second="oom"), "--branch", "main"]
    assert run_command([*command, "--whole"] if is_whole else command) == 0
    assert "c3d_search 16x1x112 failed (oom): its baseline stays as it was" in capsys.readouterr().err
    assert [(each.cases, each.runs) for each in listed()] == [(2, 10)]
    assert compare("baseline:main", both(3)).exit_code() == 0
    assert compare("baseline:main", both(4, factor=3.0)).exit_code() == 1
    newest = {r.case.point.model: r.started_at[:10] for r in read_records(listed()[0].path)}
    assert newest == {"c3d": "2026-02-02", "c3d_search": "2026-02-01"}


def test_a_failed_case_without_a_baseline_is_reported_too(here: Path, both: Callable[..., str]) -> None:
    notes: list[str] = []
    save(both(1, second="timeout"), branch="main", on_note=notes.append)
    assert notes == ["c3d_search 16x1x112 failed (timeout): it has no baseline"]


def test_a_case_that_was_not_measured_stays_until_whole_is_given(
    here: Path, both: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    save(both(1), branch="main")
    part = both(2, second=None)
    assert run_command(["baseline", "save", part, "--branch", "main"]) == 0
    assert "kept as before 1 case of s not among these results: c3d_search" in capsys.readouterr().err
    assert compare("baseline:main", both(3, factor=3.0)).exit_code() == 1
    assert run_command(["baseline", "save", part, "--branch", "main", "--whole"]) == 0
    assert "dropped 1 case of s" in capsys.readouterr().err
    assert [each.cases for each in listed()] == [1]


def test_a_suite_that_no_longer_has_a_kind_of_case_drops_its_file(
    here: Path, stored: Callable[..., str], record: Callable[..., Record], params: Callable[[int], Metric]
) -> None:
    """Counts have a file of their own; it stays as it is if a suite has no case of that kind any more."""
    counts, failed = (record(*m, measures={"params": {}}, status=s) for m, s in (([params(7)], "ok"), ([], "error")))
    save(stored(1.0, counts), branch="main")
    save(stored(1.0, environment=OTHER), branch="main")
    notes: list[str] = []
    save(stored(1.0, failed), branch="main", is_whole=True)
    assert [each.cases for each in listed()] == [1, 1, 1], "a case that failed keeps its baseline"
    save(stored(), branch="main", is_whole=True, on_note=notes.append)
    assert "dropped 1 case of s" in notes[0]
    assert [each.fingerprint == "any" for each in listed()] == [False, False], "another machine's are not ours to drop"
    assert compare("baseline:main", stored()).exit_code() == 0


def test_a_suite_that_only_counts_drops_the_timings_of_this_machine(
    here: Path, stored: Callable[..., str], record: Callable[..., Record], params: Callable[[int], Metric]
) -> None:
    counts = record(params(7), measures={"params": {}})
    save(stored(1.0, counts), branch="main")
    save(stored(1.0, environment=OTHER), branch="main")
    RecordStore(here / "counts").append(counts)
    save(here / "counts", branch="main")
    assert len(listed()) == 3
    save(here / "counts", branch="main", is_whole=True)
    assert sorted((each.machine[:4], each.cases) for each in listed()) == [("A100", 1), ("any ", 1)]


def test_any_machine_is_accepted_if_no_machine_dependent_metric_decides(
    here: Path, stored: Callable[..., str], record: Callable[..., Record], params: Callable[[int], Metric]
) -> None:
    def both(name: str, number: int, at: str, gpu: str) -> str:
        environment = Environment(hardware={"gpu": gpu, "gpu_driver": "570.1"}, software=OTHER.software)
        metric = Metric(name="latency.p50_ms", value=1.0, unit="ms", better="lower")
        RecordStore(here / name).append(record(metric, params(number), started_at=at, environment=environment))
        return str(here / name)

    save(both("new", 8, "2026-03-01T00:00:00", "A100"), branch="main")
    save(both("old", 7, "2026-02-01T00:00:00", "B200"), branch="main")
    gate = {"params.total": "0"}
    row = next(
        each
        for each in compare("baseline:main", both("head", 8, "2026-03-02T00:00:00", "L4"), gate=gate).rows
        if each.metric == "params.total"
    )
    assert (row.verdict, row.base) == ("same", 8), "the last of the others"
    with pytest.raises(InputError, match="no baseline of machines like"):
        compare("baseline:main", str(here / "head"))


def test_promoting_a_part_leaves_the_rest(
    here: Path, both: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    save(both(1), branch="main")
    save(both(2, second=None), branch="dev")
    assert run_command(["baseline", "promote", "dev", "main"]) == 0
    assert "kept as before 1 case of s" in capsys.readouterr().err
    assert {each.branch: each.cases for each in listed()} == {"dev": 1, "main": 2}
    promote("dev", "main", is_whole=True)
    assert {each.branch: each.cases for each in listed()} == {"dev": 1, "main": 1}


def test_saving_the_same_twice_changes_no_file(here: Path, stored: Callable[..., str]) -> None:
    results = stored()
    save(results, branch="main")
    before = {path: path.read_bytes() for path in here.rglob("*.jsonl")}
    save(results, branch="main")
    assert {path: path.read_bytes() for path in here.rglob("*.jsonl")} == before
    assert len(before) == 2


@pytest.mark.parametrize("suite", ["../../../../outside", "", ".", "/outside", "A"])
def test_no_suite_of_a_record_leads_out_of_the_folder(here: Path, stored: Callable[..., str], suite: str) -> None:
    with pytest.raises(InputError, match="cannot be the suite of a baseline"):
        save(stored(suite=suite), branch="main")
    assert not list(here.rglob("*"))


@pytest.mark.parametrize("branch", ["", " ", ".", ".."])
def test_a_branch_needs_a_name(here: Path, stored: Callable[..., str], branch: str) -> None:
    save(stored(), branch="main")
    before = sorted(here.rglob("*"))
    assert run_command(["baseline", "promote", "main", branch]) == 2
    with pytest.raises(InputError, match="cannot be the branch of a baseline"):
        save(stored(), branch=branch)
    assert run_command(["baseline", "save", stored(), "--branch", branch]) == 2, "nor is it that of the checkout"
    assert run_command(["history", "latency.p50_ms", "c3d", "--branch", branch]) == 2
    assert sorted(here.rglob("*")) == before


def test_the_branch_is_that_of_the_folder_with_the_baselines(
    here: Path, stored: Callable[..., str], tmp_path: Path
) -> None:
    for name in ("here", "other"):
        (tmp_path / name).mkdir(exist_ok=True)
        subprocess.run(["git", "init", "-q", "-b", f"of-{name}"], cwd=tmp_path / name, check=True)
    assert run_command(["baseline", "save", stored(), "--folder", "../other"]) == 0
    assert [each.branch for each in listed(tmp_path / "other")] == ["of-other"]
    assert run_command(["history", "latency.p50_ms", "c3d", "--folder", "../other"]) == 0


def test_a_folder_that_cannot_be_written_is_wrong_input(
    here: Path, stored: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    (here / ".vbench").write_text("a file")
    assert run_command(["baseline", "save", stored(), "--branch", "main"]) == 2
    assert "cannot be written: Not a directory" in capsys.readouterr().err


KILLED = """
import os, sys
from bench.comparison import baselines
real = os.fsync
def killed(number):
    path = os.readlink(f"/proc/self/fd/{number}")
    if "history" in path:
        os.truncate(path, os.fstat(number).st_size // 2)
        os.kill(os.getpid(), 9)
    real(number)
os.fsync = killed
baselines.save(sys.argv[1], branch="main")
"""


def test_a_save_that_is_killed_leaves_a_history_that_can_be_read(here: Path, both: Callable[..., str]) -> None:
    save(both(1), branch="main")
    killed = subprocess.run([sys.executable, "-c", KILLED, both(2)], cwd=here, check=False)
    assert killed.returncode == -9
    [history] = here.glob(".vbench/history/main/s/*.jsonl")
    assert {record.started_at[:10] for record in read_records(history)} == {"2026-02-01"}
    for day in (2, 3):
        save(both(day), branch="main")
    assert len(read_records(history)) == 30


def test_the_torn_end_of_a_history_is_cut_off_before_more_is_added(here: Path, both: Callable[..., str]) -> None:
    save(both(1), branch="main")
    [history] = here.glob(".vbench/history/main/s/*.jsonl")
    history.write_bytes(history.read_bytes()[:-100])
    save(both(2), branch="main")
    assert len(read_records(history)) == 9 + 10
    save(both(1), branch="main")
    assert len(read_records(history)) == 10 + 10, "what was torn can be saved again"


def test_saves_at_the_same_time_lose_no_case(here: Path, runs: Callable[..., list[Record]]) -> None:
    """Jobs that measured a part of the suite each, and save it while others do."""
    names = [f"model{number}" for number in range(6)]
    for name in names:
        for record in runs(QUIET, model=name):
            RecordStore(here / name).append(record)
    program = (
        "import sys, time; from bench.comparison import baselines as b; read = b._runs_at\n"
        "def slow(path):\n    found = read(path); time.sleep(0.2); return found\n"
        "b._runs_at = slow; b.save(sys.argv[1], branch='main')"
    )
    jobs = [subprocess.Popen([sys.executable, "-c", program, name], cwd=here) for name in names]
    assert [job.wait(timeout=60) for job in jobs] == [0] * len(names)
    assert [(each.cases, each.runs) for each in listed()] == [(6, 30)]
    assert len(read_records(next(here.glob(".vbench/history/*/*/*.jsonl")))) == 30


def test_promoting_makes_one_branchs_baseline_anothers(here: Path, stored: Callable[..., str]) -> None:
    save(stored(1.0), branch="main")
    save(stored(2.0), branch="dev")
    assert run_command(["baseline", "promote", "dev", "main"]) == 0
    assert compare("baseline:main", stored(2.0)).rows[0].verdict == "same"
    assert run_command(["baseline", "promote", "dev", "dev"]) == 2
    assert run_command(["baseline", "promote", "nowhere", "main"]) == 2
    with pytest.raises(InputError):
        promote("dev", "dev")


def test_records_without_a_successful_run_are_no_baseline(
    here: Path, record: Callable[..., Record], tmp_path: Path
) -> None:
    RecordStore(tmp_path / "bad").append(record(status="error"))
    assert run_command(["baseline", "save", str(tmp_path / "bad"), "--branch", "main"]) == 2
    assert not (here / ".vbench").exists()


def test_lines_hold_no_raw_samples(here: Path, record: Callable[..., Record], latency: Callable[..., Metric]) -> None:
    metric = latency(1.0, samples=tuple(map(float, range(500))), interval=(0.9, 1.1))
    RecordStore(here / "results").append(record(metric, details={"noise": [1] * 999}, artifacts={"log": "x"}))
    [saved] = save(here / "results", branch="main")
    [line] = saved.path.read_text().splitlines()
    assert len(line) < 2000
    [kept] = read_records(saved.path)
    assert kept.metrics[0].interval == (0.9, 1.1)


def test_the_list_is_json_for_machines(
    here: Path, stored: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(["baseline", "list", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == []
    save(stored(), branch="main")
    assert run_command(["baseline", "list", "--json"]) == 0
    [told] = json.loads(capsys.readouterr().out)
    assert (told["branch"], told["suite"], told["cases"], told["runs"]) == ("main", "s", 1, 5)
    assert baseline_files("baseline:main", []) == [Path(told["path"])]


def test_accuracies_of_a_baseline_are_of_any_machine_but_how_long_they_took_is_not(
    here: Path, record: Callable[..., Record], tmp_path: Path
) -> None:
    """A gate on the accuracy alone may be answered by another machine's baseline; one on seconds may not."""

    def write(name: str, seconds: float, **given: object) -> str:
        top = Metric(name="accuracy.top1", value=50.0, unit="%", better="higher", interval=(48.0, 52.0))
        took = Metric(name="accuracy.train_seconds", value=seconds, unit="s", better="lower")
        RecordStore(tmp_path / name).append(record(top, took, measures={"accuracy": {}}, **given))
        return str(tmp_path / name)

    save(write("base", 100.0), branch="main")
    head = write("head", 300.0, environment=OTHER)
    assert "any" not in {each.fingerprint for each in listed()}
    for gate in (None, {"accuracy.top1": "0.5pt"}):
        rows = compare("baseline:main", head, gate=gate).rows
        assert [(row.verdict, row.is_deciding) for row in rows] == [("same", True), ("inconclusive", False)]
    with pytest.raises(InputError, match="H100"):
        compare("baseline:main", head, gate={"accuracy.train_seconds": "3%"})


def test_runs_of_an_ab_comparison_are_refused_as_a_baseline(here: Path, stored: Callable[..., str]) -> None:
    taken, notes = stored(2.0, details={"in_turns": "steps"}), list[str]()
    with pytest.raises(InputError, match="5 runs of vbench ab left out"):
        save(taken, branch="main")
    (saved,) = save([stored(suite="other"), taken], branch="main", on_note=notes.append)
    assert (saved.suite, saved.runs) == ("other", 5)
    assert notes == ["5 runs of vbench ab left out: a baseline holds runs that were measured alone"]
