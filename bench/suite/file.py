"""The schema of suite files, and how one is read with the position of every error."""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    WithJsonSchema,
    field_validator,
    model_validator,
)

from bench.core.errors import InputError, Problem, SuiteError, suggest
from bench.core.files import path_hint
from bench.core.recipe_choice import with_changes
from bench.core.schema import Json
from bench.core.threshold import parse_threshold
from bench.core.validation import plain_message, spelling_hint
from bench.core.yaml_tree import Place, Tree, read_yaml
from bench.suite.requirement import Requirement
from bench.suite.shipped import suite_path

# A few files that each extend the next one ten times stand for billions of files.
MOST_FILES = 100
# Keys of a suite that name recipes; the baseline of an ablation must stay equal to one of the levels.
WITH_RECIPES = frozenset({"models", "matrix", "measure", "ablate"})


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


def limit_text(amount: Any) -> Any:
    """A number as text, anything else unchanged: an amount needs no quotes in YAML."""
    if isinstance(amount, float):
        return f"{amount:.15g}"
    return str(amount) if isinstance(amount, int) and not isinstance(amount, bool) else amount


AmountText = Annotated[
    str | None,
    BeforeValidator(limit_text),
    WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "number"}, {"type": "null"}]}),
]


def _key(description: str, **limits: Any) -> Any:
    """A key of a suite: its meaning, for editors and the reference page, and the limits of its value."""
    return Field(description=description, **limits)


class GateRule(_Strict):
    """How much a metric may get worse: `3%` of the base, `0.5pt` of a percentage, an amount (`200MiB`), or `noise`.

    A number without a unit has the unit of the metric.
    """

    max_drop: Annotated[AmountText, _key("How much the metric may fall.")] = None
    max_rise: Annotated[AmountText, _key("How much the metric may rise.")] = None

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
            raise ValueError("is empty; allowed: max_drop, max_rise or both")
        return self


class Ablation(_Strict):
    """The factors of an ablation study, and the baseline level of each."""

    baseline: Annotated[dict[str, Json], _key("The level of each factor that the others are compared with.")]
    factors: Annotated[list[str], _key("Axes whose effect is shown, one at a time.", min_length=1)]


class SuiteFile(_Strict):
    """The keys of a suite file."""

    suite: Annotated[str, _key("Name of the suite; results go to `results/NAME`.", pattern=r"^[a-z0-9][a-z0-9_-]*$")]
    title: Annotated[str, _key("The question that the suite answers; the title of its report.")] = ""
    description: Annotated[str, _key("Text below the title of the report.")] = ""
    extends: Annotated[list[str], _key("Suite files to start from: mappings are merged, lists replaced.")] = []
    plugins: Annotated[list[str], _key("Modules to import, with models, measures, data sets and sections.")] = []
    models: Annotated[
        list[str | dict[str, Any]],
        _key("Models: a name, or `{name: …}` with arguments and axes; a list of values is an axis.", min_length=1),
    ]
    renamed: Annotated[dict[str, str], _key("New names of models and the former ones, for `compare` and `ab`.")] = {}
    matrix: Annotated[dict[str, list[Any]], _key("Axes that multiply, with `include` and `exclude`.")] = {}
    measure: Annotated[
        dict[str, dict[str, Any] | None], _key("Measures and their options; a list of values is an axis.", min_length=1)
    ]
    ablate: Annotated[Ablation | None, _key("Factors that the report compares with a baseline.")] = None
    require: Annotated[Requirement | None, _key("Hardware that cases on a device need.")] = None
    repeat: Annotated[
        int | None,
        _key("Runs of each timed case, in fresh processes; by default 5 with `gate`, else 1.", ge=1, le=1000),
    ] = None
    timeout_s: Annotated[float, _key("Time limit of one run of a case, in seconds.", gt=0, allow_inf_nan=False)] = 3600
    gate: Annotated[dict[str, GateRule], _key("By metric, how much it may get worse.")] = {}
    small: Annotated[dict[str, Any], _key("Keys that `--small` merges over the others.")] = {}
    identify: Annotated[bool, _key("Keep home folders and host names in records.")] = False


def write_json_schema(path: str | Path) -> None:
    """Write the JSON Schema of suite files, for completion and checks in editors."""
    schema = SuiteFile.model_json_schema()
    Path(path).write_text(json.dumps(schema, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def read_suite(path: str | Path, *, small: bool = False) -> Tree:
    """Return the merged tree of a suite file and the files that it extends; `small` merges its `small:` block over it.

    `path` may be the name of a suite that comes with vbench, such as `quickstart`.
    """
    tree = _with_bases(suite_path(path), seen=(), left=iter(range(MOST_FILES)))
    if small:
        block = tree.data.get("small") if isinstance(tree.data, dict) else None
        if not block:
            raise _one_problem(tree, (), "this suite has no `small:` block, so --small cannot be used with it")
        if not isinstance(block, dict):
            raise _one_problem(tree, ("small",), "small: input should be a mapping of the keys that it replaces")
        # Title and description of the full suite would describe models and data that the small form does not run.
        block = {**_texts_of_small(tree.data), **block}
        moved = {p[1:]: where for p, where in tree.positions.items() if p[:1] == ("small",) and len(p) > 1}
        tree = Tree(data=block, positions={(): tree.positions[()], **moved}, text=tree.text).over(tree)
    return tree


def change_recipes(tree: Tree, changes: Sequence[str]) -> Tree:
    """Return the suite with `KEY=VALUE` changes of every recipe in it, such as `epochs=30`.

    Raises InputError for a malformed change, and if the suite trains nothing.
    """
    if not changes:
        return tree
    found: list[str] = []

    def changed(value: Any, *, is_recipe: bool = False) -> Any:
        if isinstance(value, dict):
            return {key: changed(each, is_recipe=key == "recipe") for key, each in value.items()}
        if isinstance(value, list):
            return [changed(each, is_recipe=is_recipe) for each in value]
        if not is_recipe or not isinstance(value, str):
            return value
        found.append(value)
        return with_changes(value, changes)

    data = tree.data
    if isinstance(data, dict):
        data = {key: changed(value) if key in WITH_RECIPES else value for key, value in data.items()}
    if not found:
        raise InputError(f"{tree.position(()).file} has no recipe that {changes[0]!r} could change")
    return replace(tree, data=data)


def _texts_of_small(suite: dict[str, Any]) -> dict[str, Any]:
    """Title and description of a small form that has none of its own."""
    title = suite.get("title") or suite.get("suite") or "suite"
    return {"title": f"{title} (small form)", "description": ""}


def check_suite(tree: Tree) -> SuiteFile:
    """Validate a tree as a suite file; raises SuiteError with every wrong key and value."""
    file, problems = check_suite_in_part(tree)
    if file is None or problems:
        raise SuiteError(tree.positions[()].file, problems)
    return file


def check_suite_in_part(tree: Tree) -> tuple[SuiteFile | None, list[Problem]]:
    """Validate a tree as a suite file; returns the file without its wrong keys, if that is possible, and the problems.

    So that an unknown key does not hide an unknown measure: both are reported at once.
    """
    try:
        return SuiteFile.model_validate(tree.data), []
    except ValidationError as error:
        problems = _once(_problem_of(tree, dict(item)) for item in error.errors())
        wrong = {item["loc"][0] for item in error.errors() if item["loc"]}
    if wrong & {"models", "matrix", "measure", "ablate"}:
        return None, problems  # what depends on these would be reported wrongly
    try:
        return SuiteFile.model_validate({key: value for key, value in tree.data.items() if key not in wrong}), problems
    except ValidationError:
        return None, problems


def _with_bases(path: Path, *, seen: tuple[Path, ...], left: Iterator[int]) -> Tree:
    """Read a suite and the files that it extends; `left` counts the files that may still be read."""
    tree = read_yaml(path)
    if not isinstance(tree.data, dict):
        raise _one_problem(tree, (), "a suite is a mapping with the keys suite, models, measure, …")
    bases = tree.data.get("extends") or []
    if path.resolve() in seen:
        raise _one_problem(tree, ("extends",), f"{path} extends itself")
    if next(left, None) is None:
        raise _one_problem(tree, ("extends",), f"a suite of more than {MOST_FILES} files; merge some of them")
    if not isinstance(bases, list) or not all(isinstance(base, str) for base in bases):
        raise _one_problem(tree, ("extends",), "extends is a list of files, such as [common/timing.yaml]")
    merged: Tree | None = None
    for number, base in enumerate(bases):
        if not (path.parent / base).is_file():
            hint = path_hint(path.parent / base)
            raise _one_problem(tree, ("extends", number), f"{path.parent / base} is not a file{hint}")
        read = _with_bases(path.parent / base, seen=(*seen, path.resolve()), left=left)
        merged = read if merged is None else read.over(merged)
    return tree if merged is None else replace(tree.over(merged), text=tree.text)


def _one_problem(tree: Tree, place: Place, message: str) -> SuiteError:
    return SuiteError(tree.positions[()].file, [tree.problem(place, message)])


def _problem_of(tree: Tree, item: dict[str, Any]) -> Problem:
    """One pydantic error as a problem at the place in the file that caused it."""
    place = tuple(part for part in item["loc"] if not (isinstance(part, str) and part in ("str", "dict[str,any]")))
    key = place[-1] if place else ""
    if item["type"] == "extra_forbidden":
        return tree.problem(place, f"unknown key {key!r}; {suggest(str(key), _fields_at(place[:-1]))}")
    if item["type"] == "missing":
        return tree.problem(place, f"the key {key!r} is missing")
    found = f", found {item['input']!r}" if not isinstance(item["input"], dict | list) else ""
    name = ".".join(str(part) for part in place)
    return tree.problem(place, f"{name}: {plain_message(item)}{found}{spelling_hint(item)}")


def _fields_at(place: Place) -> list[str]:
    nested: dict[str, type[BaseModel]] = {"ablate": Ablation, "gate": GateRule, "require": Requirement}
    return list((nested.get(str(place[0]), SuiteFile) if place else SuiteFile).model_fields)


def _once(problems: Iterable[Problem]) -> list[Problem]:
    return list(dict.fromkeys(problems))
