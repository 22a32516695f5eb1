"""Details of a timing from its second clock."""

import mmap
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from bench.core.schema import Case, Clip, Point
from bench.measure.context import CaseContext
from bench.measure.timing.case_timing import descheduled_share, time_step, timing_details
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


def timed_case(step: Callable[[], object], folder: Path) -> CaseContext:
    """A case on a CPU whose step has been timed for up to 0.2 s."""
    point = Point(model="c3d", clip=Clip.model_validate("4x1x32"), device="cpu")
    case = CaseContext(Case(suite="s", point=point, measures={}), artifacts=folder)

    def sampled() -> Sample:
        started, cpu_started = time.perf_counter(), time.process_time()
        step()
        return Sample(wall_s=time.perf_counter() - started, cpu_s=time.process_time() - cpu_started)

    time_step(case, sampled, what="latency", max_s=0.2)
    return case


def test_a_step_that_gets_its_memory_anew_in_every_pass_is_told_apart(tmp_path: Path) -> None:
    """4 MiB are 1,024 pages of 4 KiB."""
    if mmap.PAGESIZE != 4096 or not hasattr(mmap, "MADV_NOHUGEPAGE"):
        pytest.skip("pages have another size here, or their size cannot be chosen")

    def gets_memory() -> None:
        with mmap.mmap(-1, 4 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
            memory.madvise(mmap.MADV_NOHUGEPAGE)
            for page in range(0, len(memory), 4096):
                memory[page] = 1

    case = timed_case(gets_memory, tmp_path)
    found = case.details["latency"]
    assert isinstance(found, dict)
    assert found["new_pages_per_sample"] == pytest.approx(1024, rel=0.02)
    [warning] = [str(each) for each in case.warnings if "pages of memory" in str(each)]
    assert "MALLOC_TRIM_THRESHOLD_" in warning


def test_a_step_that_uses_the_same_memory_again_has_no_such_warning(tmp_path: Path) -> None:
    case = timed_case(lambda: sum(range(20_000)), tmp_path)
    found = case.details["latency"]
    assert isinstance(found, dict)
    assert found["new_pages_per_sample"] < 10  # type: ignore[operator]
    assert not [each for each in case.warnings if "pages of memory" in str(each)]
