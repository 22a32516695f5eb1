"""Throttling of a GPU on recorded traces. Only the last test needs a GPU."""

import pytest

from bench.core.nvml import GpuState, read_gpu_state
from bench.measure.timing.throttling import ThrottleWatch, shows_throttling


def state(clock_mhz: int | None = 1980, *reasons: str, default: int | None = 1980, heat: int = 50) -> GpuState:
    return GpuState(clock_mhz=clock_mhz, default_clock_mhz=default, reasons=reasons, temperature_c=heat, power_w=300.0)


@pytest.mark.parametrize(
    ("seen", "steady", "throttles"),
    [
        (state(), 1980, False),
        (state(1485), 1980, False),
        (state(1484), 1980, True),
        (state(1900, "power cap"), 1980, False),
        (state(1400, "power cap"), 1980, True),
        (state(1400, "power cap"), 1400, False),
        (state(1410), 1410, False),
        (state(1410, "application clocks"), 1410, False),
        (state(1410, "thermal slowdown (driver)"), 1410, True),
        (state(1050), 1410, True),
        (state(1400, default=1200), 1980, False),
        (state(1980, "hardware slowdown", "power brake"), 1980, True),
        (state(None), None, False),
        (state(None, "thermal slowdown (hardware)"), None, True),
        (state(300), None, False),
        (state(300, default=None), None, False),
        (state(300, default=None), 900, True),
    ],
)
def test_a_gpu_throttles_for_heat_or_power_supply_or_if_its_clock_falls(
    seen: GpuState, steady: float | None, throttles: bool
) -> None:
    assert shows_throttling(seen, steady_mhz=steady) is throttles


def test_a_clock_that_is_locked_low_does_not_count_as_throttling() -> None:
    trace = [state(1410, "application clocks") for _ in range(5)]
    watch = watched(list(trace), [float(t) for t in range(5)])
    assert [watch.is_throttled() for _ in trace] == [False] * 5
    summary = watch.summary()
    assert summary is not None
    assert (summary["slowed"], summary["of_default_clock"]) == (0, pytest.approx(1410 / 1980))


def test_a_fallen_clock_is_compared_with_the_median_and_not_with_a_single_high_value() -> None:
    falling = [state(mhz) for mhz in (1980, 1980, 1980, 1400, 1400)]
    watch = watched(list(falling), [float(t) for t in range(5)])
    assert [watch.is_throttled() for _ in falling] == [False, False, False, True, True]
    once = [state(mhz, "power cap") for mhz in (1980, 1400, 1400, 1400)]
    watch = watched(list(once), [float(t) for t in range(4)])
    seen = [watch.is_throttled() for _ in once]
    assert seen == [False, True, False, False], "the median is 1690 MHz from the second on"


def watched(trace: list[GpuState | None], times_s: list[float]) -> ThrottleWatch:
    states, times = iter(trace), iter(times_s)
    return ThrottleWatch(read=lambda: next(states), clock_s=lambda: next(times))


def test_unknown_reasons_are_null_and_show_no_throttling() -> None:
    unknown = GpuState(clock_mhz=1980, default_clock_mhz=1980, reasons=None, temperature_c=50, power_w=None)
    assert not shows_throttling(unknown, steady_mhz=1980)
    watch = watched([unknown, state(1980, "power cap")], [0.0, 1.0])
    assert not watch.is_throttled()
    assert (watch.summary() or {})["reasons"] is None
    watch.is_throttled()
    assert (watch.summary() or {})["reasons"] == {"power cap": 1.0}, "of the one state whose reasons are known"


def test_the_device_is_polled_at_most_every_20_ms() -> None:
    watch = watched([state(), state(900), state()], [0.0, 0.019, 0.021, 0.03, 0.05])
    assert [watch.is_throttled() for _ in range(5)] == [False, False, True, True, False]
    assert len(watch.states) == 3


def test_a_summary_gives_ranges_and_shares() -> None:
    trace = [state(1980, heat=50), state(1400, "power cap", heat=80), state(1700, "power cap"), None]
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


def test_a_cpu_has_no_state_to_read() -> None:
    assert read_gpu_state("cpu") is None
    watch = watched([None], [0.0])
    assert not watch.is_throttled()
    assert watch.summary() is None


@pytest.mark.gpu
def test_a_real_gpu_reports_clock_and_temperature() -> None:
    seen = read_gpu_state("cuda")
    assert seen is not None
    assert seen.clock_mhz is not None
    assert seen.temperature_c is not None
