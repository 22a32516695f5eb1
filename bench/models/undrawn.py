"""Networks built for their shapes alone: the meta device, and no random numbers drawn for weights that hold nothing."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

FILLS = (Tensor.normal_, Tensor.uniform_, Tensor.fill_, Tensor.zero_)


@contextmanager
def undrawn() -> Iterator[None]:
    """Build on the meta device and leave first weights undrawn.

    Drawing them takes most of building a network, and the first draw on the meta device imports torch's compiler.
    """
    with torch.device("meta"), _Undrawn():
        yield


class _Undrawn(TorchFunctionMode):
    """Leaves meta tensors as they are where they would be filled."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        given = kwargs or {}
        if func in FILLS or getattr(func, "__module__", "") == "torch.nn.init":
            target = args[0] if args else given["tensor"]
            if target.is_meta:
                return target
        return func(*args, **given)
