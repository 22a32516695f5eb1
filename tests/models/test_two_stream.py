"""The 2D two-stream model: the mean of its streams."""

from pathlib import Path

import torch
from torch import Tensor

from bench.models.two_stream import TwoStream, build_two_stream


def flow_images(flow_BCTHW: Tensor, *, stack: int) -> list[Tensor]:
    """The images of each stack, channel by channel."""
    images = []
    for start in range(0, flow_BCTHW.shape[2], stack):
        channels = [flow_BCTHW[:, axis, t] for t in range(start, start + stack) for axis in (0, 1)]
        images.append(torch.stack(channels, dim=1))
    return images


def test_late_fusion_is_the_mean_of_the_single_streams() -> None:
    model = build_two_stream(5, backbone="torchvision:resnet18").eval()
    rgb, flow = torch.randn(2, 3, 2, 32, 32), torch.randn(2, 2, 20, 32, 32)

    with torch.no_grad():
        of_rgb = torch.stack([model.fc.rgb(model.rgb(image)) for image in rgb.unbind(dim=2)]).mean(dim=0)
        of_flow = torch.stack([model.fc.flow(model.flow(image)) for image in flow_images(flow, stack=10)]).mean(dim=0)
        torch.testing.assert_close(model(rgb, flow), (of_rgb + of_flow) / 2)
        assert model.forward_features(rgb, flow).shape == (2, 1024)


def test_with_inception_v1_it_has_the_parameters_of_the_paper() -> None:
    with torch.device("meta"):
        model = build_two_stream()
        stem = model.flow.get_submodule("conv1.conv")

    stream = 5_599_904 + 1024 * 400 + 400
    assert sum(p.numel() for p in model.parameters()) == 2 * stream + 64 * (20 - 3) * 7 * 7
    assert stem.in_channels == 20
    assert round(sum(p.numel() for p in model.parameters()) / 1e6) == 12


def test_imagenet_weights_start_both_streams(tmp_path: Path) -> None:
    from torchvision.models import mobilenet_v3_small

    network = mobilenet_v3_small()
    torch.save(network.state_dict(), tmp_path / "small.pth")

    model = build_two_stream(5, backbone="torchvision:mobilenet_v3_small", backbone_weights=str(tmp_path / "small.pth"))

    deepest = "features.12.0.weight"
    assert torch.equal(model.rgb.state_dict()[deepest], network.state_dict()[deepest])
    assert torch.equal(model.flow.state_dict()[deepest], network.state_dict()[deepest])


def test_both_classifiers_are_the_head() -> None:
    with torch.device("meta"):
        model = build_two_stream(7)

    head = model.get_submodule(model.head_name)
    assert isinstance(model, TwoStream)
    assert [tuple(p.shape) for p in head.parameters()] == [(7, 1024), (7,)] * 2
