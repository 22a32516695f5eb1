"""Copy a model and its inputs to another device without touching or allocating the original's weights."""

import copy
import sys
import traceback
from collections.abc import Callable, Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from bench.core.errors import InputError

_UNINITIALIZED = (nn.UninitializedParameter, nn.UninitializedBuffer)  # of lazy modules, without a shape yet


def unwrapped(model: nn.Module) -> nn.Module:
    """Return the model inside `torch.compile`, DataParallel and DistributedDataParallel, which all compute the same."""
    while (inner := _wrapped_module(model)) is not None:
        model = inner
    return model


def copy_to(model: nn.Module, device: str) -> nn.Module:
    """Return a deep copy of `model` whose tensors are on `device`; only the code of hooks is shared with the original.

    On the meta device the copy takes no memory for tensors. Shared tensors stay shared. Locks, files, generators and
    other objects that Python cannot copy are shared with the original. Compiled modules are replaced by what was
    compiled. Raises InputError if the model holds tensors that cannot be copied, and NotImplementedError for
    TorchScript on the meta device.
    """
    model = unwrapped(model)
    memo: dict[int, Any] = {}
    for tensor in [*model.parameters(), *model.buffers()]:
        memo[id(tensor)] = on_device(tensor, device)
    try:
        with torch.no_grad(), _TensorsCopiedTo(device):
            copied_model = _deep_copy(model, memo)
    except Exception as error:  # a user's module may raise anything when it is copied
        raise InputError(
            f"{type(model).__name__} cannot be copied, and only copies are counted, never your model: {error}"
        ) from error
    for copied, original in zip(copied_model.parameters(), model.parameters(), strict=True):
        if copied.device.type != device:
            raise NotImplementedError("TorchScript modules keep their weights on their own device")
        if not isinstance(copied, nn.UninitializedParameter):
            copied.requires_grad_(original.requires_grad)
    for module in copied_model.modules():
        if isinstance(module, nn.DataParallel):
            module.device_ids = []  # runs its module where the copy is, not on the GPUs of the original
    return copied_model


def copies_for(model: nn.Module, arguments: tuple[Any, ...], device: str) -> tuple[nn.Module, tuple[Any, ...]]:
    """Return copies of `model` and `arguments` on `device`; lazy modules have got their shapes from the arguments."""
    copied, inputs = copy_to(model, device), on_device(arguments, device)
    if any(isinstance(p, _UNINITIALIZED) for p in _all_tensors(copied)):
        modes = {module: module.training for module in copied.modules()}
        copied.eval()  # so that the pass changes no statistics
        with torch.no_grad():
            copied(*inputs)
        for module, is_training in modes.items():
            module.training = is_training
    return copied, inputs


def _all_tensors(model: nn.Module) -> list[Tensor]:
    return [*model.parameters(), *model.buffers()]


def _wrapped_module(model: nn.Module) -> nn.Module | None:
    """Return the module inside a wrapper, or None if `model` is not one."""
    if isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
        return cast("nn.Module", model.module)
    return cast("nn.Module", model._orig_mod) if _is_compiled(model) else None


def _is_compiled(module: nn.Module) -> bool:
    # Nothing is compiled before the compiler is imported; importing it here would take as long as importing torch.
    compiler = sys.modules.get("torch._dynamo.eval_frame")
    return compiler is not None and isinstance(module, compiler.OptimizedModule)


def _deep_copy(model: nn.Module, memo: dict[int, Any]) -> nn.Module:
    """Deep copy `model`, sharing what cannot be copied; `memo` has what was copied before.

    Only the attempt shows what cannot be copied, so it is repeated until nothing else is found.
    """
    shared: dict[int, Any] = {}
    by_state: dict[int, nn.Module] = {}
    while True:
        attempt = {**memo, **{key: _shared_or_cloned(value) for key, value in shared.items()}}
        try:
            return _copied_with(model, attempt, by_state)
        except Exception as error:  # each kind of object that cannot be copied raises its own type
            obstacle = _innermost_of_deepcopy(error)
            if id(obstacle) in shared or id(obstacle) in by_state or isinstance(obstacle, Tensor | None):
                raise
            if isinstance(obstacle, nn.Module):
                by_state[id(obstacle)] = obstacle
            else:
                shared.update({id(one): one for one in _of_same_type(obstacle, model)})


def _copied_with(model: nn.Module, memo: dict[int, Any], by_state: Mapping[int, nn.Module]) -> nn.Module:
    """Deep copy `model`; modules in `by_state` refuse `deepcopy`, so their attributes are copied one by one."""
    for key, module in by_state.items():
        memo[key] = type(module).__new__(type(module))
    for module in model.modules():
        if _wrapped_module(module) is not None and not isinstance(module, nn.DataParallel):
            memo[id(module)] = copy.deepcopy(unwrapped(module), memo)
    copied = copy.deepcopy(model, memo)
    for key, module in by_state.items():
        memo[key].__dict__.update(copy.deepcopy(module.__dict__, memo))
    return copied


def _innermost_of_deepcopy(error: Exception) -> Any:
    """Return the object that `copy.deepcopy` was copying when `error` was raised, or None."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__) if frame.f_code is copy.deepcopy.__code__]
    return frames[-1].f_locals.get("x") if frames else None


def _of_same_type(obstacle: Any, model: nn.Module) -> list[Any]:
    """Return `obstacle` and the attributes of modules that are of its type, to find them in one attempt."""
    attributes = [value for module in model.modules() for value in vars(module).values()]
    return [obstacle, *(value for value in attributes if type(value) is type(obstacle))]


def _shared_or_cloned(value: Any) -> Any:
    """Return a copy of a random number generator, which must not advance, or `value` itself."""
    return value.clone_state() if isinstance(value, torch.Generator) else value


def on_device(value: Any, device: str) -> Any:
    """Return `value` with all tensors in its lists, tuples and mappings replaced by copies on `device`.

    Shape, strides, type and `requires_grad` stay. Copies of meta tensors get standard-normal or zero values.
    """
    if isinstance(value, _UNINITIALIZED):
        return type(value)(requires_grad=value.requires_grad, device=device, dtype=value.dtype)  # type: ignore[call-arg]
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
