"""How much each metric may change before the gate reports it: rules of a suite or the command line, else 3 %."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Any, Protocol

from bench.core.errors import InputError
from bench.core.schema import Metric
from bench.core.threshold import Threshold, parse_threshold

# Of a sampled metric without a rule: half of the 5 % that the gate promises to find, rounded up to a common limit.
DEFAULT = Threshold(amount=3, unit="%")
EXACTLY = Threshold(amount=0)


class RuleLike(Protocol):
    """A rule as a suite writes it."""

    @property
    def max_drop(self) -> str | None: ...

    @property
    def max_rise(self) -> str | None: ...


GateValue = str | float | RuleLike | Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Rule:
    """How much a metric may rise and drop; `worse` limits the direction that is worse for the metric."""

    rise: Threshold | None = None
    drop: Threshold | None = None
    worse: Threshold | None = None

    @property
    def needs_noise(self) -> bool:
        """Whether a limit is a multiple of the noise of base's own runs."""
        return any(each is not None and each.is_noise for each in (self.rise, self.drop, self.worse))


@dataclass(frozen=True, kw_only=True)
class Limits:
    """The allowed change of one metric, and which direction is worse, if either is.

    `rise` and `drop` are amounts in the metric's unit. `guards_*` is whether "same" must exclude a change to that side.
    """

    rise: float
    drop: float
    rise_is_worse: bool
    drop_is_worse: bool
    guards_rise: bool
    guards_drop: bool
    text: str

    @property
    def knows_worse(self) -> bool:
        return self.rise_is_worse or self.drop_is_worse


@dataclass(frozen=True, kw_only=True)
class Noise:
    """The share by which base differs from itself, and `over` which of its sessions, if that matters."""

    share: float
    over: str = ""

    def __str__(self) -> str:
        return f"{self.share:.1%}" + (f", {self.over}" if self.over else "")


def read_rules(gate: Mapping[str, GateValue]) -> dict[str, Rule]:
    """Return rules by metric name or pattern; raises InputError for a threshold that cannot be read."""
    return {name: _rule(name, value) for name, value in gate.items()}


def refuse_noise(rules: Mapping[str, Rule]) -> None:
    """Raise InputError for a limit of `noise` in an A/B measurement: pairs do not have the noise of base's runs."""
    for name, rule in rules.items():
        if rule.needs_noise:
            raise InputError(
                f"gate of {name}: runs in turns cannot have a limit of noise, because pairs do not have the noise of "
                f"base's own runs; give an amount, such as --gate {name}=3%"
            )


def rule_for(metric: Metric, rules: Mapping[str, Rule]) -> tuple[str, Rule] | None:
    """Return the rule of a metric: by its key with labels, then by its name, then by the first pattern that matches.

    A pattern ignores metrics that its limit does not fit; a rule that names such a metric is an error of its limit.
    """
    fitting = matching_rules(metric, rules)
    first = next((name for name in (metric.key, metric.name) if name in fitting), None) or next(iter(fitting), None)
    return None if first is None else (first, rules[first])


def matching_rules(metric: Metric, rules: Mapping[str, Rule]) -> list[str]:
    """Return the names of all rules that match a metric, not only of the one that counts."""
    own = (metric.key, metric.name)
    return [name for name, r in rules.items() if name in own or (_is_of(metric, name) and _applies(r, metric))]


def _is_of(metric: Metric, pattern: str) -> bool:
    return fnmatchcase(metric.name, pattern) or fnmatchcase(metric.key, pattern)


def _applies(rule: Rule, metric: Metric) -> bool:
    """Whether the limits fit the metric's unit and, if the rule needs one, the metric has a better direction."""
    if rule.worse is not None and metric.better is None:
        return False
    try:
        for limit in (rule.worse, rule.rise, rule.drop):
            if limit is not None:
                limit.in_unit(metric.unit, base=1.0, noise=1.0)
    except InputError:
        return False
    return True


def limits_of(metric: Metric, rule: Rule | None, *, base: float, noise: Noise | None = None) -> Limits:
    """Return the limits of `metric` in its unit for a base value, and for base's `noise` if a limit refers to it."""
    share = None if noise is None else noise.share
    try:
        found = _limits(metric, rule or _default(metric), base=base, noise=share, is_ruled=rule is not None)
        return replace(found, text=f"{found.text} ({noise})") if rule and rule.needs_noise else found
    except InputError as error:
        raise InputError(f"gate of {metric.key}: {error}") from None


def _rule(name: str, value: GateValue) -> Rule:
    try:
        if isinstance(value, str | int | float):
            return Rule(worse=_threshold(value))
        given = value if isinstance(value, Mapping) else _stated(value)
        unknown = sorted(set(given) - {"max_drop", "max_rise"})
        if unknown:
            raise InputError(f"unknown key {unknown[0]!r}; allowed: max_drop, max_rise")
        rise, drop = (_threshold(given.get(key)) for key in ("max_rise", "max_drop"))
        if rise is None and drop is None:
            raise InputError("no limit is given; allowed: a threshold such as 3%, or max_drop and max_rise")
        return Rule(rise=rise, drop=drop)
    except InputError as error:
        raise InputError(f"gate of {name}: {error}") from None


def _stated(value: Any) -> Mapping[str, Any]:
    if not (hasattr(value, "max_drop") and hasattr(value, "max_rise")):
        raise InputError(f"{value!r} is not a limit; allowed: a threshold such as 3%, or max_drop and max_rise")
    return {"max_drop": value.max_drop, "max_rise": value.max_rise}


def _threshold(text: Any) -> Threshold | None:
    return None if text is None else parse_threshold(str(text))


def _default(metric: Metric) -> Rule:
    return Rule(worse=EXACTLY if metric.is_count else DEFAULT)


def _limits(metric: Metric, rule: Rule, *, base: float, noise: float | None, is_ruled: bool) -> Limits:
    if rule.worse is not None:
        amount = rule.worse.in_unit(metric.unit, base=base, noise=noise)
        if is_ruled and metric.better is None:
            raise InputError("the metric states no better direction; use max_rise or max_drop in a suite")
        is_lower_better, is_higher_better = metric.better == "lower", metric.better == "higher"
        return Limits(
            rise=amount,
            drop=amount,
            rise_is_worse=is_lower_better,
            drop_is_worse=is_higher_better,
            guards_rise=is_lower_better or not is_ruled,
            guards_drop=is_higher_better or not is_ruled,
            text=f"{rule.worse}",
        )
    rise, drop = (
        None if each is None else each.in_unit(metric.unit, base=base, noise=noise) for each in (rule.rise, rule.drop)
    )
    either = rise if rise is not None else drop
    assert either is not None
    return Limits(
        rise=either if rise is None else rise,
        drop=either if drop is None else drop,
        rise_is_worse=rise is not None,
        drop_is_worse=drop is not None,
        guards_rise=rise is not None,
        guards_drop=drop is not None,
        text=", ".join(f"{name} {t}" for name, t in (("rise", rule.rise), ("drop", rule.drop)) if t is not None),
    )
