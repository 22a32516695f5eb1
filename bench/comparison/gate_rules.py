"""The gate rules of each compared suite, and which metrics they make decide the exit code."""

from collections.abc import Collection, Iterator, Mapping, Sequence

from bench.comparison.allowed_changes import GateValue, Rule, matching_rules, read_rules, refuse_noise, rule_for
from bench.comparison.pairing import CasePair
from bench.comparison.runs import SideRuns
from bench.core.errors import nearest
from bench.core.schema import Metric


class GateRules:
    """The rules of each suite; those given for this comparison take precedence.

    If the cases of a suite in base match a suite of another name in head, the suite was renamed: the gate of the new
    name counts, and the old one only if the new one has no gate.
    """

    def __init__(
        self, base: SideRuns, head: SideRuns, given: Mapping[str, Rule], pairs: Sequence[CasePair] = ()
    ) -> None:
        self._given = dict(given)
        names = [(pair.base.case.suite, pair.head.case.suite) for pair in pairs]
        in_head = {suite for suite, _ in head.cases}
        renamed = {old for old, _ in names if old not in in_head}
        former: dict[str, Mapping[str, GateValue]] = {}
        for old, new in names:
            if old in renamed:
                former[new] = {**former.get(new, {}), **base.gates.get(old, {})}
        suites = {suite: None for side in (base, head) for suite, _ in side.cases if suite not in renamed}
        gates = {suite: head.gates.get(suite) or base.gates.get(suite) or former.get(suite, {}) for suite in suites}
        self._of_suite = {suite: {**read_rules(gate), **given} for suite, gate in gates.items()}
        self._measured: set[tuple[str, str]] = set()
        self._metrics = {name for pair in pairs for metric, _ in metrics_of(pair) for name in (metric.key, metric.name)}
        self.are_any = any(self._of_suite.values())

    def refuse_noise(self) -> None:
        """Raise InputError for a limit of `noise`, which an A/B measurement cannot estimate."""
        for rules in self._of_suite.values():
            refuse_noise(rules)

    def of(self, suite: str, metric: Metric) -> Rule | None:
        found = rule_for(metric, self._given) or rule_for(metric, self._of_suite[suite])
        return None if found is None else found[1]

    def are_deciding(self, suite: str, metric: Metric, *, is_view: bool) -> bool:
        """Whether `metric` makes the exit code: if it has a rule, or, if there are no rules, if it has a direction."""
        return self.of(suite, metric) is not None if self.are_any else metric.better is not None and not is_view

    def note_measured(self, suite: str, metric: Metric) -> None:
        """Remember that head has measured what the rules of `metric` ask for, less precise rules included."""
        self._measured |= {(suite, name) for name in matching_rules(metric, self._of_suite[suite])}

    def unmeasured(self) -> Iterator[str]:
        """Yield a line for each rule that matches no metric: given rules in any suite, others in their own."""
        measured = {name for _, name in self._measured}
        for name in self._given:
            if name not in measured:
                yield _no_such_metric(name, "no compared case", self._metrics)
        for suite, rules in self._of_suite.items():
            for name in rules:
                if name not in self._given and (suite, name) not in self._measured:
                    yield _no_such_metric(name, f"no compared case of suite {suite}", self._metrics)


def metrics_of(pair: CasePair) -> list[tuple[Metric, bool]]:
    """Return every metric of either side, and whether it is a further view on the samples of another metric."""
    metrics = [metric for case in (pair.base, pair.head) for record in case.records for metric in record.metrics]
    sampled = {metric.name.partition(".")[0] for metric in metrics if _has_spread(metric)}
    return [
        (metric, metric.name.partition(".")[0] in sampled and not (_has_spread(metric) or metric.is_count))
        for metric in {metric.key: metric for metric in metrics}.values()
    ]


def decides_by_machine(pair: CasePair, rules: GateRules) -> bool:
    """Whether a machine-dependent metric makes the exit code, so that the machines must be compatible."""
    records = [*pair.base.records, *pair.head.records]
    known = {m.key for record in records for m in record.metrics if m.is_of_machine and m.value is not None}
    suite = pair.head.case.suite
    return any(
        metric.key in known and rules.are_deciding(suite, metric, is_view=is_view)
        for metric, is_view in metrics_of(pair)
    )


def _has_spread(metric: Metric) -> bool:
    return bool(metric.samples) or metric.interval is not None


def _no_such_metric(rule: str, cases: str, metrics: Collection[str]) -> str:
    hint = "" if rule in metrics else nearest(rule, metrics)
    return f"{rule}: {cases} has such a metric" + (f"; {hint}" if hint else "")
