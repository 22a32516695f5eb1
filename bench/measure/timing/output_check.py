"""Checks what a timed forward pass returns: no tensor is an error, values that are not finite are recorded."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import torch
from torch import Tensor

from bench.core.errors import InputError
from bench.measure.context import CaseContext

DETAIL = "outputs"


def check_outputs(case: CaseContext, forward: Callable[[], object]) -> None:
    """Run one pass and record in the detail `outputs` whether all its values are finite; once per case.

    Raises InputError if the pass returns no tensor: a model without a `return` may skip its last layers when compiled,
    and its time is that of no whole pass.
    """
    if DETAIL in case.details:
        return
    output = forward()
    tensors = list(tensors_in(output))
    if not any(tensor.numel() for tensor in tensors):
        found = "empty tensors only" if tensors else _name_of(output)
        raise InputError(f"forward of {case.point.model} returns {found}; it must return the logits as a tensor")
    are_finite = all(map(_is_finite, tensors))
    case.note(DETAIL, {"are_finite": are_finite})
    if not are_finite:
        case.warn(
            "some outputs are not finite (nan or inf), so this timing is not ranked",
            "check the weights, and try a precision with a wider range, such as bf16 for fp16",
        )


def tensors_in(output: object) -> Iterator[Tensor]:
    """Every tensor in an output: a tensor itself, or nested in mappings, sequences and dataclasses."""
    if isinstance(output, Tensor):
        yield output
    elif isinstance(output, Mapping):
        for value in output.values():
            yield from tensors_in(value)
    elif isinstance(output, list | tuple | set | frozenset):
        for value in output:
            yield from tensors_in(value)
    elif is_dataclass(output) and not isinstance(output, type):
        for field in fields(output):
            yield from tensors_in(getattr(output, field.name))


def _is_finite(tensor: Tensor) -> bool:
    if not (tensor.is_floating_point() or tensor.is_complex()):
        return True
    wide: Any = tensor.float() if tensor.is_floating_point() else tensor  # float8 has no isfinite
    return bool(torch.isfinite(wide).all())


def _name_of(output: object) -> str:
    return "None" if output is None else f"a {type(output).__name__} without tensors"
