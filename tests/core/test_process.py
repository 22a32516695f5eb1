"""The supervisor of child processes: results, prints, hangs, deaths and what children leave behind."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from bench.core.process import (
    LINEAGE,
    BoundedLog,
    ChildProcess,
    ChildTimeoutError,
    Finished,
    LastBytes,
    SupervisedProcess,
    run_supervised,
    tail,
)

# A child that does what its request says, before or after it has sent its result.
SCRIPTED = """
import ctypes, os, signal, subprocess, sys, threading, time
from bench.core.process import ReplyPipe, read_request
request = read_request()
reply = ReplyPipe()
print("noise on standard output")
exec(request.get("before", ""))
for number in range(request.get("times", 0)):
    reply.send(number=number, pid=os.getpid())
exec(request.get("after", ""))
"""
linux_only = pytest.mark.skipif(sys.platform != "linux", reason="asks the Linux kernel")


@pytest.fixture(autouse=True)
def _scripted_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "scripted.py").write_text(SCRIPTED)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PYTHONSAFEPATH", raising=False)


def outcome_of(request: dict[str, Any], *, timeout_s: float = 20.0, log: Path | None = None) -> tuple[int, int, float]:
    """Messages, exit code and seconds of a child with this request."""
    began = time.monotonic()
    with ChildProcess("scripted", request, log=log) as child:
        messages = list(child.messages(timeout_s=timeout_s))
    return len(messages), child.end(), time.monotonic() - began


@linux_only
def test_an_exit_between_two_polls_wakes_the_one_who_waits() -> None:
    """A process may exit after its supervisor saw it running, with all its output read."""
    with SupervisedProcess([sys.executable, "-c", ""], stdin=b"") as process:
        while not process.has_exited:
            time.sleep(0.01)
        began = time.monotonic()
        process.watch(20.0)
        assert time.monotonic() - began < 40
        process.watch(0.2)  # its end was reported: it is not reported again and again
        assert time.monotonic() - began >= 0.2


def test_messages_arrive_in_order_and_prints_go_to_the_log(tmp_path: Path) -> None:
    log = tmp_path / "logs" / "log"
    with ChildProcess("scripted", {"times": 3}, log=log) as child:
        assert [message["number"] for message in child.messages()] == [0, 1, 2]
    assert child.end() == 0
    assert "noise" in tail(log)


@pytest.mark.parametrize("name", ["bench/__init__.py", "bench/speed.py"])
def test_a_child_imports_its_parents_vbench_despite_another_package_bench(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    (tmp_path / name).parent.mkdir()
    (tmp_path / name).write_text("")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with ChildProcess("scripted", {"times": 1}) as child:
        assert len(list(child.messages(timeout_s=30))) == 1, child.last_error()


HANGS = {
    "sleep": "time.sleep(60)",
    "stopped": "os.kill(os.getpid(), signal.SIGSTOP)",
    "GIL held in C": "ctypes.PyDLL(None).sleep(60)",
    "signals ignored": "[signal.signal(s, signal.SIG_IGN) for s in (2, 15)]; time.sleep(60)",
}


@pytest.mark.parametrize("hang", HANGS.values(), ids=HANGS)
def test_a_hanging_child_is_killed_at_its_deadline(hang: str) -> None:
    began = time.monotonic()
    with pytest.raises(ChildTimeoutError), ChildProcess("scripted", {"before": hang}) as child:
        list(child.messages(timeout_s=0.5))
    assert child.end() == -signal.SIGKILL
    assert time.monotonic() - began < 40


def test_a_module_that_hangs_in_its_import_is_killed_at_its_deadline(tmp_path: Path) -> None:
    (tmp_path / "stuck.py").write_text("import time; time.sleep(60)")
    large = {"filler": "x" * 1_000_000}  # more than a pipe holds, and never read
    with pytest.raises(ChildTimeoutError), ChildProcess("stuck", large) as child:
        list(child.messages(timeout_s=0.5))
    assert child.end() == -signal.SIGKILL


FORK = "os.fork() == 0 and (time.sleep(60), os._exit(0))"
ENDS = {
    "exit 3": ("os._exit(3)", 3),
    "sys.exit": ("sys.exit(4)", 4),
    "killed": ("os.kill(os.getpid(), 9)", -9),
    "terminated": ("os.kill(os.getpid(), 15)", -15),
    "segfault": ("ctypes.string_at(0)", -11),
    "segfault beside a forked child": (f"{FORK}; ctypes.string_at(0)", -11),
    "abort": ("os.abort()", -6),
    "exception": ("raise RuntimeError('broken')", 1),
}


@pytest.mark.parametrize(("end", "code"), ENDS.values(), ids=ENDS)
def test_the_end_of_a_child_is_seen_at_once_with_its_exit_code(end: str, code: int) -> None:
    count, seen, seconds = outcome_of({"times": 2, "after": end})
    assert (count, seen) == (2, code)
    assert seconds < 40


LEFT = {
    "a thread": "threading.Thread(target=time.sleep, args=(60,)).start()",
    "a forked child with the pipes": FORK,
    "a program": "subprocess.Popen(['sleep', '61.5'])",
    "a program in a session of its own": "subprocess.Popen(['sleep', '61.5'], start_new_session=True)",
}


@linux_only
@pytest.mark.parametrize("left", LEFT.values(), ids=LEFT)
def test_nothing_that_a_child_leaves_lives_on_or_delays_its_result(left: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(LINEAGE, "of-this-test")
    began = time.monotonic()
    with ChildProcess("scripted", {"times": 1, "before": left}) as child:
        assert next(child.messages(timeout_s=20)) is not None
        assert time.monotonic() - began < 40, "the result waited for a process that the child had left"
    assert time.monotonic() - began < 40
    assert not processes_with("of-this-test")


def processes_with(token: str) -> list[str]:
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if (
                entry.name.isdigit()
                and entry.name != str(os.getpid())
                and _marks(entry, token)
                and _state(entry) != "Z"
            ):
                found.append((entry / "cmdline").read_text())
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue
    return found


def _marks(entry: Path, token: str) -> bool:
    return f"{LINEAGE}={token}" in (entry / "environ").read_text(errors="replace")


def _state(entry: Path) -> str:
    return (entry / "stat").read_text().rpartition(")")[2].split()[0]


def test_a_child_that_closes_every_descriptor_ends_without_a_result() -> None:
    count, code, seconds = outcome_of({"before": "os.closerange(0, 200); time.sleep(60)"})
    assert (count, code) == (0, -signal.SIGKILL)
    assert seconds < 40, "its pipe is closed, so no result can come"


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_a_flood_of_output_neither_blocks_the_child_nor_fills_the_disk(tmp_path: Path, stream: str) -> None:
    flood = f"sys.{stream}.write('first\\n'); [sys.{stream}.write('x' * 1_000_000) for _ in range(50)]; "
    log = tmp_path / "log"
    count, code, _ = outcome_of({"times": 1, "before": f"{flood} print('last')"}, log=log)
    assert (count, code) == (1, 0)
    assert log.stat().st_size < 6_000_000
    content = log.read_text()
    assert "first" in content
    assert "last" in content
    assert "bytes left out" in content


def test_standard_error_without_a_log_is_drained_and_its_end_kept() -> None:
    noisy = "sys.stderr.write('warning\\n' * 100_000); raise RuntimeError('the cause')"
    with ChildProcess("scripted", {"before": noisy}) as child:
        assert list(child.messages(timeout_s=30)) == []
        assert child.last_error() == "RuntimeError: the cause"


def test_a_bounded_log_keeps_its_beginning_and_its_end(tmp_path: Path) -> None:
    log = BoundedLog(tmp_path / "log", head_bytes=4, tail_bytes=3)
    for letter in b"abcdefghij":
        log.write(bytes([letter]))
    log.close()
    assert (tmp_path / "log").read_bytes() == b"abcd\n[... 3 bytes left out ...]\nhij"


def test_a_log_that_fits_stays_unchanged(tmp_path: Path) -> None:
    log = BoundedLog(tmp_path / "log", head_bytes=4, tail_bytes=3)
    log.write(b"abcdef")
    log.close()
    assert (tmp_path / "log").read_bytes() == b"abcdef"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_log_on_a_full_disk_does_not_stop_the_child() -> None:
    assert outcome_of({"times": 1}, log=Path("/dev/full"))[:2] == (1, 0)


def test_the_last_bytes_of_a_stream_are_kept() -> None:
    last = LastBytes(4)
    for block in (b"ab", b"cdefgh", b"i"):
        last.write(block)
    assert last.text() == "fghi"


def test_messages_go_on_after_an_interruption() -> None:
    request = {"before": "signal.signal(2, lambda *_: reply.send(number=7)); time.sleep(1.5)"}
    with ChildProcess("scripted", request | {"times": 1}) as child:
        with pytest.raises(ChildTimeoutError):
            list(child.messages(timeout_s=1.0))
        child.interrupt()
        assert [message["number"] for message in child.messages(timeout_s=20)] == [7, 0]


def test_a_companion_that_fails_ends_the_messages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.core.process.COMPANION_S", 0.2)
    with (
        ChildProcess("scripted", {"before": "time.sleep(60)"}) as child,
        ChildProcess("scripted", {"before": "os._exit(5)"}) as other,
    ):
        assert list(child.messages(timeout_s=30, companions=[other])) == []
        assert other.end() == 5
        assert child.end() == -signal.SIGKILL


@linux_only
@pytest.mark.parametrize("where", ["running", "importing"])
def test_a_child_dies_with_its_parent(tmp_path: Path, where: str) -> None:
    (tmp_path / "importing.py").write_text(
        "import pathlib, time; pathlib.Path('there').touch(); time.sleep(60)\nfrom bench.core.process import *\n"
    )
    (tmp_path / "running.py").write_text(
        "from bench.core.process import read_request\nimport pathlib, time\n"
        "read_request(); pathlib.Path('there').touch(); time.sleep(60)\n"
    )
    code = (
        "import time; from bench.core.process import ChildProcess\n"
        f"child = ChildProcess('{where}', {{'a': 1}})\n"
        "print(child.process.pid, flush=True); time.sleep(60)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    _until((tmp_path / "there").exists)
    parent.kill()
    parent.wait()
    parent.stdout.close()
    _until(lambda: not Path(f"/proc/{pid}").exists() or _state(Path(f"/proc/{pid}")) == "Z")


def _until(condition: Any) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, "it did not happen within 30 s"
        os.sched_yield()


def test_a_command_runs_to_its_end_with_its_streams_apart() -> None:
    code = "import sys; print(sys.stdin.read()); sys.stderr.write('e'); sys.exit(3)"
    found = run_supervised([sys.executable, "-c", code], timeout_s=20, stdin=b"given")
    assert found == Finished(returncode=3, output=b"given\n", stderr="e")
    assert found.stdout == "given\n"


def test_a_command_that_hangs_is_killed_with_its_children(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(LINEAGE, "of-this-command")
    with pytest.raises(ChildTimeoutError):
        run_supervised(["sh", "-c", "sleep 62.5 & sleep 62.5"], timeout_s=0.3)
    assert not processes_with("of-this-command")


def test_leaving_the_block_by_an_exception_kills_at_once() -> None:
    began = time.monotonic()
    with pytest.raises(KeyError), SupervisedProcess(["sleep", "60"]) as process:
        raise KeyError
    assert process.end() == -signal.SIGKILL
    assert time.monotonic() - began < 40
