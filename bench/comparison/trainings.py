"""Accuracies of several trainings a side: whether a recipe became worse, and not only one network of it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from bench.comparison.judging import Finding, pending, settle
from bench.comparison.limits import Limits
from bench.comparison.outcome import Row
from bench.comparison.pairing import Pair
from bench.comparison.samples import Sample
from bench.core.schema import digest
from bench.core.units import plural


@dataclass(frozen=True, kw_only=True)
class Trainings:
    """One accuracy a training, in %. With seeds the n-th of base and of head share a seed, else they are mere runs."""

    base: tuple[float, ...]
    head: tuple[float, ...]
    has_seeds: bool


def recipe_of(pair: Pair) -> str:
    """The same text for all cases of one suite that differ in nothing but the seed; empty where a case has none."""
    point = pair.head.case.point
    if point.seed is None:
        return ""
    others = point.model_dump(mode="json", exclude_none=True, exclude={"seed"})
    return digest([pair.head.case.suite, others, sorted(pair.head.case.measures)])


def trainings_of(base: Sample, head: Sample, seeds: Sequence[tuple[Sample, Sample]]) -> Trainings | None:
    """Trainings by `seeds`, each known on both sides, else by runs; None where either side is one network.

    One whose runs or seeds all have the same accuracy is the same network seen several times.
    """
    known = [each for each in seeds if each[0].values and each[1].values]
    old, new = (tuple(_mean(each[side].values) for each in known) for side in (0, 1))
    if len(known) > 1 and _is_any_different(old, new):
        return Trainings(base=old, head=new, has_seeds=True)
    old, new = tuple(base.values), tuple(head.values)
    return Trainings(base=old, head=new, has_seeds=False) if _is_any_different(old, new) else None


def mean_row(row: Row, trainings: Trainings) -> Row:
    """`row` with the means that its verdict is about."""
    old, new = (_mean(side) for side in (trainings.base, trainings.head))
    return replace(row, base=old, head=new, ratio=new / old if old > 0 else None)


def find_trainings(row: Row, limits: Limits, trainings: Trainings, *, recipe: str) -> Finding:
    """The difference of the means: over seeds by pairs, over runs by Welch. Cases of one `recipe` have one verdict."""
    from bench.comparison.evidence import change_of_seeds, change_of_trainings

    base, head = trainings.base, trainings.head
    what = "seeds" if trainings.has_seeds else "runs"
    if trainings.has_seeds:
        steps = {new - old for old, new in zip(base, head, strict=True)}
        if steps == {0.0}:
            return settle(row, "same", f"each of {len(base)} seeds scores as before")
        change = change_of_seeds(base, head)
        if change.error == 0:
            reason = f"all {len(base)} seeds changed alike, so how far they differ is not known; more seeds would tell"
            return settle(row, "inconclusive", reason)
        how = f" over {len(base)} seeds"
    else:
        if min(len(base), len(head)) < 2:
            reason = (
                f"{plural(len(base), 'training')} in base and {len(head)} in head, which differ among themselves: "
                "at least 2 a side are needed"
            )
            return settle(row, "inconclusive", reason)
        change = change_of_trainings(base, head)
        how = f" over {len(base)} and {len(head)} runs"
    finding = pending(row, limits, change, basis=how, more=what)
    return replace(finding, family=f"{recipe} {row.metric}" if trainings.has_seeds else "")


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _is_any_different(base: Sequence[float], head: Sequence[float]) -> bool:
    return len({*base}) > 1 or len({*head}) > 1
