"""The noise of a series of commits: separates what the canary explains, alarms, drifts and flaky series.

Pure functions on values in the order of their commits; the choices are in docs/decisions/0026, the rates of false
alarms in benchmarks/history_alarms.md.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise, takewhile
from typing import TYPE_CHECKING

from bench.comparison.steps import Step
from bench.core.stats import median
from bench.core.units import plural

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

Canary = Mapping[str, float]  # milliseconds of each fixed operation around a run

MIN_CHANGE = 0.03  # the limit that the gate has if none is given
LASTING = 15  # commits; the longest recorded disturbance of a shared machine lasted eight measurements
LASTING_OF_STEADY = 3  # for what clocks and load do not change, such as bytes
MIN_CHANGE_OF_STEADY = 0.005  # another folder or kernel moves bytes and instructions by some hundredths of a percent
REFERENCE = 100  # commits before a step that show the noise
MIN_REFERENCE = 10
THRESHOLD = 10.0  # standard errors; benchmarks/history_alarms.md
CLIP = 6.0  # an outlier counts as so many usual distances
MOST_ADDED = 1.05  # a canary that spreads the values so many times as far does not explain them
WINDOW = 100  # commits that decide whether a series is flaky
MIN_RETURNS, RETURN = 2, 0.25  # levels that came back, to within this share of the step
MIN_SWITCHES, MIN_SHARE, MIN_GAP = 6, 0.15, 6.0  # between two states, in commits and in spreads of one state
MIN_FOR_STATES = 20
RAMP_PLACES = 24  # starts and ends of a drift that are tried
MIN_RAMP = 8  # commits


@dataclass(frozen=True, kw_only=True)
class Drift:
    """The level moves gradually from `start` to `end`, places in the series, so no commit is its cause.

    `steps` are the numbers of the steps that it replaces.
    """

    start: int
    end: int
    before: float
    after: float
    steps: range


@dataclass(frozen=True, kw_only=True)
class Flakiness:
    """Why a series is flaky, and after how many more commits on one level it no longer is."""

    why: str
    until_commits: int


def normalise(values: Sequence[float], canaries: Sequence[Canary | None], *, is_rate: bool) -> tuple[list[float], str]:
    """Return the values without the speed of the machine, and the name of the canary that showed it.

    A time is divided by the canary of its run over the median canary of the machine; a rate is multiplied. Of the
    operations of the canary and their mean, the one whose result is spread least is used. Runs without a canary stay
    as they are. The name is empty, and the values are unchanged, if no run has one or if it spreads them further.
    """
    known = [canary for canary in canaries if canary]
    names = sorted(set.intersection(*({*canary} for canary in known))) if known else []
    found: list[tuple[float, list[float], str]] = []
    for chosen in [[name] for name in names] + ([names] if len(names) > 1 else []):
        times = [
            math.exp(sum(math.log(canary[n]) for n in chosen) / len(chosen)) if canary else None for canary in canaries
        ]
        usual = median([time for time in times if time is not None])
        ratios = [1.0 if time is None else time / usual for time in times]
        normal = [value * ratio if is_rate else value / ratio for value, ratio in zip(values, ratios, strict=True)]
        found.append((_apart(normal), normal, " and ".join(chosen).replace("_ms", "")))
    apart, normal, name = min(found, default=(math.inf, list(values), ""))
    return (normal, name) if apart <= MOST_ADDED * _apart(values) else (list(values), "")


def noise_of(values: Sequence[float]) -> float:
    """Return the usual deviation of one commit as a share, by differences of neighbours, which a step hardly moves."""
    differences = [abs(after - before) for before, after in pairwise(_scaled(values))]
    return 1.4826 * median(differences) / math.sqrt(2) if differences else 0.0


def _apart(values: Sequence[float]) -> float:
    """Return the mean distance from the median, as a share."""
    scaled = _scaled(values)
    centre = median(scaled)
    return sum(abs(value - centre) for value in scaled) / len(scaled)


def _scaled(values: Sequence[float]) -> list[float]:
    """Return logarithms; of values that are not all positive, shares of the largest."""
    if min(values) > 0:
        return [math.log(value) for value in values]
    largest = max(map(abs, values)) or 1.0
    return [value / largest for value in values]


def alarms(values: Sequence[float], steps: Sequence[Step], *, can_drift: bool) -> list[bool]:
    """Return for each step whether it is an alarm: it lasts, is large enough, and exceeds the noise on both sides.

    The error of a level counts how much a commit is like the one before, because a machine that is slow for some
    commits would otherwise look like a step. `can_drift`: clocks and load of the machine change the values.
    """
    import numpy as np

    many = np.asarray(_scaled(values))
    found: list[bool] = []
    start, ends = 0, [*(step.index for step in steps), len(values)]
    for step, end in zip(steps, ends[1:], strict=True):
        before, after = many[max(start, step.index - REFERENCE) : step.index], many[step.index : end]
        change = abs(step.after / step.before - 1) if step.before > 0 else math.inf
        is_lasting = len(after) >= (LASTING if can_drift else LASTING_OF_STEADY)
        is_large = change >= (MIN_CHANGE if can_drift else MIN_CHANGE_OF_STEADY)
        is_alarm = is_lasting and is_large and (not can_drift or len(before) >= MIN_REFERENCE)
        if is_alarm and can_drift:
            error = math.hypot(_error(before), _error(after))
            is_alarm = bool(abs(np.median(after) - np.median(before)) >= THRESHOLD * error)
        found.append(is_alarm)
        if is_alarm:
            start = step.index
    return found


def _error(scaled: "Floats") -> float:
    """Return the standard error of a level, from clipped distances and their correlation with the ones before."""
    import numpy as np

    apart = scaled - np.median(scaled)
    usual = 1.4826 * float(np.median(np.abs(apart))) or float(np.abs(apart).mean())
    clipped = np.clip(apart, -CLIP * usual, CLIP * usual)
    square, count = float(clipped @ clipped), len(scaled)
    if square == 0.0:
        return 0.0
    follows = min(max(float(clipped[1:] @ clipped[:-1]) / square + 1 / count, 0.0), 0.9)
    return math.sqrt(square * (1 + follows) / (1 - follows)) / count


def find_drifts(values: Sequence[float], steps: Sequence[Step]) -> list[Drift]:
    """Return the drifts that explain steps better than levels do; steps between `start` and `end` are part of one.

    Neighbouring steps in one direction are explained by a ramp between two levels if that leaves less unexplained,
    counted with what each description has to choose (BIC).
    """
    found: list[Drift] = []
    ends = [0, *(step.index for step in steps), len(values)]
    first = 0
    while first < len(steps):
        last = first
        while last + 1 < len(steps) and _is_rise(steps[last + 1]) == _is_rise(steps[first]):
            last += 1
        start, end = ends[first], ends[last + 2]
        inner = [place - start for place in ends[first + 1 : last + 2]]
        ramp = _ramp(_scaled(values)[start:end], inner)
        if ramp is not None:
            found.append(
                Drift(
                    start=start + ramp[0],
                    end=start + ramp[1],
                    before=steps[first].before,
                    after=steps[last].after,
                    steps=range(first, last + 1),
                )
            )
        first = last + 1
    return found


def _is_rise(step: Step) -> bool:
    return step.after > step.before


def _ramp(scaled: Sequence[float], steps: Sequence[int]) -> tuple[int, int] | None:
    """Return first and last place of the ramp that explains these values better than the steps; None if none does."""
    import numpy as np

    many = np.asarray(scaled, dtype=np.float64)
    n = len(many)
    if n < 2 * MIN_RAMP:
        return None
    levels = np.concatenate([np.full(len(part), np.median(part)) for part in np.split(many, steps)])
    usual = 1.4826 * float(np.median(np.abs(many - levels))) or 1e-12
    left = np.clip((many - levels) / usual, -CLIP, CLIP)
    of_steps = n * math.log(max(float(left @ left), 1e-12)) + (2 * len(steps) + 1) * math.log(n)
    places = np.unique(np.linspace(0, n - 1, RAMP_PLACES).astype(int))
    best: tuple[float, tuple[int, int]] | None = None
    for start in places:
        for end in places[places >= start + MIN_RAMP]:
            shape = np.clip((np.arange(n) - start) / (end - start), 0.0, 1.0)
            centred = shape - shape.mean()
            slope = float(centred @ many) / float(centred @ centred)
            rest = many - slope * centred
            left = np.clip((rest - np.median(rest)) / usual, -CLIP, CLIP)
            score = n * math.log(max(float(left @ left), 1e-12)) + 4 * math.log(n)
            if best is None or score < best[0]:
                best = score, (int(start), int(end))
    return best[1] if best is not None and best[0] < of_steps else None


def flakiness(values: Sequence[float], steps: Sequence[Step]) -> Flakiness | None:
    """Return why a noisy series is flaky, by its last commits: its level came back repeatedly, or it has two states."""
    return _returning(steps, len(values)) or _of_two_states(values)


def _returning(steps: Sequence[Step], count: int) -> Flakiness | None:
    """Return a flakiness if levels came back at least twice: a regression and its repair do so once."""
    returns = [
        later.index
        for step, later in pairwise(steps)
        if abs(later.after - step.before) <= RETURN * abs(step.after - step.before)
    ]
    recent = [place for place in returns if place >= count - WINDOW]
    if len(recent) < MIN_RETURNS:
        return None
    why = f"its level came back {plural(len(recent), 'time')} in the last {plural(min(count, WINDOW), 'commit')}"
    return Flakiness(why=why, until_commits=recent[-MIN_RETURNS] + WINDOW - count + 1)


def _of_two_states(values: Sequence[float]) -> Flakiness | None:
    """Return a flakiness if the last values switch between two levels that are far apart compared with their spread."""
    import numpy as np

    recent = np.asarray(_scaled(values[-WINDOW:]))
    found = _two_states(recent)
    if found is None:
        return None
    distance, switches, level = found
    apart = f"{100 * (math.expm1(distance) if min(values) > 0 else distance):.0f} %"
    commits = plural(len(recent), "commit")
    staying = (np.append(recent, np.full(more, level))[-WINDOW:] for more in range(1, WINDOW))
    until = 1 + sum(1 for _ in takewhile(lambda later: _two_states(later) is not None, staying))
    why = f"it has two states, {apart} apart, and switched {switches} times in the last {commits}"
    return Flakiness(why=why, until_commits=until)


def _two_states(scaled: "Floats") -> tuple[float, int, float] | None:
    """Return how far two states are apart, the number of switches, and the level now; None if there are not two."""
    import numpy as np

    count = len(scaled)
    if count < MIN_FOR_STATES:
        return None
    ordered = np.sort(scaled)
    least = max(2, math.ceil(MIN_SHARE * count))
    gaps = np.diff(ordered)[least - 1 : count - least]
    place = int(gaps.argmax()) + least
    levels = [float(np.median(part)) for part in (ordered[:place], ordered[place:])]
    parts = zip((ordered[:place], ordered[place:]), levels, strict=True)
    spread = max(float(np.abs(part - level).mean()) for part, level in parts)
    is_high = scaled >= ordered[place]
    switches = int((is_high[1:] != is_high[:-1]).sum())
    distance = levels[1] - levels[0]
    if distance < max(MIN_GAP * spread, MIN_CHANGE) or switches < MIN_SWITCHES:
        return None
    return distance, switches, levels[int(is_high[-1])]
