"""Counts false alarms of `vbench history` on recorded noise, and how soon planted steps are alarms.

    python benchmarks/history_alarms.py                    # minutes; writes history_alarms.md
    python benchmarks/history_alarms.py --record 45        # minutes; appends to history_noise.jsonl

Series of commits are drawn from recorded traces, either one measurement at a time, as if commits were measured on
different days, or in stretches of the trace, as if they were measured one after the other.
"""

import argparse
import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from bench.comparison.noise import LASTING, Canary, alarms, flakiness, normalise
from bench.comparison.steps import find_steps
from bench.core.stats import wilson_interval

HERE = Path(__file__).parent
NOISE, AB_NOISE, TABLE = HERE / "history_noise.jsonl", HERE / "ab_noise.jsonl", HERE / "history_alarms.md"
LENGTHS = (30, 60)
STRETCHES = {"days apart": 1, "in stretches of 5": 5, "in stretches of 10": 10}
PLANTED = {"5 %": 1.05, "10 %": 1.1, "30 %": 1.3}
BEFORE = 40  # commits before a planted step


@dataclass(frozen=True, kw_only=True)
class Trace:
    """Measurements of unchanged code in the order in which they were made, with the canary of each if it was timed."""

    title: str
    values: list[float]
    canaries: list[Canary | None]


def traces() -> Iterator[Trace]:
    """Yield what `ab_noise.py` and `--record` measured."""
    rows = [json.loads(line) for line in AB_NOISE.read_text().splitlines()]
    rows = [row for row in rows if "tool" not in row]  # later ones keep freed memory, which is another level
    values = [row["base"] for row in rows]
    yield Trace(title="base of ab_noise.jsonl", values=values, canaries=[None] * len(values))
    recorded = [json.loads(line) for line in NOISE.read_text().splitlines()]
    for model in dict.fromkeys(row["model"] for row in recorded):
        of_model = [row for row in recorded if row["model"] == model]
        canaries = [{name: sum(ends) / len(ends) for name, ends in row["canary"].items()} for row in of_model]
        yield Trace(title=model, values=[row["latency_ms"] for row in of_model], canaries=list(canaries))


def drawn(trace: Trace, length: int, stretch: int, rng: np.random.Generator) -> tuple[list[float], list[Canary | None]]:
    """Return so many measurements: stretches of the trace of a mean length, from random places on."""
    places: list[int] = []
    while len(places) < length:
        start = int(rng.integers(len(trace.values)))
        places += [(start + n) % len(trace.values) for n in range(int(rng.geometric(1 / stretch)))]
    return [trace.values[n] for n in places[:length]], [trace.canaries[n] for n in places[:length]]


def first_alarm(values: list[float], canaries: list[Canary | None]) -> int | None:
    """Return the place of the first alarm of a series, as `vbench history` decides it; None without one."""
    normal, _ = normalise(values, canaries, is_rate=False)
    steps = find_steps(normal)
    if not steps or flakiness(normal, steps) is not None:
        return None
    kept = alarms(normal, steps, can_drift=True)
    rising = [s.index for s, is_alarm in zip(steps, kept, strict=True) if is_alarm and s.after > s.before]
    return rising[0] if rising else None


def series_with_alarms(trace: Trace, stretch: int, length: int, *, seconds: float, repeats: int) -> tuple[int, int]:
    """Return how many series of unchanged code were drawn within the time, and how many have an alarm."""
    rng, started, series, wrong = np.random.default_rng(0), time.monotonic(), 0, 0
    while series < repeats and time.monotonic() - started < seconds:
        values, canaries = drawn(trace, length, stretch, rng)
        series += 1
        wrong += first_alarm(values, canaries) is not None
    return series, wrong


def false_alarms(seconds: float, repeats: int) -> list[str]:
    """Return table rows: the share of series of unchanged code with an alarm."""
    rows = []
    total = found = 0
    for trace in traces():
        for how, stretch in STRETCHES.items():
            for length in LENGTHS:
                series, wrong = series_with_alarms(trace, stretch, length, seconds=seconds, repeats=repeats)
                share = wilson_interval(wrong, series)
                rows.append(f"| {trace.title} | {how} | {length} | {series} | {wrong} | {100 * share.high:.2f} % |")
                total, found = total + series, found + wrong
                print(rows[-1], flush=True)
    share = wilson_interval(found, total)
    rows.append(f"| all | | | {total} | {found} | {100 * share.high:.3f} % |")
    return rows


def delays(seconds: float, repeats: int) -> list[str]:
    """Return table rows: after how many commits a planted step is an alarm, in noise of 1 % and in recorded noise."""
    rows = []

    def plain(length: int, rng: np.random.Generator) -> list[float]:
        return list(np.exp(0.01 * rng.standard_normal(length)))

    recorded = next(traces())
    quiet = Trace(title="", values=recorded.values[:25], canaries=[None] * 25)  # the hours when nothing else ran
    sources: dict[str, Callable[[int, np.random.Generator], list[float]]] = {
        "1 % from commit to commit": plain,
        "quiet hours of ab_noise.jsonl": lambda length, rng: drawn(quiet, length, 1, rng)[0],
        "base of ab_noise.jsonl": lambda length, rng: drawn(recorded, length, 1, rng)[0],
    }
    for title, noise in sources.items():
        for name, factor in PLANTED.items():
            rng, started, delay = np.random.default_rng(0), time.monotonic(), list[int]()
            series = 0
            while series < repeats and time.monotonic() - started < seconds:
                series += 1
                values = noise(BEFORE + 60, rng)
                values = [value * (factor if n >= BEFORE else 1) for n, value in enumerate(values)]
                for after in (LASTING, 20, 30, 60):
                    if first_alarm(values[: BEFORE + after], [None] * (BEFORE + after)) is not None:
                        delay.append(after)
                        break
            text = f"{np.median(delay):.0f}" if delay else "–"
            rows.append(f"| {title} | {name} | {series} | {100 * len(delay) / series:.0f} % | {text} |")
            print(rows[-1], flush=True)
    return rows


def record(minutes: float) -> None:
    """Append latencies of two models with the canary before and after, until the time is up."""
    import torch

    from bench import create_model
    from bench.measure.timing.canary import time_canary

    torch.set_num_threads(1)
    cpu, until = torch.device("cpu"), time.monotonic() + 60 * minutes
    clip = torch.rand(1, 3, 16, 32, 32)
    models = {name: create_model(name).eval() for name in ("c3d_search", "resnet3d_10")}
    while time.monotonic() < until:
        for name, model in models.items():
            before = time_canary(cpu)
            times = []
            with torch.inference_mode():
                for _ in range(11):
                    started = time.perf_counter()
                    model(clip)
                    times.append(1000 * (time.perf_counter() - started))
            after = time_canary(cpu)
            line = {
                "at": datetime.now(UTC).isoformat(timespec="seconds"),
                "model": f"{name} 16x1x32",
                "latency_ms": round(float(np.median(times[2:])), 4),
                "canary": {kind: [round(before[kind], 4), round(after[kind], 4)] for kind in before},
                "load_1min": round(os.getloadavg()[0], 1),
            }
            with NOISE.open("a") as file:
                file.write(json.dumps(line) + "\n")
        time.sleep(5)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--record", type=float, metavar="MINUTES")
    parser.add_argument("--seconds", type=float, default=600, help="for each row")
    parser.add_argument("--repeats", type=int, default=1200, help="series for each row, if the time is enough")
    arguments = parser.parse_args()
    if arguments.record:
        record(arguments.record)
        return
    loads = [json.loads(line)["load_1min"] for line in NOISE.read_text().splitlines()]
    rows = [
        "# False alarms of `vbench history`",
        "",
        "Series drawn from recorded measurements of unchanged code. Written by history_alarms.py from ab_noise.jsonl "
        f"and history_noise.jsonl: latency and canary of two models on two cores that other work shares, load "
        f"{min(loads):.0f} to {max(loads):.0f}.",
        "",
        "| trace | drawn | commits | series | with an alarm | at most (95 %) |",
        "|---|---|---:|---:|---:|---:|",
        *false_alarms(arguments.seconds, arguments.repeats),
        "",
        f"A planted step after {BEFORE} commits, measured on different days: how often it is an alarm within 60 "
        f"commits, and after how many, of {LASTING}, 20, 30 and 60.",
        "",
        "| noise | step | series | found | commits, median |",
        "|---|---|---:|---:|---:|",
        *delays(arguments.seconds, arguments.repeats // 10),
    ]
    TABLE.write_text("\n".join(rows) + "\n")


if __name__ == "__main__":
    main()
