"""C3D: its published counts, its one size of map, its kernel depths."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from bench.core.errors import ClipError, InputError
from bench.models.c3d import C3D, kernel_depths, map_size
from bench.models.factory import create_model

CONV_CHANNELS = {
    "conv1": (3, 64),
    "conv2": (64, 128),
    "conv3a": (128, 256),
    "conv3b": (256, 256),
    "conv4a": (256, 512),
    "conv4b": (512, 512),
    "conv5a": (512, 512),
    "conv5b": (512, 512),
}


def on_meta(name: str = "c3d", **arguments: object) -> torch.nn.Module:
    return create_model(name, device="meta", **arguments).eval()


def test_c3d_has_the_published_parameters_and_macs() -> None:
    model = on_meta()
    with FlopCounterMode(display=False) as counter:
        model(torch.empty(1, 3, 16, 112, 112, device="meta"))
    assert sum(p.numel() for p in model.parameters()) == 78_409_573
    assert counter.get_total_flops() == 2 * 38_547_378_176


def test_a_kernel_depth_changes_each_layer_by_its_own_number_of_weights() -> None:
    depths = (1, 3, 5, 7, 1, 3, 5, 7)
    by_hand = sum(i * o * d * 9 + o for (i, o), d in zip(CONV_CHANNELS.values(), depths, strict=True))
    convs = [p for name, p in on_meta(kernel_depth=list(depths)).named_parameters() if name.startswith("conv")]
    assert sum(p.numel() for p in convs) == by_hand


@pytest.mark.parametrize(
    ("name", "expected"), [("increasing", (3, 3, 5, 5, 5, 5, 7, 7)), ("decreasing", (7, 5, 5, 5, 3, 3, 3, 3))]
)
def test_named_depths_follow_the_five_stages(name: str, expected: tuple[int, ...]) -> None:
    model = on_meta(kernel_depth=name)
    assert tuple(model.get_submodule(layer).kernel_size[0] for layer in CONV_CHANNELS) == expected


@pytest.mark.parametrize("wrong", [2, 0, -3, "rising", [3, 3], [3] * 7 + [4], [3.0] * 8])
def test_a_depth_that_is_not_odd_or_not_one_a_layer_is_refused(wrong: object) -> None:
    with pytest.raises(InputError, match=r"odd|valid"):
        kernel_depths(wrong, stages=range(8))  # type: ignore[arg-type]


@given(frames=st.integers(1, 70), height=st.integers(1, 300), width=st.integers(1, 300))
def test_the_map_is_what_the_poolings_give(frames: int, height: int, width: int) -> None:
    sizes = [frames, height, width]
    for time in (1, 2, 2, 2):
        sizes = [sizes[0] // time, sizes[1] // 2, sizes[2] // 2]
    sizes = [sizes[0] // 2, (sizes[1] + 2 - 2) // 2 + 1, (sizes[2] + 2 - 2) // 2 + 1]
    assert map_size((frames, height, width)) == tuple(sizes)


def test_the_range_it_names_is_exactly_the_range_that_works() -> None:
    (t0, s0), (t1, s1) = C3D.smallest_clip, C3D.largest_clip
    assert [t for t in range(1, 70) if map_size((t, 112, 112)) == (1, 4, 4)] == list(range(t0, t1 + 1))
    assert [s for s in range(1, 300) if map_size((16, s, s)) == (1, 4, 4)] == list(range(s0, s1 + 1))
    model = on_meta()
    for frames, height, width in ((t0, s0, s1), (t1, s1, s0)):
        assert model(torch.empty(2, 3, frames, height, width, device="meta")).shape == (2, 101)


@pytest.mark.parametrize("shape", [(15, 112, 112), (32, 112, 112), (16, 95, 112), (16, 112, 128), (16, 128, 171)])
def test_another_clip_is_refused_with_the_range_that_works(shape: tuple[int, int, int]) -> None:
    with pytest.raises(ClipError, match="16 to 31 frames, 96 to 127 pixels"):
        on_meta()(torch.empty(1, 3, *shape, device="meta"))


def test_other_channels_and_layouts_are_refused_by_name() -> None:
    for shape in ((1, 2, 16, 112, 112), (3, 16, 112, 112)):
        with pytest.raises(ClipError, match=r"takes \(B, 3, T, H, W\)"):
            on_meta()(torch.empty(shape, device="meta"))
    assert on_meta(in_channels=2)(torch.empty(1, 2, 16, 112, 112, device="meta")).shape == (1, 101)
