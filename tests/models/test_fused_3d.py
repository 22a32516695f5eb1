"""3D fusion of two 2D streams, held against the same steps written out."""

import pytest
import torch
import torch.nn.functional as F

from bench.models.fused_3d import build_fused_3d


def test_fusion_is_a_convolution_over_the_maps_of_both_streams_in_order() -> None:
    model = build_fused_3d(5, backbone="torchvision:resnet18", flow_stack=2).eval()
    rgb, flow = torch.randn(2, 3, 3, 64, 64), torch.randn(2, 2, 6, 64, 64)

    with torch.no_grad():
        volumes = []
        for snippet in range(3):
            stack = torch.cat([flow[:, :, 2 * snippet], flow[:, :, 2 * snippet + 1]], dim=1)
            volumes.append(torch.cat([model.rgb(rgb[:, :, snippet]), model.flow(stack)], dim=1))
        volume = torch.stack(volumes, dim=2)
        fused = F.relu(F.conv3d(volume, model.fusion.weight, model.fusion.bias, padding=1))
        pooled = F.max_pool3d(F.pad(fused, (1,) * 6, value=-torch.inf), 3, stride=2)
        expected = F.linear(pooled.mean(dim=(2, 3, 4)), model.fc.weight, model.fc.bias)
        torch.testing.assert_close(model(rgb, flow), expected)


def test_with_inception_v1_it_has_the_parameters_of_the_paper() -> None:
    with torch.device("meta"):
        model = build_fused_3d()

    streams = 2 * 5_599_904 + 64 * (20 - 3) * 7 * 7
    assert sum(p.numel() for p in model.parameters()) == streams + 27 * 2048 * 512 + 512 + 512 * 400 + 400
    assert int(sum(p.numel() for p in model.parameters()) / 1e6) == 39


def test_the_published_clip_gives_maps_of_5x7x7() -> None:
    with torch.device("meta"):
        model = build_fused_3d().eval()
        rgb, flow = torch.empty(1, 3, 5, 224, 224), torch.empty(1, 2, 50, 224, 224)
        assert model.rgb(rgb[:, :, 0]).shape == (1, 1024, 7, 7)
        assert model(rgb, flow).shape == (1, 400)


@pytest.mark.parametrize("snippets", [1, 2, 25])
def test_any_number_of_snippets_will_do(snippets: int) -> None:
    with torch.device("meta"):
        model = build_fused_3d(backbone="torchvision:resnet18").eval()
        clips = torch.empty(2, 3, snippets, 64, 64), torch.empty(2, 2, 10 * snippets, 64, 64)
        assert model(*clips).shape == (2, 400)
