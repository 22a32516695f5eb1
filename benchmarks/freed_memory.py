"""Measures how much equal processes differ in speed if glibc returns freed memory to the system, and if it keeps it.

    python benchmarks/freed_memory.py

Runs `vbench ab` of the model of ab_noise.py against itself, with and without the variables of
`bench.ab.sides.KEEP_FREED_MEMORY` in turns, and prints the medians of all processes as a Markdown page.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median, stdev

from ab_noise import CLIPS, METRIC, MODELS, SUITE, log_ratios
from turns import environment_line

from bench.store import read_records

ROUNDS, BUDGET = 2, "90s"
SLOW = 1.25  # times the median of all processes that keep freed memory
CALL = "import sys; from bench.ab import sides; from bench.cli.app import main; {prepare}; sys.exit(main())"
PREPARE = {"returned to the system": "sides.KEEP_FREED_MEMORY.clear()", "kept": "pass"}


def measure(prepare: str) -> tuple[list[float], list[float]]:
    """Return the median of each process, in ms, and the logarithms of the ratios of pairs, of one A/B measurement."""
    with tempfile.TemporaryDirectory(prefix="freed-memory-") as name:
        folder = Path(name)
        (folder / "toy_models.py").write_text(MODELS, encoding="utf-8")
        (folder / "suite.yaml").write_text(SUITE.format(clips=CLIPS[0]), encoding="utf-8")
        model = "toy_models:plain"
        command = [sys.executable, "-c", CALL.format(prepare=prepare), "ab", model, model, "suite.yaml"]
        path = os.pathsep.join([name, str(Path(__file__).parents[1])])
        environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "HOME": name}
        done = subprocess.run(
            [*command, "--budget", BUDGET], cwd=folder, env=environment, capture_output=True, text=True, check=False
        )
        if done.returncode not in (0, 1, 4):
            raise SystemExit(done.stderr)
        results = next(folder.glob("results/*-ab/*"))
        records = [record for side in ("base", "head") for record in read_records(results / side)]
        return [m.value for r in records for m in r.metrics if m.name == METRIC and m.value], log_ratios(results)[0]


def main() -> None:
    found: dict[str, tuple[list[float], list[float]]] = {title: ([], []) for title in PREPARE}
    environment = environment_line()
    for _ in range(ROUNDS):
        for title, prepare in PREPARE.items():
            for kept, measured in zip(found[title], measure(prepare), strict=True):
                kept += measured
    middle = median(found["kept"][0])
    print("# Equal processes, with freed memory returned to the system and kept\n")
    print(f"{environment} Written by freed_memory.py. *slow*: above {SLOW} times {middle:.1f} ms.\n")
    print("| freed memory | processes | least, ms | median, ms | most, ms | slow | spread of pairs |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    for title, (times, ratios) in found.items():
        slow = sum(each > SLOW * middle for each in times)
        cells = [len(times), *(f"{each:.1f}" for each in (min(times), median(times), max(times))), slow]
        print(f"| {title} | {' | '.join(map(str, cells))} | {stdev(ratios):.1%} |")


if __name__ == "__main__":
    main()
