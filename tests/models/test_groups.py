"""Parameter groups: each trained weight once, with the rate that its place gives it."""

from typing import Any

import pytest
import torch
from torch import nn

from bench.core.errors import InputError, UnknownNameError
from bench.models.factory import create_model
from bench.models.groups import parameter_groups

RATES = {"lr": 0.1, "weight_decay": 1e-3}


def on_meta(name: str, **arguments: object) -> nn.Module:
    return create_model(name, device="meta", **arguments)


def names_in(model: nn.Module, group: dict[str, Any]) -> list[str]:
    mine = {id(parameter) for parameter in group["params"]}
    return [name for name, parameter in model.named_parameters() if id(parameter) in mine]


def rate_of(model: nn.Module, groups: list[dict[str, Any]], name: str) -> float:
    (rate,) = (group["lr"] for group in groups if name in names_in(model, group))
    return float(rate)


@pytest.mark.parametrize("name", ["resnet3d_18", "densenet3d_121", "slowfast_r50", "two_stream_i3d", "c3d", "tsm"])
def test_each_weight_is_in_one_group(name: str) -> None:
    model = on_meta(name)
    groups = parameter_groups(model, **RATES)
    found = [id(parameter) for group in groups for parameter in group["params"]]
    assert sorted(found) == sorted(id(parameter) for parameter in model.parameters())
    assert {(group["lr"], group["weight_decay"]) for group in groups} == {(0.1, 1e-3)}


def test_c3d_trains_its_last_layer_ten_times_as_fast() -> None:
    model = on_meta("c3d")
    body, head = parameter_groups(model, **RATES, head_lr_scale=10)
    assert names_in(model, head) == ["fc8.weight", "fc8.bias"]
    assert (body["lr"], head["lr"]) == (0.1, 1.0)
    assert len(body["params"]) == 20


@pytest.mark.parametrize(
    ("name", "begin", "trained"),
    [
        ("resnet3d_18", "layer4", ("layer4.", "fc.")),
        ("resnet3d_18", "layer4.1", ("layer4.1.", "fc.")),
        ("resnet3d_18", "fc", ("fc.",)),
        ("densenet3d_121", "denseblock4", ("features.denseblock4.", "features.norm5.", "classifier.")),
        ("densenet3d_121", "features.denseblock4", ("features.denseblock4.", "features.norm5.", "classifier.")),
        ("c3d", "fc7", ("fc7.", "fc8.")),
        ("i3d_rgb", "Mixed_5c", ("Mixed_5c.", "logits.")),
    ],
)
def test_training_begins_at_a_module_and_the_rest_is_frozen(name: str, begin: str, trained: tuple[str, ...]) -> None:
    model = on_meta(name)
    groups = parameter_groups(model, **RATES, ft_begin_module=begin)
    found = {parameter for group in groups for parameter in names_in(model, group)}
    assert found == {parameter for parameter, _ in model.named_parameters() if parameter.startswith(trained)}
    assert found == {parameter for parameter, value in model.named_parameters() if value.requires_grad}


def test_a_layer_that_shares_the_start_of_its_name_is_not_the_layer() -> None:
    model = nn.Sequential()
    for name in ("layer10", "layer1", "out"):
        model.add_module(name, nn.Linear(2, 2))
    groups = parameter_groups(model, **RATES, ft_begin_module="layer1")
    trained = [name for group in groups for name in names_in(model, group)]
    assert trained == ["layer1.weight", "layer1.bias", "out.weight", "out.bias"]


def test_the_classifier_is_trained_wherever_it_is_registered() -> None:
    class Odd(nn.Module):
        head_name = "logits"

        def __init__(self) -> None:
            super().__init__()
            self.logits, self.first, self.second = (nn.Linear(2, 2) for _ in range(3))

    model = Odd()
    groups = parameter_groups(model, **RATES, ft_begin_module="second")
    assert [name for group in groups for name in names_in(model, group)] == [
        "second.weight",
        "second.bias",
        "logits.weight",
        "logits.bias",
    ]


def test_an_unknown_module_gets_the_nearest_spelling() -> None:
    with pytest.raises(
        UnknownNameError, match=r"unknown module 'layer_4' in ft_begin_module of ResNet3d; did you mean: layer4"
    ):
        parameter_groups(on_meta("resnet3d_18"), **RATES, ft_begin_module="layer_4")


def test_rates_fall_layer_by_layer_from_the_classifier() -> None:
    """ResNet-10: stem, four blocks, classifier; normalisation goes with its convolution."""
    model = on_meta("resnet3d_10")
    groups = parameter_groups(model, **RATES, layer_decay=0.5, head_lr_scale=2)
    expected = {
        "fc.weight": 0.2,
        "layer4.0.conv1.weight": 0.05,
        "layer4.0.downsample.1.bias": 0.05,
        "layer3.0.bn2.weight": 0.025,
        "layer1.0.conv2.weight": 0.1 / 16,
        "conv1.weight": 0.1 / 32,
        "bn1.bias": 0.1 / 32,
    }
    assert {name: rate_of(model, groups, name) for name in expected} == pytest.approx(expected)


def test_position_embeddings_learn_as_slowly_as_the_first_layer() -> None:
    model = on_meta("timm:vit_tiny_patch16_224")
    groups = parameter_groups(model, **RATES, layer_decay=0.9)
    first = rate_of(model, groups, "backbone.patch_embed.proj.weight")
    assert rate_of(model, groups, "backbone.pos_embed") == first == pytest.approx(0.1 * 0.9**13)
    assert rate_of(model, groups, "backbone.blocks.11.mlp.fc1.weight") == pytest.approx(0.1 * 0.9)


@pytest.mark.parametrize("name", ["densenet3d_121", "x3d_xs", "i3d_rgb", "torchvision:swin3d_t", "cnn_lstm"])
def test_layer_decay_reaches_each_weight_once(name: str) -> None:
    model = on_meta(name)
    groups = parameter_groups(model, **RATES, layer_decay=0.9)
    found = [id(parameter) for group in groups for parameter in group["params"]]
    assert sorted(found) == sorted(id(parameter) for parameter in model.parameters())
    rates = [group["lr"] for group in groups]
    assert rates == sorted(rates)
    assert len(set(rates)) == len(rates) > 8


def test_parallel_streams_have_no_single_chain_of_layers() -> None:
    with pytest.raises(InputError, match="SlowFast has parallel streams"):
        parameter_groups(on_meta("slowfast_r50"), **RATES, layer_decay=0.9)


@pytest.mark.parametrize(
    ("rates", "words"),
    [
        ({"lr": 0.0}, "lr must be above 0"),
        ({"weight_decay": -1.0}, "weight_decay must be at least 0"),
        ({"head_lr_scale": 0.0}, "head_lr_scale must be above 0"),
        ({"layer_decay": 0.0}, "layer_decay must be above 0 and at most 1"),
        ({"layer_decay": 1.5}, "layer_decay must be above 0 and at most 1"),
        ({"lr": float("nan")}, "lr must be above 0, found nan"),
    ],
)
def test_a_rate_that_cannot_be_is_refused(rates: dict[str, float], words: str) -> None:
    with pytest.raises(InputError, match=words):
        parameter_groups(nn.Linear(1, 1), **{**RATES, **rates})


def test_a_model_with_nothing_to_train_is_refused() -> None:
    with pytest.raises(InputError, match="nothing to train"):
        parameter_groups(nn.Linear(1, 1).requires_grad_(False), **RATES)


def test_the_groups_are_what_an_optimiser_takes() -> None:
    model = create_model("c3d_search", width=0.05, num_classes=3)
    optimiser = torch.optim.SGD(parameter_groups(model, **RATES, head_lr_scale=10, ft_begin_module="fc7"), momentum=0.9)
    before = {name: value.clone() for name, value in model.named_parameters()}
    model(torch.randn(2, 3, 4, 32, 32)).square().sum().backward()
    optimiser.step()
    moved = {name for name, value in model.named_parameters() if not torch.equal(value, before[name])}
    assert {name.split(".")[0] for name in moved} == {"fc7", "fc8"}
