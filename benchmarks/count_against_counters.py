"""Compares vbench with the other counters on every video model of torchvision: count, seconds and peak memory.

    python benchmarks/count_against_counters.py [NAME ...] > benchmarks/count_against_counters.md

Each count runs in its own process, which imports the counter and builds the model before the clock starts. Peak
memory is what the count added to the process's largest resident size.
"""

import platform
import sys
from importlib.metadata import version

import torch

from bench.measure.counting.counters.run_counters import ModelByName, backends_of, run_counter
from bench.models.factory import list_models

OURS = "vbench"
SIZES = {"r3d_18": 112, "mc3_18": 112, "r2plus1d_18": 112}


def main() -> None:
    names = sys.argv[1:] or [name.removeprefix("torchvision:") for name in list_models("torchvision:*")]
    print(
        f"{platform.machine()}, {platform.system()}, Python {platform.python_version()}, torch {torch.__version__}, ",
        end="",
    )
    print(", ".join(f"{tool} {version(tool)}" for tool in ("fvcore", "thop", "ptflops")), end="\n\n")
    print("| model | counter | seconds | peak MiB | printed value |\n|---|---|---|---|---|")
    for name in names:
        size = SIZES.get(name, 224)
        for tool in (OURS, *backends_of(["all"])):
            answer = run_counter(tool, ModelByName(model=f"torchvision:{name}"), [(1, 3, 16, size, size)])
            print(f"| {name} | {tool} | {_measured(answer)} |", flush=True)


def _measured(answer: dict) -> str:
    if "error" in answer:
        return f"failed | | {answer['error'].splitlines()[0]}"
    printed = answer["report"]["printed"]
    return f"{answer['seconds']:.2f} | {answer['peak_bytes'] / 2**20:.0f} | {printed:,}"


if __name__ == "__main__":
    main()
