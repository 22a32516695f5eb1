"""Compares the start-up time of commands with `python -c "import torch"`, interleaved, as ratios of medians.

    python benchmarks/startup.py [--runs 5]

Prints one line per command: median, range, ratio to importing torch, budget. The exit code is always 0: machines are
noisy, so this informs and does not gate.
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parents[1]
VBENCH = [sys.executable, "-m", "bench"]
PROFILE = [*VBENCH, "profile", "c3d", "--input", "1x3x16x112x112"]
IMPORT_TORCH = [sys.executable, "-c", "import torch"]


def main() -> None:
    """Time every command `--runs` times in rounds, so that drift of the machine affects all equally."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    runs = parser.parse_args().runs
    with tempfile.TemporaryDirectory() as folder:
        cache = Path(folder)
        commands = {
            "import torch": (IMPORT_TORCH, None, False),
            "profile c3d, first": (PROFILE, 1.6, True),
            "profile c3d, cached": (PROFILE, 0.6, False),
            "--help": ([*VBENCH, "--help"], 0.5, False),
            "models c3d, cached": ([*VBENCH, "models", "c3d"], 0.5, False),
            "plan quickstart, cached": ([*VBENCH, "plan", "suites/quickstart.yaml"], 0.5, False),
        }
        for command, _, _ in commands.values():
            seconds_of(command, cache)
        taken: dict[str, list[float]] = {name: [] for name in commands}
        for _ in range(runs):
            for name, (command, _, is_cold) in commands.items():
                if is_cold:
                    shutil.rmtree(cache / "vbench" / "profiles", ignore_errors=True)
                taken[name].append(seconds_of(command, cache))
    show(taken, {name: budget for name, (_, budget, _) in commands.items()})


def seconds_of(command: list[str], cache: Path) -> float:
    environment = {**os.environ, "XDG_CACHE_HOME": str(cache)}
    started = time.perf_counter()
    subprocess.run(command, cwd=HERE, env=environment, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


def show(taken: dict[str, list[float]], budgets: dict[str, float | None]) -> None:
    """The ratio is the median of ratios within a round."""
    base = taken["import torch"]
    print(f"{'command':26} {'median s':>9} {'range s':>15} {'x import torch':>15} {'budget':>7}")
    for name, seconds in taken.items():
        ratio = statistics.median(s / b for s, b in zip(seconds, base, strict=True))
        spread = f"{min(seconds):.2f}–{max(seconds):.2f}"
        budget = budgets[name]
        bound = "" if budget is None else f"{budget:.1f}"
        print(f"{name:26} {statistics.median(seconds):9.2f} {spread:>15} {ratio:15.2f} {bound:>7}")


if __name__ == "__main__":
    main()
