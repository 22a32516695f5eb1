"""Published costs compared with counted ones, at the clip of the publisher, with an explanation of the difference.

Explanations are computed: the same model is counted with batch norm included, at other crops and with other numbers of
frames, and the variation that gives the printed digits is the explanation.
"""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch

from bench.core.schema import Clip
from bench.measure.counting.dispatch import on_meta
from bench.measure.counting.model_count import Count, count
from bench.reference.published import ZooRow, published_for

CROPS = (112, 128, 160, 182, 224, 256, 312, 320, 356)
SEARCHED = 0.12  # relative: other clips are tried only if the value would come this close
NORMS = ("aten::native_batch_norm", "aten::cudnn_batch_norm", "aten::_native_batch_norm_legit_no_training")


@dataclass(frozen=True, kw_only=True)
class PublishedCost:
    """One published cost of a model and our count, in 1e9 multiply-accumulates of one view.

    `agrees` means equal to the last printed digit at `clip`. Otherwise `explanation` says what gives the printed
    digits, or what is known about the difference, or is empty.
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
        """Return plain data for a record."""
        return {**asdict(self), "relative_difference": self.relative_difference}


def published_costs(
    zoo_name: str, arguments: Mapping[str, Any] | None = None, *, counted: "KnownCount | None" = None
) -> tuple[PublishedCost, ...]:
    """Return every published cost of the model `zoo_name` with our count; empty if nothing was published.

    A model with changed `arguments` has no published cost; the number of classes may change, because each cost is
    counted with the classes of its publisher. `counted` is a count of this model that exists already.
    """
    if set(arguments or {}) - {"num_classes"}:
        return ()
    if counted is not None:
        _COUNTS[zoo_name, counted.classes, counted.frames, counted.size] = counted.count
    return tuple(
        _compared(found, frames=found.frames, size=found.size)
        for found in published_for(zoo_name)
        if found.row.cost_is_published and found.frames is not None and found.size is not None
    )


def _compared(found: ZooRow, *, frames: int, size: int) -> PublishedCost:
    row, counted = found.row, _counted(found.zoo, found.row.classes, frames, size)
    agrees = _prints(counted.macs, row.giga_macs_printed)
    return PublishedCost(
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
    """Return the simplest variation that gives the printed digits, else what is known about the row."""
    for what, macs in _variations(found, frames=frames, size=size):
        if _prints(macs, found.row.giga_macs_printed):
            return what
    return found.known


def _variations(found: ZooRow, *, frames: int, size: int) -> Iterator[tuple[str, int]]:
    """Yield other ways of counting the same model that could give the printed value, with their MACs."""
    printed = float(found.row.giga_macs_printed)

    def variations(clip: str, frames: int, size: int) -> Iterator[tuple[str, int]]:
        counted = _counted(found.zoo, found.row.classes, frames, size)
        if clip:
            yield f"printed for {clip}", counted.macs
        for cost, mode in ((2, "eval"), (5, "train")):
            with_norms = f"batch norm included, {cost} per element as fvcore counts it in {mode} mode"
            yield f"printed {f'for {clip}, ' if clip else ''}with {with_norms}", _with_norms(counted, cost)

    yield from variations("", frames, size)
    here = _counted(found.zoo, found.row.classes, frames, size).macs / 1e9
    for other in CROPS:
        if other != size and abs(printed / here / (other / size) ** 2 - 1) < SEARCHED:
            yield from variations(f"a crop of {other}, not {size}", frames, other)
    for longer in (2 * frames, frames // 2):
        if longer and abs(printed / here / (longer / frames) - 1) < SEARCHED:
            yield from variations(f"{longer} frames, not {frames}", longer, size)


@dataclass(frozen=True, kw_only=True)
class KnownCount:
    """A count of one view of `frames` frames of `size x size` pixels, with a head of so many classes."""

    classes: int | None
    frames: int
    size: int
    count: Count


# Counts of this process by model, classes, frames and size: several publishers count at one clip.
_COUNTS: dict[tuple[str, int | None, int, int], Count] = {}


def _counted(zoo_name: str, classes: int | None, frames: int, size: int) -> Count:
    """Return our count of one view."""
    key = (zoo_name, classes, frames, size)
    if key not in _COUNTS:
        _COUNTS[key] = _count_now(zoo_name, classes, frames, size)
    return _COUNTS[key]


def _count_now(zoo_name: str, classes: int | None, frames: int, size: int) -> Count:
    from bench.models.base import inputs_of
    from bench.models.factory import create_model

    clip = Clip(frames=frames, height=size, width=size)
    with on_meta():
        model = create_model(zoo_name, num_classes=classes).eval()
        inputs = tuple(torch.empty(spec.shape(clip, batch=1)) for spec in inputs_of(model))
    return count(model, inputs)


def _with_norms(counted: Count, cost: int) -> int:
    """Return the MACs with `cost` operations for each normalised element, as some counters add them."""
    return counted.macs + cost * sum(row.elements_written for row in counted.rows if row.operator in NORMS)


def _prints(macs: int, printed: str) -> bool:
    """Return whether `macs`, rounded or truncated like `printed`, gives its digits."""
    decimals = len(printed.partition(".")[2])
    giga, unit = macs / 1e9, 10.0**-decimals
    return abs(giga - float(printed)) <= unit / 2 * (1 + 1e-9) or 0 <= giga - float(printed) < unit
