"""Runs a suite case by case: finished runs are not repeated, and each record is stored as soon as its run ends."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from time import monotonic
from typing import Literal, get_args

from bench.catalog.catalog import Catalog
from bench.core.doubts import TIMING_DOUBTS
from bench.core.errors import SuiteError, UnknownNameError
from bench.core.privacy import clean_record
from bench.core.schema import Case, Environment, Record
from bench.core.yaml_tree import Tree
from bench.runner.environment import describe_environment
from bench.runner.estimate import AccuracyTimes, RunEstimate
from bench.runner.fingerprint import Fingerprint, Fingerprints, changed_parts, describe_changes
from bench.runner.idle import is_timed_case, wait_until_idle
from bench.runner.local import CaseInterrupted, WorkerStarts, run_case
from bench.runner.selection import Selection
from bench.store import RecordStore, RunFacts, read_records
from bench.suite import Suite, check_suite_in_part, plan_suite, read_suite
from bench.suite.shipped import recipe_folders

EventKind = Literal["planned", "started", "waiting", "progress", "finished"]
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

    `left_s` is an estimate; None if it is unknown.
    """

    kind: EventKind
    folder: Path
    done: int
    failed: int
    left: int
    left_s: float | None
    case: Case | None = None
    run_index: int | None = None
    record: Record | None = None
    text: str = ""
    fraction: float | None = None


@dataclass(frozen=True, kw_only=True)
class RunSummary:
    """The result of a run: `skipped` runs were done before, `failed` are the records without a good result.

    `stored` holds the records of those runs if nothing had to run. `left_out` runs had no time left in the budget.
    """

    suite: str
    folder: Path
    finished: tuple[Record, ...]
    skipped: int
    left_out: int = 0
    notes: tuple[str, ...] = ()
    stored: tuple[Record, ...] = field(default=(), repr=False)

    @property
    def failed(self) -> tuple[Record, ...]:
        return tuple(record for record in self.finished if not record.is_good)

    @property
    def exit_code(self) -> int:
        """0, or 3 if a case has no good result or there is no result at all."""
        return 3 if self.failed or not (self.finished or self.skipped) else 0


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The cases of a suite and which of their runs are still to do.

    `states` holds the state of every run that is in the results folder, by case id and run index; others are missing.
    `rerun` selects which stored runs are repeated; missing runs are always to do.
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

    @cached_property
    def pending(self) -> list[tuple[Case, int]]:
        """Runs to do, interleaved: every case runs once before any runs a second time."""
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

    def stored(self) -> tuple[Record, ...]:
        """The records of the runs that are done, the last one of each."""
        records = read_records(self.store.file) if self.store.file.is_file() else []
        found = {(r.case_id, r.run_index): r for r in records if (r.case_id, r.run_index) in self.done and r.is_good}
        return tuple(found.values())

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
        known = ((run.case_id, run.measures, run.seconds) for run in self.history if run.seconds is not None)
        times = AccuracyTimes(self.store.file, self.fingerprints, self.recipes)
        return RunEstimate((case for case, _ in self.pending), known, accuracy_times=times)

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
) -> Plan:
    """The cases of a suite (a file or its values) and which of their runs are done in the results folder.

    The folder is `out`, else `results/<suite>`. `rerun` selects which stored runs are to do again: `stale` ones only,
    `failed` (and interrupted) ones only, or `all`; by default stale, failed and interrupted ones. `selection`
    limits the plan to some cases. Raises InputError if it selects none, SuiteError with every problem of the file,
    StoreError if the folder cannot be read, UnknownNameError for another `rerun`.
    """
    if rerun is not None and rerun not in RERUNS:
        raise UnknownNameError("choice", rerun, RERUNS, where="--rerun")
    tree = suite if isinstance(suite, Tree) else read_suite(suite, small=small)
    file, problems = check_suite_in_part(tree)
    if file is None:
        raise SuiteError(tree.positions[()].file, problems)
    catalog = facts or Catalog(file.plugins)
    folders = recipe_folders(Path(tree.positions[()].file))
    planned = plan_suite(tree, catalog, recipes={file.stem for folder in folders for file in folder.glob("*.yaml")})
    whole, planned = planned, replace(planned, cases=(selection or Selection()).of(planned.cases))
    name = f"{planned.name}-small" if small else planned.name
    store = RecordStore(Path(out) if out is not None else Path("results") / name)
    fingerprints = Fingerprints(catalog, folders)
    found = {case.id: fingerprints.of(case) for case in planned.cases}
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
    )
    return _with_stored_runs(target, history)


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
    on_event: Callable[[Event], None] = lambda event: None,
) -> RunSummary:
    """Run the pending runs of a suite, a file or its values; each record is stored as soon as its run ends.

    `rerun` selects which stored runs are repeated, as for `plan`; their old records stay. Home folders and host names
    in records are replaced unless `identify` is set, here or in the suite. A case that fails becomes a record with its
    error, and the next case runs. With `wait_idle_s`, each timed case waits for an idle machine, at most so long.
    `selection` limits the run to some of the cases. With `budget_s`, no run starts after so many seconds, nor one whose
    earlier runs took longer than what is left; cases without any result come first, then those with the fewest runs.
    Raises StoreError if another run holds the folder, SuiteError with every problem of the file, CaseInterrupted when
    the user stops the run.
    """
    deadline = None if budget_s is None else monotonic() + budget_s
    target = plan(suite, out=out, small=small, facts=facts, rerun=rerun, selection=selection)
    with target.store.lock():
        repaired = target.store.repair()
        # Another run may have added records while this one planned.
        target = _with_stored_runs(target, tuple(target.store.runs()))
        target.store.write_suite((target.whole or target.suite).facts())
        is_identified = identify or target.suite.identify
        finished = tuple(
            _run_pending(target, on_event, identify=is_identified, wait_idle_s=wait_idle_s, deadline=deadline)
        )
    return RunSummary(
        suite=target.suite.name,
        folder=target.store.folder,
        finished=finished,
        skipped=len(target.runs) - len(target.pending),
        left_out=len(target.pending) - len(finished),
        notes=(repaired,) if repaired else (),
        stored=() if finished else target.stored(),
    )


@dataclass(kw_only=True)
class _Progress:
    """Counts of a run and the events made of them, in constant time per event."""

    on_event: Callable[[Event], None]
    folder: Path
    done: int
    left: int
    estimate: RunEstimate
    failed: int = 0
    started: float = 0.0
    run_index: int = 0

    def notify(
        self,
        kind: EventKind,
        *,
        case: Case | None = None,
        record: Record | None = None,
        text: str = "",
        fraction: float | None = None,
    ) -> None:
        spent = monotonic() - self.started if kind == "progress" else 0.0
        self.on_event(
            Event(
                kind=kind,
                folder=self.folder,
                done=self.done,
                failed=self.failed,
                left=self.left,
                left_s=None if self.estimate.unknown else max(0.0, self.estimate.left_s - spent),
                case=case,
                run_index=None if case is None else self.run_index,
                record=record,
                text=text,
                fraction=fraction,
            )
        )

    def start(self, case: Case, index: int) -> None:
        self.started, self.run_index = monotonic(), index
        self.notify("started", case=case)

    def finish(self, case: Case, record: Record) -> None:
        self.done, self.left, self.failed = self.done + 1, self.left - 1, self.failed + (not record.is_good)
        self.estimate.finish(record)
        self.notify("finished", case=case, record=record)


def _run_pending(
    target: Plan,
    on_event: Callable[[Event], None],
    *,
    identify: bool = False,
    wait_idle_s: float | None = None,
    deadline: float | None = None,
) -> Iterator[Record]:
    """Run and store every pending run. A stopped case is stored as `interrupted`, then CaseInterrupted is raised.

    With a `deadline` of the monotonic clock, runs that would not end before it are left out.
    """
    total = sum(case.runs for case in target.suite.cases)
    progress = _Progress(
        on_event=on_event,
        folder=target.store.folder,
        done=total - len(target.pending),
        left=len(target.pending),
        estimate=target.estimate(),
    )
    recipes = recipe_folders(target.suite.path)
    progress.notify("planned")
    with WorkerStarts() as starts:
        for case, index in target.pending if deadline is None else _fewest_results_first(target):
            if deadline is not None and monotonic() + (progress.estimate.expected_s(case) or 0.0) >= deadline:
                continue
            progress.start(case, index)
            wait = None
            if wait_idle_s is not None and is_timed_case(case):
                wait = wait_until_idle(
                    wait_idle_s,
                    device=case.point.device,
                    on_wait=lambda text, case=case: progress.notify("waiting", case=case, text=text),  # type: ignore[misc]  # bound now
                )
            logged = target.store.log_sizes(case.id)
            try:
                record = run_case(
                    case,
                    target.store,
                    run_index=index,
                    freshness=target.freshness[case.id],
                    fingerprint=target.fingerprints.get(case.id),
                    recipes=recipes,
                    on_progress=lambda text, fraction, case=case: progress.notify(  # type: ignore[misc]  # bound now
                        "progress", case=case, text=text, fraction=fraction
                    ),
                    starts=starts,
                )
            except CaseInterrupted as stop:
                target.store.clean_logs(case.id, before=logged, identify=identify)
                target.store.append(clean_record(stop.record, identify=identify))
                raise
            target.store.clean_logs(case.id, before=logged, identify=identify)
            record = clean_record(record if wait is None else wait.noted_in(record), identify=identify)
            target.store.append(record)
            progress.finish(case, record)
            yield record


def _fewest_results_first(target: Plan) -> list[tuple[Case, int]]:
    """The pending runs, ordered by how many runs of their case have a result before them."""
    results = Counter(case_id for case_id, _ in target.done)
    order = []
    for case, index in target.pending:
        order.append((results[case.id], case, index))
        results[case.id] += 1
    return [(case, index) for _, case, index in sorted(order, key=lambda run: run[0])]
