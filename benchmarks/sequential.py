"""Compares sequential tests for `vbench ab` on the noise of pairs that real measurements recorded.

    vbench ab model:resnet3d_18 model:resnet3d_18 suite.yaml --gate latency.p50_ms=0.001% --out same
    python benchmarks/sequential.py --add same            # keeps the ratios of its pairs in sequential.jsonl
    python benchmarks/sequential.py > benchmarks/sequential.md

All tests are analysed on the same simulated pairs, with a limit of 3 % and an error rate of 1 % for all cases together.
A case is `worse` or `better` if its mean is beyond the limit and the test excludes "no change", `same` if the test
excludes every change beyond the limit. At most 64 pairs.
"""

import argparse
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import betaln, stdtrit

from bench.comparison.evidence import ALPHA
from bench.comparison.pairing import pair_of_values
from bench.comparison.sequential import MAX_PAIRS, MIN_PAIRS, critical_t, least_spread
from bench.store import read_records

Values = NDArray[np.float64]
Noise = Callable[[np.random.Generator, int], Values]  # `(repeats, MAX_PAIRS)` logarithms of the ratios of pairs
Test = Callable[[Values, int], tuple[Values, Values]]  # pairs so far and comparisons → interval of the mean logarithm

HERE = Path(__file__).parent
TRACES, MEASUREMENTS = HERE / "sequential.jsonl", HERE / "ab_noise.jsonl"
METRIC = "latency.p50_ms"
LIMIT = math.log(1.03)
EIGHT = (6, 8, 12, 16, 24, 32, 48, 64)  # the analyses of `vbench ab` before 0022
ELEVEN = (3, 4, 5, *EIGHT)
EFFECTS = (1.05, 1.1, 1.5)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """Share of cases called changed, share without a verdict, and the pairs until a verdict at two quantiles."""

    changed: float
    undecided: float
    median: float
    most: float


def planned(analyses: Sequence[int], *, has_least_spread: bool) -> Test:
    """Student's interval at planned analyses; each spends an equal share of the error rate (Bonferroni)."""

    def interval(steps: Values, comparisons: int) -> tuple[Values, Values]:
        pairs = steps.shape[1]
        if pairs not in analyses:
            return np.full(len(steps), -np.inf), np.full(len(steps), np.inf)
        level = ALPHA / comparisons / len(analyses)
        return _around(steps, float(stdtrit(pairs - 1, 1 - level / 2)), has_least_spread=has_least_spread)

    return interval


def mixture(steps: Values, comparisons: int) -> tuple[Values, Values]:
    """Return where the mixture e-value is below comparisons / 1 %: what `vbench ab` does."""
    return _around(steps, critical_t(steps.shape[1], threshold=comparisons / ALPHA), has_least_spread=True)


def signs(steps: Values, comparisons: int) -> tuple[Values, Values]:
    """Return the interval of a bet on the signs of pairs alone, valid for any symmetric noise.

    The bettor's capital against a median m is that of Krichevsky and Trofimov, 1981.
    """
    pairs = steps.shape[1]
    counts = np.arange(pairs + 1)
    capital = pairs * math.log(2) + betaln(counts + 0.5, pairs - counts + 0.5) - betaln(0.5, 0.5)
    kept = counts[capital < math.log(comparisons / ALPHA)]
    padded = np.pad(np.sort(steps, axis=1), ((0, 0), (1, 1)), constant_values=(-np.inf, np.inf))
    return padded[:, kept[0]], padded[:, kept[-1] + 1]


def _around(steps: Values, critical: float, *, has_least_spread: bool) -> tuple[Values, Values]:
    pairs = steps.shape[1]
    spread = np.maximum(steps.std(axis=1, ddof=1), least_spread(pairs) if has_least_spread else 0.0)
    half = spread / math.sqrt(pairs) * critical
    return steps.mean(axis=1) - half, steps.mean(axis=1) + half


TESTS: dict[str, Test] = {
    "8 analyses from 6 pairs": planned(EIGHT, has_least_spread=False),
    "11 analyses from 3 pairs": planned(ELEVEN, has_least_spread=False),
    "11 analyses, least spread": planned(ELEVEN, has_least_spread=True),
    "bets on signs": signs,
    "mixture e-value": mixture,
}


def outcome(test: Test, steps: Values, *, comparisons: int) -> Outcome:
    """Return how the measurements in the rows of `steps` end, analysed after every pair from the third on."""
    verdicts, taken = np.zeros(len(steps), dtype=np.int8), np.full(len(steps), MAX_PAIRS)
    for pairs in range(MIN_PAIRS, MAX_PAIRS + 1):
        is_open = verdicts == 0
        low, high = test(steps[is_open, :pairs], comparisons)
        mean = steps[is_open, :pairs].mean(axis=1)
        has_changed = (np.abs(mean) > LIMIT) & ((low > 0) | (high < 0))
        is_same = (low >= -LIMIT) & (high <= LIMIT)
        verdicts[is_open] = np.where(has_changed, np.where(mean > 0, 2, 3), np.where(is_same, 1, 0))
        taken[np.flatnonzero(is_open)[has_changed | is_same]] = pairs
    return Outcome(
        changed=float((verdicts > 1).mean()),
        undecided=float((verdicts == 0).mean()),
        median=float(np.median(taken)),
        most=float(np.quantile(taken, 0.9)),
    )


def recorded_spreads() -> list[float]:
    """Return the standard deviation of pairs in each measurement of ab_noise.jsonl, from its stored interval.

    Those were Student's intervals at an eighth of 1 %, except after the last analysis, which are left out.
    """
    found = []
    for line in map(json.loads, MEASUREMENTS.read_text(encoding="utf-8").splitlines()):
        runs = line["runs"]
        if "test" not in line and "tool" not in line and runs in EIGHT and line["verdict"] != "inconclusive":
            half = (math.log(line["interval"][1]) - math.log(line["interval"][0])) / 2
            found.append(half / float(stdtrit(runs - 1, 1 - ALPHA / 16)) * math.sqrt(runs))
    return found


def recorded_traces() -> list[dict[str, Any]]:
    return [json.loads(line) for line in TRACES.read_text(encoding="utf-8").splitlines()]


def like_recorded_spreads(rng: np.random.Generator, repeats: int) -> Values:
    """Each measurement has the spread of one that was recorded; its pairs are Student's t with 4 degrees."""
    spreads = rng.choice(recorded_spreads(), (repeats, 1))
    return spreads * rng.standard_t(4, (repeats, MAX_PAIRS)) / math.sqrt(2)


def traces_of_equal_code() -> list[list[float]]:
    """Return the logarithms of the ratios of pairs in measurements of equal code in ab_noise.jsonl that have them."""
    lines = map(json.loads, MEASUREMENTS.read_text(encoding="utf-8").splitlines())
    return [trace for line in lines if line["kind"] == "same" for trace in line.get("log_ratios", [])]


def pieces_of(read: Callable[[], Sequence[Sequence[float]]], *, length: int) -> Noise:
    """Pieces of so many successive pairs from one recorded trace; which run of a pair is head's is drawn for each pair.

    Pieces keep that loud pairs follow each other.
    """

    def noise(rng: np.random.Generator, repeats: int) -> Values:
        traces = [np.array(each) for each in read() if len(each) >= length]
        steps = np.empty((repeats, MAX_PAIRS))
        for row in steps:
            trace = traces[rng.integers(len(traces))]
            for start in range(0, MAX_PAIRS, length):
                piece = row[start : start + length]
                piece[:] = trace[(np.arange(len(piece)) + rng.integers(len(trace))) % len(trace)]
        return steps * rng.choice((-1, 1), steps.shape)

    return noise


def gaussian(spread: float) -> Noise:
    def noise(rng: np.random.Generator, repeats: int) -> Values:
        return spread * rng.standard_normal((repeats, MAX_PAIRS))

    return noise


def two_states(apart: float) -> Noise:
    def noise(rng: np.random.Generator, repeats: int) -> Values:
        state = apart * (rng.random((2, repeats, MAX_PAIRS)) < 0.4)
        found: Values = state[1] - state[0] + 0.003 * rng.standard_normal((repeats, MAX_PAIRS))
        return found

    return noise


def heavy_tail(rng: np.random.Generator, repeats: int) -> Values:
    return 0.01 * rng.standard_t(2, (repeats, MAX_PAIRS))


NOISES: dict[str, Noise] = {
    "recorded spreads": like_recorded_spreads,
    "recorded pairs": pieces_of(lambda: [each["ratios"] for each in recorded_traces()], length=8),
    "recorded pairs, memory kept": pieces_of(traces_of_equal_code, length=6),
    "gaussian 1 %": gaussian(0.01),
    "gaussian 3 %": gaussian(0.03),
    "gaussian 10 %": gaussian(0.1),
    "heavy tail": heavy_tail,
    "two states 4 % apart": two_states(0.04),
    "two states 10 % apart": two_states(0.1),
}


def add_trace(folder: Path) -> dict[str, Any]:
    """Return the line of an A/B measurement of a model against itself: the logarithm of each pair's ratio."""
    sides = [{r.run_index: r for r in read_records(folder / side) if r.is_good} for side in ("base", "head")]
    ratios, loads = [], []
    for index in sorted(sides[0].keys() & sides[1].keys()):
        base, head = (next(m for m in side[index].metrics if m.name == METRIC) for side in sides)
        old, new = pair_of_values(base, head)
        ratios.append(round(math.log(new / old), 6))
        loads.append(sides[1][index].environment.state.get("load_1min"))
    first = next(iter(sides[0].values()))
    return {
        "at": first.started_at,
        "model": first.case.point.model,
        "cpu": first.environment.hardware.get("cpu"),
        "threads": first.environment.state.get("torch_threads"),
        "load_1min": [load for load in loads if load is not None],
        "ratios": ratios,
    }


def report(repeats: int) -> str:
    """Return the Markdown page."""
    traces, spreads = recorded_traces(), recorded_spreads()
    pairs = [ratio for trace in traces for ratio in trace["ratios"]]
    loads = [load for trace in traces for load in trace["load_1min"]]
    kept = traces_of_equal_code()
    lines = [
        "# Sequential tests for `vbench ab`\n",
        f"{repeats} simulated measurements a cell, limit 3 %, error rate 1 % for all cases together. *false alarms*: "
        "measurements of identical code with a case called changed, if all their cases are identical. *found*: share "
        "of changed cases, and pairs until the verdict, median and 90 % quantile. Written by sequential.py.\n",
        f"Recorded: the spread of pairs in {len(spreads)} measurements of ab_noise.jsonl "
        f"({min(spreads):.1%} to {max(spreads):.1%}, median {np.median(spreads):.1%}), and {len(pairs)} pairs of "
        f"models against themselves in {len(traces)} traces of sequential.jsonl (spread {np.std(pairs):.1%}), "
        f"on two cores while other work ran: load {min(loads):.0f} to {max(loads):.0f}. *memory kept*: the "
        f"{sum(map(len, kept))} pairs of {len(kept)} measurements of equal code in ab_noise.jsonl (spread "
        f"{np.std(np.concatenate(kept)):.1%}), since both sides keep freed memory (docs/decisions/0009).\n",
    ]
    for cases in (1, 10):
        lines += [
            f"{cases} case{'s' if cases > 1 else ''}:\n",
            "| noise | test | false alarms | no verdict on identical code | 5 % found | pairs | 10 % found | pairs "
            "| 50 % found | pairs |",
            "|---|---|---:|---:|---:|---:|---:|---:|---:|---:|",
        ]
        for title, noise in NOISES.items():
            steps = noise(np.random.default_rng(5), repeats)
            for name, test in TESTS.items():
                none = outcome(test, steps, comparisons=cases)
                alarms = 1 - (1 - none.changed) ** cases
                cells = [f"{alarms:.2%}", f"{none.undecided:.0%}"]
                for effect in EFFECTS:
                    found = outcome(test, steps + math.log(effect), comparisons=cases)
                    cells += [f"{found.changed:.0%}", f"{found.median:.0f}, {found.most:.0f}"]
                lines.append(f"| {title} | {name} | " + " | ".join(cells) + " |")
        lines.append("")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--add", nargs="*", type=Path, default=[], help="folders of A/B measurements to keep")
    parser.add_argument("--repeats", type=int, default=10_000)
    given = parser.parse_args()
    if given.add:
        with TRACES.open("a", encoding="utf-8") as file:
            file.writelines(json.dumps(add_trace(folder)) + "\n" for folder in given.add)
    else:
        print(report(given.repeats), end="")


if __name__ == "__main__":
    main()
