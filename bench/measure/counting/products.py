"""Formulas of matrix products: every multiplication of two operands that are summed over an inner dimension."""

from typing import Any

from torch import Tensor

from bench.measure.counting.formulas import counts_macs_of


@counts_macs_of(
    "aten::mm",
    "aten::bmm",
    "aten::mv",
    "aten::dot",
    "aten::vdot",
    "aten::_int_mm",
    "aten::_scaled_mm",
    "aten::_weight_int8pack_mm",
    "aten::_weight_int4pack_mm",
    "aten::_weight_int4pack_mm_for_cpu",
    "aten::_grouped_mm",
    "aten::_sparse_mm",
)
def product(left: Tensor, right: Any, *_: Any, out: Tensor, **__: Any) -> int:
    """Each element of the result is a sum over the last dimension of `left`; packed weights hide their own shape."""
    return out.numel() * left.shape[-1]


@counts_macs_of(
    "aten::addmm", "aten::baddbmm", "aten::addmv", "aten::_addmm_activation", "aten::_scaled_addmm_", "aten::_addmm"
)
def product_plus(_added: Tensor, left: Tensor, right: Tensor, *_: Any, out: Tensor, **__: Any) -> int:
    """The product of `left` and `right`; what is added to it is not counted."""
    return out.numel() * left.shape[-1]


@counts_macs_of("aten::addbmm")
def product_summed_over_batch(_added: Tensor, left: Tensor, right: Tensor, *_: Any, **__: Any) -> int:
    """`(b, n, m) @ (b, m, p)` summed over b: the result has no trace of b, the products have."""
    return left.numel() * right.shape[-1]


@counts_macs_of("aten::linear", "mkldnn::_linear_pointwise", "aten::mkldnn_linear")
def linear(rows: Tensor, weight: Tensor, *_: Any, out: Tensor, **__: Any) -> int:
    """`x @ weight.T` where the operator is not split into a matrix product."""
    return out.numel() * rows.shape[-1]


@counts_macs_of(
    "quantized::linear",
    "quantized::linear_relu",
    "quantized::linear_dynamic",
    "quantized::linear_relu_dynamic",
    "quantized::linear_dynamic_fp16",
)
def quantized_linear(rows: Tensor, _packed: Any, *_: Any, out: Tensor, **__: Any) -> int:
    """A linear layer whose int8 weight is packed out of sight."""
    return out.numel() * rows.shape[-1]


@counts_macs_of("aten::_trilinear")
def trilinear(
    first: Tensor,
    second: Tensor,
    third: Tensor,
    expand1: list[int],
    expand2: list[int],
    expand3: list[int],
    *_: Any,
    **__: Any,
) -> int:
    """One per element of the space that the three operands span: in `nn.Bilinear`, each weight once per row."""
    spans = []
    for operand, expanded in ((first, expand1), (second, expand2), (third, expand3)):
        span = list(operand.shape)
        for dimension in sorted(expanded):
            span.insert(dimension, 1)
        spans.append(span)
    macs = 1
    for sizes in zip(*spans, strict=True):
        macs *= max(sizes)
    return macs
