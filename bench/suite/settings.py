"""The settings of a suite: each of its models at every point of the matrix, and at those that `include` adds."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from bench.core.schema import Json, ModelInfo
from bench.core.yaml_tree import Place
from bench.suite.axes import AXES, axis_of, product
from bench.suite.file import SuiteFile
from bench.suite.knowledge import PlanningCatalog
from bench.suite.rules import RULES, takes


@dataclass(frozen=True, kw_only=True)
class Setting:
    """Axes given to one model at one point of the matrix, with where the model stands in the file, and each axis."""

    model: str
    args: dict[str, Json]
    axes: dict[str, Json]
    place: Place
    places: Mapping[str, Place]


def settings_of(file: SuiteFile, knowledge: PlanningCatalog) -> list[Setting]:
    """All settings of `file`, model by model, each followed by what `include` adds."""
    return [
        setting
        for number, entry in enumerate(file.models)
        for setting in _settings_of_model(entry, ("models", number), file=file, knowledge=knowledge)
    ]


def _settings_of_model(
    entry: str | dict[str, Any], place: Place, *, file: SuiteFile, knowledge: PlanningCatalog
) -> Iterator[Setting]:
    given = {"name": entry} if isinstance(entry, str) else dict(entry)
    name = given.pop("name")
    facts = knowledge.model(name)
    usable = {key: v for key, v in file.matrix.items() if axis_of(key) in AXES or key in facts.arguments}
    axes = {axis_of(key): values for key, values in usable.items() if key not in RULES}
    axes |= {axis_of(key): value if isinstance(value, list) else [value] for key, value in given.items()}
    places = {axis_of(key): ("matrix", key) for key in usable} | {axis_of(key): (*place, key) for key in given}
    for chosen in product(axes):
        yield _setting(name, chosen, place, places=places, facts=facts)
    first = {axis: values[0] for axis, values in axes.items()}
    for number, rule in enumerate(file.matrix.get("include", [])):
        added = {axis_of(key): value for key, value in rule.items() if key != "model"}
        if rule.get("model", name) == name and all(takes(facts, key) for key in added):
            of_rule = {axis_of(key): ("matrix", "include", number, key) for key in rule}
            yield _setting(name, {**first, **added}, place, places={**places, **of_rule}, facts=facts)


def _setting(
    name: str, chosen: Mapping[str, Any], place: Place, *, places: Mapping[str, Place], facts: ModelInfo
) -> Setting:
    axes = {axis: value for axis, value in chosen.items() if axis in AXES}
    args = {key: value for key, value in chosen.items() if key not in AXES}
    return Setting(model=name, args=args, axes={"clip": facts.clip.model_dump(), **axes}, place=place, places=places)
