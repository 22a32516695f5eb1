"""Forward passes that can be timed: a case's model on its device, in its execution mode, with checked outputs."""

import contextlib
import gc
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from bench.core.errors import InputError
from bench.measure.context import DEFAULT_SEED, CaseContext
from bench.measure.execution_mode import ENGINES, ExecutionMode, execution_mode_of, refusal
from bench.measure.timing.clocks import per_step, synchronize, time_work
from bench.measure.timing.engines.execution import Execution
from bench.measure.timing.engines.work import Work
from bench.measure.timing.fp8 import require_fp8, use_fp8
from bench.measure.timing.sampling import Sample

AUTOCAST = {"fp16": torch.float16, "bf16": torch.bfloat16}
CAST = {"fp16_weights": torch.float16, "bf16_weights": torch.bfloat16, "fp8": torch.bfloat16}
IN_FLIGHT = 3
# With CUDA graphs, torch.compile warms up in the first pass, records in the second and replays from the third on.
WARM_PASSES = {"cuda": 3}
OUTPUTS = "outputs"  # detail of the record


@dataclass(frozen=True, kw_only=True)
class Forward:
    """A forward pass over `batch` clips on `device` that can be timed."""

    model: Callable[..., Tensor]
    inputs: tuple[Tensor, ...]
    device: torch.device
    batch: int
    autocast: torch.dtype | None

    def __call__(self) -> Tensor:
        """Return the logits; on an accelerator they are queued, not computed, when this returns."""
        with torch.inference_mode(), self._precision():
            return self.model(*self.inputs)

    def synchronize(self) -> None:
        """Wait until everything queued on the device is done."""
        synchronize(self.device)

    def latency(self) -> Sample:
        """Time one forward pass, including the wait for its end, by both clocks."""
        return time_work(self, self.device)

    def warm(self) -> Sample:
        """Time one pass after the passes that load, compile or record something."""
        for _ in range(WARM_PASSES.get(self.device.type, 1)):
            self.latency()
        return self.latency()

    def empty(self) -> "Forward":
        """The same pass without a model: its time is the overhead of timing, which is recorded but never subtracted."""
        return replace(self, model=lambda *clips: clips[0])

    def block(self, steps: int) -> Sample:
        """Time `steps` passes with at most three in flight and one wait at the end; returns the mean of one pass.

        The time of launching is unknown, because a launch waits until fewer than three passes are in flight.
        """
        return per_step(time_work(lambda: self._queue(steps), self.device)._replace(launched_s=None), steps=steps)

    def _queue(self, steps: int) -> None:
        queue: list[torch.cuda.Event] = []
        for _ in range(steps):
            if self.device.type == "cuda" and len(queue) == IN_FLIGHT:
                queue.pop(0).synchronize()
            self()
            if self.device.type == "cuda":
                queue.append(torch.cuda.current_stream(self.device).record_event())

    def _precision(self) -> AbstractContextManager[object]:
        if self.autocast is None:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=self.autocast)


@dataclass(frozen=True, kw_only=True)
class PreparedModel:
    """The model of a case in its execution mode, on its device, and what executes it."""

    case: CaseContext
    model: nn.Module
    execution: Execution
    mode: ExecutionMode
    device: torch.device

    @property
    def dtype(self) -> torch.dtype | None:
        """The dtype of weights and inputs; None for float32."""
        return CAST.get(self.mode.precision)

    @property
    def autocast(self) -> torch.dtype | None:
        return AUTOCAST.get(self.mode.precision)

    @property
    def memory_format(self) -> torch.memory_format:
        return torch.channels_last_3d if self.mode.memory_format == "channels_last_3d" else torch.contiguous_format

    def inputs(self, batch: int, *, seed: int = DEFAULT_SEED) -> tuple[Tensor, ...]:
        """Seeded clips `(B, C, T, H, W)` in the dtype and memory format of this model."""
        clips = self.case.inputs(self.model, batch=batch, seed=seed)
        return tuple(clip.to(dtype=self.dtype or clip.dtype, memory_format=self.memory_format) for clip in clips)

    def forward(self, batch: int, *, seed: int = DEFAULT_SEED) -> Forward:
        """The forward pass over `batch` seeded clips."""
        return self.over(self.inputs(batch, seed=seed))

    def over(self, clips: tuple[Tensor, ...]) -> Forward:
        """The forward pass over `clips`, which have this model's dtype and memory format. May compile.

        Passes of one CUDA graph share its input memory, so they all read the clips of the pass that was made last.
        """
        has_engine = self.mode.compile in ENGINES  # an engine contains the casts of autocast
        work = Work(model=self.model, inputs=clips, precision=self.mode.precision, autocast=self.autocast)
        return Forward(
            model=self.execution.run_of(work),
            inputs=self.execution.inputs or clips,
            device=self.device,
            batch=len(clips[0]),
            autocast=None if has_engine else self.autocast,
        )


# Measures of one case share its engine: it takes minutes to build and holds the weights, which no measure changes,
# because an engine only runs forward passes.
_ENGINES: WeakKeyDictionary[CaseContext, tuple[nn.Module, Execution]] = WeakKeyDictionary()


def prepare_model(case: CaseContext) -> PreparedModel:
    """Build the model of `case` and bring it into its execution mode.

    Raises InputError for an execution mode that the device does not support.
    """
    device, mode = torch.device(case.device), execution_mode_of(case.point)
    refused = refusal(mode, case.device)
    if refused is not None:
        raise InputError(refused)
    if case in _ENGINES:
        set_tf32(is_on=mode.precision == "tf32")
        model, execution = _ENGINES[case]
        return PreparedModel(case=case, model=model, execution=execution, mode=mode, device=device)
    prepared = PreparedModel(
        case=case, model=case.build_model(str(device)), execution=Execution(mode.compile), mode=mode, device=device
    )
    set_tf32(is_on=mode.precision == "tf32")  # after the build, in which a model may switch it
    if prepared.dtype is not None:
        prepared.model.to(dtype=prepared.dtype)
    if prepared.memory_format is torch.channels_last_3d:
        prepared.model.to(memory_format=prepared.memory_format)
    if mode.precision == "fp8":
        require_fp8(device)
        used = use_fp8(prepared.model, prepared.inputs(1))
        case.note("fp8", {"linear_layers": len(used.in_fp8), "bypassed": list(used.bypassed), "all_else": "bf16"})
    if mode.compile in ENGINES:
        _ENGINES[case] = prepared.model, prepared.execution
    return prepared


def set_tf32(*, is_on: bool) -> None:
    """Let float32 products and convolutions on CUDA use TF32, or none of them.

    By default torch lets cuDNN use it. The old switches alone do not suffice: where they turn it off, convolutions
    follow `torch.backends.fp32_precision`, which a plug-in may have set to `tf32`. The new ones alone make torch raise
    when anything reads the old ones.
    """
    cudnn: Any = torch.backends.cudnn  # torch gives its switches no types
    torch.set_float32_matmul_precision("high" if is_on else "highest")
    cudnn.allow_tf32 = is_on
    for backend in (torch.backends.cuda.matmul, cudnn.conv, cudnn.rnn):
        backend.fp32_precision = "tf32" if is_on else "ieee"


def forward_of(case: CaseContext) -> Callable[[int], Forward]:
    """A function from batch size to the forward pass of this case's model, which is built once.

    Raises InputError if the model returns no tensor.
    """
    prepared = prepare_model(case)

    def forward(batch: int) -> Forward:
        found = prepared.forward(batch)
        check_outputs(case, found)
        return found

    return forward


def free_device_memory() -> None:
    """Free what earlier measures left on the device: engines, compiled graphs, torch's cache.

    torch keeps all memory that it ever held, so a child process would otherwise not get it.
    """
    _ENGINES.clear()
    if "torch._dynamo" in sys.modules:
        torch.compiler.reset()
    gc.collect()
    torch.cuda.empty_cache()  # does nothing if CUDA is not initialised


def check_outputs(case: CaseContext, forward: Callable[[], object]) -> None:
    """Run one pass and record in the detail `outputs` whether all its values are finite; once per case.

    Raises InputError if the pass returns no tensor: a compiler may skip the last layers of a model without a `return`,
    so its time would not be that of a whole pass.
    """
    if OUTPUTS in case.details:
        return
    output = forward()
    tensors = list(tensors_in(output))
    if not any(tensor.numel() for tensor in tensors):
        name = "None" if output is None else f"a {type(output).__name__} without tensors"
        found = "empty tensors only" if tensors else name
        raise InputError(f"forward of {case.point.model} returns {found}; it must return the logits as a tensor")
    are_finite = all(map(_is_finite, tensors))
    case.note(OUTPUTS, {"are_finite": are_finite})
    if not are_finite:
        case.warn(
            "some outputs are not finite (nan or inf), so this timing is not ranked",
            "check the weights, and try a precision with a wider range, such as bf16 for fp16",
        )


def tensors_in(output: object) -> Iterator[Tensor]:
    """Every tensor in an output: a tensor itself, or nested in mappings, sequences and dataclasses."""
    if isinstance(output, Tensor):
        yield output
    elif isinstance(output, Mapping):
        for value in output.values():
            yield from tensors_in(value)
    elif isinstance(output, list | tuple | set | frozenset):
        for value in output:
            yield from tensors_in(value)
    elif is_dataclass(output) and not isinstance(output, type):
        for field in fields(output):
            yield from tensors_in(getattr(output, field.name))


def _is_finite(tensor: Tensor) -> bool:
    if not (tensor.is_floating_point() or tensor.is_complex()):
        return True
    wide: Any = tensor.float() if tensor.is_floating_point() else tensor  # float8 has no isfinite
    return bool(torch.isfinite(wide).all())
