"""A copy of a model and its inputs on another device, made without touching or allocating the original's weights."""

import copy
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from bench.core.errors import InputError


def twin_of(model: nn.Module, device: str) -> nn.Module:
    """A deep copy of `model` whose tensors are on `device`: nothing is shared with the original, hooks' code apart.

    On the meta device no memory is taken for tensors. Tensors that are one object stay one object. InputError where
    the model holds something that cannot be copied, NotImplementedError for TorchScript on the meta device.
    """
    memo: dict[int, Any] = {}
    for tensor in [*model.parameters(), *model.buffers()]:
        memo[id(tensor)] = on_device(tensor, device)
    try:
        with torch.no_grad(), _TensorsCopiedTo(device):
            twin = copy.deepcopy(model, memo)
    except Exception as error:
        raise InputError(
            f"{type(model).__name__} cannot be copied, and only copies are counted so that yours is left alone: {error}"
        ) from error
    for copied, original in zip(twin.parameters(), model.parameters(), strict=True):
        if copied.device.type != device:
            raise NotImplementedError("TorchScript modules keep their weights where they are")
        copied.requires_grad_(original.requires_grad)
    return twin


def on_device(value: Any, device: str) -> Any:
    """`value` with all tensors in its lists, tuples and mappings replaced by copies on `device`.

    Shape, strides, type and `requires_grad` stay. From the meta device come standard-normal or zero values.
    """
    if isinstance(value, nn.Parameter):
        return nn.Parameter(_copied(value, device), requires_grad=value.requires_grad)
    if isinstance(value, Tensor):
        return _copied(value, device).requires_grad_(value.requires_grad)
    if isinstance(value, Mapping):
        return {key: on_device(item, device) for key, item in value.items()}
    if isinstance(value, list):
        return [on_device(item, device) for item in value]
    if isinstance(value, tuple):
        items = [on_device(item, device) for item in value]
        return type(value)(*items) if hasattr(value, "_fields") else tuple(items)
    return value


def _copied(tensor: Tensor, device: str) -> Tensor:
    with torch.no_grad():
        if device == "meta" and tensor.layout == torch.strided:
            return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device=device)
        if tensor.device.type == "meta":
            return _invented(tensor, device)
        return tensor.detach().to(device, copy=True)


def _invented(tensor: Tensor, device: str) -> Tensor:
    twin = torch.zeros(tensor.shape, dtype=tensor.dtype, device=device)
    return twin.normal_(generator=torch.Generator().manual_seed(0)) if tensor.is_floating_point() else twin


class _TensorsCopiedTo(TorchFunctionMode):
    """Tensors that a model holds outside its parameters and buffers follow it to the device when it is copied."""

    def __init__(self, device: str) -> None:
        super().__init__()
        self._device = device

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func is Tensor.__deepcopy__:
            tensor, memo = args
            memo[id(tensor)] = on_device(tensor, self._device)
            return memo[id(tensor)]
        return func(*args, **(kwargs or {}))
