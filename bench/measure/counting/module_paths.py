"""The path of the module that is running, in the forward and in the backward pass."""

import bisect
import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

ROOT = ""


class ModuleTracker:
    """Follows the calls of a model's modules, so that each operator can be assigned to a module.

    A module is running while its `forward` is, whether called through `__call__` or directly. A module with several
    parents is found under the parent that calls it. In the backward pass, an autograd node belongs to the module that
    made it, found by its sequence number; modules that run again there (checkpointing) are followed like any call.
    """

    def __init__(self, model: nn.Module) -> None:
        self._paths: dict[int, list[str]] = {}
        self._types: dict[str, str] = {}
        for path, module in model.named_modules(remove_duplicate=False):
            self._paths.setdefault(id(module), []).append(path)
            self._types[path] = type(module).__name__
        self._modules = list(model.modules())
        self._running: list[str] = []
        self._marks: list[tuple[int, str]] = [(0, ROOT)]

    @property
    def types(self) -> dict[str, str]:
        """The class name of every module by every path of it, in the model's order."""
        return self._types

    @property
    def current(self) -> str:
        """The path of the innermost module whose forward or backward is running."""
        if self._running:
            return self._running[-1]
        node = torch._C._current_autograd_node()
        return ROOT if node is None else self._made_at(node._sequence_nr())

    @contextmanager
    def followed(self) -> Iterator[None]:
        """Follow calls inside the context. Replaces `forward` of each module, so use it on a copy of a model."""
        followed = [module for module in self._modules if not isinstance(module, torch.jit.ScriptModule)]
        own = [module.__dict__.get("forward") for module in followed]
        for module in followed:
            module.__dict__["forward"] = self._following(module, module.forward)
        try:
            yield
        finally:
            for module, forward in zip(followed, own, strict=True):
                del module.__dict__["forward"]
                if forward is not None:
                    module.__dict__["forward"] = forward

    def _following(self, module: nn.Module, forward: Callable[..., Any]) -> Callable[..., Any]:
        paths = self._paths[id(module)]

        @functools.wraps(forward)
        def follow(*args: Any, **kwargs: Any) -> Any:
            self._running.append(nearest(self.current, paths))
            self._mark()
            try:
                return forward(*args, **kwargs)
            finally:
                self._running.pop()
                self._mark()

        return follow

    def _mark(self) -> None:
        """Assign autograd nodes made from now on to the current module."""
        self._marks.append((torch._C._autograd._get_sequence_nr(), self.current))

    def _made_at(self, sequence_number: int) -> str:
        after = bisect.bisect_right(self._marks, sequence_number, key=lambda mark: mark[0])
        return self._marks[after - 1][1]


def nearest(caller: str, paths: list[str]) -> str:
    """Return the one of a module's `paths` that lies below `caller`, or below its closest parent."""
    while len(paths) > 1 and caller != ROOT:
        below = [path for path in paths if path == caller or path.startswith(f"{caller}.")]
        if below:
            return below[0]
        caller = parent_of(caller)
    return paths[0]


def parent_of(path: str) -> str:
    """Return the path of the parent module; the root is its own parent."""
    return path.rpartition(".")[0]


def with_parents(path: str) -> Iterator[str]:
    """Yield the path and those of all its parents, ending with the root."""
    yield path
    while path != ROOT:
        path = parent_of(path)
        yield path
