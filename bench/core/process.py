"""A child process that is asked one thing: JSON on its standard input, JSON lines back on a pipe of its own."""

import contextlib
import ctypes
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from bench.core.errors import last_line
from bench.core.import_path import child_environment

PIPE = "VBENCH_REPLY_FD"
PR_SET_PDEATHSIG = 1


class ChildTimeoutError(Exception):
    """The child said nothing final before its deadline and was killed."""


class Child:
    """`python -m module`, spawned (never forked from a process that holds a device), with its own process group.

    What it prints goes to `log`; what it replies comes out of `messages()`. Leaving the block kills it.
    """

    def __init__(
        self,
        module: str,
        request: Any,
        *,
        log: IO[bytes] | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._read, write = os.pipe()
        output: IO[bytes] | int = subprocess.DEVNULL if log is None else log
        inherited = os.environ if environment is None else environment
        try:
            self.process = subprocess.Popen(
                [sys.executable, "-m", module],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.PIPE if log is None else subprocess.STDOUT,
                pass_fds=(write,),
                env={**child_environment(inherited), PIPE: str(write), "PYTHONUNBUFFERED": "1"},
                start_new_session=True,
            )
        finally:
            os.close(write)
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(json.dumps(request).encode())
            self.process.stdin.close()

    def messages(self, *, timeout_s: float | None = None) -> Iterator[dict[str, Any]]:
        """Each JSON line the child sends, until it closes its pipe; ChildTimeoutError at the deadline."""
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        rest = b""
        while True:
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                raise ChildTimeoutError
            ready, _, _ = select.select([self._read], [], [], left)
            if not ready:
                continue
            block = os.read(self._read, 1 << 16)
            if not block:
                return
            *lines, rest = (rest + block).split(b"\n")
            for line in lines:
                message: dict[str, Any] = json.loads(line)
                yield message

    def complaint(self) -> str:
        """The last line of what the child wrote to standard error, where that was not sent to a log."""
        if self.process.stderr is None:
            return ""
        return last_line(self.process.stderr.read().decode(errors="replace"), otherwise="")

    def __enter__(self) -> "Child":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self.kill()
        self.process.wait()
        os.close(self._read)
        if self.process.stderr is not None:
            self.process.stderr.close()

    def end(self, *, within_s: float) -> None:
        """Wait for the child to end by itself, and kill it where it does not."""
        try:
            self.process.wait(within_s)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """End the child and everything it started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)


def request() -> Any:
    """In the child: what it was asked. From here on it dies when its parent dies."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    return json.loads(sys.stdin.buffer.read())


class Reply:
    """In the child: the way back to the parent. Standard output stays free for the model's own prints."""

    def __init__(self) -> None:
        # A descriptor that grandchildren inherited would keep the parent waiting after this process is gone.
        descriptor = int(os.environ.pop(PIPE))
        os.set_inheritable(descriptor, False)
        self._file = os.fdopen(descriptor, "wb")

    def send(self, **message: Any) -> None:
        self._file.write(json.dumps(message).encode() + b"\n")
        self._file.flush()


def tail(path: Path, *, lines: int = 20) -> str:
    """The last lines of a log file, for the record of a child that died."""
    if not path.is_file():
        return ""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 8192))
        return "\n".join(file.read().decode(errors="replace").splitlines()[-lines:])
