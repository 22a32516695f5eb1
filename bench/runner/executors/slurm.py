"""SLURM: workers are the tasks of a job array, submitted through submitit.

States come from squeue and scontrol, because many sites have no accounting (sacct), without which submitit itself
waits for ever for a job that was killed.
"""

import io
import math
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import redirect_stderr
from typing import Any

from bench.core.errors import InputError, MissingPackageError, nearest
from bench.core.process import ChildTimeoutError, run_supervised
from bench.core.rank_layout import RankLayout
from bench.runner.executor import Executor, JobPhase, JobState, Workers
from bench.runner.work_queue import restarted_name

PHASES: Mapping[str, JobPhase] = {
    "PENDING": "waiting",
    "CONFIGURING": "waiting",
    "REQUEUED": "waiting",
    "REQUEUE_HOLD": "waiting",
    "REQUEUE_FED": "waiting",
    "SPECIAL_EXIT": "waiting",
    "RESV_DEL_HOLD": "waiting",
    "SUSPENDED": "waiting",
    "STOPPED": "waiting",
    "PREEMPTED": "waiting",
    "RUNNING": "running",
    "COMPLETING": "running",
    "SIGNALING": "running",
    "STAGE_OUT": "running",
    "RESIZING": "running",
    "COMPLETED": "done",
    "FAILED": "failed",
    "BOOT_FAIL": "node_failed",
    "OUT_OF_MEMORY": "failed",
    "CANCELLED": "cancelled",
    "REVOKED": "cancelled",
    "DEADLINE": "timeout",
    "TIMEOUT": "timeout",
    "NODE_FAIL": "node_failed",
}
USUAL_MINUTES = 60  # of a job whose time limit is not given
WARNED_S = 120.0  # before its time limit, a worker gets a signal, on which a training saves its state
ASK_S = 60.0  # for one answer of squeue or scontrol
WHOLE_LISTS = {"SLURM_BITSTR_LEN": "0"}  # environment; else SLURM cuts the tasks of an array after 64 characters
ASK_AGAIN_S = 600.0  # between questions for the time limit of a job
TIME_IS_OVER = 124  # exit code of a job, as of timeout(1)
ERROR_S = 120  # between the end of one rank of a job and that of the others
DURATION = re.compile(r"(?:(?P<days>\d+)-)?(?P<hours>\d+)(?::(?P<minutes>\d\d))?(?::(?P<seconds>\d\d))?")

DURATION_LEFT = re.compile(r"(?:(\d+)-)?(?:(\d+):)?(\d+):(\d+)")  # of squeue: 1-02:00:00, 59:30
NO_OUTPUT_FILE = "0:53"  # exit code of a job whose node could not open the file for its output
PARTITIONS = "%R"  # format of sinfo
# Words of a refusal, and the format by which sinfo prints what there is instead.
OFFERS = {
    "invalid partition": PARTITIONS,
    "time limit": "%R up to %l",
    "gres": "%G",
    "node configuration": "%c processors and %m MB, gres %G",
}


class Slurm(Executor):
    """Submits job arrays. `time` is the limit of each job, as 2:00:00 or 1-12; `options` are those of sbatch."""

    name = "slurm"
    spans_nodes = True

    def __init__(
        self,
        *,
        partition: str | None = None,
        gres: str | None = None,
        time: str | None = None,
        cpus: int | None = None,
        memory: str | None = None,
        options: Mapping[str, str] | None = None,
    ) -> None:
        self.minutes = USUAL_MINUTES if time is None else minutes_of(time)
        self.time_limit_s = 60.0 * self.minutes
        self.options = dict(options or {})
        self.cpus = cpus or self.options.pop("cpus-per-task", None)  # srun wants it, too
        self.parameters: dict[str, Any] = {"partition": partition, "gres": gres, "mem": memory}

    def gpus_of_a_node(self, required: int) -> int:
        gres = self.parameters["gres"]
        return required if gres is None else gpus_of_gres(gres)

    def submit(self, workers: Workers) -> list[str]:
        for program in ("sbatch", "srun"):
            if shutil.which(program) is None:
                raise InputError(
                    f"--executor slurm needs {program}, which is not on this machine; run it on a login node"
                )
        try:
            import submitit
        except ImportError:
            raise MissingPackageError(
                "submitit", needed_for="--executor slurm", install="pip install 'vbench-video[slurm]'"
            ) from None
        workers.logs.mkdir(parents=True, exist_ok=True)
        executor = submitit.SlurmExecutor(folder=workers.logs, max_num_timeout=0)
        given = _required(workers) | {name: value for name, value in self.parameters.items() if value is not None}
        executor.update_parameters(
            job_name="vbench",
            time=self.minutes,
            exclusive=True if workers.is_exclusive else None,
            array_parallelism=workers.count,
            additional_parameters={
                "chdir": str(workers.folder),
                **self.options,
                "open-mode": "append",
                "requeue": True,
                "signal": "USR2@0",  # none: see `_wait_and_warn`
            },
            **_tasks_of(workers.layout, cpus=self.cpus),
            **given,
        )
        refusals = (submitit.core.utils.FailedJobError, submitit.core.utils.FailedSubmissionError, OSError)
        try:
            with redirect_stderr(io.StringIO()):  # submitit prints what sbatch says, which the error has too
                jobs = executor.map_array(run_worker, [workers] * workers.count)
        except refusals as error:
            raise InputError(self._refusal(error)) from error
        return [job.job_id for job in jobs]

    def _refusal(self, error: Exception) -> str:
        """Return in one line why SLURM refuses jobs, and what the cluster has instead if that is the reason."""
        said = reason_of(str(error)) or type(error).__name__
        if "array specification" in said.lower() and (most := _largest_array()):
            limit = f"an array has at most {most} jobs on this cluster (MaxArraySize); give --max-jobs {most} or less"
            return f"SLURM refuses the jobs: {said}; {limit}"
        form = next((form for words, form in OFFERS.items() if words in said.lower()), None)
        offered = [] if form is None else _offered(form)
        if not offered:
            return f"SLURM refuses the jobs: {said}"
        name = self.parameters["partition"]
        near = nearest(name, offered) if name and form == PARTITIONS else ""
        instead = near or f"this cluster has: {', '.join(offered)}"
        return f"SLURM refuses the jobs: {said}; {instead}"

    @classmethod
    def states(cls, jobs: Sequence[str]) -> list[JobState]:
        arrays = sorted({job.partition("_")[0] for job in jobs})
        found: dict[str, JobState] = {}
        for array in arrays:
            answer = _ask("scontrol", "show", "job", "--oneliner", array)
            found |= {state.job: state for line in answer.splitlines() for state in _parsed(line)}
        return [found.get(job, JobState(job=job, phase="ended")) for job in jobs]

    @classmethod
    def cancel(cls, jobs: Sequence[str]) -> None:
        _ask("scancel", "--state=PENDING", *jobs)


def _required(workers: Workers) -> dict[str, Any]:
    """Return the resources that the suite requires. A worker checks the name of its GPU: sites name types freely."""
    found: dict[str, Any] = {"gres": f"gpu:{workers.gpus}"} if workers.gpus else {}
    return found | ({"mem": f"{-(-workers.memory_bytes // 2**20)}M"} if workers.memory_bytes else {})


def _tasks_of(layout: RankLayout, *, cpus: int | str | None) -> dict[str, Any]:
    """Return the parameters of the tasks of a job: one in the batch script, or one for each rank of several nodes."""
    if layout.nodes == 1:  # a batch script is enough for one process, and some sites limit steps
        return {"use_srun": False, "cpus_per_task": cpus or (layout.ranks if layout.ranks > 1 else None)}
    # After an error of one rank the others have time to store the record that names it.
    srun = ["--kill-on-bad-exit=0", f"--wait={ERROR_S}", "--export=ALL"]  # also after sbatch --export=NONE
    srun += [f"--cpus-per-task={cpus}"] if cpus else []  # from SLURM 22.05 on it does not take that of the job
    tasks = {"nodes": layout.nodes, "ntasks_per_node": layout.ranks_per_node}
    return {**tasks, "cpus_per_task": cpus, "srun_args": srun}


def run_worker(workers: Workers) -> None:
    """Run one worker of an array, or one rank of it.

    Its name is that of its job and of the restart: after the loss of a node its first worker may still run, and must
    not write to the same file. The job fails if the worker does: `states` reads its exit code, or that the time of the
    job was over.
    """
    from submitit import JobEnvironment

    job = JobEnvironment()
    restarts = int(os.environ.get("SLURM_RESTART_COUNT", "0"))
    name, rank, variables = restarted_name(f"slurm-{job.job_id}", restarts), 0, {}
    if workers.layout.nodes > 1:  # a requeued job starts at a new address
        rank = job.global_rank
        variables = workers.variables_of_rank(rank, start=name)
    signal.signal(signal.SIGUSR2, lambda number, frame: None)  # submitit would requeue the job, or kill the worker
    environment = {**os.environ, **workers.variables, **variables}
    with subprocess.Popen([*workers.command, "--worker", name], env=environment) as process:
        code = process.wait() if rank else _wait_and_warn(process, job.job_id)
    if code and rank == 0:  # the other ranks end with the same code
        sys.exit(code if code > 0 else 128 - code)  # no exception, which submitit would report with a traceback


def _wait_and_warn(process: "subprocess.Popen[bytes]", job: str) -> int:
    """Wait for a worker, and signal it shortly before the time limit of its job.

    Returns its exit code, or `TIME_IS_OVER` after the signal.

    SLURM's own --signal does not reach processes of a batch script, and in a step it reaches every process, also those
    that load the videos of a training which is about to save its state.
    """
    left_s = _seconds_left(job)
    warned_s = min(WARNED_S, left_s / 4)
    while True:
        try:
            return process.wait(timeout=max(0.0, min(left_s - warned_s, ASK_AGAIN_S)))
        except subprocess.TimeoutExpired:
            left_s = _seconds_left(job)  # the limit may have been changed
            if left_s <= warned_s:
                process.send_signal(signal.SIGUSR2)
                return TIME_IS_OVER if process.wait() else 0


def _seconds_left(job: str) -> float:
    """Return the seconds until the time limit of a job; infinity if it has none or SLURM does not answer."""
    try:
        text = _ask("squeue", "--noheader", "--format=%L", f"--jobs={job}").strip()
    except InputError:
        return math.inf
    match = DURATION_LEFT.fullmatch(text)
    if match is None:
        return math.inf
    days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
    return ((days * 24 + hours) * 60 + minutes) * 60.0 + seconds


def gpus_of_gres(text: str) -> int:
    """Return the GPUs in a list of resources such as `gpu`, `gpu:2` or `gpu:h100:4,nvme:1`."""
    parts = [part.strip().partition("(")[0].split(":") for part in text.split(",")]
    numbers = [part[-1] if len(part) > 1 else "1" for part in parts if part[0] in ("gpu", "gres/gpu")]
    return sum(int(number) if number.isdecimal() else 1 for number in numbers)  # a type without a number is one GPU


def minutes_of(text: str) -> int:
    """Return a time limit as SLURM writes it, 90 (minutes), 2:00:00, 1-12 or 1-12:30, in whole minutes."""
    if text.isdecimal() and int(text) > 0:
        return int(text)
    match = DURATION.fullmatch(text)
    parts = {name: int(value or 0) for name, value in match.groupdict().items()} if match else {}
    if match and match["days"] is None and match["seconds"] is None:  # MM:SS
        parts = {"days": 0, "hours": 0, "minutes": parts["hours"], "seconds": parts["minutes"]}
    minutes = (parts["days"] * 24 + parts["hours"]) * 60 + parts["minutes"] + (parts["seconds"] > 0) if parts else 0
    if minutes < 1:
        raise InputError(f"--time {text!r} is not a time limit of SLURM, such as 90 (minutes), 2:00:00 or 1-12")
    return minutes


def _ask(*command: str) -> str:
    """Return the output of a command of SLURM; empty for jobs that it no longer knows."""
    try:
        done = run_supervised(list(command), timeout_s=ASK_S, environment={**os.environ, **WHOLE_LISTS})
    except ChildTimeoutError:
        raise InputError(f"{command[0]} does not answer within {ASK_S:.0f} s") from None
    except FileNotFoundError:
        raise InputError(f"{command[0]} is not on this machine; ask on a login node of the cluster") from None
    if done.returncode and "Invalid job id" not in done.stderr:
        raise InputError(
            f"{command[0]} does not answer: {done.stderr.strip() or f'it ended with code {done.returncode}'}"
        )
    return "" if done.returncode else done.stdout


def _parsed(line: str) -> list[JobState]:
    """Return the states in one line of `scontrol show job`: several if an array waits as one job."""
    fields = dict(re.findall(r"(\w+)=(\S*)", line))
    if "JobState" not in fields:
        return []
    job = str(fields.get("ArrayJobId", fields.get("JobId", "")))
    phase = PHASES.get(fields["JobState"], "running")
    reason = "" if fields.get("Reason") in (None, "None") else fields["Reason"]
    ended = fields.get("ExitCode", "")
    code = ended.partition(":")[0]
    if fields["JobState"] == "FAILED" and ended == NO_OUTPUT_FILE:
        reason = "cannot write its output: does the node see the results folder?"
    elif fields["JobState"] == "FAILED" and code not in ("", "0"):
        phase, reason = ("timeout", "TimeLimit") if code == str(TIME_IS_OVER) else ("failed", f"exit code {code}")
    node = "" if fields.get("NodeList") in (None, "(null)") else fields["NodeList"]
    return [
        JobState(job=f"{job}_{task}" if task else job, phase=phase, node=node, reason=reason)
        for task in _tasks(fields.get("ArrayTaskId", ""))
    ]


def _tasks(text: str) -> list[str]:
    """Return the tasks of an array that `3`, `0-2,5`, `0-8:2` or `0-7%4` names; one empty name for a job without."""
    if not text:
        return [""]
    tasks: list[str] = []
    for part in text.partition("%")[0].split(","):
        span, _, step = part.partition(":")
        first, _, last = span.partition("-")
        tasks += [str(task) for task in range(int(first), int(last or first) + 1, int(step or 1))]
    return tasks


def reason_of(text: str) -> str:
    """Return what sbatch says as one line, without its prefixes."""
    lines = [re.sub(r"^sbatch: ((error|fatal|warning): )?", "", line.strip()) for line in text.splitlines()]
    return "; ".join(dict.fromkeys(line for line in lines if line and not line.startswith("Try ")))


def _largest_array() -> int | None:
    """Return the most tasks that an array may have here; None if SLURM does not answer."""
    try:
        found = re.search(r"^MaxArraySize\s*=\s*(\d+)", _ask("scontrol", "show", "config"), re.MULTILINE)
    except InputError:
        return None
    return int(found[1]) if found else None


def _offered(form: str) -> list[str]:
    """Return what sinfo prints in this format, each line once; nothing if it does not answer."""
    try:
        lines = _ask("sinfo", "--noheader", f"--format={form}").splitlines()
    except InputError:
        return []
    return sorted({" ".join(line.replace("(null)", "none").split()) for line in lines})
