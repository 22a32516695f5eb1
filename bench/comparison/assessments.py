"""The verdict on one metric from its values on both sides: counts, independent runs, and runs in alternating pairs."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from scipy.special import stdtr

from bench.comparison.allowed_changes import Limits, Noise
from bench.comparison.evidence import (
    ALPHA,
    RANK_TEST_ALPHA,
    Change,
    change_of_pairs,
    change_of_runs,
    change_of_sessions,
    mann_whitney,
    noise_floor,
)
from bench.comparison.pairing import MIN_RUNS, are_enough_sessions, ratio_of
from bench.comparison.sequential import MIN_PAIRS, critical_t, fewest_pairs, log_e_value, pairs_needed
from bench.comparison.verdicts import MetricVerdict, Verdict, amount, p_value, percent
from bench.core.units import plural

GOOD_REPEAT = 5
NOISE_RUNS = 8
MAX_REPEAT = 100  # more runs than this are no useful advice
ROUNDING = 1e-9


@dataclass(frozen=True, kw_only=True)
class Assessment:
    """A settled verdict, or a `change` whose verdict waits for the correction for all comparisons.

    `values` are the runs of each side for the rank test; empty if the change is not between independent runs. `pairs`
    is the number of pairs in an A/B measurement, which may go on. `basis` names the sample in the reason, and `needed`
    what more of would decide if that is not runs. Assessments of one `family` rest on the same evidence and count as
    one comparison.
    """

    row: MetricVerdict
    limits: Limits | None = None
    change: Change | None = None
    values: tuple[tuple[float, ...], tuple[float, ...]] = ((), ())
    pairs: int = 0
    basis: str = ""
    needed: str = ""
    family: str = ""


def settled(row: MetricVerdict, verdict: Verdict, reason: str) -> Assessment:
    """Return an assessment that needs no correction for other comparisons."""
    return Assessment(row=_with_verdict(row, verdict, reason))


def undecided(
    row: MetricVerdict,
    limits: Limits,
    change: Change,
    *,
    values: tuple[tuple[float, ...], tuple[float, ...]] = ((), ()),
    basis: str = "",
    needed: str = "",
) -> Assessment:
    """Return an assessment whose verdict waits for the correction for all comparisons."""
    row = replace(row, interval=_ratio_interval(change, row.base))
    return Assessment(row=row, limits=limits, change=change, values=values, basis=basis, needed=needed)


def assess_count(row: MetricVerdict, limits: Limits, base: Sequence[float], head: Sequence[float]) -> Assessment:
    """Compare exact values, for which one run is enough; runs of one side that disagree are inconclusive."""
    for name, values in (("base", base), ("head", head)):
        if len(set(values)) > 1:
            return settled(row, "inconclusive", f"the metric is exact, but the runs of {name} disagree")
    change = head[0] - base[0]
    if change == 0:
        return settled(row, "same", "equal")
    text = _relative(change, base[0]) + (_allowed(limits) if limits.text != "0" else "")
    # A limit such as 10 % of 0.1 is not exact in binary: a change of exactly the limit must still be within it.
    slack = ROUNDING * abs(base[0]) if limits.rise or limits.drop else 0.0
    if -limits.drop - slack <= change <= limits.rise + slack:
        return settled(row, "same", text)
    return settled(row, *_by_direction(change > 0, limits, text))


def assess_runs(
    row: MetricVerdict,
    limits: Limits,
    base: Sequence[float],
    head: Sequence[float],
    *,
    note: str,
    sessions: Sequence[Sequence[Sequence[float]]] | None = None,
    basis: str = "",
) -> Assessment:
    """Compare independent runs, at least four a side.

    `sessions` holds the values of base and of head by session, if the sides do not share sessions. Five or more in all
    are compared instead of runs; with fewer, the spread between sessions is unknown. `basis` describes the runs.
    """
    if min(len(base), len(head)) < MIN_RUNS:
        reason = (
            f"{plural(len(base), 'run')} in base and {len(head)} in head; at least {MIN_RUNS} a side are needed: "
            f"set `repeat: {GOOD_REPEAT}` in the suite and run it again"
        )
        return settled(row, "inconclusive", f"{reason}; {note}" if note else reason)
    values = tuple(base), tuple(head)
    if sessions is None or not are_enough_sessions(sessions):
        return undecided(row, limits, change_of_runs(base, head), values=values, basis=basis)
    change = change_of_sessions(*sessions)
    if change.is_ratio:
        row = replace(row, ratio=ratio_of(change.estimate))
    return undecided(row, limits, change, values=values, basis=f" over {change.sample}", needed="sessions")


def assess_pairs(row: MetricVerdict, limits: Limits, pairs: Sequence[tuple[float, float]], *, note: str) -> Assessment:
    """Compare pairs of runs that were neighbours in time, at least three; more pairs may follow."""
    if len(pairs) < MIN_PAIRS:
        reason = f"{plural(len(pairs), 'run')} a side in turns; at least {MIN_PAIRS} are needed: set a longer --budget"
        undecided_row = _with_verdict(row, "inconclusive", f"{reason}; {note}" if note else reason)
        return Assessment(row=replace(undecided_row, is_open=True))
    base, head = (tuple(side) for side in zip(*pairs, strict=True))
    change = change_of_pairs(base, head, unit=row.unit)
    if change.is_ratio:
        row = replace(row, ratio=ratio_of(change.estimate))
    return Assessment(row=row, limits=limits, change=change, pairs=len(pairs))


def base_noise(sessions: Sequence[Sequence[float]], *, runs: int, are_apart: bool) -> Noise | str:
    """Return by how much medians of so many `runs` of base differ from each other; or why that is unknown.

    `sessions` holds base's values. If base and head were measured in sessions that `are_apart`, the spread between
    sessions counts, else only the spread of runs within a session.
    """
    base = [value for session in sessions for value in session]
    if len(base) < NOISE_RUNS:
        have = f"base has {len(base)} runs, and at least {NOISE_RUNS} are needed to estimate its noise"
        return f"{have}: set `repeat: {NOISE_RUNS}` in the suite and measure base again, or give a limit such as 3%"
    if min(base) <= 0:
        return "noise is a share of values above 0, and base has others: give a limit in the metric's unit"
    if are_apart and len(sessions) == 2:
        return "two sessions of base cannot show how far sessions differ: measure a third, or give a limit such as 3%"
    share = noise_floor(sessions, runs=runs, are_apart=are_apart)
    if not math.isfinite(share):
        return "the runs of base differ by more than a float can hold: give a limit such as 3%"
    over = "of one session" if len(sessions) == 1 else f"over {len(sessions)} sessions"
    return Noise(share=share, over=over if are_apart else "")


def decide_interim(assessment: Assessment, *, comparisons: int) -> MetricVerdict:
    """Return the verdict of an interim analysis, corrected for so many `comparisons` by Bonferroni.

    An e-value of `comparisons` / 1 % decides, whatever was analysed before and whatever follows.
    """
    change, pairs = assessment.change, assessment.pairs
    if change is None:
        return assessment.row
    if not pairs:  # analysed only once, such as an accuracy
        return decide(assessment, p=min(1.0, change.p * comparisons), comparisons=comparisons)
    threshold = comparisons / ALPHA
    critical = critical_t(pairs, threshold=threshold)
    if math.isinf(critical):
        needed = fewest_pairs(comparisons)
        reason = (
            f"{_in_words(change.estimate, change, assessment.row)}; {plural(pairs, 'run')} a side in turns; at least "
            f"{needed} are needed for {plural(comparisons, 'comparison')}: set a longer --budget"
        )
        row = replace(assessment.row, interval=None, is_open=True, needed_runs=needed)
        return _with_verdict(row, "inconclusive", reason)
    change = change.within(critical)
    row = replace(assessment.row, interval=_ratio_interval(change, assessment.row.base))
    if change.error > 0:
        p = min(1.0, comparisons * math.exp(-log_e_value(change.estimate / change.error, pairs)))
    else:  # all pairs are equal
        p = float(change.estimate == 0)
    decided = decide(
        replace(assessment, row=row, change=change),
        p=p,
        comparisons=comparisons,
        level=2 * float(stdtr(change.degrees, -critical)),
    )
    return replace(decided, is_open=decided.verdict == "inconclusive")


def decide(assessment: Assessment, *, p: float, comparisons: int, level: float | None = None) -> MetricVerdict:
    """Return the verdict for a `p` that is corrected for so many `comparisons`.

    `level` is the error rate of Student's test whose quantile decides, if it is not 1 % / comparisons.
    """
    change, limits, row = assessment.change, assessment.limits, assessment.row
    if change is None or limits is None:
        return row
    rise, drop = _on_scale(change, limits, row.base)
    row = replace(row, p=p)
    is_beyond = change.estimate > rise or change.estimate < -drop
    doubt = _doubt(assessment, p) if is_beyond else None
    found = f"{_in_words(change.estimate, change, row)} ({_interval_text(change, row)}){assessment.basis}"
    if is_beyond and doubt is None:
        reason = f"{found}, {p_value(p)}{_allowed(limits)}"
        return _with_verdict(row, *_by_direction(change.estimate > 0, limits, reason))
    is_within = (not limits.guards_rise or change.high <= rise) and (not limits.guards_drop or change.low >= -drop)
    if is_within:
        guarded = [rise] * limits.guards_rise + [-drop] * limits.guards_drop
        level = ALPHA / max(1, comparisons) if level is None else level
        detectable = _detectable(change, min(guarded, key=abs, default=math.inf), level=level)
        if detectable is None:
            return _with_verdict(row, "same", f"{found}{_allowed(limits)}")
        reason = f"{found}{_allowed(limits)}; minimum detectable change: {_in_words(detectable, change, row)}"
        return _with_verdict(replace(row, detectable=_as_share(detectable, change, row.base)), "same", reason)
    why = doubt or "the interval reaches beyond that"
    if assessment.pairs:
        room = abs(change.estimate) if is_beyond else _room(change, limits, rise, drop)
        spread, at_least = change.error * math.sqrt(assessment.pairs), assessment.pairs + 1
        needed = pairs_needed(room, spread=spread, threshold=comparisons / ALPHA, at_least=at_least, unit=row.unit)
        row = replace(row, needed_runs=needed)
        advice = f"; about {needed} runs a side would decide it" if needed else "; too noisy to decide"
    else:
        advice = _advice(assessment, change, _room(change, limits, rise, drop))
    return _with_verdict(row, "inconclusive", f"{found}{_allowed(limits)}; {why}{advice}")


def _with_verdict(row: MetricVerdict, verdict: Verdict, reason: str) -> MetricVerdict:
    return replace(row, verdict=verdict, reason=f"{reason}; {row.doubt}" if row.doubt else reason)


def _doubt(assessment: Assessment, p: float) -> str | None:
    """Return why a change beyond its limit is not certain; None if interval, p and the rank test agree on it."""
    change = assessment.change
    assert change is not None
    if not p < ALPHA:
        return f"it may be noise ({p_value(p)}; below {ALPHA:g} is required)"
    if not (change.low > 0 or change.high < 0):
        return "the interval includes no change"
    if assessment.values[0] and (ranks := mann_whitney(*assessment.values)) >= RANK_TEST_ALPHA:
        return f"the Mann-Whitney test does not confirm it ({p_value(ranks)})"
    return None


def _by_direction(is_rise: bool, limits: Limits, reason: str) -> tuple[Verdict, str]:
    """Return `worse` or `better`, or `inconclusive` if neither metric nor rule says which direction is worse."""
    if not limits.knows_worse:
        return "inconclusive", f"changed: {reason}; the metric states no better direction"
    is_worse = limits.rise_is_worse if is_rise else limits.drop_is_worse
    return ("worse" if is_worse else "better"), reason


def _on_scale(change: Change, limits: Limits, base: float | None) -> tuple[float, float]:
    """Return the allowed rise and drop on the scale of the change."""
    if not change.is_ratio:
        return limits.rise, limits.drop
    assert base is not None
    share = limits.drop / base
    rise = limits.rise / base
    up = math.log1p(rise) if math.isfinite(rise) else math.log(limits.rise) - math.log(base)
    return up, -math.log1p(-share) if share < 1 else math.inf


def _detectable(change: Change, tolerance: float, *, level: float) -> float | None:
    """Return the minimum detectable change beyond `tolerance`, with its sign and on the scale of the change."""
    found = change.detectable(abs(tolerance), alpha=level) if level > 0 else math.inf
    return math.copysign(found, tolerance) if math.isfinite(found) else None


def _as_share(value: float, change: Change, base: float | None) -> float | None:
    """Return the size of a change as a share of the base."""
    if change.is_ratio:
        return abs(ratio_of(value) - 1)
    return abs(value / base) if base else None


def _ratio_interval(change: Change, base: float | None) -> tuple[float, float] | None:
    if change.is_ratio:
        return ratio_of(change.low), ratio_of(change.high)
    return (1 + change.low / base, 1 + change.high / base) if base is not None and base > 0 else None


def _room(change: Change, limits: Limits, rise: float, drop: float) -> float:
    """Return how far the interval may reach from the estimate to lie within the limit."""
    rooms = [rise - change.estimate] * limits.guards_rise + [drop + change.estimate] * limits.guards_drop
    return min(rooms, default=math.inf)


def _advice(assessment: Assessment, change: Change, room: float) -> str:
    """Return how many independent runs would decide, or what else would."""
    if assessment.needed:
        return f"; more {assessment.needed} would decide it"
    runs = max(map(len, assessment.values)) * change.growth_needed(room)
    if runs > MAX_REPEAT:
        return "; a quieter machine is needed, or a wider limit"
    needed = max(math.ceil(runs), max(map(len, assessment.values)) + 1)
    return f"; about {needed} runs a side would decide it: `repeat: {needed}`"


def _in_words(value: float, change: Change, row: MetricVerdict) -> str:
    return percent(ratio_of(value) - 1) if change.is_ratio else amount(value, row.unit)


def _interval_text(change: Change, row: MetricVerdict) -> str:
    return f"{_in_words(change.low, change, row)} to {_in_words(change.high, change, row)}"


def _allowed(limits: Limits) -> str:
    return f"; {limits.text} is allowed"


def _relative(change: float, base: float) -> str:
    return percent(change / base) if base > 0 else f"{change:+g}"
