"""Facts of a CUDA device from NVML: its handle, its current clocks and why they are low, and its processes."""

import os
import sys
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")

# Bits of nvmlDeviceGetCurrentClocksEventReasons, in the order of nvml.h. `hardware slowdown` may also show while the
# clock changes. The last two are of drivers for CUDA 13 and later.
CLOCK_REASONS = {
    0x1: "idle",
    0x2: "application clocks",
    0x4: "power cap",
    0x8: "hardware slowdown",
    0x10: "sync boost",
    0x20: "thermal slowdown (driver)",
    0x40: "thermal slowdown (hardware)",
    0x80: "power brake",
    0x100: "display clocks",
    0x200: "board limit",
    0x400: "reliability",
}


@dataclass(frozen=True, kw_only=True)
class GpuState:
    """The state of a GPU at one moment. Unknown values are None; `reasons` say what lowers its clock.

    On most GPUs since Ampere, NVML's power is the mean of the last second, so it lags behind a short timing.
    """

    clock_mhz: int | None
    default_clock_mhz: int | None
    reasons: tuple[str, ...] | None
    temperature_c: int | None
    power_w: float | None


@dataclass(frozen=True, kw_only=True)
class GpuProcess:
    """A process that uses a GPU; `name` and `memory_bytes` are None if this user may not see them."""

    pid: int
    name: str | None
    memory_bytes: int | None

    def __str__(self) -> str:
        held = "" if self.memory_bytes is None else f", {self.memory_bytes / 1e9:.1f} GB"
        return f"{self.name or 'a process of unknown name'} (pid {self.pid}{held})"


@cache
def device_handle(device: str) -> Any:
    """NVML's handle of torch device `cuda[:N]`: a GPU, or the MIG slice that CUDA shows as one.

    Raises NVMLError if there is no driver or no such device. With torch loaded, the device is found by its UUID, since
    CUDA_VISIBLE_DEVICES reorders the numbers; else by the entry of that variable, else by NVML's own number.
    """
    import pynvml

    pynvml.nvmlInit()
    index = int(device.partition(":")[2] or 0)
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available():
        return _named_in(os.environ.get("CUDA_VISIBLE_DEVICES"), index)
    if index >= torch.cuda.device_count():
        raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_FOUND)
    uuid = torch.cuda.get_device_properties(index).uuid
    with suppress(pynvml.NVMLError):
        return pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{uuid}")
    return pynvml.nvmlDeviceGetHandleByUUID(f"MIG-{uuid}")


@cache
def gpu_handle(device: str) -> Any:
    """NVML's handle of the whole GPU of torch device `cuda[:N]`: MIG slices have no clocks of their own."""
    import pynvml

    part = device_handle(device)
    is_slice = _known(lambda: bool(pynvml.nvmlDeviceIsMigDeviceHandle(part).value))
    return pynvml.nvmlDeviceGetDeviceHandleFromMigDeviceHandle(part) if is_slice else part


def _named_in(visible: str | None, index: int) -> Any:
    import pynvml

    if visible is None:
        return pynvml.nvmlDeviceGetHandleByIndex(index)
    names = [name.strip() for name in visible.split(",")]
    if index >= len(names):
        raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_FOUND)
    if names[index].isdecimal():
        return pynvml.nvmlDeviceGetHandleByIndex(int(names[index]))
    return pynvml.nvmlDeviceGetHandleByUUID(names[index])


def gpu_names() -> tuple[str, ...]:
    """The names of the GPUs, or MIG slices, that CUDA shows to this process; none without a driver."""
    import pynvml

    try:
        pynvml.nvmlInit()
        present = int(pynvml.nvmlDeviceGetCount())
    except pynvml.NVMLError:
        return ()
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    found = []
    for index in range(present if visible is None else len(visible.split(","))):
        try:
            name = pynvml.nvmlDeviceGetName(_named_in(visible, index))
        except (pynvml.NVMLError, ValueError):  # CUDA ignores everything after an entry that names no GPU
            break
        found.append(name.decode() if isinstance(name, bytes) else name)
    return tuple(found)


def read_gpu_state(device: str) -> GpuState | None:
    """The current state of torch device `cuda[:N]`; None for other devices and without a driver."""
    handle = _handle_or_none(device)
    if handle is None:
        return None
    import pynvml as nvml

    # Drivers for CUDA 14 have only the new name of each, old drivers only the old one.
    bits = _known_by(
        lambda: int(nvml.nvmlDeviceGetCurrentClocksEventReasons(handle)),
        lambda: int(nvml.nvmlDeviceGetCurrentClocksThrottleReasons(handle)),
    )
    milliwatts = _known(lambda: int(nvml.nvmlDeviceGetPowerUsage(handle)))
    return GpuState(
        clock_mhz=_known(lambda: int(nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_SM))),
        default_clock_mhz=default_clock_mhz(device),
        reasons=None if bits is None else clock_reasons(bits),
        temperature_c=gpu_temperature_c(handle),
        power_w=None if milliwatts is None else milliwatts / 1000,
    )


def gpu_busy_share(device: str) -> float | None:
    """Share of the last second or less in which a kernel ran on torch device `cuda[:N]`; None if NVML cannot tell."""
    handle = _handle_or_none(device)
    if handle is None:
        return None
    import pynvml as nvml

    percent = _known(lambda: int(nvml.nvmlDeviceGetUtilizationRates(handle).gpu))
    return None if percent is None else percent / 100


def gpu_temperature_c(handle: Any) -> int | None:
    """The temperature of a GPU; None if it has no sensor."""
    import pynvml as nvml

    return _known_by(
        lambda: int(nvml.nvmlDeviceGetTemperatureV(handle, nvml.NVML_TEMPERATURE_GPU)),
        lambda: int(nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU)),
    )


def clock_reasons(bits: int) -> tuple[str, ...]:
    """The names of the NVML clock reasons whose bits are set."""
    return tuple(name for bit, name in CLOCK_REASONS.items() if bits & bit)


@cache
def default_clock_mhz(device: str) -> int | None:
    """The default SM clock of a GPU, or its maximum if the driver knows no default."""
    handle = _handle_or_none(device)
    if handle is None:
        return None
    import pynvml as nvml

    default = _known(lambda: int(nvml.nvmlDeviceGetDefaultApplicationsClock(handle, nvml.NVML_CLOCK_SM)))
    return default or _known(lambda: int(nvml.nvmlDeviceGetMaxClockInfo(handle, nvml.NVML_CLOCK_SM)))


def gpu_processes(device: str) -> tuple[GpuProcess, ...]:
    """Every process that computes on torch device `cuda[:N]`, this one included; empty if NVML cannot tell."""
    if _handle_or_none(device) is None:
        return ()
    import pynvml as nvml

    listed = _known(lambda: list(nvml.nvmlDeviceGetComputeRunningProcesses(device_handle(device)))) or []
    return tuple(GpuProcess(pid=p.pid, name=_name_of(p.pid), memory_bytes=p.usedGpuMemory) for p in listed)


def foreign_processes(
    before: Collection[GpuProcess], after: Collection[GpuProcess], *, own_pid: int
) -> tuple[GpuProcess, ...]:
    """Processes of others, from those listed before this process used the GPU and those listed while it did.

    In a container NVML lists the host's process numbers, in which this process cannot find itself. If only one
    process was added, it is this one.
    """
    known = {process.pid for process in before}
    added = [process for process in after if process.pid not in known and process.pid != own_pid]
    if len(added) == 1 and all(process.pid != own_pid for process in after):
        added = []
    return (*(process for process in before if process.pid != own_pid), *added)


def other_processes(listed: Sequence[GpuProcess], *, own_pid: int, is_on_gpu: bool) -> tuple[GpuProcess, ...]:
    """Processes of others among those listed; `is_on_gpu` says whether this process uses the GPU.

    In a container a single process is this one, under its number on the host.
    """
    if is_on_gpu and len(listed) == 1:
        return ()
    return tuple(process for process in listed if process.pid != own_pid)


def _handle_or_none(device: str) -> Any:
    if not device.startswith("cuda"):
        return None
    import pynvml

    try:
        return gpu_handle(device)
    except pynvml.NVMLError:
        return None


def _known(read: Callable[[], T]) -> T | None:
    """The value that NVML returns, or None if this GPU, its driver or the installed bindings do not support it."""
    import pynvml

    try:
        return read()
    except (pynvml.NVMLError, AttributeError):  # the bindings lack functions that are newer than they are
        return None


def _known_by(*reads: Callable[[], T]) -> T | None:
    """The value of the first of `reads` that this driver supports; None if it supports none."""
    return next((value for read in reads if (value := _known(read)) is not None), None)


def _name_of(pid: int) -> str | None:
    with suppress(OSError):
        return Path(f"/proc/{pid}/comm").read_text(encoding="utf-8", errors="replace").strip() or None
    return None
