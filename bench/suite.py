"""A YAML file becomes a `Suite`, a `Suite` its cases. Pure: what it must know of models and measures is passed in."""

import itertools
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Protocol

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, field_validator, model_validator

from bench.complaints import near, plain_message, reason
from bench.errors import InputError, Problem, SuiteError, UnknownNameError, suggest
from bench.registry import DatasetEntry, MeasureEntry
from bench.schema import UNSPOKEN, Case, Clip, Json, ModelFacts, Point, Pretraining, Probe, names_a_file
from bench.threshold import parse_threshold
from bench.yaml_tree import Place, Tree, read_yaml

AXES = tuple(name for name in Point.model_fields if name not in ("model", "args"))
SPOKEN = {"seeds": "seed"}  # how people write an axis that lists several
PATHS = ("weights", "root")  # keys in which ${env:NAME} is replaced
ENV = re.compile(r"\$\{env:([A-Za-z_][A-Za-z0-9_]*)\}")


class Knowledge(Protocol):
    """What a plan must know of models, measures and data sets; nothing here imports torch."""

    @property
    def measures(self) -> Mapping[str, MeasureEntry]:
        """Every measure by name."""

    @property
    def datasets(self) -> Mapping[str, DatasetEntry]:
        """Every data set by name."""

    def model(self, name: str) -> ModelFacts:
        """Facts of a model, by variant or family; UnknownNameError with the nearest spelling."""

    def look_up(self, names: Sequence[str]) -> None:
        """Be told all models that `model` will be asked for, so that they can be looked at in one go."""

    def probe(self, points: Sequence[Point]) -> list[Probe]:
        """For each model, arguments and clip: what it costs, or why it cannot be."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class GateRule(_Strict):
    """How much a metric may get worse: `3%` of the base, `0.5pt` of a percentage, an amount (`200MiB`), or `noise`."""

    max_drop: str | None = None
    max_rise: str | None = None

    @field_validator("max_drop", "max_rise")
    @classmethod
    def _is_threshold(cls, text: str | None) -> str | None:
        try:
            return None if text is None else str(parse_threshold(text))
        except InputError as error:
            raise ValueError(str(error)) from None

    @model_validator(mode="after")
    def _says_something(self) -> "GateRule":
        if self.max_drop is None and self.max_rise is None:
            raise ValueError("says nothing; allowed: max_drop, max_rise or both")
        return self


class Ablation(_Strict):
    """Which factors are varied, and the levels that the others are compared with."""

    baseline: dict[str, Json]
    factors: list[str] = Field(min_length=1)


class SuiteFile(_Strict):
    """The keys of a suite file."""

    suite: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")]
    title: str = ""
    description: str = ""
    extends: list[str] = []
    plugins: list[str] = []
    models: Annotated[list[str | dict[str, Any]], Field(min_length=1)]
    matrix: dict[str, list[Any]] = {}
    measure: Annotated[dict[str, dict[str, Any] | None], Field(min_length=1)]
    ablate: Ablation | None = None
    repeat: int | None = Field(default=None, ge=1, le=1000)
    timeout_s: float = Field(default=3600, gt=0, allow_inf_nan=False)
    gate: dict[str, GateRule] = {}
    small: dict[str, Any] = {}


def write_json_schema(path: str | Path) -> None:
    """Write the JSON Schema of suite files, for completion and checks in editors."""
    schema = SuiteFile.model_json_schema()
    Path(path).write_text(json.dumps(schema, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


@dataclass(frozen=True, kw_only=True)
class Suite:
    """What is to be measured: cases in the order in which they are run, and how their results are to be read."""

    name: str
    title: str
    description: str
    path: Path
    text: str
    cases: tuple[Case, ...]
    ablate: Ablation | None
    gate: Mapping[str, GateRule]

    def facts(self) -> dict[str, Json]:
        """What reports and comparisons need of the suite, kept beside its records."""
        return {
            "name": self.name,
            "title": self.title,
            "description": self.description,
            "text": self.text,
            "ablate": self.ablate.model_dump() if self.ablate else None,
            "gate": {metric: rule.model_dump(exclude_none=True) for metric, rule in self.gate.items()},
        }


def read_suite(path: str | Path, *, small: bool = False) -> Tree:
    """The merged tree of a suite file and of all that it extends; `small` lays its `small:` block over it."""
    tree = _with_bases(Path(path), seen=())
    if small:
        block = tree.data.get("small") if isinstance(tree.data, dict) else None
        if not block:
            raise _one_problem(tree, (), "this suite has no `small:` block, so --small cannot be used with it")
        moved = {p[1:]: where for p, where in tree.positions.items() if p[:1] == ("small",) and len(p) > 1}
        tree = Tree(data=block, positions={(): tree.positions[()], **moved}, text=tree.text).over(tree)
    return tree


def plan_suite(tree: Tree, knowledge: Knowledge) -> Suite:
    """All cases of a suite; SuiteError with every problem of the file at once."""
    path = tree.positions[()].file
    file = _checked(tree)
    planner = _Planner(tree, file, knowledge)
    cases = planner.cases()
    if planner.problems:
        raise SuiteError(path, planner.problems)
    return Suite(
        name=file.suite,
        title=file.title or file.suite,
        description=file.description,
        path=Path(path),
        text=tree.text,
        cases=tuple(cases),
        ablate=file.ablate,
        gate=file.gate,
    )


def _with_bases(path: Path, *, seen: tuple[Path, ...]) -> Tree:
    tree = read_yaml(path)
    if not isinstance(tree.data, dict):
        raise _one_problem(tree, (), "a suite is a mapping with the keys suite, models, measure, …")
    bases = tree.data.get("extends") or []
    if path.resolve() in seen:
        raise _one_problem(tree, ("extends",), f"{path} extends itself")
    if not isinstance(bases, list) or not all(isinstance(base, str) for base in bases):
        raise _one_problem(tree, ("extends",), "extends is a list of files, such as [common/timing.yaml]")
    merged: Tree | None = None
    for number, base in enumerate(bases):
        if not (path.parent / base).is_file():
            raise _one_problem(tree, ("extends", number), f"{path.parent / base} is not a file")
        read = _with_bases(path.parent / base, seen=(*seen, path.resolve()))
        merged = read if merged is None else read.over(merged)
    return tree if merged is None else replace(tree.over(merged), text=tree.text)


def _one_problem(tree: Tree, place: Place, message: str) -> SuiteError:
    where = tree.position(place)
    return SuiteError(where.file, [Problem(line=where.line, column=where.column, message=message)])


def _checked(tree: Tree) -> SuiteFile:
    try:
        return SuiteFile.model_validate(tree.data)
    except ValidationError as error:
        problems = [_problem_of(tree, dict(item), SuiteFile) for item in error.errors()]
        raise SuiteError(tree.positions[()].file, _once(problems)) from None


def _problem_of(tree: Tree, item: dict[str, Any], model: type[BaseModel]) -> Problem:
    """One line for one pydantic error, at the place in the file that caused it."""
    place = tuple(part for part in item["loc"] if not (isinstance(part, str) and part in ("str", "dict[str,any]")))
    where = tree.position(place)
    key = place[-1] if place else ""
    if item["type"] == "extra_forbidden":
        known = _fields_at(model, place[:-1])
        return Problem(line=where.line, column=where.column, message=f"unknown key {key!r}; {suggest(str(key), known)}")
    if item["type"] == "missing":
        return Problem(line=where.line, column=where.column, message=f"the key {key!r} is missing")
    found = f", found {item['input']!r}" if not isinstance(item["input"], dict | list) else ""
    name = ".".join(str(part) for part in place)
    return Problem(line=where.line, column=where.column, message=f"{name}: {plain_message(item)}{found}{near(item)}")


def _fields_at(model: type[BaseModel], place: Place) -> list[str]:
    nested: dict[str, type[BaseModel]] = {"ablate": Ablation, "gate": GateRule}
    return list((nested.get(str(place[0]), model) if place else model).model_fields)


def _once(problems: Iterable[Problem]) -> list[Problem]:
    return list(dict.fromkeys(problems))


@dataclass(frozen=True, kw_only=True)
class _Setting:
    """Axes given to one model at one point of the matrix, with where the model stands in the file."""

    model: str
    args: dict[str, Json]
    axes: dict[str, Json]
    place: Place


class _Planner:
    """Turns a checked file into cases and collects every problem on the way."""

    def __init__(self, tree: Tree, file: SuiteFile, knowledge: Knowledge) -> None:
        self.tree, self.file, self.knowledge = tree, file, knowledge
        self.problems: list[Problem] = []

    def cases(self) -> list[Case]:
        self._check_names()
        settings = [s for s in self._settings() if not self._is_excluded(s)] if not self.problems else []
        grouped: dict[Point, dict[str, dict[str, Json]]] = {}
        for setting in settings:
            for measure in self.file.measure:
                for point, options in self._points(setting, measure):
                    grouped.setdefault(_frozen(point), {})[measure] = options
        points = [Point.model_validate_json(text) for text in grouped]  # type: ignore[arg-type]
        self._check_points(points, settings)
        return [self._case(point, measures) for point, measures in zip(points, grouped.values(), strict=True)]

    def _case(self, point: Point, measures: dict[str, dict[str, Json]]) -> Case:
        is_timed = any(self.knowledge.measures[name].is_timed for name in measures)
        repeat = self.file.repeat or (5 if self.file.gate else 1)
        return Case(
            suite=self.file.suite,
            point=point,
            measures=measures,
            runs=repeat if is_timed else 1,
            timeout_s=self.file.timeout_s,
            plugins=tuple(self.file.plugins),
        )

    # names -----------------------------------------------------------------------------------------------------------

    def _check_names(self) -> None:
        for name in self.file.measure:
            if name not in self.knowledge.measures:
                self._add(("measure", name), f"unknown measure {name!r}; {suggest(name, self.knowledge.measures)}")
        arguments: set[str] = set()
        self.knowledge.look_up([name for entry in self.file.models if isinstance(name := _model_name(entry), str)])
        for number, entry in enumerate(self.file.models):
            arguments |= self._check_model(number, entry)
        for axis in self.file.matrix:
            if _axis(axis) not in (*AXES, "include", "exclude", *arguments):
                self._add(("matrix", axis), f"unknown axis {axis!r}; {suggest(axis, {*AXES, *arguments})}")
        self._check_factors({*AXES, "model", *arguments})

    def _check_model(self, number: int, entry: str | dict[str, Any]) -> set[str]:
        place: Place = ("models", number)
        name = _model_name(entry)
        if not isinstance(name, str):
            self._add(place, "a model is a name, or a mapping with `name` and its arguments")
            return set()
        try:
            known = self.knowledge.model(name)
        except UnknownNameError as error:
            self._add((*place, "name"), str(error))
            return set()
        given = set() if isinstance(entry, str) else set(entry) - {"name"}
        allowed = {*known.arguments, *AXES}
        for argument in sorted(given - allowed - set(SPOKEN)):
            if known.arguments or ":" not in name:
                message = f"{name} takes no argument {argument!r}; {suggest(argument, allowed)}"
                self._add((*place, argument), message)
        return set(known.arguments) | (given if ":" in name else set())

    def _check_factors(self, known: set[str]) -> None:
        if self.file.ablate is None:
            return
        for number, factor in enumerate(self.file.ablate.factors):
            if factor not in known:
                self._add(("ablate", "factors", number), f"unknown factor {factor!r}; {suggest(factor, known)}")
            elif factor not in self.file.ablate.baseline:
                self._add(("ablate", "baseline"), f"the baseline does not say which level of {factor!r} it is")

    # axes ------------------------------------------------------------------------------------------------------------

    def _settings(self) -> Iterator[_Setting]:
        matrix = {_axis(k): v for k, v in self.file.matrix.items() if k not in ("include", "exclude")}
        for number, entry in enumerate(self.file.models):
            given = {"name": entry} if isinstance(entry, str) else dict(entry)
            name = given.pop("name")
            own = {_axis(key): value if isinstance(value, list) else [value] for key, value in given.items()}
            facts = self.knowledge.model(name)
            usable = {axis: v for axis, v in matrix.items() if axis in AXES or axis in facts.arguments}
            for chosen in _product({**usable, **own}):
                yield self._setting(name, chosen, ("models", number))
            for extra in self.file.matrix.get("include", []):
                if extra.get("model", name) == name:
                    first = {axis: values[0] for axis, values in {**usable, **own}.items()}
                    yield self._setting(name, {**first, **_without(extra, "model")}, ("models", number))

    def _setting(self, name: str, chosen: Mapping[str, Any], place: Place) -> _Setting:
        axes = {_axis(k): v for k, v in chosen.items() if _axis(k) in AXES}
        axes.setdefault("clip", self.knowledge.model(name).clip.model_dump())
        return _Setting(
            model=name, args={k: v for k, v in chosen.items() if _axis(k) not in AXES}, axes=axes, place=place
        )

    def _is_excluded(self, setting: _Setting) -> bool:
        at = {"model": setting.model, **setting.args, **setting.axes}
        return any(
            rule and all(at.get(_axis(axis)) == value for axis, value in rule.items())
            for rule in self.file.matrix.get("exclude", [])
        )

    # measures --------------------------------------------------------------------------------------------------------

    def _points(self, setting: _Setting, measure: str) -> Iterator[tuple[dict[str, Any], dict[str, Json]]]:
        """The points at which `measure` is taken for one setting, each with the measure's options."""
        entry = self.knowledge.measures[measure]
        options: dict[str, Json] = {}
        inner: dict[str, list[Any]] = {}
        for key, value in (self.file.measure[measure] or {}).items():
            if key in entry.options:
                options[key] = self._checked_option(measure, key, value)
            elif _axis(key) in entry.depends_on:
                inner[_axis(key)] = value if isinstance(value, list) else [value]
            else:
                allowed = {*entry.options, *(entry.depends_on - {"model", "args"})}
                self._add(("measure", measure, key), f"{measure} has no option {key!r}; {suggest(key, allowed)}")
        defaults = {k: v for k, v in UNSPOKEN.items() if k in entry.depends_on}
        needs_weights = "weights" in entry.depends_on
        args = {name: value for name, value in setting.args.items() if needs_weights or not names_a_file(name)}
        for chosen in _product(inner):
            axes = {k: v for k, v in {**defaults, **setting.axes, **chosen}.items() if k in entry.depends_on}
            checked = self._checked_axes(axes, setting, measure)
            if checked is not None:
                yield {"model": setting.model, "args": args, **checked}, options

    def _checked_option(self, measure: str, key: str, value: Any) -> Json:
        """`value` as the measure's signature types it; notes what is wrong with it."""
        wanted = self.knowledge.measures[measure].option_types.get(key, Any)
        try:
            wanted_type: TypeAdapter[Any] = TypeAdapter(wanted)
            checked = wanted_type.validate_python(_expanded(key, value))
        except (ValidationError, InputError) as error:
            self._add(("measure", measure, key), f"{key}: {reason(error, value)}")
            return None
        plain: Json = wanted_type.dump_python(checked, mode="json")
        return plain

    def _checked_axes(self, axes: dict[str, Any], setting: _Setting, measure: str) -> dict[str, Any] | None:
        """`axes` as a point holds them, or None after noting what is wrong with them."""
        if not self._knows_dataset("dataset", axes.get("dataset"), setting, measure):
            return None
        checked: dict[str, Any] = {}
        is_good = True
        for axis, value in axes.items():
            try:
                checked[axis] = _adapter(axis).validate_python(_expanded(axis, value))
            except (ValidationError, InputError) as error:
                is_good = False
                self._add(self._place_of(axis, setting, measure), f"{axis}: {reason(error, value)}")
        pretraining = Pretraining.of(checked.get("weights"))
        if pretraining is not None:
            is_good &= self._knows_dataset("weights", pretraining.dataset, setting, measure)
        return checked if is_good else None

    def _knows_dataset(self, axis: str, name: Any, setting: _Setting, measure: str) -> bool:
        """Whether `name`, None or a data set that `axis` names, is known; notes it where it is not."""
        if name is None or name in self.knowledge.datasets:
            return True
        place = self._place_of(axis, setting, measure)
        self._add(place, f"unknown data set {name!r}; {suggest(str(name), self.knowledge.datasets)}")
        return False

    def _place_of(self, axis: str, setting: _Setting, measure: str) -> Place:
        spoken = [axis, *(k for k, v in SPOKEN.items() if v == axis)]
        places: list[Place] = [(*top, key) for key in spoken for top in (("measure", measure), ("matrix",))]
        places += [(*setting.place, key) for key in spoken]
        return next((place for place in places if place in self.tree.positions), setting.place)

    def _check_points(self, points: Sequence[Point], settings: Sequence[_Setting]) -> None:
        """Ask once per model, arguments and clip whether that network can be built and takes that clip."""
        if self.problems:
            return
        unique = {_frozen(_network(point)): point for point in points}
        answers = self.knowledge.probe(list(unique.values()))
        place = {s.model: s.place for s in reversed(settings)}
        for point, answer in zip(unique.values(), answers, strict=True):
            if answer.problem:
                self._add(place.get(point.model, ("models",)), f"{point.model}: {answer.problem}")

    def _add(self, place: Place, message: str) -> None:
        where = self.tree.position(place)
        main = self.tree.positions[()].file
        text = message if where.file == main else f"{message} (in {where.file}:{where.line}:{where.column})"
        problem = Problem(line=where.line, column=where.column, message=text)
        if problem not in self.problems:
            self.problems.append(problem)


def _model_name(entry: str | dict[str, Any]) -> Any:
    return entry if isinstance(entry, str) else entry.get("name")


def _axis(key: str) -> str:
    return SPOKEN.get(key, key)


def _product(axes: Mapping[str, Sequence[Any]]) -> Iterator[dict[str, Any]]:
    for values in itertools.product(*axes.values()):
        yield dict(zip(axes, values, strict=True))


def _without(mapping: Mapping[str, Any], key: str) -> dict[str, Any]:
    return {k: v for k, v in mapping.items() if k != key}


def _frozen(point: Mapping[str, Any]) -> Any:
    return Point.model_validate(point).model_dump_json(exclude_none=True)


def _network(point: Point) -> dict[str, Any]:
    return {"model": point.model, "args": point.args, "clip": point.clip}


def _adapter(axis: str) -> TypeAdapter[Any]:
    if axis not in _ADAPTERS:
        if axis == "clip":
            _ADAPTERS[axis] = TypeAdapter(Clip)
        else:
            field = Point.model_fields[axis]
            annotated: Any = Annotated[field.annotation, field]
            _ADAPTERS[axis] = TypeAdapter(annotated)
    return _ADAPTERS[axis]


_ADAPTERS: dict[str, TypeAdapter[Any]] = {}


def _expanded(key: str, value: Any) -> Any:
    """`value` with ${env:NAME} replaced, where `key` is a path; InputError elsewhere, or if it is not set."""
    if not isinstance(value, str) or not ENV.search(value):
        return value
    if key not in PATHS:
        raise InputError(f"${{env:…}} is allowed in paths only ({', '.join(PATHS)})")
    for name in ENV.findall(value):
        if name not in os.environ:
            raise InputError(f"the environment variable {name} is not set")
    return ENV.sub(lambda match: os.environ[match[1]], value)
