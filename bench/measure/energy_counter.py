"""Energy counters: NVML's of a GPU, RAPL's of the CPU packages."""

from contextlib import suppress
from pathlib import Path

from bench.core.nvml import device_handle

RAPL = Path("/sys/class/powercap")


def counter_of(device: str) -> "EnergyCounter | None":
    """The energy counter of `device`; None if it has none that can be read."""
    name = "NVML total energy" if device.startswith("cuda") else "RAPL package"
    counter = EnergyCounter(name, device)
    return counter if counter.joules() is not None else None


class EnergyCounter:
    """A rising counter of the joules that torch device `device` has used."""

    def __init__(self, name: str, device: str) -> None:
        self.name, self._device = name, device

    def joules(self) -> float | None:
        """Joules since some time in the past; None if the counter cannot be read."""
        return _nvml_joules(self._device) if self._device.startswith("cuda") else _rapl_joules()


def _nvml_joules(device: str) -> float | None:
    """NVML counts in millijoules since the driver was loaded.

    For a MIG slice there is no counter, and that of the whole GPU would include its neighbours.
    """
    import pynvml  # late: planning imports this folder, on machines without a GPU library too

    try:
        return float(pynvml.nvmlDeviceGetTotalEnergyConsumption(device_handle(device))) / 1000
    except pynvml.NVMLError:
        return None


def _rapl_joules() -> float | None:
    """Joules of all CPU packages since start-up; None if the kernel does not let this process read them."""
    with suppress(OSError, ValueError):
        counters = list(RAPL.glob("intel-rapl:?/energy_uj"))
        if counters:
            return sum(int(file.read_text(encoding="ascii")) for file in counters) / 1e6
    return None
