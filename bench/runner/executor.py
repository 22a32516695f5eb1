"""Executors start workers on other machines; a worker takes pending runs of a results folder until none is left.

An executor is one file in `bench/runner/executors`. What it submitted is kept in the results folder, so that
`vbench status` can tell about it later and from any machine.
"""

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from secrets import token_hex
from typing import ClassVar, Literal

from bench.core.errors import StoreError
from bench.core.files import write_atomically
from bench.store.lines import store_errors

SUBMISSIONS = "submissions"

# `ended`: the cluster no longer knows the job, so how it ended is unknown.
JobPhase = Literal["waiting", "running", "done", "failed", "cancelled", "timeout", "node_failed", "ended"]
FINAL: frozenset[JobPhase] = frozenset({"done", "failed", "cancelled", "timeout", "node_failed", "ended"})


@dataclass(frozen=True, kw_only=True)
class Workers:
    """What is to be started: `count` processes with `command`, each with a `--worker NAME` of its own.

    `is_exclusive` workers measure times and need their node to themselves. `logs` is a folder for the output.
    """

    command: tuple[str, ...]
    count: int
    is_exclusive: bool
    logs: Path


@dataclass(frozen=True, kw_only=True)
class JobState:
    """What the cluster says about a job. `reason` is its own word, such as `Resources` or `OutOfMemory`."""

    job: str
    phase: JobPhase
    node: str = ""
    reason: str = ""


@dataclass(frozen=True, kw_only=True)
class Submission:
    """Jobs that were submitted for a results folder. `options` are those that the user gave."""

    executor: str
    jobs: tuple[str, ...]
    options: Mapping[str, str]
    is_exclusive: bool
    submitted_at: str

    @classmethod
    def now(cls, executor: str, jobs: Sequence[str], options: Mapping[str, str], *, is_exclusive: bool) -> "Submission":
        at = datetime.now(UTC).isoformat(timespec="seconds")
        return cls(executor=executor, jobs=tuple(jobs), options=options, is_exclusive=is_exclusive, submitted_at=at)

    def write(self, folder: Path) -> None:
        """Store this submission in a results folder; raises StoreError."""
        file = folder / SUBMISSIONS / f"{self.submitted_at.replace(':', '')}-{token_hex(4)}.json"
        with store_errors(file, "written"):
            file.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(file, json.dumps(asdict(self), indent=1))


class Executor(ABC):
    """One way to start workers on other machines; `options` are its keyword arguments."""

    name: ClassVar[str]

    @abstractmethod
    def submit(self, workers: Workers) -> list[str]:
        """Start the workers and return the names of their jobs; raises InputError for what the cluster refuses."""

    @classmethod
    @abstractmethod
    def states(cls, jobs: Sequence[str]) -> list[JobState]:
        """Return what the cluster says about these jobs; raises InputError if it cannot be asked from here."""


def read_submissions(folder: Path) -> list[Submission]:
    """Return what was submitted for a results folder, oldest first; raises StoreError for a file of another form."""
    found = []
    with store_errors(folder, "read"):
        files = sorted((folder / SUBMISSIONS).glob("*.json"))
        for file in files:
            try:
                raw = json.loads(file.read_text(encoding="utf-8"))
                found.append(Submission(**{**raw, "jobs": tuple(raw["jobs"])}))
            except (ValueError, TypeError, KeyError) as error:
                raise StoreError(f"{file} does not describe a submission: {error}; remove it") from None
    return found
