"""Simulates how often `vbench ab` is wrong on known kinds of noise.

    python benchmarks/ab_simulation.py [REPEATS] > benchmarks/ab_simulation.md

Each repeat simulates processes in the order in which `vbench ab` starts them and analyses their values with the gate's
own code after every pair, until a verdict or the largest number of pairs. A repeat has one metric, and whole processes
alternate, as on a GPU or with `--apart`. If the sides alternate step by step instead, the pair of processes is still
the unit, and noise that both share cancels. Several metrics share the error rate (Bonferroni): each is wrong less often
and needs more runs.
"""

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from gate_simulation import LATENCY, NOISES, Values, _fine, bimodal, heavy_tail, loud_offset
from numpy.typing import NDArray

from bench.ab.rounds import FIRST
from bench.comparison.allowed_changes import limits_of
from bench.comparison.assessments import assess_pairs, decide_interim
from bench.comparison.sequential import MAX_PAIRS, MIN_PAIRS
from bench.comparison.verdicts import MetricVerdict, Verdict

Noise = Callable[[np.random.Generator, tuple[int, ...]], Values]
SAMPLES = 20
FACTORS = (1.0, 1.015, 1.05, 1.1)


@dataclass(frozen=True, kw_only=True)
class Tally:
    """Share of repeats per verdict, share whose intervals always held the truth, and mean number of runs a side."""

    verdicts: dict[Verdict, float]
    coverage: float
    runs: float


def wide_bimodal(rng: np.random.Generator, shape: tuple[int, ...]) -> Values:
    """Each process is in one of two states 4 % apart, more than the limit."""
    state = 0.04 * (rng.random((*shape[:-1], 1)) < 0.4)
    return state + 0.002 * rng.standard_normal((*shape[:-1], 1)) + _fine(rng, shape)


def following(rng: np.random.Generator, shape: tuple[int, ...]) -> Values:
    """The speed of processes varies by 5 % and follows an AR(1) process with coefficient 0.7."""
    steps = rng.standard_normal(shape[:-1])
    for index in range(1, shape[1]):
        steps[:, index] = 0.7 * steps[:, index - 1] + np.sqrt(1 - 0.7**2) * steps[:, index]
    return 0.05 * steps[..., None] + _fine(rng, shape)


def neighbours(rng: np.random.Generator, shape: tuple[int, ...]) -> Values:
    """Other work uses the machine a third of the time, for about six processes at a stretch, and doubles all times."""
    is_busy = rng.random(shape[0]) < 1 / 3
    busy = np.zeros(shape[:-1])
    for index in range(shape[1]):
        is_busy ^= rng.random(shape[0]) < np.where(is_busy, 1 / 6, 1 / 12)
        busy[:, index] = is_busy
    return np.abs(0.7 + 0.3 * rng.standard_normal(shape[:-1]))[..., None] * busy[..., None] + _fine(rng, shape)


ALL_NOISES: tuple[Noise, ...] = (*NOISES, wide_bimodal, following, neighbours)


def simulate(noise: Noise, *, factor: float, repeats: int, pairs: int = MAX_PAIRS, seed: int = 0) -> Tally:
    """Return the outcome of analyses after every pair, up to `pairs`, if head takes `factor` times as long as base."""
    rng = np.random.default_rng([seed, pairs, round(1000 * factor)])
    values = np.exp(np.median(noise(rng, (repeats, 2 * pairs, SAMPLES)), axis=-1))
    ended = [judge(each, factor=factor) for each in in_pairs(values, factor=factor)]
    names: tuple[Verdict, ...] = ("same", "better", "worse", "inconclusive")
    return Tally(
        verdicts={name: sum(verdict == name for verdict, _, _ in ended) / repeats for name in names},
        coverage=sum(held for _, held, _ in ended) / repeats,
        runs=sum(runs for _, _, runs in ended) / repeats,
    )


def in_pairs(values: Values, *, factor: float) -> NDArray[np.float64]:
    """Return `(repeats, processes)` in order of start as `(repeats, pairs, 2)` of base and head."""
    repeats, processes = values.shape
    pairs = np.empty((repeats, processes // 2, 2))
    for index in range(processes // 2):
        is_head_first = FIRST[index % len(FIRST)] == "head"
        for turn, is_head in enumerate((is_head_first, not is_head_first)):
            pairs[:, index, int(is_head)] = values[:, 2 * index + turn] * (factor if is_head else 1.0)
    return pairs


def judge(pairs: Values, *, factor: float) -> tuple[Verdict, bool, int]:
    """Return the final verdict, whether all intervals until then held `factor`, and the number of runs a side."""
    held = True
    limits = limits_of(LATENCY, None, base=1.0)
    for count in range(MIN_PAIRS, len(pairs) + 1):
        given = [(float(base), float(head)) for base, head in pairs[:count]]
        row = decide_interim(assess_pairs(_row(), limits, given, note=""), comparisons=1)
        assert row.interval is not None
        held = held and row.interval[0] <= factor <= row.interval[1]
        if not row.is_open:
            break
    return row.verdict, held, count


def _row() -> MetricVerdict:
    return MetricVerdict(
        suite="s",
        case_id="c",
        case="c",
        metric=LATENCY.name,
        unit=LATENCY.unit,
        better="lower",
        base=1.0,
        head=1.0,
        ratio=1.0,
        runs=(0, 0),
        verdict="inconclusive",
        reason="",
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("repeats", nargs="?", type=int, default=2000)
    repeats = parser.parse_args().repeats
    started = time.monotonic()
    print("# `vbench ab` on simulated noise\n")
    print(
        f"{repeats} repeats a cell, default limit of 3 %, an analysis after every pair from the third on.\n"
        "Written by ab_simulation.py.\n"
    )
    print(
        "| noise | pairs | false alarms | undecided | runs a side | 1.5 % called worse | 5 % found | runs a side "
        "| 10 % found | runs a side | all intervals hold 1 |"
    )
    print("|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|")
    short: list[tuple[Noise, int]] = [(bimodal, 10), (heavy_tail, 10), (loud_offset, 14)]
    for noise, pairs in [*((noise, MAX_PAIRS) for noise in ALL_NOISES), *short]:
        none, little, some, much = (simulate(noise, factor=f, repeats=repeats, pairs=pairs) for f in FACTORS)
        alarms = none.verdicts["worse"] + none.verdicts["better"]
        print(
            f"| {noise.__name__.replace('_', ' ')} | {pairs} | {alarms:.1%} | {none.verdicts['inconclusive']:.1%} "
            f"| {none.runs:.1f} | {little.verdicts['worse']:.1%} | {some.verdicts['worse']:.1%} | {some.runs:.1f} "
            f"| {much.verdicts['worse']:.1%} | {much.runs:.1f} | {none.coverage:.1%} |",
            flush=True,
        )
    print("\n" + "\n".join(f"- **{noise.__name__.replace('_', ' ')}**: {noise.__doc__}" for noise in ALL_NOISES))
    print(f"{time.monotonic() - started:.0f} s", file=sys.stderr)


if __name__ == "__main__":
    main()
