"""The regression gate: two sets of records become verdicts, each with its reason."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from bench.comparison.answers import find_networks
from bench.comparison.baselines import PREFIX, baseline_files
from bench.comparison.judging import (
    Finding,
    are_enough,
    decide,
    decide_in_turns,
    find_exact,
    find_noise,
    find_runs,
    find_turns,
    settle,
)
from bench.comparison.likeness import (
    Unlike,
    depends_on_machine,
    noteworthy_fields,
    unlike_fields,
)
from bench.comparison.limits import GateValue, Noise, Rule, limits_of, read_rules, refuse_noise, rule_for, rules_for
from bench.comparison.outcome import Comparison, Row
from bench.comparison.pairing import Pair, departures_of, failures_of, left_over, pair_cases
from bench.comparison.samples import Sample, remark
from bench.comparison.sessions import own_sessions, sessions_of, shared_values
from bench.comparison.sides import Side, open_side
from bench.comparison.trainings import find_trainings, mean_row, recipe_of, trainings_of
from bench.core.errors import InputError, nearest
from bench.core.schema import Metric, Record
from bench.core.stats import median
from bench.core.units import plural
from bench.store import Source

SHOWN = 12


def compare(
    base: Source | Iterable[Record],
    head: Source | Iterable[Record],
    *,
    gate: Mapping[str, GateValue] | None = None,
    across: bool = False,
    differing: Collection[str] = (),
    shares: Mapping[str, float] | None = None,
    partners: Mapping[str, str] | None = None,
) -> Comparison:
    """Verdicts of `head` against `base`, per case and metric.

    Each side is a file, a folder, a pattern, `git:REF[:path]`, several of those, or records; base may also be
    `baseline:BRANCH[:folder]`: what was kept of head's suites on machines like head's. `gate` adds to the
    rules of head's suites, or else base's: by metric name, key or pattern, a threshold (`3%`, `0.5pt`, `200MiB`) for
    the worse direction, or `{max_drop: …, max_rise: …}`. Where there is any rule, only metrics with one decide.
    InputError where environments or protocols are unlike, unless `across`, which marks each verdict; unlike machines
    matter only to figures of them that decide, and others are not judged there.
    `differing` names what is meant to differ: `model`, `software`. `shares` are for a look at runs that are measured in
    turns (`looks.py`): by case id in head, which share of the error rate it may spend. `partners` are the pairs
    where they are known, ids of base by ids of head.
    """
    given = read_rules(gate or {})
    with open_side(head) as new, open_side(_base_of(base, new, given, across=across)) as old:
        pairs = pair_cases(old, new, differing=differing, partners=partners)
        rules = _Rules(old, new, given, pairs)
        if shares is not None:
            rules.refuse_noise()
        unlike = _unlike(pairs, differing, lambda pair: across or _decides_by_machine(pair, rules))
        if unlike and not across:
            raise InputError(_refusal(unlike))
        recipes = _by_recipe(pairs)
        terms = [
            _Terms(
                pair=pair,
                rules=rules,
                share=None if shares is None else shares.get(pair.head.id, 0.0),
                elsewhere=[] if across else _unlike([pair], differing, lambda _: True),
                siblings=recipes.get(recipe_of(pair), []),
            )
            for pair in pairs
        ]
        findings = [finding for each in terms for finding in _findings(each)]
        rows = _judged(findings, in_turns=shares is not None)
        missing, added = left_over(old, new, pairs)
        return Comparison(
            base=base if isinstance(base, str) else old.source,
            head=new.source,
            rows=tuple(replace(row, is_across=True) for row in rows) if unlike else tuple(rows),
            missing=tuple(missing),
            added=tuple(added),
            failed=(
                *failures_of(old, "base", other=new),
                *failures_of(new, "head", other=old),
                *departures_of(pairs),
            ),
            unmeasured=tuple(rules.unanswered()),
            unlike=tuple(unlike),
            notes=tuple(_notes(pairs)),
        )


def _base_of(
    base: Source | Iterable[Record], head: Side, given: Mapping[str, Rule], *, across: bool
) -> Source | Iterable[Record]:
    """`base` itself, or the files of a baseline that answer to head's suites and, where it matters, its machine."""
    if not (isinstance(base, str) and base.startswith(PREFIX)):
        return base
    cases = head.cases.values()
    records = [record for case in cases for record in (*case.records, *case.failures)]
    rules = _Rules(head, head, given)
    by_machine = any(_decides_by_machine(Pair(base=case, head=case), rules) for case in cases)
    return baseline_files(base, records, across=across, by_machine=by_machine)


class _Rules:
    """The rules of each suite, those given for this comparison before them.

    A suite of base whose cases answer to those of a suite of another name has moved there: that one's gate is the one
    that counts, and where it has none, the one of before.
    """

    def __init__(self, base: Side, head: Side, given: Mapping[str, Rule], pairs: Sequence[Pair] = ()) -> None:
        self._given = dict(given)
        named = [(pair.base.case.suite, pair.head.case.suite) for pair in pairs]
        here = {suite for suite, _ in head.cases}
        moved = {old for old, _ in named if old not in here}
        before: dict[str, Mapping[str, GateValue]] = {}
        for old, new in named:
            if old in moved:
                before[new] = {**before.get(new, {}), **base.gates.get(old, {})}
        suites = {suite: None for side in (base, head) for suite, _ in side.cases if suite not in moved}
        gates = {suite: head.gates.get(suite) or base.gates.get(suite) or before.get(suite, {}) for suite in suites}
        self._of_suite = {suite: {**read_rules(gate), **given} for suite, gate in gates.items()}
        self._answered: set[tuple[str, str]] = set()
        self._metrics = {name for pair in pairs for metric, _ in _metrics(pair) for name in (metric.key, metric.name)}
        self.are_any = any(self._of_suite.values())

    def refuse_noise(self) -> None:
        """InputError where any limit is `noise`, which runs in turns do not have."""
        for rules in self._of_suite.values():
            refuse_noise(rules)

    def of(self, suite: str, metric: Metric) -> Rule | None:
        found = rule_for(metric, self._given) or rule_for(metric, self._of_suite[suite])
        return None if found is None else found[1]

    def are_deciding(self, suite: str, metric: Metric, *, is_view: bool) -> bool:
        """Whether `metric` makes the exit code: by a rule; where there is none at all, by having a direction."""
        return self.of(suite, metric) is not None if self.are_any else metric.better is not None and not is_view

    def answer(self, suite: str, metric: Metric) -> None:
        """Note that head has measured what the rules of `metric` ask for, the less precise ones too."""
        self._answered |= {(suite, name) for name in rules_for(metric, self._of_suite[suite])}

    def unanswered(self) -> Iterator[str]:
        """Rules that no metric answers to: in no suite for those given, in their own for those of a suite."""
        answered = {name for _, name in self._answered}
        for name in self._given:
            if name not in answered:
                yield _unanswered(name, "no compared case", self._metrics)
        for suite, rules in self._of_suite.items():
            for name in rules:
                if name not in self._given and (suite, name) not in self._answered:
                    yield _unanswered(name, f"no compared case of suite {suite}", self._metrics)


def _unanswered(rule: str, cases: str, metrics: Collection[str]) -> str:
    """What is said of a rule that none of `metrics` answers to: those that it may have meant, where any is near."""
    meant = "" if rule in metrics else nearest(rule, metrics)
    return f"{rule}: {cases} has such a metric" + (f"; {meant}" if meant else "")


@dataclass(frozen=True, kw_only=True)
class _Terms:
    """What the metrics of one pair of cases are judged by.

    `share` is what may be spent at this look, where runs are taken in turns; `elsewhere` how the machines differ, where
    that was let pass since no figure of them decides; `siblings` the pairs that differ in nothing but the seed.
    """

    pair: Pair
    rules: _Rules
    share: float | None
    elsewhere: Sequence[Unlike]
    siblings: Sequence[Pair]


def _by_recipe(pairs: Sequence[Pair]) -> dict[str, list[Pair]]:
    """Pairs that differ in nothing but the seed, by their recipe; those without a seed are in none."""
    found: dict[str, list[Pair]] = {}
    for pair in pairs:
        if recipe := recipe_of(pair):
            found.setdefault(recipe, []).append(pair)
    return found


def _findings(terms: _Terms) -> Iterator[Finding]:
    """One finding for every metric that either side knows; figures of unlike machines are not judged."""
    for metric, is_view in _metrics(terms.pair):
        finding = _finding(metric.key, terms, is_view=is_view)
        if terms.elsewhere and metric.is_of_machine:
            row = replace(finding.row, interval=None, is_open=False)
            finding = settle(row, "inconclusive", f"of unlike machines ({terms.elsewhere[0]}), so it is not compared")
        yield finding


def _metrics(pair: Pair) -> list[tuple[Metric, bool]]:
    """Every metric that either side knows, and whether it is a further view on samples that another one carries."""
    metrics = [metric for case in (pair.base, pair.head) for record in case.records for metric in record.metrics]
    telling = {_measure(metric) for metric in metrics if _tells_spread(metric)}
    return [
        (metric, _measure(metric) in telling and not (_tells_spread(metric) or metric.is_count))
        for metric in {metric.key: metric for metric in metrics}.values()
    ]


def _decides_by_machine(pair: Pair, rules: _Rules) -> bool:
    """Whether a figure of a machine makes the exit code, so that the machines must be alike."""
    records = [*pair.base.records, *pair.head.records]
    known = {m.key for record in records for m in record.metrics if m.is_of_machine and m.value is not None}
    suite = pair.head.case.suite
    return any(
        metric.key in known and rules.are_deciding(suite, metric, is_view=is_view) for metric, is_view in _metrics(pair)
    )


def _measure(metric: Metric) -> str:
    return metric.name.partition(".")[0]


def _tells_spread(metric: Metric) -> bool:
    return bool(metric.samples) or metric.interval is not None


def _samples(pair: Pair, key: str) -> tuple[Sample, Sample]:
    return Sample.of(pair.base.runs, key), Sample.of(pair.head.runs, key)


def _finding(key: str, terms: _Terms, *, is_view: bool) -> Finding:
    """What is known of one metric. A further view on samples that another metric carries decides only under a rule."""
    pair, rules, share = terms.pair, terms.rules, terms.share
    base, head = _samples(pair, key)
    metric = base.named or head.named
    assert metric is not None
    suite = pair.head.case.suite
    rule = rules.of(suite, metric)
    is_deciding = rules.are_deciding(suite, metric, is_view=is_view)
    row = _row(metric, base, head, pair=pair, is_deciding=is_deciding)
    if head.known and (base.known or not base.throttled):
        rules.answer(suite, metric)
    if not base.known or not head.known:
        return _unknown(row, base, head, in_turns=share is not None)
    if head.named is not None and head.named.unit != metric.unit:
        return settle(row, "inconclusive", f"in {metric.unit} in base and in {head.named.unit} in head")
    is_exact = all(m.is_count for _, m in (*base.known, *head.known))
    if is_exact and base.left_out != head.left_out:
        return settle(row, "inconclusive", f"counts that leave out different operators: {_left_out(base, head)}")
    noise = _noise(base, head, is_exact=is_exact) if rule is not None and rule.needs_noise else None
    if isinstance(noise, str):
        return settle(row, "inconclusive", noise)
    trainings = None
    if metric.is_share and not is_exact:
        trainings = trainings_of(base, head, [_samples(each, key) for each in terms.siblings])
        row = row if trainings is None else mean_row(row, trainings)
    values, basis = (tuple(base.values), tuple(head.values)), ""
    if share is None and not is_exact and metric.is_drifting:
        values, basis = _side_by_side(base, head)
        row = _row_of_runs(row, values) if basis else row
    limits = limits_of(metric, rule, base=row.base or 0.0, noise=noise)
    row = replace(row, limit=limits.text)
    if is_exact:
        return find_exact(row, limits, base.values, head.values)
    if trainings is not None:
        return find_trainings(row, limits, trainings, recipe=recipe_of(pair))
    if metric.is_share:
        return find_networks(row, limits, base.known[-1], head.known[-1])
    if share is not None:
        return find_turns(row, limits, base.beside(head), share=share, note=remark(base, head))
    sessions = sessions_of(base, head) if metric.is_drifting else None
    return find_runs(row, limits, *values, note=remark(base, head), sessions=sessions, basis=basis)


def _left_out(base: Sample, head: Sample) -> str:
    """What the counts of each side leave out, in words."""
    named = [", ".join(f"{name} ({plural(calls, 'call')})" for name, calls in side.left_out) for side in (base, head)]
    return f"{named[0] or 'none'} in base, {named[1] or 'none'} in head"


def _noise(base: Sample, head: Sample, *, is_exact: bool) -> Noise | str:
    """What base differs by from itself: nothing in what is exact, between sessions in what drifts; or why not known."""
    if is_exact:
        return Noise(share=0.0)
    if base.named is None or not base.named.is_drifting:
        return find_noise([base.values], runs=len(head.known), are_apart=False)
    apart = sessions_of(base, head)
    sessions = own_sessions(base) if apart is None else apart[0]
    return find_noise(sessions, runs=len(head.known), are_apart=apart is not None)


def _side_by_side(base: Sample, head: Sample) -> tuple[tuple[tuple[float, ...], tuple[float, ...]], str]:
    """Values of the runs to compare, and what is to be said of that: all, or those that share sessions if enough do."""
    shared = shared_values(base, head)
    if shared is None or tuple(map(len, shared)) == (len(base.values), len(head.values)):
        return (tuple(base.values), tuple(head.values)), ""
    return shared, f" over the {len(shared[0])} and {len(shared[1])} runs of sessions that hold both"


def _row_of_runs(row: Row, values: Sequence[Sequence[float]]) -> Row:
    """`row` with what is judged of it: the medians and the number of these runs."""
    old, new = map(median, values)
    runs = len(values[0]), len(values[1])
    return replace(row, base=old, head=new, ratio=new / old if old > 0 else None, runs=runs)


def _row(metric: Metric, base: Sample, head: Sample, *, pair: Pair, is_deciding: bool) -> Row:
    old, new = (median(side.values) if side.known else None for side in (base, head))
    return Row(
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
    )


def _unknown(row: Row, base: Sample, head: Sample, *, in_turns: bool) -> Finding:
    """A metric that one side or both do not know. What head has lost is a gap, and so is what base has only throttled
    runs of; what base never knew is none. Runs that are still to come, in turns, may not be throttled.
    """
    row = replace(row, is_open=in_turns and bool(base.throttled or head.throttled))
    if not base.known:
        reason = f"unknown in {'both' if not head.known else 'base'}{base.why_unknown}"
        is_lost = base.throttled > 0
        row = replace(row, is_missing=is_lost, is_deciding=row.is_deciding and is_lost)
        return settle(row, "inconclusive", reason)
    return settle(replace(row, is_missing=True), "inconclusive", f"known in base, unknown in head{head.why_unknown}")


def _judged(findings: Sequence[Finding], *, in_turns: bool) -> list[Row]:
    """Verdicts in the given order; those that decide are corrected for their number, and so are the others."""
    waiting = [finding for finding in findings if finding.change is not None]
    rows = {id(finding): finding.row for finding in findings}
    for is_deciding in (True, False):
        family = [finding for finding in waiting if finding.row.is_deciding == is_deciding]
        if not family:
            continue
        tests = {
            finding.family or str(id(finding)): finding.change.p for finding in family if finding.change is not None
        }
        if in_turns:
            rows |= {id(finding): decide_in_turns(finding, comparisons=len(tests)) for finding in family}
            continue
        from bench.comparison.evidence import holm

        adjusted = dict(zip(tests, holm(list(tests.values())), strict=True))
        for finding in family:
            p = adjusted[finding.family or str(id(finding))]
            rows[id(finding)] = decide(finding, p=p, comparisons=len(tests))
    return [rows[id(finding)] for finding in findings]


def _unlike(pairs: Sequence[Pair], differing: Collection[str], of_machine: Callable[[Pair], bool]) -> list[Unlike]:
    """Every differing fact once, whatever the number of cases it differs in; not those of a group that is meant to."""
    found = [
        field
        for pair in pairs
        for field in unlike_fields(pair.base.records, pair.head.records, of_machine=of_machine(pair))
    ]
    return [field for field in dict.fromkeys(found) if field.field.partition(".")[0] not in differing]


def _refusal(unlike: Sequence[Unlike]) -> str:
    lines = [f"  {field}" for field in unlike[:SHOWN]]
    if len(unlike) > SHOWN:
        lines.append(f"  and {len(unlike) - SHOWN} more")
    return "\n".join(
        ["base and head are unlike, so a difference says nothing of the code:", *lines]
        + ["measure both alike, or say --across to compare all the same and have each verdict marked"]
    )


def _notes(pairs: Sequence[Pair]) -> Iterator[str]:
    fields = [field for pair in pairs for field in noteworthy_fields(pair.base.records, pair.head.records)]
    for field in list(dict.fromkeys(fields))[:SHOWN]:
        yield f"not the same in all runs: {field}"
    if pairs and all(pair.base.records == pair.head.records for pair in pairs):
        yield "base and head are the very same runs: results that are compared with themselves show nothing"
    if any(_one_after_the_other(pair) for pair in pairs):
        yield (
            "base and head were measured one after the other: what changes between two sessions looks like a change of "
            "the code; measure both in turns with vbench ab, or in five sessions or more together"
        )


def _one_after_the_other(pair: Pair) -> bool:
    records = [*pair.base.records, *pair.head.records]
    if not all(depends_on_machine(record) for record in records):
        return False
    old, new = ([record.started_at for record in side.records] for side in (pair.base, pair.head))
    return (max(old) < min(new) or max(new) < min(old)) and _is_any_judged_by_runs(pair)


def _is_any_judged_by_runs(pair: Pair) -> bool:
    """Whether a figure that drifts is known on both sides, and not judged over sessions."""
    drifting = [metric for metric, _ in _metrics(pair) if metric.is_drifting]
    samples = [_samples(pair, metric.key) for metric in drifting]
    return any(old.known and new.known and not are_enough(sessions_of(old, new)) for old, new in samples)
