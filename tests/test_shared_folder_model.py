"""The model of `benchmarks/shared_folder.py`: file operations counted by hand, and each run made once."""

import pytest

from benchmarks.shared_folder import RECORD_BYTES, Model, Server, seconds_of

FREE = dict.fromkeys(("list", "entry", "stat", "read", "create", "mkdir", "utime", "append", "unlink"), 0.0)


def model_of(*, workers: int, runs: int, run_s: float, trip_s: float = 0.0, **costs: float) -> Model:
    made = Model(workers=workers, runs=runs, run_s=run_s, server=Server(costs_s={**FREE, **costs}, trip_s=trip_s))
    made.simulate()
    return made


def test_one_worker_reads_its_folder_before_each_run_and_touches_its_lease_every_ten_seconds() -> None:
    """Scans: at the start and after each lease. The second lease finds one file with one new record."""
    model = model_of(workers=1, runs=2, run_s=30.0)
    done = model.server.operations
    beats = sum(int((seconds_of(run, 30.0) - 1e-9) // 10) for run in (0, 1))
    assert {name: number for name, number in done.items() if number} == {
        "list": 3,
        "entry": 1,
        "stat": 3 + 1 + 2,  # of the folder, of the file, and of the folder that is there before each record
        "create": 2,
        "append": 2,
        "mkdir": 2,
        "unlink": 2,
        "utime": beats,
        "read": 2 + 1 + beats,  # of a lease before its end and before each touch, and of the new record
    }
    assert model.server.bytes_read == RECORD_BYTES
    assert model.end_s == pytest.approx(seconds_of(0, 30.0) + seconds_of(1, 30.0))


@pytest.mark.parametrize("workers", [2, 7, 40])
def test_each_run_is_made_once(workers: int) -> None:
    model = model_of(workers=workers, runs=50, run_s=5.0, create=1e-3, stat=1e-4, append=2e-3, trip_s=1e-3)
    assert sorted(model.finished) == list(range(50))


def test_a_busy_server_lets_workers_wait() -> None:
    """One thread, two workers, 1 s for each append: of two runs that end at once, one is stored a second later."""
    server = Server(costs_s={**FREE, "append": 1.0}, trip_s=0.25, threads=1)
    assert server.use(10.0, {"append": 1}) == 11.25
    assert server.use(10.0, {"append": 1, "stat": 2}) == 12.75
    assert server.busy_s == 2.0
