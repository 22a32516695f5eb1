"""What a time budget can decide: pairs that fit, the smallest change they show, and the budget that would be enough."""

import math
from collections.abc import Iterator, Mapping, Sequence

from bench.ab.rounds import Rounds
from bench.comparison.sequential import MAX_PAIRS, MIN_PAIRS, critical_t, least_spread
from bench.comparison.verdicts import MetricVerdict
from bench.core.units import plural

ERROR_RATE = 0.01
QUIET, BUSY = 0.01, 0.03  # standard deviation of a pair's ratio; benchmarks/sequential.md has recorded ones
PAIRS_FOR_SAME = 6  # with fewer, the spread counts as at least 2 %, so no interval lies within 3 %


def budget_lines(pair_s: Mapping[str, float], *, budget_s: float, left_s: float) -> Iterator[str]:
    """Yield what `left_s` of a budget can decide if a pair of each case takes the seconds `pair_s`."""
    round_s, cases = sum(pair_s.values()), len(pair_s)
    pairs = min(MAX_PAIRS, max(1, math.floor(left_s / round_s)))
    text = f"{plural(cases, 'case')} x {plural(pairs, 'pair')} x {round_s / cases:.0f} s in {duration_text(budget_s)}"
    if pairs < MIN_PAIRS:
        few = duration_text(budget_s - left_s + MIN_PAIRS * round_s)
        yield f"{text}: too few to decide anything; large changes need --budget {few}"
    else:
        quiet, busy = (100 * smallest_change(pairs, spread=spread, comparisons=cases) for spread in (QUIET, BUSY))
        yield f"{text}: shows changes from about {quiet:.0f} % on a quiet machine, {busy:.0f} % on a busy one"
    if pairs < PAIRS_FOR_SAME:
        enough = duration_text(budget_s - left_s + PAIRS_FOR_SAME * round_s)
        yield f"`same` needs {PAIRS_FOR_SAME} pairs: --budget {enough}"


def smallest_change(pairs: int, *, spread: float, comparisons: int) -> float:
    """Return the smallest change, as a share of base, whose interval probably excludes "no change".

    `spread` is the standard deviation of the logarithm of a pair's ratio.
    """
    critical = critical_t(pairs, threshold=comparisons / ERROR_RATE)
    return math.expm1(min(critical * max(spread, least_spread(pairs)) / math.sqrt(pairs), 50.0))


def longer_budget(undecided: Sequence[MetricVerdict], rounds: Rounds, *, spent_s: float) -> str | None:
    """Return the `--budget` that would probably decide the open verdicts; None if no reasonable one would."""
    needed = {row.case_id: PAIRS_FOR_SAME for row in undecided if row.interval is None}
    for row in undecided:
        if row.interval is not None:
            if row.needed_runs is None:
                return None
            needed[row.case_id] = max(needed.get(row.case_id, 0), row.needed_runs)
    more_s = sum(
        rounds.longest_s.get(case, 0.0) * max(1, count - rounds.pairs.get(case, 0)) for case, count in needed.items()
    )
    return f"--budget {duration_text(spent_s + more_s)}"


def duration_text(seconds: float) -> str:
    """Return seconds as an argument of `--budget`, rounded up: `90s`, `12m`."""
    return f"{math.ceil(seconds / 10) * 10}s" if seconds <= 120 else f"{math.ceil(seconds / 60)}m"
