"""The pending runs of a results folder as a queue that several workers share, on one machine or on many."""

import os
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from bench.core.privacy import host_alias
from bench.core.schema import Case
from bench.store.leases import EXPIRES_S, LOCAL, Lease, Leases
from bench.store.tail import RecordTail

POLL_S = 2.0
MOST_LOSSES = 2  # attempts whose worker vanished: a case that takes its machine down must not take down every other

RESTARTED = "-restart"  # in the name of a worker whose job was started again, before the number of the restart

PendingRun = tuple[Case, int]


def restarted_name(name: str, number: int) -> str:
    """Return the name of a worker after so many restarts of its job; the worker before them may still run."""
    return f"{name}{RESTARTED}{number}" if number else name


@dataclass(frozen=True, kw_only=True)
class SharedWorker:
    """A process that shares a results folder with others, under a `name` of its own; `job` is its job of a cluster.

    Runs that were finished after `marks` are not made again. Without `waits`, it ends when others hold all the rest.
    """

    name: str
    job: str = ""
    marks: Mapping[str, int] | None = None
    waits: bool = False

    @classmethod
    def of_this_process(cls) -> "SharedWorker":
        return cls(name=f"{host_alias(socket.gethostname())}-{os.getpid()}", waits=True)


class WorkQueue:
    """Hands out runs, each to one worker at a time. Make it before planning, so that no result goes unnoticed.

    Runs that were finished after `marks`, sizes of the records files by name, are not handed out again; the marks are
    those of now by default. Without `waits`, a worker leaves when others hold all that is left, unless one of them has
    fallen silent, or is this worker before its job was restarted.
    """

    def __init__(
        self,
        folder: Path,
        leases: Leases,
        *,
        marks: Mapping[str, int] | None = None,
        waits: bool = True,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._leases = leases
        self._waits = waits
        self._sleep = sleep
        self._tail = RecordTail(folder, marks=marks)
        self._finished: set[tuple[str, int]] = set()

    def runs(self, pending: Iterable[PendingRun]) -> Iterator[tuple[PendingRun, Lease]]:
        """Yield runs with their leases, which the caller keeps alive; ends when none is available any more."""
        left = self._from_own_place(list(pending))
        while left:
            self._read_results()
            held: list[PendingRun] = []
            for run in left:
                lease = self.take(run)
                if lease is not None:
                    yield run, lease
                elif not self._is_finished(run):
                    held.append(run)
            if len(held) == len(left) and not self._should_wait():
                return
            left = held
            if left:
                self._sleep(POLL_S)

    def take(self, run: PendingRun) -> Lease | None:
        """Return the lease on a run; None if another worker holds it or has finished it."""
        case, index = run
        if self._is_finished(run):
            return None
        lease = self._leases.take(case.id, index, title=case.title)
        if lease is None:
            return None
        self._read_results()  # a worker may have stored it before it released its lease
        if self._is_finished(run):
            lease.release()
            return None
        return lease

    def _from_own_place(self, runs: list[PendingRun]) -> list[PendingRun]:
        """Start at another place than other workers, so that not all of them try the same runs first."""
        if self._leases.worker == LOCAL or not runs:
            return runs
        place = int.from_bytes(sha256(self._leases.worker.encode()).digest()[:4]) % len(runs)
        return runs[place:] + runs[:place]

    def _read_results(self) -> None:
        """Read what others have stored; with a thousand workers this looks at a thousand files."""
        new = self._tail.new_runs()
        self._finished.update((case_id, index) for case_id, index, status in new if status != "interrupted")

    def _is_finished(self, run: PendingRun) -> bool:
        """Whether a result since the marks was read; an interrupted run counts as unfinished."""
        return (run[0].id, run[1]) in self._finished

    def _should_wait(self) -> bool:
        return self._waits or any(
            state.silent_s > EXPIRES_S / 3 or self._is_former(state.facts.worker) for state in self._leases.states()
        )

    def _is_former(self, worker: str) -> bool:
        """Whether a worker is this one before its job was restarted."""
        own = self._leases.worker
        return worker != own and worker.partition(RESTARTED)[0] == own.partition(RESTARTED)[0]
