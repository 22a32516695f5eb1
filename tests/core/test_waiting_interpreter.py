"""An interpreter that is started ahead: it imports, waits without using a processor, and becomes one process."""

import os
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from bench.core.fork_server import ForkServerError
from bench.core.process import ChildProcess, tail
from bench.core.waiting_interpreter import WaitingInterpreter

MODULE = """
import os, subprocess, sys, time

LOADED = []

def preload():
    LOADED.append(os.getpid())

def main():
    from bench.core.process import ReplyPipe, read_request
    request = read_request()
    print("noise on standard output")
    ReplyPipe().send(value=eval(request["value"]), loaded=LOADED)
"""


@pytest.fixture(autouse=True)
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "scripted_waiting.py").write_text(MODULE)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)


@pytest.fixture
def waiting() -> Iterator[WaitingInterpreter]:
    started = WaitingInterpreter("scripted_waiting:preload")
    yield started
    started.close()


def answer_of(waiting: WaitingInterpreter, value: str, *, log: Path | None = None) -> dict[str, object]:
    with ChildProcess("scripted_waiting:main", {"value": value}, log=log, start=waiting.start) as child:
        return next(child.messages(timeout_s=60))


def test_it_becomes_the_process_that_is_asked_for(
    waiting: WaitingInterpreter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the environment, request, streams and session of that process, and what it has imported already."""
    assert waiting.is_ready(within_s=60)
    monkeypatch.setenv("SET_AFTER_ITS_START", "yes")
    log = tmp_path / "log"
    expression = "[os.environ.get('SET_AFTER_ITS_START'), os.getpid(), os.getsid(0)]"
    answer = answer_of(waiting, expression, log=log)
    [pid] = answer["loaded"]  # type: ignore[misc]
    assert answer["value"] == ["yes", pid, pid]
    assert tail(log) == "noise on standard output"


def test_it_can_be_called_before_it_is_ready(waiting: WaitingInterpreter) -> None:
    assert answer_of(waiting, "1 + 1")["value"] == 2


def test_it_uses_no_processor_time_while_it_waits(waiting: WaitingInterpreter) -> None:
    assert waiting.is_ready(within_s=60)
    stat = Path(f"/proc/{waiting._process.pid}/stat")

    def ticks() -> int:
        return sum(map(int, stat.read_text().rpartition(")")[2].split()[11:13]))

    before = ticks()
    deadline = time.monotonic() + 0.3
    while time.monotonic() < deadline:  # others compute
        sum(range(1000))
    assert ticks() == before


def test_one_that_cannot_preload_is_not_ready_and_cannot_be_started() -> None:
    broken = WaitingInterpreter("scripted_waiting:nothing")
    assert not broken.is_ready(within_s=60)
    broken._process.wait(60)
    with pytest.raises(ForkServerError):
        answer_of(broken, "1")


def test_one_that_is_not_needed_ends_when_it_is_closed() -> None:
    spare = WaitingInterpreter("scripted_waiting:preload")
    spare.close()
    assert spare._process.returncode is not None


def test_each_has_a_memory_layout_of_its_own() -> None:
    """Addresses of two forked processes are alike; those of new interpreters are random, if the system does that."""
    if Path("/proc/sys/kernel/randomize_va_space").read_text().strip() == "0":
        pytest.skip("this system does not randomise memory layouts")
    found = []
    for _ in range(2):
        one = WaitingInterpreter("scripted_waiting:preload")
        try:
            found.append(answer_of(one, "id(LOADED)")["value"])
        finally:
            one.close()
    assert found[0] != found[1]


def test_nothing_that_it_forked_lives_on(waiting: WaitingInterpreter, tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    fork = f"os.fork() or (os.setsid(), open({str(pid_file)!r}, 'w').write(str(os.getpid())), time.sleep(60))"
    assert int(str(answer_of(waiting, fork)["value"])) > 0
    deadline = time.monotonic() + 10
    while (not pid_file.exists() or not pid_file.read_text()) and time.monotonic() < deadline:
        time.sleep(0.01)
    if pid_file.exists() and (pid := pid_file.read_text()):
        assert has_ended(int(pid), within_s=10)


def has_ended(pid: int, *, within_s: float) -> bool:
    """Whether it ends: a killed process exists until its new parent, which is not ours, has asked for its exit code."""
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        with suppress(psutil.NoSuchProcess):
            if psutil.Process(pid).status() not in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD):
                time.sleep(0.01)
                continue
        return True
    return False
