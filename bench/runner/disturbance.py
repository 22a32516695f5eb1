"""Drift check and foreign GPU processes around a timed case."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from bench.core.nvml import foreign_processes, gpu_processes
from bench.core.registry import MEASURES
from bench.measure.context import CaseContext
from bench.measure.timing.turn_taking import process_turns

if TYPE_CHECKING:
    import torch


def is_timed(case: CaseContext) -> bool:
    """Whether any measure of this case times it."""
    return any(MEASURES.get(name).is_timed for name in case.case.measures)


@contextmanager
def watch_disturbance(case: CaseContext) -> Iterator[None]:
    """Run the canary before and after the block; record its times and warn about drift and foreign processes."""
    import torch

    from bench.measure.timing.canary import compare_canary, describe_drift

    device = torch.device(case.device)
    listed_before = gpu_processes(case.device)
    before = _run_canary(case, device)
    yield
    compared = compare_canary(before, _run_canary(case, device))
    case.note("canary", {name: dict(times) for name, times in compared.items()})
    changed = describe_drift(compared)
    if changed:
        case.warn(
            f"the machine changed while this case was timed (canary: {', '.join(changed)})",
            "see `vbench doctor` for what disturbs this machine, then run the case again",
        )
    foreign = foreign_processes(listed_before, gpu_processes(case.device), own_pid=os.getpid())
    if foreign:
        case.note("foreign_gpu_processes", [str(process) for process in foreign])
        case.warn(
            f"other processes used this GPU: {', '.join(map(str, foreign))}",
            "wait for them, or choose another GPU with CUDA_VISIBLE_DEVICES",
        )


def _run_canary(case: CaseContext, device: "torch.device") -> dict[str, float]:
    """Times of the canary; frees its device memory, so that the case has all of it."""
    import torch

    from bench.measure.timing.canary import time_canary

    case.progress("canary")
    with process_turns().held():
        times = time_canary(device)
    if device.type == "cuda":
        torch.cuda.empty_cache()
    return times
