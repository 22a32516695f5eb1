"""Counter reports, made in this process, and why they differ from our count: every difference to the integer."""

import copy
import math
import operator
import warnings

import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from bench.measure.counting.counters.agreement import Agreement, judge
from bench.measure.counting.counters.counter_child import counter_function
from bench.measure.counting.model_count import count

TOOLS = ["fvcore", "thop", "ptflops-pytorch", "ptflops-aten"]


def heard(tool: str, build: type[nn.Module] | nn.Module, *shapes: tuple[int, ...]) -> Agreement:
    model = (build() if isinstance(build, type) else copy.deepcopy(build)).eval()
    inputs = tuple(torch.randn(shape) for shape in shapes)
    counted = count(model, inputs)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return judge(counted, counter_function(tool)(model, inputs))


class Convolutions(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv3d(3, 8, 3, padding=1), nn.BatchNorm3d(8), nn.ReLU(), nn.Conv3d(8, 8, 3, groups=8), nn.AvgPool3d(2)
        )
        self.fc = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.body(x).mean((2, 3, 4)))


class OwnConv(nn.Conv3d):
    """A subclass, as in torchvision's video ResNets."""


class Functional(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.randn(6, 6))
        self.fc = nn.Linear(6, 6)

    def forward(self, x: Tensor) -> Tensor:
        y = F.linear(x, self.w) @ self.w + torch.matmul(x, self.w)
        return torch.einsum("bij,jk->bik", F.scaled_dot_product_attention(y, y, y), self.fc.weight)


class Broadcasts(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.randn(7, 6, 8))

    def forward(self, x: Tensor) -> Tensor:
        return torch.matmul(x, self.w) + x @ self.w


class Shared(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        layer = nn.Conv2d(4, 4, 3, padding=1)
        self.a, self.b = nn.Sequential(layer, nn.ReLU()), nn.Sequential(layer)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.a(x))


class Direct(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.block = nn.Sequential(nn.Conv2d(4, 4, 3), nn.Conv2d(4, 4, 1))
        self.fc = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc.forward(self.block[1].forward(self.block[0](x)).mean((2, 3)))


class Recurrent(nn.Module):
    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer, self.fc = layer, nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.layer(x)[0][:, -1, :8])


class Cells(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.gru, self.rnn = nn.LSTMCell(6, 8), nn.GRUCell(8, 8), nn.RNNCell(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        hidden = state = None
        for step in x.unbind(1):
            state = self.lstm(step, state)
            hidden = self.rnn(self.gru(state[0], hidden))
        return hidden


class Attends(nn.Module):
    def __init__(self, *, need_weights: bool) -> None:
        super().__init__()
        self.attention, self.need_weights = nn.MultiheadAttention(8, 2, batch_first=True), need_weights

    def forward(self, x: Tensor) -> Tensor:
        return self.attention(x, x, x, need_weights=self.need_weights)[0]


VIDEO, IMAGE, STEPS = (1, 3, 4, 8, 8), (1, 4, 8, 8), (1, 5, 6)
MODELS = {
    "convolutions": (Convolutions(), VIDEO),
    "one layer": (nn.Conv3d(3, 4, 3), VIDEO),
    "subclass": (nn.Sequential(OwnConv(3, 4, 3), nn.Flatten(), nn.Linear(288, 2)), VIDEO),
    "functional": (Functional(), STEPS),
    "broadcast": (Broadcasts(), STEPS),
    "shared": (Shared(), IMAGE),
    "direct": (Direct(), IMAGE),
    "transposed": (nn.Sequential(nn.ConvTranspose2d(4, 6, 3, stride=2), nn.Conv2d(6, 2, 1)), IMAGE),
    "lstm": (Recurrent(nn.LSTM(6, 8, 2, batch_first=True, bidirectional=True)), STEPS),
    "lstm projected": (Recurrent(nn.LSTM(6, 9, proj_size=8, batch_first=True)), STEPS),
    "gru": (Recurrent(nn.GRU(6, 8, batch_first=True, bias=False)), STEPS),
    "rnn": (Recurrent(nn.RNN(6, 8, 3, batch_first=True)), STEPS),
    "cells": (Cells(), STEPS),
    "attention": (Attends(need_weights=False), (1, 5, 8)),
    "attention with weights": (Attends(need_weights=True), (1, 5, 8)),
    "encoder": (nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 2), (1, 5, 8)),
    "norms": (
        nn.Sequential(nn.Conv2d(4, 8, 1), nn.GroupNorm(2, 8), nn.GELU(), nn.AdaptiveAvgPool2d(2), nn.Softmax(1)),
        IMAGE,
    ),
}
AGREE = {
    "fvcore": {"convolutions", "one layer", "subclass", "shared", "direct", "transposed", "norms"},
    "thop": {"convolutions", "one layer", "lstm", "gru", "rnn", "cells", "norms"},
    "ptflops-pytorch": {"convolutions", "one layer", "transposed", "lstm", "gru", "rnn", "cells", "norms"},
    "ptflops-aten": {"convolutions", "one layer", "subclass", "shared", "direct", "transposed", "norms"},
}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("tool", TOOLS)
def test_no_difference_is_left_unexplained(tool: str, name: str) -> None:
    model, shape = MODELS[name]
    verdict = heard(tool, model, shape)
    assert verdict.verdict in ("agrees", "explained"), verdict
    assert sum(reason.macs for reason in verdict.reasons) == verdict.difference == verdict.comparable - verdict.ours
    assert verdict.printed == verdict.comparable + sum(verdict.beyond.values())
    if name in AGREE[tool]:
        assert verdict.verdict == "agrees"


def test_reasons_name_operator_module_and_amount() -> None:
    fvcore = heard("fvcore", MODELS["lstm"][0], STEPS)
    lstm = 5 * 2 * 4 * 8 * ((6 + 8) + (16 + 8))
    assert [(r.why, r.macs, r.modules) for r in fvcore.reasons] == [("no formula for aten::lstm", -lstm, ("layer",))]
    thop = heard("thop", MODELS["subclass"][0], VIDEO)
    assert [(r.why, r.macs, r.modules) for r in thop.reasons] == [("no rule for OwnConv", -72 * 4 * 81, ("0",))]
    shared = heard("thop", MODELS["shared"][0], IMAGE)
    assert shared.reasons[0].why == "shared under 2 names, it counts 2 x 2 times"
    assert shared.comparable == 4 * shared.ours
    transposed = heard("thop", MODELS["transposed"][0], IMAGE)
    assert transposed.reasons[0].macs == (17 * 17 * 6 - 64 * 6) * 4 * 9


def macs_by_hand(layers: list[nn.Module], shape: tuple[int, ...]) -> int:
    """Walks the sizes through a stack and multiplies, by the textbook."""
    width, sizes, macs = shape[0], list(shape[1:]), 0
    for layer in layers:
        if hasattr(layer, "kernel_size"):
            assert layer.in_channels == width
            for d in range(len(sizes)):
                reach = layer.dilation[d] * (layer.kernel_size[d] - 1) + 1
                sizes[d] = (sizes[d] + 2 * layer.padding[d] - reach) // layer.stride[d] + 1
            width = layer.out_channels
            macs += math.prod(sizes) * width * (layer.in_channels // layer.groups) * math.prod(layer.kernel_size)
        elif isinstance(layer, nn.Linear):
            macs += layer.in_features * layer.out_features
    return macs


@st.composite
def stacks(draw: st.DrawFn) -> tuple[list[nn.Module], tuple[int, ...]]:
    """A few convolutions of one dimensionality with all that goes between them, and their input without batch.

    Stacks that PyTorch refuses are discarded: a kernel that does not fit, or circular padding wider than the input.
    """
    spatial = draw(st.integers(1, 3))
    conv, norm = getattr(nn, f"Conv{spatial}d"), getattr(nn, f"BatchNorm{spatial}d")
    first = width = draw(st.sampled_from([2, 4, 6]))
    layers: list[nn.Module] = []
    for _ in range(draw(st.integers(1, 3))):
        out = draw(st.sampled_from([2, 4, 6]))
        options = {
            "kernel_size": draw(st.integers(1, 3)),
            "stride": draw(st.integers(1, 2)),
            "padding": draw(st.integers(1, 2)),
            "dilation": draw(st.integers(1, 2)),
            "groups": draw(st.sampled_from([1, 2])),
            "bias": draw(st.booleans()),
            "padding_mode": draw(st.sampled_from(["zeros", "circular", "replicate"])),
        }
        layers += [conv(width, out, **options), draw(st.sampled_from([nn.ReLU(), nn.GELU(), norm(out), nn.Dropout()]))]
        width = out
    layers += [getattr(nn, f"AdaptiveAvgPool{spatial}d")(1), nn.Flatten(), nn.Linear(width, 2)]
    shape = (first, *draw(st.tuples(*[st.integers(8, 10)] * spatial)))
    assume(fits(layers, shape[1:]))
    return layers, shape


def fits(layers: list[nn.Module], sizes: tuple[int, ...]) -> bool:
    for conv in (layer for layer in layers if hasattr(layer, "kernel_size")):
        padded = [size + 2 * pad for size, pad in zip(sizes, conv.padding, strict=True)]
        reach = [d * (k - 1) + 1 for d, k in zip(conv.dilation, conv.kernel_size, strict=True)]
        is_too_wide = conv.padding_mode == "circular" and any(map(operator.gt, conv.padding, sizes))
        if is_too_wide or any(map(operator.gt, reach, padded)):
            return False
        sizes = tuple((p - r) // s + 1 for p, r, s in zip(padded, reach, conv.stride, strict=True))
    return True


def test_stacks_that_do_not_fit_are_recognised() -> None:
    """The generator made such stacks once in a thousand runs, and the test of the counters failed on them."""
    layer = nn.Conv1d(2, 2, 3, stride=2, padding=1, dilation=2)
    assert fits([layer, layer], (8,))
    assert not fits([layer, layer, layer], (8,))
    with pytest.raises(RuntimeError, match="Kernel size"):
        nn.Sequential(layer, layer, layer)(torch.randn(1, 2, 8))
    wide = nn.Conv1d(2, 2, 1, padding=2, padding_mode="circular")
    assert fits([wide], (2,))
    assert not fits([wide], (1,))
    with pytest.raises(RuntimeError, match="adding"):
        wide(torch.randn(1, 2, 1))


@given(stacks())
@settings(max_examples=15)
def test_random_stacks_are_counted_as_by_hand_and_every_counter_agrees(
    stack: tuple[list[nn.Module], tuple[int, ...]],
) -> None:
    layers, shape = stack
    macs = macs_by_hand(layers, shape)
    model = nn.Sequential(*layers).eval()
    for batch in (1, 4):
        assert count(model, torch.empty(batch, *shape, device="meta")).macs == batch * macs
    for tool in TOOLS:
        verdict = heard(tool, model, (1, *shape))
        assert (verdict.verdict, verdict.comparable) == ("agrees", macs), tool
