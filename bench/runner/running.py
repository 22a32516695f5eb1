"""Runs a suite: what is done stays done, what is left is run case by case, each record kept the moment it is there."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from time import monotonic
from typing import Literal

import bench
from bench.catalog.catalog import Catalog
from bench.core.registry import MEASURES
from bench.core.schema import Case, Pretraining, Record, digest, model_files
from bench.core.yaml_tree import Tree
from bench.measure.context import find_recipe
from bench.runner.local import run_case
from bench.store import RecordStore, read_records
from bench.suite import Suite, check_suite, plan_suite, read_suite

GUESSED_SECONDS = {
    "accuracy": 60.0,
    "cold": 10.0,
    "decode": 5.0,
    "end_to_end": 20.0,
    "energy": 12.0,
    "latency": 8.0,
    "limits": 8.0,
    "memory": 2.0,
    "throughput": 12.0,
    "train_step": 8.0,
}
START_SECONDS = 5.0


@dataclass(frozen=True, kw_only=True)
class Event:
    """Something a live display shows. `done`, `failed` and `left` count runs of cases, `left_s` is an estimate."""

    kind: Literal["planned", "started", "progress", "finished"]
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
    """What came of a run. `skipped` runs were done before; `failed` are the records without a good result."""

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
        """0, or 3 where a case has no good result or nothing stands there at all."""
        return 3 if self.failed or not (self.finished or self.skipped) else 0


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Cases of a suite, and which of their runs are still to be done."""

    suite: Suite
    store: RecordStore
    freshness: dict[str, str]
    done: frozenset[tuple[str, int]]
    history: tuple[Record, ...] = field(default=(), repr=False)

    @property
    def pending(self) -> list[tuple[Case, int]]:
        """Runs to do, interleaved over the cases: every case once before any a second time."""
        most = max((case.runs for case in self.suite.cases), default=0)
        runs = [(case, index) for index in range(most) for case in self.suite.cases if index < case.runs]
        return [(case, index) for case, index in runs if (case.id, index) not in self.done]

    def estimate_s(self, pending: Sequence[tuple[Case, int]] | None = None) -> float:
        """Seconds that the pending runs will take, from earlier runs where there are any, else from a guess."""
        return sum(_estimate(case, self.history) for case, _ in (self.pending if pending is None else pending))


def plan(
    suite: str | Path | Tree, *, out: str | Path | None = None, small: bool = False, facts: Catalog | None = None
) -> Plan:
    """The cases of a suite, a file or its values, and what of them is done in its results folder.

    That folder is `out`, else `results/<suite>`.
    """
    tree = suite if isinstance(suite, Tree) else read_suite(suite, small=small)
    known = facts or Catalog(check_suite(tree).plugins)
    folders = recipe_folders(Path(tree.positions[()].file))
    planned = plan_suite(tree, known, recipes={file.stem for folder in folders for file in folder.glob("*.yaml")})
    name = f"{planned.name}-small" if small else planned.name
    store = RecordStore(Path(out) if out is not None else Path("results") / name)
    records = tuple(read_records(store.file)) if store.file.is_file() else ()
    freshness = {case.id: freshness_of(case, known, folders) for case in planned.cases}
    done = frozenset((r.case_id, r.run_index) for r in records if r.is_good and r.freshness == freshness.get(r.case_id))
    return Plan(suite=planned, store=store, freshness=freshness, done=done, history=records)


def run(
    suite: str | Path | Tree,
    *,
    out: str | Path | None = None,
    small: bool = False,
    facts: Catalog | None = None,
    on_event: Callable[[Event], None] = lambda event: None,
) -> RunSummary:
    """Run what is left of a suite, a file or its values. Each record is in `<out>/records.jsonl` when its case ends.

    StoreError if another run holds the folder; SuiteError with every problem of the file. A case that fails is a
    record with its error, and the rest goes on.
    """
    tree = suite if isinstance(suite, Tree) else read_suite(suite, small=small)
    known = facts or Catalog(check_suite(tree).plugins)
    target = plan(tree, out=out, small=small, facts=known)
    with target.store.lock():
        torn = target.store.repair()
        target = plan(tree, out=target.store.folder, small=small, facts=known)
        target.store.write_suite(target.suite.facts())
        finished = tuple(_run_pending(target, on_event))
    return RunSummary(
        suite=target.suite.name,
        folder=target.store.folder,
        finished=finished,
        skipped=sum(case.runs for case in target.suite.cases) - len(finished),
        notes=(torn,) if torn else (),
    )


def _run_pending(target: Plan, on_event: Callable[[Event], None]) -> Iterator[Record]:
    pending = target.pending
    done = sum(case.runs for case in target.suite.cases) - len(pending)
    finished: list[Record] = []
    recipes = recipe_folders(target.suite.path)

    def tell(kind: Literal["planned", "started", "progress", "finished"], **rest: object) -> None:
        known = target.history + tuple(finished)
        left = pending[len(finished) :]
        spent = monotonic() - started if kind == "progress" else 0.0
        left_s = max(0.0, sum(_estimate(case, known) for case, _ in left) - spent)
        failed = sum(not record.is_good for record in finished)
        counts = {"done": done + len(finished), "failed": failed, "left": len(left), "left_s": left_s}
        on_event(Event(kind=kind, **counts, **rest))  # type: ignore[arg-type]  # the fields of Event

    started = monotonic()
    tell("planned")
    for case, index in pending:
        started = monotonic()
        tell("started", case=case)
        record = run_case(
            case,
            target.store,
            run_index=index,
            freshness=target.freshness[case.id],
            recipes=recipes,
            on_progress=lambda text, fraction, case=case: tell(  # type: ignore[misc]  # bound now, not at the call
                "progress", case=case, text=text, fraction=fraction
            ),
        )
        target.store.append(record)
        finished.append(record)
        tell("finished", case=case, record=record)
        yield record


def recipe_folders(suite: Path) -> tuple[Path, ...]:
    """Where recipes are searched: beside the suite, then those that came with vbench."""
    package = Path(bench.__file__).parent
    candidates = (suite.parent / "recipes", package.parent / "suites" / "recipes", package / "suites" / "recipes")
    return tuple(dict.fromkeys(folder.resolve() for folder in candidates if folder.is_dir()))


def freshness_of(case: Case, facts: Catalog, recipes: Sequence[Path]) -> str:
    """Hash of what a stored result depends on beside its point: model source, measures, weights of any part, recipe."""
    measures = [(name, MEASURES.get(name).version, options) for name, options in sorted(case.measures.items())]
    arguments = [value for value in case.point.args.values() if isinstance(value, str)]  # weights of a part are files
    pretraining = Pretraining.of(case.point.weights)
    recipe_names = [case.point.recipe, *([pretraining.recipe] if pretraining else [])]
    found = [find_recipe(name, recipes) for name in recipe_names if name]
    files = [*model_files(case.point.model), *(Path(name) for name in (case.point.weights, *arguments) if name)]
    hashes = [_hash(file) for file in (*files, *found) if file and file.is_file()]
    return digest([facts.model(case.point.model).source, measures, hashes])


def _hash(file: Path) -> str:
    """The file's SHA-256, read once as long as it stays as it is: weights are large, and shared by many cases."""
    state = file.stat()
    return _hash_of(file.resolve(), state.st_mtime_ns, state.st_ctime_ns, state.st_size)


@lru_cache(maxsize=1024)
def _hash_of(file: Path, *state: int) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _estimate(case: Case, history: Sequence[Record]) -> float:
    """Seconds of one run: of this very case before, else of cases with the same measures, else a guess."""
    same = [r for r in history if r.case_id == case.id]
    alike = same or [r for r in history if r.case.measures.keys() == case.measures.keys()]
    known = [r.seconds["whole"] for r in alike if "whole" in r.seconds]
    if known:
        return sum(known) / len(known)
    return START_SECONDS + sum(GUESSED_SECONDS.get(name, 1.0) for name in case.measures)
