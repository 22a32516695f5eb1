"""`in_chans` as in timm, for models that are written for RGB."""

from typing import Any

import pytest
import torch
from torch import nn

import bench
from bench.core.errors import InputError
from bench.core.registry import MODELS
from bench.models.base import inputs_of
from bench.models.input_channels import set_input_channels

SMALL: dict[str, dict[str, Any]] = {
    "slowfast_r50": {"num_classes": 3},
    "timesformer": {"num_classes": 3, "depth": 1, "dim": 48, "heads": 3},
    "x3d_s": {"num_classes": 3},
}


def clips_of(model: nn.Module, channels: int, *, frames: int, pixels: int) -> list[torch.Tensor]:
    torch.manual_seed(1)
    one = torch.randn(1, 1, frames, pixels, pixels).expand(-1, channels, -1, -1, -1)
    return [spec.take(one) for spec in inputs_of(model)]


@pytest.mark.parametrize("channels", [1, 2, 5])
@pytest.mark.parametrize("name", SMALL)
def test_the_same_value_in_all_channels_gives_the_output_of_rgb(name: str, channels: int) -> None:
    torch.manual_seed(0)
    rgb = bench.create_model(name, **SMALL[name]).eval()
    torch.manual_seed(0)
    other = bench.create_model(name, in_chans=channels, **SMALL[name]).eval()
    shape = {"frames": 32, "pixels": 64} if name == "slowfast_r50" else {"frames": 8, "pixels": 224}
    shape = {"frames": 13, "pixels": 160} if name == "x3d_s" else shape
    with torch.no_grad():
        expected = rgb(*clips_of(rgb, 3, **shape))
        torch.testing.assert_close(other(*clips_of(other, channels, **shape)), expected, rtol=1e-4, atol=1e-5)


def is_written_for_rgb(name: str) -> bool:
    with torch.device("meta"):
        return all(spec.channels == 3 for spec in inputs_of(bench.create_model(name)))


@pytest.mark.parametrize("name", [entry.name for entry in MODELS if entry.name == entry.family])
def test_every_family_reads_other_channels_or_says_why_not(name: str) -> None:
    with torch.device("meta"):
        if is_written_for_rgb(name):
            model = bench.create_model(name, in_chans=4)
            assert {spec.channels for spec in inputs_of(model)} == {4}
            widths = [m.in_channels for m in model.modules() if isinstance(m, nn.Conv2d | nn.Conv3d)]
            assert widths.count(4) >= len(inputs_of(model))
            assert 3 not in widths
        else:
            with pytest.raises(InputError, match=f"{name} does not read RGB alone"):
                bench.create_model(name, in_chans=4)


def test_a_torchvision_model_reads_other_channels() -> None:
    model = bench.create_model("torchvision:r3d_18", in_chans=2, num_classes=3).eval()
    assert model(torch.zeros(1, 2, 8, 32, 32)).shape == (1, 3)


@pytest.mark.parametrize("name", ["x3d_s", "c3d"])
@pytest.mark.parametrize("channels", [0, -1, "many", 1.5])
def test_impossible_channels_are_one_line(name: str, channels: Any) -> None:
    with pytest.raises(InputError, match=f"{name}'s in_channels ") as caught:
        bench.create_model(name, in_chans=channels)
    assert "\n" not in str(caught.value)


def test_three_channels_change_nothing_and_a_wrong_spelling_is_corrected() -> None:
    assert inputs_of(bench.create_model("x3d_s", in_chans=3))[0].channels == 3
    with pytest.raises(InputError, match="no argument 'in_chanels'"):
        bench.create_model("x3d_s", in_chanels=1)


def test_trained_weights_are_not_changed_in_silence() -> None:
    model = bench.create_model("x3d_s")
    model.__dict__["weights_report"] = "Kinetics-400"
    with pytest.raises(InputError, match="the weights of x3d_s read 3 channels"):
        set_input_channels(model, 2, name="x3d_s")
