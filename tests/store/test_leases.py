"""Leases between workers: one holder, take-over of lost work, and what an orphan notices."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
from dataclasses import asdict
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest

from bench.store.leases import EXPIRES_S, Leases


def workers(folder: Path, *names: str) -> list[Leases]:
    return [Leases(folder, worker=name) for name in names]


def age(folder: Path, seconds: float) -> None:
    """Let the lease of the run 0 of case `a` be touched `seconds` ago."""
    file = folder / "leases" / "a-0.json"
    then = file.stat().st_mtime - seconds
    os.utime(file, (then, then))


def test_a_run_has_one_worker(tmp_path: Path) -> None:
    first, second = workers(tmp_path, "one", "two")
    lease = first.take("a", 0)
    assert lease is not None
    assert lease.is_held
    assert second.take("a", 0) is None
    assert second.take("a", 1) is not None


def test_a_released_run_can_be_taken(tmp_path: Path) -> None:
    first, second = workers(tmp_path, "one", "two")
    lease = first.take("a", 0)
    assert lease is not None
    lease.release()
    assert second.take("a", 0) is not None


def test_a_silent_lease_is_taken_over_and_its_old_worker_notices(tmp_path: Path) -> None:
    first, second = workers(tmp_path, "one", "two")
    old = first.take("a", 0)
    age(tmp_path, EXPIRES_S / 2)
    assert second.take("a", 0) is None
    age(tmp_path, EXPIRES_S)
    new = second.take("a", 0)
    assert old is not None
    assert new is not None
    assert not old.is_held
    assert new.is_held
    assert new.facts.losses == 1
    old.beat()
    old.release()
    assert new.is_held, "an orphan must not touch the lease of its successor"


def test_a_heartbeat_keeps_a_lease(tmp_path: Path) -> None:
    first, second = workers(tmp_path, "one", "two")
    lease = first.take("a", 0)
    age(tmp_path, 2 * EXPIRES_S)
    assert lease is not None
    lease.beat()
    assert second.take("a", 0) is None


def test_a_worker_in_another_container_is_not_gone_though_its_process_is_not_seen_here(tmp_path: Path) -> None:
    """Containers may share the host name of their machine, and clones of one image all have the same."""
    first, second = workers(tmp_path, "one", "two")
    lease = first.take("a", 0)
    assert lease is not None
    facts = {**asdict(lease.facts), "process": 2**30}
    lease.file.write_text(json.dumps({**facts, "namespace": "another"}))
    assert second.take("a", 0) is None
    del facts["namespace"]  # as older versions write it
    lease.file.write_text(json.dumps(facts))
    assert second.take("a", 0) is not None


def test_the_lease_of_a_killed_process_of_this_machine_is_free_at_once(tmp_path: Path) -> None:
    code = "import sys, time; from pathlib import Path; from bench.store.leases import Leases\n"
    code += "assert Leases(Path(sys.argv[1]), worker='gone').take('a', 0); print('taken', flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "taken\n"
        (other,) = workers(tmp_path, "other")
        assert other.take("a", 0) is None
        child.send_signal(signal.SIGKILL)
    lease = other.take("a", 0)
    assert lease is not None
    assert lease.facts.losses == 1


def take_all(folder: Path, name: str, together: Barrier, taken: "multiprocessing.Queue[int]") -> None:
    leases = Leases(folder, worker=name)
    together.wait()
    for run in range(50):
        if leases.take("a", run) is not None:
            taken.put(run)
    together.wait()  # the leases of a process that has ended would be free


@pytest.mark.parametrize("is_expired", [False, True])
def test_of_many_workers_at_once_one_wins_each_run(tmp_path: Path, is_expired: bool) -> None:
    if is_expired:
        gone = Leases(tmp_path, worker="gone")
        for run in range(50):
            assert gone.take("a", run)
            file = tmp_path / "leases" / f"a-{run}.json"
            os.utime(file, (0, 0))
    context = multiprocessing.get_context("spawn")
    taken: multiprocessing.Queue[int] = context.Queue()
    together = context.Barrier(4)
    processes = [context.Process(target=take_all, args=(tmp_path, f"w{n}", together, taken)) for n in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    holders = [state.facts.run_index for state in Leases(tmp_path, worker="reader").states()]
    assert sorted(holders) == list(range(50))
    assert sorted(taken.get(timeout=5) for _ in range(50)) == list(range(50))
    assert taken.empty()


def test_a_worker_that_saw_an_expired_lease_leaves_the_live_one_that_replaced_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone, first, second = workers(tmp_path, "gone", "first", "second")
    gone.take("a", 0)
    age(tmp_path, 2 * EXPIRES_S)
    [seen] = second.states()
    assert seen.has_expired
    held = first.take("a", 0)
    assert held is not None
    now = Leases._state
    states = iter([seen])  # what the second worker read before the first one was faster
    monkeypatch.setattr(second, "_state", lambda file: next(states, None) or now(second, file))
    assert second.take("a", 0) is None
    assert held.is_held


def test_a_worker_that_was_killed_while_it_took_over_a_lease_blocks_it_for_one_try(tmp_path: Path) -> None:
    first, second = workers(tmp_path, "one", "two")
    first.take("a", 0)
    (tmp_path / "leases" / "a-0.taking").touch()
    assert second.take("a", 0) is None
    age(tmp_path, 2 * EXPIRES_S)
    os.utime(tmp_path / "leases" / "a-0.taking", (0, 0))
    assert second.take("a", 0) is None
    assert second.take("a", 0) is not None
    assert sorted(file.name for file in (tmp_path / "leases").glob("a-*")) == ["a-0.json"]


def test_what_a_killed_worker_left_is_removed(tmp_path: Path) -> None:
    (leases,) = workers(tmp_path, "one")
    leases.take("a", 0)
    leases.take("b", 0)
    age(tmp_path, 2 * EXPIRES_S)
    leases.remove_expired()
    assert [state.facts.case_id for state in leases.states()] == ["b"]


def test_states_tell_who_works_on_what(tmp_path: Path) -> None:
    (leases,) = workers(tmp_path, "node7")
    leases.take("a", 3, title="c3d")
    (state,) = leases.states()
    assert (state.facts.worker, state.facts.title, state.facts.run_index) == ("node7", "c3d", 3)
    assert not state.has_expired
    assert state.silent_s < EXPIRES_S


def test_a_foreign_file_is_no_lease(tmp_path: Path) -> None:
    (leases,) = workers(tmp_path, "one")
    (tmp_path / "leases").mkdir()
    (tmp_path / "leases" / "a-0.json").write_text("{")
    assert leases.states() == []
    assert leases.take("a", 0) is None


@pytest.mark.parametrize("content", ["", "{", "[]", '{"case_id": 3}', '{"losses": "two"}', "\0" * 300])
def test_a_lease_that_a_crash_left_unreadable_expires_like_any_other(tmp_path: Path, content: str) -> None:
    """A machine that loses power leaves an empty file; nobody would ever run its case again."""
    (leases,) = workers(tmp_path, "one")
    (tmp_path / "leases").mkdir()
    (tmp_path / "leases" / "a-0.json").write_text(content)
    assert leases.take("a", 0) is None, "it may be of a worker that is writing it"
    age(tmp_path, 2 * EXPIRES_S)
    lease = leases.take("a", 0)
    assert lease is not None
    assert lease.is_held


@pytest.mark.parametrize("process", [-1, 0, 1 << 70])
def test_a_lease_with_an_impossible_process_is_of_none(tmp_path: Path, process: int) -> None:
    first, second = workers(tmp_path, "one", "two")
    lease = first.take("a", 0)
    assert lease is not None
    lease.file.write_text(json.dumps({**asdict(lease.facts), "process": process}))
    assert second.take("a", 0) is not None
