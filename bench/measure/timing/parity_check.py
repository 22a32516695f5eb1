"""Compares the logits of an execution mode with those of the same model in eager, contiguous fp32."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from bench.core.schema import DEFAULT_AXES
from bench.measure.context import CaseContext
from bench.measure.execution_mode import ExecutionMode, execution_mode_of
from bench.measure.timing.forward import Forward, PreparedModel, free_device_memory, prepare_model

# Shares of the largest logit. Rounding is 2^-24 (fp32), 2^-11 (tf32, fp16), 2^-8 (bf16) and 2^-4 (fp8) per operand and
# grows with the root of the depth; a wrong algorithm (pytorch#163539) differs by about a whole logit.
TOLERANCES: Mapping[str, float] = {
    "fp32": 1e-3,
    "tf32": 2e-2,
    "fp16": 2e-2,
    "fp16_weights": 2e-2,
    "bf16": 1e-1,
    "bf16_weights": 1e-1,
    "fp8": 3e-1,
}
EAGER_BATCH = 8


@dataclass(frozen=True, kw_only=True)
class Parity:
    """The difference of two sets of logits. `max_difference` is a share of the largest logit, None if not finite."""

    max_difference: float | None
    top1_agreement: float
    clips: int
    tolerance: float

    @property
    def is_within(self) -> bool:
        return self.max_difference is not None and self.max_difference <= self.tolerance

    def __str__(self) -> str:
        if self.max_difference is None:
            return "some logits are not finite"
        return (
            f"logits differ from eager fp32 by up to {self.max_difference:.2g} of the largest "
            f"({self.tolerance:g} is allowed), top-1 agrees on {self.top1_agreement:.0%} of {self.clips} clips"
        )


def keep_logits(case: CaseContext, forward: Forward) -> None:
    """Keep the logits of a timed pass for `compare_with_eager`, unless it ran in eager fp32 itself."""
    if execution_mode_of(case.point) != ExecutionMode():
        case.logits[forward.batch] = forward().cpu().double()


def compare_with_eager(case: CaseContext, *, clips: int) -> dict[int, Parity]:
    """Parity of the case with eager fp32 and the same weights, by batch: its own, and each whose logits were kept.

    Its own batch is compared over at least `clips` seeded clips. Eager fp32 takes at most 8 clips at a time: a kernel
    that is wrong at large shapes (pytorch#163539) would otherwise be wrong on both sides.
    """
    batch = case.point.batch or 1
    found = dict(case.logits)
    if len(found.get(batch, ())) < clips:
        found[batch] = _logits(case, batch=batch, clips=clips)
    free_device_memory()
    plain = case.point.model_copy(update=dict(DEFAULT_AXES))
    eager = prepare_model(CaseContext(case.case.model_copy(update={"point": plain}), artifacts=case.artifacts))
    tolerance = TOLERANCES[case.point.precision or "fp32"]
    return {
        size: compare_logits(_in_chunks(eager, batch=size, clips=len(logits)), logits, tolerance=tolerance)
        for size, logits in sorted(found.items())
    }


def worst_parity(parities: Iterable[Parity]) -> Parity:
    """The parity with the largest difference; logits that are not finite are worse than any difference."""
    return max(parities, key=lambda each: math.inf if each.max_difference is None else each.max_difference)


def compare_logits(expected: Tensor, found: Tensor, *, tolerance: float) -> Parity:
    """Parity of logits `found` with those `expected`, both `(clips, classes)`."""
    largest = float(expected.abs().max())
    difference = float((found - expected).abs().max()) / largest if largest else float((found - expected).abs().max())
    return Parity(
        max_difference=difference if math.isfinite(difference) else None,
        top1_agreement=float((found.argmax(1) == expected.argmax(1)).double().mean()),
        clips=len(expected),
        tolerance=tolerance,
    )


def _logits(case: CaseContext, *, batch: int, clips: int) -> Tensor:
    """Logits `(clips, classes)` of whole batches, float64 on the CPU; the model is freed afterwards."""
    prepared = prepare_model(case)
    return torch.cat([prepared.forward(batch, seed=seed)().cpu().double() for seed in range(math.ceil(clips / batch))])


def _in_chunks(prepared: PreparedModel, *, batch: int, clips: int) -> Tensor:
    """Logits of the same clips as `_logits`, computed a few at a time."""
    logits: list[Tensor] = []
    for seed in range(clips // batch):
        split = [torch.split(clip, EAGER_BATCH) for clip in prepared.inputs(batch, seed=seed)]
        logits += [prepared.over(chunk)().cpu().double() for chunk in zip(*split, strict=True)]
    return torch.cat(logits)
