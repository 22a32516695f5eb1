"""SLURM's answers as states of jobs, and its time limits; the cluster itself is in `test_slurm_cluster.py`."""

import math
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from bench.core.errors import InputError
from bench.core.rank_layout import RankLayout
from bench.runner.executor import JobState, Workers
from bench.runner.executors import slurm
from bench.runner.executors.slurm import (
    PHASES,
    TIME_IS_OVER,
    Slurm,
    _parsed,
    _seconds_left,
    _wait_and_warn,
    minutes_of,
    reason_of,
)

WAITING = (
    "JobId=7 ArrayJobId=7 ArrayTaskId=2-3,9%4 JobName=vbench JobState=PENDING Reason=Resources Dependency=(null) "
    "NodeList= NumNodes=1-1"
)
RUNNING = "JobId=8 ArrayJobId=7 ArrayTaskId=0 JobName=vbench JobState=RUNNING Reason=None NodeList=n1 BatchHost=n1"
SINGLE = "JobId=12 JobName=vbench JobState=TIMEOUT Reason=TimeLimit NodeList=(null)"


@pytest.mark.parametrize(
    ("text", "minutes"),
    [("90", 90), ("30:00", 30), ("2:00:00", 120), ("1-12", 36 * 60), ("1-12:30", 36 * 60 + 30), ("0:30:01", 31)],
)
def test_time_limits_are_read_as_slurm_writes_them(text: str, minutes: int) -> None:
    assert minutes_of(text) == minutes


@pytest.mark.parametrize("text", ["", "0", "2h", "-5", "1:2:3:4", "0:00", "soon"])
def test_other_time_limits_are_refused(text: str) -> None:
    with pytest.raises(InputError, match=r"not a time limit of SLURM, such as 90 \(minutes\), 2:00:00 or 1-12"):
        minutes_of(text)


def test_a_waiting_array_stands_for_all_of_its_tasks() -> None:
    assert [state.job for state in _parsed(WAITING)] == ["7_2", "7_3", "7_9"]
    assert {(state.phase, state.reason, state.node) for state in _parsed(WAITING)} == {("waiting", "Resources", "")}


def test_a_task_has_its_own_state_and_node() -> None:
    assert _parsed(RUNNING) == [JobState(job="7_0", phase="running", node="n1")]
    assert _parsed(SINGLE) == [JobState(job="12", phase="timeout", reason="TimeLimit")]
    assert _parsed("slurm_load_jobs error: x") == []


@pytest.mark.parametrize(
    ("printed", "tasks"),
    [
        ("0-6:2", [0, 2, 4, 6]),  # as SLURM prints equal distances
        ("1-9:4,12%100", [1, 5, 9, 12]),
        (",".join(str(task) for task in range(0, 1000, 7)), list(range(0, 1000, 7))),
    ],
)
def test_lists_of_tasks_are_read_whatever_was_cancelled_between_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, printed: str, tasks: list[int]
) -> None:
    """SLURM prints 64 characters of a list and `...` unless it is asked for the whole."""
    line = f"JobId=7 ArrayJobId=7 ArrayTaskId={printed} JobState=PENDING Reason=Priority"
    cut = f"JobId=7 ArrayJobId=7 ArrayTaskId={printed[:61]}... JobState=PENDING Reason=Priority"
    write_program(tmp_path / "scontrol", f'[ "$SLURM_BITSTR_LEN" = 0 ] && echo "{line}" || echo "{cut}"')
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    states = Slurm.states([f"7_{task}" for task in range(1000)])
    assert [state.job for state in states if state.phase == "waiting"] == [f"7_{task}" for task in tasks]


def write_program(file: Path, script: str) -> None:
    file.write_text(f"#!/bin/sh\n{script}\n")
    file.chmod(0o755)


@pytest.fixture
def squeue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file with what a program `squeue` prints, which is the first in the path."""
    (tmp_path / "squeue").write_text(f'#!/bin/sh\ncat "{tmp_path}/left"\n')
    (tmp_path / "squeue").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    return tmp_path / "left"


@pytest.mark.parametrize(
    ("printed", "seconds"),
    [("59:30", 3570), ("2:00:00", 7200), ("1-02:03:04", 93784), ("0:09", 9), ("UNLIMITED", None), ("", None)],
)
def test_the_time_left_of_a_job_is_read_from_squeue(squeue: Path, printed: str, seconds: float | None) -> None:
    squeue.write_text(f"{printed}\n")
    assert _seconds_left("7_0") == (math.inf if seconds is None else seconds)


def test_a_worker_is_signalled_before_the_limit_of_its_job_even_if_that_was_shortened(
    squeue: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    squeue.write_text("2:00:00\n")
    monkeypatch.setattr(slurm, "ASK_AGAIN_S", 0.05)
    code = "import signal, time; signal.signal(signal.SIGUSR2, lambda *_: exit(7)); print(flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()  # its handler is in place
        with ThreadPoolExecutor() as pool:
            waiting = pool.submit(_wait_and_warn, process, "7_0")
            with pytest.raises(TimeoutError):
                waiting.result(timeout=0.5)
            squeue.write_text("0:30\n")
            assert waiting.result(timeout=30) == TIME_IS_OVER
            assert process.returncode == 7


@pytest.mark.parametrize(
    ("code", "phase", "reason"),
    [
        ("2:0", "failed", "exit code 2"),
        ("124:0", "timeout", "TimeLimit"),
        ("0:9", "failed", "NonZeroExitCode"),
        ("0:53", "failed", "cannot write its output: does the node see the results folder?"),
    ],
)
def test_a_failed_job_says_how_its_worker_ended(code: str, phase: str, reason: str) -> None:
    line = f"JobId=12 JobName=vbench JobState=FAILED Reason=NonZeroExitCode ExitCode={code} NodeList=n1"
    [state] = _parsed(line)
    assert (state.phase, state.reason) == (phase, reason)


def test_every_final_state_has_its_phase() -> None:
    assert PHASES["NODE_FAIL"] == "node_failed"
    assert {PHASES[name] for name in ("CANCELLED", "TIMEOUT", "OUT_OF_MEMORY")} == {"cancelled", "timeout", "failed"}


def test_without_slurm_the_reason_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(InputError, match="scontrol is not on this machine; ask on a login node"):
        Slurm.states(["7_0"])


@pytest.mark.parametrize(
    ("printed", "reason"),
    [
        (
            "sbatch: error: Batch job submission failed: Unspecified error",
            "Batch job submission failed: Unspecified error",
        ),
        ("sbatch: fatal: No script\nsbatch: fatal: No script\n", "No script"),
        (
            "sbatch: unrecognized option '--x=1'\nTry \"sbatch --help\" for more information",
            "unrecognized option '--x=1'",
        ),
        ("site filter: ask for a project\n\nsbatch: error: Rejected", "site filter: ask for a project; Rejected"),
        ("", ""),
    ],
)
def test_what_sbatch_says_becomes_one_line(printed: str, reason: str) -> None:
    assert reason_of(printed) == reason


@pytest.mark.parametrize(
    ("said", "partition", "offered", "line"),
    [
        ("Invalid partition name specified", "gpus", "gpu\ncpu\ngpu", "did you mean: gpu?"),
        ("Invalid partition name specified", "x", "gpu\ncpu\ngpu", "this cluster has: cpu, gpu"),
        ("Requested time limit is invalid", "gpus", "gpu up to 1:00:00", "this cluster has: gpu up to 1:00:00"),
        (
            "Invalid generic resource (gres) specification",
            None,
            "(null)\ngpu:h100:8",
            "this cluster has: gpu:h100:8, none",
        ),
        ("Unspecified error", "gpus", "gpu", ""),
    ],
)
def test_a_refusal_is_one_line_with_what_there_is_instead(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    said: str,
    partition: str | None,
    offered: str,
    line: str,
) -> None:
    pytest.importorskip("submitit")
    scripts = {"sbatch": f"echo 'sbatch: error: {said}' >&2; exit 1", "sinfo": f"echo '{offered}'", "srun": ""}
    for name, script in scripts.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    workers = Workers(command=("true",), count=2, is_exclusive=False, logs=tmp_path / "logs")
    with pytest.raises(InputError) as raised:
        Slurm(partition=partition).submit(workers)
    assert str(raised.value) == f"SLURM refuses the jobs: {said}" + (f"; {line}" if line else "")
    assert capfd.readouterr() == ("", "")


def test_an_array_that_is_too_large_is_refused_with_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("submitit")
    said = "Batch job submission failed: Invalid job array specification"
    write_program(tmp_path / "sbatch", f"echo 'sbatch: error: {said}' >&2; exit 1")
    write_program(tmp_path / "scontrol", "echo 'Licenses = none'; echo 'MaxArraySize            = 1001'")
    write_program(tmp_path / "srun", "")
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    workers = Workers(command=("true",), count=1200, is_exclusive=False, logs=tmp_path / "logs")
    with pytest.raises(InputError, match=r"Invalid job array specification; .* 1001 jobs .*; give --max-jobs 1001"):
        Slurm().submit(workers)


@pytest.mark.parametrize(
    ("layout", "options", "of_the_job", "of_srun"),
    [
        (RankLayout(), {}, None, None),
        (RankLayout(), {"cpus-per-task": "3"}, "3", None),
        (RankLayout(ranks=4), {}, "4", None),
        (RankLayout(ranks=4), {"cpus-per-task": "12"}, "12", None),
        (RankLayout(ranks=4, nodes=2), {}, None, None),
        (RankLayout(ranks=4, nodes=2), {"cpus-per-task": "6"}, "6", "6"),
    ],
)
def test_each_rank_has_a_processor_or_as_many_as_the_user_says(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    layout: RankLayout,
    options: dict[str, str],
    of_the_job: str | None,
    of_srun: str | None,
) -> None:
    """Ranks of one node are processes of one task; those of several are tasks, of which srun starts each."""
    pytest.importorskip("submitit")
    write_program(tmp_path / "sbatch", f'cp "$1" {tmp_path}/script; echo "Submitted batch job 7"')
    write_program(tmp_path / "srun", "")
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    workers = Workers(command=("true",), count=2, is_exclusive=False, logs=tmp_path / "logs", layout=layout)
    assert Slurm(options=options).submit(workers) == ["7_0", "7_1"]
    lines = (tmp_path / "script").read_text().splitlines()
    asked = [line.partition("=")[2] for line in lines if line.startswith("#SBATCH --cpus-per-task")]
    assert asked == ([] if of_the_job is None else [of_the_job])
    [command] = [line for line in lines if "submitit.core._submit" in line]
    assert command.startswith("srun ") == ("--export=ALL" in command) == (layout.nodes > 1)
    found = re.findall(r"--cpus-per-task=(\d+)", command)
    assert found == ([] if of_srun is None else [of_srun])


def test_a_command_of_slurm_that_hangs_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "scontrol").write_text("#!/bin/sh\nexec sleep 60\n")
    (tmp_path / "scontrol").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setattr(slurm, "ASK_S", 0.2)
    with pytest.raises(InputError, match="scontrol does not answer within 0 s"):
        Slurm.states(["7_0"])
