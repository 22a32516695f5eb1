"""MoViNet: SAME pooling, causality and streams of frames in pieces."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from bench.models.factory import create_model
from bench.models.movinet import MoViNet, SamePool, StreamState, multiple_of_8


@pytest.fixture(scope="module")
def stream_model() -> MoViNet:
    """A stream model whose residual branches are on: they start at zero."""
    return a0(stream=True)


def a0(*, stream: bool) -> MoViNet:
    torch.manual_seed(0)
    model = create_model("movinet", stream=stream, num_classes=7).eval()
    assert isinstance(model, MoViNet)
    with torch.no_grad():
        for block in model.blocks.values():
            block.alpha.fill_(0.5)
    return model


def clip_of(frames: int, *, seed: int = 0) -> Tensor:
    return torch.rand(2, 3, frames, 32, 40, generator=torch.Generator().manual_seed(seed))


@given(lengths=st.lists(st.integers(1, 4), min_size=1, max_size=4))
@settings(max_examples=8, deadline=None)
def test_a_stream_in_pieces_gives_the_logits_of_the_whole_clip(stream_model: MoViNet, lengths: list[int]) -> None:
    clip, state = clip_of(sum(lengths)), StreamState()
    with torch.no_grad():
        for piece in clip.split(lengths, dim=2):
            logits, state = stream_model.forward_stream(piece, state)
        torch.testing.assert_close(logits, stream_model(clip), rtol=1e-4, atol=1e-5)
    assert state.frames == sum(lengths)


def test_a_whole_clip_leaves_no_memory_behind(stream_model: MoViNet) -> None:
    with torch.no_grad():
        first = stream_model(clip_of(5))
        stream_model(clip_of(5, seed=1))
        assert torch.equal(stream_model(clip_of(5)), first)


def test_a_base_model_refuses_streams() -> None:
    with pytest.raises(TypeError, match="not causal"):
        a0(stream=False).forward_stream(clip_of(2), StreamState())


def test_logits_of_a_base_model_depend_on_the_order_of_frames() -> None:
    model, clip = a0(stream=False), clip_of(6)
    with torch.no_grad():
        assert not torch.allclose(model(clip), model(clip.flip(2)))


@pytest.mark.parametrize(
    ("row", "pooled"),
    [
        ([1.0, 2.0, 3.0, 4.0], [2.0, 3.5]),  # SAME pads behind: (1, 2, 3) and (3, 4)
        ([1.0, 2.0, 3.0, 4.0, 5.0], [1.5, 3.0, 4.5]),  # on both sides: (1, 2), (2, 3, 4) and (4, 5)
    ],
)
def test_padding_does_not_count_in_the_averages(row: list[float], pooled: list[float]) -> None:
    across = torch.tensor(row).view(1, 1, 1, 1, -1).expand(1, 1, 2, 3, -1)
    expected = torch.tensor(pooled)
    assert torch.allclose(SamePool()(across)[0, 0, 0, 0], expected)
    assert torch.allclose(SamePool()(across.transpose(3, 4))[0, 0, 1, :, 0], expected)


@given(channels=st.integers(1, 400))
def test_multiple_of_8_loses_at_most_a_tenth(channels: int) -> None:
    rounded = multiple_of_8(channels)
    assert rounded % 8 == 0
    assert rounded >= 0.9 * channels
    assert abs(rounded - channels) <= 8


@pytest.mark.parametrize(
    ("name", "parameters"),
    [("movinet_a0_base", 3_111_799), ("movinet_a0_stream", 3_748_031)],
)
def test_parameters_are_those_of_the_converted_weights(name: str, parameters: int) -> None:
    model = create_model(name, device="meta")
    assert sum(p.numel() for p in model.parameters()) == parameters
