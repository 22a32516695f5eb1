"""What goes into and comes out of the layers of a model while a counter runs it."""

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
    """One call of a module that its hooks saw: the shapes of its first input and first output."""

    input: tuple[int, ...]
    output: tuple[int, ...]
    arguments: tuple[Any, ...]


def watch_calls(model: nn.Module) -> dict[int, list[Call]]:
    """Calls of every module, by its identity, filled by hooks from now on."""
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
    """Multiplications per output element of a convolution, per input element of a transposed one."""
    return weight.numel() // weight.shape[0]


def gate_products(layer: nn.Module, calls: Sequence[Call], *, with_projection: bool = True) -> int:
    """Products of all gates of an RNN, GRU or LSTM, or of one of their cells, over all its calls."""
    weights = [
        parameter.numel()
        for name, parameter in layer.named_parameters()
        if name.startswith("weight_") and (with_projection or not name.startswith("weight_hr"))
    ]
    return sum(weights) * sum(rows_seen(call) for call in calls)


def rows_seen(call: Call) -> int:
    """Sequences times steps of a recurrent layer; rows of a cell."""
    return prod(call.input[:-1])
