"""One network made ready to be timed: on its device, in its precision, memory format and compile mode."""

import contextlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bench.errors import InputError
from bench.measure.loaded import DEFAULT_SEED, LoadedCase
from bench.measure.timing.clocks import each, synchronize, time_work
from bench.measure.timing.protocol import Sample

AUTOCAST = {"fp16": torch.float16, "bf16": torch.bfloat16}
CAST = {"fp16_weights": torch.float16, "bf16_weights": torch.bfloat16}
IN_FLIGHT = 3


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

    def block(self, steps: int) -> Sample:
        """One of `steps` passes with at most three in flight, waited for once at the end: their mean by both clocks."""
        return each(time_work(lambda: self._queue(steps), self.device), of=steps)

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
    """A case's network as its axes want it: `run` is `model` itself, or compiled; `dtype` is that of cast weights."""

    case: LoadedCase
    model: nn.Module
    run: Callable[..., Tensor]
    device: torch.device
    dtype: torch.dtype | None
    autocast: torch.dtype | None
    memory_format: torch.memory_format

    def inputs(self, batch: int, *, seed: int = DEFAULT_SEED) -> tuple[Tensor, ...]:
        """Seeded clips of the case in this variant's dtype and memory format."""
        clips = self.case.inputs(self.model, batch=batch, seed=seed)
        return tuple(clip.to(dtype=self.dtype or clip.dtype, memory_format=self.memory_format) for clip in clips)

    def forward(self, batch: int, *, seed: int = DEFAULT_SEED) -> Forward:
        """The forward pass over `batch` clips."""
        return Forward(
            model=self.run,
            inputs=self.inputs(batch, seed=seed),
            device=self.device,
            batch=batch,
            autocast=self.autocast,
        )


def variant_of(case: LoadedCase) -> Variant:
    """The network of `case`, built and made ready; InputError for a precision that this device has not."""
    point, device = case.point, torch.device(case.device)
    precision = point.precision or "fp32"
    _set_float32(precision)
    model = case.build_model(str(device))
    dtype = CAST.get(precision)
    memory_format = torch.channels_last_3d if point.memory_format == "channels_last_3d" else torch.contiguous_format
    if dtype is not None:
        model = model.to(dtype=dtype)
    if memory_format is torch.channels_last_3d:
        model = model.to(memory_format=memory_format)
    return Variant(
        case=case,
        model=model,
        run=model if point.compile in (None, "off") else _compiled(model, str(point.compile)),
        device=device,
        dtype=dtype,
        autocast=AUTOCAST.get(precision),
        memory_format=memory_format,
    )


def forward_of(case: LoadedCase) -> Callable[[int], Forward]:
    """A function from batch size to the forward pass of this case's network. The network is built once."""
    return variant_of(case).forward


def _compiled(model: nn.Module, mode: str) -> Callable[..., Tensor]:
    compiled: Callable[..., Tensor] = torch.compile(model, mode=mode, dynamic=False)
    return compiled


def _set_float32(precision: str) -> None:
    """TF32 only where it is asked for: torch's own default lets cuDNN use it behind the name fp32."""
    allowed = precision == "tf32"
    if allowed and not torch.cuda.is_available():
        raise InputError("precision tf32 needs a CUDA device; here is none")
    torch.backends.cuda.matmul.allow_tf32 = allowed
    torch.backends.cudnn.allow_tf32 = allowed
