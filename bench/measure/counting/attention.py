"""Formulas of fused attention: scores (query x key) and their average of the values, dense whatever the mask.

Backward is counted as its four products (gradients of scores, values, query and key). Memory-saving kernels compute
the scores once more; that is their own affair, as in an unfused attention, so that all devices count alike.
"""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from bench.measure.counting.formulas import counts_macs_of


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
def attention(query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any) -> int:
    """`query` is (…, heads, queries, width); grouped queries share keys and cost the same."""
    scores, averages = _products(query, key, value)
    return scores + averages


@counts_macs_of(
    "aten::_scaled_dot_product_flash_attention_backward",
    "aten::_scaled_dot_product_flash_attention_for_cpu_backward",
    "aten::_scaled_dot_product_efficient_attention_backward",
    "aten::_scaled_dot_product_cudnn_attention_backward",
    "aten::_scaled_dot_product_fused_attention_overrideable_backward",
)
def attention_backward(_grad_out: Tensor, query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any) -> int:
    """What the gradients that are wanted need, as autograd would ask an unfused attention for them."""
    scores, averages = _products(query, key, value)
    into_query_and_key = int(query.requires_grad) + int(key.requires_grad)
    into_scores_and_value = int(into_query_and_key > 0) + int(value.requires_grad)
    return scores * into_query_and_key + averages * into_scores_and_value


@counts_macs_of("higher_order::flex_attention_backward")
def flex_attention_backward(query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any) -> int:
    """All gradients, always; its arguments begin with what the forward took."""
    scores, averages = _products(query, key, value)
    return 2 * scores + 2 * averages


@counts_macs_of("aten::_flash_attention_forward", "aten::_efficient_attention_forward")
def attention_sequence_first(query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any) -> int:
    """The kernels below the fused operators: `query` is (B, queries, heads, width)."""
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


def _products(query: Tensor, key: Tensor, value: Tensor) -> tuple[int, int]:
    pairs = query.numel() // max(query.shape[-1], 1) * key.shape[-2]
    return pairs * query.shape[-1], pairs * value.shape[-1]


def _projections(query: Tensor, key: Tensor, value: Tensor, weights: Sequence[Tensor]) -> int:
    """Query, key and value each meet a third of the first weight; the queries' results meet the second."""
    tokens = [t.numel() // t.shape[-1] for t in (query, key, value)]
    return sum(tokens) * (weights[0].numel() // 3) + tokens[0] * weights[1].numel()


def _attention_of_width(query: Tensor, key: Tensor) -> int:
    """All heads together: `query` and `key` are (B, tokens, width)."""
    return 2 * query.numel() * key.shape[-2]
