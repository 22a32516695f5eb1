"""Compares our latency with an independent timer on the same models in one process.

    python benchmarks/timer_agreement.py [--device cpu] [--rounds 5] [NAME ...] > benchmarks/timer_agreement.md

The timer is torch.utils.benchmark on a CPU and triton.testing.do_bench on CUDA. They alternate in rounds, so
that changes of the machine affect both; a row has the median of each over the rounds. Medians should agree within 5 %
on a CPU and 2 % on CUDA. The overhead is the time of an empty step; it is not subtracted.
"""

import argparse
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch
from torch.utils.benchmark import Timer

from bench.core.schema import Case, Clip, Point
from bench.measure.context import CaseContext
from bench.measure.timing.clocks import time_work
from bench.measure.timing.forward import Forward, forward_of
from bench.measure.timing.sampling import SamplingRule, take_samples
from bench.runner.environment import describe_environment

MODELS = {
    "c3d_search": ({"width": 0.25}, "8x1x56"),
    "resnet3d_10": ({"widen_factor": 0.25}, "8x1x64"),
    "x3d_xs": ({}, "4x1x96"),
}
PROTOCOL = SamplingRule(warmup_s=1.0, min_s=0.5, max_s=2.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=list(MODELS))
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    print(_environment(options.device), end="\n\n")
    print("| model | clip | ours, p50 ms | timer, ms | ours / timer | lowest and highest of rounds |")
    print("|---|---|---|---|---|---|")
    for name in options.names:
        print(_row(name, options.device, rounds=options.rounds), flush=True)
    clocks_us = 1e6 * _clocks_s(options.device)
    print(f"\nThe two clocks of a sample take {clocks_us:.1f} µs around an empty step; harness_overhead.md has what")
    print("each kind of step adds to its samples.")


def _row(name: str, device: str, *, rounds: int) -> str:
    args, clip = MODELS.get(name, ({}, "16x1x112"))
    point = Point(model=name, args=args, clip=Clip.model_validate(clip), device=device)
    forward = forward_of(CaseContext(Case(suite="agreement", point=point, measures={}), artifacts=Path()))(1)
    theirs = _do_bench if device.startswith("cuda") else _timer
    forward.latency()
    pairs = [(_ours(forward), theirs(forward)) for _ in range(rounds)]
    ours_ms, theirs_ms = (1000 * median(side) for side in zip(*pairs, strict=True))
    ratios = sorted(ours / other for ours, other in pairs)
    agreement = f"{ours_ms:.3f} | {theirs_ms:.3f} | {median(ratios):.3f} | {ratios[0]:.3f}, {ratios[-1]:.3f}"
    return f"| {name} {' '.join(f'{k}={v}' for k, v in args.items())} | {clip} | {agreement} |"


def _ours(forward: Forward) -> float:
    return median(take_samples(forward.latency, PROTOCOL, clock_s=time.perf_counter).samples_s)


def _timer(forward: Forward) -> float:
    timer = Timer("forward()", globals={"forward": forward}, num_threads=torch.get_num_threads())
    return timer.blocked_autorange(min_run_time=PROTOCOL.max_s).median


def _do_bench(forward: Forward) -> float:
    """Return seconds on the device with a cold cache; ours includes launching."""
    from triton.testing import do_bench

    return do_bench(forward, rep=1000 * PROTOCOL.max_s, return_mode="median") / 1000


def _clocks_s(device: str) -> float:
    """Return the seconds of an empty step by our clocks, synchronisation included."""
    nothing: Callable[[], None] = lambda: None  # noqa: E731  # the empty step
    samples = [time_work(nothing, torch.device(device)).wall_s for _ in range(2000)]
    return median(samples[1000:])


def _environment(device: str) -> str:
    facts = describe_environment(device=device)
    load = f"load {os.getloadavg()[0]:.1f} at the start"
    where = facts.hardware.get("gpu") or facts.hardware["cpu"]
    threads = f"{torch.get_num_threads()} of {facts.hardware['cpu_threads_usable']} threads"
    versions = f"Python {platform.python_version()}, torch {torch.__version__}"
    return f"{where}, {threads}, {load}, {platform.system()}, {versions}."


if __name__ == "__main__":
    main()
