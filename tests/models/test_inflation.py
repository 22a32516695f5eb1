"""Inflation: on a video of one image repeated, the 3D model answers as the 2D model does on the image."""

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from bench.core.errors import WeightsError
from bench.models.i3d import GOOGLENET_TO_I3D, build_i3d
from bench.models.inflation import inflate, inflate_single_frames
from bench.models.resnet3d import resnet3d

FRAMES_BEYOND_RECEPTIVE_FIELD = 128  # it spans 101 frames in the last layer of resnet3d_10, 99 in that of I3D


def with_lived_in_norms(model: nn.Module) -> nn.Module:
    """`model` in eval mode, its batch norms as after training: with statistics, scales and biases of their own."""
    generator = torch.Generator().manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            shape = module.running_mean.shape
            module.running_mean.copy_(0.1 * torch.randn(shape, generator=generator))
            module.running_var.copy_(0.5 + torch.rand(shape, generator=generator))
            module.weight.data.copy_(0.5 + torch.rand(shape, generator=generator))
            module.bias.data.copy_(0.1 * torch.randn(shape, generator=generator))
    return model.eval()


def activations(model: nn.Module, names: list[str], run: Callable[[], Any]) -> dict[str, Tensor]:
    """What the modules called `names` gave while `run()` ran."""
    seen: dict[str, Tensor] = {}

    def keep(name: str) -> Callable[..., None]:
        return lambda module, inputs, output: seen.update({name: output.detach().clone()})

    hooks = [model.get_submodule(name).register_forward_hook(keep(name)) for name in names]
    with torch.no_grad():
        run()
    for hook in hooks:
        hook.remove()
    return seen


def assert_agree(actual: Tensor, expected: Tensor, *, what: str = "") -> None:
    """Equal to 1e-5 of the largest value: activations grow with depth, and rounding errors with them."""
    assert actual.shape == expected.shape
    assert (actual - expected).abs().max() <= 1e-5 * expected.abs().max(), what


def assert_middle_frames_agree(
    flat: Mapping[str, Tensor], deep: Mapping[str, Tensor], names: Mapping[str, str]
) -> None:
    for name_2d, name_3d in names.items():
        frames = deep[name_3d].unbind(dim=2)
        assert_agree(frames[len(frames) // 2], flat[name_2d], what=name_3d)


def image_network(block: str, layers: list[int]) -> nn.Module:
    from torchvision.models import resnet

    return with_lived_in_norms(resnet.ResNet(getattr(resnet, block), layers, num_classes=11))


def residual_names(model: nn.Module) -> list[str]:
    """Every layer that both a 2D and a 3D ResNet have, deepest names included, in-place ReLUs apart."""
    norms = [name for name, module in model.named_modules() if isinstance(module, nn.BatchNorm2d)]
    blocks = [name for name, _ in model.named_modules() if name.count(".") == 1 and name.startswith("layer")]
    return ["conv1", "maxpool", *norms, *blocks]


@pytest.mark.parametrize(
    ("depth", "block", "layers", "frames"),
    [
        (10, "BasicBlock", [1, 1, 1, 1], 128),
        pytest.param(18, "BasicBlock", [2, 2, 2, 2], 256, marks=pytest.mark.slow),
        pytest.param(50, "Bottleneck", [3, 4, 6, 3], 256, marks=pytest.mark.slow),
    ],
)
def test_a_boring_video_gives_a_3d_resnet_the_activations_of_the_2d_one(
    depth: int, block: str, layers: list[int], frames: int
) -> None:
    flat = image_network(block, layers)
    deep = resnet3d(num_classes=11, depth=depth).eval()
    image = torch.randn(1, 3, 32, 32)

    report = inflate(flat, deep)

    assert report.fresh == report.unused == ()
    names = residual_names(flat)
    of_image = activations(flat, names, lambda: flat(image))
    of_video = activations(deep, names, lambda: deep(image.unsqueeze(2).expand(-1, -1, frames, -1, -1)))
    assert_middle_frames_agree(of_image, of_video, {name: name for name in names})


@pytest.mark.parametrize(
    ("depth", "block", "layers"),
    [(50, "Bottleneck", [3, 4, 6, 3]), pytest.param(18, "BasicBlock", [2, 2, 2, 2], marks=pytest.mark.slow)],
)
def test_on_a_video_without_ends_every_frame_and_the_logits_agree(depth: int, block: str, layers: list[int]) -> None:
    flat = image_network(block, layers)
    deep = resnet3d(num_classes=11, depth=depth).eval()
    inflate(flat, deep)
    for module in deep.modules():
        if isinstance(module, nn.Conv3d):
            go_round_in_time(module)
    image = torch.randn(2, 3, 33, 33)
    names = residual_names(flat)

    of_image = activations(flat, names, lambda: flat(image))
    of_video = activations(deep, names, lambda: deep(image.unsqueeze(2).expand(-1, -1, 16, -1, -1)))

    for name in names:
        repeated = of_image[name].unsqueeze(2).expand_as(of_video[name])
        assert_agree(of_video[name], repeated, what=name)
    with torch.no_grad():
        video = image.unsqueeze(2).expand(-1, -1, 16, -1, -1)
        assert_agree(deep(video), flat(image))


def go_round_in_time(conv: nn.Conv3d) -> None:
    """Let the first frame follow the last, in place of zeros."""
    frames, height, width = conv.padding
    conv.padding = (0, height, width)
    conv.register_forward_pre_hook(lambda _, inputs: F.pad(inputs[0], (0, 0, 0, 0, frames, frames), mode="circular"))


def test_zeros_before_the_first_frame_change_what_lies_near() -> None:
    flat = image_network("BasicBlock", [1, 1, 1, 1])
    deep = resnet3d(num_classes=11, depth=10).eval()
    inflate(flat, deep)
    image = torch.randn(1, 3, 32, 32)

    of_image = activations(flat, ["bn1"], lambda: flat(image))["bn1"]
    of_video = activations(deep, ["bn1"], lambda: deep(image.unsqueeze(2).expand(-1, -1, 16, -1, -1)))["bn1"]
    frame_agrees = [torch.allclose(frame, of_image, atol=1e-4) for frame in of_video.unbind(dim=2)]

    assert frame_agrees == [False] * 3 + [True] * 10 + [False] * 3


GOOGLENET_CHILDREN = {
    "conv1": "Conv3d_1a_7x7",
    "maxpool1": "MaxPool3d_2a_3x3",
    "conv2": "Conv3d_2b_1x1",
    "conv3": "Conv3d_2c_3x3",
    "maxpool2": "MaxPool3d_3a_3x3",
    "inception3a": "Mixed_3b",
    "inception3b": "Mixed_3c",
    "maxpool3": "MaxPool3d_4a_3x3",
    "inception4a": "Mixed_4b",
    "inception4b": "Mixed_4c",
    "inception4c": "Mixed_4d",
    "inception4d": "Mixed_4e",
    "inception4e": "Mixed_4f",
    "maxpool4": "MaxPool3d_5a_2x2",
    "inception5a": "Mixed_5b",
    "inception5b": "Mixed_5c",
}


@pytest.mark.filterwarnings("ignore::bench.models.i3d.PoolWindowWarning")
def test_a_boring_video_gives_i3d_the_activations_of_googlenet() -> None:
    """At 31 pixels (16, 8, 4, 2, 1 after the strides) SAME and torchvision's padding agree in every layer."""
    from torchvision.models import googlenet

    flat = googlenet(aux_logits=False, init_weights=False)
    for module in flat.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
    with_lived_in_norms(flat)
    deep = build_i3d(num_classes=1000).eval()

    report = inflate(flat, deep, mapping={**GOOGLENET_TO_I3D, "fc": "logits.conv3d"})

    assert report.fresh == report.unused == ()
    image = torch.randn(1, 3, 31, 31)
    video = image.unsqueeze(2).expand(-1, -1, FRAMES_BEYOND_RECEPTIVE_FIELD, -1, -1)
    of_image = activations(flat, list(GOOGLENET_CHILDREN), lambda: flat(image))
    of_video = activations(deep, list(GOOGLENET_CHILDREN.values()), lambda: deep.forward_features(video))
    assert_middle_frames_agree(of_image, of_video, GOOGLENET_CHILDREN)
    with torch.no_grad():
        features = of_video["Mixed_5c"][:, :, 8].mean(dim=(2, 3))
        assert_agree(deep.forward_head(features), flat(image))


@settings(max_examples=30)
@given(st.integers(1, 7), st.integers(1, 3), st.sampled_from([1, 2]), st.booleans())
def test_any_convolution_answers_alike(frames: int, kernel: int, groups: int, has_bias: bool) -> None:
    flat = nn.Conv2d(4, 6, kernel, groups=groups, bias=has_bias)
    deep = nn.Conv3d(4, 6, (frames, kernel, kernel), groups=groups, bias=has_bias)
    image = torch.randn(1, 4, 5, 5)

    report = inflate(flat, deep)

    assert (report.inflated, report.copied) == (("weight",), ("bias",) if has_bias else ())
    answer = deep(image.unsqueeze(2).expand(-1, -1, frames + 2, -1, -1))
    assert_agree(answer, flat(image).unsqueeze(2).expand(-1, -1, 3, -1, -1))


def test_kernels_are_repeated_and_divided() -> None:
    flat, deep = nn.Conv2d(1, 1, 2, bias=False), nn.Conv3d(1, 1, (4, 2, 2), bias=False)
    flat.weight.data = torch.tensor([[[[4.0, 8.0], [-4.0, 2.0]]]])

    inflate(flat, deep)

    assert deep.weight.tolist() == [[[[[1.0, 2.0], [-1.0, 0.5]]] * 4]]


def networks(conv_3d: nn.Module) -> tuple[nn.Module, nn.Module]:
    flat = nn.ModuleDict({"stem": nn.Conv2d(3, 4, 3), "norm": nn.BatchNorm2d(4), "fc": nn.Linear(4, 10)})
    deep = nn.ModuleDict({"stem": conv_3d, "norm": nn.BatchNorm3d(4), "fc": nn.Linear(4, 10)})
    return flat, deep


def test_everything_is_accounted_for() -> None:
    flat, deep = networks(nn.Conv3d(3, 4, 3))
    deep["extra"] = nn.Linear(1, 1, bias=False)
    flat["aux"] = nn.Linear(2, 2, bias=False)
    before = deep["fc"].weight.clone()

    report = inflate(flat, deep, skip=["fc"])

    assert report.inflated == ("stem.weight",)
    assert report.copied[:3] == ("stem.bias", "norm.weight", "norm.bias")
    assert report.fresh == ("fc.weight", "fc.bias", "extra.weight")
    assert report.unused == ("fc.weight", "fc.bias", "aux.weight")
    assert torch.equal(deep["fc"].weight, before)


def test_shapes_that_differ_other_than_in_time_are_named_and_nothing_changes() -> None:
    flat, deep = networks(nn.Conv3d(3, 4, (3, 5, 5)))
    deep["fc"] = nn.Linear(4, 7)
    before = {name: value.clone() for name, value in deep.state_dict().items()}

    with pytest.raises(WeightsError) as caught:
        inflate(flat, deep)

    assert "3 shapes of the 2D and the 3D model differ" in str(caught.value)
    assert "stem.weight (4, 3, 3, 5, 5) from stem.weight (4, 3, 3, 3)" in str(caught.value)
    assert "fc.weight (7, 4) from fc.weight (10, 4)" in str(caught.value)
    assert all(torch.equal(value, before[name]) for name, value in deep.state_dict().items())


def test_the_longest_name_in_the_mapping_decides() -> None:
    flat = nn.ModuleDict({"a": nn.ModuleDict({"b": nn.Conv2d(1, 1, 1), "c": nn.Conv2d(1, 1, 1)})})
    deep = nn.ModuleDict({"x": nn.ModuleDict({"c": nn.Conv3d(1, 1, 1)}), "y": nn.Conv3d(1, 1, 1)})

    report = inflate(flat, deep, mapping={"a": "x", "a.b": "y"})

    assert report.fresh == report.unused == ()
    assert deep["y"].weight.item() == flat["a"]["b"].weight.item()


def test_part_of_a_name_is_no_module() -> None:
    flat, deep = nn.ModuleDict({"conv10": nn.Conv2d(1, 1, 1)}), nn.ModuleDict({"conv10": nn.Conv3d(1, 1, 1)})

    assert inflate(flat, deep, mapping={"conv1": "other"}, skip=["conv"]).fresh == ()


def test_a_linear_layer_fills_a_1x1x1_convolution() -> None:
    flat, deep = nn.Linear(3, 2), nn.Conv3d(3, 2, 1)

    report = inflate(flat, deep)

    assert report.copied == ("weight", "bias")
    x = torch.randn(1, 3)
    torch.testing.assert_close(deep(x[:, :, None, None, None]).flatten(1), flat(x))


def test_models_without_a_name_in_common_are_an_error() -> None:
    with pytest.raises(WeightsError, match=r"nothing to inflate: .*2D: a\.weight.*3D: b\.weight"):
        inflate(nn.ModuleDict({"a": nn.Conv2d(1, 1, 1)}), nn.ModuleDict({"b": nn.Conv3d(1, 1, 1)}))


def test_a_model_trained_on_single_frames_answers_alike_on_a_still_video() -> None:
    """Inside a clip of one frame repeated, the inflated model sees what it saw of that frame alone."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv3d(3, 4, (3, 3, 3), padding=1), nn.ReLU(), nn.Conv3d(4, 5, (5, 1, 1), padding=(2, 0, 0)), nn.ReLU()
    )
    image = torch.randn(2, 3, 1, 6, 6)
    expected = model(image)
    assert inflate_single_frames(model) == ("0", "2")
    still = model(image.expand(-1, -1, 13, -1, -1))
    torch.testing.assert_close(still[:, :, 6:7], expected)
    assert not torch.allclose(still[:, :, :1], expected), "zeros before the first frame are no frames"


@pytest.mark.parametrize(
    "conv", [nn.Conv3d(1, 1, 2), nn.Conv3d(1, 1, 3), nn.Conv3d(1, 1, (4, 1, 1), padding=(2, 0, 0))]
)
def test_kernels_without_a_middle_are_not_inflated(conv: nn.Conv3d) -> None:
    before = conv.weight.detach().clone()
    with pytest.raises(WeightsError, match=r"0 spans . frames"):
        inflate_single_frames(nn.Sequential(conv))
    assert torch.equal(conv.weight, before)
