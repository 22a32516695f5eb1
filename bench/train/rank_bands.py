"""Ranks of several models on the same videos: models that a paired test cannot separate share one.

Every pair is compared by McNemar's exact test on its kept predictions, and the p values are corrected by Holm for the
number of pairs. The best rank of a model is one more than the number of models that are significantly better; its
worst rank is the number of models minus those that are significantly worse.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench.core.errors import InputError
from bench.core.schema import Json
from bench.core.stats import Estimate, holm
from bench.train.predictions import (
    Agreement,
    PredictionFile,
    Predictions,
    aligned,
    compare_predictions,
    kind_of_scores,
    store_predictions,
)

SURE = 0.05


@dataclass(frozen=True, kw_only=True)
class RankBand:
    """The ranks that one model may have among all; `place` is its position in what was given."""

    place: int
    top1: Estimate
    best: int
    worst: int

    @property
    def text(self) -> str:
        """`1`, or `1–3` if several ranks are possible."""
        return str(self.best) if self.best == self.worst else f"{self.best}–{self.worst}"


@dataclass(frozen=True, kw_only=True)
class ComparedPair:
    """Two models by their places, and McNemar's p corrected for all pairs."""

    a: int
    b: int
    agreement: Agreement
    p: float


@dataclass(frozen=True, kw_only=True)
class Ranking:
    """The bands, the highest top-1 first, and the pairs they follow from."""

    bands: tuple[RankBand, ...]
    pairs: tuple[ComparedPair, ...]


def rank_models(predictions: Sequence[Predictions]) -> Ranking:
    """Compare all pairs; raises InputError unless all models scored the same videos with the same labels."""
    places = list(combinations(range(len(predictions)), 2))
    agreements = [compare_predictions(predictions[a], predictions[b]) for a, b in places]
    corrected = holm([agreement.p for agreement in agreements])
    pairs = tuple(
        ComparedPair(a=a, b=b, agreement=agreement, p=p)
        for (a, b), agreement, p in zip(places, agreements, corrected, strict=True)
    )
    better = [0] * len(predictions)
    worse = [0] * len(predictions)
    for pair in pairs:
        if pair.p < SURE:
            winner, loser = (pair.a, pair.b) if pair.agreement.only_a > pair.agreement.only_b else (pair.b, pair.a)
            better[loser] += 1
            worse[winner] += 1
    bands = [
        RankBand(place=place, top1=found.top(1), best=1 + better[place], worst=len(predictions) - worse[place])
        for place, found in enumerate(predictions)
    ]
    return Ranking(bands=tuple(sorted(bands, key=lambda band: (-band.top1.value, band.best))), pairs=pairs)


def ensemble(predictions: Sequence[Predictions]) -> Predictions:
    """The mean of the scores of all models; raises InputError unless they are of one kind, such as means of softmax."""
    first, *others = predictions
    kinds = [kind_of_scores(found) for found in predictions]
    for number, (kind, found) in enumerate(zip(kinds, predictions, strict=True), start=1):
        if kind != kinds[0]:
            raise InputError(f"scores of different kinds cannot be averaged: those of file {number} {kind}")
        if found.scores.shape[1] != first.scores.shape[1]:
            raise InputError(f"scores of heads of different width cannot be averaged: file {number} has another")
    together: list[NDArray[np.floating]] = [
        first.scores.astype(np.float64),
        *(aligned(first, other)[1].scores for other in others),
    ]
    names = [found.model or "a model" for found in predictions]
    protocol: dict[str, Json] = {
        name: value
        for name, value in first.protocol.items()
        if all(other.protocol.get(name) == value for other in others)
    }
    protocol["ensemble"] = [dict(found.protocol) for found in predictions]
    scores = np.mean(together, axis=0).astype(np.float32)
    return replace(first, scores=scores, protocol=protocol, model=" + ".join(names))


@dataclass(frozen=True, kw_only=True)
class RankedFiles:
    """Three or more files, their ranking, and the ensemble of all; None with the reason in `why_not`."""

    files: Sequence[PredictionFile]
    ranking: Ranking
    ensemble: Predictions | None
    why_not: str = ""


def rank_files(files: Sequence[PredictionFile], *, target: Path | None) -> RankedFiles:
    """Rank the models of several files; their ensemble is written to `target` if it is given.

    Raises InputError unless all scored the same videos, and if they cannot be averaged although a target asks for it.
    """
    found = [opened.predictions for opened in files]
    ranking = rank_models(found)
    try:
        together, why_not = ensemble(found), ""
    except InputError as error:
        if target is not None:
            raise
        together, why_not = None, str(error)
    if target is not None and together is not None:
        store_predictions(target, together)
    return RankedFiles(files=files, ranking=ranking, ensemble=together, why_not=why_not)
