"""Effects of changes of the input on a model, from its kept predictions: paired differences, use of time, curves.

The same weights answer the same videos, so every difference is paired: its interval is that of `paired_shares`, its p
value that of McNemar's exact test. Shares are fractions of 1, over the videos with a score for both inputs.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from bench.core.errors import InputError
from bench.core.input_change import UNCHANGED, InputChange
from bench.core.stats import Estimate, mcnemar, quantile
from bench.core.units import MINUS
from bench.train.predictions import Agreement, Predictions, compare_predictions

# Changes after which the order of the frames tells nothing, the better one first.
WITHOUT_ORDER = ("shuffled", "reversed")
ONE_FRAME = "single_frame"
RESAMPLES = 2000


@dataclass(frozen=True, kw_only=True)
class ClassEffect:
    """One class under one change: videos of it, top-1 without and with the change, and McNemar's p."""

    name: str
    videos: int
    unchanged: float
    changed: float
    p: float

    @property
    def difference(self) -> float:
        return self.changed - self.unchanged


@dataclass(frozen=True, kw_only=True)
class ChangeEffect:
    """One change against the unchanged input. `classes` are in the order of their differences, the worst first."""

    name: str
    top1: Estimate
    agreement: Agreement
    classes: tuple[ClassEffect, ...]

    @property
    def difference(self) -> Estimate:
        """Top-1 with the change minus top-1 without."""
        return self.agreement.difference

    @property
    def p(self) -> float:
        return self.agreement.p


@dataclass(frozen=True, kw_only=True)
class UseOfTime:
    """How much of the accuracy depends on time.

    `lost` is the share of top-1 that is gone under the change `without_order`, `one_frame` the share that a single
    frame keeps; both with 95 % intervals over resampled videos, None if the change was not measured.
    """

    without_order: str | None
    lost: Estimate | None
    one_frame: Estimate | None

    @property
    def sentences(self) -> list[str]:
        found = []
        if self.lost is not None:
            found.append(f"{_percent(self.lost)} of the top-1 is lost when the frames are {self.without_order}")
        if self.one_frame is not None:
            found.append(f"one frame of each clip keeps {_percent(self.one_frame)} of it")
        return found


@dataclass(frozen=True, kw_only=True)
class RobustnessCurve:
    """Top-1 of one kind of change by its severity, from mild to hard; the unchanged input is not among the points."""

    name: str
    points: tuple[tuple[float, Estimate], ...]

    @property
    def mean_error(self) -> float:
        """Mean of 1 - top-1 over the severities."""
        return sum(1 - top1.value for _, top1 in self.points) / len(self.points)


@dataclass(frozen=True, kw_only=True)
class ChangeEffects:
    """All effects of the changes of one evaluation, from its kept predictions."""

    unchanged: Estimate
    effects: tuple[ChangeEffect, ...]
    use_of_time: UseOfTime
    curves: tuple[RobustnessCurve, ...]

    @property
    def mean_corruption_error(self) -> float | None:
        """Mean over the kinds of change with severities of their mean error; None if none was measured.

        Hendrycks and Dietterich, 2019, arXiv:1903.12261, without their division by the errors of AlexNet.
        """
        return sum(curve.mean_error for curve in self.curves) / len(self.curves) if self.curves else None


def change_effects(predictions: Mapping[str, Predictions]) -> ChangeEffects | None:
    """Compare each change with the unchanged input; None if nothing was changed or videos have several labels."""
    plain = predictions[UNCHANGED]
    changed = {name: found for name, found in predictions.items() if name != UNCHANGED}
    if not changed or plain.is_multi_label:
        return None
    return ChangeEffects(
        unchanged=plain.top(1),
        effects=tuple(_effect(name, plain, _same_videos(plain, found)) for name, found in changed.items()),
        use_of_time=_use_of_time(plain, changed),
        curves=_curves(changed),
    )


def _same_videos(plain: Predictions, changed: Predictions) -> Predictions:
    """`changed`, which has the rows of `plain` in their order unless a changed file could not be read."""
    if plain.videos != changed.videos:
        missing = len(set(plain.videos) ^ set(changed.videos))
        raise InputError(f"{missing} videos have a score for the unchanged or the changed input only")
    return changed


def _effect(name: str, plain: Predictions, changed: Predictions) -> ChangeEffect:
    right, still = plain.ranks == 0, changed.ranks == 0
    classes = []
    for label in np.unique(plain.labels):
        own = plain.labels == label
        lost, won = int((right & ~still & own).sum()), int((still & ~right & own).sum())
        classes.append(
            ClassEffect(
                name=plain.class_names[int(label)],
                videos=int(own.sum()),
                unchanged=float(right[own].mean()),
                changed=float(still[own].mean()),
                p=mcnemar(lost, won),
            )
        )
    return ChangeEffect(
        name=name,
        top1=changed.top(1),
        agreement=compare_predictions(plain, changed),
        classes=tuple(sorted(classes, key=lambda each: each.difference)),
    )


def _use_of_time(plain: Predictions, changed: Mapping[str, Predictions]) -> UseOfTime:
    without_order = next((name for name in WITHOUT_ORDER if name in changed), None)
    kept = None if without_order is None else _kept_share(plain, changed[without_order])
    return UseOfTime(
        without_order=without_order,
        lost=None if kept is None else Estimate(value=1 - kept.value, low=1 - kept.high, high=1 - kept.low),
        one_frame=_kept_share(plain, changed[ONE_FRAME]) if ONE_FRAME in changed else None,
    )


def _kept_share(plain: Predictions, changed: Predictions) -> Estimate | None:
    """Top-1 with the change over top-1 without, with the 95 % interval of resampled videos; None if nothing is right.

    The bootstrap draws four counts, of videos right or wrong with and without the change; the ratio needs no more.
    """
    right, still = plain.ranks == 0, changed.ranks == 0
    if not right.any():
        return None
    cells = np.array([(right & still).sum(), (right & ~still).sum(), (~right & still).sum(), (~right & ~still).sum()])
    drawn = np.random.default_rng(0).multinomial(cells.sum(), cells / cells.sum(), size=RESAMPLES)
    ratios = ((drawn[:, 0] + drawn[:, 2]) / np.maximum(1, drawn[:, 0] + drawn[:, 1])).tolist()
    return Estimate(value=float(still.sum() / right.sum()), low=quantile(ratios, 0.025), high=quantile(ratios, 0.975))


def _curves(changed: Mapping[str, Predictions]) -> tuple[RobustnessCurve, ...]:
    """A curve for every kind of change with severities, even of one severity."""
    found: dict[str, list[tuple[float, Estimate]]] = {}
    falls: dict[str, bool] = {}
    for name, predictions in changed.items():
        try:
            change = InputChange.parse(name)
        except InputError:  # of a plug-in that is not loaded here
            continue
        if change.entry is not None and change.entry.severities and isinstance(change.value, float):
            severities = change.entry.severities
            falls[change.entry.name] = severities[0] > severities[-1]
            found.setdefault(change.entry.name, []).append((change.value, predictions.top(1)))
    return tuple(
        RobustnessCurve(name=name, points=tuple(sorted(points, key=lambda point: point[0], reverse=falls[name])))
        for name, points in found.items()
    )


def _percent(share: Estimate) -> str:
    return f"{100 * share.value:.0f} % ({100 * share.low:.0f} to {100 * share.high:.0f})".replace("-", MINUS)
