"""Measures how long a report takes to write and to open, for ten and for ten thousand records.

    python benchmarks/report_size.py [--browser /usr/bin/chromium]

Prints seconds and ratios to the budgets: ten records within the time of `python -c "import torch"`, ten thousand within
20 s, and pages that open within 2 s and 3 s. Opening is measured if playwright and a Chromium are installed.
"""

import argparse
import random
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from time import perf_counter

from bench.core.schema import Case, Environment, Metric, Point, Record
from bench.store import RECORDS

TEN, MANY = 10, 10_000
SAMPLES = 100
MODELS = ("c3d", "resnet3d_18", "resnet3d_50", "r2plus1d_18", "i3d", "slowfast_r50", "swin3d_t", "mvit_v2_s")
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
MAKE = "import sys; from bench.reporting.site import report; report(sys.argv[1], out=sys.argv[2])"


def main() -> None:
    """Print one line per budget."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--browser", default="/usr/bin/chromium", help="A Chromium to open the page with.")
    parser.add_argument("--repeat", type=int, default=5, help="Repeats of the short ones; the fastest counts.")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for count in (TEN, MANY):
            write_records(folder / str(count), count)
        torch_s = min(seconds_of("import torch") for _ in range(options.repeat))
        ten_s = min(seconds_of(MAKE, folder / "10", folder / "site-10") for _ in range(options.repeat))
        many_s = seconds_of(MAKE, folder / "10000", folder / "site-10000")
        site = folder / "site-10000"
        largest = max(site.rglob("*.html"), key=lambda file: file.stat().st_size)
        print(f"import torch                 {torch_s:6.2f} s")
        print(f"report of {TEN:>6} records      {ten_s:6.2f} s   {ten_s / torch_s:.2f} x import torch (at most 1.0)")
        print(f"report of {MANY:>6} records      {many_s:6.2f} s   (at most 20)")
        print(f"its largest page             {largest.stat().st_size / 1e6:6.1f} MB  {largest.name} (at most 3)")
        for name, seconds, most in seconds_in_browser(site, options.browser):
            print(f"{name:<28} {seconds:6.2f} s   (at most {most:g})")


def write_records(folder: Path, count: int) -> None:
    """Write a results folder of `count` records of a large matrix: counts, timings in five runs, accuracies."""
    folder.mkdir(parents=True)
    draw = random.Random(0)
    with (folder / RECORDS).open("w", encoding="utf-8") as file:
        for number, record in enumerate(_records(draw)):
            if number == count:
                return
            file.write(record.model_dump_json() + "\n")


def seconds_of(code: str, *arguments: Path) -> float:
    """Return the wall time of a new Python process that runs `code`."""
    started = perf_counter()
    subprocess.run([sys.executable, "-c", code, *map(str, arguments)], check=True)
    return perf_counter() - started


def seconds_in_browser(site: Path, browser: str) -> Iterator[tuple[str, float, float]]:
    """Times until pages are drawn, and of one sorting of the board, each with its budget."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        print("opening                      not measured: playwright is not installed")
        return
    if not Path(browser).exists():
        print(f"opening                      not measured: {browser} is not there")
        return
    with sync_playwright() as tools:
        chromium = tools.chromium.launch(executable_path=browser, args=list(FLAGS))
        view = chromium.new_page()
        for name, most in (("index", 2.0), ("board", 3.0)):
            started = perf_counter()
            view.goto((site / f"{name}.html").as_uri(), wait_until="load")
            view.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
            yield f"opening {name}.html", perf_counter() - started, most
        view.locator(".board .tabulator-row").first.wait_for()
        sorting = """() => new Promise((done) => {
            const started = performance.now();
            document.querySelectorAll(".board .tabulator-col button:not(.about)")[4].click();
            requestAnimationFrame(() => requestAnimationFrame(() => done((performance.now() - started) / 1000)));
        })"""
        yield "sorting the board", view.evaluate(sorting), 0.3
        chromium.close()


def _records(draw: random.Random) -> Iterator[Record]:
    """Yield the records of an endless matrix over growing widths."""
    width = 0
    while True:
        width += 1
        for model in MODELS:
            args = {"width": width}
            yield _counts(model, args, draw)
            for precision in ("fp32", "bf16"):
                for run in range(5):
                    yield _timing(model, args, precision, run, draw)
            for seed in range(3):
                yield _accuracy(model, args, seed, draw)


def _counts(model: str, args: dict[str, int], draw: random.Random) -> Record:
    metrics = [("params.total", "elements"), ("params.trainable", "elements"), ("macs.forward", "MACs")]
    return _record(
        Point(model=model, args=args, clip="16x1x112"),
        [Metric(name=n, value=draw.randrange(10**6, 10**9), unit=u, better="lower", is_exact=True) for n, u in metrics],
    )


def _timing(model: str, args: dict[str, int], precision: str, run: int, draw: random.Random) -> Record:
    ms = draw.uniform(5, 200)
    samples = tuple(ms * draw.gauss(1, 0.01) for _ in range(SAMPLES))
    point = Point(model=model, args=args, clip="16x1x112", precision=precision, memory_format="contiguous")
    metrics = [
        Metric(name="latency.p50_ms", value=ms, unit="ms", better="lower", samples=samples, interval=(ms - 1, ms + 1)),
        *(Metric(name=f"latency.p{p}_ms", value=ms * 1.1, unit="ms", better="lower") for p in (90, 95, 99)),
        *(
            Metric(
                name="throughput.clips_per_s",
                value=1000 * b / ms,
                unit="clips/s",
                better="higher",
                labels={"batch": str(b)},
            )
            for b in (1, 8, 32)
        ),
        Metric(name="memory.peak_allocated_bytes", value=draw.randrange(10**8, 10**10), unit="B", better="lower"),
        Metric(name="energy.j_per_clip", value=ms / 10, unit="J", better="lower"),
    ]
    return _record(point, metrics, run_index=run)


def _accuracy(model: str, args: dict[str, int], seed: int, draw: random.Random) -> Record:
    top1 = draw.uniform(30, 90)
    axes = {"dataset": "ucf101", "split": 1, "recipe": "c3d_ucf101", "views": "10x1", "seed": seed}
    metrics = [
        Metric(name=f"accuracy.top{k}", value=v, unit="%", better="higher", interval=(v - 1, v + 1))
        for k, v in ((1, top1), (5, min(99.0, top1 + 9)))
    ]
    return _record(Point(model=model, args=args, clip="16x1x112", **axes), metrics)


def _record(point: Point, metrics: list[Metric], *, run_index: int = 0) -> Record:
    measures = {metric.name.partition(".")[0]: {} for metric in metrics}
    case = Case(suite="matrix", point=point, measures=measures)
    environment = Environment(
        hardware={"cpu": "AMD EPYC 9B14", "gpu": "NVIDIA H100 80GB HBM3", "ram_bytes": 2**37},
        software={"torch": "2.15.0", "python": "3.11.2", "cuda": "12.8"},
        state={"load_1min": 0.5, "gpu_clock_mhz": 1980, "commit": "0" * 40},
    )
    return Record(
        case=case,
        case_id=case.id,
        run_index=run_index,
        freshness="0",
        status="ok",
        metrics=tuple(metrics),
        environment=environment,
        started_at="2025-03-01T00:00:00+00:00",
    )


if __name__ == "__main__":
    main()
