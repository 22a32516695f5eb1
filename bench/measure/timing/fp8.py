"""Linear layers in float8: the one part of a network for which torch has fp8 products. It has no fp8 convolutions."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import ScalingType, scaled_mm

from bench.core.errors import InputError

FP8 = torch.float8_e4m3fn
LARGEST = torch.finfo(FP8).max
CAPABILITY = (8, 9)  # Ada and Hopper are the first with fp8 matrix units
MULTIPLE = 16  # of both sides of a weight, as cuBLAS wants it


class Fp8Linear(nn.Module):
    """A linear layer whose product is taken in e4m3, each row by a scale of its own; weights once, inputs at each pass.

    `weight` and `bias` stay for code that reads their shape or dtype off the layer.
    """

    weight_fp8: Tensor
    weight_scale: Tensor

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.weight, self.bias = linear.weight, linear.bias
        weight, scale = _in_rows(linear.weight.detach())
        self.register_buffer("weight_fp8", weight)
        self.register_buffer("weight_scale", scale)

    def forward(self, x: Tensor) -> Tensor:
        """`(…, in)` to `(…, out)` in bfloat16."""
        rows, scale = _in_rows(x.reshape(-1, x.shape[-1]))
        product = _product(rows, scale, self.weight_fp8, self.weight_scale, bias=self.bias)
        return product.reshape(*x.shape[:-1], -1)


@dataclass(frozen=True, kw_only=True)
class Replaced:
    """Names of the linear layers that are in float8, and of those that a network has and never calls."""

    in_fp8: tuple[str, ...]
    bypassed: tuple[str, ...]


def use_fp8(model: nn.Module, inputs: Sequence[Tensor]) -> Replaced:
    """Put float8 products into the linear layers that a bfloat16 network calls in a pass over `inputs`.

    Some networks read the weights off a layer and multiply by themselves, as torchvision's Swin does in its attention:
    such a layer is bypassed and stays as it is, and so do those whose sides are no multiples of 16. InputError where
    none is left.
    """
    linear = {name: module for name, module in model.named_modules() if type(module) is nn.Linear and _fits(module)}
    called = _called(model, linear, inputs)
    if not called:
        raise InputError("precision fp8 is for linear layers with sides in multiples of 16; this network runs none")
    for name in called:
        if not name:
            raise InputError("precision fp8 replaces layers within a network; this one is a bare linear layer")
        model.set_submodule(name, Fp8Linear(linear[name]))
    return Replaced(in_fp8=called, bypassed=tuple(name for name in linear if name not in called))


def product_of(size: int, device: torch.device) -> Callable[[], Tensor]:
    """A product of two square matrices that are in float8 already, scaled by rows as in the layers."""
    left, right = (_in_rows(torch.randn(size, size, device=device)) for _ in range(2))
    return lambda: _product(*left, *right, bias=None)


def require_fp8(device: torch.device) -> None:
    """InputError unless this GPU has fp8 matrix units."""
    found = torch.cuda.get_device_capability(device)
    if found < CAPABILITY:
        raise InputError(
            f"precision fp8 needs a GPU of compute capability 8.9 or more; "
            f"{torch.cuda.get_device_name(device)} has {found[0]}.{found[1]}"
        )


def _called(model: nn.Module, layers: Mapping[str, nn.Linear], inputs: Sequence[Tensor]) -> tuple[str, ...]:
    """The names of those `layers` whose forward runs in a pass."""
    names = {layer: name for name, layer in layers.items()}
    called: dict[str, None] = {}
    hooks = [layer.register_forward_hook(lambda layer, *_: called.setdefault(names[layer])) for layer in names]
    try:
        with torch.no_grad():
            model(*inputs)
    finally:
        for hook in hooks:
            hook.remove()
    return tuple(called)


def _product(rows: Tensor, scale: Tensor, weight: Tensor, weight_scale: Tensor, *, bias: Tensor | None) -> Tensor:
    """`(M, in)` by `(out, in)` to `(M, out)` in bfloat16."""
    by_row = ScalingType.RowWise
    return scaled_mm(rows, weight.t(), scale, by_row, weight_scale.t(), by_row, bias=bias, output_dtype=torch.bfloat16)


def _fits(linear: nn.Linear) -> bool:
    return linear.in_features % MULTIPLE == 0 and linear.out_features % MULTIPLE == 0


def _in_rows(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """A matrix in e4m3, and the scale `(rows, 1)` in float32 that each of its rows was divided by."""
    scale = matrix.abs().amax(dim=1, keepdim=True).float().clamp(min=1e-12) / LARGEST
    return (matrix.float() / scale).clamp(-LARGEST, LARGEST).to(FP8), scale
