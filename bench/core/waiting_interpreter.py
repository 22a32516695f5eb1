"""A new interpreter that is started ahead: it imports what it will need, waits, and then becomes one process.

A process that waits in `recv` uses no processor time, so it does not disturb a measurement; its imports would.
Unlike a forked process it shares no memory with another one: its memory layout is its own, as that of any new process.
"""

import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module
from typing import IO, Any
from uuid import uuid4

from bench.core.fork_server import MOST_DESCRIPTORS, PRELOAD_S, ForkServerError, become, hand_over
from bench.core.import_path import child_environment
from bench.core.process import GRACE_S, LINEAGE, PARENT_PID, kill_processes_with

SOCKET_FD = "VBENCH_WAITING_FD"  # environment variable: the descriptor on which a waiting interpreter is called
READY, CALL = b"r", b"c"


class WaitingInterpreter:
    """An interpreter that calls `preload` (`module:function`) and waits until `start` makes it a process."""

    def __init__(self, preload: str) -> None:
        self._socket, theirs = socket.socketpair()
        self._token = uuid4().hex
        inherited = child_environment(os.environ)
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "bench.core.child_main", f"{__name__}:main", preload],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env={
                    **inherited,
                    SOCKET_FD: str(theirs.fileno()),
                    PARENT_PID: str(os.getpid()),
                    LINEAGE: f"{inherited.get(LINEAGE, '')}:{self._token}",
                    "PYTHONUNBUFFERED": "1",
                },
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
            )
        except BaseException:
            self._socket.close()
            raise
        finally:
            theirs.close()

    def is_ready(self, *, within_s: float = PRELOAD_S) -> bool:
        """Wait until it has called `preload`; False if it ended instead, or is not ready `within_s`."""
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        return bool(poll.poll(1000 * within_s)) and self._socket.recv(1, socket.MSG_PEEK) == READY

    def start(self, command: Sequence[str], **options: Any) -> "CalledInterpreter":
        """Let it call the last word of `command`, `module:function`; arguments as for `ForkServer.start`.

        Raises ForkServerError if it has ended.
        """
        try:
            with hand_over(command, **options) as given:
                socket.send_fds(self._socket, [CALL], given.descriptors)
        except OSError as error:
            self.close()
            raise ForkServerError("the interpreter that was started ahead has ended") from error
        self._socket.close()
        return CalledInterpreter(self._process, self._token, stdout=given.stdout, stderr=given.stderr)

    def close(self) -> None:
        """End it, if it still waits."""
        self._socket.close()
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(GRACE_S)


class CalledInterpreter:
    """The process that a waiting interpreter became, with the attributes of `subprocess.Popen` that are used of it."""

    def __init__(
        self, process: "subprocess.Popen[bytes]", token: str, *, stdout: IO[bytes] | None, stderr: IO[bytes] | None
    ) -> None:
        self._process, self._token = process, token
        self.pid, self.stdin, self.stdout, self.stderr = process.pid, None, stdout, stderr

    @property
    def returncode(self) -> int | None:
        return self._process.returncode

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def wait(self, timeout: float | None = None) -> int:
        """The exit code once the process has ended; kills every process that it forked and that lives on."""
        code = self._process.wait(timeout)
        # A process that was forked shows the environment with which the interpreter was started, not that of the call.
        kill_processes_with(self._token)
        return code


def main() -> None:
    """In the interpreter: preload, say so, and become the process that is asked for."""
    calls = socket.socket(fileno=int(os.environ.pop(SOCKET_FD)))
    calls.set_inheritable(False)
    module, _, function = sys.argv[1].partition(":")
    getattr(import_module(module), function)()
    with suppress(BrokenPipeError):  # it was called, and the socket closed, before it was ready
        calls.send(READY)
    message, received, _, _ = socket.recv_fds(calls, 1, MOST_DESCRIPTORS)
    calls.close()
    if message:
        become(received)
