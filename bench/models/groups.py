"""Parameter groups for fine-tuning: what is frozen, the classifier's own learning rate, layer-wise decay."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

from torch import nn

from bench.core.errors import InputError, UnknownNameError
from bench.models.base import WEIGHTED_LAYERS, belongs_to, head_name_of, inputs_of

Named = tuple[str, nn.Parameter]


def parameter_groups(
    model: nn.Module,
    *,
    lr: float,
    weight_decay: float,
    ft_begin_module: str | None = None,
    head_lr_scale: float = 1.0,
    layer_decay: float | None = None,
) -> list[dict[str, Any]]:
    """Return groups for an optimiser of torch, each with `name`, `params`, `lr` and `weight_decay`.

    With `ft_begin_module` only that module and those registered after it are trained, as in 3D-ResNets-PyTorch; the
    others stop requiring gradients, but their batch statistics still move. The classifier's learning rate is
    `head_lr_scale * lr` (C3D: 10). `layer_decay` d gives the n-th layer below the classifier `lr * d**n` (Bao et al.,
    2021, arXiv:2106.08254). Raises UnknownNameError for a module, and InputError for an impossible rate or for
    `layer_decay` with a model of parallel streams.
    """
    _require_rates(lr=lr, weight_decay=weight_decay, head_lr_scale=head_lr_scale, layer_decay=layer_decay)
    if ft_begin_module:
        _freeze_before(model, ft_begin_module)
    if layer_decay is not None and len(inputs_of(model)) > 1:
        raise InputError(f"layer_decay needs a single chain of layers, but {type(model).__name__} has parallel streams")
    head = head_name_of(model)
    body = [named for named in model.named_parameters() if not belongs_to(named[0], head)]
    layers = [("body", body)] if layer_decay is None else _layers(model)
    scales = [1.0] if layer_decay is None else [layer_decay**below for below in range(len(layers), 0, -1)]
    groups = [
        _group(name, own, lr=lr * scale, weight_decay=weight_decay)
        for (name, own), scale in zip(layers, scales, strict=True)
    ]
    of_head = [named for named in model.named_parameters() if belongs_to(named[0], head)]
    groups.append(_group("head", of_head, lr=lr * head_lr_scale, weight_decay=weight_decay))
    groups = [group for group in groups if group["params"]]
    if not groups:
        raise InputError(f"{type(model).__name__} has nothing to train: none of its weights requires a gradient")
    return groups


def _group(name: str, parameters: list[Named], *, lr: float, weight_decay: float) -> dict[str, Any]:
    trained = [parameter for _, parameter in parameters if parameter.requires_grad]
    return {"name": name, "params": trained, "lr": lr, "weight_decay": weight_decay}


def _require_rates(*, lr: float, weight_decay: float, head_lr_scale: float, layer_decay: float | None) -> None:
    for name, value in {"lr": lr, "head_lr_scale": head_lr_scale}.items():
        if not value > 0:
            raise InputError(f"{name} must be above 0, found {value!r}")
    if not weight_decay >= 0:
        raise InputError(f"weight_decay must be at least 0, found {weight_decay!r}")
    if layer_decay is not None and not 0 < layer_decay <= 1:
        raise InputError(f"layer_decay must be above 0 and at most 1, found {layer_decay!r}")


def _freeze_before(model: nn.Module, begin: str) -> None:
    """Freeze all parameters before the module `begin`, whose name may omit a leading `features.`.

    The classifier counts as last, wherever it is registered.
    """
    head = head_name_of(model)
    named = sorted(model.named_parameters(), key=lambda entry: belongs_to(entry[0], head))
    places = (begin, f"features.{begin}")
    first = next((n for n, (name, _) in enumerate(named) if any(belongs_to(name, place) for place in places)), None)
    if first is None:
        known = [name for name, module in model.named_modules() if name and any(True for _ in module.parameters())]
        raise UnknownNameError("module", begin, known, where=f"ft_begin_module of {type(model).__name__}")
    for _, parameter in named[:first]:
        parameter.requires_grad_(False)


def _layers(model: nn.Module) -> list[tuple[str, list[Named]]]:
    """Return the layers in the order of registration, each with its weights, without the classifier.

    A layer is one block of a stack of like blocks, or a convolution with the normalisation after it. Weights that
    belong to no layer (position embeddings) go with the first.
    """
    head = head_name_of(model)
    body = [(name, parameter) for name, parameter in model.named_parameters() if not belongs_to(name, head)]
    layers: dict[str, list[Named]] = {}
    for place in _places(model):
        own = [(name, parameter) for name, parameter in body if belongs_to(name, place)]
        is_norm = all(parameter.ndim < 2 for _, parameter in own)
        layers.setdefault(next(reversed(layers)) if is_norm and layers else place, []).extend(own)
    placed = {name for own in layers.values() for name, _ in own}
    first = next(iter(layers.values()))
    first[:0] = [(name, parameter) for name, parameter in body if name not in placed]
    return list(layers.items())


def _places(module: nn.Module, path: str = "") -> Iterator[str]:
    for name, child in module.named_children():
        place = f"{path}.{name}" if path else name
        if any(_is_stack(inner) for inner in child.modules()):
            yield from _places(child, place)
        else:
            yield place


def _is_stack(module: nn.Module) -> bool:
    """Return whether `module` consists of blocks of one kind, as a residual stage does, or has three of a kind."""
    kinds = Counter(type(child) for child in module.children() if _is_block(child))
    if isinstance(module, nn.Sequential | nn.ModuleList):
        return len(kinds) == 1 and kinds.total() == len(module)
    return any(count >= 3 for count in kinds.values())


def _is_block(module: nn.Module) -> bool:
    """Return whether `module` has a class of its own and holds two or more convolutions or linear layers."""
    return type(module) is not nn.Sequential and sum(isinstance(m, WEIGHTED_LAYERS) for m in module.modules()) > 1
