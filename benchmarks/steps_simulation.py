"""Simulates how often `vbench history` finds steps in series of known kinds.

    python benchmarks/steps_simulation.py > benchmarks/steps_simulation.md

Each repeat draws a series of one value per commit and searches it for steps. A series counts as found if each of its
steps is found at most one commit away and there is no other; it counts as wrong otherwise, if any step was found.
"""

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bench.comparison.steps import find_steps

Noise = Callable[[np.random.Generator, int], NDArray[np.float64]]


@dataclass(frozen=True, kw_only=True)
class Series:
    """A series of commits whose level is multiplied by each factor from its index on."""

    title: str
    length: int
    levels: Sequence[tuple[int, float]] = ()
    noise: Noise


def gaussian(rng: np.random.Generator, length: int) -> NDArray[np.float64]:
    """1 % between commits."""
    return np.exp(0.01 * rng.standard_normal(length))


def heavy(rng: np.random.Generator, length: int) -> NDArray[np.float64]:
    """Interruptions: the absolute value of Student's t with 2 degrees of freedom, in percent."""
    return np.exp(0.01 * np.abs(rng.standard_t(2, length)))


def following(rng: np.random.Generator, length: int) -> NDArray[np.float64]:
    """1 %, each remembering half of the one before: what the search does not assume."""
    drawn = rng.standard_normal(length)
    for number in range(1, length):
        drawn[number] = 0.5 * drawn[number - 1] + np.sqrt(0.75) * drawn[number]
    return np.exp(0.01 * drawn)


def _catalogue() -> list[Series]:
    none = [
        Series(title=f"no step in {length}", length=length, noise=noise)
        for length in (12, 30, 100)
        for noise in (gaussian, heavy)
    ]
    steps = [
        ("5 % from the middle of 30", 30, [(15, 1.05)]),
        ("3 % from the middle of 30", 30, [(15, 1.03)]),
        ("10 % in the last 4 of 12", 12, [(8, 1.1)]),
        ("10 % in the last 3 of 30", 30, [(27, 1.1)]),
        ("10 % in the last 2 of 30", 30, [(28, 1.1)]),
        ("10 % in 40 to 60 of 100", 100, [(40, 1.1), (60, 1 / 1.1)]),
        ("10 % in 20 to 24 of 40", 40, [(20, 1.1), (24, 1 / 1.1)]),
        ("5 % from 20, again from 40 of 60", 60, [(20, 1.05), (40, 1.05)]),
        ("5 % from 20 to 50 and from 70 of 90", 90, [(20, 1.05), (50, 1 / 1.05), (70, 1.05)]),
        ("10 % in 2 stretches of 5, 20 between", 70, [(20, 1.1), (25, 1 / 1.1), (45, 1.1), (50, 1 / 1.1)]),
        ("10 % in 2 stretches of 5, 10 between", 40, [(10, 1.1), (15, 1 / 1.1), (25, 1.1), (30, 1 / 1.1)]),
        ("10 % in 14 to 16 of 30", 30, [(14, 1.1), (16, 1 / 1.1)]),
    ]
    planted = [
        Series(title=title, length=length, levels=levels, noise=noise)
        for title, length, levels in steps
        for noise in (gaussian, heavy)
    ]
    return [*none, Series(title="no step in 30", length=30, noise=following), *planted]


def simulate(series: Series, *, repeats: int, seed: int = 0) -> tuple[float, float, float]:
    """Shares of repeats, of 1: found, no step seen, wrong. Without a planted step, none seen is found."""
    true = [index for index, _ in series.levels]
    tally = [0, 0, 0]
    for repeat in range(repeats):
        values = 100 * series.noise(np.random.default_rng([seed, repeat]), series.length)
        for index, factor in series.levels:
            values[index:] *= factor
        steps = [step.index for step in find_steps(values.tolist())]
        is_found = len(steps) == len(true) and all(abs(a - b) <= 1 for a, b in zip(steps, true, strict=True))
        tally[0 if is_found else 2 if steps else 1] += 1
    found, unseen, wrong = (count / repeats for count in tally)
    return found, unseen, wrong


def main() -> None:
    """Print the table."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("repeats", type=int, nargs="?", default=300)
    repeats = arguments.parse_args().repeats
    started = time.monotonic()
    print(f"# Steps in simulated series\n\n{repeats} repeats a row. Written by steps_simulation.py.\n")
    print("| series | noise | right | no step seen | wrong |\n|---|---|---:|---:|---:|")
    for series in _catalogue():
        shares = simulate(series, repeats=repeats)
        kind = getattr(series.noise, "__name__", "")
        print(f"| {series.title} | {kind} | " + " | ".join(f"{100 * share:.1f} %" for share in shares) + " |")
    print()
    for noise in (gaussian, heavy, following):
        print(f"- **{noise.__name__}**: {noise.__doc__}")
    print(f"{time.monotonic() - started:.0f} s", file=sys.stderr)


if __name__ == "__main__":
    main()
