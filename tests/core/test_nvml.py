"""Which of NVML's handles a torch device has, on machines that are described: reordered, sliced, or not there."""

import sys
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import NoReturn

import pytest
import torch

from bench.core import nvml
from bench.core.nvml import (
    GpuProcess,
    clock_reasons,
    device_handle,
    foreign_processes,
    gpu_handle,
    other_processes,
    read_gpu_state,
)
from bench.runner import environment

Machine = Callable[..., None]
WHOLE, SLICE = "GPU-whole", "MIG-slice"


class NVMLError(Exception):
    """As NVML's own, which is not there without a driver."""


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    """A machine of these GPUs by UUID, in NVML's order, and of those that torch is shown (none: it has no CUDA)."""

    def describe(known: list[str], *, shown: list[str], visible: str | None = None) -> None:
        def by_uuid(uuid: str) -> str:
            return uuid if uuid in known else fail()

        def fail(*_: object) -> NoReturn:
            raise NVMLError

        fakes = {
            "NVMLError": NVMLError,
            "nvmlInit": lambda: None,
            "NVML_ERROR_NOT_FOUND": 6,
            "NVML_CLOCK_SM": 1,
            "NVML_CLOCK_MEM": 2,
            "NVML_TEMPERATURE_GPU": 0,
            "nvmlDeviceGetHandleByUUID": by_uuid,
            "nvmlDeviceGetHandleByIndex": lambda index: known[index] if index < len(known) else fail(),
            "nvmlDeviceIsMigDeviceHandle": lambda handle: SimpleNamespace(value=int(handle.startswith("MIG"))),
            "nvmlDeviceGetDeviceHandleFromMigDeviceHandle": lambda handle: WHOLE,
            "nvmlDeviceGetName": lambda handle: f"name of {handle}",
            "nvmlDeviceGetClockInfo": lambda handle, kind: 1410 if handle == WHOLE else fail(),
        }

        class Pynvml:
            def __getattr__(self, name: str) -> object:
                return fakes.get(name, fail)

        monkeypatch.setitem(sys.modules, "pynvml", Pynvml())
        monkeypatch.setattr(torch.cuda, "is_available", lambda: bool(shown))
        monkeypatch.setattr(torch.cuda, "device_count", lambda: len(shown))
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: SimpleNamespace(uuid=shown[index]))
        if visible is not None:
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        forget()

    def forget() -> None:
        for cached in (device_handle, gpu_handle, nvml.default_clock_mhz):
            cached.cache_clear()

    yield describe
    forget()


def test_a_gpu_is_found_by_its_uuid_whatever_its_number(machine: Machine) -> None:
    machine(["GPU-a", "GPU-b"], shown=["b", "a"])
    assert (device_handle("cuda"), device_handle("cuda:1")) == ("GPU-b", "GPU-a")


def test_a_device_that_is_not_there_is_unknown_and_no_error(machine: Machine) -> None:
    machine(["GPU-a"], shown=["a"])
    assert read_gpu_state("cuda:1") is None
    assert environment._gpu_hardware("cuda:1") == {}


def test_a_slice_has_its_own_name_and_the_clock_of_the_gpu_it_lies_on(machine: Machine) -> None:
    machine([WHOLE, SLICE], shown=["slice"])
    assert (device_handle("cuda"), gpu_handle("cuda")) == (SLICE, WHOLE)
    assert environment._gpu_hardware("cuda")["gpu"] == f"name of {SLICE}"
    assert environment._gpu_state("cuda")["gpu_clock_mhz"] == 1410
    seen = read_gpu_state("cuda")
    assert seen is not None
    assert seen.clock_mhz == 1410


@pytest.mark.parametrize("has_old", [True, False], ids=["driver of CUDA 12", "driver of CUDA 14"])
@pytest.mark.parametrize("has_new", [True, False], ids=["new bindings", "old bindings"])
def test_renamed_functions_are_read_by_the_name_that_this_driver_has(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, has_old: bool, has_new: bool
) -> None:
    machine([WHOLE], shown=["whole"])
    answers = {
        "nvmlDeviceGetCurrentClocksThrottleReasons": (lambda handle: 0x4) if has_old else fails,
        "nvmlDeviceGetTemperature": (lambda handle, sensor: 71) if has_old else fails,
        "nvmlDeviceGetCurrentClocksEventReasons": (lambda handle: 0x4) if has_new else missing,
        "nvmlDeviceGetTemperatureV": (lambda handle, sensor: 71) if has_new else missing,
    }
    for name, answer in answers.items():
        monkeypatch.setattr(sys.modules["pynvml"], name, answer, raising=False)
    state = read_gpu_state("cuda")
    assert state is not None
    expected = (("power cap",), 71) if has_old or has_new else (None, None)
    assert (state.reasons, state.temperature_c) == expected, "null if unknown, and never an empty list"


def test_a_fact_that_the_bindings_no_longer_read_is_null(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    machine([WHOLE], shown=["whole"])
    monkeypatch.setattr(sys.modules["pynvml"], "nvmlDeviceGetApplicationsClock", missing, raising=False)
    state = environment._gpu_state("cuda")
    assert (state["gpu_clock_application_mhz"], state["gpu_clock_mhz"]) == (None, 1410)


def fails(*_: object) -> NoReturn:
    raise NVMLError


def missing(*_: object) -> NoReturn:
    """As of bindings that are older than the function."""
    raise AttributeError


@pytest.mark.parametrize(
    ("visible", "device", "found"),
    [
        (None, "cuda:1", "GPU-b"),
        ("1,0", "cuda", "GPU-b"),
        ("GPU-b", "cuda", "GPU-b"),
        ("1", "cuda:1", None),
        ("-1", "cuda", None),
        ("", "cuda", None),
    ],
)
def test_without_torch_the_devices_that_are_visible_count(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, visible: str | None, device: str, found: str | None
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    machine(["GPU-a", "GPU-b"], shown=[], visible=visible)
    if found is None:
        with pytest.raises(NVMLError):
            device_handle(device)
    else:
        assert device_handle(device) == found


@pytest.mark.parametrize(
    ("listed", "is_on_gpu", "others"),
    [
        ([7], True, []),
        ([7, 8], True, [8]),
        ([1234], True, []),
        ([1234], False, [1234]),
        ([1234, 8], True, [1234, 8]),
        ([], True, []),
    ],
    ids=[
        "ours",
        "one beside ours",
        "ours under the host's number",
        "a stranger: we are not there",
        "one of these is ours, whichever",
        "nobody",
    ],
)
def test_other_processes_on_a_gpu_are_distinguished_from_this_one(
    listed: list[int], is_on_gpu: bool, others: list[int]
) -> None:
    processes = [GpuProcess(pid=pid, name=None, memory_bytes=None) for pid in listed]
    assert [p.pid for p in other_processes(processes, own_pid=7, is_on_gpu=is_on_gpu)] == others


def test_reasons_are_named_bit_by_bit() -> None:
    assert clock_reasons(0) == ()
    assert clock_reasons(0x4 | 0x40) == ("power cap", "thermal slowdown (hardware)")
    assert clock_reasons(0x200 | 0x400) == ("board limit", "reliability"), "of drivers for CUDA 13"
    assert clock_reasons(0x800) == (), "a bit that no current driver sets"


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
        "one came in addition to ours",
        "ours under the host's pid",
        "one was there, ours under the host's pid",
        "two came, either may be ours",
        "one went meanwhile",
    ],
)
def test_foreign_processes_are_distinguished_from_this_one(
    before: list[int], after: list[int], foreign: list[int]
) -> None:
    found = foreign_processes([process(p) for p in before], [process(p) for p in after], own_pid=7)
    assert [p.pid for p in found] == foreign


def test_a_process_is_named_with_its_known_facts() -> None:
    assert str(GpuProcess(pid=5, name="python3", memory_bytes=2_100_000_000)) == "python3 (pid 5, 2.1 GB)"
    assert str(GpuProcess(pid=5, name=None, memory_bytes=None)) == "a process of unknown name (pid 5)"
