"""Inflation: initialises a 3D model with the weights of a 2D model.

Carreira and Zisserman, 2017, arXiv:1705.07750, section 2.4: kernels are repeated N times along time and divided by N,
so that on a video that repeats one image the 3D model gives the output of the 2D model on that image. This holds for
frames whose receptive field lies within the clip: zero padding in time changes those near its ends.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bench.core.errors import WeightsError


@dataclass(frozen=True, kw_only=True)
class Inflation:
    """What happened to each entry, by its name in the state dict of its model.

    3D entries were `inflated` (a kernel repeated in time), `copied` unchanged, or left `fresh`; 2D entries without a
    counterpart are `unused`.
    """

    inflated: tuple[str, ...]
    copied: tuple[str, ...]
    fresh: tuple[str, ...]
    unused: tuple[str, ...]


def inflate(
    model_2d: nn.Module,
    model_3d: nn.Module,
    *,
    mapping: Mapping[str, str] | None = None,
    skip: Iterable[str] = (),
) -> Inflation:
    """Fill `model_3d`, in place, with the weights of `model_2d`; returns what happened to each entry.

    `mapping` maps names of 2D modules to names of 3D modules: the longest match decides, and all others keep their
    names. `skip` lists 3D modules that are left fresh, such as a head with other classes. Raises WeightsError, with
    nothing changed, if shapes differ in another axis than time, or if no entry has a counterpart.
    """
    source, target = model_2d.state_dict(), model_3d.state_dict()
    names = {name: _renamed(name, mapping or {}) for name in source}
    placed = {new: old for old, new in names.items() if new in target and not _is_under(new, skip)}
    _require_fit(source, target, placed)
    with torch.no_grad():
        for new, old in placed.items():
            target[new].copy_(_fitted(source[old], target[new].shape))
    inflated = {new for new, old in placed.items() if source[old].ndim == 4 and target[new].ndim == 5}
    return Inflation(
        inflated=tuple(name for name in target if name in inflated),
        copied=tuple(name for name in target if name in placed and name not in inflated),
        fresh=tuple(name for name in target if name not in placed),
        unused=tuple(old for old, new in names.items() if new not in placed),
    )


def inflate_single_frames(model: nn.Module) -> tuple[str, ...]:
    """Inflate `model`, in place, after training on clips of one frame.

    On one frame, zero padding in time leaves only the middle slice of each kernel, which acts as the 2D kernel.
    Returns the names of the inflated modules. Raises WeightsError, with nothing changed, for kernels without a middle.
    """
    deep = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Conv3d) and module.kernel_size[0] > 1
    }
    for name, module in deep.items():
        if module.kernel_size[0] != 2 * _padding_t(module) + 1 or module.dilation[0] != 1:
            raise WeightsError(
                f"{name} spans {module.kernel_size[0]} frames and is padded by {module.padding}: so it does not act as "
                "a 2D kernel on one frame; inflation needs odd kernels, padded by half their length in time"
            )
    with torch.no_grad():
        for module in deep.values():
            frames = module.kernel_size[0]
            middle = module.weight[:, :, frames // 2 : frames // 2 + 1]
            module.weight.copy_(middle.expand_as(module.weight) / frames)
    return tuple(deep)


def _padding_t(module: nn.Conv3d) -> int:
    if isinstance(module.padding, str):
        return module.kernel_size[0] // 2 if module.padding == "same" else 0
    return int(module.padding[0])


def _renamed(name: str, mapping: Mapping[str, str]) -> str:
    fitting = [prefix for prefix in mapping if _is_under(name, [prefix])]
    if not fitting:
        return name
    longest = max(fitting, key=len)
    return mapping[longest] + name[len(longest) :]


def _is_under(name: str, modules: Iterable[str]) -> bool:
    return any(name == module or name.startswith(f"{module}.") for module in modules)


def _require_fit(source: Mapping[str, Tensor], target: Mapping[str, Tensor], placed: Mapping[str, str]) -> None:
    if not placed:
        raise WeightsError(
            "nothing to inflate: the 2D and the 3D model have no name in common; map the names in `mapping` "
            f"(2D: {', '.join(list(source)[:3])}, …; 3D: {', '.join(list(target)[:3])}, …)"
        )
    wrong = [
        f"{new} {tuple(target[new].shape)} from {old} {tuple(source[old].shape)}"
        for new, old in placed.items()
        if not _fits(source[old].shape, target[new].shape)
    ]
    if wrong:
        raise WeightsError(
            f"{len(wrong)} shapes of the 2D and the 3D model differ: {'; '.join(wrong[:4])}"
            f"{'; …' if len(wrong) > 4 else ''}; list modules that should stay fresh in `skip`"
        )


def _fits(shape_2d: torch.Size, shape_3d: torch.Size) -> bool:
    if len(shape_2d) == 4 and len(shape_3d) == 5:
        return shape_2d == shape_3d[:2] + shape_3d[3:]
    is_linear_as_conv = len(shape_2d) == 2 and len(shape_3d) == 5 and shape_3d[2:] == (1, 1, 1)
    return shape_2d == (shape_3d[:2] if is_linear_as_conv else shape_3d)


def _fitted(weight_2d: Tensor, shape_3d: torch.Size) -> Tensor:
    if weight_2d.ndim == 4 and len(shape_3d) == 5:
        frames = shape_3d[2]
        return weight_2d.unsqueeze(2).expand(shape_3d) / frames
    return weight_2d.reshape(shape_3d)
