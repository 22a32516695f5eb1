"""Forked children behave as new processes do: results, ends, hangs, what they leave, and the death of their server."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.core.fork_server import ForkServer, ForkServerError
from bench.core.process import LINEAGE, ChildProcess, ChildTimeoutError, tail

pytestmark = pytest.mark.skipif(not ForkServer.is_available(), reason="needs pidfds, which Linux has")

SCRIPTED = """
import ctypes, os, random, signal, subprocess, sys, tempfile, threading, time, weakref

def preload():
    import numpy, torch

def main():
    from bench.core.process import ReplyPipe, read_request
    request = read_request()
    reply = ReplyPipe()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell ignores it in commands that end with &
    print("noise on standard output")
    variables = {**globals(), "reply": reply}
    exec(request.get("before", ""), variables)
    for number in range(request.get("times", 0)):
        reply.send(number=number, value=eval(request.get("value", "None"), variables))
    exec(request.get("after", ""), variables)
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ForkServer]:
    folder = tmp_path_factory.mktemp("modules")
    (folder / "scripted_fork.py").write_text(SCRIPTED)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(folder), prepend=os.pathsep)
        patch.setenv(LINEAGE, "of-forks")
        started = ForkServer("scripted_fork:preload")
        yield started
        started.close()


def child_of(server: ForkServer, *, log: Path | None = None, **request: object) -> ChildProcess:
    return ChildProcess("scripted_fork:main", request, log=log, start=server.start)


def value_of(server: ForkServer, expression: str) -> object:
    with child_of(server, times=1, value=expression) as child:
        return next(child.messages(timeout_s=60))["value"]


def test_messages_arrive_in_order_and_prints_go_to_the_log(server: ForkServer, tmp_path: Path) -> None:
    log = tmp_path / "log"
    with child_of(server, log=log, times=3) as child:
        assert [message["number"] for message in child.messages(timeout_s=60)] == [0, 1, 2]
    assert child.end() == 0
    assert tail(log) == "noise on standard output"


def test_each_child_has_the_environment_of_its_caller(server: ForkServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OF_THIS_CALL", "1")
    assert value_of(server, "os.environ.get('OF_THIS_CALL')") == "1"
    monkeypatch.delenv("OF_THIS_CALL")
    assert value_of(server, "os.environ.get('OF_THIS_CALL')") is None
    assert value_of(server, "os.popen('echo $PYTHONUNBUFFERED').read()") == "1\n"


def test_each_child_is_the_only_thread_of_a_process_group_of_its_own(server: ForkServer) -> None:
    assert value_of(server, "len(os.listdir('/proc/self/task'))") == 1
    assert value_of(server, "os.getpgrp() == os.getpid()") is True


@pytest.mark.parametrize(
    "draw",
    ["random.random()", "sys.modules['numpy'].random.rand()", "sys.modules['torch'].rand(1).item()"],
    ids=["random", "numpy", "torch"],
)
def test_children_draw_different_numbers(server: ForkServer, draw: str) -> None:
    assert value_of(server, draw) != value_of(server, draw)


def test_torch_computes_on_several_threads_in_a_child(server: ForkServer) -> None:
    work = "(t.set_num_threads(2), t.randn(512, 512).mm(t.ones(512, 512)), t.get_num_threads())[2]"
    assert value_of(server, f"[{work} for t in [sys.modules['torch']]]") == [2]


def test_what_a_child_changes_is_gone_in_the_next(server: ForkServer) -> None:
    value_of(server, "setattr(sys.modules['torch'], 'patched', True)")
    assert value_of(server, "hasattr(sys.modules['torch'], 'patched')") is False


FORK = "os.fork() == 0 and (time.sleep(60), os._exit(0))"
ENDS = {
    "exit 3": ("os._exit(3)", 3),
    "sys.exit": ("sys.exit(4)", 4),
    "sys.exit with a text": ("sys.exit('the reason')", 1),
    "killed": ("os.kill(os.getpid(), 9)", -9),
    "terminated": ("os.kill(os.getpid(), 15)", -15),
    "segfault": ("ctypes.string_at(0)", -11),
    "segfault beside a forked child": (f"{FORK}; ctypes.string_at(0)", -11),
    "abort": ("os.abort()", -6),
    "exception": ("raise RuntimeError('broken')", 1),
}


@pytest.mark.parametrize(("end", "code"), ENDS.values(), ids=ENDS)
def test_the_end_of_a_child_is_seen_at_once_with_its_exit_code(server: ForkServer, end: str, code: int) -> None:
    began = time.monotonic()
    with child_of(server, times=2, after=end) as child:
        assert len(list(child.messages(timeout_s=60))) == 2
    assert child.end() == code
    assert time.monotonic() - began < 40


def test_an_error_is_the_last_line_that_a_child_prints(server: ForkServer) -> None:
    for code, line in (("raise RuntimeError('the cause')", "RuntimeError: the cause"), ("sys.exit('why')", "why")):
        with child_of(server, before=code) as child:
            assert list(child.messages(timeout_s=60)) == []
            assert child.last_error() == line


@pytest.mark.parametrize(
    "hang",
    [
        "time.sleep(60)",
        "os.kill(os.getpid(), signal.SIGSTOP)",
        "ctypes.PyDLL(None).sleep(60)",
        "[signal.signal(s, signal.SIG_IGN) for s in (2, 15)]; time.sleep(60)",
    ],
    ids=["sleep", "stopped", "GIL held in C", "signals ignored"],
)
def test_a_hanging_child_is_killed_at_its_deadline(server: ForkServer, hang: str) -> None:
    with pytest.raises(ChildTimeoutError), child_of(server, before=hang) as child:
        list(child.messages(timeout_s=0.5))
    assert child.end() == -signal.SIGKILL


@pytest.mark.parametrize(
    "left",
    [
        "threading.Thread(target=time.sleep, args=(60,)).start()",
        FORK,
        "os.fork() == 0 and (os.setsid(), time.sleep(60), os._exit(0))",
        "subprocess.Popen(['sleep', '61.5'], start_new_session=True)",
    ],
    ids=["a thread", "a fork", "a fork in a session of its own", "a program in a session of its own"],
)
def test_nothing_that_a_child_leaves_lives_on(server: ForkServer, left: str) -> None:
    before = processes_with("of-forks")
    with child_of(server, times=1, before=left) as child:
        assert next(child.messages(timeout_s=60)) is not None
    assert processes_with("of-forks") == before == 1  # the server


def processes_with(lineage: str) -> int:
    """Running processes that descend from this test."""
    found = 0
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            is_zombie = (entry / "stat").read_text().rpartition(")")[2].split()[0] == "Z"
            found += f"{LINEAGE}={lineage}" in (entry / "environ").read_text(errors="replace") and not is_zombie
        except OSError:
            continue
    return found


def test_a_temporary_folder_of_a_child_is_removed_at_its_end(server: ForkServer) -> None:
    place = value_of(server, "[t := tempfile.TemporaryDirectory(), globals().update(kept=t), t.name][2]")
    assert isinstance(place, str)
    assert not Path(place).exists()


def test_an_interrupted_child_replies_and_ends(server: ForkServer) -> None:
    before = "try:\n reply.send(number=1); time.sleep(60)\nexcept KeyboardInterrupt:\n reply.send(number=7)"
    with child_of(server, before=before) as child:
        messages = child.messages(timeout_s=30)
        assert next(messages)["number"] == 1
        child.interrupt()
        assert [message["number"] for message in messages] == [7]
    assert child.end() == 0


def test_a_child_that_kills_its_server_dies_with_it_and_no_other_is_started(tmp_path: Path) -> None:
    (tmp_path / "scripted_fork.py").write_text(SCRIPTED.replace("import numpy, torch", "pass"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
        server = ForkServer("scripted_fork:preload")
        with child_of(server, before="os.kill(os.getppid(), 9); time.sleep(60)") as child:
            assert list(child.messages(timeout_s=30)) == []
        assert child.end() == -signal.SIGKILL
        assert server.has_ended
        with pytest.raises(ForkServerError):
            child_of(server)
        server.close()


def test_a_server_that_cannot_preload_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = ForkServer("no_such_module:preload")
    with pytest.raises(ForkServerError, match="ended with code 1"):
        child_of(server)
    server.close()


def test_no_descriptor_stays_open_in_the_parent(server: ForkServer) -> None:
    value_of(server, "1")
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        value_of(server, "1")
    assert len(os.listdir("/proc/self/fd")) == before
