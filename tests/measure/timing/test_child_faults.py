"""Children of timed measures that hang, print without end or lose their parent, with real processes."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from bench.core.errors import InputError, TrainingError
from bench.measure.context import CaseContext
from bench.measure.timing.batch_search import BatchTrials
from bench.measure.timing.case_process import run_in_child
from bench.measure.timing.scaling_ranks import run_ranks

Load = Callable[..., CaseContext]
linux_only = pytest.mark.skipif(sys.platform != "linux", reason="the Linux kernel ends children of a dead process")

# Functions for children and for ranks. Those that hang have started another process, which left their group.
FAULTY = """
import json, os, subprocess, sys, time
from pathlib import Path
from bench.core.process import ReplyPipe, read_request, read_requests

def note_pids():
    other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
    name = os.environ.get("RANK", "child")
    part = Path(FOLDER, f"{name}.part")
    part.write_text(f"{os.getpid()} {other.pid}")
    part.rename(Path(FOLDER, f"{name}.pids"))

def hang():
    note_pids()
    time.sleep(600)

def hang_at_13():
    requests, reply = read_requests(), ReplyPipe()
    next(requests)
    for batch in requests:
        if batch == 13:
            hang()
        reply.send(clips_per_s=float(batch))

def print_200_mb():
    request = read_request()
    for _ in range(200):
        sys.stdout.write("x" * 1_000_000)
        sys.stderr.write("y" * 1_000_000 + "\\n")
    ReplyPipe().send(size=200)

def rank_prints_200_mb():
    request = json.loads(Path(sys.argv[1]).read_text())
    for _ in range(200):
        sys.stderr.write("y" * 1_000_000 + "\\n")
    if os.environ["RANK"] == "0":
        Path(request["answer"]).write_text("200")
"""


@pytest.fixture
def faulty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder in which the functions above note their process ids."""
    (tmp_path / "faulty_children.py").write_text(FAULTY.replace("FOLDER", repr(str(tmp_path))))
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def pids_in(folder: Path, *, count: int = 1, within_s: float = 60.0) -> list[int]:
    """Process ids noted by `count` children, once all of them are there."""
    deadline = time.monotonic() + within_s
    while len(files := list(folder.glob("*.pids"))) < count and time.monotonic() < deadline:
        time.sleep(0.05)
    assert len(files) == count
    return [int(pid) for file in files for pid in file.read_text().split()]


@linux_only
def test_a_child_that_hangs_is_an_error_at_its_limit_and_leaves_nothing(
    faulty: Path, wait_until_gone: Callable[..., None]
) -> None:
    with pytest.raises(InputError, match="the cold process did not end within 2 s; raise its timeout_s"):
        run_in_child("faulty_children:hang", {}, timeout_s=2, what="cold process")
    wait_until_gone(pids_in(faulty), within_s=0.5)


def test_a_child_that_prints_200_mb_replies(faulty: Path) -> None:
    assert run_in_child("faulty_children:print_200_mb", {}, timeout_s=60, what="trial") == {"size": 200}


@linux_only
def test_a_batch_that_hangs_is_broken_and_the_next_one_gets_a_new_process(
    faulty: Path, load: Load, wait_until_gone: Callable[..., None]
) -> None:
    with BatchTrials(load(), function="faulty_children:hang_at_13", timeout_s=3.0) as trials:
        assert trials.rate(2) == 2.0
        assert trials.rate(13) is None
        wait_until_gone(pids_in(faulty), within_s=0.5)
        assert trials.rate(4) == 4.0
    assert trials.broken == {13: "no result after 3 s"}


@pytest.mark.slow
@linux_only
def test_ranks_that_hang_are_an_error_at_their_limit_and_leave_nothing(
    faulty: Path, wait_until_gone: Callable[..., None]
) -> None:
    with pytest.raises(TrainingError, match="2 ranks did not end within 20 s"):
        run_ranks("faulty_children:hang", {}, world=2, threads=1, timeout_s=20)
    wait_until_gone(pids_in(faulty, count=2), within_s=0.5)


@pytest.mark.slow
def test_ranks_that_print_200_mb_each_have_a_result(faulty: Path) -> None:
    assert run_ranks("faulty_children:rank_prints_200_mb", {}, world=2, threads=1, timeout_s=120) == 200


PARENTS = {
    "a child": "run_in_child('faulty_children:hang', {}, timeout_s=600, what='x')",
    "ranks": "run_ranks('faulty_children:hang', {}, world=2, threads=1, timeout_s=600)",
}


@pytest.mark.slow
@linux_only
@pytest.mark.parametrize(("call", "count"), [(PARENTS["a child"], 1), (PARENTS["ranks"], 2)], ids=PARENTS)
def test_children_end_if_their_parent_is_killed(
    faulty: Path, wait_until_gone: Callable[..., None], call: str, count: int
) -> None:
    """The kernel ends them; processes that left on their own are beyond its reach."""
    imports = "from bench.measure.timing.scaling_ranks import run_ranks\n"
    imports += "from bench.measure.timing.case_process import run_in_child\n"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    parent = subprocess.Popen([sys.executable, "-c", imports + call], env=environment)
    pids = pids_in(faulty, count=count)
    parent.kill()
    parent.wait()
    children, left = pids[0::2], pids[1::2]
    wait_until_gone(children)
    for pid in left:
        os.kill(pid, 9)
