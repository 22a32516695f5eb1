"""V-JEPA 2: rotary positions, the encoder without classes, the probe on tokens."""

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from bench.core.errors import ClipError, WeightsError
from bench.models.factory import create_model
from bench.models.vjepa2 import rotated, rotation_of_grid

SMALL = {"dim": 48, "depth": 1, "heads": 2}


def test_the_first_token_is_not_rotated() -> None:
    x = torch.randn(1, 2, 8, 24)
    assert torch.equal(rotated(x, rotation_of_grid((2, 2, 2), 24, like=x))[:, :, 0], x[:, :, 0])


def test_a_pair_of_channels_turns_by_its_position() -> None:
    """Heads of 8 channels: two each for time, height and width, all of frequency 1, and two that stay."""
    x = torch.zeros(1, 1, 3, 8)
    x[..., 4] = 1  # the first channel of the pair that turns with the width
    x[..., 6] = 1
    turned = rotated(x, rotation_of_grid((1, 1, 3), 8, like=x))[0, 0, 2]
    torch.testing.assert_close(turned[4:6], torch.tensor([math.cos(2), math.sin(2)]))
    assert turned[6:].tolist() == [1, 0]


def test_the_encoder_gives_tokens_and_its_features_are_their_mean() -> None:
    encoder = create_model("vjepa2_encoder", **SMALL).eval()
    clip = torch.randn(1, 3, 4, 32, 48)
    with torch.no_grad():
        tokens = encoder(clip)
        features = encoder.forward_features(clip)
    assert tokens.shape == (1, 2 * 2 * 3, 48)
    torch.testing.assert_close(features, tokens.mean(1))


def test_the_probe_reads_tokens_as_the_whole_model_does() -> None:
    torch.manual_seed(0)
    model = create_model("vjepa2", num_classes=5, probe_depth=2, probe_heads=2, **SMALL).eval()
    probe = create_model("vjepa2_probe", num_classes=5, dim=48, probe_depth=2, probe_heads=2).eval()
    prefix = "classifier."
    own = {key.removeprefix(prefix): value for key, value in model.state_dict().items() if key.startswith(prefix)}
    probe.load_state_dict(own)
    clip = torch.randn(2, 3, 4, 32, 32)
    with torch.no_grad():
        tokens: Tensor = model.forward_tokens(clip)
        grid = tokens.transpose(1, 2).unflatten(2, (2, 2, 2))
        torch.testing.assert_close(probe(tokens), model(clip))
        torch.testing.assert_close(probe(grid), model(clip))


def test_a_probe_refuses_tokens_of_another_width() -> None:
    probe = create_model("vjepa2_probe", dim=48, probe_heads=2)
    with pytest.raises(ClipError, match=r"\(B, N, 48\), found \(1, 4, 32\)"):
        probe(torch.zeros(1, 4, 32))


def test_the_unused_position_table_of_published_files_is_left_out(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = create_model("vjepa2_encoder", **SMALL).eval()
    table = {"module.backbone.pos_embed": torch.randn(1, 8192, 48)}
    state = {f"module.backbone.{key}": value for key, value in model.state_dict().items()}
    torch.save({"target_encoder": state | table, "epoch": 1}, tmp_path / "vitl.pt")
    loaded = create_model("vjepa2_encoder", weights=tmp_path / "vitl.pt", **SMALL).eval()
    clip = torch.randn(1, 3, 2, 16, 16)
    with torch.no_grad():
        assert torch.equal(loaded(clip), model(clip))


def test_an_encoder_file_leaves_the_classifier_fresh_and_says_so(tmp_path: Path) -> None:
    encoder = create_model("vjepa2_encoder", **SMALL).eval()
    state = {f"module.backbone.{key}": value for key, value in encoder.state_dict().items()}
    torch.save({"encoder": state, "target_encoder": state, "predictor": {}, "epoch": 1}, tmp_path / "vitl.pt")
    model = create_model(
        "vjepa2", num_classes=5, probe_depth=2, probe_heads=2, weights=tmp_path / "vitl.pt", **SMALL
    ).eval()
    clip = torch.randn(1, 3, 2, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(model.forward_tokens(clip), encoder(clip))
    report = model.__dict__["weights_report"]
    assert all(key.startswith("classifier.") for key in report.fresh)
    assert report.warnings[0].startswith("vitl.pt has no classifier: classifier.pooler.query_tokens, ")
    assert "more keep random values; train before evaluating" in report.warnings[0]
    del state["module.backbone.blocks.0.attn.proj.bias"]
    torch.save({"target_encoder": state, "epoch": 1}, tmp_path / "torn.pt")
    with pytest.raises(WeightsError, match="does not fit"):
        create_model("vjepa2", num_classes=5, probe_depth=2, probe_heads=2, weights=tmp_path / "torn.pt", **SMALL)
