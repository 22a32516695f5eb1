"""Reading 100,000 records: load_records, listing and planning, against json.loads of the same file in the same run.

    python benchmarks/many_records.py [--records 100000] > benchmarks/many_records.md

Each step is a process of its own: its CPU time with imports, and its peak memory as a multiple of the file's size.
Other processes on the machine slow everything alike, so the ratio to json.loads is what to compare.
"""

import argparse
import json
import os
import platform
import random
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from bench.core.schema import Case, Clip, Environment, Metric, Point, Record
from bench.runner.running import plan

RUNS_PER_CASE = 50
SAMPLES = 12
CHILD = """
import json, resource, sys
exec(sys.argv[1])
own = resource.getrusage(resource.RUSAGE_SELF)
children = resource.getrusage(resource.RUSAGE_CHILDREN)
peak = [line for line in open("/proc/self/status") if line.startswith("VmHWM")][0].split()[1]
cpu = sum(u.ru_utime + u.ru_stime for u in (own, children))
print(json.dumps([cpu, int(peak) * 1024]), file=sys.stderr)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=100_000)
    number = parser.parse_args().records
    with tempfile.TemporaryDirectory() as folder:
        print_measured(Path(folder), number)


def print_measured(folder: Path, number: int) -> None:
    os.environ["XDG_CACHE_HOME"] = str(folder / "cache")
    os.chdir(folder)
    Path("res").mkdir()
    Path("many.yaml").write_text(json.dumps(suite(number)))
    fingerprint = dict(next(iter(plan("many.yaml", out="empty").fingerprints.values())).parts)  # of one model's cases
    with (file := Path("res/records.jsonl")).open("w") as lines:
        lines.writelines(record.model_dump_json() + "\n" for record in records(number, fingerprint))
    size = file.stat().st_size
    print(f"{platform.machine()}, {os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}, {platform.python_version()}.")
    print(f"{number} records of {number // RUNS_PER_CASE} cases, {size / 2**20:.0f} MiB.\n")
    print("| step | CPU s | times json.loads | peak memory / file size |\n|---|---|---|---|")
    load = f"import bench; frame = bench.load_records('res'); assert len(frame) == {4 * number}"
    steps = {
        "json.loads of every line": "[None for line in open('res/records.jsonl') if json.loads(line) is None]",
        "imports of pandas and pyarrow": "import pandas, pyarrow.parquet",
        "load_records, without a cache": load,
        "load_records, cached": load,
        "vbench results list": command("results", "list", "res"),
        "vbench plan": command("plan", "many.yaml", "--out", "res"),
    }
    base = None
    for name, code in steps.items():
        cpu, peak = measured(code)
        base = base or cpu
        print(f"| {name} | {cpu:.2f} | {cpu / base:.2f} | {peak / size:.2f} |", flush=True)


def command(*arguments: str) -> str:
    return f"from bench.cli.app import run_command; assert run_command({list(arguments)}) == 0"


def measured(code: str) -> tuple[float, int]:
    """CPU seconds and peak memory in bytes of a Python process that runs `code`."""
    done = subprocess.run([sys.executable, "-c", CHILD, code], capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stderr)
    cpu, peak = json.loads(done.stderr.splitlines()[-1])
    return cpu, peak


def suite(number: int) -> dict[str, object]:
    """A suite of which these are the records: each case was run `RUNS_PER_CASE` times."""
    widths = [width(case) for case in range(number // RUNS_PER_CASE)]
    return {
        "suite": "many",
        "models": [{"name": "c3d_search", "num_classes": 2, "width": widths}],
        "matrix": {"clip": ["4x1x32"]},
        "measure": {"params": {}},
        "repeat": RUNS_PER_CASE,
    }


def width(case: int) -> float:
    return (case + 1) / 1e5


def records(number: int, fingerprint: dict[str, str]) -> Iterator[Record]:
    rng = random.Random(0)
    software = dict.fromkeys(("vbench", "python", "torch", "torchvision", "timm", "transformers", "numpy"), "1.2.3")
    hardware = {"cpu": "Xeon", "cpu_cores": 2, "cpu_threads": 2, "ram_bytes": 25276510208, "architecture": "x86_64"}
    environment = Environment(hardware=hardware, software=software, state={"load_1min": 0.5, "commit": "e17eca7" * 5})
    for place in range(number):
        point = Point(
            model="c3d_search",
            args={"num_classes": 2, "width": width(place // RUNS_PER_CASE)},
            clip=Clip.model_validate("4x1x32"),
        )
        case = Case(suite="many", point=point, measures={"params": {}}, runs=RUNS_PER_CASE)
        samples = tuple(rng.random() for _ in range(SAMPLES))
        metrics = tuple(
            Metric(
                name=f"latency.p{q}_ms", value=rng.random(), unit="ms", better="lower", interval=(0.5, 0.6), samples=s
            )
            for q, s in ((50, samples), (90, ()), (95, ()), (99, ()))
        )
        yield Record(
            case=case,
            case_id=case.id,
            run_index=place % RUNS_PER_CASE,
            freshness="5a06160fe2b1",
            fingerprint=fingerprint,
            status="ok",
            metrics=metrics,
            environment=environment,
            started_at="2026-11-30T04:56:20+00:00",
            seconds={"latency": 0.4, "whole": 2.8},
        )


if __name__ == "__main__":
    main()
