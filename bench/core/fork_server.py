"""Starts processes by forking one that has imported the heavy packages already: 20 ms instead of seconds of imports.

The server is a process with one thread that never touches a device. Each child has a session, environment, streams and
exit code of its own, as if `subprocess.Popen` had started it, so that one supervisor watches both kinds.
`multiprocessing` has such a server too, but its children share the server's environment and process group.
"""

import atexit
import fcntl
import gc
import json
import os
import random
import signal
import socket
import subprocess
import sys
import traceback
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib import import_module
from typing import IO, Any, NoReturn

from bench.core.import_path import child_environment
from bench.core.process import PARENT_PID, SupervisedProcess, die_with_parent, kill_processes_with, memory_file

SOCKET_FD = "VBENCH_FORK_SERVER_FD"  # environment variable: the descriptor on which a server takes requests
PRELOAD_S = 120.0  # for the imports of the server, on a machine whose disk is busy
FORK, REAP = b"f", b"r"
MOST_DESCRIPTORS = 16


class ForkServerError(Exception):
    """The server ended or did not answer; its children have ended as well."""


@dataclass(frozen=True, kw_only=True)
class HandOver:
    """The descriptors by which a waiting process becomes a child, and our ends of the pipes of its output."""

    descriptors: Sequence[int]
    stdout: IO[bytes] | None
    stderr: IO[bytes] | None


@contextmanager
def hand_over(
    command: Sequence[str],
    *,
    stdin: int | IO[bytes],
    stdout: int,
    stderr: int,
    env: Mapping[str, str],
    cwd: Any,
    pass_fds: Sequence[int],
    start_new_session: bool,
) -> Iterator[HandOver]:
    """Yield what to send to a process that calls `become` with it; arguments as for `subprocess.Popen`.

    The process calls the last word of `command`, `module:function`, and must have a session of its own. `stdin` is a
    file or DEVNULL.
    """
    assert start_new_session
    assert stdin != subprocess.PIPE
    out = os.pipe() if stdout == subprocess.PIPE else None
    err = os.pipe() if stderr == subprocess.PIPE else None
    with open(os.devnull, "r+b", buffering=0) as nothing, memory_file() as request:
        source = nothing.fileno() if isinstance(stdin, int) else stdin.fileno()
        sink = nothing.fileno() if out is None else out[1]
        errors = err[1] if err else sink if stderr == subprocess.STDOUT else nothing.fileno()
        facts = {"call": command[-1], "env": dict(env), "cwd": cwd and str(cwd), "wanted": [0, 1, 2, *pass_fds]}
        request.write(json.dumps(facts).encode())
        ours = [pipe and os.fdopen(pipe[0], "rb") for pipe in (out, err)]
        try:
            yield HandOver(
                descriptors=[request.fileno(), source, sink, errors, *pass_fds], stdout=ours[0], stderr=ours[1]
            )
        except BaseException:
            for file in ours:
                if file:
                    file.close()
            raise
        finally:
            for pipe in (out, err):
                if pipe:
                    os.close(pipe[1])


class ForkServer:
    """A process that calls `preload` (`module:function`) once and then forks a child for each call of `start`.

    One child at a time. Leaving the `with` block ends the server and its child.
    """

    def __init__(self, preload: str) -> None:
        self._socket, theirs = socket.socketpair()
        try:
            self._process = SupervisedProcess(
                [sys.executable, "-m", "bench.core.child_main", f"{__name__}:main", preload],
                environment={
                    **child_environment(os.environ),
                    SOCKET_FD: str(theirs.fileno()),
                    "PYTHONUNBUFFERED": "1",
                },
                pass_fds=(theirs.fileno(),),
            )
        except BaseException:
            self._socket.close()
            raise
        finally:
            theirs.close()

    @staticmethod
    def is_available() -> bool:
        """Whether this system has pidfds, by which a process is watched that is a child of another one."""
        if not hasattr(os, "pidfd_open"):
            return False
        try:
            os.close(os.pidfd_open(os.getpid()))
        except OSError:  # kernels before 5.3 and some sandboxes
            return False
        return True

    @property
    def has_ended(self) -> bool:
        return self._process.has_exited

    def start(self, command: Sequence[str], **options: Any) -> "ForkedProcess":
        """Fork a child that calls the last word of `command`, `module:function`; arguments as for `subprocess.Popen`.

        `stdin` is a file or DEVNULL. The child always has a session of its own. Raises ForkServerError.
        """
        with hand_over(command, **options) as given:
            pid = self._exchange(FORK, given.descriptors)
        return ForkedProcess(self, pid, stdout=given.stdout, stderr=given.stderr)

    def reap(self, *, timeout_s: float | None) -> int:
        """The exit code of the child, once it has ended. Kills every process that it forked and that lives on."""
        code = self._exchange(REAP, [], timeout_s=timeout_s)
        # A process that was forked shows the environment of the server, even if the child gave it a session of its own.
        kill_processes_with(self._process.token, but=self._process.process.pid)
        return code

    def _exchange(self, message: bytes, descriptors: Sequence[int], *, timeout_s: float | None = PRELOAD_S) -> int:
        self._socket.settimeout(timeout_s)
        try:
            socket.send_fds(self._socket, [message], descriptors)
            answer = self._socket.recv(64)
        except TimeoutError:
            self._process.kill()
            raise ForkServerError("the fork server does not answer") from None
        except OSError:  # reset, or a broken pipe
            answer = b""
        if not answer:
            raise ForkServerError(f"the fork server ended with code {self._process.end()}")
        return int(answer)

    def close(self) -> None:
        """End the server and its child."""
        self._socket.close()
        self._process.end(within_s=1.0)


class ForkedProcess:
    """A child of a `ForkServer`, with the attributes of `subprocess.Popen` that the supervisor uses."""

    def __init__(self, server: ForkServer, pid: int, *, stdout: IO[bytes] | None, stderr: IO[bytes] | None) -> None:
        self._server = server
        self.pid, self.stdin, self.stdout, self.stderr = pid, None, stdout, stderr
        self.returncode: int | None = None

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def wait(self, timeout: float | None = None) -> int:
        """The exit code once the process has ended; negative for a signal. If its server died, it was killed."""
        if self.returncode is None:
            try:
                self.returncode = self._server.reap(timeout_s=timeout)
            except ForkServerError:
                self.returncode = -signal.SIGKILL
        return self.returncode


def main() -> None:
    """In the server: preload, then fork a child for each request until the other end of the socket is closed."""
    requests = socket.socket(fileno=int(os.environ.pop(SOCKET_FD)))
    requests.set_inheritable(False)
    module, _, function = sys.argv[1].partition(":")
    getattr(import_module(module), function)()
    gc.collect()
    gc.freeze()  # so that garbage collection in children does not copy the pages of preloaded modules
    for preloaded in list(weakref.finalize._registry):  # type: ignore[attr-defined]  # has no public list
        preloaded.atexit = False  # torch unregisters its operators at exit, which takes 0.1 s in each child
    pid = 0
    while True:
        message, received, _, _ = socket.recv_fds(requests, 1, MOST_DESCRIPTORS)
        if not message:
            return
        if message == FORK:
            server = os.getpid()
            pid = os.fork()
            if pid == 0:
                requests.close()
                _run_child(received, server=server)
            answer = pid
        else:
            answer = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        for descriptor in received:
            os.close(descriptor)
        requests.send(b"%d" % answer)


def _run_child(received: Sequence[int], *, server: int) -> NoReturn:
    os.setsid()
    os.environ[PARENT_PID] = str(server)
    die_with_parent()
    _seed_generators()
    become(received)


def become(received: Sequence[int]) -> NoReturn:
    """Become the process that the descriptors of a `HandOver` describe: call its function and exit."""
    code = 1
    try:
        with os.fdopen(received[0], "rb") as file:
            file.seek(0)
            request = json.loads(file.read())
        _take_descriptors(received[1:], request["wanted"])
        os.environ.clear()
        os.environ.update(request["env"])
        os.environ.pop(PARENT_PID, None)  # names the parent of this process, not that of its own children
        if request["cwd"]:
            os.chdir(request["cwd"])
        module, _, function = request["call"].partition(":")
        sys.argv = [module]
        getattr(import_module(module), function)()
        code = 0
    except SystemExit as stop:
        code = _code_of(stop)
    except BaseException:  # as at the end of any Python program
        traceback.print_exc()
    # The interpreter does not end as usual, which takes 0.3 s with torch and frees what the system frees anyway.
    with suppress(Exception):
        atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):
            stream.flush()
    os._exit(code)


def _take_descriptors(received: Sequence[int], wanted: Sequence[int]) -> None:
    """Move each received descriptor to its wanted number; the others of them are closed."""
    above = max(*received, *wanted) + 1
    moved = [fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, above) for descriptor in received]
    for descriptor in received:
        os.close(descriptor)
    for descriptor, number in zip(moved, wanted, strict=True):
        os.dup2(descriptor, number, inheritable=True)
        os.close(descriptor)


def _seed_generators() -> None:
    """Seed the generators that a new interpreter seeds from the system, so that no two children draw alike."""
    random.seed()
    if (numpy := sys.modules.get("numpy.random")) is not None:
        numpy.seed()
    if (torch := sys.modules.get("torch")) is not None:
        torch.default_generator.seed()  # not torch.seed(), which concerns devices as well


def _code_of(stop: SystemExit) -> int:
    if stop.code is None or isinstance(stop.code, int):
        return (stop.code or 0) & 0xFF
    print(stop.code, file=sys.stderr)
    return 1
