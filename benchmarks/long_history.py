"""Times `vbench history` on 5,000 commits of 50 series: reading, finding steps, grouping alarms.

    python benchmarks/long_history.py        # writes long_history.md

The repository is real (made by `git fast-import`); its records are generated: ten cases of five metrics, with noise of
1 % and a canary, and every thousandth commit makes one case 10 % slower or larger.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from bench.core.schema import Case, Clip, Environment, Json, Metric, Point, Record

TABLE = Path(__file__).with_suffix(".md")
COMMITS, CASES, EVERY = 5000, 10, 1000
TIMES = ("latency.p50_ms", "latency.p90_ms", "end_to_end.p50_ms")


def make_repository(folder: Path) -> list[str]:
    """Make a repository of empty commits and return them, oldest first."""
    subprocess.run(["git", "init", "-q", "-b", "main", str(folder)], check=True)
    commits = (
        f"commit refs/heads/main\ncommitter b <b@b> {1_700_000_000 + 3600 * number} +0000\ndata 1\nx\n"
        for number in range(COMMITS)
    )
    subprocess.run(["git", "fast-import", "--quiet"], cwd=folder, input="".join(commits), text=True, check=True)
    listed = subprocess.run(["git", "rev-list", "--reverse", "main"], cwd=folder, capture_output=True, text=True)
    return listed.stdout.split()


def lines(commits: list[str]) -> Iterator[str]:
    """Yield one record for each case at each commit."""
    rng = np.random.default_rng(0)
    hardware, software = {"cpu": "Xeon", "cpu_cores": 2}, {"torch": "2.14.1", "python": "3.11.7"}
    levels = np.ones(CASES)
    for number, commit in enumerate(commits):
        if number and number % EVERY == 0:
            levels[number // EVERY] *= 1.1
        for place in range(CASES):
            noise = np.exp(0.01 * rng.standard_normal(5))
            times = [
                Metric(name=name, value=20 * levels[place] * noise[n], unit="ms", better="lower")
                for n, name in enumerate(TIMES)
            ]
            rate = Metric(
                name="throughput.clips_per_s", value=50 / levels[place] * noise[3], unit="clips/s", better="higher"
            )
            macs = Metric(
                name="macs.forward", value=round(1e9 * levels[place]), unit="MACs", better="lower", is_exact=True
            )
            point = Point(model="net", args={"width": place + 1}, clip=Clip(frames=16, height=112, width=112))
            measures: dict[str, dict[str, Json]] = {
                name.partition(".")[0]: {} for name in (*TIMES, rate.name, macs.name)
            }
            case = Case(suite="nets", point=point, measures=measures)
            yield Record(
                case=case,
                case_id=case.id,
                run_index=0,
                freshness="",
                status="ok",
                metrics=(*times, rate, macs),
                details={"canary": {"matmul_ms": {"before": 0.36 * noise[4], "after": 0.36}}},
                environment=Environment(
                    hardware=hardware, software=software, state={"commit": commit, "is_dirty": False}
                ),
                started_at=datetime.fromtimestamp(1_700_000_000 + 3600 * number, UTC).isoformat(),
            ).model_dump_json()


def measure(folder: Path, *arguments: str) -> tuple[float, float, str]:
    """Return seconds, peak MiB and output of a vbench command."""
    started = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-m", "bench", *arguments], cwd=folder, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    printed = process.stdout.read()
    _, status, used = os.wait4(process.pid, 0)
    assert status == 0, printed
    return time.monotonic() - started, used.ru_maxrss / 1024, printed


def main() -> None:
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "repository"
        commits = make_repository(folder)
        history = folder / "history.jsonl"
        with history.open("w") as file:
            file.writelines(f"{line}\n" for line in lines(commits))
        size_mib = history.stat().st_size / 2**20
        rows = []
        for title, arguments in {
            "all 50 series": ["--from", "history.jsonl"],
            "one series of 5,000 commits": ["latency.p50_ms", "net width=1 16x1x112", "--from", "history.jsonl"],
        }.items():
            seconds, peak_mib, printed = measure(folder, "history", *arguments)
            rows.append(f"| {title} | {seconds:.1f} | {peak_mib:.0f} | {printed.strip().splitlines()[-1]} |")
            print(rows[-1], flush=True)
        found = json.loads(measure(folder, "history", "--from", "history.jsonl", "--json")[2])
    alarms = [(commits.index(each["first"]), len(each["moved"])) for each in found["alarms"]]
    machine = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    text = [
        "# `vbench history` of thousands of commits",
        "",
        f"{found['series']} series over {found['commits']:,} commits of a real repository, with a "
        f"planted change at every {EVERY}th ({size_mib:.0f} MiB of records). Whole commands, on "
        f"{machine[1] if machine else 'one core'}. Written by long_history.py.",
        "",
        "| history of | seconds | peak memory, MiB | last line |",
        "|---|---:|---:|---|",
        *rows,
        "",
        "Alarms: " + "; ".join(f"commit {place:,} with {moved} metrics" for place, moved in alarms) + ".",
    ]
    TABLE.write_text("\n".join(text) + "\n")


if __name__ == "__main__":
    main()
