"""Published costs beside counted ones, at the clip the publisher used, and the difference explained where it can be.

Explanations are tried, not remembered: the same network is counted with batch norm included, at other crops and at
other lengths, and what gives the printed digits is the explanation.
"""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

import torch

from bench.core.schema import Clip
from bench.measure.counting.tally import Count, count
from bench.measure.counting.watching import without_data
from bench.reference.published import ZooRow, published_for

CROPS = (112, 128, 160, 182, 224, 256, 312, 320, 356)
SEARCHED = 0.12  # relative: other clips are tried only where the figure would come this close
NORMS = ("aten::native_batch_norm", "aten::cudnn_batch_norm", "aten::_native_batch_norm_legit_no_training")


@dataclass(frozen=True, kw_only=True)
class BesidePrint:
    """One printed cost of a network and ours, in units of 1e9 multiply-accumulates of one view.

    `agrees` to the last printed digit at `clip`. If it does not, `explanation` says what does give the printed digits,
    what is known of the difference beforehand, or nothing.
    """

    source: str
    title: str
    dataset: str
    status: str
    confidence: str
    clip: str
    printed: float
    counted: float
    agrees: bool
    explanation: str

    @property
    def relative_difference(self) -> float:
        return self.printed / self.counted - 1

    def as_dict(self) -> dict[str, Any]:
        """For records, in JSON."""
        return {**asdict(self), "relative_difference": self.relative_difference}


def published_beside(zoo_name: str, arguments: Mapping[str, Any] | None = None) -> tuple[BesidePrint, ...]:
    """Every printed cost of the network that our zoo calls `zoo_name`, beside ours; none for an unpublished one.

    Nothing is in print about a network with `arguments` of its own; the number of classes is not one of them, since
    each cost is counted with the classes of its publisher.
    """
    if set(arguments or {}) - {"num_classes"}:
        return ()
    return tuple(
        _beside(found, frames=found.frames, size=found.size)
        for found in published_for(zoo_name)
        if found.row.cost_is_published and found.frames is not None and found.size is not None
    )


def _beside(found: ZooRow, *, frames: int, size: int) -> BesidePrint:
    row, counted = found.row, _counted(found.zoo, found.row.classes, frames, size)
    agrees = _prints(counted.macs, row.giga_macs_printed)
    return BesidePrint(
        source=row.source,
        title=f"{row.model} {row.variant}".strip(),
        dataset=row.dataset,
        status=row.status,
        confidence=row.confidence,
        clip=f"{frames}x{size}x{size}",
        printed=float(row.giga_macs_printed),
        counted=counted.macs / 1e9,
        agrees=agrees,
        explanation=found.known if agrees else _explanation(found, frames=frames, size=size),
    )


def _explanation(found: ZooRow, *, frames: int, size: int) -> str:
    """What gives the printed digits, the simplest first; else what is known beforehand."""
    for what, macs in _other_ways(found, frames=frames, size=size):
        if _prints(macs, found.row.giga_macs_printed):
            return what
    return found.known


def _other_ways(found: ZooRow, *, frames: int, size: int) -> Iterator[tuple[str, int]]:
    """Other ways of counting the same network that could give the printed figure, with what they give."""
    printed = float(found.row.giga_macs_printed)

    def ways(clip: str, frames: int, size: int) -> Iterator[tuple[str, int]]:
        counted = _counted(found.zoo, found.row.classes, frames, size)
        if clip:
            yield f"printed for {clip}", counted.macs
        for cost, mode in ((2, "eval"), (5, "train")):
            with_norms = f"batch norm included, {cost} per element as fvcore counts it in {mode} mode"
            yield f"printed {f'for {clip}, ' if clip else ''}with {with_norms}", _with_norms(counted, cost)

    yield from ways("", frames, size)
    here = _counted(found.zoo, found.row.classes, frames, size).macs / 1e9
    for other in CROPS:
        if other != size and abs(printed / here / (other / size) ** 2 - 1) < SEARCHED:
            yield from ways(f"a crop of {other}, not {size}", frames, other)
    for longer in (2 * frames, frames // 2):
        if longer and abs(printed / here / (longer / frames) - 1) < SEARCHED:
            yield from ways(f"{longer} frames, not {frames}", longer, size)


@lru_cache(maxsize=256)
def _counted(zoo_name: str, classes: int | None, frames: int, size: int) -> Count:
    """Our count of one view."""
    from bench.models.base import inputs_of
    from bench.models.factory import create_model

    clip = Clip(frames=frames, height=size, width=size)
    with without_data():
        model = create_model(zoo_name, num_classes=classes).eval()
        inputs = tuple(torch.empty(spec.shape(clip, batch=1)) for spec in inputs_of(model))
    return count(model, inputs)


def _with_norms(counted: Count, cost: int) -> int:
    """As counters do that take each normalised element for `cost` operations."""
    return counted.macs + cost * sum(row.elements_written for row in counted.rows if row.operator in NORMS)


def _prints(macs: int, printed: str) -> bool:
    """Whether `macs`, rounded or cut off as `printed` is, gives its digits."""
    decimals = len(printed.partition(".")[2])
    giga, unit = macs / 1e9, 10.0**-decimals
    return abs(giga - float(printed)) <= unit / 2 * (1 + 1e-9) or 0 <= giga - float(printed) < unit
