"""Verdicts on all metrics of the paired cases, corrected for the number of comparisons."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from bench.comparison.accuracies import assess_models, assess_trainings, seed_group, trainings_of, with_means
from bench.comparison.allowed_changes import Noise, limits_of
from bench.comparison.assessments import (
    Assessment,
    assess_count,
    assess_pairs,
    assess_runs,
    base_noise,
    decide,
    decide_interim,
    settled,
)
from bench.comparison.evidence import holm
from bench.comparison.gate_rules import GateRules, metrics_of
from bench.comparison.pairing import (
    CasePair,
    paired_values,
    separate_sessions,
    sessions_of_side,
    shared_session_values,
)
from bench.comparison.runs import MetricRuns
from bench.comparison.verdicts import Difference, MetricVerdict
from bench.core.schema import Metric
from bench.core.stats import median
from bench.core.units import plural


@dataclass(frozen=True, kw_only=True)
class PairContext:
    """One pair of cases with what its metrics are judged by.

    `is_interim` means that an A/B measurement may go on. `machine_differences` are those that are allowed because no
    machine-dependent metric decides. `siblings` are the pairs that differ only in the seed, this one included.
    """

    pair: CasePair
    rules: GateRules
    is_interim: bool
    machine_differences: Sequence[Difference]
    siblings: Sequence[CasePair]


def judge(
    pairs: Sequence[CasePair],
    rules: GateRules,
    *,
    machine_differences: Sequence[Sequence[Difference]],
    is_interim: bool,
) -> list[MetricVerdict]:
    """Return the verdicts on every metric of every pair, in the given order.

    Metrics that make the exit code are corrected for their own number; the others, separately, for theirs.
    `machine_differences` are given for each pair. `is_interim`: the runs are pairs of an A/B measurement.
    """
    groups = _seed_groups(pairs)
    contexts = [
        PairContext(
            pair=pair,
            rules=rules,
            is_interim=is_interim,
            machine_differences=differences,
            siblings=groups.get(seed_group(pair), []),
        )
        for pair, differences in zip(pairs, machine_differences, strict=True)
    ]
    assessments = [each for context in contexts for each in _assess_pair(context)]
    rows = {id(each): each.row for each in assessments}
    for is_deciding in (True, False):
        rows |= _decided([each for each in assessments if each.row.is_deciding == is_deciding], is_interim=is_interim)
    return [rows[id(each)] for each in assessments]


def _seed_groups(pairs: Sequence[CasePair]) -> dict[str, list[CasePair]]:
    """Return the pairs that differ only in the seed, by their group; pairs without a seed are in none."""
    groups: dict[str, list[CasePair]] = {}
    for pair in pairs:
        if group := seed_group(pair):
            groups.setdefault(group, []).append(pair)
    return groups


def _decided(assessments: Sequence[Assessment], *, is_interim: bool) -> dict[int, MetricVerdict]:
    waiting = [each for each in assessments if each.change is not None]
    tests = {each.family or str(id(each)): each.change.p for each in waiting if each.change is not None}
    if is_interim:
        later = sum(each.change is None and each.row.is_open for each in assessments)  # will be compared as well
        return {id(each): decide_interim(each, comparisons=len(tests) + later) for each in waiting}
    corrected = dict(zip(tests, holm(list(tests.values())), strict=True))
    return {
        id(each): decide(each, p=corrected[each.family or str(id(each))], comparisons=len(tests)) for each in waiting
    }


def _assess_pair(context: PairContext) -> Iterator[Assessment]:
    """Yield one assessment per metric; machine-dependent metrics of incompatible machines are not judged."""
    for metric, is_view in metrics_of(context.pair):
        assessment = _assess(metric.key, context, is_view=is_view)
        if context.machine_differences and metric.is_of_machine:
            row = replace(assessment.row, interval=None, is_open=False)
            why = f"not compared, because the machines differ ({context.machine_differences[0]})"
            assessment = settled(row, "inconclusive", why)
        yield assessment


def _assess(key: str, context: PairContext, *, is_view: bool) -> Assessment:
    """Return what is known of one metric. A further view on the samples of another metric decides only by a rule."""
    pair, rules, is_interim = context.pair, context.rules, context.is_interim
    base, head = _metric_runs(pair, key)
    metric = base.named or head.named
    assert metric is not None
    suite = pair.head.case.suite
    rule = rules.of(suite, metric)
    row = _row(metric, base, head, pair=pair, is_deciding=rules.are_deciding(suite, metric, is_view=is_view))
    if head.known and (base.known or not base.throttled):
        rules.note_measured(suite, metric)
    if not base.known or not head.known:
        return _unknown(row, base, head, is_interim=is_interim)
    if head.named is not None and head.named.unit != metric.unit:
        return settled(row, "inconclusive", f"the unit is {metric.unit} in base and {head.named.unit} in head")
    is_exact = all(m.is_count for _, m in (*base.known, *head.known))
    if is_exact and base.left_out != head.left_out:
        return settled(row, "inconclusive", f"the counts leave out different operators: {_left_out(base, head)}")
    noise = _noise(base, head, is_exact=is_exact) if rule is not None and rule.needs_noise else None
    if isinstance(noise, str):
        return settled(row, "inconclusive", noise)
    trainings = None
    if metric.is_share and not is_exact:
        trainings = trainings_of(base, head, [_metric_runs(each, key) for each in context.siblings])
        row = row if trainings is None else with_means(row, trainings)
    values, basis = (tuple(base.values), tuple(head.values)), ""
    if not is_interim and not is_exact and metric.can_drift:
        values, basis = _comparable_values(base, head)
        row = _row_of_values(row, values) if basis else row
    limits = limits_of(metric, rule, base=row.base or 0.0, noise=noise)
    row = replace(row, limit=limits.text)
    if is_exact:
        return assess_count(row, limits, base.values, head.values)
    if trainings is not None:
        return assess_trainings(row, limits, trainings, group=seed_group(pair))
    if metric.is_share:
        return assess_models(row, limits, base.known[-1], head.known[-1])
    if is_interim:
        return assess_pairs(row, limits, paired_values(base, head), note=_remark(base, head))
    sessions = separate_sessions(base, head) if metric.can_drift else None
    return assess_runs(row, limits, *values, note=_remark(base, head), sessions=sessions, basis=basis)


def _metric_runs(pair: CasePair, key: str) -> tuple[MetricRuns, MetricRuns]:
    return MetricRuns.of(pair.base.runs, key), MetricRuns.of(pair.head.runs, key)


def _left_out(base: MetricRuns, head: MetricRuns) -> str:
    """Return the operators that the counts of each side leave out, in words."""
    named = [", ".join(f"{name} ({plural(calls, 'call')})" for name, calls in side.left_out) for side in (base, head)]
    return f"{named[0] or 'none'} in base, {named[1] or 'none'} in head"


def _noise(base: MetricRuns, head: MetricRuns, *, is_exact: bool) -> Noise | str:
    """Return base's noise: 0 for an exact metric, between sessions for one that drifts; or why it is unknown."""
    if is_exact:
        return Noise(share=0.0)
    if base.named is None or not base.named.can_drift:
        return base_noise([base.values], runs=len(head.known), are_apart=False)
    apart = separate_sessions(base, head)
    sessions = sessions_of_side(base) if apart is None else apart[0]
    return base_noise(sessions, runs=len(head.known), are_apart=apart is not None)


def _comparable_values(base: MetricRuns, head: MetricRuns) -> tuple[tuple[tuple[float, ...], tuple[float, ...]], str]:
    """Return the values to compare and a description: all, or only those of shared sessions if these are enough."""
    shared = shared_session_values(base, head)
    if shared is None or tuple(map(len, shared)) == (len(base.values), len(head.values)):
        return (tuple(base.values), tuple(head.values)), ""
    return shared, f" over the {len(shared[0])} and {len(shared[1])} runs of sessions that hold both"


def _row_of_values(row: MetricVerdict, values: Sequence[Sequence[float]]) -> MetricVerdict:
    """Return `row` with the medians and the number of the runs that are judged."""
    old, new = map(median, values)
    runs = len(values[0]), len(values[1])
    return replace(row, base=old, head=new, ratio=new / old if old > 0 else None, runs=runs)


def _row(metric: Metric, base: MetricRuns, head: MetricRuns, *, pair: CasePair, is_deciding: bool) -> MetricVerdict:
    old, new = (median(side.values) if side.known else None for side in (base, head))
    return MetricVerdict(
        suite=pair.head.case.suite,
        case_id=pair.head.id,
        case=pair.head.case.title,
        metric=metric.key,
        unit=metric.unit,
        better=metric.better,
        base=old,
        head=new,
        ratio=new / old if old is not None and new is not None and old > 0 else None,
        runs=(len(base.known), len(head.known)),
        verdict="inconclusive",
        reason="",
        is_deciding=is_deciding,
        doubt=", ".join(filter(None, [base.doubt("base"), head.doubt("head")])),
    )


def _unknown(row: MetricVerdict, base: MetricRuns, head: MetricRuns, *, is_interim: bool) -> Assessment:
    """Return the assessment of a metric that one or both sides do not know.

    It is missing if head lost it or base has only throttled runs of it, and not if base never knew it. At an interim
    analysis it stays open if runs were throttled, because later runs may not be.
    """
    row = replace(row, is_open=is_interim and bool(base.throttled or head.throttled))
    if not base.known:
        reason = f"unknown in {'both' if not head.known else 'base'}{base.why_unknown}"
        is_lost = base.throttled > 0
        row = replace(row, is_missing=is_lost, is_deciding=row.is_deciding and is_lost)
        return settled(row, "inconclusive", reason)
    return settled(replace(row, is_missing=True), "inconclusive", f"known in base, unknown in head{head.why_unknown}")


def _remark(base: MetricRuns, head: MetricRuns) -> str:
    """Return why there are few runs: throttled ones were left out, or the measure left a note."""
    throttled = base.throttled + head.throttled
    if throttled:
        return f"{plural(throttled, 'throttled run')} left out"
    notes = [side.named.note for side in (base, head) if side.named is not None and side.named.note]
    return notes[0] if notes else ""
