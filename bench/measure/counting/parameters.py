"""Parameters of a model by identity: a weight under two names is one weight."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from torch import Tensor, nn

from bench.measure.counting.module_paths import ROOT, with_parents


@dataclass(frozen=True, kw_only=True)
class Parameters:
    """Numbers of elements and bytes. `buffers` includes those that are not part of the state dict."""

    total: int
    trainable: int
    buffers: int
    total_bytes: int
    buffer_bytes: int
    by_module: dict[str, int] = field(repr=False)


def parameters_of(model: nn.Module) -> Parameters:
    """Count the parameters and buffers of `model`; `by_module` includes submodules, each weight once."""
    owned = _by_module(model)
    parameters, buffers = list(owned[ROOT].values()), _unique(model.buffers())
    return Parameters(
        total=_elements(parameters),
        trainable=_elements(p for p in parameters if p.requires_grad),
        buffers=_elements(buffers),
        total_bytes=sum(p.numel() * p.element_size() for p in parameters),
        buffer_bytes=sum(b.numel() * b.element_size() for b in buffers),
        by_module={path: _elements(tensors.values()) for path, tensors in owned.items()},
    )


def _by_module(model: nn.Module) -> dict[str, dict[int, Tensor]]:
    owned: dict[str, dict[int, Tensor]] = {ROOT: {}}
    for path, module in model.named_modules(remove_duplicate=False):
        owned.setdefault(path, {})
        for parameter in module.parameters(recurse=False):
            for holder in with_parents(path):
                owned.setdefault(holder, {})[id(parameter)] = parameter
    return owned


def _unique(tensors: Iterable[Tensor]) -> list[Tensor]:
    return list({id(tensor): tensor for tensor in tensors}.values())


def _elements(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.numel() for tensor in tensors)
