"""One train step of a case's network, in three parts that can be timed apart."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn

from bench.errors import InputError
from bench.measure.loaded import LoadedCase
from bench.measure.timing.clocks import time_parts
from bench.measure.timing.protocol import Sample
from bench.measure.timing.variants import Variant, variant_of
from bench.measure.ways import ENGINES, way_of

LEARNING_RATE = 1e-4  # too small for the weights to run away, whatever the number of steps


def train_step_of(case: LoadedCase, *, batch: int) -> Callable[[], Sample]:
    """A function that trains the case's network by one step over `batch` clips and gives its times.

    InputError for engines and fp8, which run a network forwards only.
    """
    way = way_of(case.point)
    if way.compile in ENGINES or way.precision == "fp8":
        raise InputError(
            f"train_step cannot train as {way}; give it ways that can, such as `train_step: {{compile: off}}`"
        )
    variant = variant_of(case)
    variant.model.train()
    step = _TrainStep(variant, batch=batch)
    return lambda: time_parts((step.forward, step.backward, step.update), variant.device)


class _TrainStep:
    """Forward, backward and update, one after the other; the loss lives between them."""

    def __init__(self, variant: Variant, *, batch: int) -> None:
        self._variant = variant
        self._inputs = variant.inputs(batch)
        self._run = variant.over(self._inputs).model
        self._labels = torch.arange(batch, device=variant.device)
        self._optimizer = torch.optim.SGD(variant.model.parameters(), lr=LEARNING_RATE, momentum=0.9)
        self._scaler = torch.amp.GradScaler(variant.device.type, enabled=variant.autocast is torch.float16)
        self._loss = torch.empty(0)

    def forward(self) -> None:
        with self._precision():
            logits: Tensor = self._run(*self._inputs)
        self._loss = nn.functional.cross_entropy(logits.float(), self._labels % logits.shape[1])

    def backward(self) -> None:
        self._scaler.scale(self._loss).backward()  # type: ignore[no-untyped-call]  # torch gives it no types

    def update(self) -> None:
        self._scaler.step(self._optimizer)
        self._scaler.update()
        self._optimizer.zero_grad(set_to_none=True)

    def _precision(self) -> AbstractContextManager[object]:
        if self._variant.autocast is None:
            return nullcontext()
        return torch.autocast(self._variant.device.type, dtype=self._variant.autocast)
