"""Shapes that enter and leave the layers of a model while a counter runs it."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

from torch import Tensor, nn

RECURRENT = (nn.RNN, nn.GRU, nn.LSTM)
CELLS = (nn.RNNCell, nn.GRUCell, nn.LSTMCell)
TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


@dataclass(frozen=True, kw_only=True)
class Call:
    """One call of a module, seen by a hook: the shapes of its first input, its first output and all arguments."""

    input: tuple[int, ...]
    output: tuple[int, ...]
    arguments: tuple[Any, ...]


def record_calls(model: nn.Module) -> dict[int, list[Call]]:
    """Return a dictionary of calls by the identity of the module; hooks fill it from now on."""
    seen: dict[int, list[Call]] = {id(module): [] for module in model.modules()}

    def see(module: nn.Module, inputs: Any, output: Any) -> None:
        result = output
        while isinstance(result, list | tuple) and result:
            result = result[0]
        if inputs and isinstance(inputs[0], Tensor) and isinstance(result, Tensor):
            arguments = tuple(tuple(t.shape) if isinstance(t, Tensor) else None for t in inputs)
            call = Call(input=tuple(inputs[0].shape), output=tuple(result.shape), arguments=arguments)
            seen[id(module)].append(call)

    for module in model.modules():
        module.register_forward_hook(see)
    return seen


def kernel_size(weight: Tensor) -> int:
    """Return the multiplications per output element of a convolution, or per input element of a transposed one."""
    return weight.numel() // weight.shape[0]


def gate_products(layer: nn.Module, calls: Sequence[Call], *, with_projection: bool = True) -> int:
    """Return the products of all gates of an RNN, GRU, LSTM or cell, over all its calls."""
    weights = [
        parameter.numel()
        for name, parameter in layer.named_parameters()
        if name.startswith("weight_") and (with_projection or not name.startswith("weight_hr"))
    ]
    return sum(weights) * sum(rows_of_call(call) for call in calls)


def rows_of_call(call: Call) -> int:
    """Return sequences times steps for a recurrent layer, rows for a cell."""
    return prod(call.input[:-1])
