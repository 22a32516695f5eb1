"""Sends the pending runs of a suite to an executor, and follows its workers until they are done."""

import os
import shutil
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from inspect import signature
from pathlib import Path

from bench.core.errors import InputError, StopSignal
from bench.core.schema import Case, Record
from bench.core.units import first_of, plural
from bench.runner.devices import uses_device
from bench.runner.executor import FINAL, Executor, JobState, Submission, Workers
from bench.runner.folder_status import executor_class
from bench.runner.job_kind import JobKind
from bench.runner.running import Event, EventKind, Plan, RunSummary
from bench.runner.sending import Sink
from bench.runner.staging import StagedTree
from bench.store.leases import Leases
from bench.store.tail import RecordTail, file_sizes
from bench.suite.requirement import Requirement

PASSED_VARIABLES = ("PYTHONPATH", "VBENCH_DATA", "XDG_CACHE_HOME")  # by which a worker finds the same files
POLL_S = 2.0
ASK_S = 15.0  # between questions to the cluster, which many users ask
PATIENCE_S = 600.0  # with a cluster that does not answer: its controller may be restarted, while workers go on
GRACE_S = 30.0  # for a record to appear on this machine after its job has ended


@dataclass(frozen=True, kw_only=True)
class Dispatched:
    """Runs that were sent to workers: `jobs` by their names, and the sizes of the records files before."""

    plan: Plan
    executor: str
    jobs: tuple[str, ...]
    marks: Mapping[str, int]


@dataclass(frozen=True, kw_only=True)
class RunGroup:
    """Pending runs that are submitted together: the case of each, and what their jobs require of a machine."""

    kind: JobKind
    cases: tuple[Case, ...]
    require: Requirement | None

    @property
    def gpus_per_node(self) -> int:
        """GPUs that each node of a job needs: those that the suite requires, and one for each rank on a GPU."""
        gpus, layout = 0 if self.require is None else self.require.gpu_count, self.kind.layout
        needs_gpu = gpus or any((case.point.device or "").startswith("cuda") for case in self.cases)
        return max(gpus, layout.ranks_per_node) if needs_gpu and layout.ranks > 1 else gpus


def dispatch(
    plan: Plan,
    executor: str,
    *,
    command: Sequence[str],
    options: Mapping[str, object],
    most_jobs: int,
    stage: StagedTree | None = None,
) -> Dispatched:
    """Submit workers for the pending runs of a plan, and store in the results folder what was submitted.

    `command` is that of one worker. Cases of one kind share workers: timed cases get some that have their nodes to
    themselves, cases over several ranks or nodes some with as many. They run from the `stage` if there is one. Raises
    InputError for what the executor refuses.
    """
    engine = open_executor(executor, options)
    store = plan.store
    store.folder.mkdir(parents=True, exist_ok=True)
    store.write_suite((plan.whole or plan.suite).facts())
    marks = file_sizes(store.folder)
    given = {name: str(value) for name, value in options.items() if _is_given(value)}
    jobs: list[str] = []
    variables = {name: os.environ[name] for name in PASSED_VARIABLES if name in os.environ}
    variables |= {} if stage is None else stage.variables(variables)
    groups = groups_of(plan)
    for group in groups:
        layout, gpus = group.kind.layout, engine.gpus_of_a_node(group.gpus_per_node)
        if layout.nodes > 1 and not engine.spans_nodes:
            raise InputError(f"--executor {executor} cannot run cases over {layout.nodes} nodes")
        if 0 < gpus < layout.ranks_per_node and any(case.point.device != "cpu" for case in group.cases):
            raise InputError(
                f"cases with {plural(layout.ranks_per_node, 'rank')} on a node need as many GPUs there, and a job has "
                f"{gpus}; request them by --gres or --gpus"
            )
    for group in groups:
        submission = Submission.now(
            executor,
            options=given,
            is_exclusive=group.kind.is_timed,
            marks=marks,
            stage="" if stage is None else str(stage.folder),
        )
        submission.write(store.folder)
        workers = Workers(
            command=(*command, "--submission", submission.name, "--kind", str(group.kind)),
            count=min(len(group.cases), most_jobs),
            is_exclusive=group.kind.is_timed,
            logs=store.folder.absolute() / "logs" / executor / submission.name,
            folder=Path.cwd() if stage is None else stage.place_of(Path.cwd()),
            variables=variables,
            gpus=group.gpus_per_node,
            memory_bytes=None if group.require is None else group.require.memory_bytes,
            layout=group.kind.layout,
        )
        try:
            submitted = engine.submit(workers)
        except BaseException as error:
            submission.remove(store.folder)  # no worker will ever ask for it
            shutil.rmtree(workers.logs, ignore_errors=True)  # nor read the script that was prepared there
            if jobs and isinstance(error, InputError):
                raise InputError(f"{error}; submitted before: {first_of(jobs)}, which run the other cases") from error
            raise
        submission.with_jobs(submitted).write(store.folder)
        jobs += submitted
    return Dispatched(plan=plan, executor=executor, jobs=tuple(jobs), marks=marks)


def groups_of(plan: Plan) -> list[RunGroup]:
    """Group the pending runs of a plan by the kind of job that they need; each group is one submission."""
    kinds: dict[JobKind, list[Case]] = {}
    for case, _ in plan.pending:
        kinds.setdefault(JobKind.of(case), []).append(case)
    return [
        RunGroup(kind=kind, cases=tuple(cases), require=plan.suite.require if any(map(uses_device, cases)) else None)
        for kind, cases in sorted(kinds.items())
    ]


def open_executor(name: str, options: Mapping[str, object]) -> Executor:
    """Make an executor with the options that the user gave; raises InputError for one that it does not take."""
    executor = executor_class(name)
    given = {key: value for key, value in options.items() if _is_given(value)}
    allowed = signature(executor).parameters
    for key in given:
        if key not in allowed:
            flags = ", ".join(_flag_of(each) for each in allowed if each in options)
            raise InputError(f"--executor {name} does not take {_flag_of(key)}; its options here: {flags or 'none'}")
    return executor(**given)


def _is_given(value: object) -> bool:
    """Whether the user gave an option: zero GPUs are a choice, while an empty mapping is not."""
    return value is not None and value != {}


def _flag_of(option: str) -> str:
    return "--job-option" if option == "options" else f"--{option}"


@dataclass(kw_only=True)
class _Follower:
    """Watches the dispatched runs while their workers run."""

    sent: Dispatched
    sinks: Sequence[Sink]
    on_event: Callable[[Event], None]
    results: dict[tuple[str, int], Record] = field(default_factory=dict)
    started: set[str] = field(default_factory=set)  # attempts
    notes: list[str] = field(default_factory=list)
    failed: int = 0
    states: list[JobState] | None = None  # of the jobs, once the cluster has answered
    answered: float = field(default_factory=time.monotonic)
    waiting_for: tuple[str, ...] = ()
    is_held: bool = False  # a run, by a worker that sends heartbeats

    def __post_init__(self) -> None:
        self.cases: dict[tuple[str, int], Case] = {(case.id, index): case for case, index in self.sent.plan.pending}

    def notify(
        self, kind: EventKind, *, key: tuple[str, int] | None = None, worker: str | None = None, text: str = ""
    ) -> None:
        record = self.results.get(key) if key and kind == "finished" else None
        self.on_event(
            Event(
                kind=kind,
                folder=self.sent.plan.store.folder,
                done=len(self.sent.plan.done) + len(self.results),
                failed=self.failed,
                left=len(self.cases) - len(self.results),
                left_s=None,
                case=self.cases[key] if key else None,
                run_index=key[1] if key else None,
                lane=worker,
                record=record,
                text=text,
            )
        )

    def warn(self, text: str) -> None:
        """Show a warning, and keep it for the summary; a repeated one is left out."""
        if text not in self.notes:
            self.notes.append(text)
            self.notify("note", text=text)

    def read(self, tail: RecordTail, leases: Leases) -> None:
        """Report what has happened since the last call."""
        held = [lease for lease in leases.states() if lease.run in self.cases]
        self.is_held = not all(lease.has_expired for lease in held)
        for lease in held:
            if lease.facts.attempt not in self.started:
                self.started.add(lease.facts.attempt)
                self.notify("started", key=lease.run, worker=lease.facts.worker)
        for record in tail.new_records():
            key = record.case_id, record.run_index
            if key in self.cases and not (key in self.results and self.results[key].is_good):
                self.failed += (not record.is_good) - (key in self.results)  # the result before it was no good one
                self.results[key] = record
                self.notify("finished", key=key)
                self.notes += [warning for sink in self.sinks if (warning := sink.add(record)) is not None]

    def ask(self) -> None:
        """Ask the cluster for the states of the jobs; if it does not answer, those of before stay, with a warning.

        Raises InputError if it has not answered for ten minutes.
        """
        try:
            self.states = executor_class(self.sent.executor).states(self.sent.jobs)
            self.answered = time.monotonic()
        except InputError as error:
            if time.monotonic() - self.answered > PATIENCE_S:
                raise
            self.warn(f"the states of the jobs are unknown: {error}")
            return
        is_waiting = all(state.phase == "waiting" for state in self.states)
        reasons = tuple(sorted({state.reason for state in self.states if state.reason})) if is_waiting else ()
        if reasons and reasons != self.waiting_for:
            self.notify("waiting", text=f"all jobs wait: {', '.join(reasons)}")
        self.waiting_for = reasons

    @property
    def may_go_on(self) -> bool:
        """Whether a job may still bring a result, or a worker of another submission holds one of the runs."""
        return self.states is None or self.is_held or any(state.phase not in FINAL for state in self.states)

    def cancel_waiting(self) -> None:
        """Cancel the jobs that still wait, which would find nothing to do."""
        try:
            if self.sent.jobs:
                executor_class(self.sent.executor).cancel(self.sent.jobs)
        except InputError as error:
            self.warn(f"jobs that still wait were not cancelled: {error}")

    @property
    def is_done(self) -> bool:
        settled = [record for record in self.results.values() if record.status != "interrupted"]
        return len(settled) == len(self.cases)


def follow(
    sent: Dispatched,
    *,
    sinks: Sequence[Sink] = (),
    on_event: Callable[[Event], None] = lambda event: None,
) -> RunSummary:
    """Follow the workers until every run has a result, or no job is left that could produce one.

    Each of the `sinks` gets a copy of every record.
    """
    plan, folder = sent.plan, sent.plan.store.folder
    follower = _Follower(sent=sent, sinks=sinks, on_event=on_event)
    for sink in sinks:
        sink.start(plan.suite.name)
    try:
        _watch(follower)
    except KeyboardInterrupt as stop:
        number = stop.signal if isinstance(stop, StopSignal) else signal.SIGINT
        raise StopSignal(number, detail=f"watching; the jobs go on (vbench status {folder})") from None
    finally:
        for sink in sinks:
            sink.close()
    results = tuple(follower.results.values())
    missing = len(follower.cases) - len(results)
    unfinished = missing + sum(record.status == "interrupted" for record in results)
    return RunSummary(
        suite=plan.suite.name,
        folder=folder,
        skipped=len(plan.runs) - len(plan.pending),
        measured=sum(record.is_good for record in results),
        failures=sum(not record.is_good for record in results) + missing,
        notes=(*_job_notes(follower.states or [], unfinished), *follower.notes),
        results=results,
    )


def _watch(follower: _Follower) -> None:
    """Report what happens until every run has a result or no job is left."""
    sent, folder = follower.sent, follower.sent.plan.store.folder
    tail, leases = RecordTail(folder, marks=sent.marks), Leases(folder, worker="follower")
    follower.notify("planned")
    asked: float | None = None
    idle_since: float | None = None  # when no job was left that could bring a result
    while not follower.is_done:
        follower.read(tail, leases)
        if asked is None or time.monotonic() - asked > ASK_S:
            asked = time.monotonic()
            follower.ask()
            if follower.may_go_on:
                idle_since = None
            elif idle_since is None:
                idle_since = asked
        if idle_since is not None and time.monotonic() - idle_since > GRACE_S:
            break
        if not follower.is_done:
            time.sleep(POLL_S)
    if follower.is_done:
        follower.cancel_waiting()
        leases.remove_expired()


def _job_notes(states: Sequence[JobState], unfinished: int) -> tuple[str, ...]:
    if not unfinished:
        return ()
    bad: dict[str, list[str]] = {}
    for state in states:
        if state.phase != "done":
            bad.setdefault(f"{state.phase.replace('_', ' ')} {state.reason}".strip(), []).append(state.job)
    jobs = f"; jobs: {', '.join(f'{first_of(names)} {how}' for how, names in bad.items())}" if bad else ""
    return (f"{plural(unfinished, 'run')} without a result{jobs}; the same command goes on",)
