"""Details of a timing from its second clock."""

import pytest

from bench.measure.timing.case_timing import descheduled_share, timing_details
from bench.measure.timing.sampling import Sample, StopReason, Timing


def timing(*samples: Sample, reason: StopReason = "precise") -> Timing:
    return Timing(samples=samples, warmup_samples=20, is_steady=True, stopped_because=reason)


def test_launching_is_the_time_of_the_host_and_not_wall_minus_device_time() -> None:
    """A model of many small kernels: the device is done as soon as the last one is launched."""
    found = timing_details(
        timing(*(Sample(wall_s=s + 0.0001, device_s=s, launched_s=s - 0.0001) for s in (0.001, 0.002, 0.0025)))
    )
    assert found["device_ms"] == pytest.approx([1, 2, 2.5])
    assert found["device_p50_ms"] == pytest.approx(2)
    assert found["launching_p50_ms"] == pytest.approx(1.9)
    assert found["launch_overhead_p50_ms"] == pytest.approx(0.1)


def test_launching_is_unknown_for_a_queue_in_which_it_waits() -> None:
    assert "launching_p50_ms" not in timing_details(timing(Sample(wall_s=0.003, device_s=0.002)))


def test_samples_in_which_the_process_waited_for_a_core_are_counted() -> None:
    busy, on_two_cores, waiting = (Sample(wall_s=0.01, cpu_s=s) for s in (0.0099, 0.0190, 0.0050))
    assert descheduled_share(timing(busy, on_two_cores, waiting, waiting)) == 0.5
    assert timing_details(timing(busy, waiting))["cpu_ms"] == pytest.approx([9.9, 5.0])
    assert descheduled_share(timing(Sample(wall_s=1, device_s=1))) is None
