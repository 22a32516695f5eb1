"""Builds models on the meta device: shapes without storage, and without drawing random weights."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

FILLS = (Tensor.normal_, Tensor.uniform_, Tensor.fill_, Tensor.zero_)


@contextmanager
def build_on_meta() -> Iterator[None]:
    """Within this context, models are built on the meta device and their initialisation is skipped.

    Initialising takes most of the time of building a model, and the first random draw or `arange` on the meta device
    imports torch's compiler.
    """
    with torch.device("meta"), _SkipInitialisation():
        yield


class _SkipInitialisation(TorchFunctionMode):
    """Returns meta tensors unchanged from functions that would fill them, and ranges of numbers without values."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        given = kwargs or {}
        if func in FILLS or getattr(func, "__module__", "") == "torch.nn.init":
            target = args[0] if args else given["tensor"]
            if target.is_meta:
                return target
        if func is torch.arange and given.keys() <= {"dtype"} and 1 <= len(args) <= 2:
            start, end = (0, *args)[-2:]
            if type(start) is type(end) is int and end >= start:
                return torch.empty(end - start, dtype=given.get("dtype") or torch.int64)
        return func(*args, **given)
