"""Whether a network can look at whole frames, whatever their width, in the place of crops."""

import copy

import torch
from torch import nn

from bench.core.errors import BenchError, InputError
from bench.core.schema import Clip
from bench.models.base import inputs_of

# What a network raises that is given another size than it was made for.
FAILURES = (BenchError, RuntimeError, ValueError, TypeError, IndexError, AssertionError, NotImplementedError)


def require_whole_frames(model: nn.Module, clip: Clip) -> None:
    """InputError where `model` takes the clip's size and no other. Tried on the meta device, where nothing is computed.

    A network that cannot be tried there at all is let through; it fails on the first frames or it does not.
    """
    wider = clip.model_copy(update={"width": 2 * clip.width})  # a little wider, strides may round away
    outline = _outline(model)
    if _takes(outline, clip) and not _takes(outline, wider):
        raise InputError(
            f"{type(model).__name__} takes frames of {clip.height}x{clip.width} only and cannot look at whole ones "
            "(views such as 10xfull); give spatial views as a number, such as 10x3"
        )


def _outline(model: nn.Module) -> nn.Module:
    """A copy of `model` in evaluation mode that holds no weights."""
    memo: dict[int, torch.Tensor] = {
        id(parameter): nn.Parameter(torch.empty_like(parameter, device="meta"), requires_grad=False)
        for parameter in model.parameters()
    }
    memo |= {id(buffer): torch.empty_like(buffer, device="meta") for buffer in model.buffers()}
    return copy.deepcopy(model, memo).eval()


def _takes(outline: nn.Module, clip: Clip) -> bool:
    clips = [torch.empty(spec.shape(clip, batch=1), device="meta") for spec in inputs_of(outline)]
    try:
        with torch.no_grad():
            outline(*clips)
    except FAILURES:
        return False
    return True
