"""Summary of the raw samples of one run: quantiles, variation, drift."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

from bench.core.stats import median, quantile
from bench.reporting.case_results import CaseResult, RecordedMetric

FEWEST_SAMPLES = 5
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95, 0.99)


@dataclass(frozen=True, kw_only=True)
class SampleSpread:
    """Summary of the samples of one metric in one run; `quantiles` are those of QUANTILES.

    `variation` is the standard deviation over the mean, `drift` the median of the last third of the samples over that
    of the first third, less 1; both are nan if the divisor is 0.
    """

    case: CaseResult
    recorded_metric: RecordedMetric
    quantiles: tuple[float, ...]
    largest: float
    variation: float
    drift: float
    count: int

    @property
    def middle(self) -> float:
        return self.quantiles[QUANTILES.index(0.5)]


def spreads_of(case: CaseResult) -> Iterator[SampleSpread]:
    """For every run, measure and labels, the first metric with at least `FEWEST_SAMPLES` samples."""
    done: set[tuple[str, str, int]] = set()
    for recorded in case.metrics.values():
        for each in recorded:
            metric = each.metric
            key = (metric.name.partition(".")[0], str(metric.labels), each.record.run_index)
            if key not in done and len(metric.samples) >= FEWEST_SAMPLES and all(map(math.isfinite, metric.samples)):
                done.add(key)
                yield summarise_samples(case, each)


def summarise_samples(case: CaseResult, recorded_metric: RecordedMetric) -> SampleSpread:
    """Quantiles by linear interpolation, variation and drift of the samples in order of time."""
    samples = recorded_metric.metric.samples
    ordered, n = sorted(samples), len(samples)
    mean = math.fsum(samples) / n
    deviation = math.sqrt(math.fsum((sample - mean) ** 2 for sample in samples) / (n - 1))
    third = max(1, n // 3)
    early, late = median(samples[:third]), median(samples[-third:])
    return SampleSpread(
        case=case,
        recorded_metric=recorded_metric,
        quantiles=tuple(quantile(ordered, q) for q in QUANTILES),
        largest=ordered[-1],
        variation=deviation / mean if mean else math.nan,
        drift=late / early - 1 if early else math.nan,
        count=n,
    )
