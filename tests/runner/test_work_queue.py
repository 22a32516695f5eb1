"""Workers that share a results folder: each run is made once, and what a lost worker leaves is taken up."""

import json
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest

from bench.core.errors import StoreError
from bench.runner.running import run
from bench.runner.work_queue import SharedWorker, WorkQueue, restarted_name
from bench.store import RecordStore, read_records
from bench.store.leases import EXPIRES_S, Leases
from bench.store.stored_records import latest_runs

SUITE = """
suite: shared
models:
  - {name: c3d_search, width: [0.0625, 0.125], num_classes: 3, kernel_depth: [1, 3]}
matrix: {clip: [1x1x32, 2x1x32]}
measure: {params: {}}
"""
RUNS = 8


def write_suite(folder: Path) -> Path:
    file = folder / "suite.yaml"
    file.write_text(SUITE)
    return file


def case(name: str) -> SimpleNamespace:
    return SimpleNamespace(id=name, title=name)


def test_two_workers_at_once_make_each_run_once(tmp_path: Path) -> None:
    suite, folder = write_suite(tmp_path), tmp_path / "out"
    command = [sys.executable, "-m", "bench", "run", str(suite), "--out", str(folder), "--worker"]
    children = [subprocess.Popen([*command, name], stdout=subprocess.PIPE, text=True) for name in ("a", "b")]
    outputs = [child.communicate(timeout=300)[0] for child in children]
    assert [child.returncode for child in children] == [0, 0], outputs
    records = read_records(folder)
    assert Counter(Counter((r.case_id, r.run_index) for r in records).values()) == {1: RUNS}
    assert not list((folder / "leases").glob("*.json"))
    assert {file.name for file in RecordStore(folder).files} <= {"records.a.jsonl", "records.b.jsonl"}


def test_records_of_all_workers_count_as_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    suite, folder = write_suite(tmp_path), tmp_path / "out"
    summary = run(suite, out=folder, worker=SharedWorker(name="a"))
    assert (summary.measured, summary.elsewhere) == (RUNS, 0)
    with monkeypatch.context() as patch:
        patch.setattr("bench.store.record_store.parse_record", lambda _: pytest.fail("read a whole record"))
        again = run(suite, out=folder)
    assert (again.measured, again.skipped) == (0, RUNS)
    assert {(each.case_id, each.run_index) for each in again.stored} == {
        (each.case_id, each.run_index) for each in read_records(folder)
    }
    assert len(again.stored) == RUNS
    assert not (folder / "records.jsonl").exists()


def test_a_run_on_another_machine_joins_and_one_on_this_machine_is_refused(tmp_path: Path) -> None:
    suite, folder = write_suite(tmp_path), tmp_path / "out"
    store = RecordStore(folder)
    with store.lock():
        with pytest.raises(StoreError, match=f"in use by process {os.getpid()}; wait for it"):
            run(suite, out=folder)
        (folder / ".lock").write_text("77 another-machine")
        assert run(suite, out=folder).measured == RUNS
    (file,) = store.files
    assert file.name.startswith("records.host-")


def test_a_queue_hands_out_what_others_do_not_hold(tmp_path: Path) -> None:
    mine, other = Leases(tmp_path, worker="me"), Leases(tmp_path, worker="other")
    assert other.take("b", 0)
    queue = WorkQueue(tmp_path, mine, waits=False)
    taken = [run_of.id for (run_of, _), _ in queue.runs([(case("a"), 0), (case("b"), 0), (case("c"), 0)])]  # type: ignore[list-item]
    assert sorted(taken) == ["a", "c"]


def test_a_worker_waits_for_a_silent_one_and_takes_its_run(tmp_path: Path) -> None:
    lost = Leases(tmp_path, worker="lost").take("b", 0)
    assert lost is not None

    def sleep(seconds: float) -> None:
        then = lost.file.stat().st_mtime - EXPIRES_S / 2
        os.utime(lost.file, (then, then))

    sleep(0)
    queue = WorkQueue(tmp_path, Leases(tmp_path, worker="me"), waits=False, sleep=sleep)
    ((found, lease),) = queue.runs([(case("b"), 0)])  # type: ignore[list-item]
    assert found[0].id == "b"
    assert lease.facts.losses == 1


def test_a_restarted_worker_waits_for_the_run_that_it_held_before(tmp_path: Path) -> None:
    """Its machine was lost a moment ago, so that its lease is not silent yet."""
    lost = Leases(tmp_path, worker="job-7").take("b", 0)
    assert lost is not None
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        then = lost.file.stat().st_mtime - EXPIRES_S / 8  # less than what makes any worker wait
        os.utime(lost.file, (then, then))

    other = WorkQueue(tmp_path, Leases(tmp_path, worker="job-77"), waits=False, sleep=sleep)
    assert list(other.runs([(case("b"), 0)])) == []  # type: ignore[list-item]
    assert slept == []
    again = Leases(tmp_path, worker=restarted_name("job-7", 1))
    ((found, lease),) = WorkQueue(tmp_path, again, waits=False, sleep=sleep).runs([(case("b"), 0)])  # type: ignore[list-item]
    assert (found[0].id, lease.facts.worker, len(slept)) == ("b", "job-7-restart1", 8)


def test_a_run_whose_workers_vanished_twice_is_an_error(tmp_path: Path) -> None:
    suite, folder = write_suite(tmp_path), tmp_path / "out"
    first = run(suite, out=tmp_path / "dry", worker=SharedWorker(name="dry")).finished[0].case_id
    for name in ("one", "two"):
        assert Leases(folder, worker=name).take(first, 0)
        os.utime(folder / "leases" / f"{first}-0.json", (0, 0))
    run(suite, out=folder, worker=SharedWorker(name="three"))
    (record,) = [record for record in read_records(folder) if record.case_id == first]
    assert record.status == "error"
    assert record.error is not None
    assert record.error.message.startswith("2 workers that ran this case stopped responding")


def test_the_result_of_a_worker_that_lost_its_lease_is_set_aside(tmp_path: Path) -> None:
    suite, folder = write_suite(tmp_path), tmp_path / "out"

    def steal() -> None:
        """Take over the first lease as soon as there is one."""
        while not (files := list((folder / "leases").glob("*.json"))):
            time.sleep(0.002)
        facts = json.loads(files[0].read_text())
        files[0].write_text(json.dumps({**facts, "attempt": "another", "worker": "thief"}))

    thief = threading.Thread(target=steal)
    thief.start()
    summary = run(suite, out=folder, worker=SharedWorker(name="robbed"))
    thief.join()
    assert (summary.measured, summary.elsewhere) == (RUNS - 1, 1)
    assert len(latest_runs(read_records(folder))) == RUNS - 1
    assert len((folder / "discarded.jsonl").read_text().splitlines()) == 1
