"""One train step of a case's model, in three parts that are timed separately."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import cast

import torch
from torch import Tensor, nn

from bench.core.errors import InputError, has_too_few_clips
from bench.measure.context import CaseContext
from bench.measure.execution_mode import ENGINES, execution_mode_of
from bench.measure.timing.clocks import time_parts
from bench.measure.timing.forward import PreparedModel, prepare_model
from bench.measure.timing.sampling import Sample

LEARNING_RATE = 1e-4  # too small for the weights to run away, whatever the number of steps


def train_step_of(
    case: CaseContext, *, batch: int, wrap: Callable[[nn.Module], nn.Module] = lambda model: model
) -> Callable[[], Sample]:
    """A function that trains the case's model by one step over `batch` clips and returns its times.

    One step is taken here. `wrap` wraps the model that is called, for example in DistributedDataParallel. Raises
    InputError for engines and fp8, which only run forward passes, and for a batch too small for batch normalisation.
    """
    mode = execution_mode_of(case.point)
    if mode.compile in ENGINES or mode.precision == "fp8":
        raise InputError(
            f"train_step cannot train as {mode}; give it a mode that can, such as `train_step: {{compile: off}}`"
        )
    prepared = prepare_model(case)
    prepared.model.train()
    work = _TrainStep(prepared, batch=batch, wrap=wrap)

    def step() -> Sample:
        return time_parts((work.forward, work.backward, work.update), prepared.device)

    try:
        step()
    except ValueError as error:
        if not has_too_few_clips(error):
            raise
        raise InputError(
            f"{case.point.model} normalises over its batch and cannot train on {batch} clip of {case.point.clip}; "
            "give a larger batch, such as `train_step: {batch: 8}`"
        ) from None
    return step


class _TrainStep:
    """Forward, backward and update, called one after the other; the loss is kept between them."""

    def __init__(
        self, prepared: PreparedModel, *, batch: int, wrap: Callable[[nn.Module], nn.Module] = lambda model: model
    ) -> None:
        self._prepared = prepared
        self._inputs = prepared.inputs(batch)
        self._run = wrap(cast(nn.Module, prepared.over(self._inputs).model))  # train_step_of has refused engines
        self._labels = torch.arange(batch, device=prepared.device)
        self._optimizer = torch.optim.SGD(prepared.model.parameters(), lr=LEARNING_RATE, momentum=0.9)
        self._scaler = torch.amp.GradScaler(prepared.device.type, enabled=prepared.autocast is torch.float16)
        self._loss = torch.empty(0)

    def forward(self) -> None:
        with self._precision():
            logits: Tensor = self._run(*self._inputs)
        if not isinstance(logits, Tensor):
            found = "None" if logits is None else f"a {type(logits).__name__}"
            raise InputError(
                f"forward of {self._prepared.case.point.model} returns {found}; training needs logits as a tensor"
            )
        self._loss = nn.functional.cross_entropy(logits.float(), self._labels % logits.shape[1])

    def backward(self) -> None:
        self._scaler.scale(self._loss).backward()  # type: ignore[no-untyped-call]  # torch gives it no types

    def update(self) -> None:
        self._scaler.step(self._optimizer)
        self._scaler.update()
        self._optimizer.zero_grad(set_to_none=True)

    def _precision(self) -> AbstractContextManager[object]:
        if self._prepared.autocast is None:
            return nullcontext()
        return torch.autocast(self._prepared.device.type, dtype=self._prepared.autocast)
