"""CNN pooling: the mean of what a 2D model says of each frame."""

from pathlib import Path

import pytest
import torch
from torch import nn

from bench.models.cnn_pool import build_cnn_pool


def test_repeated_frames_give_the_2d_model(tmp_path: Path) -> None:
    from torchvision.models import resnet18

    network = resnet18(num_classes=7).eval()
    torch.save(network.state_dict(), tmp_path / "small.pth")
    model = build_cnn_pool(7, backbone="torchvision:resnet18", backbone_weights=str(tmp_path / "small.pth")).eval()
    model.fc.load_state_dict(network.fc.state_dict())
    images = torch.randn(2, 3, 48, 32)

    with torch.no_grad():
        torch.testing.assert_close(model(images.unsqueeze(2).expand(-1, -1, 5, -1, -1)), network(images))


def test_class_scores_are_averaged_over_frames_in_any_order() -> None:
    model = build_cnn_pool(5, backbone="torchvision:resnet18").eval()
    clip = torch.randn(2, 3, 4, 32, 32)

    with torch.no_grad():
        per_frame = torch.stack([model(clip[:, :, [t]]) for t in range(4)])
        torch.testing.assert_close(model(clip), per_frame.mean(dim=0))
        torch.testing.assert_close(model(clip.flip(2)), model(clip))


def test_dropout_acts_on_each_frame() -> None:
    model = build_cnn_pool(5, backbone="torchvision:resnet18", dropout=0.5).train()
    model.backbone = nn.Flatten()

    features = model.forward_features(torch.ones(1, 1, 4, 5, 5))

    assert set((features * 2).unique().tolist()) <= {0.0, 1.0, 2.0, 3.0, 4.0}
    assert len(features.unique()) > 2


@pytest.mark.parametrize("backbone", ["timm:test_resnet", "torchvision:resnet18"])
def test_any_backbone_by_name(backbone: str) -> None:
    pytest.importorskip("timm")
    model = build_cnn_pool(3, backbone=backbone).eval()

    assert model(torch.randn(1, 3, 2, 64, 64)).shape == (1, 3)
    assert model.forward_features(torch.randn(1, 3, 2, 64, 64)).shape == (1, model.fc.in_features)
