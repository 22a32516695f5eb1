"""Pooled vectors and tokens of any model, against what the layers themselves return."""

import pytest
import torch
from torch import Tensor, nn

from bench.core.errors import InputError
from bench.core.registry import MODELS
from bench.core.schema import Clip, clip_from_text
from bench.models.base import inputs_of
from bench.models.factory import create_model
from bench.models.feature_readers import TokenReader

TINY_VIT = {"dim": 48, "depth": 3, "heads": 3}
CLIP = clip_from_text("4x1x32")


def clips(seed: int = 0) -> Tensor:
    return torch.randn(2, 3, 4, 32, 32, generator=torch.Generator().manual_seed(seed))


def built(name: str, **arguments: object) -> nn.Module:
    torch.manual_seed(0)
    return create_model(name, **arguments).eval()


def test_tokens_of_a_transformer_are_those_behind_its_last_norm() -> None:
    model = built("vjepa2_encoder", **TINY_VIT)
    vectors, tokens = TokenReader(model, clip=CLIP)(clips())
    expected = model.forward_tokens(clips())
    torch.testing.assert_close(tokens, expected)
    torch.testing.assert_close(vectors, expected.mean(1))


def test_tokens_of_an_encoder_with_a_classifier_are_those_of_the_encoder() -> None:
    model = built("vjepa2", num_classes=5, probe_heads=3, **TINY_VIT)
    vectors, tokens = TokenReader(model, clip=CLIP)(clips())
    torch.testing.assert_close(tokens, model.forward_tokens(clips()))
    torch.testing.assert_close(vectors, model.forward_features(clips()))


def test_tokens_of_a_convolutional_model_are_the_positions_of_its_last_map() -> None:
    model = built("resnet3d", depth=10, widen_factor=0.125, no_max_pool=True)
    vectors, tokens = TokenReader(model, clip=CLIP)(clips())
    torch.testing.assert_close(tokens.mean(1), vectors)
    seen: list[Tensor] = []
    model.layer4.register_forward_hook(lambda _m, _i, output: seen.append(output))
    model(clips())
    torch.testing.assert_close(tokens[1, 3], seen[0].flatten(2)[1, :, 3])


def test_tokens_of_a_2d_model_are_the_vectors_of_its_frames() -> None:
    model = built("cnn_pool", backbone="torchvision:resnet18")
    vectors, tokens = TokenReader(model, clip=CLIP)(clips())
    assert tokens.shape == (2, 4, 512)
    torch.testing.assert_close(tokens.mean(1), vectors)


def test_several_layers_are_joined_and_each_is_normalised() -> None:
    model = built("vjepa2_encoder", **TINY_VIT)
    seen: list[Tensor] = []
    for block in model.blocks:
        block.register_forward_hook(lambda _m, _i, output: seen.append(output))
    _, tokens = TokenReader(model, clip=CLIP, layers=2)(clips())
    expected = torch.cat([model.norm(each) for each in seen[-2:]], dim=2)
    torch.testing.assert_close(tokens, expected)


@pytest.mark.parametrize(
    ("name", "arguments", "layers", "message"),
    [
        ("vjepa2_encoder", TINY_VIT, 4, "layers is 4; VJepa2 has 3 last blocks"),
        ("slowfast", {}, None, "SlowFast has 2 inputs"),
    ],
)
def test_impossible_tokens_are_refused(name: str, arguments: dict[str, int], layers: int | None, message: str) -> None:
    model = create_model(name, device="meta", **arguments)
    with pytest.raises(InputError, match=message):
        TokenReader(model, clip=clip_from_text("8x1x64"), layers=layers)


def test_a_model_of_vectors_only_has_no_tokens() -> None:
    model = nn.Sequential(nn.Flatten(), nn.LazyLinear(7), nn.Linear(7, 3))
    model(clips())
    with pytest.raises(InputError, match="gives no tokens"):
        TokenReader(model, clip=CLIP)


@pytest.mark.slow
@pytest.mark.parametrize("family", sorted({entry.family for entry in MODELS}))
def test_every_family_gives_tokens_unless_it_has_several_inputs(family: str) -> None:
    model = create_model(family, device="meta")
    if len(inputs_of(model)) > 1:
        pytest.skip("several inputs")
    clip: Clip = clip_from_text(MODELS.get(family).clip)
    reader = TokenReader(model, clip=clip)
    shape = inputs_of(model)[0].shape(clip, batch=2)
    vectors, tokens = reader(torch.zeros(shape, device="meta"))
    assert vectors.shape[0] == tokens.shape[0] == 2
    assert tokens.shape[1:] == (reader.count, reader.width)
    assert reader.count > 1
