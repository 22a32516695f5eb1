"""ptflops with both its backends: hooks by type of module and patched functions, or the operators below autograd.

The rules restated here were read from its source; the printed number is its own.
"""

import contextlib
import io
import itertools
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from math import prod
from typing import Any

from torch import Tensor, nn

from bench.measure.counting.counters.counter_report import CounterReport, ReportPart, aliases_of, exact
from bench.measure.counting.counters.layer_calls import (
    CELLS,
    RECURRENT,
    Call,
    gate_products,
    record_calls,
    rows_of_call,
)
from bench.measure.counting.formulas import formula_of
from bench.measure.counting.module_paths import ModuleTracker
from bench.measure.counting.operator_log import OperatorLog

ADDS = {
    "pytorch": "MACs; adds biases, normalisation (2 per element), pooling, and activations twice",
    "aten": "MACs; adds biases",
}
INPUTS = "counter_input_{}"


class InspectedModel(nn.Module):
    """Passes named inputs on by position, and calls `read_values` before ptflops removes its attributes."""

    def __init__(self, model: nn.Module, read_values: Callable[[], None]) -> None:
        super().__init__()
        self.model, self.read_values = model, read_values

    def forward(self, **inputs: Tensor) -> Any:
        result = self.model(*inputs.values())
        self.read_values()
        return result


def count_with_pytorch(model: nn.Module, inputs: tuple[Tensor, ...]) -> CounterReport:
    """Return the count of the backend `pytorch`. Leaves hooks on `model`, and patches in this process."""
    import ptflops.pytorch_ops as rules

    values: dict[str, int] = {}
    lines: list[ReportPart] = []
    seen, places = record_calls(model), ModuleTracker(model)
    ruled = {path: module for path, module in model.named_modules() if type(module) in rules.MODULES_MAPPING}

    def read_values() -> None:
        values.update(_accumulated(model, ruled))

    _record_functions(rules.FUNCTIONAL_MAPPING, lines, places)
    _record_functions(rules.TENSOR_OPS_MAPPING, lines, places)
    with places.followed():
        printed = _printed(model, inputs, read_values, backend="pytorch")
    reached = {path: module for path, module in ruled.items() if path in values}
    lines += [_line(path, module, values[path], seen[id(module)], model) for path, module in reached.items()]
    return CounterReport(
        tool="ptflops-pytorch",
        version=version("ptflops"),
        convention=ADDS["pytorch"],
        printed=printed,
        lines=tuple(lines),
        blind=_blind(model, ruled, reached, seen),
        aliases=aliases_of(model),
    )


def count_with_aten(model: nn.Module, inputs: tuple[Tensor, ...]) -> CounterReport:
    """Return the count of the backend `aten`. Leaves hooks on `model`."""
    from ptflops.aten_ops import ATEN_OPS_MAPPING

    lines: list[ReportPart] = []
    places = ModuleTracker(model)
    known = {str(packet._qualified_op_name) for packet in ATEN_OPS_MAPPING}
    for packet, rule in list(ATEN_OPS_MAPPING.items()):
        ATEN_OPS_MAPPING[packet] = _recorded_operator(str(packet._qualified_op_name), rule, lines, places)
    ledger = OperatorLog(places, "cpu")
    with places.followed(), ledger:
        printed = _printed(model, inputs, lambda: None, backend="aten")
    lines += [
        ReportPart(
            module=row.module,
            counted=row.operator,
            value=0,
            products=0,
            true_products=row.macs,
            cause=f"no formula for {row.operator}",
        )
        for row in ledger.rows
        if row.macs and row.operator not in known
    ]
    return CounterReport(
        tool="ptflops-aten",
        version=version("ptflops"),
        convention=ADDS["aten"],
        printed=printed,
        lines=tuple(lines),
        aliases=aliases_of(model),
    )


def _printed(
    model: nn.Module, inputs: tuple[Tensor, ...], read_values: Callable[[], None], *, backend: str
) -> int | float:
    """Return the printed number; raises RuntimeError with the output of ptflops if it prints None."""
    from ptflops import get_model_complexity_info

    named = {INPUTS.format(index): tensor for index, tensor in enumerate(inputs)}
    printed_text = io.StringIO()
    with contextlib.redirect_stdout(printed_text), contextlib.redirect_stderr(printed_text):
        macs, _ = get_model_complexity_info(
            InspectedModel(model, read_values),
            tuple(inputs[0].shape[1:]),
            input_constructor=lambda _: named,
            backend=backend,
            as_strings=False,
            print_per_layer_stat=False,
        )
    if macs is None:
        raise RuntimeError(f"ptflops gives None: {printed_text.getvalue().strip().splitlines()[-1:]}")
    return exact(macs)


def _accumulated(model: nn.Module, ruled: Mapping[str, nn.Module]) -> dict[str, int]:
    """Return what each module adds to the total: a module with a rule hides its children, two names count twice."""
    first = {id(module): path for path, module in ruled.items()}
    values: dict[str, int] = {}

    def walk(module: nn.Module) -> None:
        if id(module) in first:
            values[first[id(module)]] = values.get(first[id(module)], 0) + int(module.__flops__)  # type: ignore[arg-type]
            return
        for child in module.children():
            walk(child)

    walk(model)
    return values


def _line(path: str, module: nn.Module, value: int, calls: Sequence[Call], model: nn.Module) -> ReportPart:
    products, true, cause = _products(module, calls)
    once = products + _beyond_products(module, calls)
    times = value // once if once and value % once == 0 else 1
    if times > 1 and products:
        cause = f"{cause}; " * bool(cause) + f"shared under {times} names, it counts {times} times"
    return ReportPart(
        module=path,
        counted=type(module).__name__,
        value=value,
        products=products * times if products else 0,
        true_products=true,
        cause=cause,
    )


def _products(module: Any, calls: Sequence[Call]) -> tuple[int, int, str]:
    """Return the products by ptflops' rule for this module, the true products, and why they differ."""
    if isinstance(module, nn.modules.conv._ConvNd):
        elements = sum(prod(call.input if module.transposed else call.output) for call in calls)
        products = elements * (module.weight.numel() // module.weight.shape[0])
        return products, products, ""
    if isinstance(module, nn.Linear):
        products = sum(prod(call.output) for call in calls) * module.in_features
        return products, products, ""
    if isinstance(module, (*RECURRENT, *CELLS)):
        counted = gate_products(module, calls, with_projection=False)
        return counted, gate_products(module, calls), "its projection is ignored" if _projects(module) else ""
    if isinstance(module, nn.MultiheadAttention):
        return _attention(module, calls)
    if type(module).__name__ == "DeformConv2d":
        products = sum(prod(call.output) for call in calls) * (module.weight.numel() // module.weight.shape[0])
        return products, products, ""
    if type(module).__name__ == "Attention":
        products = sum(2 * call.input[0] * call.input[1] ** 2 * call.input[2] for call in calls)
        return products, products, ""
    return 0, 0, ""


def _projects(module: Any) -> bool:
    return bool(getattr(module, "proj_size", 0))


def _attention(module: nn.MultiheadAttention, calls: Sequence[Call]) -> tuple[int, int, str]:
    """Return the products of attention. The rule assumes that keys and values are as wide as the result."""
    counted = true = 0
    for call in calls:
        sizes = [_tokens_and_width(shape, batch_first=module.batch_first) for shape in call.arguments[:3]]
        (batch, queries, width), (_, keys, key_width), (_, values, value_width) = sizes
        scores = batch * queries * keys * (width + value_width)
        counted += batch * (queries * width**2 + keys * key_width**2 + values * value_width**2)
        counted += scores + batch * queries * value_width**2
        true += batch * module.embed_dim * (queries * width + keys * key_width + values * value_width)
        true += 2 * batch * queries * keys * width + batch * queries * width**2
    return counted, true, "keys and values of another width are counted as square" if counted != true else ""


def _tokens_and_width(shape: Sequence[int], *, batch_first: bool) -> tuple[int, int, int]:
    first, second, width = shape
    return (first, second, width) if batch_first else (second, first, width)


def _beyond_products(module: Any, calls: Sequence[Call]) -> int:
    """Return what the rule of a module with products adds to them."""
    if isinstance(module, (nn.modules.conv._ConvNd, nn.Linear)):
        return sum(prod(call.output) for call in calls) if module.bias is not None else 0
    if isinstance(module, (*RECURRENT, *CELLS)):
        kind = type(module).__name__.removesuffix("Cell")
        per_layer = {"RNN": 1, "GRU": 7, "LSTM": 10}[kind] * module.hidden_size
        if module.bias:
            per_layer += 2 * {"RNN": 1, "GRU": 3, "LSTM": 4}[kind] * module.hidden_size
        layers = getattr(module, "num_layers", 1) * (2 if getattr(module, "bidirectional", False) else 1)
        return per_layer * layers * sum(rows_of_call(call) for call in calls)
    if isinstance(module, nn.MultiheadAttention):
        return sum(_beyond_attention(module, call) for call in calls)
    return 0


def _beyond_attention(module: nn.MultiheadAttention, call: Call) -> int:
    """Return what the rule adds for scaling the queries, biases and softmax."""
    sizes = [_tokens_and_width(shape, batch_first=module.batch_first) for shape in call.arguments[:3]]
    (batch, queries, width), (_, keys, _), (_, values, value_width) = sizes
    biases = (queries + keys + values) * width if module.in_proj_bias is not None else 0
    softmax: int = module.num_heads * queries * keys
    return batch * (queries * width + biases + softmax + queries * value_width)


def _record_functions(rules: dict[Any, Any], lines: list[ReportPart], places: ModuleTracker) -> None:
    """Let every patched function add a part to the report; the values of ptflops stay as they are."""
    for function, rule in list(rules.items()):
        rules[function] = _recorded_function(str(getattr(function, "__name__", function)), rule, lines, places)


def _recorded_function(
    name: str, rule: Callable[..., Any], lines: list[ReportPart], places: ModuleTracker
) -> Callable[..., Any]:
    def record(*args: Any, **kwargs: Any) -> Any:
        value = rule(*args, **kwargs)
        products, true = _function_products(name, args, int(value))
        lines.append(
            ReportPart(
                module=places.current,
                counted=name,
                value=int(value),
                products=products,
                true_products=true,
                cause=f"{name} is counted by its first operand" if products != true else "",
            )
        )
        return value

    return record


def _function_products(name: str, args: Sequence[Any], value: int) -> tuple[int, int]:
    """Return the products in the value of a patched function, and the true products."""
    if name in ("matmul", "mm", "bmm"):
        left, right = args[:2]
        return value, matmul_macs(tuple(left.shape), tuple(right.shape))
    if name in ("addmm", "baddbmm"):
        products = args[1].numel() * args[2].shape[-1]
        return products, products
    return 0, 0


def matmul_macs(left: tuple[int, ...], right: tuple[int, ...]) -> int:
    """Return the MACs of a matrix product of these shapes, broadcast as PyTorch does."""
    rows = (1, *left) if len(left) == 1 else left
    columns = (*right, 1) if len(right) == 1 else right
    batch = [max(sizes) for sizes in itertools.zip_longest(rows[-3::-1], columns[-3::-1], fillvalue=1)]
    return prod(batch) * rows[-2] * rows[-1] * columns[-1]


def _recorded_operator(
    name: str, rule: Callable[..., Any], lines: list[ReportPart], places: ModuleTracker
) -> Callable[..., Any]:
    formula = formula_of(name)

    def record(inputs: Any, outputs: Any) -> Any:
        value = int(rule(inputs, outputs))
        true = formula(*inputs, out=outputs[0]) if formula is not None else value
        bias = inputs[0] if name == "aten::addmm" else inputs[2] if name.endswith("convolution") else None
        products = value - (outputs[0].numel() if bias is not None else 0)
        lines.append(
            ReportPart(module=places.current, counted=name, value=value, products=products, true_products=true)
        )
        return value

    return record


def _blind(
    model: nn.Module,
    ruled: Mapping[str, nn.Module],
    reached: Mapping[str, nn.Module],
    seen: Mapping[int, Sequence[Call]],
) -> dict[str, str]:
    reasons = {}
    for path, module in model.named_modules():
        if path in ruled and path not in reached:
            reasons[path] = "hidden below a module with a rule of its own"
        elif path not in reached:
            reasons[path] = f"no rule for {type(module).__name__}; F.linear, @ and fused attention are not seen"
        elif not seen[id(module)]:
            reasons[path] = "called past its hooks, by forward() or a fused kernel"
    return reasons
