"""One network made ready to be timed: on its device, in its precision, memory format and compile mode."""

import contextlib
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bench.errors import InputError
from bench.measure.loaded import LoadedCase

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
        if self.device.type != "cpu":
            torch.accelerator.synchronize(self.device)

    def latency_s(self) -> float:
        """Wall seconds of one forward pass, waited for."""
        started = time.perf_counter()
        self()
        self.synchronize()
        return time.perf_counter() - started

    def block_s(self, steps: int) -> float:
        """Wall seconds of `steps` passes with at most three in flight, waited for once at the end."""
        queue: list[torch.cuda.Event] = []
        started = time.perf_counter()
        for _ in range(steps):
            if self.device.type == "cuda" and len(queue) == IN_FLIGHT:
                queue.pop(0).synchronize()
            self()
            if self.device.type == "cuda":
                queue.append(torch.cuda.current_stream(self.device).record_event())
        self.synchronize()
        return time.perf_counter() - started

    def _precision(self) -> AbstractContextManager[object]:
        if self.autocast is None:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=self.autocast)


def forward_of(case: LoadedCase) -> Callable[[int], Forward]:
    """A function from batch size to the forward pass of this case's network. The network is built once."""
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
    run: Callable[..., Tensor] = model if point.compile in (None, "off") else _compiled(model, str(point.compile))

    def at(batch: int) -> Forward:
        inputs = tuple(
            clip.to(dtype=dtype or clip.dtype, memory_format=memory_format) for clip in case.inputs(model, batch=batch)
        )
        return Forward(model=run, inputs=inputs, device=device, batch=batch, autocast=AUTOCAST.get(precision))

    return at


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
