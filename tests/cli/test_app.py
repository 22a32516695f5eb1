"""The command line: exit codes, and one clear line for every error that a user can fix."""

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from bench.cli import app as cli
from bench.cli.app import FAULT, run_command
from bench.core.errors import StopSignal


def outcome(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = run_command(list(arguments))
    shown = capsys.readouterr()
    return code, shown.out, shown.err


@pytest.mark.parametrize(
    ("shape", "part"),
    [
        ("1x3x16", "five numbers"),
        ("1x3x16x112x0", "at least 1"),
        ("1,3,16,112,112", "five numbers"),
        ("1x3x16x112x112,2x3x16x112x112", "same batch"),
        ("axbxcxdxe", "five numbers"),
    ],
)
def test_a_bad_shape_is_one_line_and_exit_2(capsys: pytest.CaptureFixture[str], shape: str, part: str) -> None:
    code, out, err = outcome(capsys, "profile", "c3d", "--input", shape)
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    assert part in err


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["c3dd"], "did you mean: c3d"),
        (["c3d", "--input", "1x3x16x5x5"], "96"),
        (["c3d", "--input", "1x2x16x112x112"], "3"),
        (["c3d", "--num-classes", "0"], "at least 1"),
        (["c3d", "--arg", "kernel_dept=3"], "kernel_depth"),
        (["c3d", "--arg", "nonsense"], "NAME=VALUE"),
        (["c3d", "--counters", "fvcor"], "fvcore"),
        (["c3d", "--views", "10"], "10x3"),
        (["c3d", "--weights", "nowhere.pth"], "nowhere.pth"),
        (["c3d", "--arg", "num_classes=abc"], "num_classes"),
        (["c3d", "--arg", "num_classes=-1"], "at least 1"),
        (["c3d", "--arg", "num_classes=5", "--num-classes", "6"], "given twice"),
        (["c3d", "--num-classes", "99999999999999999999"], "at most 1,000,000,000"),
        (["c3d", "--device", "nope"], "unknown device 'nope'; allowed: meta, cpu, cuda"),
        (["c3d", "--device", "cuda:x"], "unknown device"),
        (["c3d", "--input", "1x3x99999999x99999x99999"], "elements"),
    ],
)
def test_operations_that_a_model_does_not_support_are_one_line_and_exit_2(
    capsys: pytest.CaptureFixture[str], arguments: list[str], part: str
) -> None:
    code, out, err = outcome(capsys, "profile", *arguments)
    assert (code, out) == (2, "")
    assert part in err
    assert "Traceback" not in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("option", ["--csv", "--html"])
def test_unwritable_outputs_are_one_line_and_exit_2(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, option: str
) -> None:
    (tmp_path / "file").write_text("")
    code, out, err = outcome(capsys, "profile", "c3d", option, str(tmp_path / "file" / "layers"))
    assert (code, out) == (2, "")  # before the model is counted
    assert "cannot be written" in err
    assert err.count("\n") == 1


def test_the_folder_of_a_table_is_created(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert outcome(capsys, "profile", "c3d", "--csv", str(tmp_path / "new" / "layers.csv"))[0] == 0
    assert (tmp_path / "new" / "layers.csv").read_text().startswith("path,")


@pytest.mark.parametrize("command", ["plan", "run"])
@pytest.mark.parametrize("plugins", ["[5]", "[no_such_plugin]", "5", "[[a]]"])
def test_values_that_are_not_plugins_exit_2(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, command: str, plugins: str
) -> None:
    (tmp_path / "s.yaml").write_text(f"suite: s\nmodels: [c3d]\nmeasure: {{params: {{}}}}\nplugins: {plugins}\n")
    code, _, err = outcome(capsys, command, str(tmp_path / "s.yaml"), "--out", str(tmp_path / "out"))
    assert code == 2
    assert "plug" in err


def test_a_missing_suite_and_missing_results_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = outcome(capsys, "plan", "nowhere.yaml")
    assert code == 2
    assert err.startswith("vbench: nowhere.yaml is neither a file nor a suite of vbench; allowed: c3d_kernel_depth, ")
    code, _, err = outcome(capsys, "report", "nowhere")
    assert code == 2
    assert "no records.jsonl in nowhere" in err


def test_unknown_commands_and_options_are_usage_errors(capsys: pytest.CaptureFixture[str]) -> None:
    assert outcome(capsys, "prfile")[0] == 2
    assert outcome(capsys, "plan", "--nope")[0] == 2


def test_an_internal_error_exits_with_70_and_a_traceback_file(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*arguments: object, **rest: object) -> None:
        raise KeyError("inner")

    monkeypatch.setattr(cli, "app", broken)
    code, _, err = outcome(capsys, "doctor")
    assert code == FAULT
    file = Path(err.rsplit(" ", 1)[1].strip())
    assert "KeyError" in file.read_text()
    file.unlink()


@pytest.mark.parametrize(
    ("stop", "code"),
    [(KeyboardInterrupt(), 130), (StopSignal(signal.SIGTERM), 143), (StopSignal(signal.SIGHUP), 129)],
    ids=["SIGINT", "SIGTERM", "SIGHUP"],
)
def test_a_stopped_command_ends_with_128_and_the_signal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, stop: KeyboardInterrupt, code: int
) -> None:
    def raising() -> None:
        raise stop

    monkeypatch.setattr("bench.runner.doctor.check_machine", lambda **_: raising())
    found, _, err = outcome(capsys, "doctor")
    assert found == code
    assert "stopped; finished results are stored, and the same command continues from here" in err


def test_doctor_lists_its_checks(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = outcome(capsys, "doctor")
    assert code == 0
    assert "torch" in out
    assert "CPU" in out


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.ENAMETOOLONG])
def test_system_errors_are_one_line_and_exit_2(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(**_: object) -> None:
        raise OSError(number, os.strerror(number), "/full/disk")

    monkeypatch.setattr("bench.runner.doctor.check_machine", refuse)
    code, _, err = outcome(capsys, "doctor")
    assert code == 2
    assert err == f"vbench: /full/disk: {os.strerror(number)}\n"


@pytest.mark.parametrize("number", [errno.EISDIR, errno.ENOTDIR, errno.EEXIST])
def test_a_file_in_the_place_of_a_folder_is_wrong_input_and_no_fault(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(**_: object) -> None:
        raise OSError(number, os.strerror(number), "results")

    monkeypatch.setattr("bench.runner.doctor.check_machine", refuse)
    code, _, err = outcome(capsys, "doctor")
    reason = "it is a file, not a folder" if number == errno.EEXIST else os.strerror(number)
    assert (code, err) == (2, f"vbench: results: {reason}\n")


def test_a_fault_is_reported_even_if_no_traceback_can_be_written(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bench.runner.doctor.check_machine", lambda **_: {}["missing"])
    monkeypatch.setattr("tempfile.tempdir", "/dev/null/nowhere")
    code, _, err = outcome(capsys, "doctor")
    assert code == FAULT
    assert "a fault of vbench itself: KeyError: 'missing'" in err


def test_a_removed_working_folder_is_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    code, _, err = outcome(capsys, "plan", "quickstart")
    assert code == 2
    assert err == "vbench: the working folder was removed; change to a folder that exists\n"


@pytest.mark.parametrize("arguments", [["models"], ["help", "environment"], ["suites", "list", "--json"]])
def test_a_reader_that_has_gone_is_no_verdict(arguments: list[str]) -> None:
    """Neither 0, with which a gate passes, nor 1, with which it finds a regression."""
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "bench", *arguments]
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, "")
