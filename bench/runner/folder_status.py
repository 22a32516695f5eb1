"""The state of a results folder: finished runs, its workers with their cases, and the states of its jobs."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules

from bench.core.errors import InputError, StoreError, UnknownNameError
from bench.core.files import path_hint
from bench.runner import executors
from bench.runner.executor import FINAL, Executor, JobState, Submission, read_submissions
from bench.runner.staging import is_recent, remove_staged_tree, staged_trees_in
from bench.store.leases import Leases, LeaseState
from bench.store.stored_records import latest_runs, read_records, read_suite_info

NOT_ASKED = "not asked"


@dataclass(frozen=True, kw_only=True)
class StagedTreeState:
    """A copy of a working tree, and the jobs that still run from it; those whose state is unknown count."""

    folder: Path
    jobs: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class FolderStatus:
    """The state of a results folder. `planned` runs are those of the suite; None if the folder has no suite.

    `problem` says why the states of jobs are unknown. `staged_trees` are copies of working trees that jobs ran from.
    """

    folder: Path
    suite: str
    planned: int | None
    statuses: Counter[str]
    working: tuple[LeaseState, ...]
    jobs: tuple[JobState, ...]
    problem: str = ""
    staged_trees: tuple["StagedTreeState", ...] = ()

    @property
    def left(self) -> int | None:
        """Planned runs without a record."""
        return None if self.planned is None else max(0, self.planned - self.statuses.total())

    @property
    def is_active(self) -> bool:
        """Whether a worker is at work or a job may still start one."""
        return any(not lease.has_expired for lease in self.working) or any(job.phase not in FINAL for job in self.jobs)


def folder_status(folder: Path) -> FolderStatus:
    """Return the state of a results folder, from any machine that sees it; raises StoreError if there is none."""
    info = read_suite_info(folder)
    if not info and not any(folder.glob("records*.jsonl")):
        raise StoreError(f"{folder} is not a results folder: it has neither suite.json nor records{path_hint(folder)}")
    planned = info.get("planned")
    runs = planned if isinstance(planned, dict) else {}
    records = latest_runs(read_records(folder)) if any(folder.glob("records*.jsonl")) else []
    last = {(r.case_id, r.run_index): r.status for r in records if not runs or r.case_id in runs}
    leases = Leases(folder, worker="status").states()
    submissions = read_submissions(folder)
    jobs, problem = _job_states(submissions)
    return FolderStatus(
        folder=folder,
        suite=str(info.get("name", "")),
        planned=sum(int(str(number)) for number in runs.values()) if runs else None,
        statuses=Counter(last.values()),
        working=tuple(lease for lease in leases if not (lease.has_expired and lease.run in last)),
        jobs=tuple(jobs),
        problem=problem,
        staged_trees=_staged_tree_states(folder, submissions, jobs),
    )


def remove_unused_trees(folder: Path) -> list[Path]:
    """Remove the staged trees in a results folder that no job runs from, and return them; those elsewhere stay."""
    submissions = [each for each in read_submissions(folder) if each.stage]
    states = _staged_tree_states(folder, submissions, _job_states(submissions)[0])
    own = {tree.absolute() for tree in staged_trees_in(folder)}
    unused = [each.folder for each in states if each.folder in own and not each.jobs and not is_recent(each.folder)]
    for tree in unused:
        remove_staged_tree(tree)
    return unused


def _staged_tree_states(
    folder: Path, submissions: Sequence[Submission], states: Sequence[JobState]
) -> tuple[StagedTreeState, ...]:
    ended = {state.job for state in states if state.phase in FINAL and state.reason != NOT_ASKED}
    used: dict[Path, list[str]] = {tree.absolute(): [] for tree in staged_trees_in(folder)}
    for submission in submissions:
        if submission.stage and Path(submission.stage).is_dir():
            used.setdefault(Path(submission.stage), []).extend(job for job in submission.jobs if job not in ended)
    return tuple(StagedTreeState(folder=tree, jobs=tuple(jobs)) for tree, jobs in used.items())


def executor_class(name: str) -> type[Executor]:
    """Return the class of an executor by its name, which is that of its file in `bench/runner/executors`."""
    if name not in executor_names():
        raise UnknownNameError("executor", name, executor_names())
    module = import_module(f"{executors.__name__}.{name}")
    found: type[Executor] = getattr(module, name.title())
    return found


def executor_names() -> list[str]:
    """Return the names of all executors, sorted."""
    return sorted(module.name for module in iter_modules(executors.__path__))


def _job_states(submissions: list[Submission]) -> tuple[list[JobState], str]:
    jobs: list[JobState] = []
    problems: list[str] = []
    for submission in submissions:
        try:
            jobs += executor_class(submission.executor).states(submission.jobs)
        except InputError as error:
            problems.append(str(error))
            jobs += [JobState(job=job, phase="ended", reason=NOT_ASKED) for job in submission.jobs]
    return jobs, "; ".join(dict.fromkeys(problems))
