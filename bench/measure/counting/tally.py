"""What a model costs in multiply-accumulates, parameters and bytes, counted on a copy that holds no data.

The copy runs on the meta device, where tensors have shapes and nothing else; code that looks at values cannot run
there and is counted in a real forward pass on the CPU instead.
"""

from dataclasses import dataclass, field
from typing import Any, Literal

from torch import nn

import bench.measure.counting.attention
import bench.measure.counting.convolution
import bench.measure.counting.products
import bench.measure.counting.recurrent  # noqa: F401  (the four files put their formulas into the table)
from bench.measure.counting.ledger import Ledger, Row
from bench.measure.counting.parameters import Parameters, parameters_of
from bench.measure.counting.places import ROOT, Places, with_parents
from bench.measure.counting.running import gradients_as, on_meta_or_cpu, plain_kernels, quietly, sum_of
from bench.measure.counting.twin import on_device, twin_of
from bench.measure.counting.watching import hidden_from_compiler

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

    def per_video(self, views: int) -> int:
        """MACs of a video of which `views` clips (temporal times spatial) are taken: `10x3` is 30 times one clip."""
        return self.macs * views

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

    def run(device: str, reason: str | None) -> Count:
        return _counted_on(device, model, arguments, backward=backward, reason=reason)

    return on_meta_or_cpu(run, model, arguments) if device == "auto" else run(device, None)


def _counted_on(
    device: str, model: nn.Module, arguments: tuple[Any, ...], *, backward: bool, reason: str | None
) -> Count:
    twin, inputs = twin_of(model, device), on_device(arguments, device)
    places = Places(twin)
    ledger = (Ledger if device == "meta" else hidden_from_compiler(Ledger))(places, device)
    with quietly(), plain_kernels(), places.followed(), gradients_as(device, wanted=backward):
        with ledger:
            outputs = twin(*inputs)
        read = set(ledger.read)
        if backward:
            loss = sum_of(outputs)
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


__all__ = ["ROOT", "Count", "count"]
