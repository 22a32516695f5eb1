"""Executors start workers on other machines; a worker takes pending runs of a results folder until none is left.

An executor is one file in `bench/runner/executors`. Its submissions are stored in the results folder, so that
`vbench status` can show their jobs later and from any machine.
"""

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from secrets import token_hex
from typing import ClassVar, Literal

from bench.core.errors import StoreError
from bench.core.files import write_atomically
from bench.core.rank_layout import RankLayout
from bench.runner.rank_processes import RENDEZVOUS
from bench.store.lines import store_errors

SUBMISSIONS = "submissions"

# `ended`: the cluster no longer knows the job, so how it ended is unknown.
JobPhase = Literal["waiting", "running", "done", "failed", "cancelled", "timeout", "node_failed", "ended"]
FINAL: frozenset[JobPhase] = frozenset({"done", "failed", "cancelled", "timeout", "node_failed", "ended"})


@dataclass(frozen=True, kw_only=True)
class Workers:
    """The workers to start: `count` processes with `command`, each with a `--worker NAME` of its own.

    `is_exclusive` workers measure times and need their node to themselves. `logs` is the folder of this submission for
    their output. They run in `folder`, with `variables` added to their environment. `gpus` and `memory_bytes` are what
    the suite requires of a node that runs cases on its device.

    A worker over several nodes (`layout.nodes > 1`) is one process for each of `layout.ranks`, all with the same name,
    with `variables_of_rank` added to the environment of each.
    """

    command: tuple[str, ...]
    count: int
    is_exclusive: bool
    logs: Path
    folder: Path = field(default_factory=Path.cwd)
    variables: Mapping[str, str] = field(default_factory=dict)
    gpus: int = 0
    memory_bytes: int | None = None
    layout: RankLayout = field(default_factory=RankLayout)

    def variables_of_rank(self, rank: int, *, start: str) -> dict[str, str]:
        """Return the environment variables by which one process of a worker finds the others.

        `start` is a name that no other worker has, nor the same one when it was started before. Node n has the ranks
        from n times `layout.ranks_per_node` on.
        """
        node, local = divmod(rank, self.layout.ranks_per_node)
        return {
            "RANK": str(rank),
            "WORLD_SIZE": str(self.layout.ranks),
            "LOCAL_RANK": str(local),
            "LOCAL_WORLD_SIZE": str(self.layout.ranks_per_node),
            "GROUP_RANK": str(node),
            RENDEZVOUS: str(self.logs.absolute() / "rendezvous" / f"{start}.json"),
        }


@dataclass(frozen=True, kw_only=True)
class JobState:
    """The state of a job. `reason` is the cluster's own word, such as `Resources` or `OutOfMemory`."""

    job: str
    phase: JobPhase
    node: str = ""
    reason: str = ""


@dataclass(frozen=True, kw_only=True)
class Submission:
    """Jobs that were submitted for a results folder. `options` are those that the user gave.

    Runs whose records lie after `marks`, sizes of the records files by name, belong to it. `stage` is the copy of the
    working tree that the jobs run from; empty if they run from the tree itself.
    """

    name: str
    executor: str
    options: Mapping[str, str]
    is_exclusive: bool
    submitted_at: str
    marks: Mapping[str, int]
    jobs: tuple[str, ...] = ()
    stage: str = ""

    @classmethod
    def now(
        cls,
        executor: str,
        *,
        options: Mapping[str, str],
        is_exclusive: bool,
        marks: Mapping[str, int],
        stage: str = "",
    ) -> "Submission":
        at = datetime.now(UTC).isoformat(timespec="seconds")
        return cls(
            name=f"{at[:19].replace(':', '')}-{token_hex(4)}",
            executor=executor,
            options=options,
            is_exclusive=is_exclusive,
            submitted_at=at,
            marks=marks,
            stage=stage,
        )

    def with_jobs(self, jobs: Sequence[str]) -> "Submission":
        return replace(self, jobs=tuple(jobs))

    def write(self, folder: Path) -> None:
        """Store this submission in a results folder; raises StoreError."""
        file = _file_of(folder, self.name)
        with store_errors(file, "written"):
            write_atomically(file, json.dumps(asdict(self), indent=1))

    def remove(self, folder: Path) -> None:
        _file_of(folder, self.name).unlink(missing_ok=True)

    @classmethod
    def read(cls, folder: Path, name: str) -> "Submission":
        """Read one submission of a results folder; raises StoreError if it is missing or has another form."""
        file = _file_of(folder, name)
        with store_errors(file, "read"):
            try:
                raw = json.loads(file.read_text(encoding="utf-8"))
                return cls(**{**raw, "jobs": tuple(raw["jobs"])})
            except (ValueError, TypeError, KeyError) as error:
                raise StoreError(f"{file} does not describe a submission: {error}; remove it") from None


def _file_of(folder: Path, name: str) -> Path:
    return folder / SUBMISSIONS / f"{name}.json"


class Executor(ABC):
    """Starts workers on the machines of a cluster; `options` are its keyword arguments.

    One that `spans_nodes` also starts workers over several nodes. `time_limit_s` is that of each job, if it has one.
    """

    name: ClassVar[str]
    spans_nodes: ClassVar[bool] = False
    time_limit_s: float | None = None

    def gpus_of_a_node(self, required: int) -> int:
        """Return how many GPUs a job requests on each node, of which its cases need `required`."""
        return required

    @abstractmethod
    def submit(self, workers: Workers) -> list[str]:
        """Start the workers and return the names of their jobs; raises InputError for what the cluster refuses."""

    @classmethod
    @abstractmethod
    def states(cls, jobs: Sequence[str]) -> list[JobState]:
        """Return the states of these jobs; raises InputError if the cluster cannot be reached from this machine."""

    @classmethod
    @abstractmethod
    def cancel(cls, jobs: Sequence[str]) -> None:
        """Remove waiting jobs from the queue; raises InputError if the cluster refuses."""


def read_submissions(folder: Path) -> list[Submission]:
    """Return what was submitted for a results folder, oldest first; raises StoreError for a file of another form."""
    with store_errors(folder, "read"):
        names = sorted(file.stem for file in (folder / SUBMISSIONS).glob("*.json"))
    return [Submission.read(folder, name) for name in names]
