"""What a time budget can decide: pairs that fit, the smallest change they show, and the budget that would be enough."""

import math
from collections.abc import Collection, Iterator, Mapping, Sequence

from bench.ab.rounds import Rounds
from bench.comparison.sequential import MAX_PAIRS, MIN_PAIRS, critical_t, fewest_pairs, least_spread
from bench.comparison.verdicts import MetricVerdict
from bench.core.units import plural

ERROR_RATE = 0.01
QUIET, BUSY = 0.01, 0.03  # standard deviation of a pair's ratio; benchmarks/sequential.md has recorded ones
PAIRS_FOR_SAME = 6  # with fewer, the spread of times counts as at least 2 %, so no interval lies within 3 %
INSTRUCTIONS = "instructions"  # the unit of counts whose spread no other process changes
LARGEST_SHOWN = 10.0  # a change by a factor of eleven; so few pairs show only enormous ones


def budget_lines(
    pair_s: Mapping[str, float], *, budget_s: float, left_s: float, of_instructions: Collection[str] = ()
) -> Iterator[str]:
    """Yield what `left_s` of a budget can decide if a pair of each case takes the seconds `pair_s`.

    The cases `of_instructions` count them and measure no time.
    """
    round_s, cases = sum(pair_s.values()), len(pair_s)
    fewest, spent_s = fewest_pairs(cases), budget_s - left_s
    pairs = min(MAX_PAIRS, max(1, math.floor(left_s / round_s)))
    text = f"{plural(cases, 'case')} x {plural(pairs, 'pair')} x {round_s / cases:.0f} s"
    if left_s < round_s:
        text += f", at least {duration_text(spent_s + round_s)} instead of {duration_text(budget_s)}"
    elif pairs == MAX_PAIRS:
        text += f" in {duration_text(spent_s + pairs * round_s)}, the most that is measured"
    else:
        text += f" in {duration_text(budget_s)}"
    if pairs < fewest:
        enough = duration_text(spent_s + fewest * round_s)
        yield f"{text}: too few to decide anything; large changes need --budget {enough}"
    else:
        yield f"{text}: shows {_shown_changes(pairs, cases, len(of_instructions))}"
    for_same = max(fewest, PAIRS_FOR_SAME if len(of_instructions) < cases else 0)
    if pairs < for_same:
        yield f"`same` needs {for_same} pairs: --budget {duration_text(spent_s + for_same * round_s)}"


def _shown_changes(pairs: int, cases: int, of_instructions: int) -> str:
    """Return from which change on so many pairs show one, of times and of instructions, which no load changes."""
    texts = []
    if of_instructions < cases:
        quiet, busy = (_percent(smallest_change(pairs, spread=each, comparisons=cases)) for each in (QUIET, BUSY))
        what = "changes of time" if of_instructions else "changes"
        texts.append(f"{what} from about {quiet} on a quiet machine, {busy} on a busy one")
    if of_instructions:
        spread = least_spread(MIN_PAIRS, unit=INSTRUCTIONS)
        least = smallest_change(pairs, spread=spread, comparisons=cases, unit=INSTRUCTIONS)
        texts.append(f"changes of instructions from about {_percent(least)} on any machine")
    return "; ".join(texts)


def _percent(share: float) -> str:
    if share > LARGEST_SHOWN:
        return f"{100 * LARGEST_SHOWN:.0f} % or more"
    return f"{100 * share:.0f} %" if share >= 0.01 else f"{max(100 * share, 0.1):.1f} %"


def smallest_change(pairs: int, *, spread: float, comparisons: int, unit: str = "") -> float:
    """Return the smallest change, as a share of base, whose interval probably excludes "no change".

    `spread` is the standard deviation of the logarithm of a pair's ratio. Infinite if so few pairs cannot show any.
    """
    half = critical_t(pairs, threshold=comparisons / ERROR_RATE) / math.sqrt(pairs)
    change = half * max(spread, least_spread(pairs, unit=unit))
    return math.expm1(change) if change < LARGEST_SHOWN else math.inf


def longer_budget(undecided: Sequence[MetricVerdict], rounds: Rounds, *, spent_s: float) -> str | None:
    """Return the `--budget` that would probably decide the open verdicts; None if no reasonable one would."""
    needed: dict[str, int] = {}
    for row in undecided:
        is_known = row.interval is not None
        if is_known and row.needed_runs is None:
            return None
        for_same = fewest_pairs(len(rounds.pairs)) if row.unit == INSTRUCTIONS else PAIRS_FOR_SAME
        needed[row.case_id] = max(needed.get(row.case_id, 0), (row.needed_runs or 0) if is_known else for_same)
    more_s = sum(
        rounds.longest_s.get(case, 0.0) * max(1, count - rounds.pairs.get(case, 0)) for case, count in needed.items()
    )
    return f"--budget {duration_text(spent_s + more_s)}"


def duration_text(seconds: float) -> str:
    """Return seconds as an argument of `--budget`, rounded up: `90s`, `12m`."""
    return f"{math.ceil(seconds / 10) * 10}s" if seconds <= 120 else f"{math.ceil(seconds / 60)}m"
