"""Parameters of a model by identity: a weight under two names is one weight."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from bench.measure.counting.module_paths import ROOT, with_parents


@dataclass(frozen=True, kw_only=True)
class Parameters:
    """Numbers of elements and bytes. `buffers` includes those that are not part of the state dict.

    Packed weights of quantised layers count with their own size (one byte for int8). `total` and `total_bytes` are None
    if there are packed weights that cannot be unpacked; `unreadable` names their modules.
    """

    total: int | None
    trainable: int
    buffers: int
    total_bytes: int | None
    buffer_bytes: int
    by_module: dict[str, int] = field(repr=False)
    unreadable: tuple[str, ...] = ()


def parameters_of(model: nn.Module) -> Parameters:
    """Count the parameters and buffers of `model`; `by_module` includes submodules, each weight once."""
    packed, unreadable = _packed_weights(model)
    owned = _by_module(model, packed)
    parameters, buffers = list(owned[ROOT].values()), _unique(model.buffers())
    return Parameters(
        total=None if unreadable else _elements(parameters),
        trainable=_elements(p for p in parameters if p.requires_grad),
        buffers=_elements(buffers),
        total_bytes=None if unreadable else sum(p.numel() * p.element_size() for p in parameters),
        buffer_bytes=sum(b.numel() * b.element_size() for b in buffers),
        by_module={path: _elements(tensors.values()) for path, tensors in owned.items()},
        unreadable=unreadable,
    )


def _by_module(model: nn.Module, packed: Mapping[int, Sequence[Tensor]]) -> dict[str, dict[int, Tensor]]:
    owned: dict[str, dict[int, Tensor]] = {ROOT: {}}
    for path, module in model.named_modules(remove_duplicate=False):
        owned.setdefault(path, {})
        for parameter in [*module.parameters(recurse=False), *packed.get(id(module), ())]:
            for holder in with_parents(path):
                owned.setdefault(holder, {})[id(parameter)] = parameter
    return owned


def _packed_weights(model: nn.Module) -> tuple[dict[int, list[Tensor]], tuple[str, ...]]:
    """Return the weights inside the packed objects of quantised layers by the identity of the module that holds them.

    The second value names modules with an object that cannot be unpacked.
    """
    weights: dict[int, list[Tensor]] = {}
    unreadable: list[str] = []
    unpacked: dict[int, list[Tensor] | None] = {}
    for path, module in model.named_modules():
        for value in vars(module).values():
            if not isinstance(value, torch.ScriptObject):
                continue
            if id(value) not in unpacked:
                unpacked[id(value)] = _unpacked(value)
            tensors = unpacked[id(value)]
            if tensors is None:
                unreadable.append(path)
            else:
                weights.setdefault(id(module), []).extend(tensors)
    return weights, tuple(unreadable)


def _unpacked(packed: Any) -> list[Tensor] | None:
    """Return weight and bias of one packed layer, the tensors of a packed recurrent cell, or None."""
    try:
        state = packed.unpack() if packed._has_method("unpack") else packed.__getstate__()
    except Exception:  # each kind of packed object fails in its own way; the caller reports the module
        return None
    tensors = list(_tensors_of_state(state))
    return tensors or None


def _tensors_of_state(state: Any) -> Iterator[Tensor]:
    """Yield the tensors in the nested state of a packed object, unpacking the objects inside it."""
    if isinstance(state, Tensor):
        yield state
    elif isinstance(state, torch.ScriptObject):
        yield from _unpacked(state) or ()
    elif isinstance(state, list | tuple):
        for item in state:
            yield from _tensors_of_state(item)


def _unique(tensors: Iterable[Tensor]) -> list[Tensor]:
    return list({id(tensor): tensor for tensor in tensors}.values())


def _elements(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.numel() for tensor in tensors)
