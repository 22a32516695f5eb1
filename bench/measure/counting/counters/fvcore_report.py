"""fvcore: formulas for the operators of a traced graph."""

import math
import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from typing import Any

from torch import Tensor, nn

from bench.measure.counting.counters.counter_report import CounterReport, ReportPart, aliases_of
from bench.measure.counting.counters.ptflops_report import matmul_macs
from bench.measure.counting.free_operators import is_free
from bench.measure.counting.module_paths import ROOT, parent_of

CONVENTION = 'MACs, called "flop"; adds batch norm (2 per element), other norms (5), adaptive pooling, upsampling'
PRODUCTS = {"conv", "linear", "addmm", "mm", "bmm", "matmul", "einsum"}
TRUE = "{} true value"


def count_with_fvcore(model: nn.Module, inputs: tuple[Tensor, ...]) -> CounterReport:
    """Return fvcore's count of one traced forward pass."""
    from fvcore.nn import FlopCountAnalysis
    from fvcore.nn.jit_handles import einsum_flop_jit, matmul_flop_jit

    analysis = FlopCountAnalysis(model, inputs).unsupported_ops_warnings(False).uncalled_modules_warnings(False)
    analysis.tracer_warnings("none")
    analysis.set_op_handle("aten::matmul", _with_truth("matmul", matmul_flop_jit, _matmul_truth))
    analysis.set_op_handle("aten::einsum", _with_truth("einsum", einsum_flop_jit, _einsum_truth))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        values = _own(analysis.by_module_and_operator())
    lines = [line for path, amounts in values.items() for line in _lines(path, amounts)]
    uncalled = analysis.uncalled_modules()
    unsupported = _own({path: analysis.unsupported_ops(path) for path in values})
    return CounterReport(
        tool="fvcore",
        version=version("fvcore"),
        convention=CONVENTION,
        printed=sum(line.value for line in lines),
        lines=tuple(lines),
        blind={path: reason for path, operators in unsupported.items() if (reason := _missing(operators))},
        aliases={path: _called(first, uncalled) for path, first in aliases_of(model).items()},
    )


def _own(nested: Mapping[str, Mapping[str, float]]) -> dict[str, Counter[str]]:
    """Return what belongs to each module without its children; fvcore reports sums that include them."""
    own = {path: Counter(amounts) for path, amounts in nested.items()}
    for path, amounts in nested.items():
        if path != ROOT:
            own[_holder(path, nested)].subtract(amounts)
    return own


def _holder(path: str, known: Mapping[str, Any]) -> str:
    holder = parent_of(path)
    while holder not in known:
        holder = parent_of(holder)
    return holder


def _lines(path: str, amounts: Mapping[str, float]) -> list[ReportPart]:
    lines = []
    for operator, value in amounts.items():
        if not value or operator.endswith(TRUE.format("")):
            continue
        products = int(value) if operator in PRODUCTS else 0
        true = int(amounts.get(TRUE.format(operator), products))
        cause = _BECAUSE.get(operator, "") if true != products else ""
        lines.append(
            ReportPart(
                module=path, counted=operator, value=int(value), products=products, true_products=true, cause=cause
            )
        )
    return lines


_BECAUSE = {
    "matmul": "matmul is counted by its first operand, whatever is broadcast",
    "einsum": "einsum is read from rounded text",
}


def _called(path: str, uncalled: set[str]) -> str:
    """Return the module that fvcore credits: one whose forward() is called directly counts for its caller."""
    while path in uncalled and path != ROOT:
        path = parent_of(path)
    return path


def _missing(operators: Mapping[str, int]) -> str:
    names = sorted(name for name, calls in operators.items() if calls > 0 and not is_free(name))
    return f"no formula for {', '.join(names)}" if names else ""


def _with_truth(
    name: str, rule: Callable[..., Any], truth: Callable[[Sequence[Any]], int | None]
) -> Callable[[list[Any], list[Any]], Counter[str]]:
    """Return a handle that counts fvcore's value and, under a second name, the true value."""

    def count(inputs: list[Any], outputs: list[Any]) -> Counter[str]:
        value = rule(inputs, outputs)
        true = truth(inputs)
        return Counter({name: value, TRUE.format(name): value if true is None else true})

    return count


def _matmul_truth(inputs: Sequence[Any]) -> int:
    from fvcore.nn.jit_handles import get_shape

    return matmul_macs(tuple(get_shape(inputs[0])), tuple(get_shape(inputs[1])))


def _einsum_truth(inputs: Sequence[Any]) -> int | None:
    """Return the product of all index sizes for two operands; None for more, whose order of products decides."""
    from fvcore.nn.jit_handles import get_shape

    shapes = [get_shape(value) for value in inputs[1].node().inputs()]
    terms = inputs[0].toIValue().replace(" ", "").split("->")[0].split(",")
    if len(terms) != 2 or any("." in term for term in terms):
        return None
    sizes: dict[str, int] = {}
    for term, shape in zip(terms, shapes, strict=True):
        sizes.update(zip(term, shape, strict=True))
    return math.prod(sizes.values())
