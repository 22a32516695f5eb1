"""What stands around a timed case: the canary before and after it, and strangers on its GPU."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from bench.core.nvml import foreign_processes, gpu_processes
from bench.core.registry import MEASURES
from bench.measure.context import LoadedCase

if TYPE_CHECKING:
    import torch


def is_timed(case: LoadedCase) -> bool:
    """Whether any measure of this case times it."""
    return any(MEASURES.get(name).is_timed for name in case.case.measures)


@contextmanager
def watch_disturbance(case: LoadedCase) -> Iterator[None]:
    """Note the canary's times and their ratio around the block, and warn of drift and of foreign processes."""
    import torch

    from bench.measure.timing.canary import compare, drifted

    device = torch.device(case.device)
    there_before = gpu_processes(case.device)
    before = _song(case, device)
    yield
    compared = compare(before, _song(case, device))
    case.note("canary", {name: dict(song) for name, song in compared.items()})
    changed = drifted(compared)
    if changed:
        case.warn(
            f"the machine changed while this case was timed (canary: {', '.join(changed)})",
            "see `vbench doctor` for what disturbs this machine, then run the case again",
        )
    strangers = foreign_processes(there_before, gpu_processes(case.device), own_pid=os.getpid())
    if strangers:
        case.note("foreign_gpu_processes", [str(process) for process in strangers])
        case.warn(
            f"others were on this GPU: {', '.join(map(str, strangers))}",
            "wait for them, or choose another GPU with CUDA_VISIBLE_DEVICES",
        )


def _song(case: LoadedCase, device: "torch.device") -> dict[str, float]:
    """The canary's song, after which the device's memory is the case's own again."""
    import torch

    from bench.measure.timing.canary import sing

    case.progress("canary")
    with case.floor.held():
        song = sing(device)
    if device.type == "cuda":
        torch.cuda.empty_cache()
    return song
