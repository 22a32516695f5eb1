"""See every operator that runs below autograd: composite ones in parts, on the meta device by shapes alone."""

import functools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

from bench.measure.counting.model_copy import on_device
from bench.measure.counting.shapes import run_by_shape

# Fused on every device when a model runs for its result, so it is split only when autograd splits it.
_KEPT_WHOLE = {"aten::scaled_dot_product_attention"}
_PLAIN_TENSORS = {Tensor, nn.Parameter, nn.Buffer, nn.UninitializedParameter, nn.UninitializedBuffer}
W = TypeVar("W", bound="OperatorObserver")


class OperatorObserver(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch leaves it untyped
    """Context manager that runs each operator and then calls `saw`. `device` is where the tensors are."""

    supports_higher_order_operators = True

    def __init__(self, device: str) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        self._is_meta = device == "meta"

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Return False: skipping would import torch._dynamo at the first operator, as slow as importing torch."""
        return False

    def keeps_whole(self, func: Any) -> bool:
        """Return whether a composite operator is seen as one; by default it is seen in parts."""
        return False

    def saw(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
        """Called after each operator; the arguments are those it ran with."""

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if any(issubclass(kind, Tensor) and kind not in _PLAIN_TENSORS for kind in types):
            return NotImplemented  # nested and other special tensors run their own operators, which are then seen
        kwargs = dict(kwargs or {})
        if _is_composite(func) and not self.keeps_whole(func):
            with self:
                return func.decompose(*args, **kwargs)
        if self._is_meta:
            args, kwargs = _without_data(func, args, kwargs)
        out = run_by_shape(func, args, kwargs) if self._is_meta else func(*args, **kwargs)
        self.saw(func, args, kwargs, out)
        return out


@functools.cache
def without_compiler(observer: type[W]) -> type[W]:
    """Return the same class for models that call the compiler (`flex_attention`), which must not trace into it."""
    dispatch = torch.compiler.disable(observer.__torch_dispatch__)  # type: ignore[no-untyped-call]  # torch leaves it so
    return type(observer.__name__, (observer,), {"__torch_dispatch__": dispatch})


@contextmanager
def on_meta() -> Iterator[None]:
    """Build models and inputs on the meta device, fast: no storage, no values."""
    with torch.device("meta"), OperatorObserver("meta"):
        yield


@functools.cache
def _is_composite(func: Any) -> bool:
    """Return whether PyTorch runs the operator as a sequence of others, without a kernel of its own."""
    if not hasattr(func, "decompose") or func.name() in _KEPT_WHOLE:
        return False
    has_kernel = functools.partial(torch._C._dispatch_has_kernel_for_dispatch_key, func.name())
    return has_kernel("CompositeImplicitAutograd") and not has_kernel("CPU")


def _without_data(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Move constants from other devices to the meta device if an operator mixes them with meta tensors.

    Meta tensors stay the objects that they are: parameters that operators read are recognised by identity.
    """
    devices = {tensor.device.type for tensor in tensors_in((args, kwargs))}
    if len(devices) < 2 or "meta" not in devices or getattr(getattr(func, "_schema", None), "is_mutable", True):
        return args, kwargs

    def moved(tensor: Tensor) -> Tensor:
        on_meta: Tensor = tensor if tensor.device.type == "meta" else on_device(tensor, "meta")
        return on_meta

    return tree_map_only(Tensor, moved, args), tree_map_only(Tensor, moved, kwargs)


@functools.cache
def name_of(operator: Any) -> str:
    """Return `namespace::name` of an operator, or the name of a higher-order operator."""
    schema = getattr(operator, "_schema", None)
    return str(schema.name) if schema is not None else f"higher_order::{operator.name()}"


def tensors_in(value: Any) -> Iterator[Tensor]:
    """Yield every tensor in nested lists, tuples and mappings."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from tensors_in(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from tensors_in(item)


@functools.cache
def is_view(func: Any) -> bool:
    """Return whether an operator returns a view of its input, by its schema."""
    returns = getattr(getattr(func, "_schema", None), "returns", ())
    return bool(returns) and all(r.alias_info is not None and not r.alias_info.is_write for r in returns)
