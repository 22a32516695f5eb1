"""Results of the most common operators on the meta device, computed from shapes alone.

PyTorch's own meta kernels give the same results, but the first call imports sympy and torch._dynamo, which takes as
long as importing torch. A rule here answers only plain cases (contiguous operands of one type whose shapes fit) and
leaves everything else, errors included, to PyTorch. docs/decisions/0005 has the measured saving.
"""

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

Rule = Callable[..., Any]
R = TypeVar("R", bound=Rule)
Sizes = Sequence[int]

_RULES: dict[str, Rule] = {}


def run_by_shape(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Return the result of the operator overload `func`: by its rule if one answers, else by running it."""
    rule = _RULES.get(func.name())
    out = NotImplemented if rule is None else rule(*args, **kwargs)
    return func(*args, **kwargs) if out is NotImplemented else out


def operators_with_rule() -> list[str]:
    """Return all overloads that have a rule, `namespace::name.overload`, sorted."""
    return sorted(_RULES)


def _gives(*operators: str) -> Callable[[R], R]:
    def register(rule: R) -> R:
        _RULES.update({f"aten::{operator}": rule for operator in operators})
        return rule

    return register


def _empty(shape: Sizes, like: Tensor) -> Tensor:
    return torch.empty(tuple(shape), dtype=like.dtype, device="meta")


def _are_plain(*tensors: Any) -> bool:
    """Return whether all are contiguous tensors of one floating type on the meta device."""
    return _are_in_order(*tensors) and all(t.is_contiguous() for t in tensors)


def _are_in_order(*tensors: Any) -> bool:
    """Return whether all are tensors of one floating type on the meta device whose elementwise result is contiguous.

    That holds if strides do not grow from left to right; strides of zero (expanded) are ignored.
    """
    return all(
        isinstance(t, Tensor)
        and t.device.type == "meta"
        and t.dtype == tensors[0].dtype
        and t.is_floating_point()
        and (t.is_contiguous() or _do_not_grow([s for s, n in zip(t.stride(), t.shape, strict=True) if s and n > 1]))
        for t in tensors
    )


def _do_not_grow(strides: list[int]) -> bool:
    return all(left >= right for left, right in itertools.pairwise(strides))


@_gives(
    "gelu",
    "silu",
    "sigmoid",
    "tanh",
    "relu",
    "hardswish",
    "hardsigmoid",
    "hardtanh",
    "leaky_relu",
    "elu",
    "softplus",
    "mish",
    "neg",
    "exp",
    "sqrt",
    "rsqrt",
    "_softmax",
    "_log_softmax",
    "_safe_softmax",
    "empty_like",
    "zeros_like",
    "ones_like",
)
def like_the_first(x: Tensor, *_: Any, **given: Any) -> Any:
    """An activation of every element; options that change the type are left to PyTorch."""
    return _empty(x.shape, x) if _are_in_order(x) and _keep_type(given, x) else NotImplemented


@_gives(
    "relu_",
    "hardtanh_",
    "leaky_relu_",
    "silu_",
    "hardswish_",
    "sigmoid_",
    "tanh_",
    "normal_",
    "uniform_",
    "bernoulli_.float",
    "erfinv_",
    "clamp_",
    "zero_",
    "fill_.Scalar",
)
def the_first(x: Tensor, *_: Any, **__: Any) -> Any:
    """An activation or a filling in place."""
    return x if x.device.type == "meta" and x.is_floating_point() else NotImplemented


def _keep_type(given: Mapping[str, Any], x: Tensor) -> bool:
    """Return whether options (`dtype=…`, `memory_format=…`) request what `x` already is."""
    same: dict[str, Any] = {"dtype": x.dtype, "device": x.device, "layout": x.layout}
    same["memory_format"] = torch.preserve_format
    return all(name == "approximate" or value in (None, False, same.get(name)) for name, value in given.items())


@_gives("native_dropout")
def dropout(x: Tensor, _probability: float, _train: bool | None = True) -> Any:
    """The remaining values, and their mask."""
    if not _are_in_order(x):
        return NotImplemented
    return _empty(x.shape, x), torch.empty(x.shape, dtype=torch.bool, device="meta")


@_gives(
    "threshold_backward",
    "gelu_backward",
    "silu_backward",
    "_softmax_backward_data",
    "hardswish_backward",
    "sigmoid_backward",
    "tanh_backward",
)
def like_the_gradient(grad_out: Tensor, x: Tensor, *_: Any, **__: Any) -> Any:
    """The gradient of an activation."""
    return (
        _empty(grad_out.shape, grad_out) if _are_in_order(grad_out, x) and grad_out.shape == x.shape else NotImplemented
    )


@_gives("add.Tensor", "sub.Tensor", "mul.Tensor", "div.Tensor", "mul.Scalar", "div.Scalar")
def of_two(left: Any, right: Any, *rest: Any, **given: Any) -> Any:
    """A sum or product; one operand may be a number or a smaller tensor that is broadcast."""
    if rest or given.keys() - {"alpha"} or not _are_in_order(*(t for t in (left, right) if not _is_number(t))):
        return NotImplemented
    if _is_number(right):
        return _empty(left.shape, left)
    large, small = (left, right) if left.ndim >= right.ndim else (right, left)
    return _empty(large.shape, large) if _spreads(small.shape, large.shape) else NotImplemented


@_gives("add_.Tensor", "sub_.Tensor", "mul_.Tensor", "div_.Tensor", "mul_.Scalar", "div_.Scalar")
def into_the_first(left: Tensor, right: Any, *rest: Any, **given: Any) -> Any:
    """A sum or product in place."""
    if rest or given.keys() - {"alpha"} or not _may_meet(left, left):
        return NotImplemented
    fits = _is_number(right) or (_may_meet(left, right) and _spreads(right.shape, left.shape))
    return left if fits else NotImplemented


@_gives("scaled_dot_product_attention")
def attention(query: Tensor, key: Tensor, value: Tensor, mask: Any = None, *_: Any, **given: Any) -> Any:
    """One average of the values per query; operands and masks that broadcast are left to PyTorch."""
    if not _may_meet(query, key) or not _may_meet(query, value) or key.shape[-2] != value.shape[-2]:
        return NotImplemented
    fits = query.ndim == key.ndim == value.ndim == 4 and query.shape[-1] == key.shape[-1]
    fits = fits and query.shape[:2] == key.shape[:2] == value.shape[:2]
    mask = given.get("attn_mask", mask)
    fits = fits and (mask is None or _spreads(mask.shape, (*query.shape[:-1], key.shape[-2])))
    return _empty((*query.shape[:-1], value.shape[-1]), query) if fits else NotImplemented


@_gives("addmm")
def addmm(added: Tensor, left: Tensor, right: Tensor, **given: Any) -> Any:
    """`(n, k) @ (k, m)` plus a row or a matrix."""
    product = matrix_product(left, right)
    if given or not isinstance(product, Tensor) or not _spreads(added.shape, product.shape):
        return NotImplemented
    return product if added.dtype == left.dtype and added.device.type == "meta" else NotImplemented


@_gives("mm")
def matrix_product(left: Tensor, right: Tensor, **given: Any) -> Any:
    """`(n, k) @ (k, m)`, of any strides."""
    if given or not _may_meet(left, right) or left.ndim != 2 or right.ndim != 2:
        return NotImplemented
    return _empty((left.shape[0], right.shape[1]), left) if left.shape[1] == right.shape[0] else NotImplemented


@_gives("bmm")
def batch_of_products(left: Tensor, right: Tensor, **given: Any) -> Any:
    """`(b, n, k) @ (b, k, m)`, of any strides."""
    if given or not _may_meet(left, right) or left.ndim != 3 or right.ndim != 3:
        return NotImplemented
    fits = left.shape[0] == right.shape[0] and left.shape[2] == right.shape[1]
    return _empty((*left.shape[:2], right.shape[2]), left) if fits else NotImplemented


@_gives("convolution")
def convolution(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Sizes,
    padding: Sizes,
    dilation: Sizes,
    transposed: bool,
    output_padding: Sizes,
    groups: int,
) -> Any:
    """A convolution that is not transposed; `x` is `(B, C, *sizes)`."""
    operands = (x, weight) if bias is None else (x, weight, bias)
    if transposed or not _are_plain(*operands) or x.ndim != weight.ndim or x.shape[1] != weight.shape[1] * groups:
        return NotImplemented
    sizes = _slid(x.shape[2:], weight.shape[2:], stride, padding, dilation)
    if min(sizes, default=1) < 1:  # some versions of torch accept this on meta
        kernel, clip = ("x".join(map(str, shape[2:])) for shape in (weight.shape, x.shape))
        raise RuntimeError(f"a kernel of {kernel} does not fit into an input of {clip}, padding included")
    if not sizes or weight.shape[0] % groups or (bias is not None and bias.shape != weight.shape[:1]):
        return NotImplemented
    return _empty((x.shape[0], weight.shape[0], *sizes), x)


@_gives("convolution_backward")
def convolution_backward(
    grad_out: Tensor, x: Tensor, weight: Tensor, bias_sizes: Sizes | None, *rest: Any, **given: Any
) -> Any:
    """Gradients of input, weight and bias, each if it is needed."""
    if given or not _are_plain(grad_out, x, weight):
        return NotImplemented
    shapes = (x.shape, weight.shape, bias_sizes or weight.shape[:1])
    return tuple(_empty(shape, x) if wanted else None for shape, wanted in zip(shapes, rest[-1], strict=True))


@_gives("native_batch_norm")
def batch_norm(x: Tensor, weight: Tensor | None, bias: Tensor | None, *_: Any, **__: Any) -> Any:
    """The result, and the mean and deviation of each channel."""
    if not _are_plain(x, *(t for t in (weight, bias) if t is not None)) or x.ndim < 2:
        return NotImplemented
    return _empty(x.shape, x), _empty(x.shape[1:2], x), _empty(x.shape[1:2], x)


@_gives("native_batch_norm_backward")
def batch_norm_backward(grad_out: Tensor, x: Tensor, *rest: Any, **given: Any) -> Any:
    """Gradients of input, weight and bias, each if it is needed."""
    if given or not _are_plain(grad_out, x):
        return NotImplemented
    shapes = (x.shape, x.shape[1:2], x.shape[1:2])
    return tuple(_empty(shape, x) if wanted else None for shape, wanted in zip(shapes, rest[-1], strict=True))


@_gives("native_layer_norm")
def layer_norm(x: Tensor, normalized: Sizes, weight: Tensor | None, bias: Tensor | None, _eps: float) -> Any:
    """The result, and the mean and deviation of each normalised part."""
    kept = x.ndim - len(normalized)
    if not _are_plain(x, *(t for t in (weight, bias) if t is not None)) or list(x.shape[kept:]) != list(normalized):
        return NotImplemented
    parts = (*x.shape[:kept], *[1] * len(normalized))
    return _empty(x.shape, x), _empty(parts, x), _empty(parts, x)


@_gives("native_layer_norm_backward")
def layer_norm_backward(grad_out: Tensor, x: Tensor, normalized: Sizes, *rest: Any, **given: Any) -> Any:
    """Gradients of input, weight and bias, each if it is needed."""
    if given or not _are_plain(grad_out, x):
        return NotImplemented
    shapes = (x.shape, normalized, normalized)
    return tuple(_empty(shape, x) if wanted else None for shape, wanted in zip(shapes, rest[-1], strict=True))


@_gives("max_pool2d_with_indices", "max_pool3d_with_indices")
def max_pool(
    x: Tensor, kernel: Sizes, stride: Sizes = (), padding: Sizes = (0,), dilation: Sizes = (1,), ceil_mode: bool = False
) -> Any:
    """The largest values and their indices; `x` is `(B, C, *sizes)`."""
    pooled = _pooled(x, kernel, stride, padding, dilation, ceil_mode=ceil_mode)
    if pooled is NotImplemented:
        return NotImplemented
    return pooled, torch.empty(pooled.shape, dtype=torch.int64, device="meta")


@_gives("avg_pool2d", "avg_pool3d")
def average_pool(
    x: Tensor, kernel: Sizes, stride: Sizes = (), padding: Sizes = (0,), ceil_mode: bool = False, *_: Any, **__: Any
) -> Any:
    """Averages; `x` is `(B, C, *sizes)`."""
    return _pooled(x, kernel, stride, padding, (1,), ceil_mode=ceil_mode)


@_gives("max_pool2d_with_indices_backward", "max_pool3d_with_indices_backward", "avg_pool3d_backward")
def pool_backward(grad_out: Tensor, x: Tensor, *_: Any, **__: Any) -> Any:
    """The gradient of the pooled input."""
    return _empty(x.shape, x) if _are_plain(grad_out, x) else NotImplemented


@_gives("mean", "sum", "mean.dim", "sum.dim_IntList")
def reduced(x: Tensor, dims: Sizes | None = None, keepdim: bool = False, **given: Any) -> Any:
    """Means or sums over some dimensions, or over all."""
    if given or not _may_meet(x, x):
        return NotImplemented
    gone = {d % x.ndim for d in dims} if dims else set(range(x.ndim))
    kept = [1 if d in gone else n for d, n in enumerate(x.shape) if keepdim or d not in gone]
    return _empty(kept, x)


@_gives("cat")
def concatenated(tensors: Sequence[Tensor], dim: int = 0) -> Any:
    """Tensors of equal sizes, concatenated."""
    first = tensors[0]
    if not _are_plain(*tensors) or any(t.ndim != first.ndim for t in tensors) or not first.ndim:
        return NotImplemented
    along = dim % first.ndim
    if len({(*t.shape[:along], *t.shape[along + 1 :]) for t in tensors}) > 1:
        return NotImplemented
    return _empty((*first.shape[:along], sum(t.shape[along] for t in tensors), *first.shape[along + 1 :]), first)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _may_meet(left: Any, right: Any) -> bool:
    return (
        isinstance(left, Tensor)
        and isinstance(right, Tensor)
        and left.dtype == right.dtype
        and left.is_floating_point()
        and left.device.type == right.device.type == "meta"
    )


def _spreads(small: Sizes, large: Sizes) -> bool:
    """Return whether `small` broadcasts to exactly `large`."""
    padded = (1,) * (len(large) - len(small)) + tuple(small)
    return len(small) <= len(large) and all(s in (1, n) for s, n in zip(padded, large, strict=True))


def _pooled(x: Tensor, kernel: Sizes, stride: Sizes, padding: Sizes, dilation: Sizes, *, ceil_mode: bool) -> Any:
    spatial = len(kernel)
    if spatial < 2 or x.ndim != spatial + 2 or not _are_plain(x):
        return NotImplemented
    if any(2 * p > k for p, k in zip(_spread(padding, spatial), kernel, strict=True)):
        return NotImplemented
    sizes = _slid(x.shape[2:], kernel, stride or kernel, padding, dilation, ceil_mode=ceil_mode)
    return _empty((*x.shape[:2], *sizes), x) if min(sizes) > 0 and x.numel() else NotImplemented


def _slid(
    sizes: Sizes, kernel: Sizes, stride: Sizes, padding: Sizes, dilation: Sizes, *, ceil_mode: bool = False
) -> list[int]:
    """Return how many positions a window takes per dimension; with `ceil_mode` the last may extend past the end."""
    count = len(sizes)
    positions = []
    for n, k, s, p, d in zip(sizes, *(_spread(v, count) for v in (kernel, stride, padding, dilation)), strict=True):
        room = n + 2 * p - d * (k - 1) - 1
        whole, rest = divmod(room, s)
        extends_past = ceil_mode and rest > 0 and (whole + 1) * s < n + p
        positions.append(whole + 1 + int(extends_past))
    return positions


def _spread(values: Sizes, count: int) -> tuple[int, ...]:
    return tuple(values) * count if len(values) == 1 else tuple(values)
