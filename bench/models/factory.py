"""Builds a model by name: a family or variant of the registry, or `source:name.tag` from another package."""

import contextlib
import fnmatch
import functools
import inspect
import typing
from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from typing import Any

import torch
from pydantic import ConfigDict, TypeAdapter, ValidationError
from torch import nn

from bench.core.errors import BenchError, InputError, suggest
from bench.core.input_protocol import InputProtocol
from bench.core.model_name import is_registered_name
from bench.core.registry import MODELS, ModelEntry, options_of
from bench.core.validation import plain_message, spelling_hint
from bench.models.base import LAYOUTS, Layout, set_layout
from bench.models.input_channels import RGB, set_input_channels
from bench.models.meta import build_on_meta
from bench.models.sources import pretrained_name, source_entry, source_names, source_weights
from bench.models.weights.checkpoint import Checkpoint, read_checkpoint
from bench.models.weights.conventions import fixed_arguments
from bench.models.weights.loading import load_checkpoint
from bench.models.weights.matching import classes_in
from bench.reference.zoo_files import zoo_files

MOST_CLASSES = 1_000_000_000  # torch overflows far above, with an error of many lines


def create_model(
    name: str,
    *,
    num_classes: int | None = None,
    weights: str | PathLike[str] | None = None,
    entry: str | None = None,
    needs_head: bool = True,
    device: str | torch.device | None = None,
    pretrained: bool = False,
    in_chans: int | None = None,
    drop_rate: float | None = None,
    checkpoint_path: str | PathLike[str] | None = None,
    **arguments: Any,
) -> nn.Module:
    """Return the model called `name`, in training mode, its weights initialised or read from the file `weights`.

    `num_classes` None is what the head in `weights` has, else the model's own default. `entry` is the place of the
    weights in a file that holds several (`read_checkpoint`). What was loaded is in the model's `weights_report`, a
    `LoadReport`. With `needs_head=False`, a classifier that the file lacks, or has in another form, stays random.
    Under `torch.device("meta")`, or with `device="meta"`, nothing is allocated. `pretrained` asks
    torchvision or timm for the published weights that it prefers.

    A model of the user may take `(B, T, C, H, W)`. With `layout="BTCHW"`, or this as an attribute of the model or its
    factory, it is given `(B, C, T, H, W)` as all others, and a hook swaps channels and frames.

    As in timm, `in_chans`, `drop_rate` and `checkpoint_path` may be given for `in_channels`, `dropout` and `weights`.
    A model of this package or of torchvision that is written for RGB takes any number of `in_channels`, see
    `set_input_channels`.

    Raises UnknownNameError for a name, InputError for an unknown or impossible argument, or for published weights of
    a model that has none to fetch, WeightsError for a file that does not fit.
    """
    _move_alias(arguments, "in_chans", in_chans, "in_channels")
    _move_alias(arguments, "drop_rate", drop_rate, "dropout")
    if checkpoint_path is not None and weights is not None:
        raise InputError("checkpoint_path is another name of weights; give one of them")
    weights = checkpoint_path if weights is None else weights
    if entry is not None and weights is None:
        raise InputError(f"entry {entry!r} names weights within a file, and no file of weights is given")
    if pretrained and weights is not None:
        raise InputError(f"pretrained asks for published weights, and {weights} is given as well; give one of them")
    model_entry = find_model(pretrained_name(name) if pretrained else name)
    given = {**arguments} if num_classes is None else {"num_classes": num_classes, **arguments}
    is_meta = torch.device(device or torch.get_default_device()).type == "meta"
    with build_on_meta() if is_meta else contextlib.nullcontext():
        model = _build(model_entry, given)
        if weights is not None:
            checkpoint = read_checkpoint(weights, entry=entry)
            model = _with_weights(model_entry, given, model, checkpoint, needs_head=needs_head)
    return model if device is None or is_meta else model.to(device)


def _move_alias(arguments: dict[str, Any], alias: str, value: Any, name: str) -> None:
    """Put the value of `alias` under the argument's own name; raises InputError if both are given."""
    if value is None:
        return
    if name in arguments:
        raise InputError(f"{alias} is another name of {name}; give one of them")
    arguments[name] = value


def find_model(name: str) -> ModelEntry:
    """Return the entry of the model `name`, of the registry or another source; raises UnknownNameError, InputError."""
    return MODELS.get(name) if is_registered_name(name) else source_entry(name)


Patterns = str | Sequence[str]
"""One shell pattern such as `resnet3d*`, or several."""


def list_models(filter: Patterns = "*", *, exclude_filters: Patterns = (), pretrained: bool = False) -> list[str]:  # noqa: A002
    """Return the names that match a shell pattern of `filter` and none of `exclude_filters`, sorted.

    A pattern with a colon asks a source: `torchvision:*`, `timm:vit*`. With `pretrained`, only models are returned of
    which a published file of weights is known: see `list_pretrained` for the files.
    """
    names = {name for pattern in _patterns(filter) for name in _matching(pattern)}
    names -= {name for pattern in _patterns(exclude_filters) for name in fnmatch.filter(names, pattern)}
    return sorted(name for name in names if not pretrained or published_weights(name))


def list_pretrained(filter: Patterns = "*", *, exclude_filters: Patterns = ()) -> list[str]:  # noqa: A002
    """Return what published weights are known of the models that match, sorted.

    For torchvision and timm these are names with a tag, which `create_model` accepts; for models of this package, the
    identifiers of files, which `vbench weights get` fetches.
    """
    models = list_models(filter, exclude_filters=exclude_filters)
    return sorted({weights for name in models for weights in published_weights(name)})


def published_weights(name: str) -> list[str]:
    """Return the published weights that are known of one model; see `list_pretrained`."""
    if not is_registered_name(name):
        return source_weights(name)
    return [file.id for file in zoo_files() if file.model == name]


def model_entrypoint(name: str) -> Callable[..., nn.Module]:
    """Return the function that builds the model `name`, with the arguments of the variant bound.

    Raises UnknownNameError for a name that is not known.
    """
    entry = find_model(name)
    return functools.partial(entry.function, **entry.preset) if entry.preset else entry.function


def _patterns(given: Patterns) -> list[str]:
    return [given] if isinstance(given, str) else list(given)


def _matching(pattern: str) -> list[str]:
    source, colon, _ = pattern.partition(":")
    return fnmatch.filter(source_names(source), pattern) if colon else MODELS.names(pattern)


def is_model(name: str) -> bool:
    """Return whether `create_model` knows `name`."""
    try:
        find_model(name)
    except InputError:
        return False
    return True


def checked_arguments(entry: ModelEntry, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return `given` with each value converted to its annotated type; raises InputError for any that does not fit."""
    allowed = _annotations(entry.function)
    takes_any = any(p.kind is p.VAR_KEYWORD for p in inspect.signature(entry.function).parameters.values())
    fitted = {}
    for key, value in given.items():
        if key not in allowed and not takes_any:
            raise InputError(f"{entry.name} has no argument {key!r}; {suggest(key, allowed)}")
        fitted[key] = _fit(f"{entry.name}'s {key}", value, allowed.get(key, Any))
    for key in ("num_classes", "in_channels"):
        if isinstance(fitted.get(key), int):
            _at_least_one(entry, key, fitted[key])
    classes = fitted.get("num_classes")
    if isinstance(classes, int) and classes > MOST_CLASSES:
        raise InputError(f"{entry.name}'s num_classes must be at most {MOST_CLASSES:,}, found {classes}")
    return fitted


def _at_least_one(entry: ModelEntry, key: str, value: int) -> None:
    if value < 1:
        raise InputError(f"{entry.name}'s {key} must be at least 1, found {value}")


def _build(entry: ModelEntry, given: Mapping[str, Any]) -> nn.Module:
    layout, given = _split_layout(entry, given)
    channels, given = _split_channels(entry, given)
    arguments = {**entry.preset, **checked_arguments(entry, given)}
    try:
        model = entry.function(**arguments)
    except BenchError:
        raise
    except (TypeError, ValueError, LookupError, AttributeError, RuntimeError, AssertionError) as error:
        shown = ", ".join(f"{key}={value!r}" for key, value in arguments.items()) or "its defaults"
        raise InputError(f"{entry.name} cannot be built with {shown}: {error}") from error
    if not isinstance(model, nn.Module):
        raise InputError(f"{entry.name} must return an nn.Module, found a {type(model).__name__}")
    if channels is not None:
        set_input_channels(model, channels, name=entry.name)
    set_layout(model, layout or _stated_layout(model, entry))
    if entry.input_protocol:
        model.__dict__["input_protocol"] = {**entry.input_protocol, **_parts_of(getattr(model, "input_protocol", None))}
    return model


def has_own_layout(entry: ModelEntry) -> bool:
    """Return whether a model may take another layout than `(B, C, T, H, W)`: only code of the user may."""
    return not str(getattr(entry.function, "__module__", "")).startswith("bench.")


def _split_layout(entry: ModelEntry, given: Mapping[str, Any]) -> tuple[Layout | None, dict[str, Any]]:
    """Return the layout that the caller gives, and the arguments of the factory; a factory's own `layout` stays."""
    rest = dict(given)
    if "layout" not in rest or "layout" in entry.arguments or not has_own_layout(entry):
        return None, rest
    layout = str(rest.pop("layout"))
    for known in LAYOUTS:
        if layout.upper() == known:
            return known, rest
    raise InputError(f"unknown layout {layout!r} of {entry.name}; {suggest(layout, LAYOUTS)}")


def _split_channels(entry: ModelEntry, given: Mapping[str, Any]) -> tuple[int | None, dict[str, Any]]:
    """Return the channels that are wanted of a model written for RGB, and the arguments of its factory."""
    rest = dict(given)
    if "in_channels" not in rest or "in_channels" in entry.arguments or has_own_layout(entry):
        return None, rest
    channels: int = _fit(f"{entry.name}'s in_channels", rest.pop("in_channels"), int)
    _at_least_one(entry, "in_channels", channels)
    return (None if channels == RGB else channels), rest


def _stated_layout(model: nn.Module, entry: ModelEntry) -> Layout:
    """Return the layout that a model or its factory states; an attribute of this name may mean something else."""
    stated = getattr(model, "layout", getattr(entry.function, "layout", None))
    return "BTCHW" if stated == "BTCHW" and has_own_layout(entry) else "BCTHW"


def _parts_of(protocol: InputProtocol | Mapping[str, Any] | None) -> Mapping[str, Any]:
    """Return the parts of a protocol that a model states itself."""
    return protocol.parts if isinstance(protocol, InputProtocol) else protocol or {}


def _with_weights(
    entry: ModelEntry, given: Mapping[str, Any], model: nn.Module, checkpoint: Checkpoint, *, needs_head: bool
) -> nn.Module:
    """Return `model` with weights, rebuilt with what the file shows and the caller left open.

    That is the number of classes, and what the code base of the file fixes, such as strides.
    """
    shown = fixed_arguments(checkpoint, entry.family)
    classes = classes_in(checkpoint, model)
    if classes is not None and "num_classes" in entry.arguments:
        shown["num_classes"] = classes
    shown = {name: value for name, value in shown.items() if name not in given and entry.arguments[name] != value}
    if shown:
        model = _build(entry, {**shown, **given})
    model.__dict__["weights_report"] = load_checkpoint(model, checkpoint, needs_head=needs_head)
    return model


def _annotations(function: Callable[..., Any]) -> dict[str, Any]:
    """Return the arguments that can be given by name, each with its type, or `Any` if the type cannot be read."""
    try:
        hints = typing.get_type_hints(function.__init__ if inspect.isclass(function) else function)
    except (NameError, TypeError, AttributeError):
        hints = {}
    return {name: hints.get(name, Any) for name in options_of(function, keyword_only=False)}


def _fit(what: str, value: Any, annotation: Any) -> Any:
    try:
        return TypeAdapter(annotation, config=ConfigDict(arbitrary_types_allowed=True)).validate_python(value)
    except ValidationError as error:
        problems = [dict(problem) for problem in error.errors()]
        wants = "; ".join(dict.fromkeys(f"{plain_message(problem)}{spelling_hint(problem)}" for problem in problems))
        raise InputError(f"{what} is {value!r}: {wants}") from error
