"""The surroundings in which a copy of a model runs: gradients, kernels, random numbers, warnings."""

import random
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from bench.core.errors import BenchError, InputError
from bench.measure.counting.operators import tensors_in
from bench.measure.counting.watching import Watch

T = TypeVar("T")


def on_meta_or_cpu(run: Callable[[str, str | None], T], model: nn.Module, arguments: tuple[Any, ...]) -> T:
    """What `run(device, reason)` gives on the meta device, or on the CPU where that fails, and for what reason.

    InputError where the model cannot run on these arguments at all.
    """
    try:
        return run("meta", None)
    except BenchError:
        raise
    except Exception as error:
        reason = f"{type(error).__name__}: {_first_line(error)}"
    try:
        return run("cpu", reason)
    except BenchError:
        raise
    except Exception as error:
        raise InputError(
            f"{type(model).__name__} cannot run on {_described(arguments)}: {_first_line(error)}"
        ) from error


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), "no message")


def _described(arguments: tuple[Any, ...]) -> str:
    shapes = ["x".join(map(str, t.shape)) if isinstance(t, Tensor) else type(t).__name__ for t in arguments]
    return "inputs of " + ", ".join(shapes)


def sum_of(outputs: Any) -> Tensor:
    """A loss whose gradient for every element of the outputs is 1; InputError where none depends on a parameter."""
    results = [t for t in tensors_in(outputs) if t.requires_grad]
    if not results:
        raise InputError("nothing to train: no output depends on a parameter or input that requires a gradient")
    with Watch(results[0].device.type):
        return torch.stack([result.sum() for result in results]).sum() if len(results) > 1 else results[0].sum()


def gradients_as(device: str, *, wanted: bool) -> AbstractContextManager[None]:
    """Below inference mode an operator is seen before PyTorch splits it, so that attention stays one operator."""
    return torch.set_grad_enabled(wanted) if wanted or device != "meta" else torch.inference_mode()


@contextmanager
def quietly() -> Iterator[None]:
    """Random numbers go on afterwards as if nothing had run; what the model warns of is said when the user runs it."""
    state = random.getstate()
    try:
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        random.setstate(state)


@contextmanager
def plain_kernels() -> Iterator[None]:
    """Multi-head attention runs as its parts, as it does wherever gradients are wanted."""
    enabled = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(enabled)
