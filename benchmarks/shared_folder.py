"""The load of a shared results folder: a model of many workers, checked against real workers on this machine.

python -m benchmarks.shared_folder [--real 100] [--trip-ms 0.5] > benchmarks/shared_folder.md

The model is a discrete-event simulation. Its workers do what `WorkQueue` and `Leases` do, file operation by file
operation; each operation keeps the file server busy for the time that it takes here, measured at the start, and its
worker for one round trip more. Real workers are processes with real queues, leases and records; only their runs are a
wait. Operations of both are counted and compared.
"""

import argparse
import heapq
import json
import multiprocessing
import os
import platform
import random
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from bench.core.schema import Case, Environment, Point, Record
from bench.runner.work_queue import POLL_S, WorkQueue
from bench.store import RecordStore, read_records
from bench.store.leases import BEAT_S, Leases

RECORD_BYTES = 17_000  # of a case with its samples: the mean of reports/records
LEASE_BYTES = 330
Operations = dict[str, int]
# What each step of a worker does; a scan and a listing of leases depend on the number of files. pathlib looks at a
# folder before it lists it, and after it could not make it.
ATTEMPT: Operations = {"create": 1}
HELD: Operations = {"create": 1, "stat": 1, "read": 1}  # the exclusive creation fails; who has it?
RELEASE: Operations = {"read": 1, "unlink": 1}
BEAT: Operations = {"read": 1, "utime": 1}
APPEND: Operations = {"mkdir": 1, "append": 1, "stat": 1}


def seconds_of(run: int, mean_s: float) -> float:
    """The time of a run, between half and one and a half of the mean: equal ones would end all at once."""
    return random.Random(run).uniform(0.5, 1.5) * mean_s


@dataclass
class Server:
    """The machine that holds the folder: `threads` operations at a time, each as long as measured here.

    `costs_s` are the seconds of an operation of each kind; a worker waits `trip_s` more for each.
    """

    costs_s: dict[str, float]
    trip_s: float
    threads: int = 8
    operations: Counter[str] = field(default_factory=Counter)
    busy_s: float = 0.0
    bytes_read: int = 0

    def __post_init__(self) -> None:
        self._free_s = [0.0] * self.threads

    def use(self, now_s: float, operations: Operations) -> float:
        """Do operations one after another from `now_s` on; returns when the last one has been answered."""
        service_s = sum(self.costs_s[name] * number for name, number in operations.items())
        start_s = max(now_s, self._free_s[0])
        heapq.heapreplace(self._free_s, start_s + service_s)
        self.operations.update(operations)
        self.busy_s += service_s
        return start_s + service_s + self.trip_s * sum(operations.values())


@dataclass
class Model:
    """`workers` that make `runs` of `run_s` seconds on average, on one folder."""

    workers: int
    runs: int
    run_s: float
    server: Server
    held: set[int] = field(default_factory=set)
    finished: list[int] = field(default_factory=list)  # in the order of time
    files: set[int] = field(default_factory=set)
    end_s: float = 0.0

    def simulate(self) -> None:
        """Let all workers work until the last one has left."""
        order = random.Random(0)
        active = [self._worker(number, order.randrange(self.runs)) for number in range(self.workers)]
        events = [(0.0, number) for number in range(self.workers)]
        for each in active:
            next(each)
        while events:
            now_s, number = heapq.heappop(events)
            try:
                heapq.heappush(events, (active[number].send(now_s), number))
            except StopIteration:
                self.end_s = max(self.end_s, now_s)

    def _worker(self, number: int, first: int) -> Any:
        """Yield the time of the next step and get that time back, as `WorkQueue.runs` goes through the runs."""
        use, seen = self.server.use, 0
        known = bytearray(self.runs)
        left = [*range(first, self.runs), *range(first)]
        now_s = yield 0.0

        def scan() -> float:
            """One look at every records file, and at the new lines of those that have grown."""
            nonlocal seen
            new = self.finished[seen:]
            seen += len(new)
            for run in new:
                known[run] = True
            self.server.bytes_read += len(new) * RECORD_BYTES
            grown = min(len(new), len(self.files))
            return use(now_s, {"list": 1, "entry": len(self.files), "stat": len(self.files) + 1, "read": grown})

        while left:
            now_s = yield scan()
            passed = []
            for run in left:
                if known[run]:
                    continue
                if run in self.held:
                    now_s = yield use(now_s, HELD)
                    if not known[run]:
                        passed.append(run)
                    continue
                self.held.add(run)
                now_s = yield use(now_s, ATTEMPT)
                now_s = yield scan()
                if not known[run]:
                    end_s = now_s + seconds_of(run, self.run_s)
                    while now_s + BEAT_S < end_s:
                        yield now_s + BEAT_S
                        now_s = yield use(now_s + BEAT_S, BEAT)
                    now_s = yield max(now_s, end_s)
                    now_s = yield use(now_s, APPEND)
                    self.files.add(number)
                    self.finished.append(run)
                now_s = yield use(now_s, RELEASE)
                self.held.discard(run)
            if len(passed) == len(left):
                now_s = yield use(
                    now_s, {"list": 1, "entry": len(self.held), "stat": len(self.held) + 1, "read": len(self.held)}
                )
                return
            left = passed
            if left:
                now_s = yield now_s + POLL_S


def measured_costs(folder: Path, *, times: int = 2000) -> dict[str, float]:
    """Return the seconds of each file operation on the file system of `folder`, the median of many."""
    payload = json.dumps({"x": "y" * LEASE_BYTES}).encode()
    line = b"x" * RECORD_BYTES + b"\n"
    files = [folder / f"lease-{number}" for number in range(times)]

    def create(file: Path) -> None:
        with open(os.open(file, os.O_CREAT | os.O_EXCL | os.O_WRONLY), "wb") as opened:
            opened.write(payload)

    def append(file: Path) -> None:
        with (folder / "records").open("ab", buffering=0) as opened:
            opened.write(line)
            os.fsync(opened.fileno())

    steps: list[tuple[str, Callable[[Path], object]]] = [
        ("create", create),
        ("stat", lambda file: file.stat()),
        ("read", lambda file: file.read_bytes()),
        ("utime", os.utime),
        ("append", append),
        ("mkdir", lambda file: folder.mkdir(exist_ok=True)),
        ("entry", lambda file: os.listdir(folder)),
        ("unlink", lambda file: file.unlink()),
    ]
    found = {}
    for name, step in steps:
        spent = []
        for file in files[:200] if name in ("append", "entry") else files:
            began = time.perf_counter()
            step(file)
            spent.append(time.perf_counter() - began)
        found[name] = statistics.median(spent)
    return {**found, "entry": found["entry"] / times, "list": found["stat"]}


# Real workers ---------------------------------------------------------------------------------------------------------


def real_record(run: str) -> Record:
    case = Case(suite="simulated", point=Point(model="c3d", clip="16x1x112"), measures={"params": {}})
    details = {"filler": "x" * (RECORD_BYTES - 700)}
    return Record(
        case=case,
        case_id=run,
        run_index=0,
        freshness="f",
        started_at="2026-01-01T00:00:00+00:00",
        status="ok",
        details=details,
        environment=Environment(),
        seconds={"whole": 1.0},
    )


def real_worker(folder: Path, number: int, runs: int, run_s: float, answers: Any) -> None:
    """Take runs from a real queue, wait `run_s` for each, and store a real record; answers with what it cost."""
    counts: Counter[str] = Counter()
    count_operations(counts, within=str(folder))
    name, takes, began = f"w{number}", [], time.perf_counter()
    queue = WorkQueue(folder, Leases(folder, worker=name), waits=False, marks={})  # as workers of a submission do
    store = RecordStore(folder, worker=name)
    pending: Any = [(SimpleNamespace(id=f"case-{run}", title="c3d"), 0) for run in range(runs)]
    made, asked = 0, time.perf_counter()
    for (case, _), lease in queue.runs(pending):
        takes.append(time.perf_counter() - asked)
        with lease.kept_alive():
            time.sleep(seconds_of(int(case.id.removeprefix("case-")), run_s))
            store.append(real_record(case.id))
        made, asked = made + 1, time.perf_counter()
    answers.put((made, takes, dict(counts), time.perf_counter() - began))


def count_operations(counts: Counter[str], *, within: str) -> None:
    """Count the file operations of this process below a folder, by the names of the model."""
    events = {"os.mkdir": "mkdir", "os.remove": "unlink", "os.utime": "utime", "os.scandir": "list"}

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open" and str(arguments[0]).startswith(within):
            flags = arguments[2]
            kind = "create" if flags & os.O_EXCL else "append" if flags & os.O_APPEND else "read"
            counts[kind] += 1
        elif event in events and str(arguments[0]).startswith(within):
            counts[events[event]] += 1

    stat = os.stat

    def counted_stat(path: Any, **options: Any) -> os.stat_result:
        if str(path).startswith(within):
            counts["stat"] += 1
        return stat(path, **options)

    sys.addaudithook(hook)
    os.stat = counted_stat  # there is no audit event for it


def real_run(folder: Path, *, workers: int, runs: int, run_s: float) -> dict[str, Any]:
    context = multiprocessing.get_context("fork")  # a hundred interpreters would need gigabytes
    answers = context.Queue()
    arguments = [(folder, number, runs, run_s, answers) for number in range(workers)]
    processes = [context.Process(target=real_worker, args=each) for each in arguments]
    began = time.perf_counter()
    for process in processes:
        process.start()
    found = [answers.get(timeout=1800) for _ in processes]
    wall_s = time.perf_counter() - began
    for process in processes:
        process.join()
    records = read_records(folder)
    assert len(records) == len({record.case_id for record in records}) == runs, "a run was lost or made twice"
    operations: Counter[str] = Counter()
    for _, _, counts, _ in found:
        operations.update(counts)
    return {"wall_s": wall_s, "operations": operations, "takes": sorted(take for each in found for take in each[1])}


def merge_seconds(folder: Path, *, workers: int, runs: int) -> tuple[float, int]:
    """Seconds to read the records that `workers` have written, and their bytes."""
    for number in range(workers):
        lines = (real_record(f"case-{run}").model_dump_json() for run in range(number, runs, workers))
        (folder / f"records.w{number}.jsonl").write_text("".join(line + "\n" for line in lines))
    began = time.perf_counter()
    assert len(read_records(folder)) == runs
    return time.perf_counter() - began, sum(file.stat().st_size for file in folder.glob("records*"))


# Page -----------------------------------------------------------------------------------------------------------------

KINDS = ("list", "stat", "read", "create", "mkdir", "utime", "append", "unlink")


def table(columns: list[str], rows: Iterator[list[str]]) -> None:
    print("| " + " | ".join(columns) + " |")
    print("|" + "---|" * len(columns))
    for row in rows:
        print("| " + " | ".join(row) + " |", flush=True)
    print()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--real", type=int, default=100, help="workers of the largest real run")
    parser.add_argument("--trip-ms", type=float, default=0.5, help="round trip of the modelled network")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        costs = measured_costs(Path(folder))
    print("# Workers on one results folder\n")
    print(f"`python -m benchmarks.shared_folder --real {given.real}`, {platform.platform()}, {os.cpu_count()} cores.\n")
    print("## File operations here\n")
    table(["operation", "µs"], ([name, f"{seconds * 1e6:.1f}"] for name, seconds in costs.items()))
    print("`entry` is one name of a listing; `append` writes and syncs a record of 17 kB.\n")
    print("## The model against real workers\n")
    print("Operations on the folder in all; each worker makes about five runs of 12 s. The model has no network.\n")
    table(["workers", "runs", "", *KINDS, "seconds", "take, p50"], compared(given.real, costs))
    print("## Thousand workers\n")
    print("Model of 10,000 runs; a file server with eight threads at the speed of this machine.\n")
    columns = ["workers", "a run", "round trip", "operations", "per second", "of these stat", "heartbeats"]
    columns += ["server busy", "records read", "seconds", "of these idle"]
    table(columns, modelled(costs, trip_s=given.trip_ms / 1e3))
    with tempfile.TemporaryDirectory() as folder:
        seconds, size = merge_seconds(Path(folder), workers=1000, runs=10_000)
    print(f"Reading all 10,000 records of 1,000 files ({size / 1e6:.0f} MB): {seconds:.1f} s.")


def compared(most: int, costs: dict[str, float]) -> Iterator[list[str]]:
    for workers in (most // 10, most // 2, most):
        runs = 5 * workers
        with tempfile.TemporaryDirectory() as folder:
            real = real_run(Path(folder), workers=workers, runs=runs, run_s=12.0)
        model = Model(workers=workers, runs=runs, run_s=12.0, server=Server(costs, trip_s=0.0))
        model.simulate()
        take_ms = f"{real['takes'][len(real['takes']) // 2] * 1e3:.1f} ms"
        for name, found, seconds, take in (
            ("real", real["operations"], real["wall_s"], take_ms),
            ("model", model.server.operations, model.end_s, ""),
        ):
            yield [str(workers), str(runs), name, *(f"{found[kind]:,}" for kind in KINDS), f"{seconds:.0f}", take]


def modelled(costs: dict[str, float], *, trip_s: float) -> Iterator[list[str]]:
    for workers, run_s in ((10, 60.0), (100, 60.0), (1000, 10.0), (1000, 60.0)):
        model = Model(workers=workers, runs=10_000, run_s=run_s, server=Server(costs, trip_s=trip_s))
        model.simulate()
        done, work_s = model.server.operations, sum(seconds_of(run, run_s) for run in range(10_000))
        number = sum(done[kind] for kind in KINDS)
        yield [
            f"{workers:,}",
            f"{run_s:g} s",
            f"{trip_s * 1e3:g} ms",
            f"{number:,}",
            f"{number / model.end_s:,.0f}",
            f"{done['stat'] / number:.0%}",
            f"{done['utime'] / model.end_s:,.1f} per s",
            f"{model.server.busy_s / model.end_s / model.server.threads:.0%}",
            f"{model.server.bytes_read / 1e9:.1f} GB",
            f"{model.end_s:,.0f}",
            f"{1 - work_s / workers / model.end_s:.0%}",
        ]


if __name__ == "__main__":
    main()
