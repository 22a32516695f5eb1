"""How a copy of a model is run for counting: device, gradients, kernels, random numbers, warnings."""

import random
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from bench.core.errors import BenchError, InputError
from bench.measure.counting.dispatch import OperatorObserver, tensors_in

T = TypeVar("T")
FLEX_SWITCH = "_FLEX_ATTENTION_DISABLE_COMPILE_DEBUG"  # the switch that its own warning names


def on_meta_or_cpu(run: Callable[[str, str | None], T], model: nn.Module, arguments: tuple[Any, ...]) -> T:
    """Return `run("meta", None)`, or `run("cpu", reason)` if the meta device fails.

    Raises InputError if the model cannot run on these arguments at all.
    """
    try:
        return run("meta", None)
    except BenchError:
        raise
    except Exception as error:  # whatever a model raises on meta, it may still run on the CPU
        reason = f"{type(error).__name__}: {_first_line(error)}"
    try:
        return run("cpu", reason)
    except BenchError:
        raise
    except Exception as error:  # whatever the model raises becomes one clear line
        raise InputError(
            f"{type(model).__name__} cannot run on {_described(arguments)}: {_first_line(error)}"
        ) from error


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), "no message")


def _described(arguments: tuple[Any, ...]) -> str:
    shapes = ["x".join(map(str, t.shape)) if isinstance(t, Tensor) else type(t).__name__ for t in arguments]
    return "inputs of " + ", ".join(shapes)


def sum_of(outputs: Any) -> Tensor:
    """Return a loss whose gradient is 1 for every output element; raises InputError if no output can be trained."""
    results = [t for t in tensors_in(outputs) if t.requires_grad]
    if not results:
        raise InputError("nothing to train: no output depends on a parameter or input that requires a gradient")
    with OperatorObserver(results[0].device.type):
        return torch.stack([result.sum() for result in results]).sum() if len(results) > 1 else results[0].sum()


def gradients_as(device: str, *, wanted: bool) -> AbstractContextManager[None]:
    """Enable gradients, or inference mode, in which attention is seen as one operator before PyTorch splits it."""
    return torch.set_grad_enabled(wanted) if wanted or device != "meta" else torch.inference_mode()


@contextmanager
def quietly() -> Iterator[None]:
    """Restore the random state afterwards and silence warnings; the user sees them when running the model.

    One warning becomes an error: an operator without an autograd formula, whose gradient PyTorch drops, so that the
    backward pass would be counted too small.
    """
    state = random.getstate()
    try:
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.filterwarnings("error", message=".*an autograd kernel was not registered", category=UserWarning)
            yield
    finally:
        random.setstate(state)


@contextmanager
def plain_kernels() -> Iterator[None]:
    """Run multi-head attention as separate operators, as it runs when gradients are enabled, and nothing compiled."""
    enabled = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with _without_compiling():
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(enabled)


@contextmanager
def _without_compiling() -> Iterator[None]:
    """Run compiled functions as they were written; `flex_attention` otherwise compiles itself.

    Both are switched off only if they are imported: importing the compiler takes as long as importing torch.
    """
    flex: Any = sys.modules.get("torch.nn.attention.flex_attention")
    was_off = getattr(flex, FLEX_SWITCH, None)
    stance = torch.compiler.set_stance("force_eager") if "torch._dynamo" in sys.modules else nullcontext()
    if was_off is not None:
        setattr(flex, FLEX_SWITCH, True)
    try:
        with stance:
            yield
    finally:
        if was_off is not None:
            setattr(flex, FLEX_SWITCH, was_off)
