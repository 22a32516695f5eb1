"""Several processes that share one training: rank, rendezvous, process group and heartbeat.

Rank and world size come from the environment variables that torchrun, srun, submitit and Ray set.
"""

import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.distributed_c10d import PrefixStore, Store

from bench.core.errors import InputError, TrainingError
from bench.core.host_address import interface_towards, is_reachable, resolve

TIMEOUT_S = 1800.0
DEAD_AFTER_S = 30.0
JOIN_S = 45.0
INTERFACE = "GLOO_SOCKET_IFNAME"  # environment variable, which gloo reads
OWN_GPUS = ("SLURM_GPUS_PER_TASK", "VBENCH_GPUS_PER_RANK")  # set if each rank is shown GPUs of its own


@dataclass(frozen=True, kw_only=True)
class Ranks:
    """This process is `rank` of `world`, and `local` on its machine."""

    rank: int = 0
    world: int = 1
    local: int = 0

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    def gather(self, value: Any) -> list[Any]:
        """The values of all ranks, in rank order, on every rank."""
        if self.world == 1:
            return [value]
        values: list[Any] = [None] * self.world
        dist.all_gather_object(values, value)
        return values

    def share(self, value: Any) -> Any:
        """The `value` of the first rank, on every rank."""
        if self.world == 1:
            return value
        holder = [value]
        dist.broadcast_object_list(holder, src=0)
        return holder[0]

    def total(self, value: torch.Tensor) -> torch.Tensor:
        """The sum of `value` over the ranks."""
        if self.world > 1:
            dist.all_reduce(value)
        return value

    def spread(self, value: torch.Tensor) -> None:
        """Overwrite `value` with that of the first rank."""
        if self.world > 1:
            dist.broadcast(value, src=0)

    def wait(self) -> None:
        """Wait until all ranks have reached this point."""
        if self.world > 1:
            dist.barrier()

    @contextmanager
    def in_turn(self) -> Iterator[None]:
        """Run the block in the first rank of each machine, then in the others, which find what it left on disk."""
        if self.local:
            self.wait()
        yield
        if not self.local:
            self.wait()


def current_ranks() -> Ranks:
    """The rank of this process in the process group; rank 0 of 1 without a group."""
    if not (dist.is_available() and dist.is_initialized()):
        return Ranks()
    return Ranks(rank=dist.get_rank(), world=dist.get_world_size(), local=int(os.environ.get("LOCAL_RANK", 0)))


@contextmanager
def joined(device: str, *, dead_after_s: float = DEAD_AFTER_S) -> Iterator[Ranks]:
    """Join the process group that the environment describes for the duration of the block; without one, run alone.

    If a rank does not join, dies, or sends no heartbeat for `dead_after_s`, the others raise a TrainingError that names
    it; if it fails, the error has its message. Waiting longer than `TIMEOUT_S` for a living rank is an error, too.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) < 2 or dist.is_initialized():
        yield current_ranks()
        return
    _join(device)
    ranks = current_ranks()
    heartbeat = Heartbeat(rank=ranks.rank, world=ranks.world, dead_after_s=dead_after_s)
    try:
        yield ranks
        dist.barrier()
    except BaseException as error:
        blamed = heartbeat.explain(error)
        heartbeat.stop()
        if blamed is not None:
            raise TrainingError(blamed) from error
        raise
    heartbeat.stop()
    dist.destroy_process_group()


def _join(device: str) -> None:
    """Join the other ranks in a process group; if `device` is a GPU, each rank takes its own."""
    rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    is_cuda = torch.device(device).type == "cuda"
    if is_cuda:
        torch.cuda.set_device(_own_gpu(device))
    store = rendezvous("group", timeout_s=TIMEOUT_S, holds=rank == 0)
    store.set(f"first/{rank}", resolve(os.environ["MASTER_ADDR"]))
    _await_others(store, rank=rank, world=world)
    if not is_cuda:
        _set_interface_of_gloo([store.get(f"first/{other}").decode() for other in range(world)])
    backend, timeout = "nccl" if is_cuda else "gloo", timedelta(seconds=TIMEOUT_S)
    dist.init_process_group(backend, store=store, rank=rank, world_size=world, timeout=timeout)


def _set_interface_of_gloo(first: list[str]) -> None:
    """Let gloo listen where the other machines can connect; a variable that is set already stays.

    gloo itself listens at the address of the host name, which is 127.0.1.1 on many machines. `first` has the address of
    the first rank as each rank knows it: on its own machine that may be a loopback address, which tells nothing.
    """
    address = next(filter(is_reachable, first), None)
    if address is None or INTERFACE in os.environ:  # all ranks are on one machine, or the user knows better
        return
    interface = interface_towards(address)
    if interface is not None:
        os.environ[INTERFACE] = interface


def _own_gpu(device: str) -> int:
    """The index of this rank's GPU; raises InputError if there are too few, or if `device` names a single one.

    With `--gpus-per-task`, SLURM shows each rank only GPUs of its own, and numbers them from 0; so does Ray.
    """
    local, there = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
    if torch.device(device).index is not None:
        raise InputError(f"device {device} is one GPU, but each rank needs its own; give `device: cuda`")
    if local >= there and there and any(os.environ.get(name) for name in OWN_GPUS):
        return 0
    if local >= there:
        raise InputError(f"rank {local} of this machine has no GPU of its own: there are {there}; start fewer ranks")
    return local


def _await_others(store: Store, *, rank: int, world: int) -> None:
    """Raise TrainingError unless every rank joins within `JOIN_S`."""
    store.set(f"here/{rank}", "")
    for other in range(world):
        try:
            store.wait([f"here/{other}"], timedelta(seconds=JOIN_S))
        except RuntimeError as error:
            raise TrainingError(
                f"rank {other} of {world} did not join within {JOIN_S:.0f} s; its own log says why, if it started"
            ) from error


CALL = "VBENCH_CALL"  # set if a launcher of vbench serves the store: the call that this process belongs to


def rendezvous(what: str, *, timeout_s: float, holds: bool = False) -> Store:
    """A new connection to the key-value store at MASTER_ADDR and MASTER_PORT, in a namespace of its own for `what`.

    Restarts of a launcher, and calls within one start, have separate namespaces too. If `holds` is true, this process
    serves the store, unless its launcher does so already.
    """
    is_held = CALL in os.environ or os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    store = dist.TCPStore(  # type: ignore[attr-defined]  # not in __all__
        os.environ["MASTER_ADDR"],
        int(os.environ["MASTER_PORT"]),
        is_master=holds and not is_held,
        wait_for_workers=False,
        timeout=timedelta(seconds=timeout_s),
    )
    start, call = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"), os.environ.get(CALL, "-")
    return PrefixStore(f"vbench/{start}/{call}/{what}", store)


BEAT_S = 1.0
SUSPECTED_S = 6.0  # time limit for heartbeats once a collective operation has failed
GRACE_S = 10.0  # for the main thread to raise an error of its own
ANSWER_S = 5.0  # time limit of one request to the store
CONNECTION_WORDS = ("gloo", "nccl", "connection", "socket", "timed out", "timeout")  # torch has no type for all of them


class Heartbeat:
    """Tells the other ranks that this one is alive, and finds ranks that send no heartbeat for `dead_after_s`.

    A thread counts up this rank's heartbeats in the store and reads those of the others, whatever the main thread waits
    for. If the main thread is stuck in a collective operation with a dead rank, this process exits with the code of
    TrainingError and one line on standard error.
    """

    def __init__(self, *, rank: int, world: int, dead_after_s: float) -> None:
        self._rank, self._others, self._world = rank, [r for r in range(world) if r != rank], world
        self._dead_after_s = dead_after_s
        self._beats = dict.fromkeys(self._others, 0)
        self._seen = dict.fromkeys(self._others, time.monotonic())
        self._store = rendezvous("heartbeat", timeout_s=ANSWER_S)
        self._found: str | None = None
        self._is_found, self._is_over = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._watch, name="vbench-heartbeat", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop the thread."""
        self._is_over.set()
        self._thread.join()

    def explain(self, error: BaseException) -> str | None:
        """The rank that caused `error`, with its own error if it reported one; None if this rank caused it.

        An error of this rank itself is first reported to the others.
        """
        if self._found is None and not is_of_distribution(error):
            self._report(error)
            return None
        self._dead_after_s = min(self._dead_after_s, SUSPECTED_S)
        self._is_found.wait(SUSPECTED_S + GRACE_S)
        return self._found

    def _report(self, error: BaseException) -> None:
        text = " ".join(str(error).split())
        try:
            self._store.set(f"failed/{self._rank}", f"{type(error).__name__}: {text}"[:1000])
        except RuntimeError:
            return
        time.sleep(2 * BEAT_S)  # the store may end with this process, so leave the others time to read it

    def _watch(self) -> None:
        while not self._is_over.wait(BEAT_S):
            self._found = self._find_failure()
            if self._found is None:
                continue
            self._is_found.set()
            if not self._is_over.wait(SUSPECTED_S + GRACE_S):
                print(f"vbench: {self._found}", file=sys.stderr, flush=True)
                os._exit(TrainingError.exit_code)
            return

    def _find_failure(self) -> str | None:
        """What is wrong with another rank; None if nothing is."""
        try:
            self._store.add(f"beat/{self._rank}", 1)
            return next(filter(None, map(self._failure_of, self._others)), None)
        except RuntimeError:
            return f"rank 0 of {self._world} or the launcher died: the store that it served is gone"

    def _failure_of(self, rank: int) -> str | None:
        if self._store.check([f"failed/{rank}"]):
            return f"rank {rank} of {self._world} failed: {self._store.get(f'failed/{rank}').decode()}"
        now, beats = time.monotonic(), self._store.add(f"beat/{rank}", 0)
        if beats != self._beats[rank]:
            self._beats[rank], self._seen[rank] = beats, now
        silent_s = now - self._seen[rank]
        if silent_s <= self._dead_after_s:
            return None
        return f"rank {rank} of {self._world} died: it sent no heartbeat for {silent_s:.0f} s"


def is_of_distribution(error: BaseException) -> bool:
    """Whether an error is about the connection between ranks, so that another rank may have caused it."""
    if isinstance(error, dist.DistError):
        return True
    return type(error) is RuntimeError and any(word in str(error).lower() for word in CONNECTION_WORDS)
