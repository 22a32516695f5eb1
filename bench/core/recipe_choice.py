"""The name of a recipe with changes of its keys: `quick with epochs=30, optimizer.lr=0.01`."""

import re
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

from bench.core.errors import InputError
from bench.core.schema import Json

WITH = " with "
CHANGE = re.compile(r"([a-z0-9_]+(?:\.[a-z0-9_]+)*)\s*=\s*(.+)", re.DOTALL)
EXAMPLE = "such as optimizer.lr=0.01"


@dataclass(frozen=True, kw_only=True)
class RecipeChoice:
    """A recipe by name or file, and the values that replace some of its keys, by dotted key."""

    name: str
    changes: Mapping[str, Json]

    @classmethod
    def parse(cls, text: str) -> "RecipeChoice":
        """Read `NAME` or `NAME with KEY=VALUE, KEY=VALUE` with YAML values. Raises InputError for a malformed one."""
        name, _, changes = text.partition(WITH)
        # A comma separates changes only if a key follows, because values may be lists.
        parts = re.split(r",\s*(?=[a-z0-9_.]+\s*=)", changes) if changes else []
        return cls(name=name.strip(), changes=dict(map(_parse_change, parts)))

    def changed(self, recipe: Mapping[str, Any]) -> dict[str, Any]:
        """Return a copy of `recipe`, the content of a file, with the changes. Raises InputError below a plain value."""
        result: dict[str, Any] = deepcopy(dict(recipe))
        for key, value in self.changes.items():
            *parents, last = key.split(".")
            target = result
            for parent in parents:
                inner = target.setdefault(parent, {})
                if not isinstance(inner, dict):
                    raise InputError(f"recipe change {key}: {parent} is the value {inner!r} and has no keys")
                target = inner
            target[last] = value
        return result


def with_changes(recipe: str, changes: Sequence[str]) -> str:
    """Return the text of `recipe` with further `KEY=VALUE` changes; later ones replace earlier ones of the same key.

    Raises InputError for a malformed change.
    """
    if not changes:
        return recipe
    choice = RecipeChoice.parse(recipe)
    texts = dict(_split_change(each) for each in changes)
    kept = {key: _yaml_text(value) for key, value in choice.changes.items() if key not in texts}
    return choice.name + WITH + ", ".join(f"{key}={value}" for key, value in sorted({**kept, **texts}.items()))


def _split_change(text: str) -> tuple[str, str]:
    found = CHANGE.fullmatch(text.strip())
    if found is None:
        raise InputError(f"recipe change {text!r} is not KEY=VALUE, {EXAMPLE}")
    return found[1], found[2].strip()


def _parse_change(text: str) -> tuple[str, Json]:
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    key, value = _split_change(text)
    try:
        return key, YAML(typ="safe", pure=True).load(value)
    except YAMLError:
        raise InputError(f"recipe change {text!r}: {value!r} is not a YAML value, {EXAMPLE}") from None


def _yaml_text(value: Json) -> str:
    import json

    return value if isinstance(value, str) else json.dumps(value)
