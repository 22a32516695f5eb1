"""The canary: a fixed matrix product and a fixed copy, timed before and after a case to detect a machine that drifts.

It does not depend on the case: if its time changes, the machine has changed.
"""

import time
from collections.abc import Callable, Mapping

import torch

from bench.core.doubts import CANARY_LIMIT
from bench.core.stats import median
from bench.measure.timing.clocks import time_work
from bench.measure.timing.sampling import SamplingRule, take_samples

RULE = SamplingRule(window=5, warmup_s=0.1, min_samples=11, min_s=0.03, max_s=0.1, precision=0.01)
RAMP_UP_S = {"cuda": 0.2}  # an idle GPU raises its clock too slowly for the warm-up rule to notice
MATMUL_SIZES = {"cuda": 4096, "cpu": 384}
COPY_BYTES = {"cuda": 256 << 20, "cpu": 16 << 20}


def time_canary(device: torch.device) -> dict[str, float]:
    """Median milliseconds of the matrix product and of the copy on `device`, each after a warm-up."""
    kind = "cpu" if device.type == "cpu" else "cuda"
    size, dtype = MATMUL_SIZES[kind], torch.float32 if kind == "cpu" else torch.float16
    left, right, product = (torch.ones(size, size, dtype=dtype, device=device) for _ in range(3))
    source = torch.ones(COPY_BYTES[kind], dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    with torch.inference_mode():
        _ramp_up(lambda: torch.matmul(left, right, out=product), device)
        return {
            "matmul_ms": _median_ms(lambda: torch.matmul(left, right, out=product), device),
            "copy_ms": _median_ms(lambda: target.copy_(source), device),
        }


def compare_canary(before: Mapping[str, float], after: Mapping[str, float]) -> dict[str, dict[str, float]]:
    """Each canary time `before` and `after`, and their ratio: above 1 the machine became slower."""
    return {
        name: {"before": before[name], "after": after[name], "ratio": after[name] / before[name]} for name in before
    }


def describe_drift(compared: Mapping[str, Mapping[str, float]]) -> list[str]:
    """One text for each canary time that changed by more than `CANARY_LIMIT`, in either direction."""
    return [
        f"{name.removesuffix('_ms')} {times['ratio'] - 1:+.0%}"
        for name, times in compared.items()
        if max(times["ratio"], 1 / times["ratio"]) > 1 + CANARY_LIMIT
    ]


def _ramp_up(work: Callable[[], object], device: torch.device) -> None:
    """Work at least once, which loads kernels, and on a GPU until its clock is up."""
    started_s = time.perf_counter()
    time_work(work, device)
    while time.perf_counter() - started_s < RAMP_UP_S.get(device.type, 0.0):
        time_work(work, device)


def _median_ms(work: Callable[[], object], device: torch.device) -> float:
    """By the device's own clock if it has one: the wall time of 0.2 ms of work is mostly Python and the driver."""
    return 1000 * median(take_samples(lambda: time_work(work, device), RULE, clock_s=time.perf_counter).work_s)
