"""I3D: the logits of the published implementation, TensorFlow's padding, and clips of every size."""

import itertools
import warnings
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from bench.core.errors import ClipError
from bench.models.base import Modality
from bench.models.i3d import (
    ENDPOINTS,
    WINDOW,
    PoolWindowWarning,
    SameMaxPool3d,
    UnitConv3d,
    build_i3d,
    same_padding,
)

ignore_small_windows = pytest.mark.filterwarnings("ignore::bench.models.i3d.PoolWindowWarning")


@pytest.mark.parametrize(("frames", "gmacs"), [(64, 111.15), (16, 27.79)])
def test_counts_are_the_published_ones(frames: int, gmacs: float) -> None:
    with torch.device("meta"):
        model, clip = build_i3d().eval(), torch.empty(1, 3, frames, 224, 224)
    with FlopCounterMode(display=False) as counter:
        model(clip)

    assert round(counter.get_total_flops() / 2e9, 2) == gmacs
    assert round(sum(p.numel() for p in model.parameters()) / 1e6, 2) == 12.70


def tensorflow_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """As TensorFlow's documentation of `padding="SAME"` puts it: by the remainder of size and stride."""
    total = max(kernel - stride, 0) if size % stride == 0 else max(kernel - size % stride, 0)
    return total // 2, total - total // 2


@given(st.integers(1, 300), st.integers(1, 9), st.integers(1, 4))
def test_padding_is_that_of_tensorflow(size: int, kernel: int, stride: int) -> None:
    before, after = same_padding(size, kernel=kernel, stride=stride)

    assert (before, after) == tensorflow_padding(size, kernel, stride)


def padded(x: Tensor, kernel: tuple[int, ...], stride: tuple[int, ...], *, value: float) -> Tensor:
    sides = [tensorflow_padding(*of_axis) for of_axis in zip(x.shape[2:], kernel, stride, strict=True)]
    return F.pad(x, list(itertools.chain.from_iterable(reversed(sides))), value=value)


@settings(max_examples=30)
@given(
    st.tuples(st.integers(1, 9), st.integers(1, 12), st.integers(1, 12)),
    st.sampled_from([((1, 3, 3), (1, 2, 2)), ((3, 3, 3), (2, 2, 2)), ((2, 2, 2), (2, 2, 2)), ((3, 3, 3), (1, 1, 1))]),
)
def test_pooling_is_explicit_padding_then_pooling(
    size: tuple[int, int, int], shape: tuple[tuple[int, int, int], tuple[int, int, int]]
) -> None:
    kernel, stride = shape
    x = torch.randn(1, 2, *size)

    expected = F.max_pool3d(padded(x, kernel, stride, value=-torch.inf), kernel, stride)

    assert torch.equal(SameMaxPool3d(kernel, stride=stride)(x), expected)


@pytest.mark.parametrize(("kernel", "stride"), [(1, 1), (3, 1), (7, 2)])
@pytest.mark.parametrize("size", [(8, 9, 10), (9, 8, 7), (1, 1, 2)])
def test_convolution_is_explicit_padding_then_convolution(kernel: int, stride: int, size: tuple[int, int, int]) -> None:
    unit = UnitConv3d(2, 3, kernel=kernel, stride=stride).eval()
    x = torch.randn(1, 2, *size)

    expected = F.conv3d(padded(x, (kernel,) * 3, (stride,) * 3, value=0), unit.conv3d.weight, stride=stride)

    torch.testing.assert_close(unit(x), F.relu(expected / (1 + 1e-3) ** 0.5))


EVERY_SIZE = list(
    itertools.product([8, 9, 15, 16, 32, 64], [(112, 112), (128, 171), (225, 193), (224, 224), (256, 256)])
)


@ignore_small_windows
@pytest.mark.parametrize("sizes", [EVERY_SIZE[::6], pytest.param(EVERY_SIZE, marks=pytest.mark.slow)], ids=len)
def test_clips_of_every_size_run(sizes: list[tuple[int, tuple[int, int]]]) -> None:
    with torch.device("meta"):
        model = build_i3d().eval()
        for frames, (height, width) in sizes:
            assert model(torch.empty(2, 3, frames, height, width)).shape == (2, 400)


@pytest.mark.parametrize(
    ("size", "window"),
    [((8, 224, 224), "1x7x7"), ((16, 112, 112), "2x4x4"), ((16, 192, 224), "2x6x7"), ((8, 112, 160), "1x4x5")],
)
def test_a_window_that_does_not_fit_shrinks_and_says_so(size: tuple[int, int, int], window: str) -> None:
    with torch.device("meta"):
        model = build_i3d().eval()
        with pytest.warns(PoolWindowWarning, match=f"averages over {window} positions in place of the published 2x7x7"):
            model(torch.empty(1, 3, *size))


@pytest.mark.parametrize("size", [(9, 193, 193), (16, 224, 224), (64, 256, 320)])
def test_a_window_that_fits_is_the_published_one(size: tuple[int, int, int]) -> None:
    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("error")
        build_i3d().eval()(torch.empty(1, 3, *size))


def test_python_says_it_once() -> None:
    with torch.device("meta"), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        model = build_i3d().eval()
        for _ in range(3):
            model(torch.empty(1, 3, 8, 32, 32))

    assert [w.category for w in caught] == [PoolWindowWarning]


@ignore_small_windows
def test_the_smallest_clip_runs_and_smaller_ones_are_refused_by_name() -> None:
    model = build_i3d(num_classes=5).eval()
    frames, pixels = model.smallest_clip

    with torch.no_grad():
        assert model(torch.randn(1, 3, frames, pixels, pixels)).isfinite().all()
    for size in [(frames - 1, pixels, pixels), (frames, pixels - 1, pixels), (frames, pixels, pixels - 1)]:
        with pytest.raises(ClipError, match=r"smallest that works is 8x32x32 \(frames x H x W\)"):
            model(torch.randn(1, 3, *size))


def pass_maps_through(model: nn.Module) -> None:
    """Leave of `model` what comes after the last map."""
    for name in ENDPOINTS:
        setattr(model, name, nn.Identity())


def test_logits_are_averaged_over_the_positions_of_the_window() -> None:
    model = build_i3d(num_classes=5).eval()
    maps = torch.randn(2, 1024, 4, 8, 9)
    pass_maps_through(model)
    frames, height, width = WINDOW

    positions = [
        model.logits(maps[:, :, t : t + frames, h : h + height, w : w + width].mean(dim=(2, 3, 4)))
        for t, h, w in itertools.product(range(3), range(2), range(3))
    ]

    torch.testing.assert_close(model.forward_head(model.forward_features(maps)), torch.stack(positions).mean(dim=0))


@pytest.mark.parametrize(("modality", "channels"), [("rgb", 3), ("flow", 2)])
def test_inputs_and_normalisation_are_those_of_the_modality(modality: Modality, channels: int) -> None:
    with torch.device("meta"):
        model = build_i3d(modality=modality)

    assert [(i.channels, i.modality) for i in model.inputs] == [(channels, modality)]
    assert model.mean == model.std == (0.5,) * channels
    with pytest.raises(ClipError, match=rf"takes \(B, {channels}, T, H, W\)"):
        model(torch.empty(1, 5 - channels, 16, 224, 224, device="meta"))


def test_training_drops_features_position_by_position() -> None:
    model = build_i3d(num_classes=2, dropout=0.5).train()
    pass_maps_through(model)

    features = model.forward_features(torch.ones(1, 1024, 5, 7, 7))

    assert set((features * 4 / 2).round(decimals=4).unique().tolist()) <= {0.0, 1.0, 2.0, 3.0, 4.0}
    assert len(features.unique()) > 2


@pytest.mark.parametrize("modality", ["flow", pytest.param("rgb", marks=pytest.mark.slow)])
def test_imagenet_weights_start_all_but_the_classifier(tmp_path: Path, modality: Modality) -> None:
    from torchvision.models import googlenet

    shipped = googlenet(aux_logits=True, init_weights=False)
    torch.save(shipped.state_dict(), tmp_path / "googlenet.pth")

    model = build_i3d(7, modality=modality, inflated_from=str(tmp_path / "googlenet.pth"))

    stem_2d = shipped.conv1.conv.weight
    mean_2d = stem_2d.mean(dim=1, keepdim=True).expand(-1, 2, -1, -1)
    torch.testing.assert_close(
        model.Conv3d_1a_7x7.conv3d.weight.sum(dim=2), stem_2d if modality == "rgb" else mean_2d, rtol=1e-5, atol=1e-7
    )
    last_2d, last_3d = shipped.inception5b.branch3[1], model.get_submodule("Mixed_5c.b2b")
    torch.testing.assert_close(last_3d.conv3d.weight.sum(dim=2), last_2d.conv.weight)
