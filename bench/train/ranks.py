"""Which of several processes this one is, from the variables that torchrun, srun, submitit and Ray set."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

from bench.errors import TrainingError
from bench.train.vigil import Vigil

TIMEOUT_S = 300.0
DEAD_AFTER_S = 30.0


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


def current_ranks() -> Ranks:
    """This process's place in the process group, or alone."""
    if not (dist.is_available() and dist.is_initialized()):
        return Ranks()
    return Ranks(rank=dist.get_rank(), world=dist.get_world_size(), local=int(os.environ.get("LOCAL_RANK", 0)))


@contextmanager
def joined(device: str, *, timeout_s: float = TIMEOUT_S, dead_after_s: float = DEAD_AFTER_S) -> Iterator[Ranks]:
    """Join the process group that the environment describes, for as long as the block lasts; alone without one.

    A rank that dies, or is silent for `dead_after_s`, ends the others with a TrainingError that names it; one that
    fails, with its error. A rank that waits longer than `timeout_s` for another that lives fails as well.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) < 2 or dist.is_initialized():
        yield current_ranks()
        return
    is_cuda = torch.device(device).type == "cuda"
    if is_cuda:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", 0)))
    dist.init_process_group("nccl" if is_cuda else "gloo", timeout=timedelta(seconds=timeout_s))
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
