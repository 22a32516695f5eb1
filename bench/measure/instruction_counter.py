"""Counts the instructions of a piece of work: by the processor's own counter, else in valgrind, in a child process.

The child is single-threaded, and its instructions in the kernel are not counted. A process that waits for a processor
executes nothing, so that other processes change neither count; they do change time.
"""

import ctypes
import errno
import fcntl
import mmap
import os
import platform
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Literal, Protocol

from bench.core.process import ReplyPipe, read_request

if TYPE_CHECKING:
    from bench.measure.context import CaseContext

Tool = Literal["perf", "callgrind"]
PERF_EVENT_OPEN = {"x86_64": 298, "aarch64": 241}  # numbers of the system call
TYPE_HARDWARE, INSTRUCTIONS = 0, 1  # linux/perf_event.h
PINNED, EXCLUDE_KERNEL, EXCLUDE_HYPERVISOR = 1 << 2, 1 << 5, 1 << 6  # pinned: never shared with other events
CLOSE_ON_EXEC = 8
ENABLE, DISABLE, RESET = 0x2400, 0x2401, 0x2403
PARANOID = Path("/proc/sys/kernel/perf_event_paranoid")
# valgrind/callgrind.h: requests to callgrind, made by a sequence of instructions that does nothing on a processor.
DUMP, ZERO, START = 0x43540000, 0x43540001, 0x43540004
SEQUENCE = bytes.fromhex("4889f8 4889f2 48c1c703 48c1c70d 48c1c73d 48c1c733 4887db 4889d0 c3")
DUMPS = "VBENCH_CALLGRIND_DUMPS"  # environment variable: the file after which callgrind names its dumps
WARM_PASSES = 2


class CannotCountError(Exception):
    """Instructions cannot be counted; the message is one line that says why and what would help."""


@dataclass(frozen=True, kw_only=True)
class Counts:
    """The instructions of each pass, and what counted them."""

    passes: tuple[int, ...]
    tool: Tool


class Counter(Protocol):
    """What the child counts with. `start` comes before the first pass."""

    def start(self) -> None: ...

    def count(self, work: Callable[[], object]) -> int: ...


class PerfCounter:
    """Counts instructions of this thread in user space with `perf_event_open`, as `perf stat -e instructions:u` does.

    Raises CannotCountError if the processor, the machine that it is simulated by, or the kernel's settings refuse that.
    """

    def __init__(self, *, kind: int = TYPE_HARDWARE, event: int = INSTRUCTIONS) -> None:
        number = PERF_EVENT_OPEN.get(platform.machine()) if sys.platform == "linux" else None
        if number is None:
            raise CannotCountError("the processor's counter is read on Linux on x86-64 and ARM64 only")
        attributes = struct.pack("IIQQQQQ", kind, 112, event, 0, 0, 0, PINNED | EXCLUDE_KERNEL | EXCLUDE_HYPERVISOR)
        buffer = ctypes.create_string_buffer(attributes.ljust(112, b"\0"))
        system = ctypes.CDLL(None, use_errno=True)
        self._file = system.syscall(ctypes.c_long(number), buffer, 0, -1, -1, CLOSE_ON_EXEC)
        if self._file < 0:
            raise CannotCountError(_why_refused(ctypes.get_errno()))

    def start(self) -> None:
        """Nothing: the counter runs only during `count`."""

    def count(self, work: Callable[[], object]) -> int:
        """Return the instructions of `work`."""
        fcntl.ioctl(self._file, RESET, 0)
        fcntl.ioctl(self._file, ENABLE, 0)
        work()
        fcntl.ioctl(self._file, DISABLE, 0)
        found = os.read(self._file, 8)
        if len(found) < 8:
            raise CannotCountError("the processor's counters are all in use by another program")
        return int(struct.unpack("Q", found)[0])


class CallgrindCounter:
    """Counts instructions in a process that runs in valgrind's callgrind, started with `--instr-atstart=no`."""

    def __init__(self, dumps: Path) -> None:
        self._dumps, self._number = dumps, 0
        self._page = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
        self._page.write(SEQUENCE)
        address = ctypes.addressof(ctypes.c_char.from_buffer(self._page))
        self._call = ctypes.CFUNCTYPE(ctypes.c_uint64, ctypes.c_void_p, ctypes.c_uint64)(address)

    def start(self) -> None:
        """Count from here on. Nothing before it is counted, which would make the imports ten times slower."""
        self._request(START)

    def count(self, work: Callable[[], object]) -> int:
        """Return the instructions of `work`, and some ten thousand of the calls around it."""
        self._request(ZERO)
        work()
        self._request(DUMP)
        self._number += 1
        return total_of(self._dumps.with_name(f"{self._dumps.name}.{self._number}").read_text(encoding="utf-8"))

    def _request(self, code: int) -> None:
        arguments = (ctypes.c_uint64 * 6)(code)
        self._call(ctypes.addressof(arguments), 0)


def total_of(dump: str) -> int:
    """Return the number of instructions in a dump of callgrind."""
    line = next(line for line in dump.splitlines() if line.startswith("totals:"))
    return int(line.split()[1])


def _why_refused(number: int) -> str:
    if number in (errno.EACCES, errno.EPERM):
        level = PARANOID.read_text().strip() if PARANOID.is_file() else "unknown"
        return f"the kernel forbids it: perf_event_paranoid is {level}, and 2 or less is needed"
    if number in (errno.ENOENT, errno.EOPNOTSUPP, errno.ENODEV):
        return "this processor has no counter that this system can read, as in most virtual machines"
    return f"the kernel refuses it: {os.strerror(number)}"


def count_passes(case: "CaseContext", *, passes: int, timeout_s: float) -> Counts:
    """Count the instructions of `passes` forward passes of `case` on the CPU, one by one, in a child process.

    Raises CannotCountError if this machine has neither a counter that may be read nor valgrind, and InputError if the
    child ends without a result or is not done after `timeout_s`.
    """
    from bench.measure.timing.case_process import case_request, run_in_child

    request = {**case_request(case), "device": "cpu", "passes": passes}
    environment = {"OMP_NUM_THREADS": "1", "PYTHONHASHSEED": "0"}
    options: dict[str, Any] = {"timeout_s": timeout_s, "what": "process whose instructions are counted"}
    function = f"{__name__}:reply_with_counts"
    try:
        PerfCounter()
    except CannotCountError as refused:
        valgrind = shutil.which("valgrind")
        if valgrind is None or platform.machine() != "x86_64":
            where = "" if platform.machine() == "x86_64" else ", which is used on x86-64 only"
            raise CannotCountError(f"{refused}; without it, valgrind is needed{where}") from None
        with TemporaryDirectory(prefix="vbench-callgrind-") as folder:
            dumps = f"{folder}/dump"
            tool = [valgrind, "-q", "--tool=callgrind", "--instr-atstart=no", f"--callgrind-out-file={dumps}"]

            def start(command: list[str], **rest: Any) -> "subprocess.Popen[bytes]":
                return subprocess.Popen([*tool, *command], **rest)

            found = run_in_child(function, request, environment={**environment, DUMPS: dumps}, start=start, **options)
    else:
        found = run_in_child(function, request, environment=environment, **options)
    if "problem" in found:
        raise CannotCountError(found["problem"])
    return Counts(passes=tuple(found["passes"]), tool=found["tool"])


def reply_with_counts() -> None:
    """In the child: reply with the instructions of each pass after two that load and allocate."""
    request, reply = read_request(), ReplyPipe()
    dumps = os.environ.get(DUMPS)
    import gc

    import torch

    from bench.measure.timing.case_process import case_from_request
    from bench.measure.timing.forward import prepare_model

    case = case_from_request(request)
    torch.set_num_threads(1)
    forward = prepare_model(case).forward(case.point.batch or 1)
    counter: Counter = PerfCounter() if dumps is None else CallgrindCounter(Path(dumps))
    gc.disable()  # a collection would fall into some passes and not into others
    counter.start()
    try:
        for _ in range(WARM_PASSES):
            counter.count(forward)
        found = [counter.count(forward) for _ in range(request["passes"])]
    except CannotCountError as error:
        reply.send(problem=str(error))
    else:
        reply.send(passes=found, tool="perf" if dumps is None else "callgrind")
