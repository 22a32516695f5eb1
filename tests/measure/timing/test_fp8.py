"""Float8 linear layers against the products they stand for; torch computes them on a CPU too, slowly."""

import pytest
import torch
from torch import nn

from bench.errors import InputError
from bench.measure.timing.fp8 import FP8, Fp8Linear, use_fp8


def test_a_float8_layer_is_near_its_linear_layer_and_not_it() -> None:
    torch.manual_seed(0)
    linear = nn.Linear(64, 32).bfloat16().requires_grad_(False)
    x = torch.randn(2, 5, 64).bfloat16()
    wanted, found = linear(x).float(), Fp8Linear(linear)(x)
    assert found.shape == (2, 5, 32)
    assert found.dtype is torch.bfloat16
    difference = float((found.float() - wanted).abs().max() / wanted.abs().max())
    assert 2**-8 < difference < 0.1, "e4m3 keeps three bits of a fraction"


def test_every_row_has_a_scale_of_its_own() -> None:
    """One clip of large values does not drown another: with one scale for all, the small row would be zeros."""
    linear = nn.Linear(16, 16, bias=False).bfloat16()
    rows = torch.stack([torch.full((16,), 1e4), torch.full((16,), 1e-4)]).bfloat16()
    found = Fp8Linear(linear)(rows).float()
    assert found[1].tolist() == pytest.approx((found[0] * 1e-8).tolist(), rel=0.05)


def test_numbers_that_e4m3_holds_are_multiplied_exactly() -> None:
    linear = nn.Linear(16, 16, bias=False).bfloat16()
    with torch.no_grad():
        linear.weight.copy_(448 * torch.eye(16))
    x = torch.zeros(1, 16).bfloat16()
    x[0, 3], x[0, 5] = 448, -224
    assert torch.equal(Fp8Linear(linear)(x), 448 * x)


def test_layers_that_cublas_would_not_take_stay_as_they_are() -> None:
    model = nn.Sequential(nn.Linear(32, 48), nn.Linear(48, 5), nn.Conv3d(1, 1, 1)).bfloat16()
    assert use_fp8(model) == ["0"]
    assert [type(layer) for layer in model] == [Fp8Linear, nn.Linear, nn.Conv3d]
    assert model[0].weight_fp8.dtype is FP8


def test_a_network_without_such_layers_is_refused() -> None:
    with pytest.raises(InputError, match="this network has none"):
        use_fp8(nn.Sequential(nn.Linear(8, 5)))
