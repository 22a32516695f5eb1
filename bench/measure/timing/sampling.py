"""Samples a step until its time is known: warm-up, stop rule, back-off when the device throttles.

Pure: steps, clocks and pauses are passed in, so that tests need no time and no device.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

from bench.core.drift import timing_interval
from bench.core.stats import median, quantile

if TYPE_CHECKING:
    import torch

    from bench.train.ranks import Ranks

StopReason = Literal["precise", "plateau", "time is up", "unsteady", "throttled"]


@dataclass(frozen=True, kw_only=True)
class SamplingRule:
    """Limits of one timing. `precision` is the relative half-width of the median's 95 % interval to be reached.

    If the device throttles, sampling waits `back_off_s`, then twice as long each time, at most `max_back_offs` times.
    """

    window: int = 10
    warmup_s: float = 5.0
    min_samples: int = 30
    min_s: float = 3.0
    max_s: float = 10.0
    precision: float = 0.005
    back_off_s: float = 0.5
    max_back_offs: int = 5

    @classmethod
    def up_to(cls, max_s: float) -> "SamplingRule":
        """The default rule, with warm-up and sampling of at most `max_s` each."""
        return cls(max_s=max_s, warmup_s=min(cls.warmup_s, max_s))


class Sample(NamedTuple):
    """Seconds of one step: by the wall clock, by the device's clock, and of processor time; None if unknown.

    `parts_s` are the seconds of the step's parts, if it has parts. `turn` is the number of the turn in which the step
    ran, 0 without turn-taking. `ended_s` is the wall clock at the end of a step that overlaps with others. `launched_s`
    are the wall seconds until everything was queued on the device.
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
    """The samples of a timing without warm-up and without the `discarded` ones of a throttled device."""

    samples: tuple[Sample, ...]
    warmup_samples: int
    is_steady: bool
    stopped_because: StopReason
    discarded: int = 0

    @property
    def samples_s(self) -> tuple[float, ...]:
        """Wall seconds of each sample."""
        return tuple(sample.wall_s for sample in self.samples)

    @property
    def work_s(self) -> tuple[float, ...]:
        """Seconds of each sample by the device's clock, which excludes launching; by the wall clock without one."""
        return tuple(sample.wall_s if sample.device_s is None else sample.device_s for sample in self.samples)

    @property
    def turns(self) -> tuple[int, ...]:
        """The turn of each sample; empty without turn-taking."""
        return tuple(sample.turn for sample in self.samples if sample.turn)


def take_samples(
    step: Callable[[], Sample],
    rule: SamplingRule,
    *,
    clock_s: Callable[[], float],
    is_throttled: Callable[[], bool] = lambda: False,
    wait: Callable[[float], None] = lambda seconds: None,
    on_warm: Callable[[], None] = lambda: None,
) -> Timing:
    """Call `step` until it is warm, call `on_warm`, then call `step` until `rule` is met.

    A step that is not steady after `warmup_s` is sampled all the same, with the reason `unsteady`. A sample after which
    the device `is_throttled` is discarded, and `wait` lets the device recover. If that does not help, the reason is
    `throttled`; the discarded samples are returned only if there are no others.
    """
    warmup_samples, is_steady = _warm_up(step, rule, clock_s=clock_s)
    on_warm()
    kept, discarded, wall_s = list[Sample](), list[Sample](), list[float]()
    pauses_s = [rule.back_off_s * 2**n for n in range(rule.max_back_offs)]
    started, waited_s = clock_s(), 0.0
    reason: StopReason | None = None
    while reason is None:
        sample = step()
        if not is_throttled():
            kept.append(sample)
            wall_s.append(sample.wall_s)
            reason = _stop_reason(wall_s, clock_s() - started - waited_s, rule)
            continue
        discarded.append(sample)
        if not pauses_s:
            reason = "throttled"
            break
        paused_at = clock_s()
        wait(pauses_s.pop(0))
        step()  # the first step after a pause is slower: the device has been idle
        waited_s += clock_s() - paused_at
    return Timing(
        samples=tuple(kept or discarded),
        warmup_samples=warmup_samples,
        is_steady=is_steady,
        stopped_because=reason if is_steady or reason == "throttled" else "unsteady",
        discarded=len(discarded),
    )


def take_samples_on_ranks(
    ranks: "Ranks",
    step: Callable[[], Sample],
    rule: SamplingRule,
    *,
    device: "torch.device",
    clock_s: Callable[[], float],
) -> Timing | None:
    """Samples of a `step` that all ranks take at the same time; each sample is that of the slowest rank.

    The first rank applies `rule` and returns the timing; the others take as many steps and return None. The ranks
    exchange samples between the steps, so no sample contains that communication.
    """
    import torch  # late: the other functions of this module are used without torch

    def is_continued(*, wanted: bool) -> bool:
        flag = torch.tensor([float(wanted)], device=device)
        ranks.spread(flag)
        return bool(flag.item())

    def slowest() -> Sample:
        samples: list[Sample] = ranks.gather(step())
        return max(samples, key=lambda sample: sample.wall_s)

    def lead() -> Sample:
        is_continued(wanted=True)
        return slowest()

    if ranks.is_first:
        timing = take_samples(lead, rule, clock_s=clock_s)
        is_continued(wanted=False)
        return timing
    while is_continued(wanted=True):
        slowest()
    return None


def windows_agree(before: Sequence[float], after: Sequence[float]) -> bool:
    """Whether two windows of samples look like one distribution; the calibration rule of pyperf.

    The first value of `after` is no Tukey outlier, the means differ by -50 % to +10 %, the median absolute deviations
    by at most 10 % of the median, and the quartiles by at most 5 %.
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


def _warm_up(step: Callable[[], Sample], rule: SamplingRule, *, clock_s: Callable[[], float]) -> tuple[int, bool]:
    """Step until two neighbouring windows agree or time is up; returns the number of steps and whether they agree."""
    started, taken = clock_s(), 0
    before: list[float] = []
    while True:
        after = []
        for _ in range(rule.window):
            after.append(step().wall_s)
            taken += 1
            if clock_s() - started > rule.warmup_s and taken > 2 * rule.window:
                return taken, False
        if before and windows_agree(before, after):
            return taken, True
        before = after
        if clock_s() - started > rule.warmup_s:
            return taken, False


def _stop_reason(samples: Sequence[float], spent_s: float, rule: SamplingRule) -> StopReason | None:
    if spent_s >= rule.max_s and len(samples) >= 3:
        return "time is up"
    every = rule.window * max(1, len(samples) // 200)  # an interval of many samples takes as long as many steps
    if len(samples) < rule.min_samples or spent_s < rule.min_s or len(samples) % every:
        return None
    if relative_half_width(samples) <= rule.precision:
        return "precise"
    return "plateau" if _is_plateau(samples) else None


def _is_plateau(samples: Sequence[float]) -> bool:
    """Whether twice as many samples no longer narrow the interval, as they would if they were independent."""
    half = len(samples) // 2
    return half >= 100 and relative_half_width(samples) > 0.95 * relative_half_width(samples[:half])


def relative_half_width(samples: Sequence[float]) -> float:
    """Half the width of the median's 95 % interval, divided by the median; infinite if there are too few samples."""
    estimate = timing_interval(samples)
    if estimate.low != estimate.low:  # NaN: no interval from so few samples
        return float("inf")
    return (estimate.high - estimate.low) / 2 / estimate.value if estimate.value else 0.0


def _deviation(values: Sequence[float]) -> float:
    centre = median(values)
    return median([abs(value - centre) for value in values])
