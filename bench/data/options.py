"""The options of a data set, checked by name and type before its function is called with them."""

import os
from collections.abc import Mapping
from typing import Any, get_type_hints

from pydantic import TypeAdapter, ValidationError

from bench.core.errors import InputError, UnknownNameError
from bench.core.registry import DATASETS, DatasetEntry
from bench.core.validation import describe_error

OF_EVERY_DATASET = ("flow", "decode")  # `open_dataset` itself takes these


def checked_options(entry: DatasetEntry, given: Mapping[str, Any]) -> dict[str, Any]:
    """`given` with paths as text; UnknownNameError for an option that is not there, InputError for one of a wrong type.

    What a data set has that came from elsewhere and whose types cannot be told is passed on as it is.
    """
    allowed, types = set(entry.options) - {"split"}, _types(entry)
    checked = {}
    for name, value in given.items():
        if name not in allowed:
            raise UnknownNameError("option", name, allowed | {*OF_EVERY_DATASET}, where=f"data set {entry.name}")
        checked[name] = os.fspath(value) if isinstance(value, os.PathLike) else value
        try:
            if name in types:
                TypeAdapter(types[name]).validate_python(checked[name], strict=True)
        except ValidationError as error:
            where = f"option {name!r} of data set {entry.name}"
            raise InputError(f"{where}: {describe_error(error, value)}") from None
    return checked


def text_options() -> frozenset[str]:
    """Options of data sets that are text, and no YAML value of another kind."""
    of_datasets = (name for entry in DATASETS for name, kind in _types(entry).items() if kind in (str, str | None))
    return frozenset(of_datasets) | {*OF_EVERY_DATASET}


def _types(entry: DatasetEntry) -> dict[str, Any]:
    try:
        return get_type_hints(entry.function)
    except (NameError, TypeError, AttributeError):
        return {}
