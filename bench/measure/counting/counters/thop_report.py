"""thop (pytorch-OpCounter): a rule for each exact type of module, run as a forward hook.

The rules restated here were read from its source; the printed number is its own.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from math import prod
from typing import Any

from torch import Tensor, nn

from bench.measure.counting.counters.counter_report import CounterReport, ReportPart, aliases_of, exact
from bench.measure.counting.counters.layer_calls import (
    CELLS,
    RECURRENT,
    TRANSPOSED,
    Call,
    gate_products,
    kernel_size,
    record_calls,
    rows_of_call,
)

CONVENTION = "MACs; adds 4 per element for normalisation, average pooling, softmax, biases of recurrent layers"
CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


def count_with_thop(model: nn.Module, inputs: tuple[Tensor, ...]) -> CounterReport:
    """Return thop's count of one forward pass. Leaves hooks on `model`."""
    from thop import profile
    from thop.profile import register_hooks

    seen = record_calls(model)
    printed, _, table = profile(model, inputs, verbose=False, ret_layer_info=True)
    ruled = {path: module for path, module in model.named_modules() if type(module) in register_hooks}
    values = _values(model, table, ruled)
    if "" in ruled:
        values[""] = printed - sum(values.values())
    visits = _visits(model)
    lines = [
        _line(path, module, exact(values[path]), seen[id(module)], times=visits[id(module)])
        for path, module in ruled.items()
        if values.get(path)
    ]
    return CounterReport(
        tool="thop",
        version=version("thop"),
        convention=CONVENTION,
        printed=exact(printed),
        lines=tuple(lines),
        blind=_blind(model, ruled, seen),
        aliases=aliases_of(model),
    )


def _values(model: nn.Module, table: Mapping[str, Any], ruled: Mapping[str, nn.Module]) -> dict[str, float]:
    """Return what each module adds to the total, under its first path in the model."""
    first = aliases_of(model)
    values: dict[str, float] = {}

    def walk(prefix: str, entries: Mapping[str, Any]) -> None:
        for name, (amount, _, below) in entries.items():
            path = f"{prefix}{name}"
            if first[path] in ruled and not below:
                values[first[path]] = values.get(first[path], 0.0) + amount
            walk(f"{path}.", below)

    walk("", table)
    return values


def _visits(model: nn.Module) -> Counter[int]:
    """Return how often a walk over children, such as thop's, visits each module."""
    visits = Counter({id(model): 1})
    for child in model.children():
        visits.update(_visits(child))
    return visits


def _line(path: str, module: nn.Module, value: int | float, calls: Sequence[Call], *, times: int) -> ReportPart:
    """Return the part of one module. Under several names it has that many hooks, and each name adds their sum."""
    once = int(value) // times**2
    products, true, cause = _products(module, once, calls)
    if times > 1 and products:
        cause = f"{cause}; " * bool(cause) + f"shared under {times} names, it counts {times} x {times} times"
    return ReportPart(
        module=path,
        counted=type(module).__name__,
        value=int(value),
        products=products * times**2,
        true_products=true,
        cause=cause,
    )


def _products(module: nn.Module, value: int, calls: Sequence[Call]) -> tuple[int, int, str]:
    """Return the products in a value, the true number of products, and why they differ."""
    if isinstance(module, TRANSPOSED):
        true = sum(prod(call.input) for call in calls) * kernel_size(module.weight)
        return value, true, "a transposed convolution is counted by its output" if true != value else ""
    if isinstance(module, (*CONVOLUTIONS, nn.Linear)):
        return value, value, ""
    if isinstance(module, (*RECURRENT, *CELLS)):
        products = value - _beyond_gates(module) * sum(rows_of_call(call) for call in calls)
        true = gate_products(module, calls)
        return products, true, "its projection is ignored" if getattr(module, "proj_size", 0) else ""
    return 0, 0, ""


def _beyond_gates(module: Any) -> int:
    """Return the additions, biases and elementwise products that thop counts per step of a recurrent layer."""
    hidden, has_bias = module.hidden_size, bool(module.bias)
    per_gate = hidden + 2 * hidden * has_bias
    per_cell = {"RNN": per_gate, "GRU": 3 * per_gate + 4 * hidden, "LSTM": 4 * per_gate + 4 * hidden}
    cells: int = getattr(module, "num_layers", 1) * (2 if getattr(module, "bidirectional", False) else 1)
    return int(per_cell[type(module).__name__.removesuffix("Cell")]) * cells


def _blind(model: nn.Module, ruled: Mapping[str, nn.Module], seen: Mapping[int, Sequence[Call]]) -> dict[str, str]:
    reasons = {}
    for path, module in model.named_modules():
        if path not in ruled:
            reasons[path] = f"no rule for {type(module).__name__}"
        elif not seen[id(module)]:
            reasons[path] = "called past its hooks, by forward() or a fused kernel"
    return reasons
