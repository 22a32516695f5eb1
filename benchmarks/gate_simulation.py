"""Simulates how often the gate is wrong on known kinds of noise.

    python benchmarks/gate_simulation.py [REPEATS] > benchmarks/gate_simulation.md

Each repeat simulates processes that time one model, reduces each to its median, and calls the gate's own code. In the
first table runs of base and head alternate; in the second base has more runs; in the third each side has its own
sessions, as if the results of two jobs, or a baseline and a head, were compared.
"""

import argparse
import math
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bench.comparison.allowed_changes import limits_of
from bench.comparison.assessments import assess_runs, decide
from bench.comparison.verdicts import MetricVerdict, Verdict
from bench.core.schema import Metric

Values = NDArray[np.float64]
SAMPLES = 40
LATENCY = Metric(name="latency.p50_ms", value=1.0, unit="ms", better="lower")


Noise = Callable[[np.random.Generator, tuple[int, ...]], Values]


@dataclass(frozen=True, kw_only=True)
class Tally:
    """Share of repeats per verdict, and share whose interval held the true ratio."""

    verdicts: dict[Verdict, float]
    coverage: float


def gaussian(rng: np.random.Generator, shape: tuple[int, ...]) -> Values:
    """2 % between samples, nothing between processes."""
    return 0.02 * rng.standard_normal(shape)


def heavy_tail(rng: np.random.Generator, shape: tuple[int, ...]) -> Values:
    """Interruptions: Student's t, 2 degrees of freedom between samples, 3 between processes, longer upper tail."""
    noise = 0.01 * rng.standard_t(2, shape) + 0.004 * rng.standard_t(3, (*shape[:-1], 1))
    return np.where(noise > 0, 1.5 * noise, noise)


def bimodal(rng: np.random.Generator, shape: tuple[int, ...]) -> Values:
    """Each process is in one of two states 1.5 % apart, such as two memory layouts."""
    return (
        0.015 * (rng.random((*shape[:-1], 1)) < 0.4) + 0.002 * rng.standard_normal((*shape[:-1], 1)) + _fine(rng, shape)
    )


def drift(rng: np.random.Generator, shape: tuple[int, ...]) -> Values:
    """The machine slows down by 2 % while both sides are measured in turn."""
    order = np.arange(shape[1]) / max(1, shape[1] - 1)
    return 0.02 * order[None, :, None] + 0.003 * rng.standard_normal((*shape[:-1], 1)) + _fine(rng, shape)


def autocorrelated(rng: np.random.Generator, shape: tuple[int, ...]) -> Values:
    """2 % between samples, AR(1) with coefficient 0.9."""
    steps = 0.02 * math.sqrt(1 - 0.9**2) * rng.standard_normal(shape)
    steps[..., 0] = 0.02 * rng.standard_normal(shape[:-1])
    for index in range(1, shape[-1]):
        steps[..., index] += 0.9 * steps[..., index - 1]
    return steps


def process_offset(rng: np.random.Generator, shape: tuple[int, ...]) -> Values:
    """Processes differ in speed by 0.8 %."""
    return 0.008 * rng.standard_normal((*shape[:-1], 1)) + _fine(rng, shape)


def loud_offset(rng: np.random.Generator, shape: tuple[int, ...]) -> Values:
    """Processes differ in speed by 3 %, as much as the limit."""
    return 0.03 * rng.standard_normal((*shape[:-1], 1)) + _fine(rng, shape)


def _fine(rng: np.random.Generator, shape: tuple[int, ...]) -> Values:
    """Return the noise between samples of one process: 0.5 %."""
    return 0.005 * rng.standard_normal(shape)


NOISES: tuple[Noise, ...] = (
    gaussian,
    heavy_tail,
    bimodal,
    drift,
    autocorrelated,
    process_offset,
    loud_offset,
)


def equal(rng: np.random.Generator, shape: tuple[int, ...]) -> Values:
    """Sessions have the same speed."""
    return np.zeros(shape)


def half_a_percent(rng: np.random.Generator, shape: tuple[int, ...]) -> Values:
    """Sessions differ in speed by 0.5 %, as on a dedicated machine with locked clocks."""
    return 0.5 * one_percent(rng, shape)


def one_percent(rng: np.random.Generator, shape: tuple[int, ...]) -> Values:
    """Sessions differ in speed by 1 %."""
    return 0.01 * rng.standard_normal((*shape[:-1], 1)) + np.zeros(shape)


def two_percent(rng: np.random.Generator, shape: tuple[int, ...]) -> Values:
    """Sessions differ in speed by 2 %: three pairs in ten differ by more than the limit."""
    return 2 * one_percent(rng, shape)


def one_drift(rng: np.random.Generator, shape: tuple[int, ...]) -> Values:
    """The machine slows down by 5 % from the first run of base to the last run of head."""
    return np.zeros(shape) + 0.05 * np.linspace(0, 1, shape[1] * shape[2]).reshape(shape[1:])


SESSIONS: tuple[Noise, ...] = (equal, half_a_percent, one_percent, two_percent, one_drift)


def simulate_sessions(offsets: Noise, *, of_base: int, factor: float, runs: int, repeats: int, seed: int = 0) -> Tally:
    """Simulate `of_base` sessions of base before one of head, each of `runs` processes that differ by 0.3 %.

    `offsets` returns what each session adds, `(repeats, sessions, runs)`.
    """
    rng = np.random.default_rng([seed, runs, of_base, round(1000 * factor)])
    shape = repeats, of_base + 1, runs
    process = 0.003 * rng.standard_normal(shape)
    values = np.exp(offsets(rng, shape) + process + np.median(_fine(rng, (*shape, SAMPLES)), axis=-1))
    values[:, -1] *= factor
    judged = [
        judge(each[:-1].ravel().tolist(), each[-1].tolist(), sessions=(each[:-1].tolist(), each[-1:].tolist()))
        for each in values
    ]
    return tally(judged, factor=factor)


def simulate_unequal(noise: Noise, *, of_base: int, factor: float, runs: int, repeats: int, seed: int = 0) -> Tally:
    """Simulate `of_base` runs of base and `runs` of head, such as a baseline that holds more runs than head has."""
    rng = np.random.default_rng([seed, runs, of_base, round(1000 * factor)])
    both = np.median(np.exp(noise(rng, (repeats, of_base + runs, SAMPLES))), axis=-1)
    judged = [judge(each[:of_base].tolist(), (factor * each[of_base:]).tolist()) for each in both]
    return tally(judged, factor=factor)


def simulate(noise: Noise, *, factor: float, runs: int, repeats: int, seed: int = 0) -> Tally:
    """Return the gate's verdicts if head takes `factor` times as long as base, over `repeats` of `runs` a side."""
    rng = np.random.default_rng([seed, runs, round(1000 * factor)])
    both = np.median(np.exp(noise(rng, (repeats, 2 * runs, SAMPLES))), axis=-1)
    return tally([judge(sides[0::2].tolist(), (factor * sides[1::2]).tolist()) for sides in both], factor=factor)


def tally(judged: Sequence[tuple[Verdict, tuple[float, float]]], *, factor: float) -> Tally:
    """Return the counts of verdicts and intervals of all repeats."""
    covered = [interval[0] <= factor <= interval[1] for _, interval in judged]
    names: tuple[Verdict, ...] = ("same", "better", "worse", "inconclusive")
    shares: dict[Verdict, float] = {name: sum(v == name for v, _ in judged) / len(judged) for name in names}
    return Tally(verdicts=shares, coverage=sum(covered) / len(judged))


def judge(
    base: Sequence[float], head: Sequence[float], *, sessions: Sequence[Sequence[Sequence[float]]] | None = None
) -> tuple[Verdict, tuple[float, float]]:
    """Return the gate's verdict on one metric and its interval, with the default limit of 3 %."""
    old, new = float(np.median(base)), float(np.median(head))
    row = MetricVerdict(
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
    assessment = assess_runs(row, limits_of(LATENCY, None, base=old), base, head, note="", sessions=sessions)
    if assessment.change is None or assessment.row.interval is None:
        raise ValueError(f"{len(base)} runs are too few to simulate")
    return decide(assessment, p=assessment.change.p, comparisons=1).verdict, assessment.row.interval


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("repeats", nargs="?", type=int, default=2000)
    repeats = parser.parse_args().repeats
    started = time.monotonic()
    print("# The gate on simulated noise\n")
    print(f"{repeats} repeats a cell, default limit of 3 %. Written by gate_simulation.py.\n")
    print("Runs of both sides in turn:\n")
    print(f"| noise | runs a side | {COLUMNS} |\n|---|---:|{RULES}")
    for noise, runs in [*((noise, 5) for noise in NOISES), (loud_offset, 20)]:
        cells = [simulate(noise, factor=factor, runs=runs, repeats=repeats) for factor in FACTORS]
        print(f"| {_name(noise)} | {runs} | {_cells(cells)} |", flush=True)
    print("\n" + "\n".join(f"- **{_name(noise)}**: {noise.__doc__}" for noise in NOISES))
    print("\nMore runs of base than of head, all independent:\n")
    print(f"| noise | runs of base | of head | {COLUMNS} |\n|---|---:|---:|{RULES}")
    for noise, of_base, runs in [
        (process_offset, 20, 5),
        (loud_offset, 8, 4),
        (loud_offset, 20, 4),
        (loud_offset, 40, 4),
        (loud_offset, 20, 5),
    ]:
        cells = [
            simulate_unequal(noise, of_base=of_base, factor=factor, runs=runs, repeats=repeats) for factor in FACTORS
        ]
        print(f"| {_name(noise)} | {of_base} | {runs} | {_cells(cells)} |", flush=True)
    print("\nBase and head in separate sessions of five runs, one session of head:\n")
    print(f"| sessions | of base | {COLUMNS} |\n|---|---:|{RULES}")
    for offsets, of_base in [*((each, 1) for each in SESSIONS), *((each, 8) for each in (one_percent, two_percent))]:
        cells = [
            simulate_sessions(offsets, of_base=of_base, factor=factor, runs=5, repeats=repeats) for factor in FACTORS
        ]
        print(f"| {_name(offsets)} | {of_base} | {_cells(cells)} |", flush=True)
    print("\n" + "\n".join(f"- **{_name(offsets)}**: {offsets.__doc__}" for offsets in SESSIONS))
    print(f"{time.monotonic() - started:.0f} s", file=sys.stderr)


FACTORS = (1.0, 1.05, 1.1)
COLUMNS = "false alarms | undecided | 5 % found | 10 % found | coverage of 1 | coverage of 1.05"
RULES = "---:|" * 6


def _name(noise: Noise) -> str:
    return noise.__name__.replace("_", " ")


def _cells(tallies: Sequence[Tally]) -> str:
    none, some, much = tallies
    alarms = none.verdicts["worse"] + none.verdicts["better"]
    cells = (alarms, none.verdicts["inconclusive"], some.verdicts["worse"], much.verdicts["worse"])
    return " | ".join(f"{100 * cell:.1f} %" for cell in (*cells, none.coverage, some.coverage))


if __name__ == "__main__":
    main()
