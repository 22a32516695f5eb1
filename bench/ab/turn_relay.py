"""The relay of turn-taking: lets two processes run in turns, so that neither is timed while the other works."""

import socket
import tempfile
import threading
from pathlib import Path
from types import TracebackType

from bench.ab.sides import SideName
from bench.measure.timing.turn_taking import GRANT, MEET, RELEASE, WANT

LONGEST_FOLDER = 70  # characters; the path of a Unix socket has at most about a hundred, and TMPDIR can be longer
SIDES: tuple[SideName, SideName] = ("base", "head")


class Turnstile:
    """Decides whose turn it is, `first` before the other, until one side leaves. Thread-safe.

    A turn starts only when both sides wait for one: otherwise the other process would be working, not waiting.
    """

    def __init__(self, *, first: SideName) -> None:
        self._changed = threading.Condition()
        self._here: set[SideName] = set(SIDES)
        self._waiting: set[SideName] = set()
        self._meeting: set[SideName] = set()
        self._holder: SideName | None = None
        self._met = 0
        self._next = first

    def enter(self, side: SideName) -> None:
        """Wait until it is the turn of `side`, and take it; both sides must wait for a turn or have left."""
        with self._changed:
            self._waiting.add(side)
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._may_enter(side))
            self._waiting.discard(side)
            if side in self._here:
                self._holder = side
                self._next = _other(side)

    def meet(self, side: SideName) -> None:
        """Let the other side run alone until it calls `meet` too or leaves; then `enter`."""
        with self._changed:
            met = self._met
            self._meeting.add(side)
            self._waiting.add(side)
            if self._here <= self._meeting:
                self._meeting, self._met = set(), met + 1
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._met > met or self._here <= {side} or side not in self._here)
            self._meeting.discard(side)
        self.enter(side)

    def release(self, side: SideName) -> None:
        """End the turn of `side`, if it has one."""
        with self._changed:
            self._holder = None if self._holder == side else self._holder
            self._changed.notify_all()

    def leave(self, side: SideName) -> None:
        """Stop waiting for `side`: its run has ended, with or without success."""
        with self._changed:
            self._here.discard(side)
            self._holder = None if self._holder == side else self._holder
            self._changed.notify_all()

    def _may_enter(self, side: SideName) -> bool:
        if side not in self._here:
            return True
        is_turn = self._next == side or _other(side) not in self._here or _other(side) in self._meeting
        return self._holder is None and self._here <= self._waiting and is_turn


class Relay:
    """A turnstile that one process of each side reaches through a socket. Leaving the block closes it."""

    def __init__(self, *, first: SideName) -> None:
        self.turnstile = Turnstile(first=first)
        folder = tempfile.gettempdir() if len(tempfile.gettempdir()) < LONGEST_FOLDER else "/tmp"
        self._folder = tempfile.TemporaryDirectory(prefix="vbench-turns-", dir=folder)
        self._listening = [self._listen(side) for side in SIDES]

    def address(self, side: SideName) -> str:
        """The path of the socket at which the processes of `side` ask for turns."""
        return str(Path(self._folder.name) / side)

    def __enter__(self) -> "Relay":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for side, listening in zip(SIDES, self._listening, strict=True):
            self.turnstile.leave(side)
            listening.shutdown(socket.SHUT_RDWR)  # unlike close, this ends a waiting accept
            listening.close()
        self._folder.cleanup()

    def _listen(self, side: SideName) -> socket.socket:
        listening = socket.socket(socket.AF_UNIX)
        listening.bind(self.address(side))
        listening.listen()
        threading.Thread(target=self._accept, args=(listening, side), daemon=True).start()
        return listening

    def _accept(self, listening: socket.socket, side: SideName) -> None:
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:  # closed
                return
            threading.Thread(target=self._serve, args=(connection, side), daemon=True).start()

    def _serve(self, connection: socket.socket, side: SideName) -> None:
        """Serve one process of `side` until it ends, even in the middle of its turn."""
        with connection:
            try:
                while message := connection.recv(1):
                    if message == WANT:
                        self.turnstile.enter(side)
                        connection.sendall(GRANT)
                    elif message == MEET:
                        self.turnstile.meet(side)
                        connection.sendall(GRANT)
                    elif message == RELEASE:
                        self.turnstile.release(side)
            except ConnectionError:
                pass
        self.turnstile.leave(side)


def _other(side: SideName) -> SideName:
    return "head" if side == "base" else "base"
