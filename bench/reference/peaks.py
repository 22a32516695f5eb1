"""Dense data-sheet peaks of common GPUs, each with its source: `peaks.csv`, by the name that NVML gives."""

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

PRECISIONS = ("fp32", "tf32", "fp16", "bf16")


@dataclass(frozen=True, kw_only=True)
class Peak:
    """What a GPU can do at most: dense FLOP/s by precision (None where it has no such units), and bytes/s."""

    flops_per_s: Mapping[str, float | None]
    bytes_per_s: float
    source: str


@cache
def read_peaks() -> Mapping[str, Peak]:
    """Every GPU of the table by name."""
    text = files("bench.reference").joinpath("peaks.csv").read_text(encoding="utf-8")
    found: dict[str, Peak] = {}
    for row in csv.DictReader(text.splitlines()):
        peak = Peak(
            flops_per_s={p: 1e12 * float(row[f"{p}_tflops"]) if row[f"{p}_tflops"] else None for p in PRECISIONS},
            bytes_per_s=1e9 * float(row["gbytes_per_s"]),
            source=row["source"],
        )
        found.update(dict.fromkeys(row["names"].split("|"), peak))
    return found


def peak_of(gpu: str) -> Peak | None:
    """The peaks of a GPU by its full name, None for one that is not in the table: a near name is another GPU."""
    return read_peaks().get(gpu)
