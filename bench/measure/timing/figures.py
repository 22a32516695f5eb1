"""Samples as metrics: the median with its interval, the samples kept behind it."""

from collections.abc import Mapping, Sequence

from bench.core.schema import Better, Metric
from bench.core.stats import median_interval
from bench.measure.timing.protocol import Timing


def sampled(
    name: str,
    values: Sequence[float],
    *,
    unit: str,
    better: Better,
    timing: Timing | None = None,
    labels: Mapping[str, str] | None = None,
    note: str | None = None,
) -> Metric:
    """The median of `values` as metric `name`, with its 95 % interval where there are enough of them.

    `timing` is that of which every sample gave one of the values, in their order.
    """
    middle = median_interval(values)
    return Metric(
        name=name,
        value=middle.value,
        unit=unit,
        better=better,
        labels=dict(labels or {}),
        interval=(middle.low, middle.high) if middle.low == middle.low else None,
        samples=tuple(values),
        turns=timing.turns if timing else (),
        stopped_because=timing.stopped_because if timing else None,
        note=note,
    )
