"""Measures the harness's own time on an empty step. It is published, not subtracted.

    python benchmarks/harness_overhead.py [--device cpu] [--times 5000] > benchmarks/harness_overhead.md

An empty step is a forward pass of a model that returns its input. *In a sample* is the time that it adds to each sample
of that kind; *between samples* is the time of the warm-up and stop rules, which no sample includes.
"""

import argparse
import os
import platform
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import count, pairwise

import torch
from torch import Tensor

from bench.core.stats import quantile
from bench.measure.timing.clocks import time_parts, time_work
from bench.measure.timing.forward import Forward
from bench.measure.timing.sampling import Sample, SamplingRule, take_samples
from bench.measure.timing.streams import running_streams
from bench.runner.environment import describe_environment

STEPS = 50


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--times", type=int, default=5000)
    options = parser.parse_args()
    print(_environment(options.device), end="\n\n")
    print("| an empty step of | p50 µs | p99 µs |")
    print("|---|---|---|")
    for name, samples_s in overheads(torch.device(options.device), times=options.times):
        settled = samples_s[len(samples_s) // 2 :]
        print(f"| {name} | {1e6 * quantile(settled, 0.5):.1f} | {1e6 * quantile(settled, 0.99):.1f} |", flush=True)


def overheads(device: torch.device, *, times: int) -> Iterator[tuple[str, list[float]]]:
    """Yield each kind of step with the seconds of `times` empty ones."""
    clip = torch.zeros(1, 3, 1, 1, 1, device=device)
    forward = Forward(model=_identity, inputs=(clip,), device=device, batch=1, autocast=None)
    autocast = replace(forward, autocast=torch.bfloat16)
    nothing: Callable[[], None] = lambda: None  # noqa: E731  # the empty step
    steps: dict[str, Callable[[], Sample]] = {
        "the clocks alone": lambda: time_work(nothing, device),
        "latency": forward.latency,
        "latency, autocast": autocast.latency,
        f"throughput, each of {STEPS} passes": lambda: forward.block(STEPS),
        "train_step, three parts": lambda: time_parts((nothing, nothing, nothing), device),
    }
    for name, step in steps.items():
        yield f"{name}, in a sample", [step().wall_s for _ in range(times)]
    with running_streams([forward], threads_each=1) as streams:
        yield "concurrent, one stream, in a sample", [streams.next().wall_s for _ in range(times)]
    yield "any measure, between samples", _between(times)


def _identity(clip: Tensor) -> Tensor:
    return clip


def _between(times: int) -> list[float]:
    """Return the seconds between samples of a step that takes no time, which the stop rule alone takes."""
    moments: list[float] = []
    taken = count()

    def step() -> Sample:
        moments.append(time.perf_counter())
        return Sample(wall_s=0.01 + 0.0001 * (next(taken) % 3))

    never_precise = SamplingRule(min_s=0.0, precision=0.0)
    while len(moments) < times:
        take_samples(step, never_precise, clock_s=time.perf_counter)
    return [after - before for before, after in pairwise(moments)]


def _environment(device: str) -> str:
    facts = describe_environment(device=device).hardware
    where = facts.get("gpu") or facts["cpu"]
    versions = f"Python {platform.python_version()}, torch {torch.__version__}"
    return f"{where}, {torch.get_num_threads()} threads, load {os.getloadavg()[0]:.1f} at the start, {versions}."


if __name__ == "__main__":
    main()
