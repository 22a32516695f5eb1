"""Builds a network by name: a family or variant of the registry, or `source:name.tag` from another package."""

import contextlib
import typing
from collections.abc import Callable, Mapping
from os import PathLike
from typing import Any

import torch
from pydantic import ConfigDict, TypeAdapter, ValidationError
from torch import nn

from bench.errors import BenchError, InputError, suggest
from bench.registry import MODELS, ModelEntry, options_of


def create_model(
    name: str,
    *,
    num_classes: int | None = None,
    weights: str | PathLike[str] | None = None,
    device: str | torch.device | None = None,
    **arguments: Any,
) -> nn.Module:
    """The network called `name`, in training mode, its weights drawn on the CPU or read from the file `weights`.

    `num_classes` None is the model's own default. Under `torch.device("meta")`, or with `device="meta"`, nothing is
    allocated. UnknownNameError for a name, InputError for an argument that is not known or cannot be.
    """
    given = {**arguments} if num_classes is None else {"num_classes": num_classes, **arguments}
    is_meta = device is not None and torch.device(device).type == "meta"
    with torch.device("meta") if is_meta else contextlib.nullcontext():
        model = _build(MODELS.get(name), given)
    return model if device is None or is_meta else model.to(device)


def list_models(pattern: str = "*") -> list[str]:
    """Registered names that match a shell pattern such as `resnet3d*`, sorted."""
    return MODELS.names(pattern)


def is_model(name: str) -> bool:
    """Whether `name` is a registered family or variant."""
    return name in MODELS


def _build(entry: ModelEntry, given: Mapping[str, Any]) -> nn.Module:
    arguments = {**entry.preset, **checked_arguments(entry.name, entry.function, given)}
    try:
        model = entry.function(**arguments)
    except BenchError:
        raise
    except (TypeError, ValueError, KeyError, IndexError, RuntimeError) as error:
        shown = ", ".join(f"{key}={value!r}" for key, value in arguments.items()) or "its defaults"
        raise InputError(f"{entry.name} cannot be built with {shown}: {error}") from error
    if not isinstance(model, nn.Module):
        raise InputError(f"{entry.name} must return an nn.Module, found {type(model).__name__}")
    return model


def checked_arguments(name: str, function: Callable[..., Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """`given`, each value fitted to its annotation; InputError names the argument, what is allowed, what is near."""
    allowed = _annotations(function)
    fitted = {}
    for key, value in given.items():
        if key not in allowed:
            raise InputError(f"{name} has no argument {key!r}; {suggest(key, allowed)}")
        fitted[key] = _fit(f"{name}'s {key}", value, allowed[key])
    if "num_classes" in fitted and fitted["num_classes"] < 1:
        raise InputError(f"{name}'s num_classes must be at least 1, found {fitted['num_classes']}")
    return fitted


def _annotations(function: Callable[..., Any]) -> dict[str, Any]:
    """The arguments that can be given by name, each with its type (`Any` where it has none that can be read)."""
    try:
        hints = typing.get_type_hints(function)
    except (NameError, TypeError):
        hints = {}
    return {name: hints.get(name, Any) for name in options_of(function, keyword_only=False)}


def _fit(what: str, value: Any, annotation: Any) -> Any:
    try:
        return TypeAdapter(annotation, config=ConfigDict(arbitrary_types_allowed=True)).validate_python(value)
    except ValidationError as error:
        wants = "; ".join(dict.fromkeys(problem["msg"] for problem in error.errors()))
        raise InputError(f"{what} is {value!r}: {wants[0].lower() + wants[1:]}") from error
