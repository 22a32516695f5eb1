"""Runs one case in a fresh child process on this machine and returns a record of whatever happens."""

import signal
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter
from types import MappingProxyType, TracebackType
from typing import Any, TypedDict, Unpack
from uuid import uuid4

from bench.core.errors import StopSignal, TrainingError
from bench.core.fork_server import ForkServer, ForkServerError
from bench.core.process import ChildTimeoutError, Process
from bench.core.registry import MEASURES
from bench.core.schema import GOOD_STATUSES, Case, Failure, Json, Record, Status
from bench.core.waiting_interpreter import WaitingInterpreter
from bench.runner.environment import describe_environment
from bench.runner.fingerprint import Fingerprint
from bench.runner.rank_processes import WorkerGroup, launcher_count, unreachable_rank, worker_processes
from bench.runner.worker import WorkerRequest, WorkerResult
from bench.store import RecordStore

SESSION = uuid4().hex  # of this process, whose cases may share what they measured of the machine
OWN_MESSAGE = "vbench: "  # begins the last line of a worker that ends itself with a reason
SAVE_S = 60.0  # that a training may take to save its state after the first Ctrl-C


class RunIdentity(TypedDict):
    """What a record keeps of its run besides the case."""

    run_index: int
    freshness: str
    fingerprint: Fingerprint | None


OnProgress = Callable[[str, float | None], None]


class WorkerStarts:
    """Starts workers: those of cases that are not timed are forked, the others are new interpreters.

    A new interpreter costs seconds of imports, and its memory layout is part of what repeats of a timing must vary.
    `prepare` starts interpreters ahead. Leaving the `with` block ends the fork server and those that still wait.
    """

    def __init__(self) -> None:
        self._server: ForkServer | None = None
        self._can_fork = ForkServer.is_available()
        self._waiting: list[WaitingInterpreter] = []

    def of(self, case: Case) -> Callable[..., Process]:
        """What starts the worker of this case: takes the arguments of `subprocess.Popen`."""
        return self._fork if self._can_fork and is_forkable(case) else self._start_new

    def prepare(self, count: int) -> None:
        """Start interpreters for the next timed cases until `count` wait or are on their way."""
        missing = count - len(self._waiting)
        self._waiting += [WaitingInterpreter("bench.runner.worker:preload_timed") for _ in range(missing)]

    def wait_until_prepared(self) -> None:
        """Wait until the interpreters that were started ahead have finished importing, which would disturb a run."""
        for each in [each for each in self._waiting if not each.is_ready()]:
            self._waiting.remove(each)
            each.close()

    def _start_new(self, command: list[str], **options: Any) -> Process:
        while self._waiting:
            with suppress(ForkServerError):  # it ended while it waited
                return self._waiting.pop(0).start(command, **options)
        return subprocess.Popen(command, **options)

    def _fork(self, command: list[str], **options: Any) -> Process:
        is_first = self._server is None
        try:
            if self._server is None or self._server.has_ended:  # a case may kill it: that costs this case only
                if self._server is not None:
                    self._server.close()
                self._server = ForkServer("bench.runner.worker:preload")
            return self._server.start(command, **options)
        except ForkServerError:
            self._can_fork = not is_first  # what keeps it from starting is an error that each worker reports
            return subprocess.Popen(command, **options)

    def close(self) -> None:
        if self._server is not None:
            self._server.close()
        for each in self._waiting:
            each.close()
        self._waiting.clear()

    def __enter__(self) -> "WorkerStarts":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def is_forkable(case: Case) -> bool:
    """Whether no measure of the case is repeated in new interpreters; an unknown measure might be."""
    return all(name in MEASURES and not MEASURES.get(name).is_repeated for name in case.measures)


class CaseStop:
    """Stops a case from another thread than the one that runs it."""

    def __init__(self) -> None:
        self.is_set = self.is_killed = False
        self._group: WorkerGroup | None = None
        self._lock = threading.Lock()

    @contextmanager
    def watching(self, group: WorkerGroup) -> Iterator[None]:
        """Let the block be stopped by the end of the worker of `group`."""
        with self._lock:
            self._group = group
            if self.is_set:
                group.first.interrupt()
        try:
            yield
        finally:
            with self._lock:
                self._group = None

    def set(self) -> None:
        """Ask the worker to save its state and stop."""
        with self._lock:
            self.is_set = True
            if self._group is not None:
                self._group.first.interrupt()

    def kill(self) -> None:
        """End the worker at once; its supervisor, in the other thread, then ends what it started."""
        with self._lock:
            self.is_killed = True
            if self._group is not None and not self._group.first.has_exited:
                self._group.first.process.send_signal(signal.SIGKILL)

    def described(self, result: WorkerResult) -> WorkerResult:
        """`result`, as interrupted if the case was stopped before it had a good one."""
        if not self.is_set or result.status in GOOD_STATUSES or result.status == "interrupted":
            return result
        text = "stopped without saving its state" if self.is_killed else "stopped before it had a result"
        failure = Failure(type="Interrupted", message=text, traceback=result.error.traceback if result.error else "")
        return result.model_copy(update={"status": "interrupted", "error": failure})


class CaseInterrupted(StopSignal):
    """Ctrl-C, SIGTERM or SIGHUP during a case; `record` holds what was measured until then."""

    def __init__(self, record: Record, stop: KeyboardInterrupt) -> None:
        stopped = stop.signal if isinstance(stop, StopSignal) else signal.SIGINT
        super().__init__(stopped, detail=f"in {record.error.message}" if record.error else "")
        self.record = record


class LostRankError(TrainingError):
    """A rank on another machine does not answer, so that this job cannot go on; `record` is an interrupted one."""

    def __init__(self, record: Record, *, rank: int) -> None:
        of = f"rank {rank} of {launcher_count()}"
        super().__init__(f"{of} does not answer: its machine may be lost; the run is left to another job")
        self.record = record.model_copy(update={"status": "interrupted"})


def run_case(
    case: Case,
    store: RecordStore,
    *,
    run_index: int,
    freshness: str,
    fingerprint: Fingerprint | None = None,
    recipes: tuple[Path, ...] = (),
    on_progress: OnProgress = lambda text, fraction: None,
    starts: WorkerStarts | None = None,
    variables: Mapping[str, str] = MappingProxyType({}),
    stop: CaseStop | None = None,
) -> Record:
    """Run one case once and return its record; a crash, a hang and exhausted memory are records too.

    `freshness` is the digest of the `fingerprint`, which the record keeps by its parts if it is given. Without `starts`
    the worker is a new interpreter. `variables` are added to its environment. A `stop` that is set by another thread
    makes it an interrupted record.

    Raises CaseInterrupted if the user or the system stops the run, and LostRankError if the case failed and the machine
    of one of its ranks does not answer, which is no property of the case; both have the record.
    """
    request = WorkerRequest(
        case=case,
        artifacts=str(store.artifacts(case.id).absolute()),
        recipes=tuple(map(str, recipes)),
        session=SESSION,
        log=str(store.log(case.id).absolute()),
    )
    started_at, started = datetime.now(UTC).isoformat(timespec="seconds"), perf_counter()
    result, stopped = _run_worker(
        request,
        on_progress,
        start=None if starts is None else starts.of(case),
        variables=variables,
        stop=stop or CaseStop(),
    )
    record = Record(
        case=case,
        case_id=case.id,
        run_index=run_index,
        freshness=freshness,
        fingerprint=dict(fingerprint.parts) if fingerprint else {},
        started_at=started_at,
        status=result.status,
        metrics=result.metrics,
        details={**result.details, "session": SESSION, **_modules(fingerprint)},
        uncounted_operators=result.uncounted_operators,
        environment=result.environment,
        warnings=result.warnings,
        error=result.error,
        artifacts={**result.artifacts, "log": str(store.log(case.id).relative_to(store.folder))},
        seconds={**result.seconds, "whole": round(perf_counter() - started, 3)},
    )
    if stopped is not None:
        raise CaseInterrupted(record, stopped)
    if record.status == "error" and (rank := unreachable_rank(case)) is not None:
        raise LostRankError(record, rank=rank)
    return record


def lost_record(case: Case, *, attempts: int, **run: Unpack[RunIdentity]) -> Record:
    """Return the record of a run whose workers vanished in several attempts, so that it is not tried for ever."""
    text = f"{attempts} workers that ran this case stopped responding: their machine failed, or the case took it down"
    result = _without_result("error", "LostWorker", text, "")
    fingerprint = run["fingerprint"]
    return Record(
        case=case,
        case_id=case.id,
        run_index=run["run_index"],
        freshness=run["freshness"],
        fingerprint=dict(fingerprint.parts) if fingerprint else {},
        started_at=datetime.now(UTC).isoformat(timespec="seconds"),
        status=result.status,
        metrics=(),
        details={"session": SESSION},
        environment=result.environment,
        error=result.error,
        seconds={"whole": 0.0},
    )


def _modules(fingerprint: Fingerprint | None) -> dict[str, Json]:
    """The user's modules behind the result, so that `vbench plan --why` can name the one that changed."""
    return {"modules": dict(fingerprint.modules)} if fingerprint and fingerprint.modules else {}


def _run_worker(
    request: WorkerRequest,
    on_progress: OnProgress,
    *,
    start: Callable[..., Process] | None,
    variables: Mapping[str, str],
    stop: CaseStop,
) -> tuple[WorkerResult, KeyboardInterrupt | None]:
    """What the worker returned, and the signal that stopped it, if one did."""
    case, content, log = request.case, request.model_dump(mode="json"), Path(request.log)
    with worker_processes(case, content, log=log, start=start, variables=variables) as group, stop.watching(group):
        try:
            return stop.described(_receive(group, case.timeout_s, on_progress)), None
        except KeyboardInterrupt as interrupt:
            return _stop_worker(group), interrupt


def _receive(group: WorkerGroup, limit_s: float, on_progress: OnProgress) -> WorkerResult:
    first = group.first
    try:
        for message in first.messages(timeout_s=limit_s, companions=group.others):
            if message["kind"] == "outcome":
                return WorkerResult.model_validate(message["outcome"])
            on_progress(message["text"], message["fraction"])
    except ChildTimeoutError:
        first.kill()
        limit = f"{limit_s:g} s; raise timeout_s in the suite, or --timeout of `vbench train` or `eval`"
        return _without_result("timeout", "Timeout", f"not done after {limit}", first.last_output())
    return _without_result("error", "Crash", _cause(group), first.last_output())


def _stop_worker(group: WorkerGroup) -> WorkerResult:
    """Ask the worker to save its state and stop. A second Ctrl-C, or a minute, ends it without that."""
    text = "stopped before it had a result"
    try:
        group.first.interrupt()
        for message in group.first.messages(timeout_s=SAVE_S, companions=group.others):
            if message["kind"] == "outcome":
                result = WorkerResult.model_validate(message["outcome"])
                return result.model_copy(update={"status": "interrupted"})
    except (KeyboardInterrupt, ChildTimeoutError):
        group.first.kill()
        text = "stopped without saving its state"
    return _without_result("interrupted", "Interrupted", text, group.first.last_output())


def _cause(group: WorkerGroup) -> str:
    """Why there is no result: the worker's own last line, a rank that died, or how the process ended."""
    first, code = group.first, group.first.end()
    last = first.last_error()
    if last.startswith(OWN_MESSAGE):
        return last.removeprefix(OWN_MESSAGE)
    for rank, other in enumerate(group.others, start=1):
        if other.has_exited and not other.was_killed and (ended := other.end(within_s=0.0)):
            return f"rank {rank} ended {_how(ended)}"
    if first.was_killed:
        return "the process closed its reply pipe without a result"
    return (
        f"the process ended {_how(code)} before it had a result" if code >= 0 else f"the process was ended {_how(code)}"
    )


def _how(code: int) -> str:
    if code >= 0:
        return f"with code {code}"
    name = signal.Signals(-code).name
    hint = "; the kernel does this when memory runs out" if -code == signal.SIGKILL else ""
    return f"by {name}{hint}"


def _without_result(status: Status, kind: str, message: str, output: str) -> WorkerResult:
    return WorkerResult(
        status=status,
        environment=describe_environment(),
        error=Failure(type=kind, message=message, traceback=output),
    )
