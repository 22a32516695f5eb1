"""A count on the meta device equals a count of a real forward and backward pass on the CPU."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from bench.core.schema import Clip
from bench.measure.counting.dispatch import on_meta
from bench.measure.counting.model_count import count
from bench.models.base import inputs_of
from bench.models.factory import create_model, find_model

WIDTHS = st.sampled_from([2, 4, 8])
QUICK = ["c3d", "resnet3d_18", "x3d_xs", "cnn_lstm"]


def check_both_devices(model: nn.Module, inputs: tuple[Tensor, ...], *, backward: bool) -> None:
    meta, cpu = (count(model, inputs, backward=backward, device=device) for device in ("meta", "cpu"))
    assert (meta.device_used, cpu.device_used) == ("meta", "cpu")
    assert meta.forward_macs == cpu.forward_macs
    assert meta.backward_macs == cpu.backward_macs
    assert (meta.params, meta.never_called) == (cpu.params, cpu.never_called)
    assert (meta.is_complete, cpu.is_complete) == (True, True)
    if not backward:
        assert {path: macs for path, macs in meta.by_module.items() if macs} == {
            path: macs for path, macs in cpu.by_module.items() if macs
        }


class Attention(nn.Module):
    """Attention with heads, whose queries may be the same for the whole batch."""

    def __init__(self, width: int, heads: int, *, has_learned_queries: bool) -> None:
        super().__init__()
        self.heads, self.queries = heads, nn.Parameter(torch.randn(1, heads, 3, width // heads))
        self.key, self.value = nn.Linear(width, width), nn.Linear(width, width, bias=False)
        self.has_learned_queries = has_learned_queries

    def forward(self, x: Tensor) -> Tensor:
        split = (*x.shape[:2], self.heads, x.shape[2] // self.heads)
        key, value = self.key(x).view(split).transpose(1, 2), self.value(x).view(split).transpose(1, 2)
        query = self.queries if self.has_learned_queries else key
        return F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)


class Mixer(nn.Module):
    """Products that no module class has: einsum, matmul with a broadcast operand, an outer sum."""

    def __init__(self, width: int, kind: str) -> None:
        super().__init__()
        self.weight, self.kind = nn.Parameter(torch.randn(width, width)), kind

    def forward(self, x: Tensor) -> Tensor:
        if self.kind == "einsum":
            return torch.einsum("btw,wv->btv", x, self.weight)
        if self.kind == "matmul":
            return self.weight @ x.transpose(1, 2)
        return torch.bmm(x, x.transpose(1, 2)) @ x


class Last(nn.Module):
    """The sequence that a recurrent layer returns, without its state."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.layer(x)[0]
        return result


@st.composite
def convolutional(draw: st.DrawFn) -> tuple[nn.Module, tuple[int, ...]]:
    """A stack of (transposed, grouped, strided) convolutions with norms and pools, and its input."""
    spatial = draw(st.integers(1, 3))
    width, layers = draw(WIDTHS), list[nn.Module]()
    shape = (draw(st.integers(2, 3)), width, *[draw(st.integers(5, 7)) for _ in range(spatial)])
    for _ in range(draw(st.integers(1, 3))):
        out, form = draw(WIDTHS), draw(st.sampled_from(["", "Transpose"]))
        conv = getattr(nn, f"Conv{form}{spatial}d")
        options = {"stride": draw(st.integers(1, 2)), "groups": draw(st.sampled_from([1, 2]))}
        layers.append(conv(width, out, 3, padding=1, bias=draw(st.booleans()), **options))
        between = [nn.ReLU(), nn.SiLU(), nn.GroupNorm(2, out), getattr(nn, f"BatchNorm{spatial}d")(out), nn.Identity()]
        layers.append(draw(st.sampled_from(between)))
        width = out
    pool = draw(st.sampled_from(["AdaptiveAvgPool", "AdaptiveMaxPool"]))
    layers += [getattr(nn, f"{pool}{spatial}d")(1), nn.Flatten(), nn.Linear(width, 3)]
    return nn.Sequential(*layers), shape


@st.composite
def sequential(draw: st.DrawFn) -> tuple[nn.Module, tuple[int, ...]]:
    """A stack of attention, recurrent and free-form layers over `(batch, tokens, width)`, and its input."""
    width = draw(st.sampled_from([4, 8]))
    shape = (draw(st.integers(2, 3)), width, width)  # as many tokens as channels, so that transposed results fit
    layers = list[nn.Module]()
    for _ in range(draw(st.integers(1, 3))):
        bidirectional = draw(st.booleans())
        recurrent = {"hidden_size": width // 2 if bidirectional else width, "bidirectional": bidirectional}
        choices: list[nn.Module] = [
            nn.Linear(width, width),
            nn.LayerNorm(width),
            nn.TransformerEncoderLayer(width, 2, 3 * width, batch_first=True, norm_first=draw(st.booleans())),
            *(Last(kind(width, batch_first=True, **recurrent)) for kind in (nn.LSTM, nn.GRU, nn.RNN)),
            *(Mixer(width, kind) for kind in ("einsum", "matmul", "pairs")),
            nn.Sequential(Attention(width, 2, has_learned_queries=False), nn.Dropout(0.1)),
        ]
        layers.append(choices[draw(st.integers(0, len(choices) - 1))])
    if draw(st.booleans()):
        layers.append(Attention(width, 2, has_learned_queries=True))
    return nn.Sequential(*layers), shape


@given(st.one_of(convolutional(), sequential()), st.booleans())
@settings(max_examples=50)
def test_generated_modules_count_the_same_on_meta_and_cpu(
    generated: tuple[nn.Module, tuple[int, ...]], backward: bool
) -> None:
    model, shape = generated
    check_both_devices(model.train(backward), (torch.randn(shape),), backward=backward)


def smallest_inputs(name: str, model: nn.Module) -> tuple[Tensor, ...]:
    """Inputs of half the model's default size, or of the default size if the model takes no other."""
    default = Clip.model_validate(find_model(name).clip)
    half = default.model_copy(update={"height": default.height // 2, "width": default.width // 2})
    for clip in (half, default):
        inputs = tuple(torch.empty(spec.shape(clip, batch=1), device="meta") for spec in inputs_of(model))
        try:
            count(model, inputs, device="meta")
        except Exception:
            if clip is default:
                raise
        else:
            return inputs
    raise AssertionError("unreachable")


@pytest.mark.parametrize("name", QUICK)
def test_registered_models_count_the_same_on_meta_and_cpu(name: str) -> None:
    with on_meta():
        model = create_model(name).eval()
    check_both_devices(model, smallest_inputs(name, model), backward=False)
