"""Formulas of convolutions, forward and backward: dense over the output, so padding zeros are multiplied too."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from bench.measure.counting.formulas import counts_macs_of


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

    `weight` is `(C_out, C_in / groups, *kernel)`, transposed `(C_in, C_out / groups, *kernel)`: either way all but its
    first dimension is what one element meets, groups included.
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
    """The forward's count for the input's gradient and again for the weight's, each where it is wanted.

    Both are convolutions of the same pairs of elements as the forward: groups divide them alike.
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
    """The gradient of the sampled values, which serves input, offset and mask, and that of the weight, where wanted."""
    return _kernels(grad_out, weight) * _wanted([x, offset, mask], [weight])


def _kernels(elements: Tensor, weight: Tensor) -> int:
    return elements.numel() * (weight.numel() // max(weight.shape[0], 1))


def _is_transposed(rest: Sequence[Any]) -> bool:
    """`rest` is bias_sizes, stride, padding, dilation, transposed, output_padding, groups, output_mask."""
    return bool(rest[4])


def _wanted(*groups: Sequence[Tensor]) -> int:
    """In how many of the groups a tensor requires a gradient."""
    return sum(any(tensor.requires_grad for tensor in group) for group in groups)
