"""Every kind of layer against a count written by hand: batch 1 and 4, meta and CPU, forward and backward."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from math import prod

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from bench.measure.counting.model_count import count


class Calls(nn.Module):
    """Runs a function with parameters `w0`, `w1`, … of the given shapes."""

    def __init__(self, function: Callable[..., Tensor], *shapes: tuple[int, ...]) -> None:
        super().__init__()
        self.function = function
        self.shapes = shapes
        for index, shape in enumerate(shapes):
            self.register_parameter(f"w{index}", nn.Parameter(torch.randn(shape)))

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x, *[getattr(self, f"w{index}") for index in range(len(self.shapes))])


@dataclass(frozen=True, kw_only=True)
class Layer:
    """`forward` and `backward` MACs of a batch of one; the input (without batch) requires no gradient."""

    name: str
    build: Callable[[], nn.Module]
    shape: tuple[int, ...]
    forward: int
    backward: int | None = None
    batch_at: int = 0

    def inputs(self, batch: int) -> Tensor:
        sizes = list(self.shape)
        sizes.insert(self.batch_at, batch)
        return torch.randn(sizes)


def conv(name: str, build: Callable[[], nn.Module], shape: tuple[int, ...], macs: int) -> Layer:
    """One convolution: its backward is the weight's gradient, as large as the forward."""
    return Layer(name=name, build=build, shape=shape, forward=macs, backward=macs)


CONVOLUTIONS = [
    conv("conv1d", lambda: nn.Conv1d(6, 8, 3), (6, 10), 8 * 8 * 6 * 3),
    conv("conv2d stride", lambda: nn.Conv2d(3, 8, (3, 5), stride=2, padding=1), (3, 9, 11), 5 * 5 * 8 * 3 * 15),
    conv("conv3d", lambda: nn.Conv3d(3, 4, 3, padding=1), (3, 4, 5, 6), 4 * 5 * 6 * 4 * 3 * 27),
    conv("conv3d dilated", lambda: nn.Conv3d(2, 4, 3, dilation=2), (2, 7, 8, 9), 3 * 4 * 5 * 4 * 2 * 27),
    conv("conv3d groups", lambda: nn.Conv3d(8, 12, 3, groups=4), (8, 4, 4, 4), 8 * 12 * 2 * 27),
    conv("depthwise", lambda: nn.Conv3d(8, 8, 3, groups=8, padding=1), (8, 3, 4, 4), 48 * 8 * 27),
    conv("depthwise x2", lambda: nn.Conv2d(16, 32, 3, groups=16, bias=False), (16, 6, 6), 16 * 32 * 9),
    conv("pointwise", lambda: nn.Conv3d(8, 16, 1), (8, 2, 3, 3), 18 * 16 * 8),
    conv("same padding", lambda: nn.Conv2d(3, 4, 4, padding="same"), (3, 6, 6), 36 * 4 * 3 * 16),
    conv("circular", lambda: nn.Conv2d(3, 4, 3, padding=1, padding_mode="circular"), (3, 6, 6), 36 * 4 * 3 * 9),
    conv("reflect", lambda: nn.Conv3d(3, 4, 3, padding=1, padding_mode="reflect"), (3, 4, 6, 6), 144 * 4 * 3 * 27),
    conv("transposed 1d", lambda: nn.ConvTranspose1d(6, 8, 4, stride=3), (6, 5), 5 * 6 * 8 * 4),
    conv("transposed 2d", lambda: nn.ConvTranspose2d(6, 8, 3, stride=2, padding=1), (6, 5, 5), 25 * 6 * 8 * 9),
    conv("transposed 3d groups", lambda: nn.ConvTranspose3d(6, 8, 3, groups=2), (6, 2, 3, 3), 18 * 6 * 4 * 27),
    conv(
        "transposed output padding",
        lambda: nn.ConvTranspose2d(4, 4, 3, stride=2, output_padding=1, dilation=2),
        (4, 5, 6),
        30 * 4 * 4 * 9,
    ),
    conv("functional", lambda: Calls(F.conv2d, (8, 3, 3, 3)), (3, 6, 6), 16 * 8 * 27),
    conv("lazy subclass", lambda: type("Mine", (nn.Conv3d,), {})(3, 4, 3), (3, 4, 4, 4), 8 * 4 * 81),
]

PRODUCTS = [
    conv("linear rank 2", lambda: nn.Linear(6, 8), (6,), 48),
    conv("linear rank 3", lambda: nn.Linear(6, 8), (5, 6), 5 * 48),
    conv("linear rank 5 without bias", lambda: nn.Linear(6, 8, bias=False), (2, 3, 5, 6), 30 * 48),
    conv("linear functional", lambda: Calls(F.linear, (8, 6)), (5, 6), 5 * 48),
    conv("matmul broadcast", lambda: Calls(torch.matmul, (7, 6, 8)), (7, 5, 6), 7 * 5 * 6 * 8),
    conv("matmul operator", lambda: Calls(lambda x, w: x @ w, (6, 8)), (5, 6), 5 * 48),
    conv("vector from the left", lambda: Calls(lambda x, w: w @ x, (6,)), (6, 5), 30),
    conv("einsum", lambda: Calls(lambda x, w: torch.einsum("bij,jk->bik", x, w), (6, 8)), (5, 6), 5 * 48),
    conv("einsum heads", lambda: Calls(lambda x, w: torch.einsum("bhi,hij->bhj", x, w), (3, 6, 8)), (3, 6), 144),
    conv("tensordot", lambda: Calls(lambda x, w: torch.tensordot(x, w, 2), (5, 6, 8)), (5, 6), 240),
    conv("bilinear", lambda: Calls(lambda x, w: F.bilinear(x, x.detach(), w), (7, 5, 5)), (5,), 7 * 25),
    Layer(
        name="conv_tbc, which always makes its input's gradient",
        build=lambda: Calls(lambda x, w: torch.conv_tbc(x.transpose(0, 1).contiguous(), w, w.new_zeros(8)), (3, 6, 8)),
        shape=(10, 6),
        forward=8 * 8 * 6 * 3,
        backward=2 * 8 * 8 * 6 * 3,
    ),
]

UNBATCHED = [
    ("mv", lambda x: torch.mv(torch.ones(4, 6), x), (6,), 24),
    ("dot", torch.dot, (6,), 6),
    ("vdot", torch.vdot, (6,), 6),
    ("addmv", lambda x: torch.addmv(torch.ones(4), torch.ones(4, 6), x), (6,), 24),
    ("mm", lambda x: torch.mm(x, x.t()), (4, 6), 96),
    ("addmm", lambda x: torch.addmm(torch.ones(4, 4), x, x.t()), (4, 6), 96),
    ("bmm", lambda x: torch.bmm(x, x.transpose(1, 2)), (3, 4, 6), 3 * 96),
    ("baddbmm", lambda x: torch.baddbmm(torch.ones(3, 4, 4), x, x.transpose(1, 2)), (3, 4, 6), 3 * 96),
    ("addbmm", lambda x: torch.addbmm(torch.ones(4, 4), x, x.transpose(1, 2)), (3, 4, 6), 3 * 96),
    ("addbmm in place", lambda x: torch.ones(4, 4).addbmm_(x, x.transpose(1, 2)), (3, 4, 6), 3 * 96),
    ("chain", lambda x: torch.linalg.multi_dot([x, x.t(), x]), (4, 6), 4 * 6 * 4 * 2),
]


def recurrent_forward(*, gates: int, width: int, hidden: int, steps: int) -> int:
    """One layer, one direction: each step multiplies input and state by all gates' matrices."""
    return steps * gates * hidden * (width + hidden)


def lstm_of_two_layers(steps: int = 5, width: int = 6, hidden: int = 8) -> tuple[int, int]:
    """Forward, and backward: weights always, the second layer's input, and the states but the first."""
    first = recurrent_forward(gates=4, width=width, hidden=hidden, steps=steps)
    second = recurrent_forward(gates=4, width=hidden, hidden=hidden, steps=steps)
    states = 2 * (steps - 1) * 4 * hidden * hidden
    into_second = steps * 4 * hidden * hidden
    return first + second, first + second + states + into_second


class GateLoop(nn.Module):
    def __init__(self, cell: nn.Module) -> None:
        super().__init__()
        self.cell = cell

    def forward(self, x: Tensor) -> Tensor:
        state = None
        for step in x.unbind(1):
            state = self.cell(step, state)
        return state if isinstance(state, Tensor) else state[0]


class First(nn.Module):
    """The first result of a module that gives several."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Tensor) -> Tensor:
        return self.module(x)[0]


RECURRENT = [
    Layer(
        name="lstm of two layers",
        build=lambda: First(nn.LSTM(6, 8, num_layers=2)),
        shape=(5, 6),
        batch_at=1,
        forward=lstm_of_two_layers()[0],
        backward=lstm_of_two_layers()[1],
    ),
    Layer(
        name="lstm both ways, batch first",
        build=lambda: First(nn.LSTM(6, 8, bidirectional=True, batch_first=True)),
        shape=(5, 6),
        forward=2 * recurrent_forward(gates=4, width=6, hidden=8, steps=5),
        backward=2 * recurrent_forward(gates=4, width=6, hidden=8, steps=5) + 2 * 4 * 4 * 8 * 8,
    ),
    Layer(
        name="lstm with projection",
        build=lambda: First(nn.LSTM(6, 8, proj_size=3, batch_first=True)),
        shape=(5, 6),
        forward=5 * (4 * 8 * 6 + 4 * 8 * 3 + 8 * 3),
    ),
    Layer(
        name="gru stacked, both ways",
        build=lambda: First(nn.GRU(6, 8, num_layers=2, bidirectional=True, batch_first=True)),
        shape=(5, 6),
        forward=5 * 3 * 8 * 2 * ((6 + 8) + (16 + 8)),
    ),
    Layer(
        name="rnn relu",
        build=lambda: First(nn.RNN(6, 8, nonlinearity="relu", batch_first=True)),
        shape=(5, 6),
        forward=recurrent_forward(gates=1, width=6, hidden=8, steps=5),
        backward=recurrent_forward(gates=1, width=6, hidden=8, steps=5) + 4 * 64,
    ),
    Layer(
        name="lstm cell in a loop",
        build=lambda: GateLoop(nn.LSTMCell(6, 8)),
        shape=(5, 6),
        forward=recurrent_forward(gates=4, width=6, hidden=8, steps=5),
        backward=recurrent_forward(gates=4, width=6, hidden=8, steps=5) + 4 * 4 * 64,
    ),
    Layer(
        name="gru cell in a loop",
        build=lambda: GateLoop(nn.GRUCell(6, 8)),
        shape=(5, 6),
        forward=recurrent_forward(gates=3, width=6, hidden=8, steps=5),
        backward=recurrent_forward(gates=3, width=6, hidden=8, steps=5) + 4 * 3 * 64,
    ),
]


class SelfAttention(nn.Module):
    def __init__(self, **options: bool) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.options = options

    def forward(self, x: Tensor) -> Tensor:
        return self.attention(x, x, x, **self.options)[0]


def scaled(**options: object) -> Callable[[], nn.Module]:
    """Attention of the input, split in heads of width 4, over keys and values that are parameters."""

    def attend(x: Tensor, key: Tensor, value: Tensor) -> Tensor:
        batch = x.shape[0]
        return F.scaled_dot_product_attention(
            x, key.expand(batch, *key.shape), value.expand(batch, *value.shape), **options
        )

    heads = 2 if options.get("enable_gqa") else 4
    return lambda: Calls(attend, (heads, 5, 6), (heads, 5, 7))


PROJECTIONS = 5 * 8 * 8 * 4
SCORES = 4 * 3 * 5 * 6
AVERAGES = 4 * 3 * 5 * 7
ENCODER = PROJECTIONS + 2 * 5 * 5 * 8 + 2 * 5 * 8 * 16

ATTENTION = [
    Layer(name="mha", build=SelfAttention, shape=(5, 8), forward=PROJECTIONS + 2 * 5 * 5 * 8),
    Layer(
        name="mha without weights",
        build=lambda: SelfAttention(need_weights=False),
        shape=(5, 8),
        forward=PROJECTIONS + 2 * 5 * 5 * 8,
        backward=PROJECTIONS + 4 * 5 * 5 * 8 + 5 * 8 * 8,
    ),
    Layer(name="mha in eval", build=lambda: SelfAttention().eval(), shape=(5, 8), forward=PROJECTIONS + 2 * 5 * 5 * 8),
    Layer(
        name="encoder layer",
        build=lambda: nn.TransformerEncoderLayer(8, 2, 16, batch_first=True),
        shape=(5, 8),
        forward=ENCODER,
    ),
    Layer(
        name="encoder layer in eval",
        build=lambda: nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, norm_first=True).eval(),
        shape=(5, 8),
        forward=ENCODER,
    ),
    Layer(name="sdpa", build=scaled(), shape=(4, 3, 6), forward=SCORES + AVERAGES, backward=SCORES + 2 * AVERAGES),
    Layer(
        name="sdpa with mask",
        build=scaled(attn_mask=torch.ones(3, 5)),
        shape=(4, 3, 6),
        forward=SCORES + AVERAGES,
        backward=SCORES + 2 * AVERAGES,
    ),
    Layer(name="sdpa causal", build=scaled(is_causal=True), shape=(4, 3, 6), forward=SCORES + AVERAGES),
    Layer(name="sdpa grouped", build=scaled(enable_gqa=True), shape=(4, 3, 6), forward=SCORES + AVERAGES),
]


class Tied(nn.Module):
    """One weight used by two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(6, 6, bias=False), nn.Linear(6, 6, bias=False)
        self.down.weight = self.up.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.down(self.up(x))


class OfDirectCalls(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 8)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer.forward(x)


class Checkpointed(nn.Module):
    def __init__(self, *, use_reentrant: bool) -> None:
        super().__init__()
        self.stem = nn.Linear(6, 6, bias=False)
        self.body = nn.Sequential(nn.Linear(6, 8, bias=False), nn.ReLU(), nn.Linear(8, 6, bias=False))
        self.use_reentrant = use_reentrant

    def forward(self, x: Tensor) -> Tensor:
        from torch.utils.checkpoint import checkpoint

        return checkpoint(self.body, self.stem(x), use_reentrant=self.use_reentrant)


MODULES = [
    Layer(name="tied", build=Tied, shape=(6,), forward=72, backward=36 + 72),
    conv("called by forward()", OfDirectCalls, (6,), 48),
    conv("weight norm", lambda: parametrizations.weight_norm(nn.Conv2d(3, 4, 3)), (3, 5, 5), 9 * 4 * 27),
    Layer(
        name="checkpointed, which stops before the last layer",
        build=lambda: Checkpointed(use_reentrant=False),
        shape=(6,),
        forward=36 + 96,
        backward=36 + 2 * 96 + 48,
    ),
    Layer(
        name="checkpointed reentrant",
        build=lambda: Checkpointed(use_reentrant=True),
        shape=(6,),
        forward=36 + 96,
        backward=36 + 2 * 96 + 96,
    ),
]

LAYERS = [*CONVOLUTIONS, *PRODUCTS, *RECURRENT, *ATTENTION, *MODULES]


@pytest.mark.parametrize("device", ["meta", "cpu"])
@pytest.mark.parametrize("batch", [1, 4])
@pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: layer.name)
def test_forward_is_what_the_formula_says(layer: Layer, batch: int, device: str) -> None:
    counted = count(layer.build(), layer.inputs(batch), device=device)
    assert counted.macs == batch * layer.forward
    assert counted.uncounted_ops == {}


@pytest.mark.parametrize("device", ["meta", "cpu"])
@pytest.mark.parametrize("batch", [1, 4])
@pytest.mark.parametrize(
    "layer", [layer for layer in LAYERS if layer.backward is not None], ids=lambda layer: layer.name
)
def test_backward_is_what_the_formula_says(layer: Layer, batch: int, device: str) -> None:
    counted = count(layer.build(), layer.inputs(batch), backward=True, device=device)
    assert counted.forward_macs == batch * layer.forward
    assert counted.backward_macs == batch * layer.backward
    assert counted.macs == batch * (layer.forward + layer.backward)
    assert counted.uncounted_ops == {}


@pytest.mark.parametrize("device", ["meta", "cpu"])
@pytest.mark.parametrize("layer", CONVOLUTIONS, ids=lambda layer: layer.name)
def test_an_input_that_requires_a_gradient_costs_a_convolution_more(layer: Layer, device: str) -> None:
    x = layer.inputs(2).requires_grad_()
    assert count(layer.build(), x, backward=True, device=device).macs == 2 * 3 * layer.forward


@pytest.mark.parametrize("device", ["meta", "cpu"])
@pytest.mark.parametrize(("name", "function", "shape", "macs"), UNBATCHED, ids=[row[0] for row in UNBATCHED])
def test_products_without_a_batch(
    name: str, function: Callable[[Tensor], Tensor], shape: tuple[int, ...], macs: int, device: str
) -> None:
    class Product(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            with torch.device(x.device):
                return function(x, x) if name in ("dot", "vdot") else function(x)

    counted = count(Product(), torch.randn(shape), device=device)
    assert counted.macs == macs
    assert counted.is_complete


def test_meta_and_cpu_agree_on_every_backward() -> None:
    for layer in LAYERS:
        model, x = layer.build(), layer.inputs(3).requires_grad_()
        on_meta = count(model, x, backward=True, device="meta")
        on_cpu = count(model, x, backward=True, device="cpu")
        assert on_meta.macs == on_cpu.macs, layer.name
        assert on_meta.by_module == on_cpu.by_module, layer.name


@pytest.mark.filterwarnings("ignore:.*torch.jit.*deprecated:DeprecationWarning")
def test_a_scripted_module_is_counted_on_the_cpu_and_its_gradients_stay_away_from_the_original() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        model = torch.jit.script(nn.Linear(6, 8))
    counted = count(model, torch.randn(3, 6), backward=True)
    assert (counted.macs, counted.device_used) == (3 * 96, "cpu")
    assert all(parameter.grad is None for parameter in model.parameters())


def test_frozen_weights_cost_no_gradient() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1, bias=False), nn.Conv2d(4, 5, 1, bias=False))
    model[0].weight.requires_grad_(False)
    pixels = prod((6, 6))
    assert count(model, torch.randn(1, 3, 6, 6), backward=True).macs == pixels * (12 + 20 + 20)


def test_affine_grids_cost_a_product_per_coordinate() -> None:
    class Grid(nn.Module):
        def forward(self, theta: Tensor) -> Tensor:
            return F.affine_grid(theta, [2, 1, 3, 4, 5], align_corners=False)

    counted = count(Grid(), torch.randn(2, 3, 4))
    assert (counted.macs, counted.is_complete) == (2 * 3 * 4 * 5 * 3 * 4, True)
