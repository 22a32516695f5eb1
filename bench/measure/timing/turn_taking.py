"""Turn-taking: two processes that are compared are timed alternately while both are alive.

A disturbance of the machine that lasts longer than one turn then affects both sides alike. A process that is measured
on its own never waits.
"""

import functools
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bench.measure.timing.sampling import Sample

ADDRESS = "VBENCH_TURN_TAKING"
OLD_ADDRESS = "VBENCH_FLOOR"  # set as well, for sides that are commits from before the rename
WANT, MEET, GRANT, RELEASE = b"?", b"=", b"!", b"."
# Long compared with a handover (0.1 ms) and with refilling the caches, short compared with the bursts of other
# processes: docs/decisions/0009-turn-taking.md.
TURN_S = 0.02
TURNS_PER_CORE = 8


class TurnTaking:
    """This process's part in turn-taking. `turn` counts its turns since both sides last met; 0 without a relay."""

    def __init__(self, granter: socket.socket | None = None) -> None:
        self._granter = granter
        self._is_held = False
        self._granted_at = 0.0
        self._waited_s = 0.0
        self.turn = 0

    @classmethod
    def of_environment(cls) -> "TurnTaking":
        """Connect to the relay that the environment names, if any; child processes do not inherit the address."""
        addresses = [os.environ.pop(name, None) for name in (ADDRESS, OLD_ADDRESS)]
        address = next((each for each in addresses if each), None)
        if address is None:
            return cls()
        granter = socket.socket(socket.AF_UNIX)
        granter.connect(address)
        return cls(granter)

    def close(self) -> None:
        """Leave turn-taking; the other process runs alone."""
        if self._granter is not None:
            self._granter.close()

    @property
    def is_shared(self) -> bool:
        """Whether another process takes turns with this one."""
        return self._granter is not None

    @contextmanager
    def held(self) -> Iterator[None]:
        """Wait for a turn and keep it for the block, except while `pass_on` hands it over; blocks may be nested."""
        if self._granter is None or self._is_held:
            yield
            return
        self._ask()
        try:
            yield
        finally:
            self._give_back()

    def pass_on(self) -> None:
        """Inside `held`: if this turn has lasted `TURN_S`, hand over to the other process and wait for the next."""
        if self._is_held and time.perf_counter() - self._granted_at >= TURN_S:
            self._give_back()
            self._ask()

    def meet(self) -> None:
        """Inside `held`: wait until the other process calls `meet` too, then count turns from 1 on both sides."""
        if self._is_held:
            self._give_back()
            self._ask(MEET)
            self.turn = 1

    def clock_s(self) -> float:
        """Seconds of a clock that stops while this process waits for its turn."""
        return time.perf_counter() - self._waited_s

    def _ask(self, message: bytes = WANT) -> None:
        assert self._granter is not None
        asked_at = time.perf_counter()
        with _ignore_closed_relay():
            self._granter.sendall(message)
            self._granter.recv(1)
        self._granted_at = time.perf_counter()
        self._waited_s += self._granted_at - asked_at
        self._is_held = True
        self.turn += 1

    def _give_back(self) -> None:
        assert self._granter is not None
        self._is_held = False
        with _ignore_closed_relay():
            self._granter.sendall(RELEASE)


@functools.cache
def process_turns() -> TurnTaking:
    """The turn-taking of this process. The first call connects to the relay, if the environment names one.

    It belongs to the process, not to a case: a process has one connection, and measures must not have to pass it on.
    """
    return TurnTaking.of_environment()


def in_turns(step: "Callable[[], Sample]", turns: TurnTaking) -> "Callable[[], Sample]":
    """`step`, preceded by a handover to the other process when the turn is over; samples know their turn.

    Every few turns a single-threaded process starts on its next core, as the other process does. Otherwise each would
    stay on its own core, and a slower core would slow down one side alone. The system may move it from there.
    """
    if not turns.is_shared:
        return step
    import torch  # late: the worker connects before it imports anything heavy

    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    is_rotating = torch.get_num_threads() == 1 and len(cores) > 1

    def turned() -> "Sample":
        before = turns.turn
        turns.pass_on()
        if is_rotating and turns.turn != before and turns.turn % TURNS_PER_CORE == 0:
            os.sched_setaffinity(0, {cores[turns.turn // TURNS_PER_CORE % len(cores)]})
            os.sched_setaffinity(0, cores)
        return step()._replace(turn=turns.turn)

    return turned


@contextmanager
def _ignore_closed_relay() -> Iterator[None]:
    """If the relay is gone, no other process takes turns any more, so this one goes on alone."""
    try:
        yield
    except ConnectionError:
        return
