"""Two runs that were neighbours in time, as one pair of values: whole runs, or runs whose steps took turns."""

import math
from itertools import groupby
from operator import itemgetter

from bench.comparison.judging import metric_values, ratio_of
from bench.core.schema import Metric
from bench.core.stats import median

FEWEST_TURNS = 5


def values_beside(base: Metric, head: Metric) -> tuple[float, float]:
    """The values of one metric in two neighbouring runs.

    Where their steps took turns, head's is base's times the median, over turns, of what head's turn was to the turn of
    base that it followed or preceded: a disturbance that lasts longer than a turn is in both and leaves their ratio.
    """
    old, new = metric_values([base, head])
    before, after = _turns(base), _turns(head)
    steps = [math.log(after[turn]) - math.log(before[turn]) for turn in before.keys() & after.keys()]
    beside = old * ratio_of(median(steps)) if len(steps) >= FEWEST_TURNS else new
    return old, beside if math.isfinite(beside) else new


def _turns(metric: Metric) -> dict[int, float]:
    """The median of each turn's samples by the turn's number; none where any is not above 0."""
    if any(sample <= 0 for sample in metric.samples):
        return {}
    taken = zip(metric.turns, metric.samples, strict=False)
    return {turn: median([sample for _, sample in each]) for turn, each in groupby(taken, key=itemgetter(0))}
