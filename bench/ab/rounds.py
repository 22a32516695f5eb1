"""Measures base and head in rounds, one pair of every open case, until all are decided or time is up. Pure."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from bench.ab.sides import RunOutcome, SideName
from bench.comparison.sequential import MAX_PAIRS, MIN_PAIRS

# Which side of a pair goes first: A B B A, then B A A B. A linear drift cancels in four runs, and a disturbance that
# lasts two runs does not always hit the same side.
FIRST: tuple[SideName, ...] = ("base", "head", "head", "base")

StopReason = Literal["decided", "time is up", "enough"]
RunPair = Callable[[SideName, str, int], Sequence[RunOutcome]]
Analyse = Callable[[Mapping[str, int]], Collection[str]]


@dataclass(kw_only=True)
class Rounds:
    """Pairs measured by case, their longest time, cases that failed, cases settled by one run, and why it ended."""

    pairs: dict[str, int] = field(default_factory=dict)
    longest_s: dict[str, float] = field(default_factory=dict)
    failed: list[str] = field(default_factory=list)
    settled: list[str] = field(default_factory=list)
    stopped_because: StopReason = "decided"


def measure_rounds(
    cases: Sequence[str],
    run_pair: RunPair,
    analyse: Analyse,
    *,
    deadline_s: float,
    clock_s: Callable[[], float],
) -> Rounds:
    """Measure `cases` (ids) in rounds: one pair of every open case, then the next pair of each.

    `run_pair(first, case, index)` measures each side once, `first` before the other, and returns both outcomes, or only
    that of head if it failed first. `analyse(pairs of open cases)` is called after every round that can decide, and
    returns the cases that are still open. Every case gets one pair; a further pair starts only if it would probably end
    before `deadline_s`. A case that fails once is not measured again.
    """
    result = Rounds(pairs=dict.fromkeys(cases, 0))
    is_open = list(cases)
    while is_open:
        is_late = False
        for case in list(is_open):
            started = clock_s()
            if result.pairs[case] and started + result.longest_s[case] > deadline_s:
                is_late = True
                break
            if not _measure_pair(case, run_pair, result):
                is_open.remove(case)
            result.longest_s[case] = max(result.longest_s.get(case, 0.0), clock_s() - started)
        pairs = {case: result.pairs[case] for case in is_open}
        is_enough = all(count >= MAX_PAIRS for count in pairs.values())
        if pairs and (is_late or max(pairs.values()) >= MIN_PAIRS):
            still_open = analyse(pairs)
            is_open = [case for case in is_open if case in still_open]
        if is_open and (is_late or is_enough):
            result.stopped_because = "time is up" if is_late else "enough"
            break
    return result


def _measure_pair(case: str, run_pair: RunPair, result: Rounds) -> bool:
    """Whether `case` needs another pair: its runs are good, and one run per side does not decide it."""
    index = result.pairs[case]
    outcomes = run_pair(FIRST[index % len(FIRST)], case, index)
    if not all(outcome.is_good for outcome in outcomes):
        result.failed.append(case)
        return False
    if not any(outcome.needs_turns for outcome in outcomes):
        result.settled.append(case)
        return False
    result.pairs[case] += 1
    return True
