"""Networks of other packages: torchvision's nine, timm's on frames, the user's own code."""

import sys
from pathlib import Path

import pytest
import timm
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from bench.core.errors import ClipError, InputError, UnknownNameError, WeightsError
from bench.models.base import inputs_of
from bench.models.factory import create_model, find_model, list_models
from bench.models.weights.load_report import require_trained

GMACS_AT_16 = {  # FACTS of torchvision's documentation, its `_ops`: all at 16 frames
    "mc3_18": 43.343,
    "mvit_v1_b": 70.599,
    "mvit_v2_s": 64.224,
    "r2plus1d_18": 40.519,
    "r3d_18": 40.697,
    "s3d": 17.979,
    "swin3d_b": 140.667,
    "swin3d_s": 82.841,
    "swin3d_t": 43.882,
}
DEEP = ("swin3d_s", "swin3d_b")


def on_meta(*shape: int) -> torch.Tensor:
    return torch.empty(shape, device="meta")


def test_the_nine_video_models_of_torchvision_are_listed() -> None:
    assert list_models("torchvision:*") == [f"torchvision:{name}" for name in sorted(GMACS_AT_16)]


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.slow) if name in DEEP else name for name in GMACS_AT_16],
)
def test_torchvision_s_models_cost_what_it_publishes(name: str) -> None:
    entry = find_model(f"torchvision:{name}")
    frames, _, size = map(int, entry.clip.split("x"))
    model = create_model(entry.name, device="meta").eval()
    with FlopCounterMode(display=False) as counter:
        assert model(on_meta(2, 3, frames, size, size)).shape == (2, 400)
    assert frames == 16
    assert round(counter.get_total_flops() / 4e9, 3) == GMACS_AT_16[name]


@pytest.mark.parametrize("name", GMACS_AT_16)
def test_torchvision_s_models_take_another_number_of_classes(name: str) -> None:
    model = create_model(f"torchvision:{name}", num_classes=7, device="meta")
    head = model.get_submodule(str(model.head_name))
    assert head.weight.shape[0] == 7
    assert inputs_of(model)[0].channels == 3
    assert len(model.mean) == len(model.std) == 3  # type: ignore[arg-type]


def test_torchvision_s_names_of_weights_stay() -> None:
    from torchvision.models import get_model

    assert create_model("torchvision:s3d").state_dict().keys() == get_model("s3d", weights=None).state_dict().keys()


def test_torchvision_s_preprocessing_comes_with_its_model() -> None:
    model = create_model("torchvision:r3d_18", device="meta")
    assert (model.mean, model.std) == ((0.43216, 0.394666, 0.37645), (0.22803, 0.22145, 0.216989))


@pytest.mark.parametrize("clip", [(12, 224), (16, 223)])
def test_s3d_names_the_smallest_clip(clip: tuple[int, int]) -> None:
    model = create_model("torchvision:s3d", device="meta").eval()
    assert model(on_meta(1, 3, 13, 224, 224)).shape == (1, 400)
    with pytest.raises(ClipError, match="no smaller clip than 13x224x224"):
        model(on_meta(1, 3, clip[0], clip[1], clip[1]))


@pytest.mark.parametrize("name", ["mvit_v1_b", "mvit_v2_s"])
def test_mvit_takes_the_clip_it_was_made_for(name: str) -> None:
    with pytest.raises(ClipError, match=r"no other clip than 16x224x224 .*found 8x112x112"):
        create_model(f"torchvision:{name}", device="meta")(on_meta(1, 3, 8, 112, 112))


@pytest.mark.parametrize("clip", [(4, 64), (8, 100), (32, 224)])
def test_swin_takes_any_clip(clip: tuple[int, int]) -> None:
    model = create_model("torchvision:swin3d_t", device="meta").eval()
    assert model(on_meta(1, 3, clip[0], clip[1], clip[1])).shape == (1, 400)


def test_an_argument_that_torchvision_does_not_take_is_named() -> None:
    with pytest.raises(InputError, match=r"torchvision:r3d_18 cannot be built with .*'depth'"):
        create_model("torchvision:r3d_18", depth=50)


@pytest.fixture
def published(monkeypatch: pytest.MonkeyPatch) -> dict[str, torch.Tensor]:
    """What torchvision would fetch for r3d_18: a state of 400 classes, all of it zeros."""
    network = create_model("torchvision:r3d_18", device="meta")
    state = {key: torch.zeros(value.shape, dtype=value.dtype) for key, value in network.state_dict().items()}
    monkeypatch.setattr("torchvision.models._api.WeightsEnum.get_state_dict", lambda *_, **__: state)
    return state


@pytest.mark.usefixtures("published")
def test_torchvision_s_weights_are_reported_as_those_of_a_file_are() -> None:
    model = create_model("torchvision:r3d_18.kinetics400_v1")
    report = model.__dict__["weights_report"]
    assert (report.loaded, report.fresh, report.sha256) == (len(model.state_dict()), (), "b3b3357e")
    require_trained(model)
    other = create_model("torchvision:r3d_18.kinetics400_v1", num_classes=7)
    assert not any(value.any() for key, value in other.state_dict().items() if not key.startswith("fc."))
    with pytest.raises(InputError, match=r"r3d_18.kinetics400_v1 has 400 classes and the model 7: fc.weight"):
        require_trained(other)
    with pytest.raises(InputError, match="only its random initial weights"):
        require_trained(create_model("torchvision:r3d_18"))


def test_torchvision_s_weights_that_do_not_fit_are_refused(published: dict[str, torch.Tensor]) -> None:
    published["layer1.0.conv1.0.weight"] = torch.zeros(1)
    with pytest.raises(WeightsError, match=r"1 key is of another shape \(layer1.0.conv1.0.weight"):
        create_model("torchvision:r3d_18.kinetics400_v1")


def test_timm_s_weights_are_reported_and_so_is_a_head_that_they_leave(monkeypatch: pytest.MonkeyPatch) -> None:
    make = timm.create_model
    monkeypatch.setattr(timm, "create_model", lambda name, *, pretrained, **rest: make(name, pretrained=False, **rest))
    require_trained(create_model("timm:resnet10t.c3_in1k", num_classes=1000))
    with pytest.raises(
        InputError, match=r"c3_in1k has 1000 classes and the model 400: backbone.fc.weight, backbone.fc.bias keep"
    ):
        require_trained(create_model("timm:resnet10t.c3_in1k"))
    assert "weights_report" not in create_model("timm:resnet10t").__dict__


def test_timm_s_model_on_frames_is_the_mean_of_its_logits() -> None:
    model = create_model("timm:resnet10t", num_classes=6).eval()
    clip = torch.randn(2, 3, 4, 64, 64)
    backbone = model.get_submodule("backbone")
    with torch.no_grad():
        by_frame = torch.stack([backbone(clip[:, :, t]) for t in range(4)]).mean(0)
        logits, features = model(clip), model.forward_features(clip)  # type: ignore[operator]
        head = model.get_submodule(str(model.head_name))
        torch.testing.assert_close(logits, by_frame)
        torch.testing.assert_close(head(features), by_frame)
    assert head.weight.shape == (6, 512)


def test_timm_s_model_takes_channels_and_the_layout_of_clips() -> None:
    model = create_model("timm:resnet10t", num_classes=6, in_channels=2).eval().to(memory_format=torch.channels_last_3d)
    assert model(torch.randn(1, 2, 2, 64, 64).to(memory_format=torch.channels_last_3d)).shape == (1, 6)


def test_timm_s_transformers_take_the_size_they_were_made_for() -> None:
    model = create_model("timm:vit_tiny_patch16_224", device="meta")
    with pytest.raises(ClipError, match="224"):
        model(on_meta(1, 3, 2, 112, 112))
    other = create_model("timm:vit_tiny_patch16_224", img_size=112, device="meta")
    assert other(on_meta(1, 3, 2, 112, 112)).shape == (1, 400)


def test_unknown_names_of_timm_get_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="timm:resnet50"):
        create_model("timm:resnet5O")
    with pytest.raises(UnknownNameError, match="a1_in1k"):
        create_model("timm:resnet50.a1_in1")
    with pytest.raises(InputError, match="cannot be built"):
        create_model("timm:resnet10t", no_such_thing=1)


@pytest.fixture
def user_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "user_nets.py").write_text(
        "from torch import nn\n"
        "class Net(nn.Module):\n"
        "    clip = '4x1x8'\n"
        "    def __init__(self, num_classes: int = 3, width: int = 2):\n"
        "        super().__init__()\n"
        "        self.fc = nn.Linear(width, num_classes)\n"
        "def plain(): return nn.Linear(4, 2)\n"
        "def fails(): raise ValueError('no luck')\n"
        "ready = nn.Linear(1, 1)\n"
    )
    (tmp_path / "broken_nets.py").write_text("import no_such_package\n")
    (tmp_path / "raising_nets.py").write_text("raise OSError('disk')\n")
    yield tmp_path  # type: ignore[misc]
    for name in ("user_nets", "broken_nets", "raising_nets"):
        sys.modules.pop(name, None)


@pytest.mark.usefixtures("user_code")
def test_the_user_s_factory_is_called_with_checked_arguments() -> None:
    model = create_model("user_nets:Net", num_classes=5, width=4)
    assert model.get_submodule("fc").weight.shape == (5, 4)
    assert find_model("user_nets:Net").clip == "4x1x8"
    assert isinstance(create_model("user_nets:plain"), nn.Linear)
    with pytest.raises(InputError, match="did you mean: width"):
        create_model("user_nets:Net", widht=4)
    with pytest.raises(InputError, match="width is 'x'"):
        create_model("user_nets:Net", width="x")
    with pytest.raises(InputError, match="user_nets:plain has no argument 'num_classes'"):
        create_model("user_nets:plain", num_classes=5)


@pytest.mark.usefixtures("user_code")
@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("user_nets:plan", "unknown factory 'plan' in user_nets; did you mean: plain"),
        ("user_nets:ready", "user_nets:ready is a Linear; a function that returns an nn.Module is needed"),
        ("user_nets:fails", "user_nets:fails cannot be built with its defaults: no luck"),
        ("broken_nets:net", "'broken_nets' cannot be imported: it needs no_such_package"),
        ("raising_nets:net", "'raising_nets' cannot be imported: OSError: disk"),
        ("no_such_nets:net", r"no module 'no_such_nets'.*allowed: torchvision:NAME, timm:NAME, hf:NAME, package"),
        ("torchvison:r3d_18", "no module 'torchvison'"),
        (":net", "unknown model ':net'"),
        ("user_nets:", "unknown factory ''"),
    ],
)
def test_a_mistake_in_the_user_s_source_is_named(name: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        create_model(name)
