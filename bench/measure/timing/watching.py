"""Watches a GPU while it is timed: whether it slows itself down, and what it did meanwhile, for the record."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from bench.core.nvml import GpuState, read_gpu_state
from bench.core.schema import Json
from bench.core.stats import median

SLOWED_BELOW = 0.75
# A power cap alone is how a GPU under full load works as sold: it is recorded, and only its clock can make it slow.
SLOWING_REASONS = frozenset(
    {"hardware slowdown", "thermal slowdown (driver)", "thermal slowdown (hardware)", "power brake"}
)
LOOK_EVERY_S = 0.02


def is_slowed(reading: GpuState, *, steady_mhz: float | None) -> bool:
    """Whether a GPU slows itself down: heat or supply hold it back, or its clock fell in the middle of a timing.

    It fell where it is under 75 % both of the default and of `steady_mhz`, that of the timing so far. One that is low
    all along is not judged: it may be locked, as `vbench doctor --gpu` advises.
    """
    if not SLOWING_REASONS.isdisjoint(reading.reasons):
        return True
    if reading.clock_mhz is None or steady_mhz is None:
        return False
    return reading.clock_mhz < SLOWED_BELOW * min(steady_mhz, reading.default_clock_mhz or steady_mhz)


@dataclass(kw_only=True)
class Watch:
    """Looks at the device between samples, at most every 20 ms; `read` gives None where there is nothing to see."""

    read: Callable[[], GpuState | None]
    clock_s: Callable[[], float] = time.perf_counter
    readings: list[GpuState] = field(default_factory=list)
    slowed: int = 0
    _looked_at_s: float | None = None
    _is_slowed: bool = False

    def look(self) -> bool:
        """Whether the device slows itself down now, as of a look that is at most 20 ms old."""
        now_s = self.clock_s()
        if self._looked_at_s is not None and now_s - self._looked_at_s < LOOK_EVERY_S:
            return self._is_slowed
        self._looked_at_s = now_s
        reading = self.read()
        if reading is not None:
            self._is_slowed = is_slowed(reading, steady_mhz=self.steady_mhz)
            self.slowed += self._is_slowed
            self.readings.append(reading)
        return self._is_slowed

    @property
    def steady_mhz(self) -> float | None:
        """The median clock of the looks so far; None where none is known."""
        known = [reading.clock_mhz for reading in self.readings if reading.clock_mhz is not None]
        return median(known) if known else None

    def summary(self) -> dict[str, Json] | None:
        """Range of clock, temperature and power, and the share of looks at which each reason held; None unseen.

        `of_default_clock` is the median clock as a share of the default: a low one was locked, or capped all along.
        """
        if not self.readings:
            return None
        count, default = len(self.readings), self.readings[-1].default_clock_mhz
        reasons = sorted({reason for reading in self.readings for reason in reading.reasons})
        return {
            "looks": count,
            "slowed": self.slowed / count,
            "clock_mhz": _range([r.clock_mhz for r in self.readings]),
            "of_default_clock": self.steady_mhz / default if self.steady_mhz and default else None,
            "temperature_c": _range([r.temperature_c for r in self.readings]),
            "power_w": _range([r.power_w for r in self.readings]),
            "reasons": {name: sum(name in r.reasons for r in self.readings) / count for name in reasons},
        }


def watch_of(device: str) -> Watch:
    """A watch over torch device `device`; it sees nothing but NVIDIA GPUs."""
    return Watch(read=lambda: read_gpu_state(device))


def _range(values: list[int | None] | list[float | None] | list[int | float | None]) -> Json:
    known = [value for value in values if value is not None]
    return [min(known), max(known)] if known else None
