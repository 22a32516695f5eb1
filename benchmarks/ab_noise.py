"""Measures how often `vbench ab` is wrong on this machine and how soon it decides, and does the same with other tools.

    python benchmarks/ab_noise.py --minutes 120
    python benchmarks/ab_noise.py --quick          # one of each, in about ten minutes

The planted change is always the same: a model of twenty equal layers against itself, or against one with one (5 %), two
(10 %) or ten (50 %) more layers; alone, beside one busy process, and with ten cases. The tools are

- `vbench ab`, with a limit of 3 % on `latency.p50_ms`;
- `instructions`, CodSpeed's method: the instructions of one run a side, a change beyond 3 % counts;
- `hyperfine` on two scripts that build the model and run it; Welch's test at 5 %, as in hyperfine's `welch_ttest.py`;
- `asv continuous`: `asv run` of two commits and `asv compare --factor 1.03`, with asv's own test.

Tools that are not installed are left out (`apt-get install hyperfine valgrind`, `pip install asv`). Each measurement is
a line in ab_noise.jsonl, and ab_noise.md is written from all of them: a run that is stopped goes on with what is
missing.
"""

import argparse
import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench.comparison.pairing import pair_of_values
from bench.comparison.verdicts import read_verdict
from bench.core.stats import median, wilson_interval
from bench.runner.environment import describe_environment
from bench.store import read_records

HERE = Path(__file__).parent
RAW, TABLE = HERE / "ab_noise.jsonl", HERE / "ab_noise.md"
HEADS = {"same": "plain", "plus 5 %": "one_more", "plus 10 %": "two_more", "plus 50 %": "ten_more"}
VBENCH = "vbench ab"
TEST, FORMER_TEST = "e-value, heap kept", "8 analyses"  # docs/decisions/0009; lines without a test are of the former
METRIC, LIMIT = "latency.p50_ms", 1.03
SUITE = """\
suite: ab_noise
models: ["toy_models:plain"]
matrix: {{clip: [{clips}]}}
measure:
  latency: {{max_s: 1}}
gate:
  latency.p50_ms: {{max_rise: 3%}}
"""
CLIPS = tuple(f"4x1x{size}" for size in range(16, 26))
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
# What the other tools run: the model at the clip of the suite.
SCRIPT = """
import sys
import torch
import toy_models

torch.set_num_threads(1)
model, clips = getattr(toy_models, sys.argv[1])().eval(), torch.randn(1, 3, 4, 16, 16)
with torch.inference_mode():
    for _ in range(int(sys.argv[2])):
        model(clips)
"""
ASV_BENCHMARK = """
import torch


class Forward:
    def setup(self):
        torch.set_num_threads(1)
        self.model, self.clips = {head}().eval(), torch.randn(1, 3, 4, 16, 16)

    def time_forward(self):
        with torch.inference_mode():
            self.model(self.clips)
"""
COUNT = """
import json, sys
from pathlib import Path
from bench.core.schema import Case, Clip, Point
from bench.measure.context import CaseContext
from bench.measure.instruction_counter import count_passes

point = Point(model=f"toy_models:{sys.argv[1]}", clip=Clip.model_validate("4x1x16"))
case = CaseContext(Case(suite="s", point=point, measures={}), artifacts=Path())
print(json.dumps(count_passes(case, passes=3, timeout_s=3600).passes))
"""


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """So many measurements with one tool of one change, with so many cases, beside so many busy processes."""

    tool: str
    kind: str
    count: int
    budget: str = ""
    cases: int = 1
    busy: int = 0

    def is_of(self, line: dict[str, Any]) -> bool:
        """Whether a line of the raw file is one of these measurements."""
        return _group_of(line) == (self.tool, self.cases, self.busy, self.kind, TEST if self.tool == VBENCH else "")


PLAN = (
    Wanted(tool=VBENCH, kind="plus 50 %", count=5, budget="2m"),
    Wanted(tool=VBENCH, kind="plus 10 %", count=5, budget="5m"),
    Wanted(tool=VBENCH, kind="plus 5 %", count=5, budget="5m"),
    Wanted(tool="hyperfine", kind="plus 10 %", count=5),
    Wanted(tool="asv continuous", kind="plus 10 %", count=5),
    Wanted(tool="instructions", kind="plus 10 %", count=5),
    Wanted(tool=VBENCH, kind="same", count=20, budget="5m"),
    Wanted(tool=VBENCH, kind="plus 50 %", count=5, budget="2m", busy=1),
    Wanted(tool=VBENCH, kind="plus 10 %", count=5, budget="5m", busy=1),
    Wanted(tool=VBENCH, kind="plus 5 %", count=5, budget="5m", busy=1),
    Wanted(tool=VBENCH, kind="plus 10 %", count=5, budget="10m", cases=10),
    Wanted(tool=VBENCH, kind="plus 10 %", count=5, budget="10m", cases=10, busy=1),
    Wanted(tool=VBENCH, kind="same", count=5, budget="10m", cases=10),
    *(
        Wanted(tool=tool, kind=kind, count=5)
        for tool in ("hyperfine", "asv continuous", "instructions")
        for kind in ("plus 5 %", "same")
    ),
    *(Wanted(tool=tool, kind="plus 10 %", count=5, busy=1) for tool in ("hyperfine", "asv continuous", "instructions")),
)
QUICK = 7  # entries of the plan that a quick run does once


def measure(wanted: Wanted, *, folder: Path) -> dict[str, Any]:
    """Run one measurement in `folder` and return its line of the raw file."""
    (folder / "toy_models.py").write_text(MODELS, encoding="utf-8")
    load = os.getloadavg()[0]
    with busy_processes(wanted.busy):
        started = time.monotonic()
        found = TOOLS[wanted.tool](wanted, folder)
        seconds = time.monotonic() - started
    return {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "tool": wanted.tool,
        "kind": wanted.kind,
        "cases": wanted.cases,
        "busy": wanted.busy,
        **({"test": TEST, "budget": wanted.budget} if wanted.tool == VBENCH else {}),
        **found,
        "seconds": round(seconds, 1),
        "load_1min": round(load, 2),
    }


@contextmanager
def busy_processes(count: int) -> Iterator[None]:
    """Let so many other processes compute during the block."""
    started = [subprocess.Popen([sys.executable, "-c", "while True: sum(range(10_000))"]) for _ in range(count)]
    try:
        yield
    finally:
        for process in started:
            process.kill()
            process.wait()


def with_vbench(wanted: Wanted, folder: Path) -> dict[str, Any]:
    """The verdict of `vbench ab`. Of cases that differ: the worst for the same model, inconclusive for a change."""
    (folder / "suite.yaml").write_text(SUITE.format(clips=", ".join(CLIPS[: wanted.cases])), encoding="utf-8")
    sides = [f"toy_models:{name}" for name in ("plain", HEADS[wanted.kind])]
    command = [sys.executable, "-m", "bench", "ab", *sides, "suite.yaml", "--budget", wanted.budget, "--json"]
    done = run(command, folder, allowed=(0, 1, 4))
    rows = [row for row in json.loads(done)["rows"] if row["metric"] == METRIC]
    verdicts = [row["verdict"] for row in rows]
    worst = next(each for each in ("worse", "better", "inconclusive", "same") if each in verdicts)
    return {
        "verdict": worst if wanted.kind == "same" or len(set(verdicts)) == 1 else "inconclusive",
        "verdicts": verdicts,
        "ratio": median([row["ratio"] for row in rows]),
        "runs": max(row["runs"][1] for row in rows),
        "base": median([row["base"] for row in rows]),
        **({"interval": rows[0]["interval"]} if len(rows) == 1 else {}),
        "log_ratios": log_ratios(next(folder.glob("results/*-ab/*"))),
    }


def log_ratios(folder: Path) -> list[list[float]]:
    """The logarithm of each pair's ratio, by case in the order measured, from the records of both sides."""
    base, head = (
        {(str(r.case.point.clip), r.run_index): r for r in read_records(folder / side)} for side in ("base", "head")
    )
    found: dict[str, list[float]] = {}
    for place in (place for place in base if place in head):
        old, new = (next(m for m in side[place].metrics if m.name == METRIC) for side in (base, head))
        before, after = pair_of_values(old, new)
        found.setdefault(place[0], []).append(round(math.log(after / before), 5))
    return list(found.values())


def with_instructions(wanted: Wanted, folder: Path) -> dict[str, Any]:
    """The instructions of one run a side, as CodSpeed's simulation counts them; beyond the limit is a change."""
    counts = [
        median(json.loads(run([sys.executable, "-c", COUNT, name], folder))) for name in ("plain", HEADS[wanted.kind])
    ]
    ratio = counts[1] / counts[0]
    return {
        "verdict": "worse" if ratio > LIMIT else "better" if ratio < 1 / LIMIT else "same",
        "ratio": ratio,
        "runs": 1,
    }


def with_hyperfine(wanted: Wanted, folder: Path) -> dict[str, Any]:
    """hyperfine's ten runs of each script, by Welch's test at 5 %."""
    from scipy.stats import ttest_ind

    (folder / "forward.py").write_text(SCRIPT, encoding="utf-8")
    scripts = [f"{sys.executable} forward.py {name} 50" for name in ("plain", HEADS[wanted.kind])]
    run(["hyperfine", "-N", "--warmup", "1", "--runs", "10", "--export-json", "times.json", *scripts], folder)
    times = [each["times"] for each in json.loads((folder / "times.json").read_text(encoding="utf-8"))["results"]]
    ratio = (sum(times[1]) / len(times[1])) / (sum(times[0]) / len(times[0]))
    is_changed = ttest_ind(*times, equal_var=False).pvalue < 0.05
    return {"verdict": ("worse" if ratio > 1 else "better") if is_changed else "same", "ratio": ratio, "runs": 10}


def with_asv(wanted: Wanted, folder: Path) -> dict[str, Any]:
    """Two commits, measured by `asv run` in this environment and compared as `asv continuous` does."""
    (folder / "benchmarks").mkdir()
    (folder / "benchmarks" / "__init__.py").write_text("", encoding="utf-8")
    configuration = {"version": 1, "project": "toy", "repo": ".", "branches": ["main"], "benchmark_dir": "benchmarks"}
    configuration |= {"environment_type": "existing", "pythons": [sys.executable]}
    (folder / "asv.conf.json").write_text(json.dumps(configuration), encoding="utf-8")
    run(["asv", "machine", "--yes"], folder)
    run(["git", "init", "-q", "-b", "main"], folder)
    commits = []
    for name in ("plain", HEADS[wanted.kind]):
        text = MODELS + ASV_BENCHMARK.format(head=name)  # in one file, since asv does not pass PYTHONPATH on
        (folder / "benchmarks" / "forward.py").write_text(text, encoding="utf-8")
        run(["git", "add", "benchmarks"], folder)
        run(["git", "-c", "user.name=t", "-c", "user.email=t@t", "commit", "-q", "--allow-empty", "-m", name], folder)
        commits.append(run(["git", "rev-parse", "HEAD"], folder).strip())
        run(["asv", "run", "-E", f"existing:{sys.executable}", "--set-commit-hash", commits[-1]], folder)
    text = run(["asv", "compare", "--factor", str(LIMIT), *commits], folder)
    row = next(line for line in text.splitlines() if "time_forward" in line)
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    verdict = {"+": "worse", "-": "better"}.get(cells[0], "same")
    return {"verdict": verdict, "ratio": float(cells[3]), "runs": 2}


TOOLS: dict[str, Callable[[Wanted, Path], dict[str, Any]]] = {
    VBENCH: with_vbench,
    "instructions": with_instructions,
    "hyperfine": with_hyperfine,
    "asv continuous": with_asv,
}


def missing_tools() -> dict[str, str]:
    """The tools that cannot run here, with the program that is missing."""
    programs = {"instructions": "valgrind", "hyperfine": "hyperfine", "asv continuous": "asv"}
    return {tool: program for tool, program in programs.items() if shutil.which(program) is None}


def run(command: Sequence[str], folder: Path, *, allowed: Sequence[int] = (0,)) -> str:
    """Run `command` in `folder` and return what it prints; raises SystemExit if it ends with another exit code."""
    paths = os.pathsep.join(filter(None, [str(folder), str(HERE.parent), os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "HOME": str(folder)}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if done.returncode not in allowed:
        raise SystemExit(
            f"{command[0]} {command[1]} ended with {done.returncode}: {(done.stderr or done.stdout).strip()}"
        )
    return done.stdout


def _group_of(line: dict[str, Any]) -> tuple[str, int, int, str, str]:
    """What the lines of one row of the table have in common; those from before there were other tools lack some."""
    tool = line.get("tool", VBENCH)
    test = line.get("test", FORMER_TEST) if tool == VBENCH else ""
    return tool, line.get("cases", 1), line.get("busy", 0), line["kind"], test


def still_wanted(lines: Sequence[dict[str, Any]], *, is_quick: bool) -> list[Wanted]:
    """Return what is missing, one of each first, so that a run that is stopped has some of each."""
    done = [sum(wanted.is_of(line) for line in lines) for wanted in PLAN]
    if is_quick:
        return list(PLAN[:QUICK])
    rounds = range(max(wanted.count for wanted in PLAN))
    return [
        wanted for number in rounds for wanted, have in zip(PLAN, done, strict=True) if have <= number < wanted.count
    ]


def table(lines: Sequence[dict[str, Any]]) -> str:
    """Return the Markdown page of all measurements so far."""
    environment = describe_environment()
    hardware, software = environment.hardware, environment.software
    loads = [line["load_1min"] for line in lines]
    text = [
        "# `vbench ab` and other tools on a shared machine\n",
        "A model of twenty equal layers against itself, and against one with one (5 %), two (10 %) or ten (50 %) more "
        "layers; `vbench ab` has a limit of 3 % on `latency.p50_ms`. *busy*: other processes that compute meanwhile. "
        "*seconds*: from the start of the command to its verdict. *called changed*: with its 95 % interval. The other "
        "tools and how their results become verdicts are described in ab_noise.py, which wrote this page from "
        "ab_noise.jsonl.\n",
        f"{hardware.get('cpu')}, {hardware.get('cpu_threads_usable')} threads usable, {software.get('os')}, Python "
        f"{software.get('python')}, torch {software.get('torch')}. Load before a measurement: {min(loads):.1f} to "
        f"{max(loads):.1f}.\n",
        "| tool | cases | busy | head | test | measurements | worse | better | same | inconclusive | called changed "
        "| median ratio | runs a side, median | seconds, median | seconds, most |",
        "|---|---:|---:|---|---|---:|---:|---:|---:|---:|---|---:|---:|---:|---:|",
    ]
    groups: dict[tuple[str, int, int, str, str], list[dict[str, Any]]] = {}
    for line in lines:
        groups.setdefault(_group_of(line), []).append(line)
    kinds, tools = list(HEADS), list(TOOLS)
    order = sorted(groups, key=lambda group: (tools.index(group[0]), group[4], group[1:3], kinds.index(group[3])))
    text += [_row(group, groups[group]) for group in order]
    missing = [
        f"{wanted.count - have} {wanted.tool}, {wanted.kind}, {wanted.cases} cases, {wanted.busy} busy"
        for wanted in PLAN
        if (have := sum(wanted.is_of(line) for line in lines)) < wanted.count
    ]
    if missing:
        text.append(f"\nStill to be measured: {'; '.join(missing)}.")
    return "\n".join(text) + "\n"


def _row(group: Sequence[object], lines: Sequence[dict[str, Any]]) -> str:
    verdicts = [read_verdict(line["verdict"]) for line in lines]
    counts = [verdicts.count(verdict) for verdict in ("worse", "better", "same", "inconclusive")]
    called = wilson_interval(counts[0] + counts[1], len(lines))
    seconds = [line["seconds"] for line in lines]
    cells = [
        *group,
        len(lines),
        *counts,
        f"{called.low:.0%} to {called.high:.0%}",
        f"{median([line['ratio'] for line in lines]):.3f}",
        f"{median([line['runs'] for line in lines]):g}",
        f"{median(seconds):.0f}",
        f"{max(seconds):.0f}",
    ]
    return "| " + " | ".join(map(str, cells)) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one of each, in about ten minutes")
    parser.add_argument("--tool", choices=list(TOOLS), help="only with this tool")
    parser.add_argument("--cases", type=int, choices=(1, 10), help="only with so many cases")
    parser.add_argument("--head", choices=list(HEADS), help="only against this model")
    parser.add_argument("--minutes", type=float, default=600, help="start no measurement after this many minutes")
    given = parser.parse_args()
    started, missing = time.monotonic(), missing_tools()
    for tool, program in missing.items():
        print(f"{tool}: left out, because {program} is not installed", file=sys.stderr)
    lines = [json.loads(text) for text in RAW.read_text(encoding="utf-8").splitlines()]
    for wanted in still_wanted(lines, is_quick=given.quick):
        asked = ((given.tool, wanted.tool), (given.cases, wanted.cases), (given.head, wanted.kind))
        if wanted.tool in missing or any(only not in (None, has) for only, has in asked):
            continue
        if time.monotonic() - started > 60 * given.minutes:
            break
        with tempfile.TemporaryDirectory(prefix="ab-noise-") as folder:
            line = measure(wanted, folder=Path(folder))
        with RAW.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        lines.append(line)
        print(json.dumps(line), file=sys.stderr, flush=True)
        TABLE.write_text(table(lines), encoding="utf-8")


if __name__ == "__main__":
    main()
