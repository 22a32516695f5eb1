"""Models that take `(B, T, C, H, W)`: recognised when they fail, and given their layout by a hook."""

import copy
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from bench.catalog.catalog import Catalog
from bench.core.errors import InputError
from bench.core.schema import Clip, Point
from bench.measure.counting.model_count import count
from bench.models.factory import create_model
from bench.models.feature_readers import FeatureReader

SOURCE = """
from torch import nn


class FramesFirst(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.fc = nn.Linear(4, num_classes)

    def forward_features(self, clips):  # frames first
        batch, frames = clips.shape[:2]
        return self.conv(clips.flatten(0, 1)).mean((2, 3)).reshape(batch, frames, -1).mean(1)

    def forward(self, clips):
        return self.fc(self.forward_features(clips))


def net(num_classes: int = 5):
    return FramesFirst(num_classes)


def stated(num_classes: int = 5):
    return FramesFirst(num_classes)


stated.layout = "BTCHW"


def own(num_classes: int = 5, *, layout: str = "mine"):
    model = FramesFirst(num_classes)
    model.seen = layout
    return model


def other_meaning(num_classes: int = 5):
    model = FramesFirst(num_classes)
    model.layout = "two columns"
    return model
"""


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    path = tmp_path / "frames_first_nets.py"
    path.write_text(SOURCE)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return str(path)


def clips() -> Tensor:
    return torch.randn(2, 3, 6, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("give", ["argument", "lower case", "attribute"])
def test_the_layout_is_that_of_the_argument_or_of_the_factory(file: str, give: str) -> None:
    torch.manual_seed(0)
    plain = create_model(f"{file}:net")
    torch.manual_seed(0)
    layouts = {"argument": "BTCHW", "lower case": "btchw"}
    model = create_model(f"{file}:stated") if give == "attribute" else create_model(f"{file}:net", layout=layouts[give])
    expected = plain(clips().transpose(1, 2))
    assert torch.equal(model(clips()), expected)
    assert torch.equal(copy.deepcopy(model)(clips()), expected)
    assert torch.equal(model.fc(FeatureReader(model)(clips())), expected)
    assert list(model.state_dict()) == list(plain.state_dict())


def test_a_wrong_layout_is_recognised_with_the_remedy(file: str) -> None:
    model = create_model(f"{file}:net")
    with pytest.raises(InputError, match=r"but got 6 channels .*it runs on \(B, T, C, H, W\): .*BTCHW"):
        count(model, clips())
    swapped = create_model(f"{file}:net", layout="BTCHW")
    assert count(swapped, clips()).macs == count(model, clips().transpose(1, 2)).macs > 0
    assert count(swapped, clips(), backward=True).macs > 0


def test_another_error_gets_no_such_remedy(file: str) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(7, 2))
    with pytest.raises(InputError, match="cannot run on inputs") as caught:
        count(model, clips())
    assert "BTCHW" not in str(caught.value)


def test_an_argument_or_attribute_of_this_name_with_another_meaning_stays(file: str) -> None:
    assert create_model(f"{file}:own", layout="anything").seen == "anything"
    assert create_model(f"{file}:other_meaning")(clips().transpose(1, 2)).shape == (2, 5)


def test_wrong_layouts_are_refused(file: str) -> None:
    with pytest.raises(InputError, match=r"unknown layout 'BTCWH' of .*; did you mean: BTCHW"):
        create_model(f"{file}:net", layout="BTCWH")
    with pytest.raises(InputError, match="x3d_xs has no argument 'layout'"):
        create_model("x3d_xs", layout="BTCHW", device="meta")


def test_a_suite_may_give_the_layout_and_counts_honour_it(file: str) -> None:
    catalog = Catalog()
    assert catalog.model(f"{file}:net").arguments == {"num_classes": 5, "layout": "BCTHW"}
    assert catalog.model(f"{file}:stated").arguments["layout"] == "BTCHW"
    clip = Clip.model_validate("6x1x8")
    points = [Point(model=f"{file}:net", clip=clip, args=args) for args in ({}, {"layout": "BTCHW"})]
    wrong, right = catalog.check_models(points)
    assert "layout: BTCHW" in (wrong.problem or "")
    assert (right.params, right.problem) == (137, None)
