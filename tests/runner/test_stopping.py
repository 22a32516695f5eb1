"""Ctrl-C, SIGTERM and SIGHUP during a run, with real processes."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.core.process import LINEAGE
from bench.store import read_records

MEASURE = '''
import pathlib, signal, time
from bench import Metric, register_measure

@register_measure("slow", depends_on={"model", "args", "clip", "batch"}, version=1)
def slow(case, *, seconds: float = 60.0, ignores: bool = False):
    """Waits."""
    if ignores:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    if case.point.batch == 2:
        pathlib.Path("waiting").touch()
    time.sleep(seconds if case.point.batch == 2 and not pathlib.Path("hurry").exists() else 0)
    return [Metric(name="slow.done", value=1, unit="")]
'''
SUITE = """\
suite: slow
plugins: [slow_measure]
models: [{name: c3d_search, width: 0.05, num_classes: 4}]
matrix: {clip: [4x1x16], batch: [1, 2, 3]}
measure: {slow: {OPTIONS}}
"""


@pytest.fixture(autouse=True)
def _hang_up_is_not_ignored() -> Iterator[None]:
    """Under nohup it is, by this process and by all that it starts."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv(LINEAGE, f"stopping-{tmp_path.name}")
    (tmp_path / "slow_measure.py").write_text(MEASURE)
    return tmp_path


def start(folder: Path, *, options: str = "") -> "subprocess.Popen[str]":
    """A run that has finished its first case and waits in its second."""
    (folder / "slow.yaml").write_text(SUITE.replace("OPTIONS", options))
    command = [sys.executable, "-m", "bench", "run", "slow.yaml", "--out", "res"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    until((folder / "waiting").exists, process)
    return process


def until(condition: object, process: "subprocess.Popen[str]") -> None:
    assert callable(condition)
    deadline = time.monotonic() + 90
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)


def children_left(token: str) -> list[str]:
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and entry.name != str(os.getpid()) and token in (entry / "environ").read_text():
                found.append((entry / "cmdline").read_text())
        except (OSError, UnicodeDecodeError):
            continue
    return found


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_stopped_run_records_the_case_in_flight_and_resumes(folder: Path, number: signal.Signals) -> None:
    process = start(folder)
    began = time.monotonic()
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert time.monotonic() - began < 20
    assert process.returncode == 128 + number
    assert "the same command continues" in err
    assert "Traceback" not in err
    assert [record.status for record in read_records("res")] == ["ok", "interrupted"]
    assert not children_left(os.environ[LINEAGE])
    again = start_and_finish(folder)
    assert again.returncode == 0, again.stderr
    assert [record.status for record in read_records("res")] == ["ok", "interrupted", "ok", "ok"]
    assert [record.case.point.batch for record in read_records("res")] == [1, 2, 2, 3]


def start_and_finish(folder: Path) -> "subprocess.CompletedProcess[str]":
    # A file and not an edit of the measure, which would make the first result stale.
    (folder / "hurry").touch()
    command = [sys.executable, "-m", "bench", "run", "slow.yaml", "--out", "res"]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_a_second_signal_ends_a_worker_that_ignores_the_first(folder: Path) -> None:
    process = start(folder, options="ignores: true")
    process.send_signal(signal.SIGINT)
    time.sleep(1.0)
    assert process.poll() is None, "the first signal waits for the worker to save its state"
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=30)
    assert process.returncode == 130
    last = read_records("res")[-1]
    assert (last.status, last.error and last.error.message) == ("interrupted", "stopped without saving its state")
    assert not children_left(os.environ[LINEAGE])


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_a_killed_run_leaves_no_worker(folder: Path) -> None:
    process = start(folder)
    process.kill()
    process.communicate()
    deadline = time.monotonic() + 10
    while children_left(os.environ[LINEAGE]):
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
@pytest.mark.parametrize("where", ["plug-in", "model"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.slow
def test_a_signal_while_planning_ends_in_one_line_and_leaves_no_process(
    folder: Path, number: signal.Signals, where: str
) -> None:
    wait = "import pathlib, time; pathlib.Path('waiting').touch(); time.sleep(90)\n"
    (folder / "waits.py").write_text(wait if where == "plug-in" else f"def net(num_classes=2):\n    {wait}")
    plugins, model = ("[waits]", "c3d") if where == "plug-in" else ("[]", "waits:net")
    (folder / "s.yaml").write_text(
        f"suite: s\nplugins: {plugins}\nmodels: ['{model}']\nmatrix: {{clip: [2x1x8]}}\nmeasure: {{params: {{}}}}\n"
    )
    command = [sys.executable, "-m", "bench", "plan", "s.yaml"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    until((folder / "waiting").exists, process)
    process.send_signal(number)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 128 + number
    assert (out, len(err.splitlines())) == ("", 1), err
    assert not children_left(os.environ[LINEAGE])
