"""Everything that can go wrong in a worker or while planning, with real processes: each becomes a record or one line.

What the supervisor does with each end of a process is in tests/core/test_process.py, ranks in test_rank_processes.py,
signals to the command in test_stopping.py, loader workers and losses that are not finite in tests/data and tests/train.
"""

import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bench.catalog import catalog
from bench.cli.app import run_command
from bench.core.process import LINEAGE
from bench.core.schema import Record
from bench.store import read_records

pytestmark = pytest.mark.slow
linux_only = pytest.mark.skipif(sys.platform != "linux", reason="asks the Linux kernel")
ROOT = Path(__file__).parents[2]

# Name → what a measure does, the status of its record, and a pattern of its error.
FAULTS = {
    "kill": ("os.kill(os.getpid(), 9)", "error", "SIGKILL; the kernel does this when memory runs out"),
    "terminate": ("os.kill(os.getpid(), 15)", "interrupted", "SIGTERM"),
    "exit 0": ("os._exit(0)", "error", "code 0 before it had a result"),
    "exit 3": ("os._exit(3)", "error", "code 3 before it had a result"),
    "system exit": ("sys.exit(5)", "error", ""),
    "interrupt": ("raise KeyboardInterrupt", "error|interrupted", ""),
    "generator exit": ("raise GeneratorExit", "error", ""),
    "recursion": ("f = lambda: f(); f()", "error", "recursion"),
    "segfault": ("ctypes.string_at(0)", "error", "SIGSEGV"),
    "segfault beside a forked child": (
        "os.fork() == 0 and (time.sleep(90), os._exit(0)); ctypes.string_at(0)",
        "error",
        "SIGSEGV",
    ),
    "abort": ("os.abort()", "error", "SIGABRT"),
    "memory": (
        "resource.setrlimit(resource.RLIMIT_AS, (4 << 40, 4 << 40)); bytearray(8 << 40)",
        "oom",
        "",
    ),
    "descriptors": ("os.closerange(3, 400); time.sleep(90)", "error", "closed its reply pipe"),
    "thread": ("threading.Thread(target=time.sleep, args=(90,)).start()", "ok", ""),
    "program": ("subprocess.Popen(['sleep', '90'], start_new_session=True)", "ok", ""),
    "output": ("[print('x' * 1_000_000) for _ in range(200)]", "ok", ""),
    "secret": ("print(os.environ['LAB_API_KEY']); raise RuntimeError(os.environ['LAB_API_KEY'])", "error", "***"),
    "no metrics": ("return None", "error", ""),
    "odd error": ("raise type('\\x1b[31mOdd', (Exception,), {})('\\x00\\x1b[2J' + 'x' * 100_000)", "error", "x"),
    "full disk": (
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096)); "
        "(case.artifacts.mkdir(parents=True, exist_ok=True), (case.artifacts / 'curve').write_bytes(bytes(9999)))",
        "error",
        "File too large",
    ),
    "clock": ("time.time = lambda: -1e9; time.monotonic = lambda: -1e9", "ok", ""),
    "working folder": ("os.mkdir('gone'); os.chdir('gone'); os.rmdir('../gone')", "ok", ""),
}
HANGS = {
    "sleep": "time.sleep(90)",
    "stopped": "os.kill(os.getpid(), signal.SIGSTOP)",
    "GIL held in C": "ctypes.PyDLL(None).sleep(90)",
    "signals ignored": "[signal.signal(s, signal.SIG_IGN) for s in (1, 2, 15)]; time.sleep(90)",
}
MEASURE = '''
import ctypes, os, resource, signal, subprocess, sys, threading, time
from bench import Metric, register_measure

@register_measure("faulty", depends_on={{"model", "args", "clip", "batch"}}, version=1)
def faulty(case):
    """Does what its batch says."""
    {body}
    return [Metric(name="faulty.done", value=1, unit="")]
'''
SUITE = """\
suite: faults
plugins: [faulty_measure]
models: [{{name: c3d_search, width: 0.05, num_classes: 4}}]
matrix: {{clip: [4x1x16], batch: {batches}}}
measure: {{faulty: {{}}}}
timeout_s: {limit_s}
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{ROOT}")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv(LINEAGE, f"faults-{tmp_path.name}")
    monkeypatch.setenv("LAB_API_KEY", "lab-secret-1")
    return tmp_path


def vbench(*arguments: str, timeout_s: float = 900) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "bench", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=False)


def write_suite(folder: Path, faults: list[str], *, limit_s: int) -> None:
    branches = [f"if case.point.batch == {number}:\n        {code}" for number, code in enumerate(faults, start=1)]
    (folder / "faulty_measure.py").write_text(MEASURE.format(body="\n    ".join(branches)))
    batches = list(range(1, len(faults) + 2))  # the last case is sound
    (folder / "faults.yaml").write_text(SUITE.format(batches=batches, limit_s=limit_s))


def left_of(token: str) -> list[str]:
    """Processes of this test that still run."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and entry.name != str(os.getpid()) and token in (entry / "environ").read_text():
                found.append((entry / "cmdline").read_text())
        except (OSError, UnicodeDecodeError):
            continue
    return found


@linux_only
def test_every_fault_of_a_worker_is_a_record_and_the_suite_goes_on(folder: Path) -> None:
    write_suite(folder, [code for code, _, _ in FAULTS.values()], limit_s=300)
    done = vbench("run", "faults.yaml", "--out", "res")
    assert done.returncode == 3, done.stderr
    assert "Traceback" not in done.stderr
    records = read_records("res")
    assert len(records) == len(FAULTS) + 1
    wrong = []
    for record, (name, (_, status, message)) in zip(records, FAULTS.items(), strict=False):
        found = record.error.message if record.error else ""
        if not re.fullmatch(status, record.status) or message not in found or len(found) > 10_000:
            wrong.append((name, record.status, found[:500], len(found)))
    assert not wrong
    assert records[-1].status == "ok"
    assert not left_of(os.environ[LINEAGE])
    assert max(log.stat().st_size for log in (folder / "res" / "logs").iterdir()) < 6_000_000
    assert "\x1b" not in done.stdout + done.stderr
    assert not [file for file in (folder / "res").rglob("*.*") if file.is_file() and b"lab-secret" in file.read_bytes()]
    again = vbench("run", "faults.yaml", "--out", "res", "--rerun", "stale")
    assert again.returncode == 0, again.stderr
    assert len(read_records("res")) == len(records)


@linux_only
def test_every_hang_of_a_worker_ends_at_its_limit(folder: Path) -> None:
    """All of them hang at once, because each takes the whole limit."""
    write_suite(folder, list(HANGS.values()), limit_s=40)
    done = vbench("run", "faults.yaml", "--out", "res", "--devices", ",".join(["cpu"] * len(HANGS)))
    assert done.returncode == 3, done.stderr
    *hung, sound = sorted(read_records("res"), key=lambda record: record.case.point.batch)
    assert [record.status for record in hung] == ["timeout"] * len(HANGS)
    assert all("not done after 40 s" in str(record.error) for record in hung)
    assert sound.status == "ok"
    assert not left_of(os.environ[LINEAGE])


# What a factory of the user does while a suite is planned, and a pattern of the line that says so.
PLANNED = {
    "kill": ("os.kill(os.getpid(), 9)", "code -9"),
    "exit 0": ("os._exit(0)", "code 0"),
    "exit 3": ("os._exit(3)", "code 3"),
    "system exit": ("sys.exit(5)", ""),
    "segfault": ("ctypes.string_at(0)", ""),
    "segfault beside a forked child": ("os.fork() == 0 and (time.sleep(90), os._exit(0)); ctypes.string_at(0)", ""),
    "descriptors": ("os.closerange(3, 400); time.sleep(90)", ""),
    "sleep": ("time.sleep(90)", "no answer after 8 s"),
    "stopped": ("os.kill(os.getpid(), signal.SIGSTOP)", "no answer after 8 s"),
    "GIL held in C": ("ctypes.PyDLL(None).sleep(90)", "no answer after 8 s"),
    "error": ("raise RuntimeError('broken')", ""),
    "output": ("[sys.stderr.write('x' * 1_000_000) for _ in range(200)]", ""),
    "thread": ("threading.Thread(target=time.sleep, args=(90,)).start()", ""),
}
FACTORY = """
import ctypes, os, signal, subprocess, sys, threading, time
from torch import nn

{at_import}

def make(num_classes: int = 4):
    {in_call}
    return nn.Sequential(nn.Flatten(), nn.LazyLinear(num_classes))
"""
PLANNED_SUITE = """\
suite: planned
models: [{name: "faulty_factory:make"}]
matrix: {clip: [4x1x16]}
measure: {params: {}}
"""


@linux_only
@pytest.mark.parametrize(
    ("name", "place"),
    [*((name, "in_call") for name in PLANNED), *((name, "at_import") for name in ("exit 3", "segfault", "sleep"))],
)
def test_a_fault_while_planning_is_one_line(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str, place: str
) -> None:
    code, message = PLANNED[name]
    text = FACTORY.format(**{"at_import": "", "in_call": "", place: code})
    (folder / "faulty_factory.py").write_text(text)
    (folder / "planned.yaml").write_text(PLANNED_SUITE)
    monkeypatch.setattr(catalog, "ANSWER_S", 8.0 if message == "no answer after 8 s" else 25.0)
    began = time.monotonic()
    code_found = run_command(["plan", "planned.yaml", "--out", "res"])
    printed = capsys.readouterr()
    assert time.monotonic() - began < 80
    assert code_found in (0, 2, 3), printed.err
    assert code_found == 0 or len(printed.err.strip().splitlines()) == 1, printed.err
    assert "Traceback" not in printed.err
    assert message in printed.err
    assert not left_of(os.environ[LINEAGE])


def in_namespace(script: str, *, environment: dict[str, str] | None = None) -> "subprocess.CompletedProcess[str]":
    """Run a shell script in a mount namespace of its own; skips the test where that is not allowed."""
    unshare = ["unshare", "--mount", "sh", "-ec"]
    allowed = shutil.which("unshare") and subprocess.run([*unshare, "true"], check=False, capture_output=True)
    if not allowed or allowed.returncode:
        pytest.skip("mount namespaces are not allowed here")
    variables = {**os.environ, **(environment or {})}
    return subprocess.run([*unshare, script], capture_output=True, text=True, timeout=600, check=False, env=variables)


@linux_only
def test_a_full_temporary_folder_costs_the_case_that_needs_it(folder: Path) -> None:
    write_suite(folder, ["import tempfile; tempfile.NamedTemporaryFile().write(bytes(1 << 20))"], limit_s=300)
    (folder / "full").mkdir()
    fill = f"mount -t tmpfs -o size=64k tmpfs {folder}/full; head -c 60000 /dev/zero > {folder}/full/zeros; "
    done = in_namespace(
        f"{fill} {sys.executable} -m bench run faults.yaml --out res", environment={"TMPDIR": str(folder / "full")}
    )
    assert done.returncode == 3, done.stderr
    records = read_records("res")
    assert [record.status for record in records] == ["error", "ok"]
    assert "No space left on device" in str(records[0].error)


@linux_only
def test_a_disk_that_fills_during_a_case_ends_the_run_in_one_line_and_keeps_what_was_done(folder: Path) -> None:
    write_suite(folder, ["", "open('disk/zeros', 'wb', buffering=0).write(bytes(1 << 30))"], limit_s=300)
    text = (folder / "faulty_measure.py").read_text().replace("\n        \n", "\n        pass\n")
    (folder / "faulty_measure.py").write_text(text)
    (folder / "disk").mkdir()
    run = in_namespace(
        f"mount -t tmpfs -o size=2m tmpfs {folder}/disk; "
        f"{sys.executable} -m bench run faults.yaml --out disk/res || code=$?; cp -r disk/res kept; exit ${{code:-0}}"
    )
    assert run.returncode == 2, run.stderr
    assert "No space left on device" in run.stderr
    assert "Traceback" not in run.stderr
    kept: list[Record] = read_records("kept")
    assert [record.status for record in kept][:1] == ["ok"]


@linux_only
@pytest.mark.skipif(
    shutil.which("strace") is None, reason="strace makes the kernel refuse a write, and is not installed"
)
@pytest.mark.parametrize(("errno", "said"), [("EDQUOT", "Disk quota exceeded"), ("EIO", "Input/output error")])
def test_a_refused_write_ends_the_run_in_one_line_and_the_same_command_goes_on(
    folder: Path, errno: str, said: str
) -> None:
    write_suite(folder, ["pass"], limit_s=300)
    Path("res").mkdir()
    refuse = ["-e", "trace=write", "-P", str(folder / "res/records.jsonl"), "-e", f"inject=write:error={errno}:when=2"]
    run = [sys.executable, "-m", "bench", "run", "faults.yaml", "--out", "res"]
    traced = ["strace", "-f", "-qq", "-o", "/dev/null", *refuse, *run]
    stopped = subprocess.run(traced, capture_output=True, text=True, timeout=600, check=False)
    if "ptrace" in stopped.stderr:
        pytest.skip("tracing is not allowed here")
    assert (stopped.returncode, stopped.stderr) == (2, f"vbench: res/records.jsonl cannot be written: {said}\n")
    assert [record.status for record in read_records("res")] == ["ok"]
    assert run_command(["run", "faults.yaml", "--out", "res"]) == 0
    assert [record.status for record in read_records("res")] == ["ok", "ok"]


@linux_only
def test_a_results_folder_that_becomes_read_only_during_a_case_ends_the_run_in_one_line(folder: Path) -> None:
    # A mount of its own over the folder, since one with files open for writing cannot become read-only.
    mounts = "mount --bind disk/res disk/res && mount -o remount,bind,ro disk/res"
    write_suite(folder, ["pass", f"subprocess.run({mounts!r}, shell=True, check=True)"], limit_s=300)
    (folder / "disk").mkdir()
    run = in_namespace(
        f"mount -t tmpfs -o size=20m tmpfs {folder}/disk; "
        f"{sys.executable} -m bench run faults.yaml --out disk/res || code=$?; cp -r disk/res kept; exit ${{code:-0}}"
    )
    assert run.returncode == 2, run.stderr
    assert "Read-only file system" in run.stderr
    assert "Traceback" not in run.stderr
    assert [record.status for record in read_records("kept")] == ["ok"]


@linux_only
def test_a_tiny_shared_memory_is_an_error_of_the_loader_not_a_hang(folder: Path) -> None:
    (folder / "small.yaml").write_text(
        "suite: small\nmodels: [{name: c3d_search, width: 0.05, num_classes: 8}]\nmatrix: {clip: [16x1x32]}\n"
        "measure: {accuracy: {dataset: motions, recipe: quick, workers: 2}}\ntimeout_s: 300\n"
    )
    run = f"{sys.executable} -m bench run small.yaml --out res"
    done = in_namespace(f"mount -t tmpfs -o size=64k tmpfs /dev/shm; {run} || exit $?")
    assert done.returncode in (0, 2, 3), done.stderr
    assert "Traceback" not in done.stderr
