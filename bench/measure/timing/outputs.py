"""A variant's logits beside those of the same network in eager, contiguous fp32."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from bench.core.schema import DEFAULT_AXES
from bench.measure.context import CaseContext
from bench.measure.execution_mode import ExecutionMode, execution_mode_of
from bench.measure.timing.variants import Forward, Variant, release, variant_of

# Shares of the largest logit. Rounding is 2^-24 (fp32), 2^-11 (tf32, fp16), 2^-8 (bf16) and 2^-4 (fp8) an operand, and
# grows with the root of the depth; a wrong algorithm (pytorch#163539) differs by about a whole logit. There is room.
TOLERANCES: Mapping[str, float] = {
    "fp32": 1e-3,
    "tf32": 2e-2,
    "fp16": 2e-2,
    "fp16_weights": 2e-2,
    "bf16": 1e-1,
    "bf16_weights": 1e-1,
    "fp8": 3e-1,
}
AT_A_TIME = 8


@dataclass(frozen=True, kw_only=True)
class Parity:
    """Two sets of logits side by side. `max_difference` is a share of the largest logit, None if one is no number."""

    max_difference: float | None
    top1_agreement: float
    clips: int
    tolerance: float

    @property
    def is_within(self) -> bool:
        return self.max_difference is not None and self.max_difference <= self.tolerance

    @property
    def in_words(self) -> str:
        if self.max_difference is None:
            return "some logits are not finite"
        return (
            f"logits differ from eager fp32 by up to {self.max_difference:.2g} of the largest "
            f"({self.tolerance:g} is allowed), top-1 agrees on {self.top1_agreement:.0%} of {self.clips} clips"
        )


def keep_logits(case: CaseContext, forward: Forward) -> None:
    """Keep what a pass that was timed computes, for `compare_with_eager`; of eager fp32 itself there is no need."""
    if execution_mode_of(case.point) != ExecutionMode():
        case.logits[forward.batch] = forward().cpu().double()


def compare_with_eager(case: CaseContext, *, clips: int) -> dict[int, Parity]:
    """The case's logits against eager fp32 with the same weights, by batch: its own, and each that was timed and kept.

    Its own batch is compared over at least `clips` seeded clips. Eager fp32 takes few at a time, whatever the batch: a
    kernel that is wrong at large shapes (pytorch#163539) would be wrong on both sides.
    """
    batch = case.point.batch or 1
    found = dict(case.logits)
    if len(found.get(batch, ())) < clips:
        found[batch] = _logits(case, batch=batch, clips=clips)
    release()
    eager, tolerance = variant_of(_eager(case)), TOLERANCES[case.point.precision or "fp32"]
    return {
        size: compare(_in_chunks(eager, batch=size, clips=len(logits)), logits, tolerance=tolerance)
        for size, logits in sorted(found.items())
    }


def worst(parities: Iterable[Parity]) -> Parity:
    """The one of the largest difference; logits that are no numbers are worse than any."""
    return max(parities, key=lambda each: math.inf if each.max_difference is None else each.max_difference)


def compare(wanted: Tensor, found: Tensor, *, tolerance: float) -> Parity:
    """Parity of logits `found` `(clips, classes)` with those `wanted`."""
    largest = float(wanted.abs().max())
    difference = float((found - wanted).abs().max()) / largest if largest else float((found - wanted).abs().max())
    return Parity(
        max_difference=difference if math.isfinite(difference) else None,
        top1_agreement=float((found.argmax(1) == wanted.argmax(1)).double().mean()),
        clips=len(wanted),
        tolerance=tolerance,
    )


def _eager(case: CaseContext) -> CaseContext:
    """The same network and weights, run in the plainest way."""
    plain = case.point.model_copy(update=dict(DEFAULT_AXES))
    return CaseContext(case.case.model_copy(update={"point": plain}), artifacts=case.artifacts)


def _logits(case: CaseContext, *, batch: int, clips: int) -> Tensor:
    """`(clips, classes)` of whole batches in float64 on the CPU; the network is gone afterwards."""
    variant = variant_of(case)
    return torch.cat([variant.forward(batch, seed=seed)().cpu().double() for seed in range(math.ceil(clips / batch))])


def _in_chunks(variant: Variant, *, batch: int, clips: int) -> Tensor:
    """Logits of the same clips as `_logits`, computed a few at a time."""
    logits: list[Tensor] = []
    for seed in range(clips // batch):
        split = [torch.split(clip, AT_A_TIME) for clip in variant.inputs(batch, seed=seed)]
        logits += [variant.over(chunk)().cpu().double() for chunk in zip(*split, strict=True)]
    return torch.cat(logits)
