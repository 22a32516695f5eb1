"""Which of several processes this one is, from the variables that torchrun, srun, submitit and Ray set."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.distributed_c10d import Store

from bench.core.errors import InputError, TrainingError
from bench.train.meeting import meeting
from bench.train.vigil import Vigil

TIMEOUT_S = 1800.0
DEAD_AFTER_S = 30.0
COMING_S = 45.0


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
        """`value` of every rank, in their order, on every rank."""
        if self.world == 1:
            return [value]
        values: list[Any] = [None] * self.world
        dist.all_gather_object(values, value)
        return values

    def share(self, value: Any) -> Any:
        """The first rank's `value`, on every rank."""
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
        """Make `value` the first rank's, in place."""
        if self.world > 1:
            dist.broadcast(value, src=0)

    def wait(self) -> None:
        """Go on when all ranks have come as far as this."""
        if self.world > 1:
            dist.barrier()

    @contextmanager
    def in_turn(self) -> Iterator[None]:
        """The first rank of each machine goes through the block alone, then the others: what it leaves, they find."""
        if self.local:
            self.wait()
        yield
        if not self.local:
            self.wait()


def current_ranks() -> Ranks:
    """This process's place in the process group, or alone."""
    if not (dist.is_available() and dist.is_initialized()):
        return Ranks()
    return Ranks(rank=dist.get_rank(), world=dist.get_world_size(), local=int(os.environ.get("LOCAL_RANK", 0)))


@contextmanager
def joined(device: str, *, dead_after_s: float = DEAD_AFTER_S) -> Iterator[Ranks]:
    """Join the process group that the environment describes, for as long as the block lasts; alone without one.

    A rank that does not come, dies, or is silent for `dead_after_s`, ends the others with a TrainingError that names
    it; one that fails, with its error. A rank that waits longer than `TIMEOUT_S` for another that lives fails as well.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) < 2 or dist.is_initialized():
        yield current_ranks()
        return
    _join(device)
    ranks = current_ranks()
    vigil = Vigil(rank=ranks.rank, world=ranks.world, dead_after_s=dead_after_s)
    try:
        yield ranks
        dist.barrier()
    except BaseException as error:
        blamed = vigil.explain(error)
        vigil.stop()
        if blamed is not None:
            raise TrainingError(blamed) from error
        raise
    vigil.stop()
    dist.destroy_process_group()


def _join(device: str) -> None:
    """Meet the other ranks and begin a process group with them, each on its own GPU where `device` is one."""
    rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    is_cuda = torch.device(device).type == "cuda"
    if is_cuda:
        torch.cuda.set_device(_own_gpu(device))
    store = meeting("group", timeout_s=TIMEOUT_S, holds=rank == 0)
    _greet(store, rank=rank, world=world)
    backend, timeout = "nccl" if is_cuda else "gloo", timedelta(seconds=TIMEOUT_S)
    dist.init_process_group(backend, store=store, rank=rank, world_size=world, timeout=timeout)


def _own_gpu(device: str) -> int:
    """The number of this rank's GPU; InputError where there are not as many, or the device is one for all."""
    local, there = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
    if torch.device(device).index is not None:
        raise InputError(f"device {device} is one GPU, and each of several ranks takes its own; say `device: cuda`")
    if local >= there:
        raise InputError(f"rank {local} of this machine has no GPU of its own: there are {there}; start fewer ranks")
    return local


def _greet(store: Store, *, rank: int, world: int) -> None:
    """TrainingError where not every rank comes within `COMING_S`."""
    store.set(f"here/{rank}", "")
    for other in range(world):
        try:
            store.wait([f"here/{other}"], timedelta(seconds=COMING_S))
        except RuntimeError as error:
            raise TrainingError(
                f"rank {other} of {world} did not come within {COMING_S:.0f} s; its own log says why, if it began"
            ) from error
