"""create_model: names, arguments, classes, devices, and what it says of mistakes."""

from typing import Any, Literal

import pytest
import torch
from torch import nn

import bench
from bench.core.errors import InputError, NameClashError, UnknownNameError
from bench.core.registry import MODELS, ModelEntry, register_model
from bench.core.schema import Clip
from bench.models.factory import (
    checked_arguments,
    create_model,
    find_model,
    is_model,
    list_models,
    list_pretrained,
    model_entrypoint,
)
from bench.train.preprocessing import default_protocol


def entry_of(function: object) -> ModelEntry:
    return ModelEntry(name="mine", family="mine", function=function, clip="8x1x32")  # type: ignore[arg-type]


def test_the_public_names_are_these_functions() -> None:
    assert (bench.create_model, bench.list_models, bench.is_model) == (create_model, list_models, is_model)


def test_a_family_and_its_variants_are_listed() -> None:
    assert {"resnet3d", "resnet3d_18", "resnet3d_50"} <= set(list_models("resnet3d*"))
    assert list_models("no_such*") == []
    assert list_models() == sorted(entry.name for entry in MODELS)


@pytest.mark.parametrize("name", ["c3d", "resnet3d_50", "torchvision:r3d_18", "torchvision:r3d_18.kinetics400_v1"])
def test_a_name_that_can_be_built_is_a_model(name: str) -> None:
    assert is_model(name)


@pytest.mark.parametrize(
    "name", ["c3d_", "torchvision:resnet50", "torchvision:r3d_18.imagenet", "nowhere:net", "hf:/nowhere", "timm:nope"]
)
def test_a_name_that_cannot_is_none(name: str) -> None:
    assert not is_model(name)


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("resnet3d-50", "resnet3d_50"),
        ("C3D", "c3d"),
        ("torchvision:r3d18", "torchvision:r3d_18"),
        ("torchvision:r3d_18.kinetics40", "kinetics400_v1"),
    ],
)
def test_an_unknown_name_gets_the_nearest_spelling(name: str, near: str) -> None:
    with pytest.raises(UnknownNameError, match=near):
        create_model(name)


def test_an_unknown_argument_is_named_with_the_nearest() -> None:
    with pytest.raises(InputError, match=r"c3d has no argument 'kernal_depth'; did you mean: kernel_depth"):
        create_model("c3d", kernal_depth=3)
    with pytest.raises(InputError, match=r"allowed: .*num_classes"):
        create_model("c3d", x=3)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"num_classes": "many"}, "num_classes is 'many'.*integer"),
        ({"num_classes": 0}, "at least 1, found 0"),
        ({"num_classes": 2.5}, "num_classes is 2.5"),
        ({"shortcut": "C"}, "shortcut is 'C'.*'A' or 'B'"),
        ({"depth": 51}, "51.*allowed: 10, 18"),
        ({"in_channels": 0}, "in_channels.*0"),
    ],
)
def test_a_wrong_value_is_named_with_what_is_allowed(arguments: dict[str, object], words: str) -> None:
    with pytest.raises(InputError, match=words):
        create_model("resnet3d", **arguments)  # type: ignore[arg-type]


def test_no_number_of_classes_is_the_factory_s_own() -> None:
    for name, classes in (("c3d", 101), ("resnet3d_18", 700), ("x3d_xs", 400), ("torchvision:s3d", 400)):
        model = create_model(name, device="meta")
        assert [p.shape[0] for p in model.parameters()][-1] == classes, name


def test_a_model_is_built_on_the_meta_device_by_argument_or_context() -> None:
    with torch.device("meta"):
        by_context = create_model("c3d")
    for model in (by_context, create_model("c3d", device="meta")):
        assert all(parameter.is_meta for parameter in model.parameters())


def test_the_device_does_not_change_what_is_drawn() -> None:
    torch.manual_seed(3)
    first = create_model("c3d_search", width=0.05, device="cpu").state_dict()
    torch.manual_seed(3)
    second = create_model("c3d_search", width=0.05).state_dict()
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_values_are_fitted_to_the_annotation() -> None:
    def factory(*, num_classes: int = 3, sizes: tuple[int, ...] = (), other=None) -> nn.Module:  # type: ignore[no-untyped-def]
        return nn.Linear(1, num_classes)

    fitted = checked_arguments(entry_of(factory), {"sizes": [1, 2], "other": "x"})
    assert fitted == {"sizes": (1, 2), "other": "x"}


def test_an_impossible_value_is_reported_with_the_nearest_one() -> None:
    def factory(*, kind: Literal["increasing", "flat"] = "flat", depth: int = 3) -> nn.Module:
        return nn.Identity()

    with pytest.raises(InputError) as caught:
        checked_arguments(entry_of(factory), {"kind": "increasin"})
    assert str(caught.value) == (
        "mine's kind is 'increasin': input should be 'increasing' or 'flat'; did you mean: increasing?"
    )


def test_a_fault_of_a_factory_is_reported_with_its_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*, size: int = 3) -> nn.Module:
        return nn.Linear(1, 2)(torch.zeros(size))  # type: ignore[no-any-return]

    monkeypatch.setitem(MODELS._entries, "mine", entry_of(broken))
    with pytest.raises(InputError, match="mine cannot be built with size=4"):
        create_model("mine", size=4)


def test_what_is_no_module_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(MODELS._entries, "mine", entry_of(lambda: "a network"))
    with pytest.raises(InputError, match=r"must return an nn\.Module, found a str"):
        create_model("mine")


def test_the_same_name_twice_is_a_clash() -> None:
    with pytest.raises(NameClashError, match=r"'c3d' is registered twice, in bench\.models\.c3d\.c3d and "):

        @register_model("c3d", clip="16x1x112")
        def another(*, num_classes: int = 3) -> nn.Module:
            return nn.Linear(1, num_classes)


def test_a_found_model_knows_its_arguments_and_clip() -> None:
    entry = find_model("c3d")
    assert (entry.clip, entry.arguments["kernel_depth"], entry.arguments["num_classes"]) == ("16x1x112", 3, 101)
    assert find_model("torchvision:mvit_v2_s").clip == "16x4x224"


def test_a_registered_input_protocol_is_the_default_of_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MODELS, "_entries", dict(MODELS._all()))

    @register_model("bgr_net", clip="4x1x16", input_protocol={"channels": "bgr", "scale": 255, "mean": (90, 98, 102)})
    def build(num_classes: int = 2) -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(3 * 4 * 16 * 16, num_classes))

    protocol = default_protocol(create_model("bgr_net"), Clip.model_validate("4x1x16"))
    assert (protocol.channels, protocol.scale, protocol.mean) == ("bgr", 255, (90, 98, 102))
    assert protocol.mark("channels") == "assumed"


def test_what_a_model_says_itself_counts_more_than_its_registration(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MODELS, "_entries", dict(MODELS._all()))

    @register_model("own_net", clip="4x1x16", input_protocol={"channels": "bgr", "scale": 255})
    def build(num_classes: int = 2) -> nn.Module:
        model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 4 * 16 * 16, num_classes))
        model.input_protocol = {"channels": "rgb"}
        return model

    protocol = default_protocol(create_model("own_net"), Clip.model_validate("4x1x16"))
    assert (protocol.channels, protocol.scale) == ("rgb", 255)


@pytest.mark.parametrize(
    ("parts", "told"), [({"chanels": "bgr"}, "did you mean: channels"), ({"scale": 100}, "scale: .* found 100")]
)
def test_a_wrong_registered_protocol_is_an_error_at_once(parts: dict[str, object], told: str) -> None:
    with pytest.raises(InputError, match=told):
        register_model("broken", clip="4x1x16", input_protocol=parts)


def test_filters_exclude_and_several_patterns_join() -> None:
    found = list_models(["resnet3d_*", "r2plus1d_1*"], exclude_filters="*_200")
    assert "resnet3d_50" in found
    assert "r2plus1d_18" in found
    assert "resnet3d_200" not in found
    assert list_models("resnet3d_*", exclude_filters=["*"]) == []


def test_pretrained_models_are_those_with_a_published_file() -> None:
    assert "c2d_r50" in list_models("c2d*", pretrained=True)
    assert list_models("c3d_search", pretrained=True) == []
    assert "pytorchvideo/c2d_8x8_r50" in list_pretrained("c2d_r50")
    assert "torchvision:r3d_18.kinetics400_v1" in list_pretrained("torchvision:r3d_18")


def test_an_entry_point_builds_the_variant() -> None:
    build = model_entrypoint("c3d_search")
    assert isinstance(build(num_classes=3, width=0.125), nn.Module)
    assert model_entrypoint("resnet3d_18").keywords == {"depth": 18}


def test_names_of_arguments_as_in_timm() -> None:
    model = create_model("c3d_search", width=0.125, in_chans=2, drop_rate=0.25)
    assert model.conv1.in_channels == 2
    assert model.dropout.p == 0.25


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"in_chans": 2, "in_channels": 2}, "in_chans is another name of in_channels"),
        ({"weights": "a", "checkpoint_path": "b"}, "checkpoint_path is another name of weights"),
        ({"pretrained": True, "weights": "a"}, "pretrained asks for published weights, and a is given"),
        ({"pretrained": True}, "no published weights of c3d are fetched"),
    ],
)
def test_arguments_that_contradict_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        create_model("c3d", **arguments)


def test_a_bare_decorator_registers_under_the_name_of_the_function(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MODELS, "_entries", dict(MODELS._all()))

    @register_model
    def my_net(num_classes: int = 4) -> nn.Module:
        return nn.Linear(2, num_classes)

    assert MODELS.get("my_net").clip == "16x1x112"
    assert create_model("my_net", num_classes=6).out_features == 6
