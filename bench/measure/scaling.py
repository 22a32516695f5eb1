"""Scaling: clips per second of training and of forward passes on one rank and on several, and the efficiency."""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field

from bench.core.cpus import usable_cpus
from bench.core.errors import InputError
from bench.core.metric_spec import MetricSpec
from bench.core.registry import register_measure
from bench.core.schema import Metric
from bench.core.stats import median
from bench.measure.axis_sets import TIMING_AXES
from bench.measure.context import CaseContext

FUNCTION = "bench.measure.timing.scaling_ranks:run_rank"
Count = Annotated[int, Field(ge=1)]

TRAIN_CLIPS = MetricSpec(
    "scaling.train_clips_per_s",
    "clips/s",
    "higher",
    title="Training of all ranks",
    meaning="clips per second that all ranks together train on",
    headline=True,
)
TRAIN_EFFICIENCY = MetricSpec(
    "scaling.train_efficiency",
    "%",
    "higher",
    title="Training efficiency",
    meaning="training rate of all ranks over that of one rank times their number",
)
FORWARD_CLIPS = MetricSpec(
    "scaling.forward_clips_per_s",
    "clips/s",
    "higher",
    title="Throughput of all ranks",
    meaning="clips per second of the forward passes of all ranks together",
)
FORWARD_EFFICIENCY = MetricSpec(
    "scaling.forward_efficiency",
    "%",
    "higher",
    title="Throughput efficiency",
    meaning="throughput of all ranks over that of one rank times their number",
)
WORKS = {"train": (TRAIN_CLIPS, TRAIN_EFFICIENCY), "forward": (FORWARD_CLIPS, FORWARD_EFFICIENCY)}


@register_measure(
    "scaling",
    depends_on=TIMING_AXES,
    version=2,
    is_timed=True,
    metrics=(TRAIN_CLIPS, TRAIN_EFFICIENCY, FORWARD_CLIPS, FORWARD_EFFICIENCY),
    duration_s=60.0,
)
def scaling(
    case: CaseContext, *, ranks: Count | list[Count] | None = None, max_s: float = 10.0, timeout_s: float = 900.0
) -> list[Metric]:
    """Clips per second over all `ranks`, started by torchrun on this machine, and their efficiency against one rank.

    Weak scaling: every rank has the case's batch (else one clip) for any number of ranks, so the efficiency is the rate
    over that of one rank times their number, in %. One rank is always measured. `train` is data-parallel (torch's DDP,
    with nccl on CUDA and gloo on a CPU; plain on one rank). `forward` is throughput without communication. The time of
    the slowest rank counts. On CUDA each rank has its own GPU, and the default is 1, 2, 4 … up to all GPUs. On a CPU
    the default is 1 and 2, and every rank has the same number of torch threads in every run: the case's, else its share
    of the cores with the largest number of ranks.

    A rank that fails or dies fails the case with its error.
    """
    from bench.measure.timing.case_process import case_request
    from bench.measure.timing.scaling_ranks import run_ranks

    there = _gpus() if case.device.startswith("cuda") else None
    if there == 0:
        raise InputError(f"device {case.device}: there is no GPU here")
    counts = sorted({1, *([ranks] if isinstance(ranks, int) else ranks or _usual(there))})
    possible = [world for world in counts if there is None or world <= there]
    threads = case.point.threads or max(1, _cores() // possible[-1])
    _warn_of_turns(case, world=possible[-1], threads=threads)
    found: dict[int, dict[str, Any]] = {}
    for world in possible:
        case.progress(f"scaling, {world} ranks")
        request = {**case_request(case), "threads": threads, "max_s": max_s}
        found[world] = run_ranks(FUNCTION, request, world=world, threads=threads, timeout_s=timeout_s)
    case.note("scaling", _details(case, found, threads=threads))
    _warn_of_unsteady(case, found)
    unknown = [metric for world in counts if world not in found for metric in _unknown(world, gpus=there or 0)]
    return [*_metrics(found, batch=case.point.batch or 1), *unknown]


def _metrics(found: Mapping[int, Mapping[str, Any]], *, batch: int) -> list[Metric]:
    from bench.measure.timing.case_timing import sampled_metric

    metrics: list[Metric] = []
    for work, (clips_spec, efficiency_spec) in WORKS.items():
        rates = {world: [world * batch / s for s in seen[work]["wall_s"]] for world, seen in found.items()}
        for world, values in rates.items():
            rate = sampled_metric(clips_spec, values, labels=_labels(world))
            share = 100 * median(values) / (world * median(rates[1]))
            note = f"of {world} x 1 rank, {batch} clips each"
            metrics += [
                rate.model_copy(update={"stopped_because": found[world][work]["stopped_because"]}),
                efficiency_spec.metric(share, labels=_labels(world), note=note),
            ]
    return metrics


def _unknown(world: int, *, gpus: int) -> list[Metric]:
    note = f"{world} ranks need {world} GPUs; there are {gpus}"
    specs = (TRAIN_CLIPS, FORWARD_CLIPS, TRAIN_EFFICIENCY, FORWARD_EFFICIENCY)
    return [spec.metric(None, labels=_labels(world), note=note) for spec in specs]


def _labels(world: int) -> dict[str, str]:
    return {"ranks": str(world)}


def _details(case: CaseContext, found: Mapping[int, Mapping[str, Any]], *, threads: int) -> dict[str, Any]:
    """Details of the record: the setup of the ranks, and the times of their second clock (device or processor)."""
    is_cuda = case.device.startswith("cuda")
    by_world = {
        f"{world} ranks": {work: {k: v for k, v in seen[work].items() if k != "wall_s"} for work in WORKS}
        for world, seen in found.items()
    }
    setting = {} if is_cuda else {"torch_threads_by_rank": threads, "cores": _cores()}
    return {"kind": "weak", "backend": "nccl" if is_cuda else "gloo", **setting, **by_world}


def _warn_of_turns(case: CaseContext, *, world: int, threads: int) -> None:
    if case.device.startswith("cpu") and world * threads > _cores():
        case.warn(
            f"scaling: {world} ranks of {threads} threads take turns on {_cores()} cores",
            "take fewer threads or fewer ranks",
        )


def _warn_of_unsteady(case: CaseContext, found: Mapping[int, Mapping[str, Any]]) -> None:
    restless = [f"{work} on {n}" for n, seen in found.items() for work in WORKS if not _is_steady(seen[work])]
    if restless:
        case.warn(
            f"scaling: {', '.join(restless)} did not become steady within the warm-up",
            "see `vbench doctor` for what disturbs this machine, then run the case again",
        )


def _is_steady(seen: Mapping[str, Any]) -> bool:
    return bool(seen["stopped_because"] != "unsteady")


def _usual(gpus: int | None) -> list[int]:
    """1, 2, 4 … up to all GPUs; 1 and 2 on a CPU."""
    if gpus is None:
        return [1, 2]
    return [*(2**n for n in range(gpus.bit_length()) if 2**n < gpus), gpus]


def _gpus() -> int:
    import torch

    return torch.cuda.device_count()


def _cores() -> int:
    return usable_cpus()
