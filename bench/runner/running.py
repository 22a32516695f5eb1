"""Runs a suite case by case: finished runs are not repeated, and each record is stored as soon as its run ends."""

import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from time import monotonic
from typing import Any, Literal, get_args

from bench.catalog.catalog import Catalog
from bench.core.doubts import TIMING_DOUBTS
from bench.core.errors import SuiteError, UnknownNameError
from bench.core.privacy import clean_record
from bench.core.schema import Case, Environment, Record
from bench.core.units import plural
from bench.core.yaml_tree import Tree
from bench.runner.devices import Lane, PendingRun, Schedule, machine_facts, uses_device
from bench.runner.environment import describe_environment
from bench.runner.estimate import AccuracyTimes, RunEstimate
from bench.runner.fingerprint import Fingerprint, Fingerprints, changed_parts, describe_changes
from bench.runner.idle import is_timed_case, wait_until_idle
from bench.runner.job_kind import rank_layout
from bench.runner.lanes import run_lanes
from bench.runner.local import (
    CaseInterrupted,
    CaseStop,
    LostRankError,
    RunIdentity,
    WorkerStarts,
    lost_record,
    run_case,
)
from bench.runner.rank_processes import launcher_count, needs_nodes
from bench.runner.selection import Selection
from bench.runner.sending import Sink
from bench.runner.work_queue import MOST_LOSSES, SharedWorker, WorkQueue
from bench.store import RecordStore, RunFacts
from bench.store.leases import LOCAL, Lease, Leases
from bench.store.record_store import FolderSharedError
from bench.suite import Suite, check_suite_in_part, plan_suite, read_suite
from bench.suite.shipped import recipe_folders

EventKind = Literal["planned", "started", "waiting", "progress", "finished", "note"]
# What the results folder holds of one run of a case: `stale` results were taken before something changed.
RunState = Literal["done", "missing", "stale", "interrupted", "failed"]
Rerun = Literal["stale", "failed", "all"]
RERUNS: tuple[Rerun, ...] = get_args(Rerun)
RERUN_STATES: Mapping[Rerun | None, frozenset[RunState]] = {
    None: frozenset({"missing", "stale", "interrupted", "failed"}),
    "stale": frozenset({"missing", "stale"}),
    "failed": frozenset({"missing", "interrupted", "failed"}),
    "all": frozenset({"done", "missing", "stale", "interrupted", "failed"}),
}


@dataclass(frozen=True, kw_only=True)
class Event:
    """A step of a run, for a live display. `done`, `failed` and `left` count runs of cases; `folder` has the results.

    `left_s` is an estimate; None if it is unknown. `lane` names the device of the case if there are several.
    """

    kind: EventKind
    folder: Path
    done: int
    failed: int
    left: int
    left_s: float | None
    case: Case | None = None
    run_index: int | None = None
    lane: str | None = None
    record: Record | None = None
    text: str = ""
    fraction: float | None = None


@dataclass(frozen=True, kw_only=True)
class RunSummary:
    """The result of a run: `measured` runs have a good result, `failures` have none, `skipped` were done before.

    `finished` reads the new records, and `failed` those without a good result, so that a long run does not keep them in
    memory. `stored` reads the records of the skipped runs if nothing had to run. `left_out` runs had no time left in
    the budget, `not_here` need what this machine does not have.
    """

    suite: str
    folder: Path
    skipped: int
    measured: int = 0
    failures: int = 0
    left_out: int = 0
    not_here: int = 0
    notes: tuple[str, ...] = ()
    stored_runs: tuple[RunFacts, ...] = field(default=(), repr=False)
    offsets: tuple[int, ...] = field(default=(), repr=False)
    worker: str | None = None
    elsewhere: int = 0
    results: tuple[Record, ...] = field(default=(), repr=False)  # of workers, which have their own records files

    @cached_property
    def finished(self) -> tuple[Record, ...]:
        if self.results:
            return self.results
        return tuple(RecordStore(self.folder, worker=self.worker).records_at(self.offsets)) if self.offsets else ()

    @cached_property
    def stored(self) -> tuple[Record, ...]:
        return tuple(RecordStore(self.folder).records_of(self.stored_runs))

    @property
    def failed(self) -> tuple[Record, ...]:
        return tuple(record for record in self.finished if not record.is_good)

    @property
    def is_idle(self) -> bool:
        """Whether nothing had to run."""
        return not (self.offsets or self.results or self.failures or self.left_out or self.not_here or self.elsewhere)

    @property
    def exit_code(self) -> int:
        """0, or 3 if a case has no good result or there is no result at all."""
        return 3 if self.failures or not self.has_results else 0

    @property
    def has_results(self) -> bool:
        """Whether a run has a record, of now or of before; there is nothing to report otherwise."""
        return bool(self.measured or self.failures or self.skipped)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The cases of a suite and which of their runs are still to do.

    `states` holds the state of every run that is in the results folder, by case id and run index; others are missing.
    `rerun` selects which stored runs are repeated; missing runs are always to do. Cases that are `unsupported` on this
    machine, by case id with what they need, are not.
    """

    suite: Suite
    store: RecordStore
    freshness: dict[str, str]
    done: frozenset[tuple[str, int]]
    history: tuple[RunFacts, ...] = field(default=(), repr=False)
    fingerprints: Mapping[str, Fingerprint] = field(default_factory=dict, repr=False)
    former: Mapping[str, frozenset[str]] = field(default_factory=dict, repr=False)
    states: Mapping[tuple[str, int], RunState] = field(default_factory=dict, repr=False)
    rerun: Rerun | None = None
    recipes: tuple[Path, ...] = ()
    whole: Suite | None = None  # the suite with all of its cases, if only some are planned
    unsupported: Mapping[str, str] = field(default_factory=dict, repr=False)

    @cached_property
    def pending(self) -> list[tuple[Case, int]]:
        """Runs to do, interleaved: every case runs once before any runs a second time."""
        return [run for run in self._wanted if run[0].id not in self.unsupported]

    @cached_property
    def not_here(self) -> list[PendingRun]:
        """Runs to do on another machine, since this one does not have what their cases need."""
        return [run for run in self._wanted if run[0].id in self.unsupported]

    @property
    def _wanted(self) -> list[PendingRun]:
        wanted = RERUN_STATES[self.rerun]
        return [(case, index) for case, index in self.runs if self.state(case.id, index) in wanted]

    @cached_property
    def runs(self) -> list[tuple[Case, int]]:
        """All runs of the suite, every case once before any a second time.

        Trainings come last, because they take longest: counts and timings are known, and reported, before.
        """
        most = max((case.runs for case in self.suite.cases), default=0)
        runs = [(case, index) for index in range(most) for case in self.suite.cases if index < case.runs]
        return sorted(runs, key=lambda run: run[0].point.recipe is not None)

    def state(self, case_id: str, index: int) -> RunState:
        return "done" if (case_id, index) in self.done else self.states.get((case_id, index), "missing")

    @cached_property
    def absent(self) -> tuple[str, ...]:
        """A line for each data set and file of weights that a pending run needs and that is not there."""
        ids = dict.fromkeys(case.id for case, _ in self.pending)
        return tuple(dict.fromkeys(line for i in ids if i in self.fingerprints for line in self.fingerprints[i].absent))

    def reasons(self) -> dict[tuple[str, int], str]:
        """Return why each pending run is to do, in words."""
        last: dict[tuple[str, int], RunFacts] = {}
        for run in self.history:
            key = run.case_id, run.run_index
            if run.is_good or not (key in last and last[key].is_good):
                last[key] = run
        known = [last[case.id, index] for case, index in self.pending if (case.id, index) in last]
        records = {(r.case_id, r.run_index): r for r in self.store.records_of(known)} if known else {}
        return {
            (case.id, index): self._reason(self.state(case.id, index), case, records.get((case.id, index)))
            for case, index in self.pending
        }

    def _reason(self, state: RunState, case: Case, record: Record | None) -> str:
        if record is None or state == "missing":
            return "missing: not measured yet"
        if state == "stale":
            return (
                f"stale: changed since {record.started_at[:16]}: {describe_changes(record, self.fingerprints[case.id])}"
            )
        if state == "done":
            return "done: repeated by --rerun all"
        error = f": {record.error.type}: {record.error.message.partition(chr(10))[0]}" if record.error else ""
        return f"{state}: ended as {record.status}{error}"

    def stored(self) -> tuple[RunFacts, ...]:
        """The runs that are done, the last one of each."""
        good = {(run.case_id, run.run_index): run for run in self.history if run.is_good}
        return tuple(run for key, run in good.items() if key in self.done)

    def doubtful(self) -> Counter[str]:
        """The number of stored results that stay with each status that keeps a timing from being ranked."""
        kept = self.done - {(case.id, index) for case, index in self.pending}
        statuses = {(run.case_id, run.run_index): run.status for run in self.history if run.is_good}
        return Counter(status for key, status in statuses.items() if key in kept and status in TIMING_DOUBTS)

    def other_environments(self) -> list[str]:
        """Return a line for each fact in which the environment of results that stay differs from the present one."""
        done = self.done - {(case.id, index) for case, index in self.pending}
        if not done:
            return []
        now = describe_environment()
        runs = [run for run in self.history if run.is_good and (run.case_id, run.run_index) in done]
        alike = {id(run.environment): run.environment for run in runs}  # many runs share an environment
        found: Counter[tuple[str, str, str]] = Counter()
        for each, number in Counter(id(run.environment) for run in runs).items():
            for difference in _environment_differences(alike[each], now):
                found[difference] += number
        return [f"{n} of the stored results: {name} {old}, now {new}" for (name, old, new), n in found.items()]

    def estimate(self) -> RunEstimate:
        """Seconds that the pending runs will take, from earlier runs if there are any, else from rates or a guess."""
        return self.estimate_of(case for case, _ in self.pending)

    def estimate_of(
        self, cases: Iterable[Case], *, is_like: Callable[[Mapping[str, Any]], bool] | None = None
    ) -> RunEstimate:
        """Seconds of a run of each of `cases`. With `is_like`, only earlier runs on hardware that it accepts count."""
        runs = (run for run in self.history if is_like is None or is_like(run.environment))
        # A failed or stopped run ends early and says nothing of a whole one; one that timed out says how long it takes.
        whole = (run for run in runs if run.is_good or run.status == "timeout")
        known = ((run.case_id, run.measures, run.seconds) for run in whole if run.seconds is not None)
        times = AccuracyTimes(self.store.files, self.fingerprints, self.recipes, is_like=is_like)
        return RunEstimate(cases, known, accuracy_times=times)

    def estimate_s(self) -> float | None:
        """Seconds that the pending runs will take; None if the time of any is unknown."""
        estimate = self.estimate()
        return None if estimate.unknown else estimate.left_s


def _environment_differences(old: Mapping[str, object], new: Environment) -> Iterator[tuple[str, str, str]]:
    """Facts of the machine that `old` was measured on which are known here too, and differ: name, old and new value."""
    present = {**new.software, **new.hardware}
    for name, before in old.items():
        after = present.get(name)
        if before is not None and after is not None and before != after:
            yield name, str(before), str(after)


def plan(
    suite: str | Path | Tree,
    *,
    out: str | Path | None = None,
    small: bool = False,
    facts: Catalog | None = None,
    rerun: Rerun | None = None,
    selection: Selection | None = None,
    lanes: Sequence[Lane] = (),
    is_elsewhere: bool = False,
) -> Plan:
    """The cases of a suite (a file or its values) and which of their runs are done in the results folder.

    The folder is `out`, else `results/<suite>`. `rerun` selects which stored runs are to do again: `stale` ones only,
    `failed` (and interrupted) ones only, or `all`; by default stale, failed and interrupted ones. `selection`
    limits the plan to some cases. What the suite requires is asked of this machine, unless the cases run `elsewhere`.
    Raises InputError if it selects none, SuiteError with every problem of the file,
    StoreError if the folder cannot be read, UnknownNameError for another `rerun`.
    """
    if rerun is not None and rerun not in RERUNS:
        raise UnknownNameError("choice", rerun, RERUNS, where="--rerun")
    tree = suite if isinstance(suite, Tree) else read_suite(suite, small=small)
    file, problems = check_suite_in_part(tree)
    if file is None:
        raise SuiteError(tree.positions[()].file, problems)
    catalog = facts or Catalog(file.plugins, counted=False)
    folders = recipe_folders(Path(tree.positions[()].file))
    recipes = {file.stem: file for folder in reversed(folders) for file in folder.glob("*.yaml")}
    with catalog.one_child():
        whole = plan_suite(tree, catalog, recipes=recipes)
        planned = replace(whole, cases=(selection or Selection()).of(whole.cases))
        fingerprints = Fingerprints(catalog, folders)
        found = {case.id: fingerprints.of(case) for case in planned.cases}
    name = f"{planned.name}-small" if small else planned.name
    store = RecordStore(Path(out) if out is not None else Path("results") / name)
    history = tuple(store.runs())
    former = {run.case_id for run in history if not run.fingerprint}
    target = Plan(
        suite=planned,
        store=store,
        freshness={case_id: fingerprint.digest for case_id, fingerprint in found.items()},
        done=frozenset(),
        fingerprints=found,
        former={case.id: fingerprints.former(case) for case in planned.cases if case.id in former},
        rerun=rerun,
        recipes=folders,
        whole=whole,
        unsupported={} if is_elsewhere else _unsupported(planned, lanes),
    )
    return _with_stored_runs(target, history)


def _unsupported(suite: Suite, lanes: Sequence[Lane]) -> dict[str, str]:
    """What each case needs and this machine does not have. With lanes, each has one device."""
    lacking = None if suite.require is None else suite.require.unmet(**machine_facts(lanes))
    found = {} if lacking is None else {case.id: lacking for case in suite.cases if uses_device(case)}
    if launcher_count() > 1:  # started on all nodes, by torchrun or an executor
        return found
    layouts = {case.id: rank_layout(case) for case in suite.cases}
    return found | {case_id: needs_nodes(layout) for case_id, layout in layouts.items() if layout.nodes > 1}


def unsupported_lines(plan: Plan) -> tuple[str, ...]:
    """A line for each reason why runs cannot be made on this machine."""
    numbers = Counter(plan.unsupported[case.id] for case, _ in plan.not_here)
    return tuple(f"unsupported here: {plural(number, 'run')}: {reason}" for reason, number in numbers.items())


def _with_stored_runs(plan: Plan, runs: tuple[RunFacts, ...]) -> Plan:
    """The plan with these runs, which are in its results folder."""
    states: dict[tuple[str, int], RunState] = {}
    known: dict[tuple[str, int, str, str], RunState] = {}  # many runs of a case share one fingerprint
    for run in runs:
        key = run.case_id, run.run_index
        if run.case_id in plan.freshness and states.get(key) != "done":
            alike = run.case_id, id(run.fingerprint), run.freshness, run.status
            states[key] = known[alike] if alike in known else known.setdefault(alike, _state(run, plan))
    done = frozenset(key for key, state in states.items() if state == "done")
    return replace(plan, done=done, states=states, history=runs)


def _state(run: RunFacts, plan: Plan) -> RunState:
    """The state of one stored run; records without a fingerprint are judged by the rule of their version."""
    if not run.is_good:
        return "interrupted" if run.status == "interrupted" else "failed"
    if run.fingerprint:
        is_current = not changed_parts(run.fingerprint, plan.fingerprints[run.case_id])
    else:
        is_current = run.freshness in plan.former.get(run.case_id, ())
    return "done" if is_current else "stale"


def run(
    suite: str | Path | Tree,
    *,
    out: str | Path | None = None,
    small: bool = False,
    facts: Catalog | None = None,
    identify: bool = False,
    rerun: Rerun | None = None,
    wait_idle_s: float | None = None,
    selection: Selection | None = None,
    budget_s: float | None = None,
    lanes: Sequence[Lane] = (),
    sinks: Sequence[Sink] = (),
    worker: SharedWorker | None = None,
    on_event: Callable[[Event], None] = lambda event: None,
) -> RunSummary:
    """Run the pending runs of a suite, a file or its values; each record is stored as soon as its run ends.

    `rerun` selects which stored runs are repeated, as for `plan`; their old records stay. Home folders and host names
    in records are replaced unless `identify` is set, here or in the suite. A case that fails becomes a record with its
    error, and the next case runs. With `wait_idle_s`, each timed case waits for an idle machine, at most so long.
    `selection` limits the run to some of the cases. With `budget_s`, no run starts after so many seconds, nor one whose
    earlier runs took longer than what is left; cases without any result come first, then those with the fewest runs.
    With `lanes` (`bench.runner.devices.lanes_from_text`), one case at a time runs on each of these devices.
    Each of the `sinks` (`bench.runner.sending.open_sinks`) gets a copy of every record; one that fails is a note.
    A `worker` shares the folder with others: each run is made by one of them. A run from another machine than the one
    that holds the folder becomes such a worker. Raises StoreError if another run on this machine holds the folder,
    SuiteError with every problem of the file, CaseInterrupted when the user stops the run.
    """
    deadline = None if budget_s is None else monotonic() + budget_s
    target = plan(suite, out=out, small=small, facts=facts, rerun=rerun, selection=selection, lanes=lanes)
    with _member_of(target.store, worker) as (store, queue):
        repaired = store.repair()
        # Another run may have added records while this one planned.
        target = _with_stored_runs(replace(target, store=store), tuple(store.runs()))
        store.write_suite((target.whole or target.suite).facts())
        done = _run_pending(
            target,
            on_event,
            queue=queue,
            lanes=lanes,
            sinks=sinks,
            identify=identify or target.suite.identify,
            wait_idle_s=wait_idle_s,
            deadline=deadline,
        )
    return RunSummary(
        suite=target.suite.name,
        folder=target.store.folder,
        skipped=len(target.runs) - len(target.pending) - len(target.not_here),
        not_here=len(target.not_here),
        measured=len(done.offsets) - done.failed,
        failures=done.failed,
        left_out=done.left_out,
        worker=store.worker,
        elsewhere=done.elsewhere,
        notes=(*([repaired] if repaired else []), *unsupported_lines(target), *done.notes),
        stored_runs=() if done.offsets else target.stored(),
        offsets=tuple(done.offsets),
    )


@contextmanager
def _member_of(store: RecordStore, worker: SharedWorker | None) -> Iterator[tuple[RecordStore, WorkQueue]]:
    """Yield the store that this process appends to, and the queue that it takes runs from."""
    if worker is None:
        try:
            with store.lock():
                leases = Leases(store.folder, worker=LOCAL)
                leases.remove_expired()
                yield store, WorkQueue(store.folder, leases)
                return
        except FolderSharedError:
            worker = SharedWorker.of_this_process()
    store = RecordStore(store.folder, worker=worker.name)
    leases = Leases(store.folder, worker=worker.name, job=worker.job)
    yield store, WorkQueue(store.folder, leases, marks=worker.marks, waits=worker.waits)


@dataclass(kw_only=True)
class _Progress:
    """Counts of a run and the events made of them, in constant time per event; safe for threads."""

    on_event: Callable[[Event], None]
    folder: Path
    done: int
    left: int
    estimate: RunEstimate
    lanes: int = 1
    failed: int = 0
    elsewhere: int = 0  # runs that another worker has made
    left_out: int = 0  # runs that there was no time for
    offsets: list[int] = field(default_factory=list)  # of the new records in the records file
    notes: list[str] = field(default_factory=list)
    lock: threading.RLock = field(default_factory=threading.RLock)

    def notify(
        self,
        kind: EventKind,
        *,
        run: PendingRun | None = None,
        lane: Lane | None = None,
        spent_s: float = 0.0,
        record: Record | None = None,
        text: str = "",
        fraction: float | None = None,
    ) -> None:
        with self.lock:
            left_s = max(0.0, self.estimate.left_s / self.lanes - spent_s)
            self.on_event(
                Event(
                    kind=kind,
                    folder=self.folder,
                    done=self.done,
                    failed=self.failed,
                    left=self.left,
                    left_s=None if self.estimate.unknown else left_s,
                    case=run and run[0],
                    run_index=run and run[1],
                    lane=None if lane is None else str(lane),
                    record=record,
                    text=text,
                    fraction=fraction,
                )
            )

    def skip(self) -> None:
        """Note that another worker has the run or has finished it."""
        with self.lock:
            self.done, self.left, self.elsewhere = self.done + 1, self.left - 1, self.elsewhere + 1

    def finish(self, run: PendingRun, record: Record, *, lane: Lane | None, offset: int) -> None:
        with self.lock:
            self.done, self.left, self.failed = self.done + 1, self.left - 1, self.failed + (not record.is_good)
            self.offsets.append(offset)
            self.estimate.finish(record)
            self.notify("finished", run=run, lane=lane, record=record)


@dataclass(kw_only=True)
class _Runner:
    """Runs and stores pending runs of a plan, each at most once."""

    target: Plan
    queue: WorkQueue
    progress: _Progress
    identify: bool
    wait_idle_s: float | None
    deadline: float | None
    recipes: tuple[Path, ...]
    sinks: Sequence[Sink] = ()

    def has_time_for(self, case: Case) -> bool:
        """Whether a run that starts now would end before the deadline, as far as earlier runs tell."""
        return self.deadline is None or monotonic() + (self.progress.estimate.expected_s(case) or 0.0) < self.deadline

    def take_and_run(
        self, run: PendingRun, *, starts: WorkerStarts, lane: Lane | None = None, stop: CaseStop | None = None
    ) -> Record | None:
        """Run one case once unless another worker has it; returns its record, or None if there is none of ours."""
        lease = self.queue.take(run)
        if lease is None:
            self.progress.skip()
            return None
        if not self.has_time_for(run[0]):
            lease.release()
            with self.progress.lock:
                self.progress.left_out += 1
            return None
        return self.run(run, lease, starts=starts, lane=lane, stop=stop)

    def run(
        self,
        run: PendingRun,
        lease: Lease,
        *,
        starts: WorkerStarts,
        lane: Lane | None = None,
        stop: CaseStop | None = None,
    ) -> Record | None:
        """Run one case once and store its record. A stopped case is stored too, then CaseInterrupted is raised.

        Returns None if another worker has taken the run over meanwhile: its result counts, ours is set aside.
        """
        with lease.kept_alive():
            return self._run(run, lease, starts=starts, lane=lane, stop=stop)

    def _run(
        self, run: PendingRun, lease: Lease, *, starts: WorkerStarts, lane: Lane | None, stop: CaseStop | None
    ) -> Record | None:
        case, index = run
        store, started = self.target.store, monotonic()
        self.progress.notify("started", run=run, lane=lane)
        wait = None
        if self.wait_idle_s is not None and is_timed_case(case):
            wait = wait_until_idle(
                self.wait_idle_s,
                device=case.point.device if lane is None else lane.device,
                on_wait=lambda text: self.progress.notify("waiting", run=run, lane=lane, text=text),
                is_stopped=lambda: stop is not None and stop.is_set,
            )
        logged = store.log_sizes(case.id)
        facts: RunIdentity = {
            "run_index": index,
            "freshness": self.target.freshness[case.id],
            "fingerprint": self.target.fingerprints.get(case.id),
        }
        if lease.facts.losses >= MOST_LOSSES:
            record, offset = self._store(lost_record(case, attempts=lease.facts.losses, **facts), logged)
            self.progress.finish(run, record, lane=lane, offset=offset)
            return record
        try:
            record = run_case(
                case,
                store,
                **facts,
                recipes=self.recipes,
                on_progress=lambda text, fraction: self.progress.notify(
                    "progress", run=run, lane=lane, spent_s=monotonic() - started, text=text, fraction=fraction
                ),
                starts=starts,
                variables={} if lane is None else lane.variables(case),
                stop=stop,
            )
        except (CaseInterrupted, LostRankError) as interrupted:
            if lease.is_held:
                self._store(interrupted.record, logged)
            raise
        if not lease.is_held:
            store.clean_logs(case.id, before=logged, identify=self.identify)
            store.discard(clean_record(record, identify=self.identify))
            self.progress.skip()
            return None
        record, offset = self._store(record if wait is None else wait.noted_in(record), logged)
        self.progress.finish(run, record, lane=lane, offset=offset)
        for sink in self.sinks:
            if (warning := sink.add(record)) is not None:
                self.progress.notes.append(warning)
                self.progress.notify("note", text=warning)
        return record

    def _store(self, record: Record, logged: Mapping[Path, int]) -> tuple[Record, int]:
        store = self.target.store
        store.clean_logs(record.case_id, before=logged, identify=self.identify)
        record = clean_record(record, identify=self.identify)
        with self.progress.lock:
            return record, store.append(record)


def _run_pending(
    target: Plan,
    on_event: Callable[[Event], None],
    *,
    queue: WorkQueue,
    lanes: Sequence[Lane] = (),
    sinks: Sequence[Sink] = (),
    identify: bool = False,
    wait_idle_s: float | None = None,
    deadline: float | None = None,
) -> _Progress:
    """Run and store every pending run. A stopped case is stored as `interrupted`, then CaseInterrupted is raised.

    With a `deadline` of the monotonic clock, runs that would not end before it are left out.
    """
    pending = target.pending if deadline is None else _fewest_results_first(target)
    schedule = Schedule(runs=pending, lanes=lanes) if lanes else None
    progress = _Progress(
        on_event=on_event,
        folder=target.store.folder,
        done=len(target.runs) - len(target.pending) - len(target.not_here),
        left=len(target.pending),
        estimate=target.estimate(),
        lanes=max(1, len(lanes)),
    )
    runner = _Runner(
        target=target,
        queue=queue,
        progress=progress,
        identify=identify,
        wait_idle_s=wait_idle_s,
        deadline=deadline,
        recipes=recipe_folders(target.suite.path),
        sinks=sinks,
    )
    progress.notify("planned")
    for sink in sinks:
        sink.start(target.suite.name)
    try:
        if schedule is not None:
            run_lanes(schedule, runner)
            return progress
        with WorkerStarts() as starts:
            for run, lease in queue.runs(pending):
                if runner.has_time_for(run[0]):
                    runner.run(run, lease, starts=starts)
                else:
                    lease.release()
                    progress.left_out += 1
    finally:
        for sink in sinks:
            sink.close()
    return progress


def _fewest_results_first(target: Plan) -> list[tuple[Case, int]]:
    """The pending runs, ordered by how many runs of their case have a result before them.

    Of cases without a result, those that were never tried come first: one that fails would take the budget each time.
    """
    results = Counter(case_id for case_id, _ in target.done)
    tried = {run.case_id for run in target.history}
    order = []
    for case, index in target.pending:
        order.append(((results[case.id], not results[case.id] and case.id in tried), case, index))
        results[case.id] += 1
    return [(case, index) for _, case, index in sorted(order, key=lambda run: run[0])]
