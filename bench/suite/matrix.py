"""The matrix of a suite: every model at every point, what `include` adds, and the rules of `include` and `exclude`."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Protocol

from pydantic import ValidationError

from bench.core.errors import InputError, suggest
from bench.core.input_protocol import InputProtocol
from bench.core.model_name import is_registered_name
from bench.core.registry import DatasetEntry, MeasureEntry
from bench.core.schema import Clip, Json, ModelCheck, ModelInfo, Point, Pretraining
from bench.core.validation import describe_error
from bench.core.yaml_tree import Place
from bench.suite.axes import AXES, axis_of, product, read_axis
from bench.suite.file import SuiteFile

RULES = ("include", "exclude")
MOST_POINTS = 200_000  # ten axes of ten values span ten billion, which no memory holds


class PlanningCatalog(Protocol):
    """What a plan must know of models, measures and data sets. It is passed in, so that planning needs no torch."""

    @property
    def measures(self) -> Mapping[str, MeasureEntry]:
        """Every measure by name."""

    @property
    def datasets(self) -> Mapping[str, DatasetEntry]:
        """Every data set by name."""

    def model(self, name: str) -> ModelInfo:
        """Facts of a model, by variant or family; UnknownNameError with the nearest spelling."""

    def look_up(self, names: Sequence[str]) -> None:
        """Fetch the facts of all models that `model` will be asked for at once."""

    def weights_protocol(self, weights: str, entry: str | None) -> InputProtocol:
        """The clips of a file of weights; empty if they are unknown or it cannot be read."""

    def check_models(self, points: Sequence[Point]) -> list[ModelCheck]:
        """For each model, arguments and clip: what it costs, or why it cannot be built."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """The axes of one model at one point of the matrix, with the places in the file of the model and of each axis."""

    model: str
    args: dict[str, Json]
    axes: dict[str, Json]
    place: Place
    places: Mapping[str, Place]


def settings_of(file: SuiteFile, catalog: PlanningCatalog) -> list[Setting]:
    """All settings of `file`, model by model, each followed by what `include` adds; at most MOST_POINTS + 1."""
    found = (
        setting
        for number, entry in enumerate(file.models)
        for setting in _settings_of_model(entry, ("models", number), file=file, catalog=catalog)
    )
    return list(islice(found, MOST_POINTS + 1))


def _settings_of_model(
    entry: str | dict[str, Any], place: Place, *, file: SuiteFile, catalog: PlanningCatalog
) -> Iterator[Setting]:
    given = {"name": entry} if isinstance(entry, str) else dict(entry)
    name = given.pop("name")
    facts = catalog.model(name)
    usable = {key: v for key, v in file.matrix.items() if axis_of(key) in AXES or key in facts.arguments}
    axes = {axis_of(key): values for key, values in usable.items() if key not in RULES}
    axes |= {axis_of(key): value if isinstance(value, list) else [value] for key, value in given.items()}
    places = {axis_of(key): ("matrix", key) for key in usable} | {axis_of(key): (*place, key) for key in given}
    for chosen in product(axes):
        yield _setting(name, chosen, place, places=places, facts=facts, catalog=catalog)
    first = {axis: values[0] for axis, values in axes.items()}
    for number, rule in enumerate(file.matrix.get("include", [])):
        added = {axis_of(key): value for key, value in rule.items() if key != "model"}
        if rule.get("model", name) == name and all(takes_key(facts, key) for key in added):
            of_rule = {axis_of(key): ("matrix", "include", number, key) for key in rule}
            yield _setting(name, {**first, **added}, place, places={**places, **of_rule}, facts=facts, catalog=catalog)


def _setting(
    name: str,
    chosen: Mapping[str, Any],
    place: Place,
    *,
    places: Mapping[str, Place],
    facts: ModelInfo,
    catalog: PlanningCatalog,
) -> Setting:
    axes = {axis: value for axis, value in chosen.items() if axis in AXES}
    args = {key: value for key, value in chosen.items() if key not in AXES}
    clip = facts.clip if "clip" in axes else _default_clip(axes, facts, catalog)
    return Setting(model=name, args=args, axes={"clip": clip.model_dump(), **axes}, place=place, places=places)


def _default_clip(axes: Mapping[str, Any], facts: ModelInfo, catalog: PlanningCatalog) -> Clip:
    """The clip of a model if the suite gives none: that of the given protocol, of its weights, or its own."""
    try:
        given = read_axis("preprocess", axes["preprocess"]) if axes.get("preprocess") is not None else {}
        known = InputProtocol.of(given, mark="given")
        weights = None if axes.get("weights") is None else read_axis("weights", axes["weights"])
        if weights is not None and Pretraining.of(weights) is None:
            known = known.over(catalog.weights_protocol(weights, axes.get("entry")))
    except (ValidationError, InputError):  # reported later, with its place
        return facts.clip
    return known.clip_over(facts.clip)


@dataclass(frozen=True, kw_only=True)
class Exclusion:
    """One rule of `exclude`: a point is left out if it has all of these values."""

    place: Place
    values: Mapping[str, Any]

    def fits(self, at: Mapping[str, Any]) -> bool:
        """Whether the point with these values, given or default, is left out."""
        return all(axis in at and _normalised(axis, at[axis]) == value for axis, value in self.values.items())


def exclusions_of(file: SuiteFile) -> list[Exclusion]:
    """The rules of `exclude`; `problems_of_rules` must have found nothing wrong with them."""
    return [
        Exclusion(
            place=("matrix", "exclude", number),
            values={axis_of(key): _normalised(axis_of(key), value) for key, value in rule.items()},
        )
        for number, rule in enumerate(file.matrix.get("exclude", []))
    ]


def problems_of_rules(
    file: SuiteFile, models: Mapping[str, ModelInfo], *, is_overlaid: bool
) -> Iterator[tuple[Place, str]]:
    """Yield what is wrong with each rule and where; `models` are those of the suite.

    If another file overrides the one with the exclusions, they may name models and axes that it has dropped.
    """
    for kind in RULES:
        for number, rule in enumerate(file.matrix.get(kind, [])):
            place: Place = ("matrix", kind, number)
            if not isinstance(rule, dict) or not rule:
                yield place, f"{kind} is a list of mappings, such as [{{precision: bf16}}], found {rule!r}"
            else:
                found = [] if is_overlaid and kind == "exclude" else _unknown_names(rule, models)
                for key, message in (*found, *_wrong_values(rule)):
                    yield (*place, key), message


def takes_key(facts: ModelInfo, key: str) -> bool:
    """Whether a model has this axis or argument; a factory without known arguments may take any."""
    may_take_any = not is_registered_name(facts.name) and not facts.arguments
    return axis_of(key) in AXES or key in facts.arguments or may_take_any


def _wrong_values(rule: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Axes of the rule with a value that they cannot have in any suite."""
    for key, value in rule.items():
        if axis_of(key) in AXES:
            try:
                read_axis(axis_of(key), value)
            except (ValidationError, InputError) as error:
                yield key, f"{key}: {describe_error(error, value)}"


def _unknown_names(rule: Mapping[str, Any], models: Mapping[str, ModelInfo]) -> Iterator[tuple[str, str]]:
    """Models, axes and arguments of the rule that nothing in this suite has."""
    name = rule.get("model")
    if "model" in rule and not (isinstance(name, str) and name in models):
        yield "model", f"{name!r} is not a model of this suite; {suggest(str(name), models)}"
        return
    meant = [models[name]] if isinstance(name, str) else list(models.values())
    keys = [key for key in rule if key != "model"]
    for key in keys:
        if not any(takes_key(facts, key) for facts in meant):
            known = {*AXES, "model"}.union(*(facts.arguments for facts in meant))
            yield key, f"unknown axis {key!r}; {suggest(key, known)}"
    if all(any(takes_key(facts, key) for facts in meant) for key in keys) and not any(
        all(takes_key(facts, key) for key in keys) for facts in meant
    ):
        yield keys[0], f"no model of this suite takes all of {', '.join(keys)}"


def _normalised(axis: str, value: Any) -> Any:
    """`value` as a point stores it; unchanged if the axis cannot have it, which is reported elsewhere."""
    if axis not in AXES:
        return value
    try:
        return read_axis(axis, value)
    except (ValidationError, InputError):
        return value
