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


def _like(x: Tensor, *, dtype: torch.dtype | None = None) -> Tensor:
    return torch.empty_strided(x.shape, x.stride(), dtype=dtype or x.dtype, device="meta")


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


def _is_dense(x: Any) -> bool:
    """Return whether `x` is a floating tensor on the meta device that fills its memory, in any order of dimensions.

    An elementwise result has the strides of its first operand if that is dense and as large as the result.
    """
    if not isinstance(x, Tensor) or x.device.type != "meta" or not x.is_floating_point():
        return False
    filled = 1
    for stride, size in sorted((s, n) for s, n in zip(x.stride(), x.shape, strict=True) if n > 1):
        if stride != filled:
            return False
        filled *= size
    return True


def _may_be_channels_last(x: Tensor) -> bool:
    """Return whether PyTorch could keep channels last in a result computed from `x`."""
    return x.ndim in (4, 5) and not x.is_contiguous() and 0 < x.stride(1) <= x.stride(-1)


def _has_channels_last(x: Tensor) -> bool:
    """Return whether PyTorch takes `x` for a tensor with channels last, by the order of its strides."""
    innermost, smallest = x.stride(1), 0
    for dim in (1, *reversed(range(2, x.ndim)), 0):
        stride = x.stride(dim)
        if not x.shape[dim] or not innermost or stride < smallest or (dim == 0 and smallest == innermost):
            return False
        smallest = stride * x.shape[dim] if stride > 1 else stride
    return True


def _keeps_channels_last(x: Tensor) -> bool:
    """Return whether a convolution of `x` may keep channels last; over three dimensions, none does on meta."""
    return x.ndim == 4 and _may_be_channels_last(x)


def _elementwise(*operands: Tensor, dtype: torch.dtype | None = None) -> Any:
    """Return the result of an elementwise operator, its dimensions in memory ordered as by PyTorch's TensorIterator."""
    ndim = max(x.ndim for x in operands)
    padded = [((1,) * (ndim - x.ndim) + tuple(x.shape), (0,) * (ndim - x.ndim) + x.stride()) for x in operands]
    shape = [next((n for n in sizes if n != 1), 1) for sizes in zip(*(sizes for sizes, _ in padded), strict=True)]
    if any(n not in (1, whole) for sizes, _ in padded for n, whole in zip(sizes, shape, strict=True)) or 0 in shape:
        return NotImplemented
    steps = [[s if n == whole else 0 for n, s, whole in zip(*given, shape, strict=True)] for given in padded]

    def is_outer(left: int, right: int) -> bool | None:
        """Whether a dimension lies outside another in the first operand that tells; None if none does."""
        for strides in steps:
            if strides[left] and strides[right] and (strides[left], shape[left]) != (strides[right], shape[right]):
                if strides[left] != strides[right]:
                    return strides[left] > strides[right]
                if shape[left] > shape[right]:
                    return True
        return None

    order = list(reversed(range(ndim)))  # from the innermost dimension to the outermost
    for end in range(1, ndim):
        place = end
        for before in reversed(range(end)):
            swaps = is_outer(order[before], order[place])
            if swaps:
                order[before], order[place] = order[place], order[before]
                place = before
            elif swaps is False:
                break
    strides, filled = [0] * ndim, 1
    for dim in order:
        strides[dim] = filled
        filled *= shape[dim]
    return torch.empty_strided(shape, strides, dtype=dtype or operands[0].dtype, device="meta")


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
    "cos",
    "sin",
    "sqrt",
    "rsqrt",
    "reciprocal",
    "empty_like",
    "zeros_like",
    "ones_like",
    "clamp",
    "flip",
    "pow.Tensor_Scalar",
)
def like_the_first(x: Tensor, *_: Any, **given: Any) -> Any:
    """An activation of every element; options that change the type are left to PyTorch."""
    if not _keep_type(given, x):
        return NotImplemented
    if _is_dense(x):
        return _like(x)
    return _elementwise(x) if _may_meet(x, x) else NotImplemented


@_gives("_softmax", "_log_softmax", "_safe_softmax")
def softmax(x: Tensor, *_: Any, **given: Any) -> Any:
    """Shares along one dimension."""
    return _empty(x.shape, x) if _are_in_order(x) and _keep_type(given, x) else NotImplemented


@_gives("lt.Scalar", "le.Scalar", "gt.Scalar", "ge.Scalar")
def compared(x: Tensor, _number: float) -> Any:
    """Whether each element is less or greater than a number."""
    return _like(x, dtype=torch.bool) if _is_dense(x) else NotImplemented


@_gives("logical_and_")
def both(left: Tensor, right: Tensor) -> Any:
    """Whether two conditions hold, in place."""
    are_plain = all(x.dtype == torch.bool and x.device.type == "meta" for x in (left, right))
    return left if are_plain and left.shape == right.shape else NotImplemented


@_gives("cumsum")
def running_sum(x: Tensor, dim: int, **given: Any) -> Any:
    """Sums along one dimension."""
    return _empty(x.shape, x) if not given and _may_meet(x, x) and -x.ndim <= dim < x.ndim else NotImplemented


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
    "hardtanh_backward",
    "sigmoid_backward",
    "tanh_backward",
    "softplus_backward",
)
def like_the_gradient(grad_out: Tensor, x: Tensor, *_: Any, **__: Any) -> Any:
    """The gradient of an activation."""
    if not _may_meet(grad_out, x) or grad_out.shape != x.shape:
        return NotImplemented
    if _is_dense(grad_out):
        return _like(grad_out)
    return _elementwise(grad_out, x)


@_gives("div.Tensor", "div.Scalar")
def quotient(left: Any, right: Any, *rest: Any, **given: Any) -> Any:
    """A quotient; one operand may be a number, and both are broadcast."""
    if rest or given.keys() - {"alpha"} or not (isinstance(left, Tensor) and _may_meet(left, left)):
        return NotImplemented
    if _is_number(right):
        return _like(left) if _is_dense(left) else _elementwise(left)
    if _may_meet(left, right):
        return _like(left) if left.shape == right.shape and _is_dense(left) else _elementwise(left, right)
    has_whole = _is_whole(right) and left.ndim >= right.ndim > 0
    return _elementwise(left, right) if has_whole else NotImplemented


@_gives("rsub.Scalar")
def difference(x: Tensor, number: float, *rest: Any, **given: Any) -> Any:
    """A number minus each element."""
    return quotient(x, number, *rest, **given)


@_gives("upsample_linear1d")
def stretched(x: Tensor, size: Sizes, *_: Any, **__: Any) -> Any:
    """`(B, C, L)` interpolated to another length."""
    return _empty((*x.shape[:2], *size), x) if _may_meet(x, x) and x.ndim == 3 and x.numel() else NotImplemented


@_gives("upsample_linear1d_backward")
def stretched_gradient(grad_out: Tensor, _size: Sizes, sizes: Sizes, *_: Any, **__: Any) -> Any:
    """The gradient of the interpolated input."""
    return _empty(sizes, grad_out) if _may_meet(grad_out, grad_out) else NotImplemented


@_gives("add.Tensor", "sub.Tensor", "mul.Tensor", "mul.Scalar")
def of_two(left: Any, right: Any, *rest: Any, **given: Any) -> Any:
    """A sum or product; one operand may be a number, and both are broadcast."""
    if not rest and not given and _is_whole(left) and left.is_contiguous() and type(right) is int:
        return _empty(left.shape, left)
    return quotient(left, right, *rest, **given)


@_gives("where.self")
def chosen(condition: Tensor, left: Tensor, right: Tensor) -> Any:
    """Elements of two tensors."""
    is_plain = condition.device.type == "meta" and condition.dtype == torch.bool and _may_meet(left, right)
    return _elementwise(condition, left, right, dtype=left.dtype) if is_plain else NotImplemented


@_gives("index.Tensor")
def rows(x: Tensor, indices: Sequence[Tensor | None]) -> Any:
    """Rows of a table, `x[index]`."""
    index = indices[0] if len(indices) == 1 else None
    if index is None or not _is_whole(index) or not index.is_contiguous() or not _are_plain(x) or not x.ndim:
        return NotImplemented
    return _empty((*index.shape, *x.shape[1:]), x)


@_gives("index_put")
def with_rows(x: Tensor, indices: Sequence[Tensor | None], values: Tensor, _accumulate: bool = False) -> Any:
    """A table of which some rows are replaced or added to."""
    rows_given = rows(x, indices)
    fits = isinstance(rows_given, Tensor) and _may_meet(x, values) and _spreads(values.shape, rows_given.shape)
    return _empty(x.shape, x) if fits else NotImplemented


@_gives("arange.start")
def numbers(start: Any, end: Any, *, dtype: torch.dtype | None = None, device: Any = None, **_: Any) -> Any:
    """The whole numbers from `start` to `end` - 1."""
    if type(start) is not int or type(end) is not int or end < start or torch.device(device or "cpu").type != "meta":
        return NotImplemented
    return torch.empty(end - start, dtype=dtype or torch.int64, device="meta")


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
    operands = (weight,) if bias is None else (weight, bias)
    if transposed or not _are_plain(*operands) or not _may_meet(x, weight) or _keeps_channels_last(x):
        return NotImplemented
    if x.ndim != weight.ndim or x.shape[1] != weight.shape[1] * groups:
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
    """Gradients of input, weight and bias, each if it is needed; channels stay last, as in `x` or `weight`."""
    if given or not _may_meet(grad_out, x) or not _may_meet(x, weight) or x.ndim not in (3, 4, 5):
        return NotImplemented
    form = torch.contiguous_format
    if x.ndim > 3 and (_has_channels_last(x) or _has_channels_last(weight)):
        form = torch.channels_last if x.ndim == 4 else torch.channels_last_3d
    shapes = (x.shape, weight.shape, bias_sizes or weight.shape[:1])
    forms = (form, form, torch.contiguous_format)
    return tuple(
        torch.empty(tuple(shape), dtype=x.dtype, device="meta", memory_format=each) if wanted else None
        for shape, each, wanted in zip(shapes, forms, rest[-1], strict=True)
    )


@_gives("native_batch_norm")
def batch_norm(x: Tensor, weight: Tensor | None, bias: Tensor | None, *_: Any, **__: Any) -> Any:
    """The result, and the mean and deviation of each channel."""
    if not _may_meet(x, x) or not _are_plain(*(t for t in (weight, bias) if t is not None)) or x.ndim < 2:
        return NotImplemented
    return _like(x) if _is_dense(x) else _elementwise(x), _empty(x.shape[1:2], x), _empty(x.shape[1:2], x)


@_gives("native_batch_norm_backward")
def batch_norm_backward(grad_out: Tensor, x: Tensor, *rest: Any, **given: Any) -> Any:
    """Gradients of input, weight and bias, each if it is needed."""
    if given or not _may_meet(grad_out, x) or grad_out.shape != x.shape:
        return NotImplemented
    gradients = _elementwise(grad_out, x), _empty(x.shape[1:2], x), _empty(x.shape[1:2], x)
    return tuple(made if wanted else None for made, wanted in zip(gradients, rest[-1], strict=True))


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
    if given or not _may_meet(grad_out, x) or grad_out.shape != x.shape:
        return NotImplemented
    shapes = (x.shape, normalized, normalized)
    return tuple(_empty(shape, x) if wanted else None for shape, wanted in zip(shapes, rest[-1], strict=True))


@_gives("max_pool2d_with_indices", "max_pool3d_with_indices")
def max_pool(
    x: Tensor, kernel: Sizes, stride: Sizes = (), padding: Sizes = (0,), dilation: Sizes = (1,), ceil_mode: bool = False
) -> Any:
    """The largest values and their indices; `x` is `(B, C, *sizes)`. Over three dimensions, channels stay last."""
    is_last = x.ndim == len(kernel) + 2 == 5 and not x.is_contiguous() and _has_channels_last(x)
    plain = x if x.ndim != 5 or not _may_meet(x, x) else _empty(x.shape, x)
    pooled = _pooled(plain, kernel, stride, padding, dilation, ceil_mode=ceil_mode)
    if pooled is NotImplemented:
        return NotImplemented
    form = torch.channels_last_3d if is_last else torch.contiguous_format
    return tuple(
        torch.empty(pooled.shape, dtype=dtype, device="meta", memory_format=form) for dtype in (x.dtype, torch.int64)
    )


@_gives("avg_pool2d", "avg_pool3d")
def average_pool(
    x: Tensor, kernel: Sizes, stride: Sizes = (), padding: Sizes = (0,), ceil_mode: bool = False, *_: Any, **__: Any
) -> Any:
    """Averages; `x` is `(B, C, *sizes)`."""
    return _pooled(x, kernel, stride, padding, (1,), ceil_mode=ceil_mode)


@_gives("avg_pool3d_backward")
def average_pool_backward(grad_out: Tensor, x: Tensor, *_: Any, **__: Any) -> Any:
    """The gradient of the pooled input, contiguous whatever the strides of both."""
    return _empty(x.shape, x) if _may_meet(grad_out, x) else NotImplemented


@_gives("max_pool2d_with_indices_backward", "max_pool3d_with_indices_backward")
def pool_backward(grad_out: Tensor, x: Tensor, *_: Any, **__: Any) -> Any:
    """The gradient of the pooled input; over three dimensions, channels stay last."""
    if _are_plain(grad_out, x):
        return _empty(x.shape, x)
    if not _may_meet(grad_out, x) or x.ndim != 5:
        return NotImplemented
    form = torch.channels_last_3d if _has_channels_last(x) else torch.contiguous_format
    return torch.empty(x.shape, dtype=x.dtype, device="meta", memory_format=form)


@_gives("mean", "sum", "mean.dim", "sum.dim_IntList")
def reduced(x: Tensor, dims: Sizes | None = None, keepdim: bool = False, **given: Any) -> Any:
    """Means or sums over some dimensions, or over all."""
    if given or not _may_meet(x, x):
        return NotImplemented
    gone = {d % x.ndim for d in dims} if dims else set(range(x.ndim))
    kept = [1 if d in gone else n for d, n in enumerate(x.shape) if keepdim or d not in gone]
    return _empty(kept, x)


@_gives("constant_pad_nd")
def padded(x: Tensor, amounts: Sizes, *_: Any, **given: Any) -> Any:
    """A tensor with `amounts` added before and after each of its last dimensions, the last one first."""
    if given or len(amounts) % 2 or len(amounts) > 2 * x.ndim or not _may_meet(x, x) or _may_be_channels_last(x):
        return NotImplemented
    if not any(amounts):
        return _like(x) if _is_dense(x) else _elementwise(x)
    added = [before + after for before, after in zip(amounts[::2], amounts[1::2], strict=True)]
    shape = [n + more for n, more in zip(x.shape, [0] * (x.ndim - len(added)) + added[::-1], strict=True)]
    return _empty(shape, x) if min(shape) > 0 else NotImplemented


@_gives("cat")
def concatenated(tensors: Sequence[Tensor], dim: int = 0) -> Any:
    """Tensors of equal sizes, concatenated."""
    first = tensors[0]
    if not first.ndim or not all(_may_meet(first, t) and t.ndim == first.ndim for t in tensors):
        return NotImplemented
    if all(map(_may_be_channels_last, tensors)):
        return NotImplemented
    along = dim % first.ndim
    if len({(*t.shape[:along], *t.shape[along + 1 :]) for t in tensors}) > 1:
        return NotImplemented
    return _empty((*first.shape[:along], sum(t.shape[along] for t in tensors), *first.shape[along + 1 :]), first)


@_gives("slice_backward", "select_backward")
def spread_gradient(grad_out: Tensor, sizes: Sizes, *_: Any, **__: Any) -> Any:
    """The gradient of what a slice was taken from."""
    return _empty(sizes, grad_out) if _may_meet(grad_out, grad_out) else NotImplemented


@_gives("stack")
def stacked(tensors: Sequence[Tensor], dim: int = 0) -> Any:
    """Tensors of one size along a new dimension."""
    first = tensors[0]
    if not all(_may_meet(first, t) and t.shape == first.shape for t in tensors):
        return NotImplemented
    if all(t.ndim in (3, 4) and not t.is_contiguous() and t.stride(-1) != 1 for t in tensors):
        return NotImplemented  # PyTorch may keep channels last
    along = dim % (first.ndim + 1)
    return _empty((*first.shape[:along], len(tensors), *first.shape[along:]), first)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_whole(x: Any) -> bool:
    return isinstance(x, Tensor) and x.dtype == torch.int64 and x.device.type == "meta"


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
