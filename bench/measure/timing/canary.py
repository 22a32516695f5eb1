"""The canary: a fixed matrix product and a fixed copy, timed before and after a case to see a machine that drifts.

It knows nothing of the case: where it changes, the machine did.
"""

import time
from collections.abc import Callable, Mapping

import torch

from bench.core.stats import median
from bench.measure.timing.clocks import time_work
from bench.measure.timing.protocol import Protocol, take_samples

# The smallest change that the gate promises to find; a machine that moves by as much can fake or hide one.
DRIFT = 0.05
PROTOCOL = Protocol(window=5, warmup_s=0.1, min_samples=11, min_s=0.03, max_s=0.1, precision=0.01)
AWAKE_AFTER_S = {"cuda": 0.2}  # a GPU at rest climbs to its clock too slowly for two windows of samples to disagree
MATMUL_SIZES = {"cuda": 4096, "cpu": 384}
COPY_BYTES = {"cuda": 256 << 20, "cpu": 16 << 20}


def sing(device: torch.device) -> dict[str, float]:
    """Median milliseconds of the matrix product and of the copy on `device`, each once it is warm."""
    kind = "cpu" if device.type == "cpu" else "cuda"
    size, dtype = MATMUL_SIZES[kind], torch.float32 if kind == "cpu" else torch.float16
    left, right, product = (torch.ones(size, size, dtype=dtype, device=device) for _ in range(3))
    source = torch.ones(COPY_BYTES[kind], dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    with torch.inference_mode():
        _wake(lambda: torch.matmul(left, right, out=product), device)
        return {
            "matmul_ms": _median_ms(lambda: torch.matmul(left, right, out=product), device),
            "copy_ms": _median_ms(lambda: target.copy_(source), device),
        }


def compare(before: Mapping[str, float], after: Mapping[str, float]) -> dict[str, dict[str, float]]:
    """Each song `before` and `after`, and their ratio: above 1 the machine became slower."""
    return {
        name: {"before": before[name], "after": after[name], "ratio": after[name] / before[name]} for name in before
    }


def drifted(compared: Mapping[str, Mapping[str, float]]) -> list[str]:
    """In words, what of a comparison changed by more than `DRIFT`, in either direction."""
    return [
        f"{name.removesuffix('_ms')} {song['ratio'] - 1:+.0%}"
        for name, song in compared.items()
        if max(song["ratio"], 1 / song["ratio"]) > 1 + DRIFT
    ]


def _wake(work: Callable[[], object], device: torch.device) -> None:
    """Work at least once, for what is loaded late, and on a GPU until its clock is up."""
    started_s = time.perf_counter()
    time_work(work, device)
    while time.perf_counter() - started_s < AWAKE_AFTER_S.get(device.type, 0.0):
        time_work(work, device)


def _median_ms(work: Callable[[], object], device: torch.device) -> float:
    """By the device's own clock where it has one: a song of 0.2 ms would tell of Python and the driver otherwise."""
    return 1000 * median(take_samples(lambda: time_work(work, device), PROTOCOL, clock_s=time.perf_counter).work_s)
