"""TIN: how far channels move, what the ends of a clip get, and the authors' kernel written out."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from bench.core.errors import ClipError, InputError
from bench.models.factory import create_model
from bench.models.tin import TIN, InterlacedConv, TemporalInterlace, move_groups, tin


def moved_row(values: list[float], *, offset: float) -> list[float]:
    """One channel of one pixel over time, moved by `offset` frames."""
    row = torch.tensor(values).reshape(1, -1, 1, 1, 1, 1)
    return [round(float(v), 6) for v in move_groups(row, offsets_BG=torch.tensor([[offset]])).flatten()]


@pytest.mark.parametrize(
    ("offset", "expected"),
    [
        (0.0, [1, 2, 4, 8]),
        (1.0, [0, 1, 2, 4]),
        (-1.0, [2, 4, 8, 0]),
        (0.25, [0.75, 1.75, 3.5, 7.0]),  # three quarters of the frame itself, a quarter of the one before
        (-1.5, [3.0, 6.0, 4.0, 0.0]),  # halfway between the next frame and the one after it
        (1.75, [0, 0.25, 1.25, 2.5]),
    ],
)
def test_moves_by_hand(offset: float, expected: list[float]) -> None:
    assert moved_row([1.0, 2.0, 4.0, 8.0], offset=offset) == expected


def scattered(data_BTCN: Tensor, shifts_BG: Tensor) -> Tensor:
    """The authors' kernel as nested loops: frame t of a channel goes to frame t + shift of its group."""
    moved = torch.zeros_like(data_BTCN)
    batch, frames, channels, _ = data_BTCN.shape
    for clip in range(batch):
        for channel in range(channels):
            shift = int(shifts_BG[clip, channel // (channels // shifts_BG.shape[1])])
            for frame in range(frames):
                if 0 <= frame + shift < frames:
                    moved[clip, frame + shift, channel] = data_BTCN[clip, frame, channel]
    return moved


@given(seed=st.integers(0, 100), frames=st.integers(1, 9))
@settings(max_examples=20, deadline=None)
def test_moves_are_two_scatters_of_whole_frames_weighted_by_their_distance(seed: int, frames: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    groups = torch.randn(2, frames, 4, 3, 2, 2, generator=generator, dtype=torch.float64)
    offsets = 4 * torch.rand(2, 4, generator=generator, dtype=torch.float64) - 2
    below = offsets.floor()
    share = (offsets - below).repeat_interleave(3, dim=1)[:, None, :, None]
    flat = groups.flatten(2, 3).flatten(3)
    expected = (1 - share) * scattered(flat, below) + share * scattered(flat, below + 1)
    torch.testing.assert_close(move_groups(groups, offsets_BG=offsets).flatten(), expected.flatten())


def test_the_gradient_of_an_offset_is_the_difference_of_the_frames_it_lies_between() -> None:
    offset = torch.tensor([[0.25]], requires_grad=True)
    row = torch.tensor([1.0, 2.0, 4.0, 8.0]).reshape(1, -1, 1, 1, 1, 1)
    move_groups(row, offsets_BG=offset)[0, 3].sum().backward()
    assert offset.grad is not None
    assert offset.grad.item() == 4.0 - 8.0


def test_a_new_model_moves_by_half_a_frame_and_scales_by_one() -> None:
    """With weights of zero in front of the biases: 4 * (sigmoid(0.5108) - 0.5) is 0.5, and 2 * sigmoid(0) is 1."""
    module = TemporalInterlace(16, frames=3, shift_div=4)
    torch.nn.init.zeros_(module.get_parameter("biasnet.net.lastlayer.weight"))
    torch.nn.init.zeros_(module.get_parameter("weightnet.net.lastlayer.weight"))
    frames = torch.randn(3, 16, 2, 2)
    with torch.no_grad():
        moved = module(frames)
    torch.testing.assert_close(moved[:, 4:], frames[:, 4:])
    before = torch.cat([torch.zeros_like(frames[:1]), frames[:-1]])
    after = torch.cat([frames[1:], torch.zeros_like(frames[:1])])
    half = 4 * (1 / (1 + math.exp(-0.5108)) - 0.5)
    torch.testing.assert_close(moved[:, :2], (1 - half) * frames[:, :2] + half * before[:, :2])
    torch.testing.assert_close(moved[:, 2:4], (1 - half) * frames[:, 2:4] + half * after[:, 2:4])


def test_every_block_moves_channels_also_in_deep_models() -> None:
    with torch.device("meta"):
        deep = tin(backbone="torchvision:resnet101")
    assert sum(isinstance(module, InterlacedConv) for module in deep.modules()) == 3 + 4 + 23 + 3


@pytest.mark.parametrize(("classes", "parameters"), [(400, 24_358_640), (174, 23_895_566)])
def test_parameters_are_those_that_mmaction2_prints(classes: int, parameters: int) -> None:
    model = create_model("tin_r50", num_classes=classes, device="meta")
    assert sum(p.numel() for p in model.parameters()) == parameters


def test_clips_of_another_length_are_refused() -> None:
    with torch.device("meta"):
        model = tin(frames=4)
        with pytest.raises(ClipError, match="this TIN takes 4 frames, found 8; build it with another `frames`"):
            model(torch.empty(1, 3, 8, 64, 64))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"shift_div": 3}, "shift_div 3 moves 21 of 64 channels; the moved channels must be a multiple of 4"),
        ({"shift_div": 128}, "shift_div 128 moves 0 of 64 channels"),
        ({"shift_div": 0}, "shift_div must be at least 1, found 0"),
        ({"frames": 0}, "frames must be at least 1, found 0"),
        ({"backbone": "torchvision:mobilenet_v2"}, "tin takes ResNets"),
    ],
)
def test_what_cannot_be_built_says_why(arguments: dict[str, Any], message: str) -> None:
    with torch.device("meta"), pytest.raises(InputError, match=message):
        tin(**arguments)


def test_names_of_weights_are_the_authors() -> None:
    with torch.device("meta"):
        names = tin().state_dict()
    layer = "base_model.layer1.0.conv1"
    assert {
        f"{layer}.net1.biasnet.net.conv.weight",
        f"{layer}.net1.biasnet.net.fc.bias",
        f"{layer}.net1.biasnet.net.lastlayer.weight",
        f"{layer}.net1.weightnet.net.lastlayer.bias",
        f"{layer}.net2.weight",
        "new_fc.weight",
    } <= set(names)


def test_a_model_is_one_of_frame_scores() -> None:
    model = tin(5, backbone="torchvision:resnet18", frames=3).eval()
    assert isinstance(model, TIN)
    clip = torch.randn(2, 3, 3, 32, 32)
    with torch.no_grad():
        of_frames = model.new_fc(model.base_model(clip.transpose(1, 2).flatten(0, 1))).reshape(2, 3, 5)
        torch.testing.assert_close(model(clip), of_frames.mean(1))
