"""The settings of a suite: each of its models at every point of the matrix."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from bench.schema import Json
from bench.suite.axes import AXES, axis_of, product
from bench.suite.file import SuiteFile
from bench.suite.knowledge import Knowledge
from bench.yaml_tree import Place


@dataclass(frozen=True, kw_only=True)
class Setting:
    """Axes given to one model at one point of the matrix, with where the model stands in the file."""

    model: str
    args: dict[str, Json]
    axes: dict[str, Json]
    place: Place


def settings_of(file: SuiteFile, knowledge: Knowledge) -> list[Setting]:
    """All settings of `file`, model by model, each followed by what `include` adds, without what `exclude` drops."""
    matrix = {axis_of(axis): values for axis, values in file.matrix.items() if axis not in ("include", "exclude")}
    dropped = file.matrix.get("exclude", [])
    return [
        setting
        for number, entry in enumerate(file.models)
        for setting in _settings_of_model(entry, ("models", number), file=file, matrix=matrix, knowledge=knowledge)
        if not any(_fits(setting, rule) for rule in dropped)
    ]


def _settings_of_model(
    entry: str | dict[str, Any],
    place: Place,
    *,
    file: SuiteFile,
    matrix: Mapping[str, list[Any]],
    knowledge: Knowledge,
) -> Iterator[Setting]:
    given = {"name": entry} if isinstance(entry, str) else dict(entry)
    facts = knowledge.model(given["name"])
    own = {axis_of(k): v if isinstance(v, list) else [v] for k, v in given.items() if k != "name"}
    usable = {axis: values for axis, values in matrix.items() if axis in AXES or axis in facts.arguments}
    axes = {**usable, **own}
    added = [
        {**{axis: values[0] for axis, values in axes.items()}, **{k: v for k, v in extra.items() if k != "model"}}
        for extra in file.matrix.get("include", [])
        if extra.get("model", given["name"]) == given["name"]
    ]
    for chosen in (*product(axes), *added):
        yield _setting(given["name"], chosen, place, default_clip=facts.clip.model_dump())


def _setting(name: str, chosen: Mapping[str, Any], place: Place, *, default_clip: Json) -> Setting:
    axes = {axis_of(key): value for key, value in chosen.items() if axis_of(key) in AXES}
    args = {key: value for key, value in chosen.items() if axis_of(key) not in AXES}
    return Setting(model=name, args=args, axes={"clip": default_clip, **axes}, place=place)


def _fits(setting: Setting, rule: Mapping[str, Any]) -> bool:
    """Whether a rule of `exclude` names this setting; an empty one names none."""
    at = {"model": setting.model, **setting.args, **setting.axes}
    return bool(rule) and all(at.get(axis_of(axis)) == value for axis, value in rule.items())
