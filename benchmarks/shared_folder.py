"""What a shared results folder costs when many workers take runs from it: file operations and seconds.

python -m benchmarks.shared_folder [--workers 1000] [--runs 10000] > benchmarks/shared_folder.md

Every worker is a real queue with leases and a records file of its own, in one process: what is simulated is only the
time that a run takes. A step of the simulation lets each worker take one run, then each store its result.
"""

import argparse
import platform
import statistics
import tempfile
import time
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

from bench.core.schema import Case, Environment, Point, Record
from bench.runner.work_queue import WorkQueue
from bench.store import RecordStore, read_records
from bench.store.leases import BEAT_S, Leases


def record_of(case: Case, index: int) -> Record:
    return Record(
        case=case,
        case_id=case.id,
        run_index=index,
        freshness="f",
        started_at="2026-01-01T00:00:00+00:00",
        status="ok",
        metrics=(),
        environment=Environment(),
        seconds={"whole": 1.0},
    )


def simulate(folder: Path, *, workers: int, runs: int) -> dict[str, float]:
    case = Case(suite="simulated", point=Point(model="c3d", clip="16x1x112"), measures={"params": {}})
    pending = [(SimpleNamespace(id=f"case-{number}", title="c3d"), 0) for number in range(runs)]
    queues = [
        WorkQueue(folder, Leases(folder, worker=f"w{n}"), waits=False, sleep=lambda s: None) for n in range(workers)
    ]
    stores = [RecordStore(folder, worker=f"w{n}") for n in range(workers)]
    takers = [queue.runs(pending) for queue in queues]  # type: ignore[arg-type]
    takes: list[float] = []
    stored: Counter[str] = Counter()
    active = set(range(workers))
    while active:
        held = []
        for number in sorted(active):
            began = time.perf_counter()
            found = next(takers[number], None)
            takes.append(time.perf_counter() - began)
            if found is None:
                active.discard(number)
            else:
                held.append((number, *found))
        for number, (fake, index), lease in held:
            line = record_of(case, index).model_copy(update={"case_id": fake.id})
            stores[number].append(line)
            lease.release()
            stored[fake.id] += 1
    assert set(stored.values()) == {1}
    assert len(stored) == runs
    began = time.perf_counter()
    assert len(read_records(folder)) == runs
    return {
        "take_p50_ms": statistics.median(takes) * 1e3,
        "take_p95_ms": sorted(takes)[int(0.95 * len(takes))] * 1e3,
        "take_total_s": sum(takes),
        "merge_s": time.perf_counter() - began,
        "bytes": sum(file.stat().st_size for file in stores[0].files),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, default=1000)
    parser.add_argument("--runs", type=int, default=10_000)
    given = parser.parse_args()
    print("# Workers on one results folder\n")
    print(f"`python -m benchmarks.shared_folder --workers {given.workers} --runs {given.runs}`, {platform.platform()},")
    print("a local file system; on NFS each file operation costs a round trip instead.\n")
    print("| workers | runs | take, p50 | take, p95 | all takes | reading all records | records | heartbeats |")
    print("|---|---|---|---|---|---|---|---|")
    sizes = [(max(1, given.workers // part), max(1, given.runs // part)) for part in (100, 10, 1)]
    for workers, runs in sizes:
        with tempfile.TemporaryDirectory() as folder:
            found = simulate(Path(folder), workers=workers, runs=runs)
        print(
            f"| {workers:,} | {runs:,} | {found['take_p50_ms']:.1f} ms | {found['take_p95_ms']:.1f} ms "
            f"| {found['take_total_s']:.1f} s | {found['merge_s']:.1f} s | {found['bytes'] / 1e6:.1f} MB "
            f"| {workers / BEAT_S:.0f} per s |",
            flush=True,
        )


if __name__ == "__main__":
    main()
