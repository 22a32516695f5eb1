"""A variant's logits beside those of the same network in eager, contiguous fp32."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from bench.measure.loaded import LoadedCase
from bench.measure.timing.variants import variant_of
from bench.schema import UNSPOKEN

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


def compare_with_eager(case: LoadedCase, *, clips: int) -> Parity:
    """The case's logits against eager fp32 with the same weights, over at least `clips` of the same seeded clips."""
    batch = min(case.point.batch or 1, clips)
    seeds = range(math.ceil(clips / batch))
    wanted = _logits(_eager(case), batch=batch, seeds=seeds)
    found = _logits(case, batch=batch, seeds=seeds)
    return compare(wanted, found, tolerance=TOLERANCES[case.point.precision or "fp32"])


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


def _eager(case: LoadedCase) -> LoadedCase:
    """The same network and weights, run in the plainest way."""
    plain = case.point.model_copy(update=dict(UNSPOKEN))
    return LoadedCase(case.case.model_copy(update={"point": plain}), artifacts=case.artifacts)


def _logits(case: LoadedCase, *, batch: int, seeds: range) -> Tensor:
    """`(clips, classes)` in float64 on the CPU; the network is gone afterwards."""
    variant = variant_of(case)
    return torch.cat([variant.forward(batch, seed=seed)().cpu().double() for seed in seeds])
