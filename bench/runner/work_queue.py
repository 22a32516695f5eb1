"""The pending runs of a results folder as a queue that several workers share, on one machine or on many."""

import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from bench.core.schema import Case
from bench.store.leases import EXPIRES_S, Lease, Leases
from bench.store.tail import RecordTail

POLL_S = 2.0
MOST_LOSSES = 2  # attempts whose worker vanished: a case that takes its machine down must not take down every other

PendingRun = tuple[Case, int]


class WorkQueue:
    """Hands out runs, each to one worker at a time. Make it before planning, so that no result goes unnoticed.

    Without `waits`, a worker leaves when others hold all that is left, unless one of them has fallen silent.
    """

    def __init__(
        self, folder: Path, leases: Leases, *, waits: bool = True, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        self._leases = leases
        self._waits = waits
        self._sleep = sleep
        self._tail = RecordTail(folder)
        self._finished: set[tuple[str, int]] = set()

    def runs(self, pending: Iterable[PendingRun]) -> Iterator[tuple[PendingRun, Lease]]:
        """Yield runs with their leases, which the caller keeps alive; ends when none can be had any more."""
        left = list(pending)
        while left:
            held: list[PendingRun] = []
            for run in left:
                lease = self._take(run)
                if lease is not None:
                    yield run, lease
                elif not self._is_finished(run):
                    held.append(run)
            if len(held) == len(left) and not self._should_wait():
                return
            left = held
            if left:
                self._sleep(POLL_S)

    def _take(self, run: PendingRun) -> Lease | None:
        case, index = run
        if self._is_finished(run):
            return None
        lease = self._leases.take(case.id, index, title=case.title)
        if lease is not None and self._is_finished(run):  # its worker stored it just before it released the lease
            lease.release()
            return None
        return lease

    def _is_finished(self, run: PendingRun) -> bool:
        """Whether another worker has stored a result since this queue was made."""
        self._finished.update((record.case_id, record.run_index) for record in self._tail.new_records())
        return (run[0].id, run[1]) in self._finished

    def _should_wait(self) -> bool:
        return self._waits or any(state.silent_s > EXPIRES_S / 3 for state in self._leases.states())
