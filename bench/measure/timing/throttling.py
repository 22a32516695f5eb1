"""Watches a GPU while it is timed: whether it throttles, and its clock, temperature and power for the record."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from bench.core.nvml import GpuState, read_gpu_state
from bench.core.schema import Json
from bench.core.stats import median

THROTTLED_BELOW = 0.75  # of the default clock
# A power cap alone is how a GPU runs under full load: it is recorded, but only a low clock counts as throttling.
THROTTLE_REASONS = frozenset(
    {"hardware slowdown", "thermal slowdown (driver)", "thermal slowdown (hardware)", "power brake"}
)
POLL_EVERY_S = 0.02  # a query of NVML takes about as long as a short step


def shows_throttling(state: GpuState, *, steady_mhz: float | None) -> bool:
    """Whether a GPU throttles: for heat or power supply, or because its clock fell during a timing.

    The clock fell if it is under 75 % of both the default and `steady_mhz`, the clock of the timing so far. A clock
    that is low from the beginning is accepted: it may be locked, as `vbench doctor --gpu` advises.
    """
    if not THROTTLE_REASONS.isdisjoint(state.reasons or ()):
        return True
    if state.clock_mhz is None or steady_mhz is None:
        return False
    return state.clock_mhz < THROTTLED_BELOW * min(steady_mhz, state.default_clock_mhz or steady_mhz)


@dataclass(kw_only=True)
class ThrottleWatch:
    """Polls the device between samples, at most every 20 ms; `read` returns None if there is nothing to read."""

    read: Callable[[], GpuState | None]
    clock_s: Callable[[], float] = time.perf_counter
    states: list[GpuState] = field(default_factory=list)
    throttled: int = 0
    _polled_at_s: float | None = None
    _is_throttled: bool = False

    def is_throttled(self) -> bool:
        """Whether the device throttles, by a state that is at most 20 ms old."""
        now_s = self.clock_s()
        if self._polled_at_s is not None and now_s - self._polled_at_s < POLL_EVERY_S:
            return self._is_throttled
        self._polled_at_s = now_s
        state = self.read()
        if state is not None:
            self._is_throttled = shows_throttling(state, steady_mhz=self.steady_mhz)
            self.throttled += self._is_throttled
            self.states.append(state)
        return self._is_throttled

    @property
    def steady_mhz(self) -> float | None:
        """The median clock so far; None if no clock is known."""
        known = [state.clock_mhz for state in self.states if state.clock_mhz is not None]
        return median(known) if known else None

    def summary(self) -> dict[str, Json] | None:
        """Range of clock, temperature and power, and the share of states read that have each reason for a low clock.

        `looks` is the number of states. `of_default_clock` is the median clock as a share of the default: a low value
        means locked or capped all along. Returns None if no state was read.
        """
        if not self.states:
            return None
        count, default = len(self.states), self.states[-1].default_clock_mhz
        known = [state.reasons for state in self.states if state.reasons is not None]
        names = sorted({name for reasons in known for name in reasons})
        shares: Json = {name: sum(name in reasons for reasons in known) / len(known) for name in names}
        return {
            "looks": count,  # the keys `looks` and `slowed` are those of stored records
            "slowed": self.throttled / count,
            "clock_mhz": _range([state.clock_mhz for state in self.states]),
            "of_default_clock": self.steady_mhz / default if self.steady_mhz and default else None,
            "temperature_c": _range([state.temperature_c for state in self.states]),
            "power_w": _range([state.power_w for state in self.states]),
            "reasons": shares if known else None,
        }


def watch_throttling(device: str) -> ThrottleWatch:
    """A watch on torch device `device`; only NVIDIA GPUs can be read."""
    return ThrottleWatch(read=lambda: read_gpu_state(device))


def _range(values: list[int | None] | list[float | None] | list[int | float | None]) -> Json:
    known = [value for value in values if value is not None]
    return [min(known), max(known)] if known else None
