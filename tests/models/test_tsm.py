"""TSM: which channels move, where to, and between which frames."""

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from bench.core.errors import InputError
from bench.models.cnn_pool import build_cnn_pool
from bench.models.tsm import TemporalShift, build_tsm, shift_channels


def test_shift_by_hand() -> None:
    """Four channels of three frames, a quarter each way: 0 comes from the next frame, 1 from the last, 2 and 3 stay."""
    frames = torch.tensor([[10, 11, 12, 13], [20, 21, 22, 23], [30, 31, 32, 33]]).reshape(3, 4, 1, 1)

    shifted = shift_channels(frames, frames=3, shift_div=4).reshape(3, 4)

    assert shifted.tolist() == [[20, 0, 12, 13], [30, 11, 22, 23], [0, 21, 32, 33]]


@pytest.mark.parametrize(("channels", "shift_div"), [(16, 8), (9, 4), (6, 2), (4, 8)])
def test_shift_is_a_loop_over_clips_frames_and_channels(channels: int, shift_div: int) -> None:
    clips, frames, part = 3, 4, channels // shift_div
    images = torch.randn(clips * frames, channels, 2, 3)
    expected = torch.zeros_like(images)
    for clip in range(clips):
        for frame in range(frames):
            for channel in range(channels):
                source = frame + (1 if channel < part else -1 if channel < 2 * part else 0)
                if 0 <= source < frames:
                    expected[clip * frames + frame, channel] = images[clip * frames + source, channel]

    assert torch.equal(shift_channels(images, frames=frames, shift_div=shift_div), expected)


def shifted_blocks(model: nn.Module) -> list[str]:
    return [name for name, module in model.named_modules() if isinstance(module, TemporalShift)]


def test_every_block_shifts_before_its_first_convolution_and_every_second_one_in_deep_models() -> None:
    with torch.device("meta"):
        assert len(shifted_blocks(build_tsm())) == 3 + 4 + 6 + 3
        deep = shifted_blocks(build_tsm(backbone="torchvision:resnet101"))

    assert deep[:4] == [f"base_model.{name}.conv1" for name in ("layer1.0", "layer1.2", "layer2.0", "layer2.2")]
    assert len(deep) == 2 + 2 + 12 + 2


def test_names_of_weights_are_the_authors() -> None:
    with torch.device("meta"):
        names = build_tsm().state_dict()

    assert {"base_model.conv1.weight", "base_model.layer1.0.conv1.net.weight", "new_fc.weight"} <= set(names)
    assert len([name for name in names if ".net." in name]) == 16
    assert not [name for name in names if name.startswith("base_model.fc")]


def test_a_model_whose_shift_moves_nothing_is_the_pooled_2d_model() -> None:
    pooled = build_cnn_pool(5, backbone="torchvision:resnet18").eval()
    model = build_tsm(5, backbone="torchvision:resnet18", shift_div=1024).eval()
    model.load_state_dict(dict(zip(model.state_dict(), pooled.state_dict().values(), strict=True)))
    clip = torch.randn(2, 3, 4, 32, 32)

    with torch.no_grad():
        torch.testing.assert_close(model(clip), pooled(clip))


def residual_by_hand(block: nn.Module, clip_TCHW: Tensor) -> Tensor:
    """A basic block of torchvision, one clip, channels moved by indexing."""
    part = clip_TCHW.shape[1] // 8
    moved = clip_TCHW.clone()
    moved[:-1, :part], moved[-1, :part] = clip_TCHW[1:, :part], 0
    moved[1:, part : 2 * part], moved[0, part : 2 * part] = clip_TCHW[:-1, part : 2 * part], 0
    out = block.relu(block.bn1(block.conv1.net(moved)))
    shortcut = clip_TCHW if block.downsample is None else block.downsample(clip_TCHW)
    return block.relu(block.bn2(block.conv2(out)) + shortcut)


def test_the_model_is_its_blocks_one_after_another() -> None:
    model = build_tsm(5, backbone="torchvision:resnet18").eval()
    base = model.base_model
    clips = torch.randn(2, 3, 4, 32, 32)

    with torch.no_grad():
        for clip, logits in zip(clips.transpose(1, 2), model(clips), strict=True):
            x = base.maxpool(base.relu(base.bn1(base.conv1(clip))))
            for stage in (base.layer1, base.layer2, base.layer3, base.layer4):
                for block in stage:
                    x = residual_by_hand(block, x)
            torch.testing.assert_close(model.new_fc(x.mean(dim=(2, 3))).mean(dim=0), logits)


def test_clips_of_several_lengths_run_one_after_another() -> None:
    model = build_tsm(5, backbone="torchvision:resnet18").eval()
    short, long = torch.randn(2, 3, 3, 32, 32), torch.randn(2, 3, 6, 32, 32)

    with torch.no_grad():
        before = model(short)
        model(long)
        assert torch.equal(model(short), before)


def test_the_shift_costs_nothing() -> None:
    with torch.device("meta"):
        model, clip = build_tsm().eval(), torch.empty(1, 3, 8, 224, 224)
    with FlopCounterMode(display=False) as counter:
        model(clip)

    resnet50_macs, its_classifier_macs = 4_089_184_256, 2048 * 1000
    assert counter.get_total_flops() / 2 == 8 * (resnet50_macs - its_classifier_macs + 2048 * 400)


@pytest.mark.parametrize("backbone", ["torchvision:mobilenet_v3_small", "torchvision:googlenet"])
def test_a_backbone_without_residual_stages_is_refused(backbone: str) -> None:
    with torch.device("meta"), pytest.raises(InputError, match="tsm takes ResNets"):
        build_tsm(backbone=backbone)


def test_more_cannot_move_than_there_is() -> None:
    with pytest.raises(InputError, match="shift_div must be at least 2"):
        build_tsm(shift_div=1)


def test_resnets_of_timm_shift_too() -> None:
    pytest.importorskip("timm")
    model = build_tsm(5, backbone="timm:resnet18").eval()

    with torch.no_grad():
        assert len(shifted_blocks(model)) == 8
        assert model(torch.randn(1, 3, 2, 32, 32)).shape == (1, 5)


def test_mobilenet_shifts_in_the_blocks_that_widen_and_have_a_shortcut() -> None:
    """Ten of its 17 blocks have the width of the block before."""
    with torch.device("meta"):
        shifted = shifted_blocks(build_tsm(backbone="torchvision:mobilenet_v2"))

    numbers = (3, 5, 6, 8, 9, 10, 12, 13, 15, 16)
    assert shifted == [f"base_model.features.{number}.conv.0" for number in numbers]


def test_mobilenet_is_its_layers_one_after_another() -> None:
    model = build_tsm(5, backbone="torchvision:mobilenet_v2").eval()
    clip = torch.randn(1, 3, 4, 32, 32)

    with torch.no_grad():
        x = clip[0].transpose(0, 1)
        for layer in model.base_model.features:
            inner = getattr(layer, "conv", None)
            if inner is None or not isinstance(inner[0], TemporalShift):
                x = layer(x)
                continue
            part, moved = x.shape[1] // 8, x.clone()
            moved[:-1, :part], moved[-1, :part] = x[1:, :part], 0
            moved[1:, part : 2 * part], moved[0, part : 2 * part] = x[:-1, part : 2 * part], 0
            x = x + inner[1:](inner[0].net(moved))
        torch.testing.assert_close(model(clip)[0], model.new_fc(x.mean(dim=(2, 3))).mean(dim=0))


def test_non_local_blocks_need_bottlenecks() -> None:
    for backbone in ("torchvision:mobilenet_v2", "torchvision:resnet18"):
        with torch.device("meta"), pytest.raises(InputError, match="non_local takes ResNets of bottlenecks"):
            build_tsm(backbone=backbone, non_local="dot_product")
