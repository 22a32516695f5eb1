"""2D models as parts: features are what their classifiers read, with the weights that people have."""

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bench.core.errors import ClipError, InputError, MissingPackageError, UnknownNameError, WeightsError
from bench.models.backbones import (
    HALVES,
    IMAGENET_MEAN,
    Backbone,
    FrameModel,
    by_clip,
    create_backbone,
    create_map_backbone,
    frames_of,
)

SMALL = "shufflenet_v2_x0_5"


def shipped(name: str, path: Path, **arguments: Any) -> nn.Module:
    """A model of torchvision in eval mode, its weights written to `path` as torchvision ships them."""
    from torchvision import models

    network: nn.Module = models.get_model(name, **arguments)
    torch.save(network.state_dict(), path)
    return network.eval()


def read_by_last_linear(network: nn.Module, images: Tensor) -> Tensor:
    seen: list[Tensor] = []
    last = [module for module in network.modules() if isinstance(module, nn.Linear)][-1]
    hook = last.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].clone()))
    with torch.no_grad():
        network(images)
    hook.remove()
    return seen[0]


@pytest.mark.parametrize(
    ("name", "width", "arguments"),
    [
        ("googlenet", 1024, {"aux_logits": True, "init_weights": False}),
        ("mobilenet_v3_small", 1024, {}),
        (SMALL, 1024, {}),
    ],
)
def test_features_are_what_the_classifier_reads(
    tmp_path: Path, name: str, width: int, arguments: dict[str, Any]
) -> None:
    network = shipped(name, tmp_path / "weights.pth", **arguments)
    images = torch.randn(2, 3, 64, 48)

    backbone = create_backbone(f"torchvision:{name}", weights=str(tmp_path / "weights.pth"))

    assert backbone.width == width
    with torch.no_grad():
        assert torch.equal(backbone.model.eval()(images), read_by_last_linear(network, images))


@pytest.mark.parametrize("name", ["googlenet", "efficientnet_b0"])
def test_maps_averaged_are_the_features(tmp_path: Path, name: str) -> None:
    arguments = {"aux_logits": True, "init_weights": False} if name == "googlenet" else {}
    shipped(name, tmp_path / "weights.pth", **arguments)
    images = torch.randn(1, 3, 64, 96)

    flat = create_backbone(f"torchvision:{name}", weights=str(tmp_path / "weights.pth"))
    maps = create_map_backbone(f"torchvision:{name}", weights=str(tmp_path / "weights.pth"))

    with torch.no_grad():
        of_maps = maps.model.eval()(images)
        assert of_maps.shape == (1, maps.width, 2, 3)
        features = flat.model.eval()(images)
        torch.testing.assert_close(of_maps.mean(dim=(2, 3)), features, rtol=0, atol=1e-5 * float(features.abs().max()))


@pytest.mark.parametrize(("name", "width"), [("vgg11", 512), ("alexnet", 256), ("mobilenet_v3_small", 576)])
def test_maps_are_as_wide_as_the_last_convolution_not_as_the_last_linear_layer(name: str, width: int) -> None:
    with torch.device("meta"):
        backbone = create_map_backbone(f"torchvision:{name}")

    assert backbone.width == width
    assert backbone.model(torch.empty(1, 3, 96, 96, device="meta")).shape[1] == width


def test_training_features_are_not_dropped_by_the_backbone_as_well() -> None:
    for name in ("googlenet", "efficientnet_b0"):
        with torch.device("meta"):
            network = create_backbone(f"torchvision:{name}").model
        assert not [module for module in network.modules() if isinstance(module, nn.Dropout)]


@pytest.mark.parametrize("channels", [2, 20])
def test_other_channels_start_from_the_mean_over_rgb(tmp_path: Path, channels: int) -> None:
    network = shipped(SMALL, tmp_path / "weights.pth")

    backbone = create_backbone(f"torchvision:{SMALL}", in_channels=channels, weights=str(tmp_path / "weights.pth"))

    stem = backbone.model.get_submodule("conv1.0").weight
    rgb = network.get_submodule("conv1.0").weight
    assert stem.shape == (24, channels, 3, 3)
    for channel in range(channels):
        torch.testing.assert_close(stem[:, channel], (rgb[:, 0] + rgb[:, 1] + rgb[:, 2]) / 3)
    assert backbone.model(torch.randn(2, channels, 32, 32)).shape == (2, 1024)


def test_other_channels_are_drawn_each_for_itself_without_weights() -> None:
    stem = create_backbone(f"torchvision:{SMALL}", in_channels=4).model.get_submodule("conv1.0").weight

    assert not torch.equal(stem[:, 0], stem[:, 1])


def works(network: nn.Module, pixels: int) -> bool:
    try:
        network(torch.empty(2, 3, pixels, pixels, device="meta"))
    except (RuntimeError, AssertionError):
        return False
    return True


@pytest.mark.parametrize(
    "name", ["googlenet", "alexnet", "inception_v3", "convnext_tiny", "swin_t", "resnet18", "vit_b_32"]
)
def test_the_smallest_image_runs_and_one_pixel_less_does_not(name: str) -> None:
    with torch.device("meta"):
        backbone = create_backbone(f"torchvision:{name}")
    network = backbone.model.eval()

    assert works(network, backbone.smallest_px)
    assert backbone.smallest_px == 1 or not works(network, backbone.smallest_px - 1)
    assert works(network, backbone.smallest_px + 1) == (backbone.only_px is None)


def test_a_model_that_torchvision_cannot_build_on_meta_goes_there() -> None:
    with torch.device("meta"):
        backbone = create_backbone("torchvision:regnet_y_400mf")

    assert all(parameter.is_meta for parameter in backbone.model.parameters())


def test_normalisation_is_that_of_the_published_weights() -> None:
    with torch.device("meta"):
        assert create_backbone("torchvision:resnet18").mean == IMAGENET_MEAN
        assert create_backbone("torchvision:googlenet").mean == HALVES
        assert create_backbone("timm:test_vit").mean == HALVES


@pytest.mark.parametrize("name", ["test_resnet", "test_efficientnet", "test_vit"])
def test_timm_gives_features_with_weights_as_timm_ships_them(tmp_path: Path, name: str) -> None:
    timm = pytest.importorskip("timm")
    from safetensors.torch import save_file

    network = timm.create_model(name).eval()
    save_file(network.state_dict(), tmp_path / "model.safetensors")
    images = torch.randn(2, 3, 160, 160)

    backbone = create_backbone(f"timm:{name}", weights=str(tmp_path / "model.safetensors"))

    with torch.no_grad():
        features = backbone.model.eval()(images)
        expected = network.forward_head(network.forward_features(images), pre_logits=True)
    assert features.shape == (2, backbone.width)
    assert torch.equal(features, expected)


def test_timm_that_is_missing_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)

    with pytest.raises(MissingPackageError, match=r"backbone timm:resnet10t needs timm.*pip install timm"):
        create_backbone("timm:resnet10t")


@pytest.mark.parametrize(
    ("name", "error", "text"),
    [
        ("resnet50", InputError, r"has no source; write torchvision:resnet50 or timm:resnet50"),
        ("torchvision:resnet51", UnknownNameError, r"did you mean: torchvision:resnet50"),
        ("torchvision:r3d_18", UnknownNameError, r"unknown backbone 'torchvision:r3d_18'"),
        ("timm:resnet10tt", UnknownNameError, r"timm:resnet10t"),
        ("torch:resnet50", UnknownNameError, r"unknown source of backbones 'torch'"),
        ("torchvision:squeezenet1_0", InputError, r"does not end in a linear layer"),
    ],
)
def test_names_that_cannot_be_are_explained(name: str, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        create_backbone(name)


def test_a_model_without_average_pooling_gives_no_maps() -> None:
    with torch.device("meta"), pytest.raises(InputError, match=r"mobilenet_v2 has no average pooling"):
        create_map_backbone("torchvision:mobilenet_v2")


def test_weights_of_another_model_are_refused(tmp_path: Path) -> None:
    shipped(SMALL, tmp_path / "small.pth")

    with pytest.raises(WeightsError, match=r"small\.pth does not hold the weights of this backbone: Missing key"):
        create_backbone("torchvision:mobilenet_v3_small", weights=str(tmp_path / "small.pth"))
    with pytest.raises(WeightsError, match=r"no checkpoint file at .*none\.pth"):
        create_backbone(f"torchvision:{SMALL}", weights=str(tmp_path / "none.pth"))


def test_frames_of_one_clip_stay_adjacent_and_come_back() -> None:
    clip = torch.arange(2 * 3 * 4 * 1 * 1).reshape(2, 3, 4, 1, 1)

    images = frames_of(clip)

    assert images[:, 0, 0, 0].tolist() == [0, 1, 2, 3, 12, 13, 14, 15]
    assert torch.equal(by_clip(images, frames=4), clip.transpose(1, 2))


class Frames(FrameModel):
    """A model with weights of images and of clips."""

    def __init__(self, only_px: int | None = None) -> None:
        network = nn.Conv2d(3, 4, 3)
        super().__init__(Backbone(model=network, width=4, smallest_px=3, only_px=only_px))
        self.flat, self.deep, self.fc = network, nn.Conv3d(3, 4, 3), nn.Linear(4, 2)

    def forward_features(self, *clips: Tensor) -> Tensor:
        (clip,) = clips
        return by_clip(self.flat(frames_of(clip)).mean(dim=(2, 3)), frames=clip.shape[2]).mean(dim=1)


def test_memory_format_for_clips_is_taken_by_weights_of_images() -> None:
    model = Frames()
    clip = torch.randn(2, 3, 3, 8, 8)
    before = model(clip)

    converted = model.to(memory_format=torch.channels_last_3d)

    assert converted is model
    assert model.flat.weight.is_contiguous(memory_format=torch.channels_last)
    assert model.deep.weight.is_contiguous(memory_format=torch.channels_last_3d)
    torch.testing.assert_close(model(clip.to(memory_format=torch.channels_last_3d)), before)
    assert model.to(torch.float64, memory_format=torch.channels_last_3d).fc.weight.dtype == torch.float64
    assert model.to("meta").fc.weight.is_meta


def test_a_backbone_of_one_size_refuses_others() -> None:
    model = Frames(only_px=8)

    model(torch.randn(1, 3, 2, 8, 8))
    with pytest.raises(ClipError, match="takes 8x8 pixels only, found 8x9"):
        model(torch.randn(1, 3, 2, 8, 9))
    with pytest.raises(ClipError, match="smallest that works is 1x3x3"):
        Frames()(torch.randn(1, 3, 2, 2, 8))
