"""Simulates how often the interval of a timing contains the true median, and how often a drift is found.

    python benchmarks/interval_coverage.py [repeats] [--out FOLDER]

Each timing is drawn from a noise with a known median. `covered` is the share of timings whose 95 % interval contains
that median, `marked` the share called drifting. In further timings of the same noise a change of 5 % is planted: a
trend from the first sample to the last, a step at a random place in the middle 60 %, or a shift of 30 % of the samples.
Writes interval_coverage.md and interval_coverage.json into this folder.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from zlib import crc32

import numpy as np
from numpy.typing import NDArray
from scipy.signal import lfilter
from scipy.special import ndtr, stdtrit

from bench.core.drift import find_drift, timing_interval
from bench.core.stats import median_interval

Floats = NDArray[np.float64]
Draw = Callable[[np.random.Generator, int], Floats]
PLANTED = 0.05
COUNTS = (45, 100, 300, 1000)  # a timing takes at least 30 samples and 3 s; reports/quickstart has 45 to 606


@dataclass(frozen=True, kw_only=True)
class Noise:
    """Samples around a level of 1 whose median is known."""

    title: str
    draw: Draw
    median: float = 1.0


def gaussian(size: float) -> Draw:
    """Independent samples, log-normal."""
    return lambda rng, n: np.exp(size * rng.standard_normal(n))


def heavy(rng: np.random.Generator, n: int) -> Floats:
    """Interruptions: upwards only, 1 % times Student's t with 2 degrees of freedom."""
    return np.exp(0.01 * np.abs(rng.standard_t(2, n)))


def two_mode(share: float, *, apart: float, dwell: float = 1.0) -> Draw:
    """A `share` of the samples is slower by `apart`; it stays so for `dwell` samples on average (1: independent)."""

    def draw(rng: np.random.Generator, n: int) -> Floats:
        is_slow = rng.random(n) < share
        if dwell > 1:
            leave_slow, leave_fast = 1 / dwell, share / (1 - share) / dwell
            state, chance = bool(is_slow[0]), rng.random(n)
            for place in range(n):
                is_slow[place] = state
                state = chance[place] >= leave_slow if state else chance[place] < leave_fast
        return (1 + apart * is_slow) * gaussian(0.01)(rng, n)

    return draw


def correlated(rho: float, *, size: float = 0.01) -> Draw:
    """AR(1): each sample remembers the share `rho` of the one before; `size` is the spread of all samples."""

    def draw(rng: np.random.Generator, n: int) -> Floats:
        drawn = rng.standard_normal(n) * np.sqrt(1 - rho * rho)
        drawn[0] /= np.sqrt(1 - rho * rho)
        noise: Floats = np.exp(size * lfilter([1.0], [1.0, -rho], drawn))
        return noise

    return draw


def slow_and_white(rng: np.random.Generator, n: int) -> Floats:
    """Independent noise of 1 %, and a slow one of 0.5 % that remembers 0.9 of the sample before."""
    return gaussian(0.01)(rng, n) * correlated(0.9, size=0.005)(rng, n)


def _mixture_median(share: float, apart: float) -> float:
    """Median of the two modes, by bisection of their distribution function."""
    low, high = 0.9, 1.1 + apart
    for _ in range(60):
        middle = (low + high) / 2
        below = (1 - share) * ndtr(np.log(middle) / 0.01) + share * ndtr(np.log(middle / (1 + apart)) / 0.01)
        low, high = (middle, high) if below < 0.5 else (low, middle)
    return low


NOISES = (
    Noise(title="independent, 0.3 %", draw=gaussian(0.003)),
    Noise(title="independent, 1 %", draw=gaussian(0.01)),
    Noise(title="independent, 2 %", draw=gaussian(0.02)),
    Noise(title="interruptions", draw=heavy, median=float(np.exp(0.01 * stdtrit(2, 0.75)))),
    Noise(title="two modes 4 % apart, 30 % slow", draw=two_mode(0.3, apart=0.04), median=_mixture_median(0.3, 0.04)),
    Noise(title="two modes 10 % apart, 20 % slow", draw=two_mode(0.2, apart=0.1), median=_mixture_median(0.2, 0.1)),
    Noise(
        title="two modes 4 % apart, 30 % slow, 3 at a time",
        draw=two_mode(0.3, apart=0.04, dwell=3),
        median=_mixture_median(0.3, 0.04),
    ),
    Noise(title="AR(1) 0.3, 1 %", draw=correlated(0.3)),
    Noise(title="AR(1) 0.5, 1 %", draw=correlated(0.5)),
    Noise(title="AR(1) 0.7, 1 %", draw=correlated(0.7)),
    Noise(title="AR(1) 0.8, 1 %", draw=correlated(0.8)),
    Noise(title="AR(1) 0.9, 1 %", draw=correlated(0.9)),
    Noise(title="white 1 % and AR(1) 0.9, 0.5 %", draw=slow_and_white),
)


def trend(timing: Floats, rng: np.random.Generator) -> Floats:
    return timing * np.linspace(1, 1 + PLANTED, len(timing))


def step(timing: Floats, rng: np.random.Generator) -> Floats:
    start = rng.uniform(0.2, 0.8) * len(timing)
    return timing * np.where(np.arange(len(timing)) >= start, 1 + PLANTED, 1.0)


def shift(timing: Floats, rng: np.random.Generator) -> Floats:
    start, place = rng.uniform(0.1, 0.6) * len(timing), np.arange(len(timing))
    return timing * np.where((place >= start) & (place < start + 0.3 * len(timing)), 1 + PLANTED, 1.0)


def simulate(noise: Noise, n: int, *, repeats: int, seed: int = 0) -> dict[str, float]:
    """Shares of `repeats` timings that are covered, covered by the plain interval, marked, and marked if planted."""
    found = dict.fromkeys(("covered", "plain", "marked", "trend", "step", "shift"), 0)
    for repeat in range(repeats):
        rng = np.random.default_rng([seed, n, repeat, crc32(noise.title.encode())])
        timing = 7.5 * noise.draw(rng, n)
        true = 7.5 * noise.median
        for name, interval in (("covered", timing_interval), ("plain", median_interval)):
            estimate = interval(timing.tolist())
            found[name] += estimate.low <= true <= estimate.high
        found["marked"] += find_drift(timing.tolist()) is not None
        for plant in (trend, step, shift):
            found[plant.__name__] += find_drift(plant(timing, rng).tolist()) is not None
    return {name: count / repeats for name, count in found.items()}


def main() -> None:
    """Write the table."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("repeats", type=int, nargs="?", default=1000)
    arguments.add_argument("--out", type=Path, default=Path(__file__).parent)
    given = arguments.parse_args()
    started = time.monotonic()
    found = {(noise.title, n): simulate(noise, n, repeats=given.repeats) for noise in NOISES for n in COUNTS}
    lines = [
        f"| {title} | {n} | " + " | ".join(f"{100 * share:.1f}" for share in shares.values()) + " |"
        for (title, n), shares in found.items()
    ]
    rows = [{"noise": title, "samples": n, **shares} for (title, n), shares in found.items()]
    text = f"""# Interval and drift test of one timing, on simulated noise

{given.repeats} timings a row, in percent of them. Written by interval_coverage.py. `covered`: the printed 95 % interval
contains the true median; `plain`: the interval of independent samples would; `marked`: called drifting without a
change; `trend`, `step`, `shift`: called drifting with a planted change of 5 %.

| noise | samples | covered | plain | marked | trend | step | shift |
|---|---:|---:|---:|---:|---:|---:|---:|
"""
    (given.out / "interval_coverage.md").write_text(text + "\n".join(lines) + "\n", encoding="utf-8")
    (given.out / "interval_coverage.json").write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    print(f"{time.monotonic() - started:.0f} s", file=sys.stderr)


if __name__ == "__main__":
    main()
