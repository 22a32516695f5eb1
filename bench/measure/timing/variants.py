"""One network made ready to be timed: on its device, in its precision and memory format, by what executes it."""

import contextlib
import gc
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from bench.core.errors import InputError
from bench.measure.context import DEFAULT_SEED, CaseContext
from bench.measure.execution_mode import ENGINES, ExecutionMode, execution_mode_of, refusal
from bench.measure.timing.clocks import each, synchronize, time_work
from bench.measure.timing.engines.execution import Execution
from bench.measure.timing.engines.work import Work
from bench.measure.timing.fp8 import require_fp8, use_fp8
from bench.measure.timing.output_check import check_outputs
from bench.measure.timing.protocol import Sample

AUTOCAST = {"fp16": torch.float16, "bf16": torch.bfloat16}
CAST = {"fp16_weights": torch.float16, "bf16_weights": torch.bfloat16, "fp8": torch.bfloat16}
IN_FLIGHT = 3
# A graph of torch.compile is warmed up in the first pass, recorded in the second and replayed from the third on.
WARM_PASSES = {"cuda": 3}


@dataclass(frozen=True, kw_only=True)
class Forward:
    """A forward pass that can be timed: `batch` clips of this case on `device`."""

    model: Callable[..., Tensor]
    inputs: tuple[Tensor, ...]
    device: torch.device
    batch: int
    autocast: torch.dtype | None

    def __call__(self) -> Tensor:
        """Logits; on an accelerator they are queued, not done, when this returns."""
        with torch.inference_mode(), self._precision():
            return self.model(*self.inputs)

    def synchronize(self) -> None:
        """Wait until everything queued on the device is done."""
        synchronize(self.device)

    def latency(self) -> Sample:
        """One forward pass, waited for, by both clocks."""
        return time_work(self, self.device)

    def warm(self) -> Sample:
        """One pass, as `latency`, once all is done that only the first ones do: loading, compiling, recording."""
        for _ in range(WARM_PASSES.get(self.device.type, 1)):
            self.latency()
        return self.latency()

    def empty(self) -> "Forward":
        """The same pass without a network, so what timing takes by itself. It is stated, and subtracted nowhere."""
        return replace(self, model=lambda *clips: clips[0])

    def block(self, steps: int) -> Sample:
        """One of `steps` passes with at most three in flight, waited for once at the end: their mean by both clocks.

        How long launching took is unknown: it waits for a place in flight.
        """
        return each(time_work(lambda: self._queue(steps), self.device)._replace(launched_s=None), of=steps)

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
class Variant:
    """A case's network as its axes want it, and what executes it; `dtype` is that of cast weights."""

    case: CaseContext
    model: nn.Module
    execution: Execution
    mode: ExecutionMode
    device: torch.device

    @property
    def dtype(self) -> torch.dtype | None:
        return CAST.get(self.mode.precision)

    @property
    def autocast(self) -> torch.dtype | None:
        return AUTOCAST.get(self.mode.precision)

    @property
    def memory_format(self) -> torch.memory_format:
        return torch.channels_last_3d if self.mode.memory_format == "channels_last_3d" else torch.contiguous_format

    def inputs(self, batch: int, *, seed: int = DEFAULT_SEED) -> tuple[Tensor, ...]:
        """Seeded clips of the case in this variant's dtype and memory format."""
        clips = self.case.inputs(self.model, batch=batch, seed=seed)
        return tuple(clip.to(dtype=self.dtype or clip.dtype, memory_format=self.memory_format) for clip in clips)

    def forward(self, batch: int, *, seed: int = DEFAULT_SEED) -> Forward:
        """The forward pass over `batch` clips."""
        return self.over(self.inputs(batch, seed=seed))

    def over(self, clips: tuple[Tensor, ...]) -> Forward:
        """The forward pass over these clips, which are in this variant's dtype and memory format. May compile.

        Passes of one CUDA graph share the place of their clips: what they read are those of the one made last.
        """
        is_baked = self.mode.compile in ENGINES  # the casts are in what the engine runs
        work = Work(model=self.model, inputs=clips, precision=self.mode.precision, autocast=self.autocast)
        return Forward(
            model=self.execution.of(work),
            inputs=self.execution.inputs or clips,
            device=self.device,
            batch=len(clips[0]),
            autocast=None if is_baked else self.autocast,
        )


def variant_of(case: CaseContext) -> Variant:
    """The network of `case`, built and made ready; InputError for a way to run it that this device has not."""
    device, mode = torch.device(case.device), execution_mode_of(case.point)
    refused = refusal(mode, case.device)
    if refused is not None:
        raise InputError(refused)
    _set_float32(mode.precision)
    if case in _ENGINES:
        model, execution = _ENGINES[case]
        return Variant(case=case, model=model, execution=execution, mode=mode, device=device)
    variant = Variant(
        case=case, model=case.build_model(str(device)), execution=Execution(mode.compile), mode=mode, device=device
    )
    _make_ready(variant)
    if mode.compile in ENGINES:
        _ENGINES[case] = variant.model, variant.execution
    return variant


def _make_ready(variant: Variant) -> None:
    """The network in its dtype, memory format and float8 layers, in place."""
    if variant.dtype is not None:
        variant.model.to(dtype=variant.dtype)
    if variant.memory_format is torch.channels_last_3d:
        variant.model.to(memory_format=variant.memory_format)
    if variant.mode.precision == "fp8":
        require_fp8(variant.device)
        used = use_fp8(variant.model, variant.inputs(1))
        variant.case.note(
            "fp8", {"linear_layers": len(used.in_fp8), "bypassed": list(used.bypassed), "all_else": "bf16"}
        )


def forward_of(case: CaseContext) -> Callable[[int], Forward]:
    """A function from batch size to the forward pass of this case's model, which is built once.

    Raises InputError if the model returns no tensor.
    """
    variant = variant_of(case)

    def forward(batch: int) -> Forward:
        found = variant.forward(batch)
        check_outputs(case, found)
        return found

    return forward


def release() -> None:
    """Give back what earlier measures of this process left on the device: engines, compiled graphs, torch's cache.

    A process that is started beside this one finds its memory taken otherwise: torch keeps all that it ever held.
    """
    _ENGINES.clear()
    if "torch._dynamo" in sys.modules:
        torch.compiler.reset()
    gc.collect()
    torch.cuda.empty_cache()  # nothing, where CUDA is not up


# One network and engine for all measures of a case: an engine takes minutes to make and holds the weights, which never
# change, for it runs forwards only.
_ENGINES: WeakKeyDictionary[CaseContext, tuple[nn.Module, Execution]] = WeakKeyDictionary()


def _set_float32(precision: str) -> None:
    """TF32 only where it is asked for: torch's own default lets cuDNN use it behind the name fp32."""
    torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
    torch.backends.cudnn.allow_tf32 = precision == "tf32"
