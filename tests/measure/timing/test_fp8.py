"""Float8 linear layers compared with the layers that they replace; torch computes them on a CPU too, slowly."""

import pytest
import torch
from torch import nn
from torchvision.models.video.swin_transformer import ShiftedWindowAttention3d, SwinTransformerBlock

from bench.core.errors import InputError
from bench.measure.timing import ceilings
from bench.measure.timing.fp8 import FP8, Fp8Linear, Replaced, product_of, use_fp8


def test_a_float8_layer_is_close_to_its_linear_layer_and_not_equal() -> None:
    torch.manual_seed(0)
    linear = nn.Linear(64, 32).bfloat16().requires_grad_(False)
    x = torch.randn(2, 5, 64).bfloat16()
    wanted, found = linear(x).float(), Fp8Linear(linear)(x)
    assert found.shape == (2, 5, 32)
    assert found.dtype is torch.bfloat16
    difference = float((found.float() - wanted).abs().max() / wanted.abs().max())
    assert 2**-8 < difference < 0.1, "e4m3 keeps three bits of a fraction"


def test_every_row_has_its_own_scale() -> None:
    """With one scale for all rows, the small row would become zero."""
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


@pytest.mark.parametrize("batch", [1, 2])
def test_products_are_laid_out_as_cublas_wants_them(batch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The left factor by rows, the right one by columns, scales (M, 1) and (1, N): for transposed inputs as well."""
    given: list[tuple[torch.Tensor, ...]] = []

    def product(left, right, left_scale, left_by, right_scale, right_by, *, bias, output_dtype):  # type: ignore[no-untyped-def]
        given.append((left, right, left_scale, right_scale, bias))
        return torch.zeros(len(left), right.shape[1], dtype=output_dtype)

    monkeypatch.setattr("bench.measure.timing.fp8.scaled_mm", product)
    patches = torch.randn(batch, 64, 40).bfloat16().transpose(1, 2)  # as of a convolution that cuts patches
    assert Fp8Linear(nn.Linear(64, 32).bfloat16())(patches).shape == (batch, 40, 32)
    ((left, right, left_scale, right_scale, bias),) = given
    assert (left.stride(), right.stride()) == ((64, 1), (1, 64))
    assert (left_scale.shape, right_scale.shape) == ((batch * 40, 1), (1, 32))
    assert all(scale.is_contiguous() and scale.dtype is torch.float32 for scale in (left_scale, right_scale))
    assert bias.dtype is torch.bfloat16


def test_layers_that_cublas_does_not_accept_are_not_replaced() -> None:
    model = nn.Sequential(nn.Linear(32, 48), nn.Linear(48, 5), nn.Linear(5, 1)).bfloat16()
    assert use_fp8(model, [torch.zeros(1, 32).bfloat16()]) == Replaced(in_fp8=("0",), bypassed=())
    assert [type(layer) for layer in model] == [Fp8Linear, nn.Linear, nn.Linear]
    assert model[0].weight_fp8.dtype is FP8


class Reading(nn.Module):
    """Multiplies by the weights of a layer whose forward never runs, as torchvision's Swin does."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.head = nn.Linear(16, 32), nn.Linear(32, 16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(nn.functional.linear(x, self.qkv.weight, self.qkv.bias))  # type: ignore[no-any-return]


def test_a_layer_that_never_runs_is_not_replaced_and_is_named() -> None:
    model = Reading().bfloat16()
    assert use_fp8(model, [torch.zeros(1, 16).bfloat16()]) == Replaced(in_fp8=("head",), bypassed=("qkv",))
    assert [type(layer) for layer in (model.qkv, model.head)] == [nn.Linear, Fp8Linear]
    assert not model.qkv._forward_hooks, "the hooks that found the calls are removed"


def test_torchvisions_swin_bypasses_its_attention() -> None:
    """Two of four linear layers a block; its other two are float8."""
    block = SwinTransformerBlock(
        16, 2, window_size=[2, 2, 2], shift_size=[0, 0, 0], attn_layer=ShiftedWindowAttention3d
    ).bfloat16()
    found = use_fp8(block, [torch.zeros(1, 2, 2, 2, 16).bfloat16()])
    assert found == Replaced(in_fp8=("mlp.0", "mlp.3"), bypassed=("attn.qkv", "attn.proj"))


def test_a_model_without_such_layers_is_refused() -> None:
    with pytest.raises(InputError, match="this model runs none"):
        use_fp8(nn.Sequential(nn.Linear(8, 5)), [torch.zeros(1, 8)])


def test_the_ceiling_is_a_float8_product() -> None:
    torch.manual_seed(0)
    product = product_of(32, torch.device("cpu"))()
    assert (product.shape, product.dtype) == ((32, 32), torch.bfloat16)
    assert float(product.float().std()) == pytest.approx(32**0.5, rel=0.2), "of two normal matrices"


def test_ceilings_of_float8_are_not_those_of_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[str] = []
    monkeypatch.setattr(ceilings, "COPY_BYTES", {"cpu": 1024})
    monkeypatch.setattr(ceilings, "MATMUL_SIZES", {"cpu": 16})
    monkeypatch.setattr(ceilings, "product_of", lambda size, device: lambda: taken.append("fp8"))
    monkeypatch.setattr(ceilings, "_median_s", lambda work, device: (work(), 1.0)[1])
    found = ceilings._measure(torch.device("cpu"), "fp8")
    assert (taken, found.flops_per_s) == (["fp8"], 2 * 16**3)
