"""The axes of a suite: their names in YAML, their values, and all points that several of them span."""

import itertools
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any

from pydantic import AfterValidator, TypeAdapter

from bench.core.errors import InputError
from bench.core.input_protocol import given_protocol, parse_protocol
from bench.core.schema import Clip, Json, Point, is_weights_argument
from bench.core.yaml_tree import is_text

AXES = tuple(name for name in Point.model_fields if name not in ("model", "args"))
AXIS_ALIASES = {"seeds": "seed"}  # names in YAML for axes that list several values
PATHS = ("weights", "root", "videos", "annotations", "flow")  # keys whose values may contain ${env:NAME}
ENV = re.compile(r"\$\{env:([A-Za-z_][A-Za-z0-9_]*)\}")


def axis_of(key: str) -> str:
    """The axis that the YAML key `key` sets."""
    return AXIS_ALIASES.get(key, key)


def spellings(axis: str) -> list[str]:
    """The YAML keys that set `axis`."""
    return [axis, *(key for key, name in AXIS_ALIASES.items() if name == axis)]


def product(axes: Mapping[str, Sequence[Any]]) -> Iterator[dict[str, Any]]:
    """Yield every combination of one value per axis; the last axis changes fastest."""
    for values in itertools.product(*axes.values()):
        yield dict(zip(axes, values, strict=True))


def read_axis(axis: str, value: Any) -> Any:
    """`value` as a point stores it; raises ValidationError or InputError if the axis cannot have it."""
    return _adapter(axis).validate_python(expanded(axis, value))


def expanded(key: str, value: Any) -> Any:
    """`value` with ${env:NAME} replaced; raises InputError if `key` is not a path or the variable is not set.

    In a mapping, each inner key decides; in a list, `key`.
    """
    if isinstance(value, dict):
        return {inner: expanded(inner, item) for inner, item in value.items()}
    if isinstance(value, list):
        return [expanded(key, item) for item in value]
    if not isinstance(value, str) or not ENV.search(value):
        return value
    if key not in PATHS and not is_weights_argument(key):
        raise InputError(f"${{env:…}} is allowed in paths only ({', '.join(PATHS)}, …)")
    for name in ENV.findall(value):
        if name not in os.environ:
            raise InputError(f"the environment variable {name} is not set")
    text = ENV.sub(lambda match: os.environ[match[1]], value)
    if not is_text(text):
        raise InputError(f"{text!r} is not UTF-8 text; rename the file")
    return text


def _adapter(axis: str) -> TypeAdapter[Any]:
    if axis not in _ADAPTERS:
        if axis == "clip":
            _ADAPTERS[axis] = TypeAdapter(Clip)
        elif axis == "preprocess":
            _ADAPTERS[axis] = TypeAdapter(Annotated[dict[str, Json] | str, AfterValidator(_checked_protocol)])
        else:
            field = Point.model_fields[axis]
            annotated: Any = Annotated[field.annotation, field]
            _ADAPTERS[axis] = TypeAdapter(annotated)
    return _ADAPTERS[axis]


def _checked_protocol(value: dict[str, Json] | str) -> dict[str, Json]:
    """The parts of an input protocol, given as a mapping or as the path of a YAML file, in their canonical form."""
    given = parse_protocol(value, flag="preprocess") if isinstance(value, str) else given_protocol(value, where="")
    return given.as_stored()


_ADAPTERS: dict[str, TypeAdapter[Any]] = {}
