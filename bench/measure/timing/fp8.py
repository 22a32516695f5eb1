"""Linear layers in float8: the one part of a network for which torch has fp8 products. It has no fp8 convolutions."""

import torch
from torch import Tensor, nn
from torch.nn.functional import ScalingType, scaled_mm

from bench.errors import InputError

FP8 = torch.float8_e4m3fn
LARGEST = torch.finfo(FP8).max
CAPABILITY = (8, 9)  # Ada and Hopper are the first with fp8 matrix units
MULTIPLE = 16  # of both sides of a weight, as cuBLAS wants it


class Fp8Linear(nn.Module):
    """A linear layer whose product is taken in e4m3, each row by a scale of its own; weights once, inputs at each pass.

    `weight` and `bias` stay for code that reads them off the layer, as torchvision's Swin does.
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
        product = scaled_mm(
            rows,
            self.weight_fp8.t(),
            scale,
            ScalingType.RowWise,
            self.weight_scale.t(),
            ScalingType.RowWise,
            bias=self.bias,
            output_dtype=torch.bfloat16,
        )
        return product.reshape(*x.shape[:-1], -1)


def use_fp8(model: nn.Module) -> list[str]:
    """Put float8 products into the linear layers of a bfloat16 network; returns their names.

    Layers whose sides are no multiples of 16 stay as they are. InputError where none is left.
    """
    names = [name for name, module in model.named_modules() if type(module) is nn.Linear and _fits(module)]
    if not names:
        raise InputError("precision fp8 is for linear layers with sides in multiples of 16; this network has none")
    for name in names:
        linear = model.get_submodule(name)
        assert isinstance(linear, nn.Linear)
        if not name:
            raise InputError("precision fp8 replaces layers within a network; this one is a bare linear layer")
        model.set_submodule(name, Fp8Linear(linear))
    return names


def require_fp8(device: torch.device) -> None:
    """InputError unless this GPU has fp8 matrix units."""
    found = torch.cuda.get_device_capability(device)
    if found < CAPABILITY:
        raise InputError(
            f"precision fp8 needs a GPU of compute capability 8.9 or more; "
            f"{torch.cuda.get_device_name(device)} has {found[0]}.{found[1]}"
        )


def _fits(linear: nn.Linear) -> bool:
    return linear.in_features % MULTIPLE == 0 and linear.out_features % MULTIPLE == 0


def _in_rows(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """A matrix in e4m3, and the scale `(rows, 1)` in float32 that each of its rows was divided by."""
    scale = matrix.abs().amax(dim=1, keepdim=True).float().clamp(min=1e-12) / LARGEST
    return (matrix.float() / scale).clamp(-LARGEST, LARGEST).to(FP8), scale
