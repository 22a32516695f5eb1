"""Snippets: which RGB frame goes with which stack of flow, and the order of a stack's channels."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from bench.core.errors import ClipError, InputError
from bench.core.schema import Clip
from bench.models.backbones import Backbone
from bench.models.snippets import SnippetModel, stack_channels


def snippet_model(flow_stack: int) -> SnippetModel:
    return SnippetModel(Backbone(model=nn.Identity(), width=3, smallest_px=4), flow_stack=flow_stack)


def test_channels_of_a_stack_are_x1_y1_x2_y2() -> None:
    """Flow of frame t is written t in x and 10 + t in y; two snippets of three frames."""
    flow = torch.stack([torch.arange(6.0), 10 + torch.arange(6.0)]).reshape(1, 2, 6, 1, 1)

    stacks = snippet_model(3).stacks_of(torch.cat([flow, flow + 100]))

    assert stacks.reshape(4, 6).tolist() == [
        [0, 10, 1, 11, 2, 12],
        [3, 13, 4, 14, 5, 15],
        [100, 110, 101, 111, 102, 112],
        [103, 113, 104, 114, 105, 115],
    ]


@given(st.integers(1, 40), st.integers(1, 16))
def test_each_rgb_frame_falls_within_its_own_stack(snippets: int, flow_stack: int) -> None:
    rgb, flow = snippet_model(flow_stack).inputs
    numbers = torch.arange(snippets * flow_stack).reshape(1, 1, -1, 1, 1)

    taken = rgb.take(numbers).flatten().tolist()

    assert [number // flow_stack for number in taken] == list(range(snippets))
    assert torch.equal(flow.take(numbers), numbers)


def test_frames_beyond_the_last_whole_snippet_are_not_counted() -> None:
    rgb, flow = snippet_model(10).inputs
    clip = Clip.model_validate("29x1x8")

    assert rgb.shape(clip, batch=2) == (2, 3, 2, 8, 8)
    assert flow.shape(clip, batch=2) == (2, 2, 20, 8, 8)


@pytest.mark.parametrize(("snippets", "flow"), [(1, 11), (2, 10), (1, 20)])
def test_flow_that_does_not_match_the_frames_is_refused(snippets: int, flow: int) -> None:
    with pytest.raises(ClipError, match=f"takes 10 frames of flow for each RGB frame, found {flow} for {snippets}"):
        snippet_model(10).check(torch.empty(1, 3, snippets, 8, 8), torch.empty(1, 2, flow, 8, 8))


def test_too_little_is_refused_with_the_smallest_that_works() -> None:
    model = snippet_model(10)

    model.check(torch.empty(1, 3, 1, 4, 4), torch.empty(1, 2, 10, 4, 4))
    with pytest.raises(ClipError, match="smallest that works is 10x4x4"):
        model.check(torch.empty(1, 3, 1, 4, 4), torch.empty(1, 2, 9, 4, 4))
    short = Clip.model_validate("9x1x4")
    with pytest.raises(ClipError, match=r"shorter than one snippet is too small .* smallest that works is 10x4x4"):
        model.check(*(torch.empty(spec.shape(short, batch=1)) for spec in model.inputs))
    with pytest.raises(ClipError, match=r"takes 2 input\(s\), found 1"):
        model.check(torch.empty(1, 3, 1, 4, 4))


def test_a_stack_has_two_channels_a_frame() -> None:
    assert stack_channels(10) == 20
    with pytest.raises(InputError, match="flow_stack must be at least 1 frame, found 0"):
        stack_channels(0)
