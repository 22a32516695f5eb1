"""Rules for results on the meta device against PyTorch's meta kernels: same shape, type and strides, or no answer."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from bench.measure.counting.dispatch import OperatorObserver
from bench.measure.counting.shapes import operators_with_rule, run_by_shape


class Compared(TorchDispatchMode):
    """Runs every operator both ways and compares; `answered` are those that a rule answered."""

    def __init__(self) -> None:
        super().__init__()
        self.answered: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        expected = func(*args, **kwargs)
        called: list[bool] = []

        class Asked:
            def name(self) -> str:
                return str(func.name())

            def __call__(self, *args: Any, **kwargs: Any) -> Any:
                called.append(True)
                return expected

        found = run_by_shape(Asked(), args, kwargs)
        if not called:
            self.answered.add(func.name())
            assert described(found) == described(expected), func.name()
        return expected


def described(value: Any) -> Any:
    if isinstance(value, Tensor):
        strides = [s for s, n in zip(value.stride(), value.shape, strict=True) if n > 1]
        return tuple(value.shape), strides, value.dtype, value.device.type
    return [described(item) for item in value] if isinstance(value, list | tuple) else value


def run(function: Callable[..., Any], *tensors: Tensor) -> set[str]:
    """Compares forward and backward of a function; gives the operators that a rule answered."""
    with Compared() as compared:
        out = function(*tensors)
        if isinstance(out, Tensor) and out.requires_grad:
            out.backward(torch.empty_like(out))
    return compared.answered


def meta(*shape: int, **options: Any) -> Tensor:
    return torch.empty(shape, device="meta", requires_grad=True, **options)


sizes = st.integers(1, 5)


@given(st.data())
@settings(max_examples=25)
def test_convolutions_and_pools(data: st.DataObject) -> None:
    spatial = data.draw(st.sampled_from([2, 3]))
    groups, kernel = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 3))
    stride, padding, dilation = data.draw(st.integers(1, 3)), data.draw(st.integers(0, 2)), data.draw(st.integers(1, 2))
    x = meta(2, 2 * groups, *data.draw(st.tuples(*[st.integers(5, 9)] * spatial)))
    assume(2 * padding <= kernel and dilation * (kernel - 1) < 5)
    conv = getattr(nn, f"Conv{spatial}d")(
        2 * groups, 3 * groups, kernel, stride, padding, dilation, groups, bias=data.draw(st.booleans()), device="meta"
    )
    run(conv, x)
    pool = getattr(F, f"max_pool{spatial}d")
    run(lambda x: pool(x, kernel, stride, padding, dilation, ceil_mode=data.draw(st.booleans())), x)
    mean_pool = getattr(F, f"avg_pool{spatial}d")
    run(lambda x: mean_pool(x, kernel, stride, padding, ceil_mode=data.draw(st.booleans())), x)
    for turned in (x.transpose(-1, -2), x.transpose(0, 1), x.movedim(1, -1).contiguous().movedim(-1, 1)):
        run(lambda x: mean_pool(x, kernel, stride, padding).transpose(-1, -2) * 2, turned)
        run(lambda x: pool(x, kernel, stride, padding) * 2, turned)
        for sides in ([1] * spatial, [1, 3, 3][-spatial:]):
            weight = meta(3 * turned.shape[1], turned.shape[1], *sides)
            run(getattr(F, f"conv{spatial}d"), turned, weight)
            run(getattr(F, f"conv{spatial}d"), turned[1:], weight)
        run(
            lambda x, w: F.conv1d(x.flatten(2).transpose(1, 2).contiguous().transpose(1, 2), w.flatten(2)),
            turned,
            weight,
        )


@pytest.mark.parametrize("order", [(0, 1, 2), (1, 0, 2), (2, 1, 0), (0, 2, 1)])
def test_an_interpolation_along_one_dimension(order: tuple[int, int, int]) -> None:
    x = meta(2, 3, 4).permute(order)
    for size in (2, 4, 9):
        run(lambda x, size=size: torch.ops.aten.upsample_linear1d(x, [size], False), x)


LAYOUTS: list[Callable[[Tensor], Tensor]] = [
    lambda x: x,
    lambda x: x.transpose(0, 1),
    lambda x: x.permute(0, 2, 3, 1),
    lambda x: x[:, :1],
    lambda x: x[..., ::2],
    lambda x: x[:1].expand(3, *x.shape[1:]),
    lambda x: x.sum((2, 3), keepdim=True).expand(x.shape),
    lambda x: x.contiguous(memory_format=torch.channels_last),
]
ELEMENTWISE: list[Callable[[Tensor], Tensor]] = [
    F.relu,
    lambda x: x.clamp(0, 1),
    lambda x: x.flip(1),
    lambda x: x.flip(-1) * x,
    lambda x: x.pow(2),
    lambda x: 1 - x,
    lambda x: x.cumsum(1),
    lambda x: x.cumsum(-1),
    lambda x: (x < 1).logical_or(x >= 0.5),
    lambda x: (x <= 1).logical_or(x > 0.5),
    lambda x: (x <= 1).logical_and_(x > 0.5),
    lambda x: torch.stack([x, x], 1),
    lambda x: torch.stack([x, x], -1),
    lambda x: torch.stack([x[0], x[0].contiguous()], 1),
    lambda x: torch.stack([x[:1], x[:1]], 1),
    lambda x: x[:, :1, 1:] * x[..., 0].sum(),
    lambda x: torch.cat([x, x.contiguous()], 1),
    lambda x: torch.cat([x.transpose(0, 1), x.transpose(0, 1)]),
    lambda x: torch.cat([x.flatten(1).T, x.flatten(1).T]),
    lambda x: x[:, :, :1] * x[..., :1],
    lambda x: x.contiguous()[:, :, :1] + x.contiguous()[:, :1],
    lambda x: x * x.contiguous(),
    lambda x: x[..., :1] * x.contiguous(),
    lambda x: x[:, :, :1] + x.transpose(-1, -2).contiguous().transpose(-1, -2),
    lambda x: x[..., :1].expand(x.shape) / 3,
    lambda x: F.pad(x, (0, 0)),
    lambda x: F.pad(x[:, :, :1, :1], (0, 0, 0, 0)),
    lambda x: F.pad(x, (1, 2, 0, 3)),
    lambda x: F.pad(x, (0, 0, 0, 0, 0, -1)),
    lambda x: x.clamp(0, 1) / torch.arange(1, x.shape[-1] + 1, device="meta"),
    lambda x: torch.where(x > 0, x, x.new_ones(())),
    lambda x: torch.where(x[..., :1] > 0, x.contiguous(), x),
    lambda x: x.contiguous() - x,
    lambda x: F.hardswish(x.transpose(1, 2)).transpose(1, 2) * x.contiguous(),
    F.gelu,
    lambda x: F.gelu(x, approximate="tanh"),
    F.silu,
    torch.sigmoid,
    torch.tanh,
    F.hardswish,
    F.hardsigmoid,
    F.hardtanh,
    F.leaky_relu,
    F.elu,
    F.softplus,
    F.mish,
    torch.exp,
    torch.cos,
    torch.sin,
    torch.sqrt,
    torch.rsqrt,
    torch.reciprocal,
    torch.mean,
    lambda x: F.silu(x * 1.0, inplace=True),
    lambda x: F.hardtanh(x * 1.0, inplace=True),
    lambda x: F.leaky_relu(x * 1.0, inplace=True),
    lambda x: (x * 1.0).sigmoid_(),
    lambda x: (x * 1.0).tanh_(),
    lambda x: (x * 1.0).sub_(x),
    lambda x: F.hardswish(x * 1.0, inplace=True),
    lambda x: torch.empty_like(x).normal_().clamp_(0, 1).uniform_().erfinv_().fill_(2.0).zero_(),
    lambda x: torch.ops.aten.mul_.Scalar(torch.ops.aten.mul.Scalar(x.detach(), 2.0), 3.0),
    lambda x: torch.ops.aten._safe_softmax(x, -1),
    torch.zeros_like,
    lambda x: F.softmax(x, -1),
    lambda x: F.log_softmax(x, 1),
    lambda x: F.dropout(x, 0.5, training=True),
    lambda x: torch.native_dropout(x, 0.5, True),
    lambda x: x * 2 + 1,
    lambda x: x / 3 - x,
    lambda x: x + 2.5,
    lambda x: x * 2 == 1,
    lambda x: x.mean((-1, -2)),
    lambda x: x.mean((1,), keepdim=True),
    lambda x: x.sum(),
    lambda x: x.sum(0),
    lambda x: x * x.sum(-1, keepdim=True),
    lambda x: x.sum(0, keepdim=True) + x,
    lambda x: x + x.new_ones(x.shape[-1]),
    lambda x: torch.cat([x, x], 1),
    lambda x: torch.cat([x, x[:, :1]], 1),
    lambda x: F.relu(x * 1.0, inplace=True),
    lambda x: (x * 2).add_(x).mul_(3).div_(x.new_ones(x.shape[-1])),
    torch.ones_like,
    lambda x: torch.zeros_like(x, dtype=torch.int32),
    lambda x: torch.empty_like(x, memory_format=torch.contiguous_format),
]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("layout", range(len(LAYOUTS)))
def test_elementwise_in_every_layout(layout: int, dtype: torch.dtype) -> None:
    for function in ELEMENTWISE:
        run(function, LAYOUTS[layout](meta(2, 3, 4, 5, dtype=dtype)))


def test_elementwise_of_two_types_and_of_integers() -> None:
    whole = torch.empty(2, 3, 4, 5, device="meta", dtype=torch.int64)
    for function in (torch.sigmoid, torch.exp, torch.sum, torch.ones_like, lambda x: x * 2 + 1, lambda x: x / 3):
        run(function, whole)
    run(lambda x, y: x + y, meta(2, 3), torch.empty(2, 3, device="meta", dtype=torch.bfloat16))
    run(lambda x, y: x * y, meta(2, 3), torch.empty(3, device="meta", dtype=torch.int64))
    run(lambda x, y: x + y, torch.empty((), device="meta"), torch.empty(2, 3, device="meta"))
    run(lambda x, y: x + y, meta(3, 1), meta(4))


def test_every_rule_answers_the_plain_case() -> None:
    x = meta(2, 3, 4, 4, 4)
    functions: list[Callable[[Tensor], Any]] = [
        *ELEMENTWISE,
        nn.Conv3d(3, 4, 3, device="meta"),
        lambda x: F.conv3d(x.transpose(1, 2), meta(4, 4, 1, 1, 1)).permute(4, 3, 2, 1, 0) * 2,
        lambda x: F.conv1d(x.flatten(1).T[None], meta(4, x[0].numel(), 1)),
        lambda x: torch.arange(1, 4, device="meta") + 2,
        nn.BatchNorm3d(3, device="meta"),
        lambda x: F.max_pool3d(x, 2),
        lambda x: F.avg_pool3d(x, 2),
        lambda x: F.max_pool2d(x[0], 2),
        lambda x: F.avg_pool2d(x[0], 2),
        lambda x: F.linear(x, meta(5, 4)),
        lambda x: F.linear(x, meta(5, 4), meta(5)),
        lambda x: x[0, 0] @ x[1, 1],
        lambda x: F.layer_norm(x, (4,), meta(4)),
        lambda x: x[torch.zeros(3, 5, dtype=torch.int64, device="meta")],
        lambda x: torch.ops.aten.upsample_linear1d(x[0, 0], [7], False),
    ]
    answered = set().union(*[run(function, x) for function in functions])
    with torch.inference_mode():
        answered |= run(F.scaled_dot_product_attention, x[0].detach(), x[0].detach(), x[1].detach())
    assert set(operators_with_rule()) - answered == set()


@given(sizes, sizes, sizes, sizes, st.booleans(), st.booleans())
@settings(max_examples=15)
def test_products(b: int, n: int, k: int, m: int, left_is_turned: bool, right_is_turned: bool) -> None:
    left = meta(b, k, n).transpose(1, 2) if left_is_turned else meta(b, n, k)
    right = meta(b, m, k).transpose(1, 2) if right_is_turned else meta(b, k, m)
    run(torch.bmm, left, right)
    run(torch.mm, left[0], right[0])
    for added in (meta(m), meta(n, m), meta(1, m), meta(n, 1), meta()):
        run(torch.addmm, added, left[0], right[0])
    run(lambda x: F.layer_norm(x, (k,), meta(k), meta(k)), meta(b, n, k))
    run(lambda x: F.layer_norm(x, (n, k)), meta(b, n, k))
    for turned in (meta(n, b, k).transpose(0, 1), meta(b, k, n).transpose(1, 2), meta(1, n, k).expand(b, n, k)):
        run(lambda x: F.layer_norm(x, (k,), meta(k), meta(k)), turned)
        run(lambda x: F.layer_norm(x.contiguous(), (k,), meta(k)).transpose(0, 1).contiguous(), turned)


@pytest.mark.parametrize("training", [True, False])
def test_batch_norm(training: bool) -> None:
    for order in ((1, 0, 2, 3), (2, 0, 1, 3), (0, 2, 3, 1)):  # of the gradient in memory
        norm = nn.BatchNorm2d(3, device="meta").train(training)
        run(lambda x, norm=norm, order=order: norm(x).permute(order).contiguous(), meta(2, 3, 4, 5))
    for turn in LAYOUTS:
        x = turn(meta(3, 3, 4, 5))
        run(nn.BatchNorm2d(x.shape[1], device="meta").train(training), x)
        for order in ((1, 0, 2, 3), (0, 2, 3, 1)):
            norm = nn.BatchNorm2d(x.shape[1], device="meta").train(training)
            run(lambda x, norm=norm, order=order: norm(x).permute(order).contiguous(), x)
    run(nn.BatchNorm3d(3, device="meta").train(training), meta(2, 3, 2, 4, 4))
    run(nn.BatchNorm3d(3, device="meta").train(training), meta(2, 2, 4, 4, 3).permute(0, 4, 1, 2, 3))
    run(nn.BatchNorm1d(3, affine=False, device="meta").train(training), meta(2, 3))
    run(nn.BatchNorm2d(3, track_running_stats=False, device="meta").train(training), meta(2, 3, 2, 4))


@pytest.mark.parametrize("turn", LAYOUTS)
def test_rows_of_a_table(turn: Callable[[Tensor], Tensor]) -> None:
    table = turn(meta(2, 3, 4, 5))
    for shape in ((3,), (0,), (2, 2)):
        places = torch.zeros(shape, dtype=torch.int64, device="meta")
        run(lambda x, places=places: x[places] * 2, table)
        run(lambda x, places=places: x[:, places] * 2, table)
    if table.shape[0] == 3:
        run(lambda x: x[torch.zeros(4, 2, dtype=torch.int64, device="meta").T], table)


MISTAKES: list[tuple[Callable[..., Any], tuple[tuple[int, ...], ...]]] = [
    (F.conv2d, ((1, 3, 8, 8), (4, 2, 3, 3))),
    (F.conv3d, ((1, 3, 2, 8, 8), (4, 3, 3, 3, 3))),
    (torch.mm, ((2, 3), (4, 5))),
    (torch.bmm, ((2, 3, 4), (3, 4, 5))),
    (torch.addmm, ((7,), (2, 3), (3, 5))),
    (torch.add, ((2, 3), (4, 3))),
    (lambda x: F.max_pool2d(x, 9), ((1, 3, 8, 8),)),
    (lambda x, y: torch.cat([x, y]), ((2, 3), (2, 4))),
    (lambda x, y: x.clone().add_(y), ((3,), (2, 3))),
    (lambda x: F.layer_norm(x, (4,)), ((2, 3),)),
]


@pytest.mark.parametrize(("function", "shapes"), MISTAKES)
def test_what_does_not_fit_is_still_refused(function: Callable[..., Any], shapes: tuple[tuple[int, ...], ...]) -> None:
    with pytest.raises(RuntimeError), OperatorObserver("meta"):
        function(*[torch.empty(shape, device="meta") for shape in shapes])


def test_every_rule_names_an_operator_of_this_torch() -> None:
    for name in operators_with_rule():
        namespace, _, rest = name.partition("::")
        operator, _, overload = rest.partition(".")
        assert getattr(getattr(getattr(torch.ops, namespace), operator), overload or "default").name() == name
