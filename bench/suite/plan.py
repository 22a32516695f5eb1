"""Turns a suite file into a `Suite` with its cases. Pure: the catalog of models and measures is passed in."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from bench.core.errors import InputError, Problem, SuiteError, suggest
from bench.core.files import path_hint
from bench.core.model_name import is_registered_name
from bench.core.rank_layout import RankLayout
from bench.core.recipe_choice import RecipeChoice
from bench.core.registry import metric_problem
from bench.core.schema import DEFAULT_AXES, Case, Json, ModelInfo, Point, Pretraining, is_weights_argument
from bench.core.validation import describe_error
from bench.core.yaml_tree import Place, Tree, plain_values, yaml_text
from bench.data.collection import COMMON_OPTIONS, checked_options
from bench.data.split_names import evaluated_split
from bench.suite.axes import AXES, AXIS_ALIASES, axis_of, expanded, product, read_axis, spellings
from bench.suite.file import Ablation, GateRule, SuiteFile, check_suite_in_part
from bench.suite.matrix import (
    MOST_POINTS,
    RULES,
    Exclusion,
    PlanningCatalog,
    Setting,
    exclusions_of,
    problems_of_rules,
    settings_of,
)
from bench.suite.requirement import Requirement

TOO_MANY = f"the axes span more than {MOST_POINTS:,} points; leave values out, or divide the suite"


@dataclass(frozen=True, kw_only=True)
class Suite:
    """What to measure: the cases in the order in which they are run, and how to read their results."""

    name: str
    title: str
    description: str
    path: Path
    text: str
    cases: tuple[Case, ...]
    ablate: Ablation | None
    gate: Mapping[str, GateRule]
    identify: bool = False
    require: Requirement | None = None
    renamed: Mapping[str, str] = field(default_factory=dict)
    data: Mapping[str, Any] = field(default_factory=dict)

    def facts(self) -> dict[str, Json]:
        """What reports and comparisons need of the suite; stored next to its records."""
        return {
            "name": self.name,
            "title": self.title,
            "description": self.description,
            "text": self.text,
            **({"whole": whole} if (whole := self._whole_text()) else {}),
            "planned": {case.id: case.runs for case in self.cases},
            "ablate": self.ablate.model_dump() if self.ablate else None,
            "gate": {metric: rule.model_dump(exclude_none=True) for metric, rule in self.gate.items()},
            **({"renamed": dict(self.renamed)} if self.renamed else {}),
        }

    def _whole_text(self) -> str:
        """Return the measured suite: its bases, small form and changes merged. Empty if that equals its own text."""
        whole = {key: value for key, value in self.data.items() if key not in ("extends", "small")}
        own = plain_values(self.text) if self.text else None
        if not isinstance(own, dict) or whole == {key: value for key, value in own.items() if key != "small"}:
            return ""
        return yaml_text(whole)


def plan_suite(tree: Tree, catalog: PlanningCatalog, *, recipes: Mapping[str, Path] | None = None) -> Suite:
    """All cases of a suite; SuiteError with every problem of the file at once.

    `recipes` are the files of known recipes by name; with None, a recipe is looked for only when a model is trained.
    """
    path = tree.positions[()].file
    file, problems = check_suite_in_part(tree)
    if file is None:
        raise SuiteError(path, problems)
    planner = _Planner(tree, file, catalog, recipes)
    planner.problems += problems
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
        identify=file.identify,
        require=file.require,
        renamed=file.renamed,
        data=tree.data,
    )


class _Planner:
    """Turns a validated file into cases and collects every problem on the way."""

    def __init__(
        self, tree: Tree, file: SuiteFile, catalog: PlanningCatalog, recipes: Mapping[str, Path] | None = None
    ) -> None:
        self.tree, self.file, self.catalog, self.recipes = tree, file, catalog, recipes
        self.recipe_problems: dict[str, list[str]] = {}
        self.problems: list[Problem] = []
        self.exclusions: list[Exclusion] = []
        self.used_exclusions: set[Place] = set()
        self.spanned = 0  # points of all measures

    def cases(self) -> list[Case]:
        self._check_names()
        settings: list[Setting] = []  # with a problem so far, points would be reported wrongly
        if not self.problems:
            settings, self.exclusions = settings_of(self.file, self.catalog), exclusions_of(self.file)
        if len(settings) > MOST_POINTS:
            self._add(("matrix",) if self.file.matrix else ("models",), TOO_MANY)
            return []
        grouped: dict[Point, dict[str, dict[str, Json]]] = {}
        for setting in settings:
            for measure in self.file.measure:
                for point, options in self._points(setting, measure):
                    grouped.setdefault(_frozen(point), {})[measure] = options
        points = [Point.model_validate_json(text) for text in grouped]  # type: ignore[arg-type]
        self._check_exclusions(is_left=bool(points))
        self._check_points(points, settings)
        return [self._case(point, measures) for point, measures in zip(points, grouped.values(), strict=True)]

    def _case(self, point: Point, measures: dict[str, dict[str, Json]]) -> Case:
        is_repeated = any(self.catalog.measures[name].is_repeated for name in measures)
        repeat = self.file.repeat or (5 if self.file.gate else 1)
        return Case(
            suite=self.file.suite,
            point=point,
            measures=measures,
            runs=repeat if is_repeated else 1,
            timeout_s=self.file.timeout_s,
            plugins=tuple(self.file.plugins),
        )

    # names -----------------------------------------------------------------------------------------------------------

    def _check_names(self) -> None:
        for name in self.file.measure:
            if name not in self.catalog.measures:
                self._add(("measure", name), f"unknown measure {name!r}; {suggest(name, self.catalog.measures)}")
        known: dict[str, ModelInfo] = {}
        arguments: set[str] = set()
        self.catalog.look_up([name for entry in self.file.models if isinstance(name := _model_name(entry), str)])
        for number, entry in enumerate(self.file.models):
            arguments |= self._check_model(number, entry, known)
        names = {str(_model_name(entry)) for entry in self.file.models}
        for name in self.file.renamed:
            if name not in names:
                self._add(("renamed", name), f"renamed: this suite has no model {name!r}; {suggest(name, names)}")
        for metric in self.file.gate:
            if problem := metric_problem(metric, self.catalog.measures):
                self._add(("gate", metric), problem)
        for axis in self.file.matrix:
            if axis_of(axis) not in (*AXES, *RULES, *arguments):
                self._add(("matrix", axis), f"unknown axis {axis!r}; {suggest(axis, {*AXES, *arguments})}")
        self._check_values(("matrix",), {k: v for k, v in self.file.matrix.items() if k not in RULES})
        if len(known) == len(names):
            is_overlaid = self.tree.is_overlaid(("matrix", "exclude"))
            for place, message in problems_of_rules(self.file, known, is_overlaid=is_overlaid):
                self._add(place, message)
        self._check_factors({*AXES, "model", *arguments})

    def _check_values(self, place: Place, given: Mapping[str, Any]) -> None:
        """Report axes without a value, which would leave no case, and axes that are given twice."""
        for key, value in given.items():
            if value == []:
                self._add((*place, key), f"{key} is an empty list; give it a value, or leave it out")
            if key in AXIS_ALIASES and AXIS_ALIASES[key] in given:
                self._add((*place, key), f"{key} and {AXIS_ALIASES[key]} are one axis; write one of them")

    def _check_model(self, number: int, entry: str | dict[str, Any], known: dict[str, ModelInfo]) -> set[str]:
        """Report what is wrong with a model, else put its facts into `known`; returns the arguments that it takes."""
        place: Place = ("models", number)
        name = _model_name(entry)
        if not isinstance(name, str):
            self._add(place, "a model is a name, or a mapping with `name` and its arguments")
            return set()
        try:
            facts = known[name] = self.catalog.model(name)
        except InputError as error:
            self._add((*place, "name"), str(error))
            return set()
        given = set() if isinstance(entry, str) else set(entry) - {"name"}
        self._check_values(place, {} if isinstance(entry, str) else entry)
        allowed = {*facts.arguments, *AXES}
        for argument in sorted(given - allowed - set(AXIS_ALIASES)):
            if facts.arguments or is_registered_name(name):
                message = f"{name} takes no argument {argument!r}; {suggest(argument, allowed)}"
                self._add((*place, argument), message)
        return set(facts.arguments) | (set() if is_registered_name(name) else given)

    def _check_factors(self, known: set[str]) -> None:
        if self.file.ablate is None:
            return
        for number, factor in enumerate(self.file.ablate.factors):
            if factor not in known:
                self._add(("ablate", "factors", number), f"unknown factor {factor!r}; {suggest(factor, known)}")
            elif factor not in self.file.ablate.baseline:
                self._add(("ablate", "baseline"), f"the baseline has no value for the factor {factor!r}")

    # measures --------------------------------------------------------------------------------------------------------

    def _points(self, setting: Setting, measure: str) -> Iterator[tuple[dict[str, Any], dict[str, Json]]]:
        """Yield the points at which `measure` is taken for one setting, with the options of the measure."""
        entry = self.catalog.measures[measure]
        options: dict[str, Json] = {}
        inner: dict[str, list[Any]] = {}
        for key, value in (self.file.measure[measure] or {}).items():
            if key in entry.options:
                options[key] = self._checked_option(measure, key, value)
            elif axis_of(key) in entry.depends_on:
                inner[axis_of(key)] = value if isinstance(value, list) else [value]
            else:
                allowed = {*entry.options, *(entry.depends_on - {"model", "args"})}
                self._add(("measure", measure, key), f"{measure} has no option {key!r}; {suggest(key, allowed)}")
        if options.get("nodes") is not None:
            try:
                RankLayout.of(options)
            except InputError as error:
                self._add(("measure", measure, "nodes"), f"nodes: {error}")
        defaults = {k: v for k, v in DEFAULT_AXES.items() if k in entry.depends_on}
        args = self._checked_args(setting, with_files="weights" in entry.depends_on)
        written = {k: v for k, v in (self.file.measure[measure] or {}).items() if k not in entry.options}
        self._check_values(("measure", measure), written)
        self.spanned += math.prod(map(len, inner.values()))
        if self.spanned > MOST_POINTS:
            self._add(("measure", measure), TOO_MANY)
            return
        for chosen in product(inner):
            if self._is_excluded(setting, {**defaults, **setting.axes, **chosen}):
                continue
            axes = {k: v for k, v in {**defaults, **setting.axes, **chosen}.items() if k in entry.depends_on}
            checked = self._checked_axes(axes, setting, measure)
            if checked is not None and self._fits_dataset(checked, options, setting, measure):
                yield {"model": setting.model, "args": args, **checked}, options

    def _is_excluded(self, setting: Setting, axes: Mapping[str, Any]) -> bool:
        """Whether a rule of `exclude` matches this point; remembers the rules that matched any."""
        if not self.exclusions:
            return False
        defaults = self.catalog.model(setting.model).arguments
        at = {**defaults, **setting.args, **axes, "model": setting.model}
        fitting = {rule.place for rule in self.exclusions if rule.fits(at)}
        self.used_exclusions |= fitting
        return bool(fitting)

    def _check_exclusions(self, *, is_left: bool) -> None:
        """Report rules that match no point, and rules that together match all of them.

        If another file overrides the one with the rule, the rule may match nothing: its points may be gone.
        """
        if self.problems:
            return
        for rule in self.exclusions:
            if rule.place not in self.used_exclusions and not self.tree.is_overlaid(rule.place):
                self._add(rule.place, "this rule excludes nothing: no point of the suite has these values")
        if not is_left:
            self._add(("matrix", "exclude"), "exclude leaves no case of this suite")

    def _checked_option(self, measure: str, key: str, value: Any) -> Json:
        """`value` as the signature of the measure types it; None after reporting what is wrong with it."""
        wanted = self.catalog.measures[measure].option_types.get(key, Any)
        try:
            wanted_type: TypeAdapter[Any] = TypeAdapter(wanted)
            checked = wanted_type.validate_python(_finite(expanded(key, value)))
        except (ValidationError, InputError) as error:
            self._add(("measure", measure, key), f"{key}: {describe_error(error, value)}")
            return None
        plain: Json = wanted_type.dump_python(checked, mode="json")
        return plain

    def _checked_args(self, setting: Setting, *, with_files: bool) -> dict[str, Json]:
        """The arguments of the model with `${env:…}` replaced; weights files only if the measure depends on weights."""
        args: dict[str, Json] = {}
        for name, value in setting.args.items():
            try:
                args[name] = _finite(expanded(name, value))
            except InputError as error:
                self._add(setting.places.get(name, setting.place), f"{name}: {error}, found {value!r}")
        return {name: value for name, value in args.items() if with_files or not is_weights_argument(name)}

    def _checked_axes(self, axes: dict[str, Any], setting: Setting, measure: str) -> dict[str, Any] | None:
        """`axes` as a point stores them, or None after reporting what is wrong with them."""
        if not self._knows_dataset("dataset", axes.get("dataset"), setting, measure):
            return None
        checked: dict[str, Any] = {}
        is_good = True
        for axis, value in axes.items():
            try:
                checked[axis] = read_axis(axis, value)
            except (ValidationError, InputError) as error:
                is_good = False
                self._add(self._place_of(axis, setting, measure), f"{axis}: {describe_error(error, value)}")
        is_good &= self._knows_recipe("recipe", checked.get("recipe"), setting, measure)
        pretraining = Pretraining.of(checked.get("weights"))
        if checked.get("entry") is not None and (checked.get("weights") is None or pretraining is not None):
            is_good = False
            message = f"entry {checked['entry']!r} names weights within a file; give that file as `weights`"
            self._add(self._place_of("entry", setting, measure), message)
        if pretraining is not None:
            is_good &= self._knows_dataset("weights", pretraining.dataset, setting, measure)
            is_good &= self._knows_recipe("weights", pretraining.recipe, setting, measure)
        return checked if is_good else None

    def _knows_dataset(self, axis: str, name: Any, setting: Setting, measure: str) -> bool:
        """Whether `name` is a known data set (or not a name at all); reports an unknown one at `axis`."""
        if not isinstance(name, str) or name in self.catalog.datasets:
            return True
        place = self._place_of(axis, setting, measure)
        self._add(place, f"unknown data set {name!r}; {suggest(str(name), self.catalog.datasets)}")
        return False

    def _fits_dataset(
        self, axes: Mapping[str, Any], options: Mapping[str, Json], setting: Setting, measure: str
    ) -> bool:
        """Return whether the data set has the split and options that the measure reads; report each missing one."""
        dataset = self.catalog.datasets.get(str(axes.get("dataset")))
        if dataset is None or "root" not in self.catalog.measures[measure].options:
            return True
        fits = True
        try:
            evaluated_split(axes.get("split"), known=dataset.splits, dataset=dataset.name)
        except InputError as error:
            fits = False
            self._add(self._place_of("split", setting, measure), str(error))
        given = options.get("options")
        try:
            own = given if isinstance(given, dict) else {}
            checked_options(dataset, {name: value for name, value in own.items() if name not in COMMON_OPTIONS})
        except InputError as error:
            fits = False
            self._add(("measure", measure, "options"), str(error))
        return fits

    def _knows_recipe(self, axis: str, name: str | None, setting: Setting, measure: str) -> bool:
        """Whether the recipe `name` is None, or known and valid with its changes; reports what is wrong at `axis`."""
        if name is None or self.recipes is None:
            return True
        if name not in self.recipe_problems:
            self.recipe_problems[name] = _recipe_problems(name, self.recipes)
        for problem in self.recipe_problems[name]:
            self._add(self._place_of(axis, setting, measure), problem)
        return not self.recipe_problems[name]

    def _place_of(self, axis: str, setting: Setting, measure: str) -> Place:
        """The place in the file that gives the value of `axis` in this setting and measure."""
        inner: list[Place] = [("measure", measure, key) for key in spellings(axis)]
        outer = setting.places.get(axis, setting.place)
        return next((place for place in inner if place in self.tree.positions), outer)

    def _check_points(self, points: Sequence[Point], settings: Sequence[Setting]) -> None:
        """Report models that cannot be built or do not take their clip, once for each model, arguments and clip."""
        if self.problems:
            return
        unique = {_frozen(_model_part(point)): point for point in points}
        answers = self.catalog.check_models(list(unique.values()))
        place = {s.model: s.place for s in reversed(settings)}
        for point, answer in zip(unique.values(), answers, strict=True):
            if answer.problem:
                self._add(place.get(point.model, ("models",)), f"{point.model}: {answer.problem}")

    def _add(self, place: Place, message: str) -> None:
        problem = self.tree.problem(place, message)
        if problem not in self.problems:
            self.problems.append(problem)


def _finite(value: Json) -> Json:
    """`value` itself; raises InputError for a number that is not finite, for which records would hold null."""
    for part in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        _finite(part)
    if isinstance(value, float) and not math.isfinite(value):
        raise InputError("is not a finite number")
    return value


def _model_name(entry: str | dict[str, Any]) -> Any:
    return entry if isinstance(entry, str) else entry.get("name")


def _frozen(point: Mapping[str, Any]) -> Any:
    return Point.model_validate(point).model_dump_json(exclude_none=True)


def _model_part(point: Point) -> dict[str, Any]:
    return {"model": point.model, "args": point.args, "clip": point.clip}


def _recipe_problems(text: str, recipes: Mapping[str, Path]) -> list[str]:
    """What is wrong with a recipe and its changes, such as `quick with epochs=3`; empty if nothing is."""
    from bench.train.recipe import read_recipe  # imports numpy, which a suite without a training does not need

    try:
        choice = RecipeChoice.parse(text)
    except InputError as error:
        return [str(error)]
    is_file = choice.name.endswith((".yaml", ".yml"))
    file = recipes.get(choice.name) or (Path(choice.name) if is_file else None)
    if file is None or not file.is_file():
        if is_file and (hint := path_hint(choice.name)):
            return [f"the recipe {choice.name!r} is not a file{hint}"]
        problem = f"the recipe {choice.name!r} is not a file" if is_file else f"unknown recipe {choice.name!r}"
        return [f"{problem}; {suggest(choice.name, recipes)}"]
    try:
        read_recipe(file, choice=choice)
    except SuiteError as error:  # a change has no place in the file
        places = [f"{file}:{each.line}:{each.column}" if not choice.changes else repr(text) for each in error.problems]
        return [f"recipe {place}: {each.message}" for place, each in zip(places, error.problems, strict=True)]
    except InputError as error:
        return [str(error)]
    return []
