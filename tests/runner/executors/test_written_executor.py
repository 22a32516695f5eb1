"""The executor that the documentation writes works as it stands."""

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from time import monotonic, sleep

import pytest

from bench.cli.app import run_command
from bench.runner import executors
from bench.runner.folder_status import executor_class, executor_names

PAGE = Path(__file__).parents[3] / "docs" / "executor.md"
# In place of ssh: runs the command here, in a session of its own like that of a remote shell.
SSH = '#!/bin/sh\n[ "$1" = nowhere ] && echo "no route to host" >&2 && exit 255\nexec setsid sh -c "$2"\n'
SUITE = "suite: counted\nmodels: [{name: c3d_search, width: 0.02}]\nmeasure: {params: {}}\n"


@pytest.fixture
def ssh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Puts the executor of the page into the open folder, and a program `ssh` into the path."""
    [code] = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    folder, programs = tmp_path / "executors", tmp_path / "bin"
    for each in (folder, programs):
        each.mkdir()
    (folder / "ssh.py").write_text(code, encoding="utf-8")
    (programs / "ssh").write_text(SSH)
    (programs / "ssh").chmod(0o755)
    monkeypatch.setattr(executors, "__path__", [*executors.__path__, str(folder)])
    monkeypatch.setenv("PATH", str(programs), prepend=":")
    yield
    sys.modules.pop(f"{executors.__name__}.ssh", None)


@pytest.mark.usefixtures("ssh")
def test_it_is_found_by_the_name_of_its_file() -> None:
    assert "ssh" in executor_names()
    assert executor_class("ssh").name == "ssh"


@pytest.mark.usefixtures("ssh")
def test_it_refuses_missing_hosts_and_one_that_does_not_answer(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "s.yaml").write_text(SUITE)
    run = ["run", str(tmp_path / "s.yaml"), "--out", str(tmp_path / "results"), "--executor", "ssh"]
    assert run_command(run) == 2
    assert "needs hosts, such as --job-option hosts=gpu1,gpu2" in capsys.readouterr().err
    assert run_command([*run, "--job-option", "hosts=nowhere"]) == 2
    assert "nowhere does not answer: no route to host" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.usefixtures("ssh")
def test_its_workers_run_a_suite(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "s.yaml").write_text(SUITE)
    results = tmp_path / "results"
    run = ["run", str(tmp_path / "s.yaml"), "--out", str(results), "--executor", "ssh", "--job-option", "hosts=a,b"]
    assert run_command([*run, "--log-json"]) == 0
    events = [json.loads(line)["event"] for line in capsys.readouterr().out.splitlines()]
    assert (events[0], events[-1]) == ("submitted", "ended")
    assert run_command([*run, "--log-json"]) == 0
    assert [json.loads(line)["event"] for line in capsys.readouterr().out.splitlines()] == ["done"]
    [file] = results.glob("records.*.jsonl")
    assert json.loads(file.read_text())["status"] == "ok"
    [submission] = (results / "submissions").glob("*.json")
    jobs = json.loads(submission.read_text())["jobs"]
    deadline = monotonic() + 20
    while any(state.phase == "running" for state in executor_class("ssh").states(jobs)) and monotonic() < deadline:
        sleep(0.2)
    assert [state.phase for state in executor_class("ssh").states(jobs)] == ["ended"] * len(jobs)
