"""Two-stream I3D: the mean of two I3Ds, each from its own file."""

from pathlib import Path

import pytest
import torch

from bench.models.i3d import build_i3d
from bench.models.two_stream_i3d import build_two_stream_i3d

pytestmark = pytest.mark.filterwarnings("ignore::bench.models.i3d.PoolWindowWarning")


def test_with_the_files_of_the_single_streams_it_is_their_mean(tmp_path: Path) -> None:
    rgb_model, flow_model = (build_i3d(6, modality=modality).eval() for modality in ("rgb", "flow"))
    torch.save(rgb_model.state_dict(), tmp_path / "rgb.pt")
    torch.save(flow_model.state_dict(), tmp_path / "flow.pt")

    model = build_two_stream_i3d(6, rgb_weights=str(tmp_path / "rgb.pt"), flow_weights=str(tmp_path / "flow.pt")).eval()

    rgb, flow = torch.randn(2, 3, 8, 32, 32), torch.randn(2, 2, 8, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(model(rgb, flow), (rgb_model(rgb) + flow_model(flow)) / 2)
        assert model.forward_features(rgb, flow).shape == (2, 2048)


def test_a_stream_with_other_classes_keeps_its_classifier_fresh_and_says_so(tmp_path: Path) -> None:
    torch.save(build_i3d(6).state_dict(), tmp_path / "rgb.pt")

    with pytest.warns(UserWarning, match="6 classes and the model 4"):
        model = build_two_stream_i3d(4, rgb_weights=str(tmp_path / "rgb.pt"))

    assert model.fc.rgb.conv3d.out_channels == 4


def test_it_has_the_parameters_of_both() -> None:
    with torch.device("meta"):
        model = build_two_stream_i3d()

    assert sum(p.numel() for p in model.parameters()) == 12_697_264 + 12_675_312
    assert [(i.channels, i.modality) for i in model.inputs] == [(3, "rgb"), (2, "flow")]
    assert model.get_submodule(model.head_name).get_parameter("flow.conv3d.weight").shape[0] == 400
