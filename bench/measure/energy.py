"""Energy of a clip, where the machine has a counter: NVML's on a GPU, RAPL's (through codecarbon) on a CPU."""

import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from bench.measure.axes import TIMING_AXES
from bench.measure.loaded import LoadedCase
from bench.registry import register_measure
from bench.schema import Metric

if TYPE_CHECKING:
    from bench.measure.timing.variants import Forward

RAPL = Path("/sys/class/powercap")


@register_measure("energy", depends_on=TIMING_AXES, version=1)
def energy(case: LoadedCase, *, seconds: float = 10.0) -> list[Metric]:
    """Joules per clip over at least `seconds` of the same forward pass, and the idle power taken off it.

    Null with the reason where the machine has no counter: a figure guessed from the processor's name is not measured.
    """
    from bench.measure.timing.variants import forward_of

    device = case.device
    counter = counter_of(device)
    if counter is None:
        return [_per_clip(None, note=_why_unknown(device))]
    forward = forward_of(case)(case.point.batch or 1)
    forward.latency()
    idle_w = _idle_watts(counter, seconds=min(2.0, seconds))
    joules, spent_s, clips = _spend(forward, counter, seconds=seconds)
    case.note(
        "energy", {"idle_w": idle_w, "joules": joules, "seconds": spent_s, "clips": clips, "source": counter.name}
    )
    net = joules - idle_w * spent_s
    return [
        _per_clip(joules / clips, note=f"from {counter.name}, idle power included"),
        Metric(name="energy.j_per_clip_above_idle", value=max(0.0, net) / clips, unit="J", better="lower"),
        Metric(
            name="energy.clips_per_j", value=clips / joules if joules > 0 else None, unit="clips/J", better="higher"
        ),
    ]


def counter_of(device: str) -> "EnergyCounter | None":
    """The counter of this device, if it can be read."""
    name = "NVML total energy" if device.startswith("cuda") else "RAPL package"
    counter = EnergyCounter(name, device)
    return counter if counter.joules() is not None else None


class EnergyCounter:
    """A counter of joules that only rises."""

    def __init__(self, name: str, device: str) -> None:
        self.name, self._device = name, device

    def joules(self) -> float | None:
        return _nvml_joules(self._device) if self._device.startswith("cuda") else _rapl_joules()


def _nvml_joules(device: str) -> float | None:
    import pynvml

    from bench.nvml import handle_of

    try:
        return float(pynvml.nvmlDeviceGetTotalEnergyConsumption(handle_of(device))) / 1000
    except pynvml.NVMLError:
        return None


def _rapl_joules() -> float | None:
    """Joules of all processor packages since start-up; None where the kernel does not let us read them."""
    with suppress(OSError, ValueError):
        counters = list(RAPL.glob("intel-rapl:?/energy_uj"))
        if counters:
            return sum(int(file.read_text(encoding="ascii")) for file in counters) / 1e6
    return None


def _idle_watts(counter: EnergyCounter, *, seconds: float) -> float:
    before, started = counter.joules(), time.perf_counter()
    time.sleep(seconds)
    after, spent = counter.joules(), time.perf_counter() - started
    return max(0.0, ((after or 0.0) - (before or 0.0)) / spent)


def _spend(forward: "Forward", counter: EnergyCounter, *, seconds: float) -> tuple[float, float, int]:
    """Joules, seconds and clips of at least `seconds` of passes."""
    before, started, clips = counter.joules(), time.perf_counter(), 0
    while time.perf_counter() - started < seconds:
        forward.block(3)
        clips += 3 * forward.batch
    return (counter.joules() or 0.0) - (before or 0.0), time.perf_counter() - started, clips


def _why_unknown(device: str) -> str:
    if device.startswith("cuda"):
        return "NVML does not tell this GPU's energy"
    return "no energy counter of this processor can be read (RAPL); a guess from its name would not be a measurement"


def _per_clip(value: float | None, *, note: str) -> Metric:
    return Metric(name="energy.j_per_clip", value=value, unit="J", better="lower", note=note)
