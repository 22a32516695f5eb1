"""What a model costs in multiply-accumulates, parameters and bytes, counted on a copy that holds no data.

The copy runs on the meta device, where tensors have shapes but no values. Code that depends on values cannot run there
and is counted in a real forward pass on the CPU.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from torch import Tensor, nn

from bench.core.errors import ClipError, InputError
from bench.measure.counting.dispatch import without_compiler
from bench.measure.counting.model_copy import copies_for
from bench.measure.counting.module_paths import ROOT, ModuleTracker, with_parents
from bench.measure.counting.operator_log import OperatorLog, OperatorRow
from bench.measure.counting.parameters import Parameters, parameters_of
from bench.measure.counting.peak_memory import LiveTensors, PeakMemory
from bench.measure.counting.run_conditions import gradients_as, on_meta_or_cpu, plain_kernels, quietly, sum_of
from bench.models.base import with_frames_first

LAYOUT_REMEDY = "give --layout BTCHW, or `layout: BTCHW` next to the model in a suite"
Device = Literal["auto", "meta", "cpu"]


@dataclass(frozen=True, kw_only=True)
class Count:
    """The cost of one pass over the given inputs, their batch included; 1 MAC is 2 FLOPs.

    `never_called` are names of parameters that no operator read in the forward pass. `device_used` is `meta`, or `cpu`
    with a `fallback_reason`. `rows` are all operators by module; the other values are sums over them. `module_types`
    has the class name of every module by path. `notes` say what a reader of the count must know. `peak_memory` is the
    estimate for this pass if it was requested, and `peak_notes` what a reader of it must know.
    """

    rows: tuple[OperatorRow, ...] = field(repr=False)
    parameters: Parameters
    never_called: dict[str, int]
    uncounted_ops: dict[str, int]
    device_used: str
    fallback_reason: str | None
    module_types: dict[str, str] = field(repr=False)
    notes: tuple[str, ...] = ()
    peak_memory: PeakMemory | None = None
    peak_notes: tuple[str, ...] = ()

    @property
    def macs(self) -> int:
        """MACs of the forward pass, plus the backward pass if it was requested."""
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
    def params(self) -> int | None:
        """Parameters; None if packed weights of quantised layers cannot be read."""
        return self.parameters.total

    @property
    def trainable(self) -> int:
        return self.parameters.trainable

    @property
    def buffers(self) -> int:
        return self.parameters.buffers

    @property
    def is_complete(self) -> bool:
        """False if an operator has no formula: `macs` is then a lower bound, and `uncounted_ops` names the operator."""
        return not self.uncounted_ops

    @property
    def by_module(self) -> dict[str, int]:
        """MACs of every module including its submodules, by path; `""` is the model."""
        return self._nested({row_index: row.macs for row_index, row in enumerate(self.rows)})

    @property
    def bytes_by_module(self) -> dict[str, int]:
        """Bytes that the operators of every module read and write, its submodules included, by path."""
        return self._nested({row_index: row.bytes_moved for row_index, row in enumerate(self.rows)})

    @property
    def by_operator(self) -> dict[str, int]:
        """MACs by operator (`namespace::name`), largest first, without zeros."""
        sums: dict[str, int] = {}
        for row in self.rows:
            sums[row.operator] = sums.get(row.operator, 0) + row.macs
        return dict(sorted(((k, v) for k, v in sums.items() if v), key=lambda item: -item[1]))

    def per_video(self, views: int) -> int:
        """Return the MACs of a video with `views` clips (temporal x spatial): `10x3` is 30 times one clip."""
        return self.macs * views

    @property
    def activation_elements(self) -> int:
        """Elements written by the forward pass; views write none, in-place operators do."""
        return sum(row.elements_written for row in self.rows if not row.is_backward)

    @property
    def activation_bytes(self) -> int:
        return sum(row.bytes_written for row in self.rows if not row.is_backward)

    @property
    def bytes_moved(self) -> int:
        """Bytes read and written by all operators, if nothing is fused or cached."""
        return sum(row.bytes_moved for row in self.rows)

    @property
    def flops_per_byte(self) -> float | None:
        """Arithmetic intensity of the whole pass."""
        return self.flops / self.bytes_moved if self.bytes_moved else None

    def _nested(self, amounts: dict[int, int]) -> dict[str, int]:
        sums = dict.fromkeys(self.module_types, 0)
        for row_index, amount in amounts.items():
            for path in with_parents(self.rows[row_index].module):
                sums[path] = sums.get(path, 0) + amount
        return sums


def count(
    model: nn.Module,
    inputs: Any,
    *,
    backward: bool = False,
    device: Device = "auto",
    free_operators: Collection[str] = (),
    with_peak_memory: bool = False,
) -> Count:
    """Count one forward pass of `model` over `inputs`, with `backward` one forward and backward pass.

    `inputs` is a tensor or a tuple of positional arguments, on any device; only shapes and types matter. A copy of
    `model` runs in its current mode (train or eval); the model and the random state do not change. `device` is where
    the copy runs: `auto` uses the CPU only if the meta device fails. `backward` computes gradients of the parameters,
    and of inputs that require one. `free_operators` (`namespace::name`) are operators that contain no product, besides
    those known. Compiled modules are counted as they were before. `with_peak_memory` also estimates the peak memory, as
    `peak_memory_estimate` does, in the same pass. Raises InputError if the model cannot run on the
    inputs, or the formula of an operator fails.
    """
    arguments = inputs if isinstance(inputs, tuple) else (inputs,)

    def run(device: str, reason: str | None) -> Count:
        return _counted_on(
            device,
            model,
            arguments,
            backward=backward,
            reason=reason,
            free=free_operators,
            with_peak_memory=with_peak_memory,
        )

    try:
        return on_meta_or_cpu(run, model, arguments) if device == "auto" else run(device, None)
    except ClipError:
        raise  # the model itself says what it takes
    except InputError as error:
        if not backward and _runs_frames_first(model, arguments):
            raise InputError(f"{error}; it runs on (B, T, C, H, W): {LAYOUT_REMEDY}") from error
        raise


def _runs_frames_first(model: nn.Module, arguments: tuple[Any, ...]) -> bool:
    """Return whether a model runs on the meta device if frames and channels of its clips are swapped."""
    if not any(isinstance(clip, Tensor) and clip.ndim == 5 for clip in arguments):
        return False
    try:
        _counted_on("meta", model, with_frames_first(arguments), backward=False, reason=None, free=())
    except Exception:  # the first error is the one to report, whatever this attempt raises
        return False
    return True


def _counted_on(
    device: str,
    model: nn.Module,
    arguments: tuple[Any, ...],
    *,
    backward: bool,
    reason: str | None,
    free: Collection[str],
    with_peak_memory: bool = False,
) -> Count:
    with quietly(), plain_kernels():
        copied, inputs = copies_for(model, arguments, device)
    modules = ModuleTracker(copied)
    live = LiveTensors(device) if with_peak_memory else None
    if live is not None:
        live.watch(copied, inputs)
    log = (OperatorLog if device == "meta" else without_compiler(OperatorLog))(modules, device, free=free, live=live)
    with quietly(), plain_kernels(), modules.followed(), gradients_as(device, wanted=backward):
        with log:
            outputs = copied(*inputs)
        read = set(log.read)
        if backward:
            loss = sum_of(outputs)
            del outputs
            if live is not None:
                live.makes = "temporaries"
            with log:
                loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
    parameters = parameters_of(copied)
    return Count(
        rows=log.rows,
        parameters=parameters,
        never_called={name: p.numel() for name, p in copied.named_parameters() if id(p) not in read},
        uncounted_ops=dict(log.uncounted),
        device_used=device,
        fallback_reason=reason,
        module_types=modules.types,
        notes=tuple(_notes(log, parameters)),
        peak_memory=None if live is None else PeakMemory(**live.peak),
        peak_notes=() if live is None or not backward else live.notes,
    )


def _notes(log: OperatorLog, parameters: Parameters) -> Iterator[str]:
    if log.complex_macs:
        yield f"{log.complex_macs:,} MACs are products of complex numbers, each counted as one MAC (4 real ones)"
    if parameters.unreadable:
        yield f"parameters unknown: packed weights cannot be read in {', '.join(parameters.unreadable)}"


__all__ = ["ROOT", "Count", "count"]
