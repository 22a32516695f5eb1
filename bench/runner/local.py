"""Runs one case in a fresh child process on this machine, and makes a record of whatever comes of it."""

import os
import signal
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter
from uuid import uuid4

from bench.core.process import ChildTimeoutError, tail
from bench.core.schema import Case, Failure, Record, Status
from bench.measure.timing.turn_taking import ADDRESS
from bench.runner.environment import describe_environment
from bench.runner.rank_processes import worker_processes
from bench.runner.worker import WorkerRequest, WorkerResult
from bench.store import RecordStore

SESSION = uuid4().hex  # of this process, whose cases may share what they measured of the machine
OWN_WORD = "vbench: "  # how a process that ends itself begins the line that says why
OnProgress = Callable[[str, float | None], None]


def run_case(
    case: Case,
    store: RecordStore,
    *,
    run_index: int,
    freshness: str,
    recipes: tuple[Path, ...] = (),
    on_progress: OnProgress = lambda text, fraction: None,
) -> Record:
    """One run of one case. Never raises for what happens inside it: a crash, a hang, an OOM are records too."""
    job = WorkerRequest(
        case=case,
        artifacts=str(store.artifacts(case.id).absolute()),
        recipes=tuple(map(str, recipes)),
        session=SESSION,
        log=str(store.log(case.id).absolute()),
    )
    started_at, started = datetime.now(UTC).isoformat(timespec="seconds"), perf_counter()
    outcome = _outcome_of(job, on_progress)
    return Record(
        case=case,
        case_id=case.id,
        run_index=run_index,
        freshness=freshness,
        started_at=started_at,
        status=outcome.status,
        metrics=outcome.metrics,
        details={**outcome.details, "session": SESSION},
        uncounted_operators=outcome.uncounted_operators,
        environment=outcome.environment,
        warnings=outcome.warnings,
        error=outcome.error,
        artifacts={**outcome.artifacts, "log": str(store.log(case.id).relative_to(store.folder))},
        seconds={**outcome.seconds, "whole": round(perf_counter() - started, 3)},
    )


def _outcome_of(job: WorkerRequest, on_progress: OnProgress) -> WorkerResult:
    log, limit_s = Path(job.log), _limit_s(job.case)
    with worker_processes(job.case, job.model_dump(mode="json"), log=log) as child:
        try:
            for message in child.messages(timeout_s=limit_s):
                if message["kind"] == "outcome":
                    return WorkerResult.model_validate(message["outcome"])
                on_progress(message["text"], message["fraction"])
        except ChildTimeoutError:
            child.kill()
            limit = f"{limit_s:g} s; raise timeout_s in the suite, or --timeout of `vbench train` or `eval`"
            return _died("timeout", "Timeout", f"not done after {limit}", log)
        code = child.process.wait()
    return _died("error", "Crash", _cause(code, log), log)


def _limit_s(case: Case) -> float:
    """How long a worker may take: twice as long where it takes turns, since another has the floor half of the time."""
    return case.timeout_s * (2 if os.environ.get(ADDRESS) else 1)


def _cause(code: int, log: Path) -> str:
    """Why a worker ended: what it said of it last, else how it ended."""
    last = tail(log, lines=1)
    if last.startswith(OWN_WORD):
        return last.removeprefix(OWN_WORD)
    if code >= 0:
        return f"the process ended with code {code} before it had a result"
    name = signal.Signals(-code).name
    hint = "; the kernel does this when memory runs out" if -code == signal.SIGKILL else ""
    return f"the process was ended by {name}{hint}"


def _died(status: Status, kind: str, message: str, log: Path) -> WorkerResult:
    return WorkerResult(
        status=status,
        environment=describe_environment(),
        error=Failure(type=kind, message=message, traceback=tail(log)),
    )
