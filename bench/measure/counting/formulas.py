"""Multiply-accumulates of one operator call, by operator name: the table that every count is made from.

Counted are the products of convolution, matrix multiplication, attention and recurrent gates; not biases,
normalisation, activation, pooling or interpolation. 1 MAC is 2 FLOPs. Zero padding is multiplied like any other value,
and masked or causal attention costs as much as full attention.

A custom operator needs one formula in any file that is imported before counting:

    @counts_macs_of("mylib::shift_attention")
    def shift_attention(query, key, value, *, out):
        return query.numel() * key.shape[-2] * 2

The formula receives the operator's arguments as they are (on the meta device they have shapes and no data) and the
operator's result as `out`. Formulas registered with `torch.utils.flop_counter.register_flop_formula` are used too, for
operators without one here. Declare an operator that costs nothing with `bench.costs_nothing("mylib::fold")`.
docs/custom-operators.md has the whole walk.
"""

import sys
from collections.abc import Callable, Sequence
from math import prod
from operator import index
from typing import Any, SupportsIndex, TypeVar

from torch import Tensor

from bench.core.errors import InputError

Formula = Callable[..., int]
F = TypeVar("F", bound=Formula)

_FORMULAS: dict[str, Formula] = {}


def counts_macs_of(*operators: str) -> Callable[[F], F]:
    """Register the function as the formula of `operators` (`namespace::name`); a later one replaces an earlier one."""

    def register(formula: F) -> F:
        for operator in operators:
            _FORMULAS[operator] = formula
        return formula

    return register


def formula_of(operator: str) -> Formula | None:
    """Return the formula of `namespace::name` (in-place form `name_` included), or None."""
    return _FORMULAS.get(operator) or _FORMULAS.get(operator.removesuffix("_"))


def torch_formula_of(func: Any) -> Formula | None:
    """Return the formula that the user registered with `register_flop_formula`, halved to MACs, or None."""
    # Importing that module takes as long as importing torch. If nobody has imported it, nobody has registered anything.
    registry = getattr(sys.modules.get("torch.utils.flop_counter"), "flop_registry", {})
    flops_of = registry.get(getattr(func, "_overloadpacket", func))
    if flops_of is None:
        return None

    def macs(*args: Any, out: Any, **kwargs: Any) -> int:
        flops = int(flops_of(*args, **kwargs, out_val=out))
        return (flops + 1) // 2

    return macs


def macs_of_call(formula: Formula, operator: str, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> int:
    """Return what `formula` gives for one call; raises InputError if it fails or returns anything but a count."""
    try:
        macs = formula(*args, **kwargs, out=out)
    except NotImplementedError:  # a formula that needs values, on the meta device: the CPU can still answer
        raise
    except Exception as error:  # a user's formula may raise anything
        raise InputError(f"the formula of {operator} failed: {type(error).__name__}: {error}") from error
    if not isinstance(macs, SupportsIndex) or index(macs) < 0:
        raise InputError(f"the formula of {operator} returned {macs!r}; it must return a whole number of at least 0")
    return index(macs)


def rows_of(tensor: Any) -> int:
    """Return the number of vectors along the last dimension of `tensor`."""
    width = tensor.shape[-1] if tensor.ndim else 1
    return int(tensor.numel()) // max(int(width), 1)


# Matrix products: every multiplication of two operands that are summed over an inner dimension.


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
    """Each element of the result is a sum over the last dimension of `left`; packed weights do not show their shape."""
    return out.numel() * left.shape[-1]


@counts_macs_of(
    "aten::addmm", "aten::baddbmm", "aten::addmv", "aten::_addmm_activation", "aten::_scaled_addmm_", "aten::_addmm"
)
def product_plus(_added: Tensor, left: Tensor, right: Tensor, *_: Any, out: Tensor, **__: Any) -> int:
    """The product of `left` and `right`; the addition is not counted."""
    return out.numel() * left.shape[-1]


@counts_macs_of("aten::addbmm")
def product_summed_over_batch(_added: Tensor, left: Tensor, right: Tensor, *_: Any, **__: Any) -> int:
    """`(b, n, m) @ (b, m, p)` summed over b: the result no longer shows b, but each b is multiplied."""
    return left.numel() * right.shape[-1]


@counts_macs_of("aten::linear", "mkldnn::_linear_pointwise", "aten::mkldnn_linear")
def linear(rows: Tensor, weight: Tensor, *_: Any, out: Tensor, **__: Any) -> int:
    """`x @ weight.T`, if the operator is not split into a matrix product."""
    return out.numel() * rows.shape[-1]


@counts_macs_of(
    "quantized::linear",
    "quantized::linear_relu",
    "quantized::linear_dynamic",
    "quantized::linear_relu_dynamic",
    "quantized::linear_dynamic_fp16",
)
def quantized_linear(rows: Tensor, _packed: Any, *_: Any, out: Tensor, **__: Any) -> int:
    """A linear layer whose packed int8 weight is not a tensor."""
    return out.numel() * rows.shape[-1]


@counts_macs_of(
    *(f"quantized::conv{d}d{relu}" for d in (1, 2, 3) for relu in ("", "_relu")),
    *(f"quantized::conv{d}d_dynamic" for d in (1, 2, 3)),
)
def quantized_convolution(x: Tensor, packed: Any, *_: Any, out: Tensor, **__: Any) -> int:
    """A convolution whose packed int8 weight is unpacked to learn its shape."""
    return _kernels(out, packed.unpack()[0])


@counts_macs_of(*(f"quantized::conv_transpose{d}d{form}" for d in (1, 2, 3) for form in ("", "_dynamic")))
def quantized_transposed_convolution(x: Tensor, packed: Any, *_: Any, **__: Any) -> int:
    """A transposed convolution whose packed int8 weight is unpacked to learn its shape."""
    return _kernels(x, packed.unpack()[0])


@counts_macs_of("aten::affine_grid_generator")
def affine_grid(theta: Tensor, *_: Any, out: Tensor, **__: Any) -> int:
    """Each grid point is a row of `theta` times a homogeneous coordinate; `theta` is (B, 2, 3) or (B, 3, 4)."""
    return out.numel() * theta.shape[-1]


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


# Convolutions, forward and backward: dense over the output, so zeros of the padding are multiplied too.


@counts_macs_of("aten::convolution", "aten::_convolution", "aten::convolution_overrideable")
def convolution(
    x: Tensor,
    weight: Tensor,
    _bias: Tensor | None,
    _stride: Sequence[int],
    _padding: Sequence[int],
    _dilation: Sequence[int],
    transposed: bool,
    *_: Any,
    out: Tensor,
    **__: Any,
) -> int:
    """One kernel per output element; transposed, one kernel per input element.

    `weight` is `(C_out, C_in / groups, *kernel)`, transposed `(C_in, C_out / groups, *kernel)`: in both cases the
    product of all dimensions but the first is what one element is multiplied by, groups included.
    """
    return _kernels(x if transposed else out, weight)


@counts_macs_of(
    "aten::mkldnn_convolution",
    "aten::cudnn_convolution",
    "aten::miopen_convolution",
    "aten::cudnn_convolution_relu",
    "aten::_slow_conv2d_forward",
    "aten::slow_conv3d_forward",
    "aten::_conv_depthwise2d",
    "aten::conv_depthwise3d",
    "aten::thnn_conv2d",
    "aten::slow_conv3d",
    "aten::slow_conv_dilated2d",
    "aten::slow_conv_dilated3d",
    "mkldnn::_convolution_pointwise",
)
def kernel_of_convolution(x: Tensor, weight: Tensor, *_: Any, out: Tensor | Sequence[Tensor], **__: Any) -> int:
    """A device's own kernel: one kernel per output element."""
    result = out if isinstance(out, Tensor) else out[0]
    return _kernels(result, weight)


@counts_macs_of("aten::cudnn_convolution_transpose", "aten::slow_conv_transpose2d", "aten::slow_conv_transpose3d")
def kernel_of_transposed(x: Tensor, weight: Tensor, *_: Any, **__: Any) -> int:
    """A device's own transposed kernel: one kernel per input element."""
    return _kernels(x, weight)


@counts_macs_of("aten::convolution_backward", "aten::convolution_backward_overrideable")
def convolution_backward(
    grad_out: Tensor,
    x: Tensor,
    weight: Tensor,
    *rest: Any,
    output_mask: Sequence[bool] | None = None,
    transposed: bool | None = None,
    **__: Any,
) -> int:
    """The forward count once for the gradient of the input and once for that of the weight, each if it is needed.

    Both multiply the same pairs of elements as the forward pass, so groups divide them equally.
    """
    wanted = rest[-1] if output_mask is None else output_mask
    is_transposed = _is_transposed(rest) if transposed is None else transposed
    return _kernels(x if is_transposed else grad_out, weight) * (int(wanted[0]) + int(wanted[1]))


@counts_macs_of("aten::conv_tbc")
def conv_tbc(x: Tensor, weight: Tensor, *_: Any, out: Tensor, **__: Any) -> int:
    """`x` is (time, batch, C_in), `weight` is (kernel, C_in, C_out)."""
    return out.numel() * weight.shape[0] * weight.shape[1]


@counts_macs_of("torchvision::deform_conv2d")
def deform_conv2d(x: Tensor, weight: Tensor, *_: Any, out: Tensor, **__: Any) -> int:
    """A convolution of sampled values; the bilinear sampling is interpolation and not counted."""
    return _kernels(out, weight)


@counts_macs_of("torchvision::_deform_conv2d_backward")
def deform_conv2d_backward(
    grad_out: Tensor, x: Tensor, weight: Tensor, offset: Tensor, mask: Tensor, *_: Any, **__: Any
) -> int:
    """The gradient of the sampled values (for input, offset and mask) and of the weight, each if it is needed."""
    return _kernels(grad_out, weight) * _wanted([x, offset, mask], [weight])


def _kernels(elements: Tensor, weight: Tensor) -> int:
    return elements.numel() * (weight.numel() // max(weight.shape[0], 1))


def _is_transposed(rest: Sequence[Any]) -> bool:
    """`rest` is bias_sizes, stride, padding, dilation, transposed, output_padding, groups, output_mask."""
    return bool(rest[4])


def _wanted(*groups: Sequence[Tensor]) -> int:
    """Return in how many groups a tensor requires a gradient."""
    return sum(any(tensor.requires_grad for tensor in group) for group in groups)


# Fused attention: scores (query x key) and their average of the values, dense whatever the mask.
#
# Backward is counted as its four products (gradients of scores, values, query and key). Memory-saving kernels recompute
# the scores; that is not counted, as in unfused attention, so that all devices count alike.


@counts_macs_of(
    "aten::scaled_dot_product_attention",
    "aten::_scaled_dot_product_flash_attention",
    "aten::_scaled_dot_product_flash_attention_for_cpu",
    "aten::_scaled_dot_product_efficient_attention",
    "aten::_scaled_dot_product_cudnn_attention",
    "aten::_scaled_dot_product_fused_attention_overrideable",
    "aten::_scaled_dot_product_attention_math_for_mps",
    "higher_order::flex_attention",
)
def attention(query: Tensor, key: Tensor, value: Tensor, mask: Any = None, *_: Any, **given: Any) -> int:
    """`query` is (…, heads, queries, width); leading dimensions broadcast, and grouped queries share keys."""
    scores, averages = _products(query, key, value, given.get("attn_mask", mask))
    return scores + averages


@counts_macs_of(
    "aten::_scaled_dot_product_flash_attention_backward",
    "aten::_scaled_dot_product_flash_attention_for_cpu_backward",
    "aten::_scaled_dot_product_efficient_attention_backward",
    "aten::_scaled_dot_product_cudnn_attention_backward",
    "aten::_scaled_dot_product_fused_attention_overrideable_backward",
)
def attention_backward(_grad_out: Tensor, query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any) -> int:
    """The products that the needed gradients cost, as autograd would compute them for unfused attention."""
    scores, averages = _products(query, key, value)
    into_query_and_key = int(query.requires_grad) + int(key.requires_grad)
    into_scores_and_value = int(into_query_and_key > 0) + int(value.requires_grad)
    return scores * into_query_and_key + averages * into_scores_and_value


@counts_macs_of("higher_order::flex_attention_backward")
def flex_attention_backward(query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any) -> int:
    """All gradients, always; the first arguments are those of the forward pass."""
    scores, averages = _products(query, key, value)
    return 2 * scores + 2 * averages


@counts_macs_of("aten::_flash_attention_forward")
def flash_attention(
    query: Tensor, key: Tensor, value: Tensor, starts_q: Any = None, starts_k: Any = None, *_: Any, **__: Any
) -> int:
    """The kernel below the fused operator: `query` is (B, queries, heads, width), or packed, see below."""
    return _sequence_first(query, key, value, starts_q, starts_k)


@counts_macs_of("aten::_efficient_attention_forward")
def efficient_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    _bias: Any,
    starts_q: Any = None,
    starts_k: Any = None,
    *_: Any,
    **__: Any,
) -> int:
    """The kernel below the fused operator: `query` is (B, queries, heads, width), or packed, see below."""
    return _sequence_first(query, key, value, starts_q, starts_k)


def _sequence_first(query: Tensor, key: Tensor, value: Tensor, starts_q: Any, starts_k: Any) -> int:
    """Sequences of unlike length are packed into one; each attends only to itself, from its start to the next."""
    if isinstance(starts_q, Tensor) and isinstance(starts_k, Tensor):
        pairs = int((starts_q.diff().cpu().long() * starts_k.diff().cpu().long()).sum())
        return pairs * query.shape[-2] * (query.shape[-1] + value.shape[-1])
    return attention(query.transpose(-2, -3), key.transpose(-2, -3), value.transpose(-2, -3))


@counts_macs_of("aten::_native_multi_head_attention")
def native_multi_head_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    _embed_dim: int,
    _num_head: int,
    qkv_weight: Tensor,
    _qkv_bias: Tensor,
    projection_weight: Tensor,
    *_: Any,
    **__: Any,
) -> int:
    """`nn.MultiheadAttention` in one operator (eval mode without autograd): projections and attention."""
    return _projections(query, key, value, (qkv_weight, projection_weight)) + _attention_of_width(query, key)


@counts_macs_of("aten::_transformer_encoder_layer_fwd")
def transformer_encoder_layer(
    x: Tensor,
    _embed_dim: int,
    _num_heads: int,
    qkv_weight: Tensor,
    _qkv_bias: Tensor,
    projection_weight: Tensor,
    *rest: Any,
    **__: Any,
) -> int:
    """`nn.TransformerEncoderLayer` in one operator: attention and the two matrices of the feed-forward part.

    `rest` is proj_bias, use_gelu, norm_first, eps, four of the norms, ffn_weight_1, ffn_bias_1, ffn_weight_2, …
    """
    first, second = rest[8], rest[10]
    tokens = x.numel() // x.shape[-1]
    projections = _projections(x, x, x, (qkv_weight, projection_weight))
    feed_forward: int = tokens * (first.numel() + second.numel())
    return projections + _attention_of_width(x, x) + feed_forward


def _products(query: Tensor, key: Tensor, value: Tensor, mask: Any = None) -> tuple[int, int]:
    """Return the MACs of the scores and of the averages, each over the broadcast of what is multiplied there."""
    scores = _broadcast(query.shape[:-2], key.shape[:-2])
    masked = mask.shape if isinstance(mask, Tensor) and mask.ndim >= 2 else (1, 1)
    averages = _broadcast(scores, value.shape[:-2], masked[:-2])
    queries, keys = query.shape[-2], key.shape[-2]
    return (
        prod(scores) * queries * keys * query.shape[-1],
        prod(averages) * max(queries, masked[-2]) * max(keys, masked[-1]) * value.shape[-1],
    )


def _broadcast(*shapes: Sequence[int]) -> tuple[int, ...]:
    """Return the broadcast shape; heads of grouped queries, a multiple of those of the keys, count as broadcast."""
    length = max(map(len, shapes))
    padded = [(1,) * (length - len(shape)) + tuple(shape) for shape in shapes]
    return tuple(0 if 0 in sizes else max(sizes) for sizes in zip(*padded, strict=True))


def _projections(query: Tensor, key: Tensor, value: Tensor, weights: Sequence[Tensor]) -> int:
    """Query, key and value are each multiplied by a third of the first weight, the results by the second."""
    tokens = [t.numel() // t.shape[-1] for t in (query, key, value)]
    return sum(tokens) * (weights[0].numel() // 3) + tokens[0] * weights[1].numel()


def _attention_of_width(query: Tensor, key: Tensor) -> int:
    """All heads together: `query` and `key` are (B, tokens, width)."""
    return 2 * query.numel() * key.shape[-2]


# Recurrent kernels: the products of the gates. Without a fused kernel, autograd sees matrix products.


@counts_macs_of("aten::mkldnn_rnn_layer")
def mkldnn_layer(x: Tensor, weight_ih: Tensor, weight_hh: Tensor, *_: Any, **__: Any) -> int:
    """One layer in one direction on a CPU: both weights once per step and sequence; `x` is (T, B, features)."""
    return rows_of(x) * (weight_ih.numel() + weight_hh.numel())


@counts_macs_of("aten::mkldnn_rnn_layer_backward")
def mkldnn_layer_backward(
    x: Tensor, weight_ih: Tensor, weight_hh: Tensor, _b_ih: Tensor, _b_hh: Tensor, hidden: Tensor, *_: Any, **__: Any
) -> int:
    """Gradients of the weights, and of the input and the first hidden state if they are needed.

    The state before the first step has a gradient only if it requires one; those of later steps always.
    """
    steps, sequences = x.shape[0], rows_of(x) // max(x.shape[0], 1)
    into_hidden = steps - 1 + int(hidden.requires_grad)
    weights = rows_of(x) * (weight_ih.numel() * weight_ih.requires_grad + weight_hh.numel() * weight_hh.requires_grad)
    into_input = rows_of(x) * weight_ih.numel() * x.requires_grad
    return weights + into_input + into_hidden * sequences * weight_hh.numel()


@counts_macs_of("aten::_cudnn_rnn", "aten::miopen_rnn")
def cudnn_layers(x: Tensor, weights: Sequence[Tensor], *_: Any, **__: Any) -> int:
    """All layers and directions on a GPU: every matrix once per step and sequence. `x` is (steps, B, features)."""
    return rows_of(x) * sum(weight.numel() for weight in weights if weight.ndim == 2)


@counts_macs_of("aten::_cudnn_rnn_backward", "aten::miopen_rnn_backward")
def cudnn_layers_backward(x: Tensor, weights: Sequence[Tensor], *_: Any, **__: Any) -> int:
    """Gradients of input and weights."""
    return 2 * cudnn_layers(x, weights)
