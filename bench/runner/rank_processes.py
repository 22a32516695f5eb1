"""The worker processes of a case: one, several ranks started here (`ranks: 2`), or one per launcher of torchrun.

Under torchrun every rank is a `vbench` that starts the worker of its own rank. The first one plans, records and
reports; the others wait for its calls, one for each case that is shared, and end with its exit code. Executors start
workers over several nodes in the same way; a file in the results folder takes the place of torchrun's rendezvous.
"""

import json
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar

from bench.core.cpus import usable_cpus
from bench.core.errors import InputError, TrainingError
from bench.core.files import write_atomically
from bench.core.host_address import reachable_name
from bench.core.process import ChildProcess, Process
from bench.core.rank_layout import RankLayout
from bench.core.schema import Case
from bench.core.units import plural
from bench.runner.job_kind import is_shared, rank_layout

if TYPE_CHECKING:
    from torch.distributed.distributed_c10d import Store

RANK_VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_RANK", "MASTER_ADDR", "MASTER_PORT")
WAIT_S, LEAVE_S, BEAT_S = 60.0, 20.0, 5.0
RENDEZVOUS = "VBENCH_RENDEZVOUS"  # environment variable: the file by which the launchers of an executor meet
JOIN_S, POLL_S = 300.0, 0.5  # nodes of a job may start minutes apart; NFS may hide a new file for up to 60 s
Variables = dict[str, str]


@dataclass(frozen=True, kw_only=True)
class WorkerGroup:
    """The worker that reports on a case, and the other ranks that share it."""

    first: ChildProcess
    others: tuple[ChildProcess, ...] = ()


def launcher_count() -> int:
    """How many `vbench` processes were started together, by torchrun or whatever else sets WORLD_SIZE."""
    given = os.environ.get("WORLD_SIZE") or "1"
    if not given.isdecimal():
        raise InputError(f"WORLD_SIZE is {given!r}; it should be a number of processes, such as 2")
    return int(given)


def run_on_first_launcher(run: Callable[[], int]) -> int:
    """Call `run` on the first launcher and return its exit code on all; the others run worker processes for it."""
    if launcher_count() < 2:
        return run()
    file = os.environ.pop(RENDEZVOUS, None)
    if file is not None:
        find_first_launcher(Path(file))
    missing = [name for name in ("RANK", "MASTER_ADDR", "MASTER_PORT") if name not in os.environ]
    if missing:
        raise InputError(
            f"WORLD_SIZE is {launcher_count()}, but {' and '.join(missing)} is not set; start vbench with "
            "torchrun, or unset WORLD_SIZE"
        )
    calls = _LauncherCalls(is_first=os.environ["RANK"] == "0")
    if os.environ["RANK"] != "0":
        return _follow(calls)
    if file is not None:  # torchrun waits itself
        calls.await_others()
    code = 70
    try:
        with _leading(calls):
            code = run()
    finally:
        calls.end(code)
    return code


def find_first_launcher(file: Path) -> None:
    """Set the variables with the address of the first launcher, and the usual number of threads of a rank.

    The first launcher writes its host and a free port to `file`, in a folder that all nodes share; the others read
    them there. Raises TrainingError if the file does not appear within five minutes.
    """
    if os.environ["RANK"] == "0":
        import bench.train.ranks  # noqa: F401  # before others try to connect: it may take minutes

        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(file, json.dumps({"host": reachable_name(), "port": _free_port("")}))
    deadline = time.monotonic() + JOIN_S
    while not file.is_file():
        if time.monotonic() > deadline:
            raise TrainingError(f"rank 0 of {launcher_count()} did not start within {JOIN_S:.0f} s: there is no {file}")
        time.sleep(POLL_S)
    address = json.loads(file.read_text(encoding="utf-8"))
    os.environ |= {"MASTER_ADDR": address["host"], "MASTER_PORT": str(address["port"])}
    os.environ.setdefault("OMP_NUM_THREADS", _threads_of(int(os.environ["LOCAL_WORLD_SIZE"])))


@contextmanager
def worker_processes(
    case: Case,
    request: Mapping[str, Any],
    *,
    log: Path,
    start: Callable[..., Process] | None = None,
    variables: Mapping[str, str] = MappingProxyType({}),
) -> Iterator[WorkerGroup]:
    """Start the worker of a case and the ranks that share it; all of them have ended when the block ends.

    Each rank but the first writes a log of its own, named after `log`. `start` starts the worker of a case that no
    ranks share. `variables` are added to the environment of each.
    """
    ranks = [{**given, **variables} for given in _variables_of_ranks(case, request)]
    with ExitStack() as stack:
        first, *others = (
            stack.enter_context(
                _start_worker(request, environment, log=_log_of(log, rank), start=start if len(ranks) == 1 else None)
            )
            for rank, environment in enumerate(ranks)
        )
        yield WorkerGroup(first=first, others=tuple(others))
        for other in others:
            other.end(within_s=LEAVE_S)


def _variables_of_ranks(case: Case, request: Mapping[str, Any]) -> list[Variables]:
    """The environment variables of each worker to start here."""
    own = {name: value for name, value in os.environ.items() if name not in RANK_VARIABLES}
    if not is_shared(case):
        return [own]
    if launcher_count() > 1:
        assert _LauncherCalls.leading is not None, "several launchers run a command that they cannot share"
        return [_variables_of_call(_LauncherCalls.leading.call(request))]
    layout = rank_layout(case)
    if layout.nodes > 1:
        raise InputError(needs_nodes(layout))
    return [own] if layout.ranks == 1 else _variables_of_local_ranks(own, world=layout.ranks)


def unreachable_rank(case: Case) -> int | None:
    """Return a rank of a shared case whose launcher does not answer, so that its machine may be lost; else None.

    A worker that ended by itself leaves a launcher that answers.
    """
    if launcher_count() < 2 or not is_shared(case):
        return None
    assert _LauncherCalls.leading is not None, "several launchers run a command that they cannot share"
    return _LauncherCalls.leading.lost_rank()


def needs_nodes(layout: RankLayout) -> str:
    """What a case over several nodes lacks in a command that runs on one machine."""
    each = plural(layout.ranks_per_node, "rank")
    return f"needs {layout.nodes} nodes with {each} each: --executor slurm or ray, or vbench on each node by torchrun"


def _variables_of_call(call: str) -> Variables:
    from bench.train.ranks import CALL

    return {**os.environ, CALL: call}


def _variables_of_local_ranks(own: Variables, *, world: int) -> list[Variables]:
    """Variables for `world` ranks on this machine, which share its cores."""
    shared = {"WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(_free_port("127.0.0.1"))}
    usual = {"OMP_NUM_THREADS": _threads_of(world)}
    if sys.platform == "linux":
        usual["GLOO_SOCKET_IFNAME"] = "lo"  # the host's name may resolve to an address that is not reachable
    return [{**usual, **own, **shared, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(world)]


def _threads_of(ranks: int) -> str:
    """The number of threads of each of the `ranks` on this machine, which share its cores."""
    return str(max(1, usable_cpus() // ranks))


def _free_port(host: str) -> int:
    with socket.socket() as free:
        free.bind((host, 0))
        return int(free.getsockname()[1])


def _start_worker(
    request: Mapping[str, Any], variables: Variables, *, log: Path, start: Callable[..., Process] | None = None
) -> ChildProcess:
    return ChildProcess("bench.runner.worker:main", request, log=log, environment=variables, start=start)


def _log_of(log: Path, rank: int) -> Path:
    return log.with_suffix(f".rank{rank}.log") if rank else log


@dataclass(kw_only=True)
class _LauncherCalls:
    """Calls of the first launcher to the others, over the key-value store of torchrun or one that the first holds."""

    leading: ClassVar["_LauncherCalls | None"] = None  # through which `worker_processes` calls the other launchers
    is_first: bool
    count: int = 0
    store: "Store" = field(init=False)

    def __post_init__(self) -> None:
        from bench.train.ranks import rendezvous

        self.store = rendezvous("launchers", timeout_s=WAIT_S, holds=self.is_first)

    def await_others(self) -> None:
        """Wait until all launchers have started. Raises TrainingError if one has not within five minutes."""
        for rank in range(1, launcher_count()):
            if not _wait(self.store, [f"here/{rank}"], seconds=JOIN_S):
                raise TrainingError(f"rank {rank} of {launcher_count()} did not start within {JOIN_S:.0f} s")

    def call(self, request: Mapping[str, Any]) -> str:
        """Let every other launcher start its worker for `request`; returns the name of the call.

        Raises TrainingError if one does not answer: its machine is lost, and no case would fare better.
        """
        name = self._send({"job": dict(request)})
        if silent := self._silent_ranks(name):
            raise TrainingError(f"rank {silent[0]} of {launcher_count()} does not answer within {WAIT_S:.0f} s")
        return name

    def lost_rank(self) -> int | None:
        """Return a rank that neither answers a call without a job nor sends heartbeats; None if there is none."""
        before = {rank: self.store.add(f"beat/{rank}", 0) for rank in range(1, launcher_count())}
        silent = self._silent_ranks(self._send({}))
        return next((rank for rank in silent if self.store.add(f"beat/{rank}", 0) == before[rank]), None)

    def end(self, code: int) -> None:
        """Let the others end with `code`, and wait for a while until they have read it."""
        self._send({"exit": code})
        names = [f"left/{rank}" for rank in range(1, launcher_count())]
        _wait(self.store, names, seconds=LEAVE_S)

    def next(self) -> tuple[str, dict[str, Any]]:
        """Wait for the next call; returns its name and content. Raises TrainingError if the first launcher is gone."""
        name = str(self.count)
        try:
            while not _wait(self.store, [name], seconds=WAIT_S):
                pass
            content: dict[str, Any] = json.loads(self.store.get(name))
        except RuntimeError as error:
            raise TrainingError(
                f"rank 0 of {launcher_count()} died, or its launcher: the rendezvous store is gone"
            ) from error
        self.count += 1
        return name, content

    def _silent_ranks(self, name: str) -> list[int]:
        """Return the ranks that do not answer a call in time."""
        deadline = time.monotonic() + WAIT_S
        return [
            rank
            for rank in range(1, launcher_count())
            if not _wait(self.store, [f"heard/{name}/{rank}"], seconds=max(1.0, deadline - time.monotonic()))
        ]

    def _send(self, content: dict[str, Any]) -> str:
        name = str(self.count)
        self.store.set(name, json.dumps(content))
        self.count += 1
        return name


@contextmanager
def _leading(calls: _LauncherCalls) -> Iterator[None]:
    _LauncherCalls.leading = calls
    try:
        yield
    finally:
        _LauncherCalls.leading = None


def _wait(store: "Store", names: list[str], *, seconds: float) -> bool:
    """Whether all of `names` were set in time; RuntimeError if the store is gone."""
    from torch.distributed import DistStoreError

    try:
        store.wait(names, timedelta(seconds=seconds))
    except DistStoreError:
        return False
    return True


@contextmanager
def _beating(store: "Store", rank: int) -> Iterator[None]:
    """Count heartbeats in the store during the block, in which a launcher answers no call."""
    ended = threading.Event()

    def run() -> None:
        with suppress(RuntimeError):  # the first launcher is gone, which the next call finds
            while not ended.wait(BEAT_S):
                store.add(f"beat/{rank}", 1)

    thread = threading.Thread(target=run, name="launcher heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _follow(calls: _LauncherCalls) -> int:
    """Start this rank's worker for every call until the first launcher ends; returns its exit code."""
    rank = int(os.environ["RANK"])
    calls.store.set(f"here/{rank}", "")
    while True:
        name, content = calls.next()
        if "exit" in content:
            calls.store.set(f"left/{rank}", "")
            return int(content["exit"])
        calls.store.set(f"heard/{name}/{rank}", "")
        if "job" not in content:
            continue
        log = _log_of(Path(content["job"]["log"]), rank)
        with _beating(calls.store, rank), _start_worker(content["job"], _variables_of_call(name), log=log) as child:
            for _ in child.messages():
                pass
