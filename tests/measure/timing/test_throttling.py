"""Throttling and strangers on a GPU, told from recorded traces. Nothing here needs a GPU or sleeps."""

import pytest

from bench.core.nvml import GpuProcess, GpuState, clock_reasons, foreign_processes, read_gpu_state
from bench.measure.timing.throttling import ThrottleWatch, shows_throttling


def reading(clock_mhz: int | None = 1980, *reasons: str, default: int | None = 1980, heat: int = 50) -> GpuState:
    return GpuState(clock_mhz=clock_mhz, default_clock_mhz=default, reasons=reasons, temperature_c=heat, power_w=300.0)


@pytest.mark.parametrize(
    ("seen", "steady", "slowed"),
    [
        (reading(), 1980, False),
        (reading(1485), 1980, False),
        (reading(1484), 1980, True),
        (reading(1900, "power cap"), 1980, False),
        (reading(1400, "power cap"), 1980, True),
        (reading(1400, "power cap"), 1400, False),
        (reading(1410), 1410, False),
        (reading(1410, "application clocks"), 1410, False),
        (reading(1410, "thermal slowdown (driver)"), 1410, True),
        (reading(1050), 1410, True),
        (reading(1400, default=1200), 1980, False),
        (reading(1980, "hardware slowdown", "power brake"), 1980, True),
        (reading(None), None, False),
        (reading(None, "thermal slowdown (hardware)"), None, True),
        (reading(300), None, False),
        (reading(300, default=None), None, False),
        (reading(300, default=None), 900, True),
    ],
)
def test_a_gpu_is_slowed_by_heat_and_supply_or_where_its_clock_falls(
    seen: GpuState, steady: float | None, slowed: bool
) -> None:
    assert shows_throttling(seen, steady_mhz=steady) is slowed


def test_a_clock_that_is_locked_low_as_the_doctor_advises_is_no_slowed_one() -> None:
    trace = [reading(1410, "application clocks") for _ in range(5)]
    watch = watched(list(trace), [float(t) for t in range(5)])
    assert [watch.is_throttled() for _ in trace] == [False] * 5
    summary = watch.summary()
    assert summary is not None
    assert (summary["slowed"], summary["of_default_clock"]) == (0, pytest.approx(1410 / 1980))


def test_a_clock_that_falls_is_judged_by_what_it_was_and_one_that_was_high_once_is_forgotten() -> None:
    falling = [reading(mhz) for mhz in (1980, 1980, 1980, 1400, 1400)]
    watch = watched(list(falling), [float(t) for t in range(5)])
    assert [watch.is_throttled() for _ in falling] == [False, False, False, True, True]
    once = [reading(mhz, "power cap") for mhz in (1980, 1400, 1400, 1400)]
    watch = watched(list(once), [float(t) for t in range(4)])
    seen = [watch.is_throttled() for _ in once]
    assert seen == [False, True, False, False], "the median is 1690 MHz from the second on"


def test_reasons_are_named_bit_by_bit() -> None:
    assert clock_reasons(0) == ()
    assert clock_reasons(0x4 | 0x40) == ("power cap", "thermal slowdown (hardware)")
    assert clock_reasons(0x200) == (), "a bit that no driver of today sets"


def watched(trace: list[GpuState | None], times_s: list[float]) -> ThrottleWatch:
    readings, times = iter(trace), iter(times_s)
    return ThrottleWatch(read=lambda: next(readings), clock_s=lambda: next(times))


def test_a_watch_looks_at_most_every_20_ms_and_remembers_in_between() -> None:
    watch = watched([reading(), reading(900), reading()], [0.0, 0.019, 0.021, 0.03, 0.05])
    assert [watch.is_throttled() for _ in range(5)] == [False, False, True, True, False]
    assert len(watch.states) == 3


def test_a_summary_gives_ranges_and_shares() -> None:
    trace = [reading(1980, heat=50), reading(1400, "power cap", heat=80), reading(1700, "power cap"), None]
    watch = watched(trace, [0.0, 1.0, 2.0, 3.0])
    for _ in trace:
        watch.is_throttled()
    summary = watch.summary()
    assert summary is not None
    assert summary["looks"] == 3
    assert summary["slowed"] == pytest.approx(1 / 3)
    assert summary["clock_mhz"] == [1400, 1980]
    assert summary["temperature_c"] == [50, 80]
    assert summary["reasons"] == {"power cap": pytest.approx(2 / 3)}


def test_a_cpu_has_nothing_to_watch() -> None:
    assert read_gpu_state("cpu") is None
    watch = watched([None], [0.0])
    assert not watch.is_throttled()
    assert watch.summary() is None


def process(pid: int) -> GpuProcess:
    return GpuProcess(pid=pid, name="python", memory_bytes=None)


@pytest.mark.parametrize(
    ("before", "after", "foreign"),
    [
        ([], [7], []),
        ([8], [7, 8], [8]),
        ([], [7, 9], [9]),
        ([], [1234], []),
        ([8], [8, 1234], [8]),
        ([], [1234, 5678], [1234, 5678]),
        ([8], [7], [8]),
    ],
    ids=[
        "only ours",
        "one was there",
        "one came beside ours",
        "ours under the host's number",
        "one was there, ours under the host's number",
        "two came, either may be ours",
        "one went meanwhile",
    ],
)
def test_strangers_are_told_from_this_process(before: list[int], after: list[int], foreign: list[int]) -> None:
    found = foreign_processes([process(p) for p in before], [process(p) for p in after], own_pid=7)
    assert [p.pid for p in found] == foreign


def test_a_process_is_named_with_what_is_known_of_it() -> None:
    assert str(GpuProcess(pid=5, name="python3", memory_bytes=2_100_000_000)) == "python3 (pid 5, 2.1 GB)"
    assert str(GpuProcess(pid=5, name=None, memory_bytes=None)) == "a process of unknown name (pid 5)"


@pytest.mark.gpu
def test_a_real_gpu_tells_its_clock_and_heat() -> None:
    seen = read_gpu_state("cuda")
    assert seen is not None
    assert seen.clock_mhz is not None
    assert seen.temperature_c is not None
