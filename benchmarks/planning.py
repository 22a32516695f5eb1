"""Planning: the first plan of models that were never asked about, and a plan of many cases whose models are known.

    python benchmarks/planning.py [--models 2000] [--cases 10000] > benchmarks/planning.md

Each plan is a process of its own; CPU seconds include its child, which imports torch to build models it does not know.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

CHILD = """
import resource, sys
from bench.cli.app import run_command
assert run_command(["plan", sys.argv[1]]) == 0
used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
print(*(usage.ru_utime + usage.ru_stime for usage in used), file=sys.stderr)
"""
MODES = {"precision": ["fp32", "bf16"], "memory_format": ["contiguous", "channels_last_3d"], "batch": [1, 2, 4, 8, 16]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=int, default=2000)
    parser.add_argument("--cases", type=int, default=10_000, help="in twenties")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_CACHE_HOME"] = f"{folder}/cache"
        os.chdir(folder)
        write_suite("models", range(1, given.models + 1), {}, {"params": {}})
        few = range(1, 51)
        threads = list(range(1, given.cases // (20 * len(few)) + 1))
        write_suite("cases", few, {**MODES, "threads": threads}, {"latency": {}})
        machine = f"{platform.machine()}, {os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}"
        print(f"{machine}, Python {platform.python_version()}.\n")
        print("| plan | CPU s | CPU s of the child with torch | wall s |\n|---|---|---|---|")
        for name, suite in (
            (f"{given.models} models, none known", "models"),
            (f"{given.models} models, all known", "models"),
            (f"{given.cases} cases of {len(few)} known models", "cases"),
        ):
            started = time.monotonic()
            done = subprocess.run([sys.executable, "-c", CHILD, f"{suite}.yaml"], capture_output=True, text=True)
            if done.returncode:
                sys.exit(done.stderr)
            own, child = map(float, done.stderr.split()[-2:])
            print(f"| {name} | {own:.2f} | {child:.2f} | {time.monotonic() - started:.1f} |", flush=True)


def write_suite(name: str, widths: range, matrix: dict[str, object], measures: dict[str, object]) -> None:
    models = [{"name": "c3d_search", "num_classes": 2, "width": [width / 1e5 for width in widths]}]
    suite = {"suite": name, "models": models, "matrix": {"clip": ["4x1x32"], **matrix}, "measure": measures}
    Path(f"{name}.yaml").write_text(json.dumps(suite), encoding="utf-8")


if __name__ == "__main__":
    main()
