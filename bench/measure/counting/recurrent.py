"""Formulas of recurrent kernels: the products of the gates. Without a kernel, autograd sees matrix products."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from bench.measure.counting.formulas import counts_macs_of, rows_of


@counts_macs_of("aten::mkldnn_rnn_layer")
def mkldnn_layer(x: Tensor, weight_ih: Tensor, weight_hh: Tensor, *_: Any, **__: Any) -> int:
    """One layer in one direction on a CPU: both weights once per step and sequence; `x` is (T, B, features)."""
    return rows_of(x) * (weight_ih.numel() + weight_hh.numel())


@counts_macs_of("aten::mkldnn_rnn_layer_backward")
def mkldnn_layer_backward(
    x: Tensor, weight_ih: Tensor, weight_hh: Tensor, _b_ih: Tensor, _b_hh: Tensor, hidden: Tensor, *_: Any, **__: Any
) -> int:
    """Gradients of the weights, and of input and first hidden state where they are wanted.

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
