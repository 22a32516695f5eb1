"""The floor: the right to be timed, which two processes that are compared pass to and fro while both are alive.

What disturbs a machine for longer than a turn then disturbs both alike. A process of its own always has the floor.
"""

import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager

ADDRESS = "VBENCH_FLOOR"
WANT, MEET, GRANT, RELEASE = b"?", b"=", b"!", b"."
# Long against handing over (0.1 ms) and against what a step of the other leaves behind in caches, short against what
# neighbours on a machine do: docs/decisions/0009.
TURN_S = 0.02


class Floor:
    """This process's share of the floor. `turn` counts its turns since both last met, 0 where nobody else wants it."""

    def __init__(self, granter: socket.socket | None = None) -> None:
        self._granter = granter
        self._is_held = False
        self._granted_at = 0.0
        self._waited_s = 0.0
        self.turn = 0

    @classmethod
    def of_environment(cls) -> "Floor":
        """The floor at the address that the environment names, if it does; processes started from here are not told."""
        address = os.environ.pop(ADDRESS, None)
        if address is None:
            return cls()
        granter = socket.socket(socket.AF_UNIX)
        granter.connect(address)
        return cls(granter)

    def close(self) -> None:
        """Want the floor no more; whoever else does is alone then."""
        if self._granter is not None:
            self._granter.close()

    @property
    def is_shared(self) -> bool:
        """Whether another process takes turns with this one."""
        return self._granter is not None

    @contextmanager
    def held(self) -> Iterator[None]:
        """Wait for the floor and keep it for the block, but for what `pass_on` gives away; blocks may be nested."""
        if self._granter is None or self._is_held:
            yield
            return
        self._ask()
        try:
            yield
        finally:
            self._give_back()

    def pass_on(self) -> None:
        """Inside `held`: once this turn is as long as turns are, let the other take one, and wait for the next."""
        if self._is_held and time.perf_counter() - self._granted_at >= TURN_S:
            self._give_back()
            self._ask()

    def meet(self) -> None:
        """Inside `held`: wait until the other is as far as this, and count turns from here on, as the other does."""
        if self._is_held:
            self._give_back()
            self._ask(MEET)
            self.turn = 1

    def clock_s(self) -> float:
        """A clock that stands still while this process waits for the floor, in seconds."""
        return time.perf_counter() - self._waited_s

    def _ask(self, how: bytes = WANT) -> None:
        assert self._granter is not None
        asked_at = time.perf_counter()
        with _gone_is_alone():
            self._granter.sendall(how)
            self._granter.recv(1)
        self._granted_at = time.perf_counter()
        self._waited_s += self._granted_at - asked_at
        self._is_held = True
        self.turn += 1

    def _give_back(self) -> None:
        assert self._granter is not None
        self._is_held = False
        with _gone_is_alone():
            self._granter.sendall(RELEASE)


@contextmanager
def _gone_is_alone() -> Iterator[None]:
    """Where nobody grants the floor any longer, nobody else wants it."""
    try:
        yield
    except ConnectionError:
        return
