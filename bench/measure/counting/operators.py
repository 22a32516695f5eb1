"""What PyTorch says of one operator call: its name, the tensors in it, whether it is a view."""

from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor


def name_of(operator: Any) -> str:
    """`namespace::name` of an operator; a higher-order operator's own name."""
    schema = getattr(operator, "_schema", None)
    return str(schema.name) if schema is not None else f"higher_order::{operator.name()}"


def tensors_in(value: Any) -> Iterator[Tensor]:
    """Every tensor in nested lists, tuples and mappings."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from tensors_in(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from tensors_in(item)


def is_view(func: Any) -> bool:
    """Whether an operator only gives another look at its input, by its schema."""
    returns = getattr(getattr(func, "_schema", None), "returns", ())
    return bool(returns) and all(r.alias_info is not None and not r.alias_info.is_write for r in returns)
