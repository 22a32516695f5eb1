"""What disturbed a timed case: drift of the machine or of a timing, other processes on its GPU or its processors."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from bench.core.cpu_load import CpuCounters, CpuLoad
from bench.core.doubts import (
    THROTTLED,
    UNSTEADY,
    has_canary_moved,
    is_imprecise,
    is_sampled_timing,
    timing_of,
)
from bench.core.drift import find_drift
from bench.core.nvml import foreign_processes, gpu_processes
from bench.core.registry import MEASURES
from bench.core.schema import Json, Metric, Status
from bench.measure.context import CaseContext
from bench.measure.timing.turn_taking import process_turns

if TYPE_CHECKING:
    import torch


def is_timed(case: CaseContext) -> bool:
    """Whether any measure of this case times it."""
    return any(MEASURES.get(name).is_timed for name in case.case.measures)


@contextmanager
def watch_disturbance(case: CaseContext) -> Iterator[None]:
    """Run the canary before and after the block; record its times and warn about drift and foreign processes.

    Not in turn-taking, where both sides share what changes.
    """
    import torch

    if process_turns().is_shared:
        yield
        return
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


@contextmanager
def watch_processors(case: CaseContext, measure: str) -> Iterator[None]:
    """Record the load of the processors during the block, in which `measure` runs, and warn about what disturbed it.

    Nothing is recorded in turn-taking, where the other side of the comparison would count as a disturbance.
    """
    import torch

    if process_turns().is_shared:
        yield
        return
    has_ranks = os.environ.get("WORLD_SIZE", "1") != "1"
    root_pid = os.getppid() if has_ranks else os.getpid()  # other ranks of the case are no disturbance
    before = CpuCounters.read(root_pid=root_pid)
    yield
    load = CpuLoad.between(before, CpuCounters.read(root_pid=root_pid))
    known = case.details.get("processors")
    load_1min = round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None
    found: dict[str, Json] = {**load.as_dict(), "load_1min": load_1min}
    case.note("processors", {**(known if isinstance(known, dict) else {}), measure: found})
    threads = torch.get_num_threads() if case.device == "cpu" else 1
    disturbances = load.disturbances(threads=threads)
    if disturbances:
        remedies = dict.fromkeys(remedy for remedy in disturbances.values() if remedy)
        case.warn(f"{measure} was disturbed: {', '.join(disturbances)}", "; ".join(remedies))


def check_timings(case: CaseContext, metrics: Sequence[Metric]) -> Status:
    """The status of a case with these metrics; records which timings drifted, and warns about them.

    `throttled` or `unsteady` if a timing stopped for that reason, `unsteady` if the interval of one is wider than 10 %
    of its median on either side, `drifting` if the level of one moved or the canary changed, else `ok`.
    """
    timings = [metric for metric in metrics if is_sampled_timing(metric) and not metric.turns]
    drifts = {metric.key: drift for metric in timings if (drift := find_drift(metric.samples)) is not None}
    if timings:
        case.note(
            "drift",
            {
                key: {"pattern": drift.pattern, "change": drift.change, "start": drift.start, "end": drift.end}
                for key, drift in drifts.items()
            },
        )
    firsts = {timing_of(metric): metric.key for metric in reversed(timings) if metric.key in drifts}
    for key in firsts.values():  # one warning for each timing, which may have several metrics
        case.warn(
            f"{key} drifted while it was measured: {drifts[key]}",
            "let the machine come to rest (--wait-idle), lock its clocks (`vbench doctor`), and run the case again",
        )
    reasons = {metric.stopped_because for metric in metrics}
    if THROTTLED in reasons:
        return "throttled"
    if UNSTEADY in reasons or any(is_imprecise(metric, metric.interval) for metric in timings):
        return "unsteady"
    return "drifting" if drifts or has_canary_moved(case.details) else "ok"


def _run_canary(case: CaseContext, device: "torch.device") -> dict[str, float]:
    """Times of the canary; frees its device memory, so that the case has all of it."""
    import torch

    from bench.measure.timing.canary import time_canary

    case.progress("canary")
    times = time_canary(device)
    if device.type == "cuda":
        torch.cuda.empty_cache()
    return times
