"""One of the ranks that torchrun starts: trains and runs the case's network together with the others, timed."""

import json
import math
import os
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from bench.core.errors import BenchError
from bench.measure.context import CaseContext
from bench.measure.timing.child import case_of
from bench.measure.timing.protocol import Protocol, Timing
from bench.measure.timing.together import take_together
from bench.measure.timing.training import train_step_of
from bench.measure.timing.variants import forward_of
from bench.train.ranks import Ranks, joined

BLOCK_S = 0.05


def main() -> None:
    """Answer the request in the file that is named; an error is left beside it, for whoever started the ranks."""
    asked = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    rank, world = os.environ["RANK"], os.environ["WORLD_SIZE"]
    try:
        case = case_of(asked)
        if case.device.startswith("cpu"):
            torch.set_num_threads(asked["threads"])
        with joined(case.device) as ranks:
            found = answer_to(case, ranks, max_s=asked["max_s"])
    except Exception as error:  # whatever one rank raises is what ends the case
        said = str(error) if isinstance(error, BenchError) else f"{type(error).__name__}: {error}"
        text = said if said.startswith("rank ") else f"rank {rank} of {world} failed: {said}"
        Path(asked["failed"], rank).write_text(text, encoding="utf-8")
        raise
    if ranks.is_first:
        Path(asked["answer"]).write_text(json.dumps(found), encoding="utf-8")


def answer_to(case: CaseContext, ranks: Ranks, *, max_s: float) -> dict[str, Any]:
    """Seconds of train steps and of forward passes, by the rank that took longest; empty on ranks after the first."""
    return {
        "train": _told(_train(case, ranks, max_s=max_s)),
        "forward": _told(_forward(case, ranks, max_s=max_s)),
    }


def _train(case: CaseContext, ranks: Ranks, *, max_s: float) -> Timing | None:
    def shared(network: nn.Module) -> nn.Module:
        if ranks.world == 1:
            return network
        is_cuda = case.device.startswith("cuda")
        return DistributedDataParallel(network, device_ids=[torch.cuda.current_device()] if is_cuda else None)

    step = train_step_of(case, batch=case.point.batch or 1, wrap=shared)
    return take_together(ranks, step, _protocol(max_s), device=_device(case), clock_s=time.perf_counter)


def _forward(case: CaseContext, ranks: Ranks, *, max_s: float) -> Timing | None:
    """Blocks of passes; nothing is exchanged, so what is lost here is lost to what the ranks share of the machine."""
    forward = forward_of(case)(case.point.batch or 1)
    steps = ranks.share(max(1, math.ceil(BLOCK_S / forward.warm().wall_s)))
    return take_together(
        ranks, lambda: forward.block(steps), _protocol(max_s), device=_device(case), clock_s=time.perf_counter
    )


def _protocol(max_s: float) -> Protocol:
    return Protocol(max_s=max_s, warmup_s=min(Protocol.warmup_s, max_s))


def _device(case: CaseContext) -> torch.device:
    return torch.device(case.device)


def _told(timing: Timing | None) -> dict[str, Any]:
    if timing is None:
        return {}
    return {
        "wall_s": timing.samples_s,
        "stopped_because": timing.stopped_because,
        "warmup_samples": timing.warmup_samples,
        "second_clock_s": [s.device_s if s.device_s is not None else s.cpu_s for s in timing.samples],
    }


if __name__ == "__main__":
    main()
