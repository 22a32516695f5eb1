"""Runs a suite case by case: finished runs are not repeated, and each record is stored as soon as its run ends."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from pathlib import Path
from time import monotonic
from typing import Literal

import bench
from bench.catalog.catalog import Catalog
from bench.core.errors import SuiteError
from bench.core.files import existing_file
from bench.core.privacy import without_identity
from bench.core.registry import MEASURES
from bench.core.schema import Case, Pretraining, Record, digest, model_files
from bench.core.yaml_tree import Tree
from bench.measure.context import find_recipe
from bench.runner.estimate import RunEstimate
from bench.runner.local import CaseInterrupted, run_case
from bench.store import RecordStore, RunFacts
from bench.suite import Suite, check_suite_in_part, plan_suite, read_suite

EventKind = Literal["planned", "started", "progress", "finished"]


@dataclass(frozen=True, kw_only=True)
class Event:
    """A step of a run, for a live display. `done`, `failed` and `left` count runs of cases; `left_s` is an estimate."""

    kind: EventKind
    done: int
    failed: int
    left: int
    left_s: float
    case: Case | None = None
    record: Record | None = None
    text: str = ""
    fraction: float | None = None


@dataclass(frozen=True, kw_only=True)
class RunSummary:
    """The result of a run: `skipped` runs were done before, `failed` are the records without a good result."""

    suite: str
    folder: Path
    finished: tuple[Record, ...]
    skipped: int
    notes: tuple[str, ...] = ()

    @property
    def failed(self) -> tuple[Record, ...]:
        return tuple(record for record in self.finished if not record.is_good)

    @property
    def exit_code(self) -> int:
        """0, or 3 if a case has no good result or there is no result at all."""
        return 3 if self.failed or not (self.finished or self.skipped) else 0


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The cases of a suite and which of their runs are still to do."""

    suite: Suite
    store: RecordStore
    freshness: dict[str, str]
    done: frozenset[tuple[str, int]]
    history: tuple[RunFacts, ...] = field(default=(), repr=False)

    @cached_property
    def pending(self) -> list[tuple[Case, int]]:
        """Runs to do, interleaved: every case runs once before any runs a second time."""
        most = max((case.runs for case in self.suite.cases), default=0)
        runs = [(case, index) for index in range(most) for case in self.suite.cases if index < case.runs]
        return [(case, index) for case, index in runs if (case.id, index) not in self.done]

    def estimate(self) -> RunEstimate:
        """Seconds that the pending runs will take, from earlier runs if there are any, else from a guess."""
        known = ((run.case_id, run.measures, run.seconds) for run in self.history if run.seconds is not None)
        return RunEstimate((case for case, _ in self.pending), known)

    def estimate_s(self) -> float:
        return self.estimate().left_s


def plan(
    suite: str | Path | Tree, *, out: str | Path | None = None, small: bool = False, facts: Catalog | None = None
) -> Plan:
    """The cases of a suite (a file or its values) and which of their runs are done in the results folder.

    The folder is `out`, else `results/<suite>`. Raises SuiteError with every problem of the file, StoreError if the
    folder cannot be read.
    """
    tree = suite if isinstance(suite, Tree) else read_suite(suite, small=small)
    file, problems = check_suite_in_part(tree)
    if file is None:
        raise SuiteError(tree.positions[()].file, problems)
    catalog = facts or Catalog(file.plugins)
    folders = recipe_folders(Path(tree.positions[()].file))
    planned = plan_suite(tree, catalog, recipes={file.stem for folder in folders for file in folder.glob("*.yaml")})
    name = f"{planned.name}-small" if small else planned.name
    store = RecordStore(Path(out) if out is not None else Path("results") / name)
    freshness = {case.id: freshness_of(case, catalog, folders) for case in planned.cases}
    return _with_stored_runs(Plan(suite=planned, store=store, freshness=freshness, done=frozenset()))


def _with_stored_runs(plan: Plan) -> Plan:
    """The plan with the runs that are in its results folder now."""
    runs = tuple(plan.store.runs())
    done = frozenset(
        (run.case_id, run.run_index) for run in runs if run.is_good and run.freshness == plan.freshness.get(run.case_id)
    )
    return replace(plan, done=done, history=runs)


def run(
    suite: str | Path | Tree,
    *,
    out: str | Path | None = None,
    small: bool = False,
    facts: Catalog | None = None,
    identify: bool = False,
    on_event: Callable[[Event], None] = lambda event: None,
) -> RunSummary:
    """Run the pending runs of a suite, a file or its values; each record is stored as soon as its run ends.

    Home folders and host names in records are replaced unless `identify` is set, here or in the suite.
    Raises StoreError if another run holds the folder, SuiteError with every problem of the file, CaseInterrupted when
    the user stops the run. A case that fails becomes a record with its error, and the next case runs.
    """
    target = plan(suite, out=out, small=small, facts=facts)
    with target.store.lock():
        repaired = target.store.repair()
        target = _with_stored_runs(target)  # another run may have added records while this one planned
        target.store.write_suite(target.suite.facts())
        finished = tuple(_run_pending(target, on_event, identify=identify or target.suite.identify))
    return RunSummary(
        suite=target.suite.name,
        folder=target.store.folder,
        finished=finished,
        skipped=sum(case.runs for case in target.suite.cases) - len(finished),
        notes=(repaired,) if repaired else (),
    )


@dataclass(kw_only=True)
class _Progress:
    """Counts of a run and the events made of them, in constant time per event."""

    on_event: Callable[[Event], None]
    done: int
    left: int
    estimate: RunEstimate
    failed: int = 0
    started: float = 0.0

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
                done=self.done,
                failed=self.failed,
                left=self.left,
                left_s=max(0.0, self.estimate.left_s - spent),
                case=case,
                record=record,
                text=text,
                fraction=fraction,
            )
        )

    def start(self, case: Case) -> None:
        self.started = monotonic()
        self.notify("started", case=case)

    def finish(self, case: Case, record: Record) -> None:
        self.done, self.left, self.failed = self.done + 1, self.left - 1, self.failed + (not record.is_good)
        self.estimate.finish(record)
        self.notify("finished", case=case, record=record)


def _run_pending(target: Plan, on_event: Callable[[Event], None], *, identify: bool = False) -> Iterator[Record]:
    """Run and store every pending run. A stopped case is stored as `interrupted` before CaseInterrupted goes on."""
    total = sum(case.runs for case in target.suite.cases)
    progress = _Progress(
        on_event=on_event, done=total - len(target.pending), left=len(target.pending), estimate=target.estimate()
    )
    recipes = recipe_folders(target.suite.path)
    progress.notify("planned")
    for case, index in target.pending:
        progress.start(case)
        try:
            record = run_case(
                case,
                target.store,
                run_index=index,
                freshness=target.freshness[case.id],
                recipes=recipes,
                on_progress=lambda text, fraction, case=case: progress.notify(  # type: ignore[misc]  # bound now
                    "progress", case=case, text=text, fraction=fraction
                ),
            )
        except CaseInterrupted as stop:
            target.store.append(stop.record if identify else without_identity(stop.record))
            raise
        if not identify:
            record = without_identity(record)
        target.store.append(record)
        progress.finish(case, record)
        yield record


def recipe_folders(suite: Path) -> tuple[Path, ...]:
    """Folders that are searched for recipes: the one next to the suite, then those that came with vbench."""
    package = Path(bench.__file__).parent
    candidates = (suite.parent / "recipes", package.parent / "suites" / "recipes", package / "suites" / "recipes")
    return tuple(dict.fromkeys(folder.resolve() for folder in candidates if folder.is_dir()))


def freshness_of(case: Case, catalog: Catalog, recipes: Sequence[Path]) -> str:
    """Hash of what a result depends on besides its point: model source, measure versions, weights files and recipe."""
    measures = [(name, MEASURES.get(name).version, options) for name, options in sorted(case.measures.items())]
    arguments = [value for value in case.point.args.values() if isinstance(value, str)]  # some name weights files
    pretraining = Pretraining.of(case.point.weights)
    recipe_names = [case.point.recipe, *([pretraining.recipe] if pretraining else [])]
    found = [find_recipe(name, recipes) for name in recipe_names if name]
    named = [existing_file(name) for name in (case.point.weights, *arguments) if name]
    hashes = [_hash(file) for file in (*model_files(case.point.model), *named, *found) if file and file.is_file()]
    return digest([catalog.model(case.point.model).source, measures, hashes])


def _hash(file: Path) -> str:
    """The SHA-256 of a file, read once while it is unchanged: weights are large and shared by many cases."""
    state = file.stat()
    return _hash_of(file.resolve(), state.st_mtime_ns, state.st_ctime_ns, state.st_size)


@lru_cache(maxsize=1024)
def _hash_of(file: Path, *state: int) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
