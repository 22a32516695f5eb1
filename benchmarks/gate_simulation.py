"""How often the gate is wrong, on noise of known kinds: `python benchmarks/gate_simulation.py [REPEATS] > FILE.md`.

Every repeat simulates processes that time one network, reduces each to its median, and asks the gate's own code. Runs
of base and head alternate, as `vbench run` interleaves them.
"""

import argparse
import math
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bench.comparison.judging import decide, find_runs
from bench.comparison.limits import limits_of
from bench.comparison.outcome import Row, Verdict
from bench.schema import Metric

Values = NDArray[np.float64]
SAMPLES = 40
LATENCY = Metric(name="latency.p50_ms", value=1.0, unit="ms", better="lower")


@dataclass(frozen=True, kw_only=True)
class Tally:
    """Shares of repeats, of 1: each verdict, and how often the interval held the true ratio."""

    verdicts: dict[Verdict, float]
    coverage: float


def gaussian(rng: np.random.Generator, shape: tuple[int, ...]) -> Values:
    """2 % from sample to sample, nothing between processes."""
    return 0.02 * rng.standard_normal(shape)


def heavy_tail(rng: np.random.Generator, shape: tuple[int, ...]) -> Values:
    """Interruptions: Student's t with 2 degrees from sample to sample and with 3 between processes, upwards longer."""
    noise = 0.01 * rng.standard_t(2, shape) + 0.004 * rng.standard_t(3, (*shape[:-1], 1))
    return np.where(noise > 0, 1.5 * noise, noise)


def bimodal(rng: np.random.Generator, shape: tuple[int, ...]) -> Values:
    """Each process lands in one of two states 1.5 % apart, as with the layout of memory."""
    return (
        0.015 * (rng.random((*shape[:-1], 1)) < 0.4) + 0.002 * rng.standard_normal((*shape[:-1], 1)) + _fine(rng, shape)
    )


def drift(rng: np.random.Generator, shape: tuple[int, ...]) -> Values:
    """The machine slows by 2 % while both sides are measured in turn."""
    order = np.arange(shape[1]) / max(1, shape[1] - 1)
    return 0.02 * order[None, :, None] + 0.003 * rng.standard_normal((*shape[:-1], 1)) + _fine(rng, shape)


def autocorrelated(rng: np.random.Generator, shape: tuple[int, ...]) -> Values:
    """2 % from sample to sample, each remembering 0.9 of the one before."""
    steps = 0.02 * math.sqrt(1 - 0.9**2) * rng.standard_normal(shape)
    steps[..., 0] = 0.02 * rng.standard_normal(shape[:-1])
    for index in range(1, shape[-1]):
        steps[..., index] += 0.9 * steps[..., index - 1]
    return steps


def process_offset(rng: np.random.Generator, shape: tuple[int, ...]) -> Values:
    """Each process has a speed of its own, 0.8 % apart."""
    return 0.008 * rng.standard_normal((*shape[:-1], 1)) + _fine(rng, shape)


def loud_offset(rng: np.random.Generator, shape: tuple[int, ...]) -> Values:
    """Each process has a speed of its own, 3 % apart: more noise than the change that is sought."""
    return 0.03 * rng.standard_normal((*shape[:-1], 1)) + _fine(rng, shape)


def _fine(rng: np.random.Generator, shape: tuple[int, ...]) -> Values:
    """What is left from sample to sample within a process: 0.5 %."""
    return 0.005 * rng.standard_normal(shape)


NOISES: tuple[Callable[[np.random.Generator, tuple[int, ...]], Values], ...] = (
    gaussian,
    heavy_tail,
    bimodal,
    drift,
    autocorrelated,
    process_offset,
    loud_offset,
)


def simulate(
    noise: Callable[[np.random.Generator, tuple[int, ...]], Values],
    *,
    factor: float,
    runs: int,
    repeats: int,
    seed: int = 0,
) -> Tally:
    """What the gate says when head takes `factor` times as long as base, in `repeats` comparisons of `runs` a side."""
    rng = np.random.default_rng([seed, runs, round(1000 * factor)])
    both = np.median(np.exp(noise(rng, (repeats, 2 * runs, SAMPLES))), axis=-1)
    judged = [judge(sides[0::2].tolist(), (factor * sides[1::2]).tolist()) for sides in both]
    covered = [interval[0] <= factor <= interval[1] for _, interval in judged]
    names: tuple[Verdict, ...] = ("same", "faster", "slower", "inconclusive")
    shares: dict[Verdict, float] = {name: sum(v == name for v, _ in judged) / repeats for name in names}
    return Tally(verdicts=shares, coverage=sum(covered) / repeats)


def judge(base: Sequence[float], head: Sequence[float]) -> tuple[Verdict, tuple[float, float]]:
    """The gate's verdict on one metric, and its interval, by the default limit of 3 %."""
    old, new = float(np.median(base)), float(np.median(head))
    row = Row(
        suite="s",
        case_id="c",
        case="c",
        metric=LATENCY.name,
        unit=LATENCY.unit,
        better="lower",
        base=old,
        head=new,
        ratio=new / old,
        runs=(len(base), len(head)),
        verdict="inconclusive",
        reason="",
    )
    finding = find_runs(row, limits_of(LATENCY, None, base=old), base, head, note="")
    if finding.change is None or finding.row.interval is None:
        raise ValueError(f"{len(base)} runs are too few to simulate")
    return decide(finding, p=finding.change.p, comparisons=1).verdict, finding.row.interval


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("repeats", nargs="?", type=int, default=2000)
    repeats = parser.parse_args().repeats
    started = time.monotonic()
    print("# The gate on simulated noise\n")
    print(
        f"{repeats} repeats a cell, default limit of 3 %, runs of both sides in turn. Written by gate_simulation.py.\n"
    )
    print(
        "| noise | runs a side | false alarms | undecided | 5 % found | 10 % found | coverage of 1 | coverage of 1.05 |"
    )
    print("|---|---:|---:|---:|---:|---:|---:|---:|")
    for noise, runs in [*((noise, 5) for noise in NOISES), (loud_offset, 20)]:
        none, some, much = (simulate(noise, factor=f, runs=runs, repeats=repeats) for f in (1.0, 1.05, 1.1))
        alarms = none.verdicts["slower"] + none.verdicts["faster"]
        cells = (alarms, none.verdicts["inconclusive"], some.verdicts["slower"], much.verdicts["slower"])
        shown = " | ".join(f"{100 * cell:.1f} %" for cell in (*cells, none.coverage, some.coverage))
        print(f"| {noise.__name__.replace('_', ' ')} | {runs} | {shown} |", flush=True)
    print("\n" + "\n".join(f"- **{noise.__name__.replace('_', ' ')}**: {noise.__doc__}" for noise in NOISES))
    print(f"{time.monotonic() - started:.0f} s", file=sys.stderr)


if __name__ == "__main__":
    main()
