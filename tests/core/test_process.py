"""A child process that is asked one thing: replies, prints, hangs and deaths."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bench.core.process import Child, ChildTimeoutError, tail

ECHO = """
import os, sys, time
from bench.core.process import Reply, request
asked = request()
reply = Reply()
print("noise on standard output")
if asked.get("hang"):
    time.sleep(60)
for number in range(asked.get("times", 0)):
    reply.send(number=number, pid=os.getpid())
if asked.get("die"):
    os.kill(os.getpid(), 9)
if asked.get("fail"):
    raise RuntimeError("no such luck")
"""


@pytest.fixture(autouse=True)
def _echo_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "echo_child.py").write_text(ECHO)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PYTHONSAFEPATH", raising=False)


def test_replies_come_in_order_and_prints_stay_apart(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with log.open("wb") as output, Child("echo_child", {"times": 3}, log=output) as child:
        assert [message["number"] for message in child.messages()] == [0, 1, 2]
    assert child.process.returncode == 0
    assert "noise" in tail(log)


@pytest.mark.parametrize("name", ["bench/__init__.py", "bench/speed.py"])
def test_a_child_has_its_parents_vbench_where_the_working_folder_has_another_bench(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """A package of the user's, or a mere folder."""
    (tmp_path / name).parent.mkdir()
    (tmp_path / name).write_text("")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with Child("echo_child", {"times": 1}) as child:
        assert len(list(child.messages(timeout_s=30))) == 1, child.complaint()


def test_a_hanging_child_is_given_up_at_its_deadline_and_killed() -> None:
    with pytest.raises(ChildTimeoutError), Child("echo_child", {"hang": True}) as child:
        list(child.messages(timeout_s=0.2))
    assert child.process.returncode == -9


def test_a_child_that_dies_ends_its_replies() -> None:
    with Child("echo_child", {"times": 1, "die": True}) as child:
        assert len(list(child.messages(timeout_s=30))) == 1
    assert child.process.returncode == -9


def test_a_child_that_fails_says_why() -> None:
    with Child("echo_child", {"fail": True}) as child:
        assert list(child.messages(timeout_s=30)) == []
        assert child.complaint() == "RuntimeError: no such luck"


@pytest.mark.skipif(sys.platform != "linux", reason="dying with the parent is asked of the Linux kernel")
def test_a_child_dies_with_its_parent(tmp_path: Path) -> None:
    code = (
        "from bench.core.process import Child\n"
        "child = Child('echo_child', {'times': 1, 'hang': False})\n"
        "child = Child('echo_child', {'hang': True})\n"
        "print(child.process.pid, flush=True)\n"
        "import time; time.sleep(60)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    # Only once the child has read its request does it ask to die with its parent.
    _until(lambda: "S" in _state(pid) and _is_asleep_in_python(pid))
    parent.kill()
    parent.wait()
    parent.stdout.close()
    _until(lambda: _state(pid) in ("", "Z"))


def _until(is_so: object) -> None:
    assert callable(is_so)
    deadline = time.monotonic() + 30
    while not is_so():
        assert time.monotonic() < deadline, "it did not happen within 30 s"
        os.sched_yield()


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return ""


def _is_asleep_in_python(pid: int) -> bool:
    """The child sleeps in time.sleep, not in the read of its request: its standard input has been read to its end."""
    try:
        return (
            "nanosleep" in Path(f"/proc/{pid}/wchan").read_text() or "hrtimer" in Path(f"/proc/{pid}/wchan").read_text()
        )
    except OSError:
        return True
