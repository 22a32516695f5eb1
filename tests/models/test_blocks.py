"""Shortcuts of the 3D residual models, and the checks of their arguments."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from bench.core.errors import InputError
from bench.models.base import inputs_of
from bench.models.blocks import HaraModel, ZeroPadShortcut, chosen, require_positive, shortcut_between
from bench.models.factory import create_model


def test_shortcut_a_takes_every_second_position_and_appends_zero_channels() -> None:
    x = torch.randn(2, 3, 5, 6, 7)

    out = ZeroPadShortcut(3, 8, stride=2)(x)

    assert torch.equal(out[:, :3], F.avg_pool3d(x, kernel_size=1, stride=2))
    assert out.shape == (2, 8, 3, 3, 4)
    assert not out[:, 3:].any()


def test_shortcut_a_passes_gradients_to_the_positions_it_takes() -> None:
    x = torch.randn(1, 2, 3, 3, 3, requires_grad=True)

    ZeroPadShortcut(2, 4, stride=2)(x).sum().backward()

    assert x.grad is not None
    assert torch.equal(x.grad.sum(dim=(0, 1)).nonzero(), torch.cartesian_prod(*[torch.tensor([0, 2])] * 3))
    assert x.grad.sum() == 2 * 8


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_shortcut_a_keeps_dtype_and_device(dtype: torch.dtype) -> None:
    assert ZeroPadShortcut(2, 4, stride=1)(torch.ones(1, 2, 1, 1, 1, dtype=dtype)).dtype == dtype
    assert ZeroPadShortcut(2, 4, stride=1)(torch.ones(1, 2, 1, 1, 1, device="meta")).is_meta


def test_a_shortcut_between_like_shapes_is_the_input_itself() -> None:
    assert isinstance(shortcut_between(8, 8, stride=1, kind="A"), nn.Identity)
    assert isinstance(shortcut_between(8, 8, stride=1, kind="B"), nn.Identity)


@pytest.mark.parametrize(("channels", "stride"), [(8, 2), (4, 1)])
def test_other_shapes_need_a_projection_or_zeros(channels: int, stride: int) -> None:
    assert "0.weight" in shortcut_between(channels, 8, stride=stride, kind="B").state_dict()
    assert not shortcut_between(channels, 8, stride=stride, kind="A").state_dict()


@pytest.mark.parametrize(
    ("channels", "modality", "mean"),
    [(3, "rgb", (0.4345, 0.4051, 0.3775)), (2, "flow", (0.4345, 0.4051)), (4, "rgb", (0.4345, 0.4051, 0.3775, 0.4345))],
)
def test_channels_decide_modality_and_normalisation(channels: int, modality: str, mean: tuple[float, ...]) -> None:
    model = HaraModel(in_channels=channels)

    assert (model.inputs[0].channels, model.inputs[0].modality) == (channels, modality)
    assert model.mean == mean
    assert len(model.std) == channels


def test_an_unknown_choice_names_what_is_allowed() -> None:
    with pytest.raises(InputError, match=r"unknown depth of resnet3d 51; allowed: 18, 50"):
        chosen({18: "a", 50: "b"}, 51, name="depth of resnet3d")


@pytest.mark.parametrize("value", [0, -1, float("nan")])
def test_sizes_must_be_above_zero(value: float) -> None:
    with pytest.raises(InputError, match=r"stride must be above 0, found"):
        require_positive(width=1, stride=value)


@pytest.mark.parametrize("name", ["c3d", "c3d_search", "resnet3d", "timm:resnet10t"])
@pytest.mark.parametrize(("channels", "modality"), [(2, "flow"), (3, "rgb")])
def test_two_channels_are_flow_whatever_the_model(name: str, channels: int, modality: str) -> None:
    (spec,) = inputs_of(create_model(name, in_channels=channels, device="meta"))
    assert (spec.channels, spec.modality) == (channels, modality)
