"""Multiply-accumulates of one operator call, by name of the operator: the table that every count is made from.

Counted are the products of convolution, matrix multiplication, attention and recurrent gates; not biases,
normalisation, activation, pooling or interpolation. 1 MAC is 2 FLOPs. Zero padding is multiplied like any other value,
and masked or causal attention costs as much as full attention.

A custom operator needs one formula in any file that is imported before counting:

    @counts_macs_of("mylib::shift_attention")
    def shift_attention(query, key, value, *, out):
        return query.numel() * key.shape[-2] * 2

It gets the operator's arguments as they are (on the meta device they have shapes and no data) and the operator's
result as `out`. One that costs nothing is declared by `costs_nothing("mylib::fold")` of `bench.measure.counting.free`.
"""

from collections.abc import Callable
from typing import Any, TypeVar

Formula = Callable[..., int]
F = TypeVar("F", bound=Formula)

_FORMULAS: dict[str, Formula] = {}


def counts_macs_of(*operators: str) -> Callable[[F], F]:
    """Make the function the formula of `operators`, each written `namespace::name`; a later one replaces an earlier."""

    def register(formula: F) -> F:
        for operator in operators:
            _FORMULAS[operator] = formula
        return formula

    return register


def formula_of(operator: str) -> Formula | None:
    """The formula of `namespace::name`, its in-place form `name_` included; None where there is none."""
    return _FORMULAS.get(operator) or _FORMULAS.get(operator.removesuffix("_"))


def rows_of(tensor: Any) -> int:
    """How many vectors along the last dimension `tensor` holds."""
    width = tensor.shape[-1] if tensor.ndim else 1
    return int(tensor.numel()) // max(int(width), 1)
