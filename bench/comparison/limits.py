"""How much each metric may change before the gate calls it: rules of a suite or of the command line, else 3 %."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Any, Protocol

from bench.core.errors import InputError
from bench.core.schema import Metric
from bench.core.threshold import Threshold, parse_threshold

# A sampled metric without a rule: half of what the gate promises to find, rounded up to what suites commonly allow.
DEFAULT = Threshold(amount=3, unit="%")
EXACTLY = Threshold(amount=0)


class RuleLike(Protocol):
    """A rule as a suite states it."""

    @property
    def max_drop(self) -> str | None: ...

    @property
    def max_rise(self) -> str | None: ...


GateValue = str | float | RuleLike | Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Rule:
    """How much a metric may rise and drop; `worse` is for whichever of the two its better direction makes it."""

    rise: Threshold | None = None
    drop: Threshold | None = None
    worse: Threshold | None = None

    @property
    def needs_noise(self) -> bool:
        """Whether the limits depend on the noise of base's own runs."""
        return any(each is not None and each.is_noise for each in (self.rise, self.drop, self.worse))


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What is called a change of one metric, and which direction is worse (None where nothing says so).

    `rise` and `drop` are amounts in the metric's unit. `guards_*` says whether "same" must rule that side out.
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
    """The share by which base differs from itself, and `over` which of its sessions, where that matters."""

    share: float
    over: str = ""

    def __str__(self) -> str:
        return f"{self.share:.1%}" + (f", {self.over}" if self.over else "")


def read_rules(gate: Mapping[str, GateValue]) -> dict[str, Rule]:
    """Rules by metric name or pattern; InputError where a threshold cannot be read."""
    return {name: _rule(name, value) for name, value in gate.items()}


def refuse_noise(rules: Mapping[str, Rule]) -> None:
    """InputError where a limit is `noise` though runs are taken in turns: pairs are free of what base's runs have."""
    for name, rule in rules.items():
        if rule.needs_noise:
            raise InputError(
                f"gate of {name}: noise is no limit for runs in turns, whose pairs lack the noise that base's own runs "
                f"have; give an amount, such as --gate {name}=3%"
            )


def rule_for(metric: Metric, rules: Mapping[str, Rule]) -> tuple[str, Rule] | None:
    """The rule of a metric: by its key with labels, then by its name, then by the first pattern that fits.

    A pattern passes over metrics to which its limit cannot apply; a rule that names one must apply.
    """
    fitting = rules_for(metric, rules)
    first = next((name for name in (metric.key, metric.name) if name in fitting), None) or next(iter(fitting), None)
    return None if first is None else (first, rules[first])


def rules_for(metric: Metric, rules: Mapping[str, Rule]) -> list[str]:
    """Every rule that is about a metric, also where a more precise one is the one that counts."""
    own = (metric.key, metric.name)
    return [name for name, r in rules.items() if name in own or (_is_of(metric, name) and _applies(r, metric))]


def _is_of(metric: Metric, pattern: str) -> bool:
    return fnmatchcase(metric.name, pattern) or fnmatchcase(metric.key, pattern)


def _applies(rule: Rule, metric: Metric) -> bool:
    """Whether the metric says which direction is worse, where the rule does not, and has a unit that the limits fit."""
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
    """Limits of `metric` in its own unit, for a base value and, where a limit is a multiple of it, base's `noise`."""
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
            raise InputError("says nothing; allowed: a threshold such as 3%, or max_drop and max_rise")
        return Rule(rise=rise, drop=drop)
    except InputError as error:
        raise InputError(f"gate of {name}: {error}") from None


def _stated(value: Any) -> Mapping[str, Any]:
    if not (hasattr(value, "max_drop") and hasattr(value, "max_rise")):
        raise InputError(f"{value!r} is no limit; allowed: a threshold such as 3%, or max_drop and max_rise")
    return {"max_drop": value.max_drop, "max_rise": value.max_rise}


def _threshold(text: Any) -> Threshold | None:
    return None if text is None else parse_threshold(str(text))


def _default(metric: Metric) -> Rule:
    return Rule(worse=EXACTLY if metric.is_count else DEFAULT)


def _limits(metric: Metric, rule: Rule, *, base: float, noise: float | None, is_ruled: bool) -> Limits:
    if rule.worse is not None:
        amount = rule.worse.in_unit(metric.unit, base=base, noise=noise)
        if is_ruled and metric.better is None:
            raise InputError("the metric does not say which direction is better; use max_rise or max_drop in a suite")
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
