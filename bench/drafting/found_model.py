"""Finds a model to write a suite for, by its name or in the Python files of a folder, and a clip that it can take."""

import ast
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.catalog.catalog import Catalog
from bench.core.errors import InputError
from bench.core.schema import Case, Clip, Json, ModelCheck, Point, clip_from_text

# Clips that video models are commonly built for, tried in this order if a model cannot take its default clip.
COMMON_CLIPS = ("16x1x112", "16x2x224", "8x8x224", "32x2x224", "16x1x64", "8x2x112", "16x1x32", "64x1x224")
NOT_MODELS = ("setup.py", "conftest.py")


@dataclass(frozen=True, kw_only=True)
class FoundModel:
    """A model as a suite names it, with its counts at a clip that it can take.

    `outputs` is None for a model that takes `num_classes`, and if the number is not known. `remark` says why the clip
    is not the default one; it is empty otherwise.
    """

    name: str
    given: Mapping[str, Any]
    defaults: Mapping[str, Json]
    clip: Clip
    params: int | None
    macs: int | None
    outputs: int | None = None
    remark: str = ""

    @property
    def takes_classes(self) -> bool:
        """Whether the number of classes is an argument of the model."""
        return "num_classes" in self.defaults


def find_model(text: str | None, catalog: Catalog, *, arguments: Mapping[str, Any]) -> FoundModel:
    """Return the model called `text`, a name as in `create_model`; with None, the one that the working folder defines.

    Raises InputError if there is no such model or
    several, and if the model cannot be built or takes none of the common clips.
    """
    name = text or _only_model_here()
    facts = catalog.model(name)
    clips = [facts.clip, *(clip for each in COMMON_CLIPS if (clip := clip_from_text(each)) != facts.clip)]
    point = Point(model=name, args=dict(arguments), clip=clips[0])
    [first] = catalog.check_models([point])
    clip, check, remark = clips[0], first, ""
    if first.params is None:
        others = [point.model_copy(update={"clip": each}) for each in clips[1:]]
        clip, check = _first_that_runs(name, clips, [first, *catalog.check_models(others)])
        remark = f"it cannot take {clips[0]}"
    found = FoundModel(
        name=name,
        given=arguments,
        defaults=facts.arguments,
        clip=clip,
        params=check.params,
        macs=check.macs,
        remark=remark,
    )
    if found.takes_classes:
        return found
    outputs = _outputs(point.model_copy(update={"clip": clip}))
    return FoundModel(**{**vars(found), "outputs": outputs})


def _first_that_runs(name: str, clips: list[Clip], checks: list[ModelCheck]) -> tuple[Clip, ModelCheck]:
    for clip, check in zip(clips, checks, strict=True):
        if check.params is not None:
            return clip, check
    reason = checks[0].problem or checks[0].note
    if len({check.problem or check.note for check in checks}) == 1:  # it cannot be built at all
        raise InputError(str(reason) if name in str(reason) else f"{name} cannot be run: {reason}")
    tried = ", ".join(map(str, clips))
    raise InputError(f"{name} takes none of the clips {tried}; at {clips[0]}: {reason}; set the attribute `clip` of it")


def _outputs(point: Point) -> int | None:
    """Return the number of outputs of a model; None if it cannot be run on the meta device."""
    from bench.measure.context import CaseContext

    case = CaseContext(Case(suite="init", point=point, measures={}), artifacts=Path())
    with suppress(Exception):  # code of the user may raise anything; the number is then unknown
        model = case.build_model("meta")
        return int(model(*case.inputs(model, device="meta")).shape[-1])
    return None


def _only_model_here() -> str:
    """Return the name of the single model that the Python files of the working folder define."""
    names = _factories_of_folder()
    if not names:
        raise InputError("the Python files of this folder define no model; name one: vbench init MODEL")
    if len(names) > 1:
        raise InputError(f"{len(names)} models are defined here; name one of them: {', '.join(names)}")
    return names[0]


def _factories_of_folder() -> list[str]:
    files = [each for each in sorted(Path().glob("*.py")) if each.name not in NOT_MODELS and each.stem.isidentifier()]
    return [f"{file}:{name}" for file in files if not file.name.startswith("test_") for name in factories_in(file)]


def factories_in(file: Path) -> list[str]:
    """Return the public functions and classes at the top of a file that seem to build a model, without running it.

    A class counts if it derives from `nn.Module` and nothing in the file calls it; a function, if it is annotated to
    return a module or returns a call of such a class.
    Raises InputError for a file that is not Python.
    """
    try:
        tree = ast.parse(file.read_bytes(), filename=str(file))
    except (SyntaxError, ValueError) as error:
        raise InputError(f"{file}: is not Python: {error}") from error
    modules = set[str]()
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and any(
            _last_name(base) in {"Module", "VideoModel", *modules} for base in node.bases
        ):
            modules.add(node.name)
    called = {_last_name(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    return [name for name in _public_models(tree, modules) if name not in modules or name not in called]


def _public_models(tree: ast.Module, modules: set[str]) -> Iterator[str]:
    for node in tree.body:
        if not isinstance(node, ast.ClassDef | ast.FunctionDef) or node.name.startswith("_"):
            continue
        if node.name in modules if isinstance(node, ast.ClassDef) else _returns_model(node, modules):
            yield node.name


def _returns_model(function: ast.FunctionDef, modules: set[str]) -> bool:
    if function.returns is not None and _last_name(function.returns) in {"Module", "VideoModel", *modules}:
        return True
    built = {
        _last_name(target)
        for node in ast.walk(function)
        if isinstance(node, ast.Assign) and _is_call_of(node.value, modules)
        for target in node.targets
    }
    returned = [node.value for node in ast.walk(function) if isinstance(node, ast.Return) and node.value is not None]
    return any(_is_call_of(value, modules) or _last_name(value) in built - {""} for value in returned)


def _is_call_of(node: ast.AST, names: set[str]) -> bool:
    return isinstance(node, ast.Call) and _last_name(node.func) in names


def _last_name(node: ast.AST) -> str:
    """Return `Module` of `nn.Module`, and a name or a string annotation as it is."""
    if isinstance(node, ast.Attribute):
        return node.attr
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value.rpartition(".")[2]
    return node.id if isinstance(node, ast.Name) else ""
