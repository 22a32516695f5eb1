"""Sees every operator that runs below autograd: composite ones in parts, and on the meta device by shapes alone."""

import functools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from bench.measure.counting.operators import tensors_in
from bench.measure.counting.shapes import run_by_shape
from bench.measure.counting.twin import on_device

# Fused on every device that runs a network for its result, so split only where autograd splits it.
_KEPT_WHOLE = {"aten::scaled_dot_product_attention"}
W = TypeVar("W", bound="Watch")


class Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch leaves it untyped
    """Active as a context, it runs each operator and tells `saw` of it. `device` is where the tensors are."""

    supports_higher_order_operators = True

    def __init__(self, device: str) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        self._is_meta = device == "meta"

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """No: skipping would import torch._dynamo at the first operator, which takes as long as importing torch."""
        return False

    def saw(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
        """Called after each operator; the arguments are those it ran with."""

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        if _is_composite(func):
            with self:
                return func.decompose(*args, **kwargs)
        if self._is_meta:
            args, kwargs = _without_data(func, args, kwargs)
        out = run_by_shape(func, args, kwargs) if self._is_meta else func(*args, **kwargs)
        self.saw(func, args, kwargs, out)
        return out


@functools.cache
def hidden_from_compiler(watch: type[W]) -> type[W]:
    """The same class for models that call the compiler, such as by `flex_attention`, which must not look into it."""
    dispatch = torch.compiler.disable(watch.__torch_dispatch__)  # type: ignore[no-untyped-call]  # torch leaves it so
    return type(watch.__name__, (watch,), {"__torch_dispatch__": dispatch})


@contextmanager
def without_data() -> Iterator[None]:
    """What is built inside is built on the meta device, quickly: networks without weights, inputs without values."""
    with torch.device("meta"), Watch("meta"):
        yield


@functools.cache
def _is_composite(func: Any) -> bool:
    """Whether PyTorch runs the operator as a sequence of others: it has such a definition and no kernel of its own."""
    if not hasattr(func, "decompose") or func.name() in _KEPT_WHOLE:
        return False
    has_kernel = functools.partial(torch._C._dispatch_has_kernel_for_dispatch_key, func.name())
    return has_kernel("CompositeImplicitAutograd") and not has_kernel("CPU")


def _without_data(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Constants on another device lose their data where they meet a tensor that has none."""
    devices = {tensor.device.type for tensor in tensors_in((args, kwargs))}
    if len(devices) < 2 or "meta" not in devices or getattr(getattr(func, "_schema", None), "is_mutable", True):
        return args, kwargs
    return on_device(args, "meta"), on_device(kwargs, "meta")
