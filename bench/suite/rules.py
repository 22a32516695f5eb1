"""The rules of a matrix, `include` and `exclude`: each is held against the suite before it is followed."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from bench.core.errors import InputError, suggest
from bench.core.schema import ModelInfo
from bench.core.validation import describe_error
from bench.core.yaml_tree import Place
from bench.suite.axes import AXES, axis_of, read_axis
from bench.suite.file import SuiteFile

RULES = ("include", "exclude")


@dataclass(frozen=True, kw_only=True)
class Exclusion:
    """One rule of `exclude`: values that a point must have, all of them, to be left out."""

    place: Place
    wanted: Mapping[str, Any]

    def fits(self, at: Mapping[str, Any]) -> bool:
        """Whether the point with these values, as the file or a default gives them, is left out."""
        return all(axis in at and _as_held(axis, at[axis]) == value for axis, value in self.wanted.items())


def exclusions_of(file: SuiteFile) -> list[Exclusion]:
    """The rules of `exclude`, which `problems_of_rules` found nothing wrong with."""
    return [
        Exclusion(
            place=("matrix", "exclude", number),
            wanted={axis_of(key): _as_held(axis_of(key), value) for key, value in rule.items()},
        )
        for number, rule in enumerate(file.matrix.get("exclude", []))
    ]


def problems_of_rules(
    file: SuiteFile, models: Mapping[str, ModelInfo], *, is_overlaid: bool
) -> Iterator[tuple[Place, str]]:
    """What is wrong with each rule, and where; `models` are those of the suite.

    Where another file was laid over that of the exclusions, they may speak of models and axes that it has put aside.
    """
    for kind in RULES:
        for number, rule in enumerate(file.matrix.get(kind, [])):
            place: Place = ("matrix", kind, number)
            if not isinstance(rule, dict) or not rule:
                yield place, f"{kind} is a list of mappings, such as [{{precision: bf16}}], found {rule!r}"
            else:
                found = [] if is_overlaid and kind == "exclude" else _misfits_of_rule(rule, models)
                for key, message in (*found, *_wrong_values(rule)):
                    yield (*place, key), message


def takes(facts: ModelInfo, key: str) -> bool:
    """Whether `key` can be said of this model: an axis, or an argument of it."""
    return axis_of(key) in AXES or key in facts.arguments or (":" in facts.name and not facts.arguments)


def _wrong_values(rule: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Axes of the rule with a value that they cannot have in any suite."""
    for key, value in rule.items():
        if axis_of(key) in AXES:
            try:
                read_axis(axis_of(key), value)
            except (ValidationError, InputError) as error:
                yield key, f"{key}: {describe_error(error, value)}"


def _misfits_of_rule(rule: Mapping[str, Any], models: Mapping[str, ModelInfo]) -> Iterator[tuple[str, str]]:
    """What the rule names that nothing in this suite has."""
    name = rule.get("model")
    if "model" in rule and not (isinstance(name, str) and name in models):
        yield "model", f"{name!r} is no model of this suite; {suggest(str(name), models)}"
        return
    meant = [models[name]] if isinstance(name, str) else list(models.values())
    keys = [key for key in rule if key != "model"]
    for key in keys:
        if not any(takes(facts, key) for facts in meant):
            known = {*AXES, "model"}.union(*(facts.arguments for facts in meant))
            yield key, f"unknown axis {key!r}; {suggest(key, known)}"
    if all(any(takes(facts, key) for facts in meant) for key in keys) and not any(
        all(takes(facts, key) for key in keys) for facts in meant
    ):
        yield keys[0], f"no model of this suite takes all of {', '.join(keys)}"


def _as_held(axis: str, value: Any) -> Any:
    """`value` as a point holds it; as it stands where the axis cannot have it, which is told elsewhere."""
    if axis not in AXES:
        return value
    try:
        return read_axis(axis, value)
    except (ValidationError, InputError):
        return value
