"""The suite as each side of an A/B measurement measures it: its own models, former names, limits that it can read."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from bench.ab.sides import SideName, SideSetup, SideSpec
from bench.comparison.allowed_changes import GateValue
from bench.core.errors import BenchError, InputError
from bench.core.git import run_git
from bench.core.registry import MEASURES
from bench.core.yaml_tree import Tree
from bench.suite import limit_text, read_suite


@dataclass(frozen=True, kw_only=True)
class ListedModels:
    """What the commits list in their own versions of the suite: models of the given one that a side lacks, by name.

    `removed` are entries that only base's own version has. `only_base` and `only_head` name the models without a
    partner, as each side calls them.
    """

    base_lacks: frozenset[str] = frozenset()
    head_lacks: frozenset[str] = frozenset()
    removed: tuple[Any, ...] = ()
    only_base: frozenset[str] = frozenset()
    only_head: frozenset[str] = frozenset()


def suite_of_side(name: SideName, spec: SideSpec, suite: Tree, models: ListedModels) -> Tree:
    """Return the suite as this side measures it: with the models that it has, and with limits as text."""
    if name == "head":
        data = with_models(suite.data, without=models.head_lacks)
    else:
        data = with_former_names(with_models(suite.data, without=models.base_lacks, additional=models.removed))
    return replace(suite, data=with_limits_as_text(suite_for_side(spec, data)))


def listed_models(suite: Mapping[str, Any], own: Sequence[Sequence[Any] | None]) -> ListedModels:
    """Compare the models of `suite` with those of base's and head's `own` versions; None if a version is unknown.

    Models that were `renamed` have their former names in base. A model is removed only if head's version is known,
    because somebody may have shortened `suite` to measure a part of it.
    """
    given, renamed = suite.get("models"), suite.get("renamed")
    if not isinstance(given, list) or not any(own):
        return ListedModels()
    former = dict(renamed) if isinstance(renamed, Mapping) else {}
    names = {name: former.get(name, name) for name in map(entry_name, given)}
    base, head = (None if models is None else set(map(entry_name, models)) for models in own)
    in_base = {name for name, earlier in names.items() if base is None or earlier in base}
    in_head = {name for name in names if head is None or name in head}
    kept = {*names.values(), *(head or ())}
    removed = [entry for entry in own[0] or () if head is not None and entry_name(entry) not in kept]
    if not in_head or not (in_base or removed):
        return ListedModels()  # a suite of other models, which each side plans as it can
    return ListedModels(
        base_lacks=frozenset(names.keys() - in_base),
        head_lacks=frozenset(names.keys() - in_head),
        removed=tuple(removed),
        only_base=frozenset([*map(entry_name, removed), *(names[name] for name in in_base - in_head)]),
        only_head=frozenset(in_head - in_base),
    )


def own_models(suite: Tree, spec: SideSpec, setup: SideSetup, *, small: bool) -> Sequence[Any] | None:
    """Return the models that the suite file lists in the version of a side; None if that is not known.

    The version of the working folder is known if the file has no uncommitted changes; that of a commit is not if the
    file held a suite of another name there.
    """
    path = Path(suite.position(()).file).resolve()
    root = setup.forbidden or setup.tree
    if setup.tree is None or root is None or not path.is_relative_to(root):
        return None
    place = path.relative_to(root)
    if spec.kind == "here":
        changed = run_git("status", "--porcelain", "--", str(place), folder=root)
        models = None if changed.returncode or changed.output else suite.data.get("models")
    else:
        try:
            version = read_suite(setup.tree / place, small=small).data
            models = version.get("models") if version.get("suite") == suite.data.get("suite") else None
        except (BenchError, AttributeError):  # there is no such file, or it is another kind of file
            return None
    return models if isinstance(models, list) and models else None


def suite_for_side(spec: SideSpec, suite: Mapping[str, Any]) -> dict[str, Any]:
    """The suite as this side measures it. A model side replaces the one model of `suite`, which must be checked before.

    Raises InputError if the suite has several models or leaves the clip to the model.
    """
    if spec.kind != "model":
        return {key: value for key, value in suite.items() if key != "renamed"}  # older commits do not know this key
    models = suite.get("models") or []
    if len(models) != 1:
        raise InputError(f"{spec.text}: the suite must have one model, which this one replaces; it has {len(models)}")
    given = {} if isinstance(models[0], str) else models[0]
    if "clip" not in given and "clip" not in (suite.get("matrix") or {}):
        raise InputError(f"{spec.text}: the suite must give the clip of both models: matrix: {{clip: [16x1x112]}}")
    mine = {"models": [{**given, "name": spec.value}]}
    matrix = dict(suite.get("matrix") or {})
    for kind in ("include", "exclude"):
        if isinstance(rules := matrix.get(kind), list):  # rules of the suite's model apply to the one that replaces it
            matrix[kind] = [
                {**rule, "model": spec.value} if isinstance(rule, dict) and "model" in rule else rule for rule in rules
            ]
    return {**suite, **mine, **({"matrix": matrix} if matrix else {})}


def with_former_names(suite: Mapping[str, Any]) -> dict[str, Any]:
    """The suite for base: models that it says were `renamed` have their former names."""
    renamed = suite.get("renamed")
    if not isinstance(renamed, Mapping):
        return dict(suite)
    found = dict(suite)
    if isinstance(models := suite.get("models"), list):
        found["models"] = [_former(entry, renamed) for entry in models]
    if isinstance(matrix := suite.get("matrix"), dict):
        found["matrix"] = {
            axis: [
                {**rule, "model": _former(rule["model"], renamed)}
                if isinstance(rule, dict) and "model" in rule
                else rule
                for rule in values
            ]
            if axis in ("include", "exclude") and isinstance(values, list)
            else values
            for axis, values in matrix.items()
        }
    return found


def with_models(
    suite: Mapping[str, Any], *, without: Collection[str], additional: Sequence[Any] = ()
) -> dict[str, Any]:
    """The suite without the models of these names and the rules on them, and with `additional` models at the end."""
    if not without and not additional:
        return dict(suite)
    found = {
        **suite,
        "models": [each for each in suite["models"] if entry_name(each) not in without] + list(additional),
    }
    if isinstance(matrix := suite.get("matrix"), dict):
        found["matrix"] = {
            axis: [rule for rule in values if not (isinstance(rule, dict) and rule.get("model") in without)]
            if axis in ("include", "exclude") and isinstance(values, list)
            else values
            for axis, values in matrix.items()
        }
    return found


def entry_name(entry: Any) -> str:
    """The name of an entry of a suite's `models`; of a wrong one its text."""
    return str(entry.get("name") if isinstance(entry, dict) else entry)


def _former(entry: Any, renamed: Mapping[str, str]) -> Any:
    if isinstance(entry, dict):
        return {**entry, "name": _former(entry.get("name"), renamed)}
    return renamed.get(entry, entry) if isinstance(entry, str) else entry


def with_limits_as_text(suite: Mapping[str, Any]) -> dict[str, Any]:
    """`suite` with limits as text, because older commits do not accept a number as a limit."""
    rules = {
        metric: {side: limit_text(limit) for side, limit in rule.items()} if isinstance(rule, Mapping) else rule
        for metric, rule in gate_of(suite).items()
    }
    return {**suite, "gate": rules} if rules else dict(suite)


def gate_of(suite: Mapping[str, Any]) -> Mapping[str, GateValue]:
    """The gate rules of a suite; empty if they are not a mapping, which is reported when the suite is planned."""
    gate = suite.get("gate")
    return gate if isinstance(gate, Mapping) else {}


def only_counts(suite: Tree) -> Tree:
    """Return `suite` with its exact measures and their limits alone; raises InputError if it has none."""
    measures = suite.data.get("measure")
    given: Mapping[str, Any] = measures if isinstance(measures, Mapping) else {}
    counts = {name: options for name, options in given.items() if name in MEASURES and MEASURES.get(name).is_count}
    if not counts:
        allowed = ", ".join(measure.name for measure in MEASURES if measure.is_count)
        raise InputError(f"--counts: the suite has no exact measure; add one to `measure`: {allowed}")
    gate = {rule: limit for rule, limit in gate_of(suite.data).items() if _is_of_any(rule, counts)}
    data = {**suite.data, "measure": counts, "gate": gate}
    return replace(suite, data={key: value for key, value in data.items() if key != "gate" or gate})


def _is_of_any(rule: str, measures: Collection[str]) -> bool:
    """Whether a rule of the gate names a metric of one of `measures`, or is a pattern that may match one."""
    name = rule.partition(".")[0]
    return name in measures or any(fnmatchcase(measure, name) for measure in measures)
