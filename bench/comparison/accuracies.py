"""Verdicts on accuracies: several trainings of a recipe, or the predictions of two models for the same videos."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from bench.comparison.allowed_changes import Limits
from bench.comparison.assessments import Assessment, settled, undecided
from bench.comparison.evidence import change_of_predictions, change_of_seeds, change_of_shares, change_of_trainings
from bench.comparison.kept_predictions import LabelRanks, read_ranks
from bench.comparison.pairing import CasePair
from bench.comparison.runs import MetricRuns, Run
from bench.comparison.verdicts import MetricVerdict
from bench.core.input_change import UNCHANGED
from bench.core.schema import Metric, digest
from bench.core.stats import Estimate
from bench.core.units import plural

TOP_K = re.compile(r"accuracy\.top([1-9]\d*)")


@dataclass(frozen=True, kw_only=True)
class Trainings:
    """One accuracy per training, in %. If `has_seeds`, the n-th of base and of head share a seed."""

    base: tuple[float, ...]
    head: tuple[float, ...]
    has_seeds: bool


def seed_group(pair: CasePair) -> str:
    """Return the same key for all cases of a suite that differ only in the seed; empty for a case without one."""
    point = pair.head.case.point
    if point.seed is None:
        return ""
    others = point.model_dump(mode="json", exclude_none=True, exclude={"seed"})
    return digest([pair.head.case.suite, others, sorted(pair.head.case.measures)])


def trainings_of(
    base: MetricRuns, head: MetricRuns, seeds: Sequence[tuple[MetricRuns, MetricRuns]]
) -> Trainings | None:
    """Return trainings by `seeds` known on both sides, else by runs; None if either side is a single model.

    Runs or seeds with equal accuracies are taken for one model that was evaluated several times.
    """
    known = [each for each in seeds if each[0].values and each[1].values]
    old, new = (tuple(_mean(each[side].values) for each in known) for side in (0, 1))
    if len(known) > 1 and _is_any_different(old, new):
        return Trainings(base=old, head=new, has_seeds=True)
    old, new = tuple(base.values), tuple(head.values)
    return Trainings(base=old, head=new, has_seeds=False) if _is_any_different(old, new) else None


def with_means(row: MetricVerdict, trainings: Trainings) -> MetricVerdict:
    """Return `row` with the means that its verdict compares."""
    old, new = (_mean(side) for side in (trainings.base, trainings.head))
    return replace(row, base=old, head=new, ratio=new / old if old > 0 else None)


def assess_trainings(row: MetricVerdict, limits: Limits, trainings: Trainings, *, group: str) -> Assessment:
    """Compare the means: paired over seeds, by Welch's test over runs. Cases of one seed `group` share a verdict."""
    base, head = trainings.base, trainings.head
    if not trainings.has_seeds:
        if min(len(base), len(head)) < 2:
            reason = (
                f"{plural(len(base), 'training')} in base and {len(head)} in head, and trainings of one side differ: "
                "at least 2 a side are needed"
            )
            return settled(row, "inconclusive", reason)
        basis = f" over {len(base)} and {len(head)} runs"
        return undecided(row, limits, change_of_trainings(base, head), basis=basis, needed="runs")
    if base == head:
        return settled(row, "same", f"each of {len(base)} seeds has the same accuracy as before")
    change = change_of_seeds(base, head)
    if change.error == 0:
        reason = f"all {len(base)} seeds changed by the same amount, so their spread is unknown; add seeds"
        return settled(row, "inconclusive", reason)
    assessment = undecided(row, limits, change, basis=f" over {len(base)} seeds", needed="seeds")
    return replace(assessment, family=f"{group} {row.metric}")


def assess_models(row: MetricVerdict, limits: Limits, base: tuple[Run, Metric], head: tuple[Run, Metric]) -> Assessment:
    """Compare two models: McNemar's test on their predictions if both kept them, else their binomial intervals.

    Either tells whether these two models differ, not whether another training with the recipe would.
    """
    match = TOP_K.fullmatch(base[1].name)
    if match:
        old, new = (read_ranks(run, change=metric.labels.get("change", UNCHANGED)) for run, metric in (base, head))
        if old is not None and new is not None and old.labels == new.labels:
            return _assess_videos(row, limits, old, new, k=int(match[1]), scope=_scope(base[0]))
    if base[1].value == head[1].value:
        return settled(row, "same", "equal")
    shares = [_estimate(metric) for _, metric in (base, head)]
    if shares[0] is None or shares[1] is None:
        return settled(
            row, "inconclusive", "changed, but there are neither intervals nor predictions of both sides to judge it by"
        )
    change = change_of_shares(shares[0], shares[1])
    return undecided(row, limits, change, basis=f" by {change.sample}, {_scope(base[0])}", needed="videos")


def _assess_videos(
    row: MetricVerdict, limits: Limits, base: LabelRanks, head: LabelRanks, *, k: int, scope: str
) -> Assessment:
    right = [(base.ranks[video][1] < k, head.ranks[video][1] < k) for video in base.ranks]
    only_base, only_head = right.count((True, False)), right.count((False, True))
    if not only_base and not only_head:
        reason = f"both models are right on the same of these {len(right)} videos; on other videos they may differ"
        return settled(row, "same", reason)
    change = change_of_predictions(only_base=only_base, only_head=only_head, videos=len(right))
    return undecided(row, limits, change, basis=f" on {change.sample}, {scope}", needed="videos")


def _scope(run: Run) -> str:
    is_trained = run.record.case.point.recipe is not None
    return "one training a side, and another training may change as much" if is_trained else "one model a side"


def _estimate(metric: Metric) -> Estimate | None:
    """Return a share with its interval; None if the interval is undefined or has no width."""
    if metric.interval is None or metric.value is None:
        return None
    low, high = metric.interval
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        return None
    return Estimate(value=metric.value, low=low, high=high)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _is_any_different(base: Sequence[float], head: Sequence[float]) -> bool:
    return len({*base}) > 1 or len({*head}) > 1
