"""What a model costs in multiply-accumulates, parameters and bytes, counted on a copy that holds no data.

The copy runs on the meta device, where tensors have shapes and nothing else; code that looks at values cannot run
there and is counted in a real forward pass on the CPU instead.
"""

import random
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn

import bench.measure.counting.attention
import bench.measure.counting.convolution
import bench.measure.counting.products
import bench.measure.counting.recurrent  # noqa: F401  (the four files put their formulas into the table)
from bench.errors import BenchError, InputError
from bench.measure.counting.ledger import Ledger, Row
from bench.measure.counting.operators import tensors_in
from bench.measure.counting.parameters import Parameters, parameters_of
from bench.measure.counting.places import ROOT, Places, with_parents
from bench.measure.counting.shapes import ShapesOnly
from bench.measure.counting.twin import on_device, twin_of

Device = Literal["auto", "meta", "cpu"]


@dataclass(frozen=True, kw_only=True)
class Count:
    """The cost of one pass over the given inputs, their batch included; 1 MAC is 2 FLOPs.

    `never_called` are names of parameters that no operator read in the forward pass. `device_used` is `meta`, or `cpu`
    where `fallback_reason` says why. `rows` are all operators by module; the other figures are sums over them.
    """

    rows: tuple[Row, ...] = field(repr=False)
    parameters: Parameters
    never_called: dict[str, int]
    uncounted_ops: dict[str, int]
    device_used: str
    fallback_reason: str | None
    module_paths: tuple[str, ...] = field(repr=False)

    @property
    def macs(self) -> int:
        """Forward, and backward where it was asked for."""
        return sum(row.macs for row in self.rows)

    @property
    def flops(self) -> int:
        return 2 * self.macs

    @property
    def forward_macs(self) -> int:
        return sum(row.macs for row in self.rows if not row.is_backward)

    @property
    def backward_macs(self) -> int:
        return self.macs - self.forward_macs

    @property
    def params(self) -> int:
        return self.parameters.total

    @property
    def trainable(self) -> int:
        return self.parameters.trainable

    @property
    def buffers(self) -> int:
        return self.parameters.buffers

    @property
    def is_complete(self) -> bool:
        """False where an operator has no formula: `macs` is then a lower bound, and `uncounted_ops` names it."""
        return not self.uncounted_ops

    @property
    def by_module(self) -> dict[str, int]:
        """MACs of every module with everything below it, by path; `""` is the model."""
        return self._nested({row_index: row.macs for row_index, row in enumerate(self.rows)})

    @property
    def by_operator(self) -> dict[str, int]:
        """MACs of every operator that has any, `namespace::name`, the largest first."""
        sums: dict[str, int] = {}
        for row in self.rows:
            sums[row.operator] = sums.get(row.operator, 0) + row.macs
        return dict(sorted(((k, v) for k, v in sums.items() if v), key=lambda item: -item[1]))

    @property
    def activation_elements(self) -> int:
        """Elements that the operators of the forward pass write; views write none, in-place operators do."""
        return sum(row.elements_written for row in self.rows if not row.is_backward)

    @property
    def activation_bytes(self) -> int:
        return sum(row.bytes_written for row in self.rows if not row.is_backward)

    @property
    def bytes_moved(self) -> int:
        """Read and written by all operators, if nothing is fused or stays in a cache."""
        return sum(row.bytes_moved for row in self.rows)

    @property
    def flops_per_byte(self) -> float | None:
        """Arithmetic intensity of the whole pass."""
        return self.flops / self.bytes_moved if self.bytes_moved else None

    def _nested(self, amounts: dict[int, int]) -> dict[str, int]:
        sums = dict.fromkeys(self.module_paths, 0)
        for row_index, amount in amounts.items():
            for path in with_parents(self.rows[row_index].module):
                sums[path] = sums.get(path, 0) + amount
        return sums


def count(model: nn.Module, inputs: Any, *, backward: bool = False, device: Device = "auto") -> Count:
    """Count one forward pass of `model` over `inputs`, with `backward` one forward and backward pass.

    `inputs` is a tensor, or a tuple of the positional arguments; only shapes and types matter, on any device. `model`
    runs as a copy in the mode (train or eval) it is in, and nothing of it or of the random state changes.
    `device` is where the copy runs: `auto` takes the CPU only where the meta device cannot. Backward gives gradients to
    the parameters, and to the inputs where they require one. InputError where the model cannot run on the inputs.
    """
    arguments = inputs if isinstance(inputs, tuple) else (inputs,)
    if device != "auto":
        return _counted_on(device, model, arguments, backward=backward)
    try:
        return _counted_on("meta", model, arguments, backward=backward)
    except BenchError:
        raise
    except Exception as error:
        reason = f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}"
    try:
        return _counted_on("cpu", model, arguments, backward=backward, reason=reason)
    except BenchError:
        raise
    except Exception as error:
        raise InputError(f"{type(model).__name__} cannot run on {_described(arguments)}: {error}") from error


def _counted_on(
    device: str, model: nn.Module, arguments: tuple[Any, ...], *, backward: bool, reason: str | None = None
) -> Count:
    twin, inputs = twin_of(model, device), on_device(arguments, device)
    places = Places(twin)
    ledger = Ledger(places, device)
    with _quietly(), _plain_kernels(), places.followed(), torch.set_grad_enabled(backward):
        with ledger:
            outputs = twin(*inputs)
        read = set(ledger.read)
        if backward:
            loss = _sum_of(outputs)
            with ledger:
                loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
    return Count(
        rows=ledger.rows,
        parameters=parameters_of(model),
        never_called={name: p.numel() for name, p in twin.named_parameters() if id(p) not in read},
        uncounted_ops=dict(ledger.uncounted),
        device_used=device,
        fallback_reason=reason,
        module_paths=tuple(places.paths),
    )


def _sum_of(outputs: Any) -> Tensor:
    """A loss whose gradient for every element of the outputs is 1; InputError where none depends on a parameter."""
    results = [t for t in tensors_in(outputs) if t.requires_grad]
    if not results:
        raise InputError("nothing to train: no output depends on a parameter or input that requires a gradient")
    with ShapesOnly():
        return torch.stack([result.sum() for result in results]).sum() if len(results) > 1 else results[0].sum()


@contextmanager
def _quietly() -> Iterator[None]:
    """Random numbers go on afterwards as if nothing had run; what the model warns of is said when the user runs it."""
    state = random.getstate()
    try:
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        random.setstate(state)


@contextmanager
def _plain_kernels() -> Iterator[None]:
    """Multi-head attention runs as its parts, as it does wherever gradients are wanted."""
    enabled = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(enabled)


def _described(arguments: tuple[Any, ...]) -> str:
    shapes = ["x".join(map(str, t.shape)) if isinstance(t, Tensor) else type(t).__name__ for t in arguments]
    return "inputs of " + ", ".join(shapes)


__all__ = ["ROOT", "Count", "count"]
