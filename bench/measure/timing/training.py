"""One train step of a case's network, in three parts that can be timed apart."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import cast

import torch
from torch import Tensor, nn

from bench.core.errors import InputError
from bench.measure.context import CaseContext
from bench.measure.execution_mode import ENGINES, execution_mode_of
from bench.measure.timing.clocks import time_parts
from bench.measure.timing.protocol import Sample
from bench.measure.timing.variants import Variant, variant_of
from bench.train.training_state import has_too_few_clips

LEARNING_RATE = 1e-4  # too small for the weights to run away, whatever the number of steps


def train_step_of(
    case: CaseContext, *, batch: int, wrap: Callable[[nn.Module], nn.Module] = lambda network: network
) -> Callable[[], Sample]:
    """A function that trains the case's network by one step over `batch` clips and gives its times; one step is taken.

    `wrap` is put around the network that is called, such as what shares its gradients. InputError for engines and fp8,
    which run a network forwards only, and for a batch that is too small to be normalised over.
    """
    mode = execution_mode_of(case.point)
    if mode.compile in ENGINES or mode.precision == "fp8":
        raise InputError(
            f"train_step cannot train as {mode}; give it ways that can, such as `train_step: {{compile: off}}`"
        )
    variant = variant_of(case)
    variant.model.train()
    work = _TrainStep(variant, batch=batch, wrap=wrap)

    def step() -> Sample:
        return time_parts((work.forward, work.backward, work.update), variant.device)

    _take_first(case, step, batch=batch)
    return step


def _take_first(case: CaseContext, step: Callable[[], Sample], *, batch: int) -> None:
    try:
        step()
    except ValueError as error:
        if not has_too_few_clips(error):
            raise
        raise InputError(
            f"{case.point.model} normalises over its batch and cannot train on {batch} clip of {case.point.clip}; "
            "give a larger batch, such as `train_step: {batch: 8}`"
        ) from None


class _TrainStep:
    """Forward, backward and update, one after the other; the loss lives between them."""

    def __init__(
        self, variant: Variant, *, batch: int, wrap: Callable[[nn.Module], nn.Module] = lambda network: network
    ) -> None:
        self._variant = variant
        self._inputs = variant.inputs(batch)
        self._run = wrap(cast(nn.Module, variant.over(self._inputs).model))  # no engine: checked before
        self._labels = torch.arange(batch, device=variant.device)
        self._optimizer = torch.optim.SGD(variant.model.parameters(), lr=LEARNING_RATE, momentum=0.9)
        self._scaler = torch.amp.GradScaler(variant.device.type, enabled=variant.autocast is torch.float16)
        self._loss = torch.empty(0)

    def forward(self) -> None:
        with self._precision():
            logits: Tensor = self._run(*self._inputs)
        if not isinstance(logits, Tensor):
            found = "None" if logits is None else f"a {type(logits).__name__}"
            raise InputError(
                f"forward of {self._variant.case.point.model} returns {found}; training needs logits as a tensor"
            )
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
