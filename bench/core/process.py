"""One supervisor for every child process: start, drain, deadline, result, then the end of its whole process group.

A child moves through four states: it runs; it ends when its result has arrived, its process has exited or its deadline
has passed; it then has a few seconds to exit by itself; after that its process group is killed, after a success too.
"""

import contextlib
import ctypes
import json
import math
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Protocol
from uuid import uuid4

from bench.core.errors import last_line
from bench.core.import_path import child_environment

REPLY_FD = "VBENCH_REPLY_FD"  # environment variable: the descriptor on which a child replies
PARENT_PID = "VBENCH_PARENT_PID"  # environment variable: the process whose end is the child's end too
LINEAGE = "VBENCH_LINEAGE"  # environment variable: one token for each supervised ancestor, to find what they left
PR_SET_PDEATHSIG = 1  # linux/prctl.h
GRACE_S = 3.0  # between a child's result and the end of its process group: buffers are flushed, devices closed
START_S = 60.0  # for a child to read a first request that is longer than a pipe holds
COMPANION_S = 60.0  # after a rank has died: the others notice within half a minute, and say it better
POLL_S = 0.05  # between two looks at the process on systems without pidfd_open
BLOCK = 1 << 16
LOG_HEAD_BYTES, LOG_TAIL_BYTES = 4 << 20, 1 << 18  # what a log keeps of the beginning and of the end
LAST_BYTES = 8192  # what is kept in memory for the error message

Sink = Callable[[bytes], None]


class Process(Protocol):
    """What the supervisor uses of `subprocess.Popen`; its session is its own."""

    @property
    def pid(self) -> int: ...

    @property
    def returncode(self) -> int | None: ...

    @property
    def stdin(self) -> IO[bytes] | None: ...

    @property
    def stdout(self) -> IO[bytes] | None: ...

    @property
    def stderr(self) -> IO[bytes] | None: ...

    def send_signal(self, number: int, /) -> None: ...

    def wait(self, timeout: float | None = None) -> int: ...


class ChildTimeoutError(Exception):
    """The child had no result at its deadline."""


class BoundedLog:
    """Appends to a log file, but keeps only the first 4 MiB and the last 256 KiB of what is written.

    A write error (a full disk) stops the log, not the run: the record of the case matters more.
    """

    def __init__(self, path: Path, *, head_bytes: int = LOG_HEAD_BYTES, tail_bytes: int = LOG_TAIL_BYTES) -> None:
        self.head_left, self.tail_bytes = head_bytes, tail_bytes
        self._tail: deque[bytes] = deque()
        self._tail_size = self._dropped = 0
        self._file: IO[bytes] | None = None
        with contextlib.suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("ab", buffering=0)

    def write(self, block: bytes) -> None:
        head, rest = block[: self.head_left], block[self.head_left :]
        self.head_left -= len(head)
        self._append(head)
        if rest:
            self._tail.append(rest)
            self._tail_size += len(rest)
        while self._tail and self._tail_size - len(self._tail[0]) >= self.tail_bytes:
            dropped = len(self._tail.popleft())
            self._tail_size -= dropped
            self._dropped += dropped

    def close(self) -> None:
        if self._dropped:
            self._append(b"\n[... %d bytes left out ...]\n" % self._dropped)
        self._append(b"".join(self._tail))
        if self._file is not None:
            self._file.close()
        self._file = None

    def _append(self, block: bytes) -> None:
        if self._file is None or not block:
            return
        try:
            self._file.write(block)
        except OSError:
            self._file.close()
            self._file = None


class LastBytes:
    """Keeps the end of a stream in memory."""

    def __init__(self, limit: int = LAST_BYTES) -> None:
        self.limit = limit
        self._content = bytearray()

    def write(self, block: bytes) -> None:
        self._content += block
        if len(self._content) > 2 * self.limit:  # not at every block, which would copy all of it each time
            del self._content[: -self.limit]

    @property
    def content(self) -> bytes:
        return bytes(self._content[-self.limit :])

    def text(self) -> str:
        return self.content.decode(errors="replace")


class SupervisedProcess:
    """A process with its own process group, whose output is drained while it is watched.

    `stdout` and `stderr` receive what it prints; without `stderr`, both streams go to `stdout`. `stdin` is what it
    reads, or None for a pipe that `send` writes to. `start` takes the arguments of `subprocess.Popen`. Leaving the
    `with` block ends the process and everything that it started.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        stdin: bytes | None = b"",
        stdout: Sink | None = None,
        stderr: Sink | None = None,
        environment: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        pass_fds: Sequence[int] = (),
        start: Callable[..., "Process"] | None = None,
    ) -> None:
        inherited = os.environ if environment is None else environment
        self.token = uuid4().hex
        lineage = f"{inherited.get(LINEAGE, '')}:{self.token}"
        self._merged = subprocess.STDOUT if stdout is not None else subprocess.DEVNULL
        with _input_file(stdin) as source:
            self.process = (start or subprocess.Popen)(
                list(command),
                stdin=source,
                stdout=subprocess.DEVNULL if stdout is None else subprocess.PIPE,
                stderr=self._merged if stderr is None else subprocess.PIPE,
                env={**inherited, LINEAGE: lineage, PARENT_PID: str(os.getpid())},
                cwd=cwd,
                pass_fds=tuple(pass_fds),
                start_new_session=True,
            )
        self._sinks: dict[int, Sink] = {}
        for stream, sink in ((self.process.stdout, stdout), (self.process.stderr, stderr)):
            if stream is not None and sink is not None:
                self._drain_into(stream.fileno(), sink)
        self._pidfd = _pidfd_of(self.process.pid)
        self._has_reported_exit = False
        self._is_ended = False
        self.was_killed = False  # by us, since it did not exit by itself

    def _drain_into(self, descriptor: int, sink: Sink) -> None:
        os.set_blocking(descriptor, False)
        self._sinks[descriptor] = sink

    @property
    def has_exited(self) -> bool:
        """Whether the process has ended. It is not reaped, so that its number still names its group."""
        if self.process.returncode is not None:
            return True
        if self._pidfd is not None:  # it may be the child of another process
            exited = select.poll()
            exited.register(self._pidfd, select.POLLIN)
            return bool(exited.poll(0))
        try:
            return os.waitid(os.P_PID, self.process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
        except ChildProcessError:
            return True

    def watch(self, timeout_s: float, *, companions: Sequence["SupervisedProcess"] = ()) -> None:
        """Wait until something happens, for at most `timeout_s`: output, a reply, or the end of a process.

        The output of `companions` is drained too, so that none of them blocks on a full pipe.
        """
        watched = (self, *companions)
        owners = {descriptor: one for one in watched for descriptor in one._descriptors()}
        longest = POLL_S if any(one._pidfd is None for one in watched) else 3600.0
        poll = select.poll()  # not select, which takes no descriptor above 1023
        for descriptor in owners:
            poll.register(descriptor, select.POLLIN)
        for descriptor, _ in poll.poll(1000 * max(0.0, min(timeout_s, longest))):
            owners[descriptor]._read(descriptor)

    def _descriptors(self) -> list[int]:
        watched = list(self._sinks)
        # Until its end was reported once: a process may exit after the caller saw it running, and nothing else wakes.
        return watched if self._pidfd is None or self._has_reported_exit else [*watched, self._pidfd]

    def _read(self, descriptor: int) -> bool:
        """Hand one block on to its sink; False if there is none now or the stream has ended."""
        if descriptor == self._pidfd:
            self._has_reported_exit = True
            return False
        sink = self._sinks.get(descriptor)
        if sink is None:
            return False
        try:
            block = os.read(descriptor, BLOCK)
        except BlockingIOError:
            return False
        if block:
            sink(block)
        else:
            del self._sinks[descriptor]
        return bool(block)

    def _drain_rest(self) -> None:
        """Read what is left in the pipes. A process that was forked and lives on may hold them open for ever."""
        for descriptor in list(self._sinks):
            for _ in range(4 * LOG_TAIL_BYTES // BLOCK):
                if not self._read(descriptor):
                    break

    def send(self, line: bytes, *, timeout_s: float) -> None:
        """Write `line` to the standard input of a process that was started with `stdin=None`.

        A process that has ended gets nothing. Raises ChildTimeoutError if `line` is not read within `timeout_s`.
        """
        assert self.process.stdin is not None
        descriptor, deadline = self.process.stdin.fileno(), time.monotonic() + timeout_s
        os.set_blocking(descriptor, False)
        left = memoryview(line)
        with contextlib.suppress(BrokenPipeError):
            while left and not self.has_exited:
                if time.monotonic() >= deadline:
                    raise ChildTimeoutError
                try:
                    left = left[os.write(descriptor, left) :]
                except BlockingIOError:
                    self.watch(POLL_S)  # drains its output: it may be blocked by a full pipe of its own

    def interrupt(self) -> None:
        """Ask the process to stop, as Ctrl-C does; processes that it started are not asked."""
        if not self.has_exited:
            self.process.send_signal(signal.SIGINT)

    def kill(self) -> None:
        """Kill the process and everything that it started."""
        self.end(within_s=0.0)

    def end(self, *, within_s: float = GRACE_S) -> int:
        """Give the process `within_s` to exit, kill its group and what left the group; returns its exit code."""
        if self._is_ended:
            return self._exit_code
        deadline = time.monotonic() + within_s
        while not self.has_exited and (left := deadline - time.monotonic()) > 0:
            self.watch(left)
        self.was_killed = not self.has_exited
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):  # in a system call that nothing can interrupt
            self.process.wait(10)
        self._drain_rest()
        kill_processes_with(self.token)
        self._close()
        return self._exit_code

    @property
    def _exit_code(self) -> int:
        return -signal.SIGKILL if self.process.returncode is None else self.process.returncode

    def _close(self) -> None:
        self._is_ended = True
        self._sinks.clear()
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            if stream is not None:
                stream.close()
        if self._pidfd is not None:
            os.close(self._pidfd)
            self._pidfd = None

    def __enter__(self) -> "SupervisedProcess":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end(within_s=GRACE_S if kind is None else 0.0)


@dataclass(frozen=True, kw_only=True)
class Finished:
    """What came of a process that has ended: its exit code and the end of what it printed."""

    returncode: int
    output: bytes
    stderr: str

    @property
    def stdout(self) -> str:
        return self.output.decode(errors="replace")


def run_supervised(
    command: Sequence[str],
    *,
    timeout_s: float,
    stdin: bytes = b"",
    environment: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    limit_bytes: int = 16 << 20,
) -> Finished:
    """Run `command` to its end and return its output, the last `limit_bytes` of each stream.

    Raises ChildTimeoutError if it has not ended after `timeout_s`, OSError if it cannot be started.
    """
    stdout, stderr = LastBytes(limit_bytes), LastBytes(limit_bytes)
    deadline = time.monotonic() + timeout_s
    with SupervisedProcess(
        command, stdin=stdin, stdout=stdout.write, stderr=stderr.write, environment=environment, cwd=cwd
    ) as process:
        while not process.has_exited:
            if (left := deadline - time.monotonic()) <= 0:
                raise ChildTimeoutError
            process.watch(left)
        code = process.end(within_s=0.0)
    return Finished(returncode=code, output=stdout.content, stderr=stderr.text())


class ChildProcess(SupervisedProcess):
    """`python -m module`, given one JSON request, which replies with JSON lines on a pipe of its own.

    `module` may be `module:function`, see `bench.core.child_main`. The child is spawned, never forked from a process
    that may hold a device. What it prints goes to the file `log`, or is dropped but for the end of standard error. With
    `takes_more`, `ask` sends further requests, which the child reads with `read_requests`.
    """

    def __init__(
        self,
        module: str,
        request: Any,
        *,
        log: Path | None = None,
        environment: Mapping[str, str] | None = None,
        takes_more: bool = False,
        start: Callable[..., "Process"] | None = None,
    ) -> None:
        inherited = child_environment(os.environ if environment is None else environment)
        self._reply, write = os.pipe()
        self._log = None if log is None else BoundedLog(log)
        self._last, self._rest, self._inbox = LastBytes(), b"", deque[dict[str, Any]]()
        try:
            super().__init__(
                [sys.executable, "-m", "bench.core.child_main", module],
                stdin=None if takes_more else json.dumps(request).encode(),
                stdout=None if log is None else self._printed,
                stderr=self._printed if log is None else None,
                environment={**inherited, REPLY_FD: str(write), "PYTHONUNBUFFERED": "1"},
                pass_fds=(write,),
                start=start,
            )
        except BaseException:
            os.close(self._reply)
            raise
        finally:
            os.close(write)
        self._drain_into(self._reply, self._received)
        if takes_more:
            self.send(json.dumps(request).encode() + b"\n", timeout_s=START_S)

    def messages(
        self, *, timeout_s: float | None = None, companions: Sequence["ChildProcess"] = ()
    ) -> Iterator[dict[str, Any]]:
        """Yield each message of the child until it ends; ChildTimeoutError at the deadline.

        After an exception, such as KeyboardInterrupt, `messages` may be called again and goes on. The end of a process
        in `companions` that fails ends the messages too, after a minute in which this one may say why.
        """
        deadline = math.inf if timeout_s is None else time.monotonic() + timeout_s
        last_chance = math.inf
        while True:
            while self._inbox:
                yield self._inbox.popleft()
            if self.has_exited or self._reply not in self._sinks or time.monotonic() >= last_chance:
                self.end(within_s=0.0 if time.monotonic() >= last_chance else GRACE_S)
                yield from self._inbox
                return
            if time.monotonic() >= deadline:
                raise ChildTimeoutError
            if last_chance == math.inf and any(map(_has_failed, companions)):
                last_chance = time.monotonic() + COMPANION_S
            self.watch(min(deadline, last_chance) - time.monotonic(), companions=companions)

    def ask(self, request: Any, *, timeout_s: float) -> dict[str, Any] | None:
        """The reply to a further request; None if the child ends without one, ChildTimeoutError at the deadline."""
        deadline = time.monotonic() + timeout_s
        self.send(json.dumps(request).encode() + b"\n", timeout_s=timeout_s)
        return next(self.messages(timeout_s=deadline - time.monotonic()), None)

    def _received(self, block: bytes) -> None:
        *lines, self._rest = (self._rest + block).split(b"\n")
        self._inbox.extend(json.loads(line) for line in lines)

    def _printed(self, block: bytes) -> None:
        self._last.write(block)
        if self._log is not None:
            self._log.write(block)

    def last_output(self, *, lines: int = 20) -> str:
        """The last lines that the child printed: on standard error, and with a log on standard output as well."""
        return "\n".join(self._last.text().splitlines()[-lines:])

    def last_error(self) -> str:
        """The last line that the child printed, which is where an error message stands."""
        return last_line(self._last.text(), otherwise="")

    def _close(self) -> None:
        super()._close()
        os.close(self._reply)
        if self._log is not None:
            self._log.close()

    def __enter__(self) -> "ChildProcess":
        return self


def _has_failed(process: SupervisedProcess) -> bool:
    return process.has_exited and process.end(within_s=0.0) != 0


@contextlib.contextmanager
def _input_file(content: bytes | None) -> Iterator[IO[bytes] | int]:
    """A file with `content` at its beginning: unlike a pipe, it never blocks if the child does not read it."""
    if not content:
        yield subprocess.PIPE if content is None else subprocess.DEVNULL
        return
    with memory_file() as file:
        file.write(content)
        file.seek(0)
        yield file


def memory_file() -> IO[bytes]:
    """A file that needs no disk, where the system has such."""
    if hasattr(os, "memfd_create"):
        with contextlib.suppress(OSError):
            return os.fdopen(os.memfd_create("vbench-request"), "w+b", buffering=0)
    return tempfile.TemporaryFile(buffering=0)  # closed by the caller


def _pidfd_of(pid: int) -> int | None:
    if not hasattr(os, "pidfd_open"):
        return None
    try:
        return os.pidfd_open(pid)
    except OSError:  # kernels before 5.3 and some sandboxes
        return None


def kill_processes_with(token: str, *, but: int | None = None) -> None:
    """Kill what left the group of its ancestor, found by the token in its environment (Linux), and wait for its end.

    A killed process takes a moment to end, and must not run during the next timed case. The process `but` is spared.
    """
    deadline = time.monotonic() + GRACE_S
    while (pids := [pid for pid in _processes_with(token.encode()) if pid != but]) and time.monotonic() < deadline:
        for pid in pids:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.01)


def _processes_with(token: bytes) -> list[int]:
    found = []
    pids = [int(name) for name in os.listdir("/proc") if name.isdecimal()] if sys.platform == "linux" else []
    for pid in pids:
        with contextlib.suppress(OSError):
            if pid != os.getpid() and token in Path(f"/proc/{pid}/environ").read_bytes():
                found.append(pid)
    return found


def die_with_parent() -> None:
    """Let the kernel kill this process when its parent dies (Linux); ends at once if the parent is dead already."""
    if sys.platform != "linux":
        return
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    parent = os.environ.pop(PARENT_PID, None)  # names the parent of this process, not that of its own children
    if parent is not None and os.getppid() != int(parent):
        os._exit(1)


def read_request() -> Any:
    """In the child: the request of its parent."""
    return json.loads(sys.stdin.buffer.read())


def read_requests() -> Iterator[Any]:
    """In a child that was started with `takes_more`: each request of its parent, the first one included."""
    return map(json.loads, iter(sys.stdin.buffer.readline, b""))


class ReplyPipe:
    """In the child: sends messages to the parent. Standard output stays free for what models print."""

    def __init__(self) -> None:
        descriptor = int(os.environ.pop(REPLY_FD))
        os.set_inheritable(descriptor, False)  # programs that a model starts must not keep the pipe open
        self._file = os.fdopen(descriptor, "wb")

    def send(self, **message: Any) -> None:
        self._file.write(json.dumps(message).encode() + b"\n")
        self._file.flush()


def tail(path: Path, *, lines: int = 20) -> str:
    """The last lines of a log file; empty if there is none."""
    if not path.is_file():
        return ""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - LAST_BYTES))
        return "\n".join(file.read().decode(errors="replace").splitlines()[-lines:])
