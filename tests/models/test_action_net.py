"""ACTION-Net: its three gates and its trained shift, each against the paper's formula written as loops."""

import pytest
import torch
from torch import Tensor

from bench.core.errors import ClipError, InputError
from bench.models.action_net import ActionConv, action_net
from bench.models.tsm import ClipLength, shift_channels

FRAMES, CHANNELS = 4, 32


@pytest.fixture
def conv() -> ActionConv:
    """A 1x1 convolution with gates, all of whose weights are random, in eval mode."""
    torch.manual_seed(0)
    made = ActionConv(torch.nn.Conv2d(CHANNELS, 6, 1), clip_length=ClipLength(frames=FRAMES), shift_div=8)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.normal_(std=0.3)
        made.action_p3_bn1.running_mean.normal_()
    return made.eval().double()


def test_it_starts_as_the_shift_of_tsm() -> None:
    made = ActionConv(torch.nn.Conv2d(CHANNELS, 6, 1), clip_length=ClipLength(frames=FRAMES), shift_div=8)
    images = torch.randn(2 * FRAMES, CHANNELS, 3, 2)
    with torch.no_grad():
        torch.testing.assert_close(made._shifted(images), shift_channels(images, frames=FRAMES, shift_div=8))


def gated_by_loops(conv: ActionConv, images: Tensor) -> Tensor:
    """One clip, frame by frame: the shift, then x * (1 + gate) for each of the three gates, and their sum."""
    weight = dict(conv.named_parameters())
    kernel = weight["action_shift.weight"][:, 0]
    blank = torch.zeros_like(images[0])
    at = lambda frames, t: frames[t] if 0 <= t < FRAMES else torch.zeros_like(frames[0])  # noqa: E731
    x = [sum((kernel[:, k, None, None] * at(images, t + k - 1) for k in range(3)), start=blank) for t in range(FRAMES)]
    mean = torch.stack([frame.mean(0) for frame in x])
    place = torch.nn.functional.conv3d(mean[None, None], weight["action_p1_conv1.weight"], padding=1)[0, 0].sigmoid()

    squeeze, mix = weight["action_p2_squeeze.weight"][:, :, 0, 0], weight["action_p2_conv1.weight"]
    squeezed = [squeeze @ frame.mean((1, 2)) for frame in x]
    mixed = [
        sum((mix[:, :, k] @ at(squeezed, t + k - 1) for k in range(3)), start=torch.zeros(2, dtype=x[0].dtype))
        for t in range(FRAMES)
    ]
    channel = [(weight["action_p2_expand.weight"][:, :, 0, 0] @ each.relu()).sigmoid() for each in mixed]

    narrow = [conv.action_p3_bn1(conv.action_p3_squeeze(frame[None])) for frame in x]
    change = [
        (conv.action_p3_conv1(narrow[t + 1]) - narrow[t]).mean((2, 3))[0]
        if t + 1 < FRAMES
        else torch.zeros(2, dtype=x[0].dtype)
        for t in range(FRAMES)
    ]
    motion = [(weight["action_p3_expand.weight"][:, :, 0, 0] @ each).sigmoid() for each in change]
    return torch.stack(
        [
            frame * (1 + place[t]) + frame * (1 + channel[t])[:, None, None] + frame * (1 + motion[t])[:, None, None]
            for t, frame in enumerate(x)
        ]
    )


def test_the_gates_are_those_of_the_paper(conv: ActionConv) -> None:
    clips = torch.randn(2, FRAMES, CHANNELS, 5, 4, dtype=torch.float64)
    with torch.no_grad():
        expected = torch.cat([conv.net(gated_by_loops(conv, clip)) for clip in clips])
        torch.testing.assert_close(conv(clips.flatten(0, 1)), expected)


def test_a_single_frame_is_refused_because_it_has_no_motion() -> None:
    with torch.device("meta"), pytest.raises(ClipError, match="smallest that works is 2x"):
        action_net(backbone="torchvision:resnet18")(torch.empty(1, 3, 1, 64, 64))


def gated(name: str) -> list[str]:
    with torch.device("meta"):
        model = action_net(backbone=f"torchvision:{name}")
    return [path for path, module in model.named_modules() if isinstance(module, ActionConv)]


def test_every_block_is_gated_and_every_second_one_in_deep_models() -> None:
    assert len(gated("resnet50")) == 3 + 4 + 6 + 3
    assert len(gated("resnet101")) == 2 + 2 + 12 + 2


def test_names_of_weights_are_the_authors() -> None:
    with torch.device("meta"):
        names = set(action_net().state_dict())
    layer = "base_model.layer1.0.conv1"
    parts = ("shift", "p1_conv1", "p2_squeeze", "p2_conv1", "p2_expand", "p3_squeeze", "p3_conv1", "p3_expand")
    assert {f"{layer}.net.weight", f"{layer}.action_p3_bn1.running_var", "new_fc.bias"} <= names
    assert {f"{layer}.action_{part}.weight" for part in parts} <= names


def test_what_cannot_be_built_says_why() -> None:
    with pytest.raises(InputError, match="shift_div must be at least 2"):
        action_net(shift_div=1)
    with torch.device("meta"), pytest.raises(InputError, match="action_net takes ResNets"):
        action_net(backbone="torchvision:mobilenet_v2")
