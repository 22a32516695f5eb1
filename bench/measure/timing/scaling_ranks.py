"""Trains and runs a case's model on several ranks started by torchrun, and reports in one line why ranks failed."""

import json
import math
import os
import re
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from bench.core.errors import BenchError, TrainingError, last_line, mentions_out_of_memory
from bench.core.import_path import environment_with_import_path
from bench.core.process import ChildTimeoutError, run_supervised
from bench.measure.context import CaseContext
from bench.measure.timing.case_process import case_from_request
from bench.measure.timing.forward import forward_of, free_device_memory
from bench.measure.timing.sampling import SamplingRule, Timing, take_samples_on_ranks
from bench.measure.timing.training_step import train_step_of
from bench.train.ranks import Ranks, joined

BLOCK_S = 0.05
CHILD_MAIN = "bench.core.child_main"
LOG_BYTES = 1 << 20  # of the end of what the ranks print: torchrun's report of a dead rank comes last
# Variables that describe this process's place among other ranks, if it is one.
PLACE = frozenset(
    {"RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_RANK", "GROUP_WORLD_SIZE", "MASTER_ADDR"}
    | {"MASTER_PORT", "ROLE_RANK", "ROLE_WORLD_SIZE", "ROLE_NAME", "VBENCH_CALL"}
)
# torchrun's report of the first process that died.
DEATH = re.compile(
    r"Root Cause.*?rank\s*: (?P<rank>\d+).*?traceback : (?P<how>[^\n]+?)(?: received by PID \d+)?\n", re.S
)


def run_ranks(function: str, request: Mapping[str, Any], *, world: int, threads: int, timeout_s: float) -> Any:
    """The result of `world` ranks on this machine, each with `threads` threads.

    Each rank calls `function` (`module:name`), which finds the path of the request in `sys.argv`; the first rank writes
    the result, JSON, to the request's `answer`. Raises TrainingError if a rank fails or dies, with its error, or if the
    ranks do not end within `timeout_s`; MemoryError if memory was exhausted.
    """
    free_device_memory()
    with TemporaryDirectory(prefix="vbench-ranks-") as name:
        folder = Path(name)
        failed, answer, request_file = folder / "failed", folder / "answer.json", folder / "request.json"
        failed.mkdir()
        request_file.write_text(json.dumps({**request, "answer": str(answer), "failed": str(failed)}), encoding="utf-8")
        # torchrun and the ranks go through child_main, so that each dies with its parent.
        torchrun = [sys.executable, "-m", CHILD_MAIN, "torch.distributed.run", "--standalone"]
        try:
            ended = run_supervised(
                [*torchrun, "--nproc-per-node", str(world), "-m", CHILD_MAIN, function, str(request_file)],
                timeout_s=timeout_s,
                environment=_environment(threads=threads),
                limit_bytes=LOG_BYTES,
            )
        except ChildTimeoutError:
            raise TrainingError(f"{world} ranks did not end within {timeout_s:g} s; raise timeout_s") from None
        if ended.returncode or not answer.is_file():
            why = failure_reason(failed, ended.stdout + ended.stderr, world=world)
            raise MemoryError(why) if mentions_out_of_memory(why) else TrainingError(why)
        return json.loads(answer.read_text(encoding="utf-8"))


def failure_reason(failed: Path, log: str, *, world: int) -> str:
    """The error that the first failing rank wrote into folder `failed`; else torchrun's report of a rank that died."""
    errors = sorted(failed.iterdir(), key=lambda file: file.stat().st_mtime_ns)
    if errors:
        return " ".join(errors[0].read_text(encoding="utf-8").split())
    death = DEATH.search(log)
    if death is not None:
        return f"rank {death['rank']} of {world} died: {death['how']}"
    return last_line(log, otherwise=f"{world} ranks ended without a result and printed nothing")


def _environment(*, threads: int) -> dict[str, str]:
    """Our environment, without the place that this process may have among other ranks, and with `threads` per rank."""
    own = {
        name: value
        for name, value in environment_with_import_path().items()
        if name not in PLACE and not name.startswith("TORCHELASTIC_")
    }
    defaults = {"GLOO_SOCKET_IFNAME": "lo"} if sys.platform == "linux" else {}
    return {**defaults, **own, "OMP_NUM_THREADS": str(threads)}


def run_rank() -> None:
    """In each rank: time train steps and forward passes; the first rank writes them to the request's `answer`.

    An error is written to the request's folder `failed`, where the parent finds it.
    """
    request = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    rank, world = os.environ["RANK"], os.environ["WORLD_SIZE"]
    try:
        case = case_from_request(request)
        if case.device.startswith("cpu"):
            torch.set_num_threads(request["threads"])
        with joined(case.device) as ranks:
            found = rank_timings(case, ranks, max_s=request["max_s"])
    except Exception as error:  # whatever one rank raises ends the case
        message = str(error) if isinstance(error, BenchError) else f"{type(error).__name__}: {error}"
        text = message if message.startswith("rank ") else f"rank {rank} of {world} failed: {message}"
        Path(request["failed"], rank).write_text(text, encoding="utf-8")
        raise
    if ranks.is_first:
        Path(request["answer"]).write_text(json.dumps(found), encoding="utf-8")


def rank_timings(case: CaseContext, ranks: Ranks, *, max_s: float) -> dict[str, Any]:
    """Seconds of train steps and of forward passes on the slowest rank; empty on ranks other than the first."""
    return {
        "train": _as_json(_time_training(case, ranks, max_s=max_s)),
        "forward": _as_json(_time_forward(case, ranks, max_s=max_s)),
    }


def _time_training(case: CaseContext, ranks: Ranks, *, max_s: float) -> Timing | None:
    def in_parallel(model: nn.Module) -> nn.Module:
        if ranks.world == 1:
            return model
        is_cuda = case.device.startswith("cuda")
        return DistributedDataParallel(model, device_ids=[torch.cuda.current_device()] if is_cuda else None)

    step = train_step_of(case, batch=case.point.batch or 1, wrap=in_parallel)
    device = torch.device(case.device)
    return take_samples_on_ranks(ranks, step, SamplingRule.up_to(max_s), device=device, clock_s=time.perf_counter)


def _time_forward(case: CaseContext, ranks: Ranks, *, max_s: float) -> Timing | None:
    """Blocks of passes. Ranks exchange nothing, so any loss comes from sharing the machine."""
    forward = forward_of(case)(case.point.batch or 1)
    steps = ranks.share(max(1, math.ceil(BLOCK_S / forward.warm().wall_s)))
    return take_samples_on_ranks(
        ranks,
        lambda: forward.block(steps),
        SamplingRule.up_to(max_s),
        device=torch.device(case.device),
        clock_s=time.perf_counter,
    )


def _as_json(timing: Timing | None) -> dict[str, Any]:
    if timing is None:
        return {}
    return {
        "wall_s": timing.samples_s,
        "stopped_because": timing.stopped_because,
        "warmup_samples": timing.warmup_samples,
        "second_clock_s": [s.device_s if s.device_s is not None else s.cpu_s for s in timing.samples],
    }
