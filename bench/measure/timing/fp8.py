"""Linear layers in float8: the only layers for which torch has fp8 products. It has no fp8 convolutions."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import ScalingType, scaled_mm

from bench.core.errors import InputError

FP8 = torch.float8_e4m3fn
LARGEST = torch.finfo(FP8).max
CAPABILITY = (8, 9)  # Ada and Hopper are the first GPUs with fp8 matrix units
MULTIPLE = 16  # of both sides of a weight; required by cuBLAS


class Fp8Linear(nn.Module):
    """A linear layer that multiplies in e4m3 with one scale per row; weights are scaled once, inputs at each pass.

    `weight` and `bias` stay for code that reads their shape or dtype.
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
        # cuBLAS wants rows to be contiguous; those of a transposed input of one clip are not, even after a reshape.
        rows, scale = _in_rows(x.reshape(-1, x.shape[-1]).contiguous())
        product = _product(rows, scale, self.weight_fp8, self.weight_scale, bias=self.bias)
        return product.reshape(*x.shape[:-1], -1)


@dataclass(frozen=True, kw_only=True)
class Replaced:
    """Names of the linear layers that are in float8, and of those that the model has but never calls."""

    in_fp8: tuple[str, ...]
    bypassed: tuple[str, ...]


def use_fp8(model: nn.Module, inputs: Sequence[Tensor]) -> Replaced:
    """Replace the linear layers that a bfloat16 model calls in a pass over `inputs` by float8 ones.

    Some models read the weights of a layer and multiply by themselves, as torchvision's Swin does in its attention:
    such a layer is bypassed and stays bfloat16, and so does one whose sides are not multiples of 16. Raises InputError
    if no layer is left.
    """
    linear = {name: module for name, module in model.named_modules() if type(module) is nn.Linear and _fits(module)}
    called = _called(model, linear, inputs)
    if not called:
        raise InputError("precision fp8 is for linear layers with sides in multiples of 16; this model runs none")
    for name in called:
        if not name:
            raise InputError("precision fp8 replaces layers within a model; this one is a bare linear layer")
        model.set_submodule(name, Fp8Linear(linear[name]))
    return Replaced(in_fp8=called, bypassed=tuple(name for name in linear if name not in called))


def product_of(size: int, device: torch.device) -> Callable[[], Tensor]:
    """A product of two square matrices in float8, scaled by row as in the layers."""
    left, right = (_in_rows(torch.randn(size, size, device=device)) for _ in range(2))
    return lambda: _product(*left, *right, bias=None)


def require_fp8(device: torch.device) -> None:
    """Raise InputError if this GPU has no fp8 matrix units."""
    found = torch.cuda.get_device_capability(device)
    if found < CAPABILITY:
        raise InputError(
            f"precision fp8 needs a GPU of compute capability 8.9 or more; "
            f"{torch.cuda.get_device_name(device)} has {found[0]}.{found[1]}"
        )


def _called(model: nn.Module, layers: Mapping[str, nn.Linear], inputs: Sequence[Tensor]) -> tuple[str, ...]:
    """The names of the `layers` whose forward runs in a pass."""
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
    """A matrix in e4m3, and the float32 scale `(rows, 1)` by which its rows were divided."""
    scale = matrix.abs().amax(dim=1, keepdim=True).float().clamp(min=1e-12) / LARGEST
    return (matrix.float() / scale).clamp(-LARGEST, LARGEST).to(FP8), scale
