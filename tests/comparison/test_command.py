"""`vbench compare` as people call it: folders, git, options, exit codes."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from bench.cli.app import run_command
from bench.comparison.runs import open_side
from bench.core.schema import Metric, Record
from bench.store import RecordStore

QUIET = [10.0, 10.02, 9.98, 10.01, 9.99]


@pytest.fixture
def stored(tmp_path: Path, runs: Callable[..., list[Record]]) -> Callable[..., str]:
    """Latencies as a results folder, with a gate where one is given."""

    def write(name: str, factor: float, gate: dict[str, object] | None = None) -> str:
        store = RecordStore(tmp_path / name / "s")
        for record in runs([factor * value for value in QUIET]):
            store.append(record)
        store.write_suite({"name": "s", "gate": gate or {}})
        return str(tmp_path / name)

    return write


def test_the_exit_code_is_that_of_the_comparison(
    stored: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    base, head = stored("base", 1.0), stored("head", 1.1)
    assert run_command(["compare", base, base]) == 0
    assert run_command(["compare", base, head]) == 1
    out = capsys.readouterr().out
    assert "worse" in out
    assert "+10.0" in out
    assert run_command(["compare", base, head, "--fail-on", "inconclusive"]) == 0
    assert run_command(["compare", base, head, "--fail-on", "none"]) == 0
    assert run_command(["compare", base, head, "--gate", "latency.p50_ms=20%"]) == 0
    assert run_command(["compare", base, head, "--gate", "energy.j_per_clip=20%"]) == 3


@pytest.mark.parametrize(
    "options", [["--gate", "latency=3apples"], ["--gate", "3%"], ["--fail-on", "regresion"], ["--write", "x.pdf"]]
)
def test_wrong_options_are_exit_code_2(
    stored: Callable[..., str], options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    base = stored("base", 1.0)
    assert run_command(["compare", base, base, *options]) == 2
    assert "vbench:" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("metric", "line"),
    [
        ("latency.p50_m", "unknown metric 'latency.p50_m'; did you mean: latency.p50_ms"),
        ("latncy.*", "unknown metric 'latncy.*'"),
        ("energy.j_per_clp", "unknown metric 'energy.j_per_clp'; did you mean: energy.j_per_clip"),
        ("latency.p50_m{batch=8}", "unknown metric 'latency.p50_m'"),
    ],
)
def test_a_misspelt_metric_is_wrong_input_and_not_incomplete(
    stored: Callable[..., str], metric: str, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    base = stored("base", 1.0)
    assert run_command(["compare", base, base, "--gate", f"{metric}=3%", "--gate", "latency.p50_ms=3%"]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith(f"vbench: --gate: {line}")


def test_a_metric_that_only_stored_records_know_can_be_gated(tmp_path: Path, record: Callable[..., Record]) -> None:
    """Such as one of a plug-in; in the records of another case it may be missing, which is incomplete."""
    of_plugin = Metric(name="sharpness.db", value=3.0, unit="dB", better="higher", is_exact=True)
    base, head = RecordStore(tmp_path / "base"), RecordStore(tmp_path / "head")
    base.append(record(of_plugin, model="c3d", measures={"sharpness": {}}))
    head.append(record(of_plugin, model="c3d", measures={"sharpness": {}}))
    sides = [str(base.folder), str(head.folder)]
    assert run_command(["compare", *sides, "--gate", "sharpness.db=3%"]) == 0
    assert run_command(["compare", *sides, "--gate", "sharpness.*=3%"]) == 0
    assert run_command(["compare", *sides, "--gate", "sharpnes.db=3%"]) == 2
    other = RecordStore(tmp_path / "other")
    other.append(record(of_plugin, model="x3d", measures={"sharpness": {}}))
    assert run_command(["compare", str(base.folder), str(other.folder), "--gate", "sharpness.db=3%"]) == 3


def test_a_path_that_does_not_exist_is_wrong_input(stored: Callable[..., str], tmp_path: Path) -> None:
    assert run_command(["compare", stored("base", 1.0), str(tmp_path / "nowhere")]) == 2


def test_the_gate_of_heads_suite_decides_and_the_command_line_goes_before_it(stored: Callable[..., str]) -> None:
    base = stored("base", 1.0, {"latency.p50_ms": {"max_rise": "3%"}})
    head = stored("head", 1.1, {"latency.p50_ms": {"max_rise": "15%"}})
    assert run_command(["compare", base, head]) == 0
    assert run_command(["compare", base, head, "--gate", "latency.p50_ms=5%"]) == 1
    assert run_command(["compare", base, stored("bare", 1.1)]) == 1


def test_all_forms_come_from_one_run(
    stored: Callable[..., str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base, head = stored("base", 1.0), stored("head", 1.1)
    files = [tmp_path / name for name in ("a.md", "a.json", "a.smaller.json")]
    options = [text for file in files for text in ("--write", str(file))]
    assert run_command(["compare", base, head, "--annotations", "--junit", str(tmp_path / "a.xml"), *options]) == 1
    assert capsys.readouterr().out.startswith("::error")
    assert all(file.stat().st_size for file in [*files, tmp_path / "a.xml"])
    assert json.loads(files[1].read_text())["exit_code"] == 1


@pytest.mark.parametrize(
    "options",
    [["--write", "x.pdf"], ["--junit", "taken/x.xml"], ["--write", "folder.md"], ["--json", "--markdown"]],
)
@pytest.mark.parametrize("command", [["compare", "nowhere", "nowhere"], ["ab", "nowhere", "nowhere", "nowhere.yaml"]])
def test_outputs_that_cannot_be_given_are_refused_before_anything_is_read(
    command: list[str],
    options: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "taken").write_text("a file")
    (tmp_path / "folder.md").mkdir()
    assert run_command([*command, *options]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert options[-1].removeprefix("--") in said
    assert "nowhere" not in said


@pytest.mark.parametrize("other", ["v.xml", "./v.xml", "link.xml"])
def test_one_file_cannot_hold_two_forms(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], other: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("link.xml").symlink_to("v.xml")
    assert run_command(["compare", "nowhere", "nowhere", "--write", "v.xml", "--junit", other]) == 2
    assert "twice" in capsys.readouterr().err
    assert run_command(["compare", "nowhere", "nowhere", "--write", "v.xml", "--write", other]) == 2
    assert "twice" in capsys.readouterr().err


def test_folders_of_outputs_are_made(stored: Callable[..., str], tmp_path: Path) -> None:
    base, head, file = stored("base", 1.0), stored("head", 1.1), tmp_path / "new" / "deep" / "x"
    options = ["--junit", f"{file}.xml", "--write", f"{file}.md"]
    assert run_command(["compare", base, head, *options]) == 1
    assert sorted(each.name for each in file.parent.iterdir()) == ["x.md", "x.xml"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a disk that is full is /dev/full")
@pytest.mark.parametrize(("factor", "code"), [(1.0, 3), (1.1, 1)])
def test_a_verdict_is_printed_though_a_file_cannot_be_written(
    stored: Callable[..., str], tmp_path: Path, capsys: pytest.CaptureFixture[str], factor: float, code: int
) -> None:
    base, head = stored("base", 1.0), stored("head", factor)
    (tmp_path / "full.xml").symlink_to("/dev/full")
    other = tmp_path / "other.md"
    options = ["--junit", str(tmp_path / "full.xml"), "--write", str(other)]
    assert run_command(["compare", base, head, *options]) == code
    printed = capsys.readouterr()
    assert "latency.p50_ms" in printed.out
    assert printed.err.startswith("vbench: ")
    assert "No space left" in printed.err
    assert other.is_file()


def test_without_entries_an_old_file_is_removed(
    stored: Callable[..., str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base, head, file = stored("base", 1.0), stored("head", 1.1), tmp_path / "a.bigger.json"
    file.write_text("[]")
    assert run_command(["compare", base, head, "--write", str(file)]) == 1
    assert not file.exists()
    assert "a.bigger.json is not written" in capsys.readouterr().err


def test_standard_output_holds_only_machine_readable_text(
    stored: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    base, head = stored("base", 1.0), stored("head", 1.1)
    assert run_command(["compare", base, head, "--json", "--annotations"]) == 1
    printed = capsys.readouterr()
    assert json.loads(printed.out)["exit_code"] == 1
    assert printed.err.startswith("::error")
    assert run_command(["compare", base, head, "--markdown", "--annotations"]) == 1
    printed = capsys.readouterr()
    assert printed.out.startswith("### ")
    assert "::error" not in printed.out


@pytest.mark.parametrize(("factor", "code", "form"), [(1.0, 0, []), (1.1, 1, ["--json"])])
def test_a_reader_that_leaves_early_changes_no_exit_code(
    stored: Callable[..., str], tmp_path: Path, factor: float, code: int, form: list[str]
) -> None:
    base, head = stored("base", 1.0), stored("head", factor)
    command = [sys.executable, "-m", "bench.cli.app", "compare", base, head, "--write", str(tmp_path / "x.md"), *form]
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writing)
    assert (done.returncode, done.stderr) == (code, "")
    assert (tmp_path / "x.md").is_file()


def commit_all(folder: Path) -> None:
    """All of `folder` as a commit of the branch main."""
    git = ["git", "-c", "user.name=t", "-c", "user.email=t@t"]
    for step in (["init", "-q", "-b", "main"], ["add", "."], ["commit", "-q", "-m", "results"]):
        subprocess.run([*git, *step], cwd=folder, check=True)


def test_records_kept_in_git_are_compared(
    stored: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    head = stored("results", 1.0)
    commit_all(tmp_path)
    stored("other", 1.1)
    monkeypatch.chdir(tmp_path)
    assert run_command(["compare", "git:main:results", head]) == 0
    assert run_command(["compare", "git:main", str(tmp_path / "other")]) == 1
    for wrong in ("git:nowhere", "git:main:other", "git:--help"):
        assert run_command(["compare", wrong, head]) == 2


@pytest.mark.parametrize("name", ["results", "results/s", "results/s/records.jsonl"])
def test_a_gate_kept_in_git_decides_by_whatever_name_its_records_are_given(
    stored: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """2 % more are within what is allowed unasked, and beyond what this suite allows."""
    gate: dict[str, object] = {"latency.p50_ms": {"max_rise": "1%"}}
    base = stored("base", 1.0)
    stored("results", 1.02, gate)
    predictions = tmp_path / "results/s/artifacts/c/predictions.parquet"
    predictions.parent.mkdir(parents=True)
    predictions.write_bytes(b"answers")
    commit_all(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert run_command(["compare", base, f"git:main:{name}"]) == 1
    with open_side(f"git:main:{name}") as side:
        [case] = side.cases.values()
        folder = case.runs[0].folder
        assert folder is not None
        assert (folder / "artifacts/c/predictions.parquet").read_bytes() == b"answers"
    monkeypatch.chdir(tmp_path / "results/s")
    assert run_command(["compare", base, "git:main:records.jsonl"]) == 1


def test_comparing_imports_neither_torch_nor_pandas(stored: Callable[..., str]) -> None:
    base = stored("base", 1.0)
    code = (
        "import sys\nfrom bench.cli.app import run_command\n"
        f"assert run_command(['compare', {base!r}, {base!r}, '--json']) == 0\n"
        "assert not {'torch', 'pandas', 'torchvision'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("where", ["gpu", "title", "note"])
@pytest.mark.parametrize("form", [[], ["--markdown"], ["--annotations"]])
def test_text_of_a_record_never_starts_a_log_command(
    tmp_path: Path,
    runs: Callable[..., list[Record]],
    capsys: pytest.CaptureFixture[str],
    where: str,
    form: list[str],
) -> None:
    """GitHub obeys a line that begins with `::`, though indented; who wrote the records is not who runs the gate."""
    evil = "x\n  ::error title=all is well::approved\r\n::warning::y"
    for name in ("base", "head"):
        given = {"model": evil} if where == "title" else {}
        for record in runs([None, *QUIET] if where == "note" else QUIET, **given):
            hardware = {"gpu": f"{name}{evil}"} if where == "gpu" else {"gpu": "H100"}
            metrics = tuple(metric.model_copy(update={"note": evil}) for metric in record.metrics)
            if where == "note" and name == "head":
                metrics = tuple(metric.model_copy(update={"value": None}) for metric in metrics)
            environment = record.environment.model_copy(update={"hardware": hardware, "state": {"commit": evil}})
            given_record = record.model_copy(update={"environment": environment, "metrics": metrics})
            RecordStore(tmp_path / name).append(given_record)
    base, head = str(tmp_path / "base"), str(tmp_path / "head")
    for command in (
        ["compare", base, head, *form],
        ["compare", base, head, "--across", *form],
        ["history", "latency.p50_ms", "nothing like it", "--from", base],
        ["history", "latency.p50_ms", "*", "--from", base],
        ["baseline", "save", base, "--branch", "main", "--folder", str(tmp_path)],
        ["baseline", "save", head, "--branch", "main", "--folder", str(tmp_path)],
        ["compare", f"baseline:main:{tmp_path}", head],
        ["baseline", "list", "--folder", str(tmp_path)],
    ):
        run_command(command)
    printed = capsys.readouterr()
    lines = (printed.out + printed.err).splitlines()
    assert any("approved" in line for line in lines)
    assert not [line for line in lines if line.strip().startswith(("::error title=all is well", "::warning::y"))]


def test_a_page_of_a_comparison_has_the_verdicts_of_the_terminal(stored: Callable[..., str], tmp_path: Path) -> None:
    file = tmp_path / "new" / "page.html"
    assert run_command(["compare", stored("base", 1.0), stored("head", 1.1), "--html", str(file)]) == 1
    html = file.read_text(encoding="utf-8")
    assert "+10.0" in html
    assert "latency.p50_ms" in html
    assert html.count("http") == html.count("http-equiv")


def test_a_page_that_cannot_be_written_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    assert run_command(["compare", "nowhere", "nowhere", "--html", str(tmp_path)]) == 2
