"""The processes that share a case: one, several started here (`ranks: 2`), or one by each of torchrun's launchers.

Under torchrun every rank is a `vbench` that starts the workers of its own rank. The first plans, records and reports;
the others wait for its calls, one for each case that is shared, and end with its exit code.
"""

import json
import os
import socket
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from bench.core.errors import InputError, TrainingError
from bench.core.process import Child
from bench.core.registry import MEASURES
from bench.core.schema import Case

if TYPE_CHECKING:
    from torch.distributed.distributed_c10d import Store

PLACE = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_RANK", "MASTER_ADDR", "MASTER_PORT")
WAIT_S, FAREWELL_S = 60.0, 20.0
Environment = dict[str, str]


def is_shared(case: Case) -> bool:
    """Whether several processes can take a measure of this case together."""
    return any(MEASURES.get(name).is_shared for name in case.measures)


def launchers() -> int:
    """How many `vbench` were started together, by torchrun or whatever else sets WORLD_SIZE."""
    said = os.environ.get("WORLD_SIZE") or "1"
    if not said.isdigit():
        raise InputError(f"WORLD_SIZE is {said!r}; it says how many processes there are, such as 2")
    return int(said)


def together(run: Callable[[], int]) -> int:
    """The exit code of `run`, which of several launchers the first alone runs; the others lend it their ranks."""
    if launchers() < 2:
        return run()
    missing = [name for name in ("RANK", "MASTER_ADDR", "MASTER_PORT") if name not in os.environ]
    if missing:
        raise InputError(
            f"WORLD_SIZE says {launchers()} processes, but {' and '.join(missing)} is not set; start vbench with "
            "torchrun, or unset WORLD_SIZE"
        )
    meeting = _Meeting(is_first=os.environ["RANK"] == "0")
    if os.environ["RANK"] != "0":
        return _follow(meeting)
    code = 70
    try:
        with _leading(meeting):
            code = run()
    finally:
        meeting.end(code)
    return code


@contextmanager
def worker_processes(case: Case, job: Mapping[str, Any], *, log: Path) -> Iterator[Child]:
    """The worker that reports on `job`, and beside it, for as long as the block lasts, those that share it.

    Each has a log of its own beside `log`. When the block ends, all of them have ended.
    """
    with ExitStack() as stack:
        first, *others = (
            stack.enter_context(_started(job, environment, log=_log_of(log, rank)))
            for rank, environment in enumerate(_environments(case, job))
        )
        yield first
        for other in others:
            other.end(within_s=FAREWELL_S)


def _environments(case: Case, job: Mapping[str, Any]) -> list[Environment]:
    """One for each worker that is started here."""
    own = {name: value for name, value in os.environ.items() if name not in PLACE}
    if not is_shared(case):
        return [own]
    if launchers() > 1:
        assert _Meeting.led is not None, "several launchers run a command that they cannot share"
        return [_answering(_Meeting.led.call(job))]
    shared = [options for name, options in case.measures.items() if MEASURES.get(name).is_shared]
    world = max(int(str(options.get("ranks") or 1)) for options in shared)
    return [own] if world == 1 else _of_ranks(own, world=world)


def _answering(call: str) -> Environment:
    from bench.train.ranks import CALL

    return {**os.environ, CALL: call}


def _of_ranks(environment: Environment, *, world: int) -> list[Environment]:
    """`world` places on this machine, which share its cores."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {"WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    usual = {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // world))}
    if sys.platform == "linux":
        usual["GLOO_SOCKET_IFNAME"] = "lo"
    return [{**usual, **environment, **shared, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(world)]


@contextmanager
def _started(job: Mapping[str, Any], environment: Environment, *, log: Path) -> Iterator[Child]:
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output, Child("bench.runner.worker", job, log=output, environment=environment) as child:
        yield child


def _log_of(log: Path, rank: int) -> Path:
    return log.with_suffix(f".rank{rank}.log") if rank else log


@dataclass(kw_only=True)
class _Meeting:
    """What the launchers say to each other, over the store that torchrun, or else the first of them, holds."""

    led: ClassVar["_Meeting | None"] = None  # what `worker_processes` calls the other launchers through
    is_first: bool
    calls: int = 0
    store: "Store" = field(init=False)

    def __post_init__(self) -> None:
        from bench.train.ranks import rendezvous

        self.store = rendezvous("launchers", timeout_s=WAIT_S, holds=self.is_first)

    def call(self, job: Mapping[str, Any]) -> str:
        """Have every other launcher start its worker of `job`; returns the name of the call."""
        return self._say({"job": dict(job)})

    def end(self, code: int) -> None:
        """Let the others end with `code`, and wait a while until they know of it."""
        self._say({"exit": code})
        names = [f"left/{rank}" for rank in range(1, launchers())]
        _wait(self.store, names, seconds=FAREWELL_S)

    def next(self) -> tuple[str, dict[str, Any]]:
        """The next call, its name and what it says, whenever it comes; TrainingError where the first is gone."""
        name = str(self.calls)
        try:
            while not _wait(self.store, [name], seconds=WAIT_S):
                pass
            said: dict[str, Any] = json.loads(self.store.get(name))
        except RuntimeError as error:
            raise TrainingError(
                f"rank 0 of {launchers()} died, or its launcher: the store is not there any more"
            ) from error
        self.calls += 1
        return name, said

    def _say(self, what: dict[str, Any]) -> str:
        name = str(self.calls)
        self.store.set(name, json.dumps(what))
        self.calls += 1
        return name


@contextmanager
def _leading(meeting: _Meeting) -> Iterator[None]:
    _Meeting.led = meeting
    try:
        yield
    finally:
        _Meeting.led = None


def _wait(store: "Store", names: list[str], *, seconds: float) -> bool:
    """Whether all of `names` were there in time; RuntimeError where the store is not there any more."""
    from torch.distributed import DistStoreError

    try:
        store.wait(names, timedelta(seconds=seconds))
    except DistStoreError:
        return False
    return True


def _follow(meeting: _Meeting) -> int:
    """Start this rank's worker for every call, until the first launcher ends; its exit code."""
    rank = int(os.environ["RANK"])
    while True:
        name, said = meeting.next()
        if "exit" in said:
            meeting.store.set(f"left/{rank}", "")
            return int(said["exit"])
        log = _log_of(Path(said["job"]["log"]), rank)
        with _started(said["job"], _answering(name), log=log) as child:
            for _ in child.messages():
                pass
