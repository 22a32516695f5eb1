"""Measures what a run adds to its cases: seconds and processor time per untimed case, and the parent's memory.

    python benchmarks/run_overhead.py [--cases 1000] [--devices cpu,cpu] > benchmarks/run_overhead.md

Each case is a measure that does nothing, so its whole time is overhead: the worker, its environment, its record and the
bookkeeping of the parent. Rows are blocks of cases in their order: what grows with the number of cases would show.
"""

import argparse
import os
import platform
import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from bench.core.yaml_tree import read_yaml
from bench.runner.devices import lanes_from_text
from bench.runner.environment import describe_environment
from bench.runner.running import Event, run

BLOCKS = 10
MEASURE = '''"""A measure that does nothing."""

from bench import Metric, register_measure


@register_measure("nothing", depends_on={"model", "args", "clip", "batch"}, version=1)
def nothing(case):
    """Does nothing."""
    return [Metric(name="nothing.done", value=1, unit="")]
'''
SUITE = """\
suite: overhead
plugins: [doing_nothing]
models: [{{name: c3d_search, width: 0.05, num_classes: 4}}]
matrix: {{clip: [4x1x16], batch: {batches}}}
measure: {{nothing: {{}}}}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=1000)
    parser.add_argument("--devices", help="as for vbench run")
    options = parser.parse_args()
    lanes = () if options.devices is None else lanes_from_text(options.devices)
    finished: list[tuple[float, float, int]] = []  # time, processor time of all processes, memory of the parent

    def note(event: Event) -> None:
        if event.kind in ("planned", "finished"):
            finished.append((time.monotonic(), _cpu_s(), psutil.Process().memory_info().rss))

    with _folder(options.cases):
        summary = run(read_yaml(Path("overhead.yaml")), out="results", lanes=lanes, on_event=note)
    assert (summary.measured, summary.failures) == (options.cases, 0)
    cpu = describe_environment().hardware["cpu"]
    load = f"load {os.getloadavg()[0]:.1f} at the end"
    print(f"{cpu}, {os.cpu_count()} threads, {load}, Python {platform.python_version()};")
    print(f"{options.cases} cases on {options.devices or 'one device'}. The first block includes imports.\n")
    print("| cases | s per case | CPU s per case | parent's memory, MB |")
    print("|---|---|---|---|")
    size = options.cases // BLOCKS
    for block in range(BLOCKS):
        (t0, cpu0, _), (t1, cpu1, memory) = finished[block * size], finished[(block + 1) * size]
        print(
            f"| {block * size + 1} to {(block + 1) * size} | {(t1 - t0) / size:.3f} | {(cpu1 - cpu0) / size:.3f} "
            f"| {memory / 1e6:.0f} |"
        )


def _cpu_s() -> float:
    """Processor time of this process and its descendants; that of forked workers is known to their server alone."""
    own = sum(sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    servers = psutil.Process().children()
    return own + sum(sum(server.cpu_times()[:4]) for server in servers)


@contextmanager
def _folder(cases: int) -> Iterator[None]:
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        os.environ["PYTHONPATH"] = f"{folder}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
        sys.path.insert(0, folder)
        Path("doing_nothing.py").write_text(MEASURE, encoding="utf-8")
        Path("overhead.yaml").write_text(SUITE.format(batches=list(range(1, cases + 1))), encoding="utf-8")
        try:
            yield
        finally:
            os.chdir(before)


if __name__ == "__main__":
    main()
