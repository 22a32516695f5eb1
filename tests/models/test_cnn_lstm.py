"""CNN + LSTM, held against a loop over the gates as they stand in the books."""

import pytest
import torch
from torch import Tensor

from bench.models.cnn_lstm import CnnLstm, Readout, build_cnn_lstm


def hidden_states(model: CnnLstm, features_BTF: Tensor) -> Tensor:
    """Hidden state after each frame, `(B, T, hidden)`: gates in torch's order i, f, g, o."""
    lstm = model.lstm
    hidden = cell = torch.zeros(len(features_BTF), lstm.hidden_size)
    states = []
    for features in features_BTF.unbind(dim=1):
        gates = features @ lstm.weight_ih_l0.T + lstm.bias_ih_l0 + hidden @ lstm.weight_hh_l0.T + lstm.bias_hh_l0
        into, forget, new, out = gates.chunk(4, dim=1)
        cell = forget.sigmoid() * cell + into.sigmoid() * new.tanh()
        hidden = out.sigmoid() * cell.tanh()
        states.append(hidden)
    return torch.stack(states, dim=1)


@pytest.mark.parametrize("readout", ["mean", "last"])
def test_scores_are_those_of_a_loop_over_frames(readout: Readout) -> None:
    model = build_cnn_lstm(6, backbone="torchvision:resnet18", hidden_features=16, readout=readout).eval()
    clip = torch.randn(2, 3, 5, 32, 32)

    with torch.no_grad():
        features = torch.stack([model.backbone(frame) for frame in clip.unbind(dim=2)], dim=1)
        per_step = model.fc(hidden_states(model, features))
        expected = per_step[:, -1] if readout == "last" else per_step.mean(dim=1)
        torch.testing.assert_close(model(clip), expected)


def test_the_order_of_frames_counts() -> None:
    model = build_cnn_lstm(6, backbone="torchvision:resnet18", hidden_features=16).eval()
    clip = torch.randn(1, 3, 4, 32, 32)

    with torch.no_grad():
        assert not torch.allclose(model(clip), model(clip.flip(2)), atol=1e-4)


def test_with_inception_v1_it_has_the_parameters_of_the_paper() -> None:
    with torch.device("meta"):
        model = build_cnn_lstm()

    inception = sum(p.numel() for p in model.backbone.parameters())
    assert inception == 5_599_904
    assert sum(p.numel() for p in model.parameters()) == inception + 4 * 512 * (1024 + 512 + 2) + 512 * 400 + 400
    assert round(sum(p.numel() for p in model.parameters()) / 1e6) == 9
