"""Measures how often `vbench ab` is wrong on this machine.

    python benchmarks/ab_noise.py --same 50 --slower 20 --minutes 240

Each measurement runs the command as users type it: a model of twenty equal layers against itself, or against one with
one (5 %), two (10 %) or ten (50 %) more layers. Results are appended to ab_noise.jsonl, and ab_noise.md is rewritten
from all of them, so that several short runs add up.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench.comparison.verdicts import read_verdict
from bench.core.stats import median, wilson_interval
from bench.runner.environment import describe_environment

HERE = Path(__file__).parent
RAW, TABLE = HERE / "ab_noise.jsonl", HERE / "ab_noise.md"
WANTED = {"same": 20, "plus 5 %": 5, "plus 10 %": 5, "plus 50 %": 5}
HEADS = {"same": "plain", "plus 5 %": "one_more", "plus 10 %": "two_more", "plus 50 %": "ten_more"}
TEST, FORMER_TEST = "e-value", "8 analyses"  # docs/decisions/0022; lines without a test are of the former one
METRIC = "latency.p50_ms"
SUITE = f"""\
suite: ab_noise
models: ["toy_models:plain"]
matrix: {{clip: [4x1x16]}}
measure:
  latency: {{max_s: 1}}
gate:
  {METRIC}: {{max_rise: 3%}}
"""
MODELS = """
from torch import nn


class Model(nn.Module):
    def __init__(self, layers, num_classes):
        super().__init__()
        convolutions = [nn.Conv3d(16, 16, 3, padding=1) for _ in range(layers)]
        self.layers = nn.Sequential(nn.Conv3d(3, 16, 1), *convolutions)
        self.classify = nn.Linear(16, num_classes)

    def forward(self, clips):
        return self.classify(self.layers(clips).mean((2, 3, 4)))


def plain(num_classes=10):
    return Model(20, num_classes)


def one_more(num_classes=10):
    return Model(21, num_classes)


def two_more(num_classes=10):
    return Model(22, num_classes)


def ten_more(num_classes=10):
    return Model(30, num_classes)
"""


def measure(kind: str, *, budget: str, folder: Path) -> dict[str, Any]:
    """Run one measurement in `folder` and return its line of the raw file.

    Raises SystemExit if `vbench ab` ends with a code that is not a verdict.
    """
    (folder / "toy_models.py").write_text(MODELS, encoding="utf-8")
    (folder / "suite.yaml").write_text(SUITE, encoding="utf-8")
    sides = [f"toy_models:{name}" for name in ("plain", HEADS[kind])]
    command = [sys.executable, "-m", "bench", "ab", *sides, "suite.yaml", "--budget", budget, "--json"]
    paths = os.pathsep.join(filter(None, [str(HERE.parent), os.environ.get("PYTHONPATH")]))
    started = time.monotonic()
    done = subprocess.run(
        command, cwd=folder, env={**os.environ, "PYTHONPATH": paths}, capture_output=True, text=True, check=False
    )
    if done.returncode not in (0, 1, 4):
        raise SystemExit(f"vbench ab ended with {done.returncode}: {done.stderr.strip()}")
    [row] = [row for row in json.loads(done.stdout)["rows"] if row["metric"] == METRIC]
    return {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "kind": kind,
        "test": TEST,
        **{name: row[name] for name in ("verdict", "ratio", "interval", "base")},
        "runs": row["runs"][1],
        "budget": budget,
        "seconds": round(time.monotonic() - started, 1),
        "load_1min": round(os.getloadavg()[0], 2),
    }


def kinds_to_do(same: int, slower: int) -> Iterator[str]:
    """Yield the kinds in turn, so that an interrupted run has some of each."""
    left = {kind: same if kind == "same" else slower for kind in WANTED}
    while any(left.values()):
        for kind in left:
            if left[kind]:
                left[kind] -= 1
                yield kind


def table(lines: Sequence[dict[str, Any]]) -> str:
    """Return the Markdown page of all measurements so far."""
    environment = describe_environment()
    hardware, software = environment.hardware, environment.software
    loads = [line["load_1min"] for line in lines]
    text = [
        "# `vbench ab` on a shared machine\n",
        "A model of twenty equal layers against itself, and against one with one (5 %), two (10 %) or ten (50 %) more "
        "layers; "
        "limit 3 % on `latency.p50_ms`. Each measurement is one `vbench ab` with the given budget. Written by "
        "ab_noise.py from ab_noise.jsonl.\n",
        f"{hardware.get('cpu')}, {hardware.get('cpu_threads_usable')} threads usable, {software.get('os')}, Python "
        f"{software.get('python')}, torch {software.get('torch')}, OMP_NUM_THREADS "
        f"{os.environ.get('OMP_NUM_THREADS', 'not set')}. Load while measuring: "
        f"{min(loads):.1f} to {max(loads):.1f}.\n",
        "| head | test | measurements | worse | better | same | inconclusive | called changed, 95 % interval "
        "| median ratio | runs a side, median | seconds, median | budget |",
        "|---|---|---:|---:|---:|---:|---:|---|---:|---:|---:|---|",
    ]
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {(k, t): [] for k in WANTED for t in (FORMER_TEST, TEST)}
    for line in lines:
        groups[line["kind"], line.get("test", FORMER_TEST)].append(line)
    text += [_row(*group, chosen) for group, chosen in groups.items() if chosen]
    missing = [f"{n - have} {kind}" for kind, n in WANTED.items() if (have := _count(lines, kind)) < n]
    if missing:
        wanted = ", ".join(f"{n} {kind}" for kind, n in WANTED.items())
        text.append(f"\nPlanned: {wanted}. Still missing: {', '.join(missing)}.")
    return "\n".join(text) + "\n"


def _row(kind: str, test: str, lines: Sequence[dict[str, Any]]) -> str:
    verdicts = [read_verdict(line["verdict"]) for line in lines]
    counts = [verdicts.count(verdict) for verdict in ("worse", "better", "same", "inconclusive")]
    called = wilson_interval(counts[0] + counts[1], len(lines))
    cells = [
        kind,
        test,
        len(lines),
        *counts,
        f"{called.low:.0%} to {called.high:.0%}",
        f"{median([line['ratio'] for line in lines]):.3f}",
        f"{median([line['runs'] for line in lines]):g}",
        f"{median([line['seconds'] for line in lines]):.0f}",
        ", ".join(sorted({line["budget"] for line in lines})),
    ]
    return "| " + " | ".join(map(str, cells)) + " |"


def _count(lines: Sequence[dict[str, Any]], kind: str) -> int:
    return sum(line["kind"] == kind and line.get("test") == TEST for line in lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--same", type=int, default=2, help="measurements of the model against itself")
    parser.add_argument("--slower", type=int, default=1, help="measurements against each slower model")
    parser.add_argument("--budget", default="2m", help="budget of each vbench ab")
    parser.add_argument("--minutes", type=float, default=12, help="start no measurement after this many minutes")
    given = parser.parse_args()
    started = time.monotonic()
    for kind in kinds_to_do(given.same, given.slower):
        if time.monotonic() - started > 60 * given.minutes:
            break
        with tempfile.TemporaryDirectory(prefix="ab-noise-") as folder:
            line = measure(kind, budget=given.budget, folder=Path(folder))
        with RAW.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        print(json.dumps(line), file=sys.stderr, flush=True)
        TABLE.write_text(table([json.loads(text) for text in RAW.read_text().splitlines()]), encoding="utf-8")


if __name__ == "__main__":
    main()
