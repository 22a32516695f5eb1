"""Arguments that change what a model computes but none of its weights are named as assumed, for every family."""

from collections.abc import Iterator, Sequence
from typing import Any, Literal, get_args, get_origin, get_type_hints

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

from bench.core.errors import BenchError
from bench.core.registry import MODELS, ModelEntry
from bench.core.schema import Clip
from bench.models.base import VideoModel
from bench.models.factory import create_model
from bench.models.weights.identification import SET_BY_VARIANTS, _fit, is_batch_count

QUICK = ("resnet3d", "x3d")
LIGHT: dict[str, tuple[Any, ...]] = {
    "depth": (2, 10, 18, 50),
    "stages": ([1, 1, 1, 1],),
    "blocks": ([1, 1, 1, 1],),
    "widens_at": ([1],),
}

SINES = ("videomae", "videomaev2")
"""Families that compute their positions ahead for clips of `frames` and `size`, and later for others, with one rule."""


def one_of_each_kind() -> list[Any]:
    """Every family at a shallow variant, and at one with non-local blocks, whose affinity is an argument."""
    kinds: dict[tuple[str, bool], str] = {}
    for entry in sorted(MODELS, key=lambda entry: entry.preset.get("depth", 0)):
        if entry.name != entry.family or not any(e.family == entry.name != e.name for e in MODELS):
            kinds.setdefault((entry.family, bool(entry.preset.get("non_local"))), entry.name)
    return [
        pytest.param(name, marks=() if family in QUICK else pytest.mark.slow) for (family, _), name in kinds.items()
    ]


class Trace(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch leaves it untyped
    """Every operator with the shapes of its tensors and its other arguments."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.calls: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = tree_map(lambda each: tuple(each.shape) if isinstance(each, Tensor) else each, (args, kwargs or {}))
        self.calls.append(f"{func}{given}")
        return func(*args, **(kwargs or {}))


def built(entry: ModelEntry, arguments: dict[str, Any]) -> VideoModel | None:
    try:
        model = create_model(entry.name, device="meta", **arguments).eval()
    except (BenchError, ValueError, TypeError):
        return None
    assert isinstance(model, VideoModel)
    return model


def light_arguments(entry: ModelEntry) -> dict[str, Any]:
    """Arguments that make a model of few layers, as far as the family has them."""
    chosen: dict[str, Any] = {}
    for name in LIGHT.keys() & entry.arguments.keys():
        values = [value for value in LIGHT[name] if built(entry, {**chosen, name: value}) is not None]
        if values:
            chosen[name] = values[0]
    return chosen


def shapes_of(model: nn.Module) -> dict[str, tuple[int, ...]]:
    return {key: tuple(value.shape) for key, value in model.state_dict().items() if not is_batch_count(key)}


def operators(model: VideoModel, clip: Clip) -> list[str]:
    """What the model computes of clips of the default size and of larger ones, which a window does not cover."""
    large = Clip(frames=2 * clip.frames, height=clip.height + 64, width=clip.width + 64)
    calls: list[str] = []
    for each in (clip, large):
        try:
            with Trace() as trace, torch.no_grad():
                model(*(torch.empty(spec.shape(each, batch=1), device="meta") for spec in model.inputs))
        except BenchError:
            continue
        calls += trace.calls
    return calls


def other_values(value: Any, annotation: Any) -> Iterator[Any]:
    if isinstance(value, bool):
        yield not value
    elif isinstance(value, int):
        yield from (each for each in (2 * value, value // 2) if each > 0)  # one more may round to the same sizes
    elif isinstance(value, float):
        yield 2 * value
    elif isinstance(value, Sequence) and value and not isinstance(value, str) and isinstance(value[0], int):
        yield type(value)(2 * each for each in value)  # type: ignore[call-arg]
    yield from (each for each in _literals(annotation) if each != value and not isinstance(value, bool))


def _literals(annotation: Any) -> Iterator[Any]:
    if get_origin(annotation) is Literal:
        yield from get_args(annotation)
    else:
        for part in get_args(annotation):
            yield from _literals(part)


def hidden_arguments(entry: ModelEntry, model: VideoModel, light: dict[str, Any]) -> set[str]:
    """The arguments of which another value gives other operators on the same weights."""
    clip, hints = Clip.model_validate(entry.clip), get_type_hints(entry.function)
    shapes, computed = shapes_of(model), operators(model, clip)
    hidden = set()
    for name, value in entry.arguments.items():
        if entry.family in SINES and name in ("frames", "size"):
            continue
        for other in other_values(value, hints.get(name)):
            changed = built(entry, {**light, name: other})
            if changed is not None and shapes_of(changed) == shapes and operators(changed, clip) != computed:
                hidden.add(name)
                break
    return hidden


@pytest.mark.parametrize("name", one_of_each_kind())
def test_what_weights_leave_open_is_assumed(name: str) -> None:
    entry = MODELS.get(name)
    light = light_arguments(entry)
    model = built(entry, light)
    assert model is not None
    fit = _fit(entry, shapes_of(model), {}, **light)
    assert fit is not None
    assert set(fit.assumed) == hidden_arguments(entry, model, light) - set(SET_BY_VARIANTS)
