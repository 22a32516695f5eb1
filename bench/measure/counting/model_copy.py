"""Copy a model and its inputs to another device without touching or allocating the original's weights."""

import copy
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from bench.core.errors import InputError


def copy_to(model: nn.Module, device: str) -> nn.Module:
    """Return a deep copy of `model` whose tensors are on `device`; only the code of hooks is shared with the original.

    On the meta device the copy takes no memory for tensors. Shared tensors stay shared. Raises InputError if the
    model holds something that cannot be copied, and NotImplementedError for TorchScript on the meta device.
    """
    memo: dict[int, Any] = {}
    for tensor in [*model.parameters(), *model.buffers()]:
        memo[id(tensor)] = on_device(tensor, device)
    try:
        with torch.no_grad(), _TensorsCopiedTo(device):
            copied_model = copy.deepcopy(model, memo)
    except Exception as error:
        raise InputError(
            f"{type(model).__name__} cannot be copied, and only copies are counted, never your model: {error}"
        ) from error
    for copied, original in zip(copied_model.parameters(), model.parameters(), strict=True):
        if copied.device.type != device:
            raise NotImplementedError("TorchScript modules keep their weights on their own device")
        copied.requires_grad_(original.requires_grad)
    return copied_model


def on_device(value: Any, device: str) -> Any:
    """Return `value` with all tensors in its lists, tuples and mappings replaced by copies on `device`.

    Shape, strides, type and `requires_grad` stay. Copies of meta tensors get standard-normal or zero values.
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
    made = torch.zeros(tensor.shape, dtype=tensor.dtype, device=device)
    return made.normal_(generator=torch.Generator().manual_seed(0)) if tensor.is_floating_point() else made


class _TensorsCopiedTo(TorchFunctionMode):
    """Moves tensors that are neither parameters nor buffers to the device when a model is copied."""

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
