"""A count on the meta device equals a count of a real forward and backward pass on the CPU."""

import re
from collections.abc import Iterable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torchvision.models import list_models as torchvision_models

from bench.core.registry import MODELS
from bench.core.schema import Clip
from bench.measure.counting.dispatch import on_meta
from bench.measure.counting.model_count import count
from bench.models.base import VideoModel, inputs_of
from bench.models.factory import create_model, find_model

WIDTHS = st.sampled_from([2, 4, 8])
QUICK = ["c3d", "resnet3d_18", "x3d_xs", "cnn_lstm"]
MOST_PARAMETERS = 150e6
SHALLOW: dict[str, dict[str, Any]] = {
    "hiera": {"stages": [1, 1, 1, 1]},
    "uniformerv2": {"depth": 4, "queries": 4},
    "videomamba": {"depth": 2, "size": 32, "frames": 4},
    "vjepa2": {"depth": 2, "probe_depth": 2},
    **{name: {"depth": 2} for name in ("mae_vit", "timesformer", "videomae", "videomaev2", "vivit", "vjepa2_encoder")},
}
"""Arguments for few layers, by family; large models of other families are counted whole."""


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
        return torch.bmm(x, x.transpose(1, 2)) @ x @ self.weight


class Last(nn.Module):
    """The sequence that a recurrent layer returns, without its state."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.layer(x)[0]
        return result


class Positions(nn.Module):
    """A table of positions, indexed by constants of the CPU, as in torchvision's mvit_v2_s."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.unread = nn.Parameter(torch.randn(5, 4)), nn.Parameter(torch.randn(3))

    def forward(self, x: Tensor) -> Tensor:
        distance = torch.arange(3)[:, None] - torch.arange(3)[None] + 2
        return x @ self.table[distance].sum(1).T


def test_a_parameter_indexed_by_constants_is_read_on_both_devices() -> None:
    for backward in (False, True):
        check_both_devices(Positions().train(backward), (torch.randn(2, 4),), backward=backward)
    assert count(Positions(), torch.randn(2, 4), device="meta").never_called == {"unread": 3}


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


def inputs_for(model: nn.Module, clip: Clip) -> tuple[Tensor, ...]:
    return tuple(torch.empty(spec.shape(clip, batch=1), device="meta") for spec in inputs_of(model))


def smallest_inputs(name: str, model: nn.Module) -> tuple[Tensor, ...]:
    """Inputs of the smallest clip that is known to fit: a model of another source may take only its default clip."""
    if isinstance(model, VideoModel):
        frames, pixels = model.smallest_clip
        return inputs_for(model, Clip(frames=frames, height=pixels, width=pixels))
    default = Clip.model_validate(find_model(name).clip)
    half = {"height": default.height // 2, "width": default.width // 2}
    for changes in ({"frames": 1, **half}, {"frames": 1}, half):
        inputs = inputs_for(model, default.model_copy(update=changes))
        try:
            count(model, inputs, device="meta")
        except Exception:  # whatever a model of another package raises
            continue
        return inputs
    return inputs_for(model, default)


def on_meta_in_eval(name: str) -> nn.Module:
    """The model on the meta device; with few layers if it is large, or would take minutes for its scan."""
    with on_meta():
        model = create_model(name).eval()
    is_small = sum(parameter.numel() for parameter in model.parameters()) <= MOST_PARAMETERS
    if is_small and not name.startswith("videomamba"):
        return model
    with on_meta():
        return create_model(name, **SHALLOW.get(MODELS.get(name).family, {})).eval()


def differences(names: Iterable[str]) -> dict[str, str]:
    """Why the counts of these models differ or cannot be taken; all models are tried, and equal ones left out."""
    found: dict[str, str] = {}
    for name in names:
        try:
            model = on_meta_in_eval(name)
            check_both_devices(model, smallest_inputs(name, model), backward=False)
        except Exception as error:  # a list of all faults says more than the first one
            found[name] = f"{type(error).__name__}: {error}"
    return found


# A published pooling window that the smallest clip does not fill says so.
@pytest.mark.filterwarnings("ignore:.* in place of the published")
@pytest.mark.parametrize("name", [*QUICK, *(pytest.param(n, marks=pytest.mark.slow) for n in MODELS.names())])
def test_registered_models_count_the_same_on_meta_and_cpu(name: str) -> None:
    assert differences([name]) == {}


@pytest.mark.slow
def test_torchvision_video_models_count_the_same_on_meta_and_cpu() -> None:
    video = pytest.importorskip("torchvision.models.video")
    names = torchvision_models(module=video)
    assert len(names) >= 7
    assert differences(f"torchvision:{name}" for name in names) == {}


@pytest.mark.slow
def test_a_small_model_of_every_timm_file_counts_the_same_on_meta_and_cpu() -> None:
    timm = pytest.importorskip("timm")
    names = []
    for file in timm.list_modules():
        of_file = timm.list_models(module=file)
        names += [name for name in of_file if re.search("tiny|nano|pico|femto|atto|_xs|_xxs|small|18|_s_|_0", name)][:1]
    assert len(names) >= 30
    assert differences(f"timm:{name}" for name in names) == {}
