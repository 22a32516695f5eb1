"""One metric of one case on both sides: what is known of its change, then, among all comparisons, the verdict."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from bench.comparison.limits import Limits, Noise
from bench.comparison.outcome import Row, Verdict
from bench.comparison.wording import amount, p_value, percent
from bench.core.schema import Metric
from bench.core.units import plural

if TYPE_CHECKING:
    from bench.comparison.evidence import Change

MIN_RUNS = 4
MIN_PAIRS = 6
GOOD_REPEAT = 5
NOISE_RUNS = 8
MOST_TURNS = 64
SLACK = 1e-9
LARGEST = 709.0
FEWEST_SESSIONS = 5


@dataclass(frozen=True, kw_only=True)
class Finding:
    """A row that is settled, or one that waits for its `change` to be seen among all others.

    `values` are those of the runs of each side, for the witness; empty where the change is not between runs.
    `share` is what a measurement in turns may spend of the error rate at this look; None where all runs were there.
    `basis` is said of what the change was read from, `more` of what would decide it where that is not runs. Findings of
    one `family` rest on the same evidence and count as one comparison.
    """

    row: Row
    limits: Limits | None = None
    change: "Change | None" = None
    values: tuple[tuple[float, ...], tuple[float, ...]] = ((), ())
    share: float | None = None
    basis: str = ""
    more: str = ""
    family: str = ""


def settle(row: Row, verdict: Verdict, reason: str) -> Finding:
    """A finding that no other comparison bears on."""
    return Finding(row=_told(row, verdict, reason))


def find_exact(row: Row, limits: Limits, base: Sequence[float], head: Sequence[float]) -> Finding:
    """Counts compare at one run; a side whose runs disagree has no count."""
    for name, values in (("base", base), ("head", head)):
        if len(set(values)) > 1:
            return settle(row, "inconclusive", f"exact by its measure, but the runs of {name} disagree")
    change = head[0] - base[0]
    if change == 0:
        return settle(row, "same", "equal")
    how = _relative(change, base[0]) + (_allowed(limits) if limits.text != "0" else "")
    slack = SLACK * abs(base[0]) if limits.rise or limits.drop else 0.0
    if -limits.drop - slack <= change <= limits.rise + slack:
        return settle(row, "same", how)
    return settle(row, *_direction(change > 0, limits, how))


def find_runs(
    row: Row,
    limits: Limits,
    base: Sequence[float],
    head: Sequence[float],
    *,
    note: str,
    sessions: Sequence[Sequence[Sequence[float]]] | None = None,
    basis: str = "",
) -> Finding:
    """Sampled metrics are judged by independent runs, and not by fewer than four a side.

    `sessions` are the values of base and of head by session, where too few runs share one. Five or more of them in all
    are what is judged then; fewer cannot say how far sessions differ. `basis` is said of the runs.
    """
    fewest = min(len(base), len(head))
    if fewest < MIN_RUNS:
        reason = (
            f"{plural(len(base), 'run')} in base and {len(head)} in head; at least {MIN_RUNS} a side are needed: "
            f"set `repeat: {GOOD_REPEAT}` in the suite and run it again"
        )
        return settle(row, "inconclusive", f"{reason}; {note}" if note else reason)
    from bench.comparison.evidence import change_of_runs, change_of_sessions

    values = tuple(base), tuple(head)
    if sessions is None or not are_enough(sessions):
        return pending(row, limits, change_of_runs(base, head), values=values, basis=basis)
    change = change_of_sessions(*sessions)
    if change.is_ratio:
        row = replace(row, ratio=ratio_of(change.estimate))
    return pending(row, limits, change, values=values, basis=f" over {change.how}", more="sessions")


def are_enough(sessions: Sequence[Sequence[Sequence[float]]] | None) -> bool:
    """Whether sessions of base and of head say how far sessions differ, so that they are what is judged."""
    return sessions is not None and sum(map(len, sessions)) >= FEWEST_SESSIONS


def find_noise(sessions: Sequence[Sequence[float]], *, runs: int, are_apart: bool) -> Noise | str:
    """By what base differs from itself between medians of so many `runs`; or why that is not known.

    `sessions` are base's values. Where base and head are of sessions that are `are_apart`, what these differ by counts,
    else only what runs within a session do.
    """
    base = [value for session in sessions for value in session]
    if len(base) < NOISE_RUNS:
        have = f"{len(base)} of the {NOISE_RUNS} runs of base from which its noise can be told"
        return f"{have}: set `repeat: {NOISE_RUNS}` in the suite and measure base again, or give a limit such as 3%"
    if min(base) <= 0:
        return "values that are not above 0 have no share of noise: give a limit in the metric's unit"
    if are_apart and len(sessions) == 2:
        return "two sessions of base do not tell what sessions differ by: measure a third, or give a limit such as 3%"
    from bench.comparison.evidence import noise_floor

    share = noise_floor(sessions, runs=runs, are_apart=are_apart)
    if not math.isfinite(share):
        return "the runs of base have nothing in common: give a limit such as 3%"
    over = "of one session" if len(sessions) == 1 else f"over {len(sessions)} sessions"
    return Noise(share=share, over=over if are_apart else "")


def find_turns(row: Row, limits: Limits, pairs: Sequence[tuple[float, float]], *, share: float, note: str) -> Finding:
    """Pairs of runs that were neighbours in time; `share` of the error rate may be spent on them, perhaps none."""
    if share <= 0 or len(pairs) < MIN_PAIRS:
        reason = f"{plural(len(pairs), 'run')} a side in turns; at least {MIN_PAIRS} are needed: set a longer --budget"
        return Finding(row=replace(_told(row, "inconclusive", f"{reason}; {note}" if note else reason), is_open=True))
    from bench.comparison.evidence import change_of_pairs

    base, head = (tuple(side) for side in zip(*pairs, strict=True))
    change = change_of_pairs(base, head)
    if change.is_ratio:
        row = replace(row, ratio=ratio_of(change.estimate))
    return Finding(row=row, limits=limits, change=change, values=(base, head), share=share)


def decide_in_turns(finding: Finding, *, comparisons: int) -> Row:
    """The verdict of one look among so many `comparisons`: Bonferroni over them and over all looks."""
    from bench.comparison.evidence import ALPHA

    change, share = finding.change, finding.share
    if change is None:
        return finding.row
    if share is None:  # judged once, such as an accuracy: its whole share of the error rate is spent on that
        return decide(finding, p=min(1.0, change.p * comparisons), comparisons=comparisons)
    change = change.reaching(1 - ALPHA * share / comparisons)
    row = replace(finding.row, interval=_ratio_interval(change, finding.row.base))
    p = min(1.0, change.p * comparisons / share)
    judged = decide(replace(finding, row=row, change=change), p=p, comparisons=comparisons)
    return replace(judged, is_open=judged.verdict == "inconclusive")


def pending(
    row: Row,
    limits: Limits,
    change: "Change",
    *,
    values: tuple[tuple[float, ...], tuple[float, ...]] = ((), ()),
    basis: str = "",
    more: str = "",
) -> Finding:
    """A finding whose verdict waits for the correction for many comparisons."""
    row = replace(row, interval=_ratio_interval(change, row.base))
    return Finding(row=row, limits=limits, change=change, values=values, basis=basis, more=more)


def decide(finding: Finding, *, p: float, comparisons: int) -> Row:
    """The verdict of a finding, by its `p` as it counts among so many `comparisons`."""
    change, limits, row = finding.change, finding.limits, finding.row
    if change is None or limits is None:
        return row
    rise, drop = _on_scale(change, limits, row.base)
    row = replace(row, p=p)
    is_beyond = change.estimate > rise or change.estimate < -drop
    doubt = _doubt(finding, p) if is_beyond else None
    said = f"{_said(change.estimate, change, row)} ({_span(change, row)}){finding.basis}"
    if is_beyond and doubt is None:
        return _told(row, *_direction(change.estimate > 0, limits, f"{said}, {p_value(p)}{_allowed(limits)}"))
    is_within = (not limits.guards_rise or change.high <= rise) and (not limits.guards_drop or change.low >= -drop)
    if is_within:
        guarded = [rise] * limits.guards_rise + [-drop] * limits.guards_drop
        seen = _detectable(
            change, min(guarded, key=abs, default=math.inf), comparisons=comparisons / (finding.share or 1.0)
        )
        text = f"; a change of {_said(seen, change, row)} would have been seen" if seen is not None else ""
        detectable = None if seen is None else _as_share(seen, change, row.base)
        return _told(replace(row, detectable=detectable), "same", f"{said}{_allowed(limits)}{text}")
    why = doubt or "the interval reaches beyond that"
    return _told(row, "inconclusive", f"{said}{_allowed(limits)}; {why}{_advice(finding, rise, drop)}")


def _told(row: Row, verdict: Verdict, reason: str) -> Row:
    return replace(row, verdict=verdict, reason=reason)


def _doubt(finding: Finding, p: float) -> str | None:
    """Why a change beyond its limit is not believed, or None: interval, p and the rank test must all agree."""
    from bench.comparison.evidence import ALPHA, WITNESS_ALPHA, mann_whitney

    change = finding.change
    assert change is not None
    if not p < ALPHA:
        return f"it may be noise ({p_value(p)}, below {ALPHA:g} is asked)"
    if not (change.low > 0 or change.high < 0):
        return "the interval holds no change too"
    if finding.values[0] and finding.share is None and (ranks := mann_whitney(*finding.values)) >= WITNESS_ALPHA:
        return f"the Mann-Whitney test does not confirm it ({p_value(ranks)})"
    return None


def _direction(is_rise: bool, limits: Limits, how: str) -> tuple[Verdict, str]:
    """Worse or better, as far as something says which direction is which."""
    if not limits.knows_worse:
        return "inconclusive", f"changed: {how}; nothing says which direction is better"
    is_worse = limits.rise_is_worse if is_rise else limits.drop_is_worse
    return ("slower" if is_worse else "faster"), how


def _on_scale(change: "Change", limits: Limits, base: float | None) -> tuple[float, float]:
    """How far up and down is allowed, on the scale of the change."""
    if not change.is_ratio:
        return limits.rise, limits.drop
    assert base is not None
    share = limits.drop / base
    rise = limits.rise / base
    up = math.log1p(rise) if math.isfinite(rise) else math.log(limits.rise) - math.log(base)
    return up, -math.log1p(-share) if share < 1 else math.inf


def _detectable(change: "Change", tolerance: float, *, comparisons: float) -> float | None:
    """The smallest change that would have been called one, on its own scale and to the side of `tolerance`."""
    from bench.comparison.evidence import ALPHA

    found = change.detectable(abs(tolerance), alpha=ALPHA / max(1, comparisons))
    return math.copysign(found, tolerance) if math.isfinite(found) else None


def _as_share(value: float, change: "Change", base: float | None) -> float | None:
    """The size of a change as a share of the base."""
    if change.is_ratio:
        return abs(ratio_of(value) - 1)
    return abs(value / base) if base else None


def _ratio_interval(change: "Change", base: float | None) -> tuple[float, float] | None:
    if change.is_ratio:
        return ratio_of(change.low), ratio_of(change.high)
    return (1 + change.low / base, 1 + change.high / base) if base is not None and base > 0 else None


def _advice(finding: Finding, rise: float, drop: float) -> str:
    """About how many runs would decide, where runs are what is short."""
    change, limits = finding.change, finding.limits
    assert change is not None
    assert limits is not None
    if finding.more:
        return f"; more {finding.more} would tell"
    rooms = [rise - change.estimate] * limits.guards_rise + [drop + change.estimate] * limits.guards_drop
    runs = max(map(len, finding.values)) * change.growth_needed(min(rooms, default=math.inf))
    if finding.share is not None:
        return f"; about {math.ceil(runs)} runs a side would tell" if runs <= MOST_TURNS else "; too noisy to tell"
    if runs > 100:
        return "; a quieter machine is needed, or a wider limit"
    needed = max(math.ceil(runs), max(map(len, finding.values)) + 1)
    return f"; about {needed} runs a side would tell: `repeat: {needed}`"


def ratio_of(logarithm: float) -> float:
    """The ratio of a natural logarithm, infinite where no float holds it."""
    return math.exp(logarithm) if logarithm < LARGEST else math.inf


def _said(value: float, change: "Change", row: Row) -> str:
    return percent(ratio_of(value) - 1) if change.is_ratio else amount(value, row.unit)


def _span(change: "Change", row: Row) -> str:
    return f"{_said(change.low, change, row)} to {_said(change.high, change, row)}"


def _allowed(limits: Limits) -> str:
    return f"; {limits.text} is allowed"


def _relative(change: float, base: float) -> str:
    return percent(change / base) if base > 0 else f"{change:+g}"


def metric_values(metrics: Sequence[Metric | None]) -> list[float]:
    """The values that are known and finite."""
    return [float(m.value) for m in metrics if m is not None and m.value is not None and math.isfinite(m.value)]
