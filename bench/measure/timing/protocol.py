"""When a timed case is warm, and when it has been sampled enough. Pure: driven by samples and clocks that are given."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from bench.core.stats import median, median_interval, quantile

StopReason = Literal["precise", "plateau", "time is up", "unsteady", "throttled"]


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """Bounds of one timing. Times in seconds; `precision` is the half-width of the median's 95 % interval, relative.

    Where the device slows itself down, sampling waits `back_off_s`, twice as long each time, at most `max_back_offs`
    times.
    """

    window: int = 10
    warmup_s: float = 5.0
    min_samples: int = 30
    min_s: float = 3.0
    max_s: float = 10.0
    precision: float = 0.005
    back_off_s: float = 0.5
    max_back_offs: int = 5


class Sample(NamedTuple):
    """Seconds of one step by the wall clock, by the device's own, and of processor time; None where there is none.

    `parts_s` are the seconds of its parts, where it has some. `turn` numbers the turn on the floor it was taken in.
    `ended_s` is the moment of its end by the wall clock, where steps overlap. `launched_s` are the wall seconds until
    everything was queued on a device that works by itself.
    """

    wall_s: float
    device_s: float | None = None
    cpu_s: float | None = None
    parts_s: tuple[float, ...] = ()
    turn: int = 0
    ended_s: float | None = None
    launched_s: float | None = None


@dataclass(frozen=True, kw_only=True)
class Timing:
    """Samples without those of the warm-up and those `discarded` for a slowed device, and why sampling stopped."""

    samples: tuple[Sample, ...]
    warmup_samples: int
    is_steady: bool
    stopped_because: StopReason
    discarded: int = 0

    @property
    def samples_s(self) -> tuple[float, ...]:
        """Wall seconds of every sample."""
        return tuple(sample.wall_s for sample in self.samples)

    @property
    def work_s(self) -> tuple[float, ...]:
        """Seconds of every sample by the device's own clock, which launching is not in; else by the wall's."""
        return tuple(sample.wall_s if sample.device_s is None else sample.device_s for sample in self.samples)

    @property
    def turns(self) -> tuple[int, ...]:
        """The number of each sample's turn on the floor; empty where there were no turns."""
        return tuple(sample.turn for sample in self.samples if sample.turn)


def take_samples(
    step: Callable[[], Sample],
    protocol: Protocol,
    *,
    clock_s: Callable[[], float],
    is_slowed: Callable[[], bool] = lambda: False,
    wait: Callable[[float], None] = lambda seconds: None,
    on_warm: Callable[[], None] = lambda: None,
) -> Timing:
    """Call `step` until warm, then `on_warm`, and then `step` until the protocol is content.

    A case that never warms up within `warmup_s` is sampled all the same and marked: its reason is `unsteady`. A sample
    after which `is_slowed` is thrown away, and `wait` lets the device recover; where that does not help, the reason is
    `throttled`, and samples of the slowed device are given if there are no others.
    """
    warmup_samples, is_steady = _warm_up(step, protocol, clock_s=clock_s)
    on_warm()
    kept, slowed, wall_s = list[Sample](), list[Sample](), list[float]()
    pauses_s = [protocol.back_off_s * 2**n for n in range(protocol.max_back_offs)]
    started, waited_s = clock_s(), 0.0
    reason: StopReason | None = None
    while reason is None:
        sample = step()
        if not is_slowed():
            kept.append(sample)
            wall_s.append(sample.wall_s)
            reason = _stop_reason(wall_s, clock_s() - started - waited_s, protocol)
            continue
        slowed.append(sample)
        if not pauses_s:
            reason = "throttled"
            break
        paused_at = clock_s()
        wait(pauses_s.pop(0))
        step()  # the first after a pause finds a device at rest
        waited_s += clock_s() - paused_at
    return Timing(
        samples=tuple(kept or slowed),
        warmup_samples=warmup_samples,
        is_steady=is_steady,
        stopped_because=reason if is_steady or reason == "throttled" else "unsteady",
        discarded=len(slowed),
    )


def windows_agree(before: Sequence[float], after: Sequence[float]) -> bool:
    """Whether two windows look like one distribution: the calibration rule of pyperf.

    The first value of `after` is no Tukey outlier, means differ by -50 % to +10 %, median absolute deviations by at
    most 10 % of the median, quartiles by at most 5 %.
    """
    lower, upper = quantile(after, 0.25), quantile(after, 0.75)
    if after[0] > upper + 1.5 * (upper - lower):
        return False
    change = (sum(before) / len(before)) / (sum(after) / len(after)) - 1
    if not -0.5 <= change <= 0.1:
        return False
    if abs(_deviation(before) - _deviation(after)) > 0.1 * median(after):
        return False
    return all(abs(quantile(before, q) / quantile(after, q) - 1) <= 0.05 for q in (0.25, 0.75))


def _warm_up(step: Callable[[], Sample], protocol: Protocol, *, clock_s: Callable[[], float]) -> tuple[int, bool]:
    """Step until two neighbouring windows agree or the time for it is up; how many steps, and whether they did."""
    started, taken = clock_s(), 0
    before: list[float] = []
    while True:
        after = []
        for _ in range(protocol.window):
            after.append(step().wall_s)
            taken += 1
            if clock_s() - started > protocol.warmup_s and taken > 2 * protocol.window:
                return taken, False
        if before and windows_agree(before, after):
            return taken, True
        before = after
        if clock_s() - started > protocol.warmup_s:
            return taken, False


def _stop_reason(samples: Sequence[float], spent_s: float, protocol: Protocol) -> StopReason | None:
    if spent_s >= protocol.max_s and len(samples) >= 3:
        return "time is up"
    if len(samples) < protocol.min_samples or spent_s < protocol.min_s or len(samples) % protocol.window:
        return None
    if relative_half_width(samples) <= protocol.precision:
        return "precise"
    return "plateau" if _is_plateau(samples) else None


def _is_plateau(samples: Sequence[float]) -> bool:
    """Whether twice the samples no longer narrow the interval, as they must where samples are independent."""
    half = len(samples) // 2
    return half >= 100 and relative_half_width(samples) > 0.95 * relative_half_width(samples[:half])


def relative_half_width(samples: Sequence[float]) -> float:
    """Half the width of the median's 95 % interval over the median; infinite where there are too few samples."""
    estimate = median_interval(samples)
    if estimate.low != estimate.low:
        return float("inf")
    return (estimate.high - estimate.low) / 2 / estimate.value if estimate.value else 0.0


def _deviation(values: Sequence[float]) -> float:
    centre = median(values)
    return median([abs(value - centre) for value in values])
