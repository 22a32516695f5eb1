"""Effect of one factor: every level compared with the baseline, in pairs that are equal in everything else."""

import json
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

from bench.core.schema import Clip, Json, Record
from bench.core.stats import Estimate, paired_difference
from bench.reporting.board import Column, column_of, headlines_of, in_order
from bench.reporting.case_results import (
    PROTOCOL_AXES,
    SHARES,
    CaseResult,
    MetricSummary,
    RecordedMetric,
    summarise_values,
)
from bench.reporting.metric_text import value_text

Verdict = Literal[
    "better",
    "worse",
    "higher",
    "lower",
    "no difference seen",
    "the same",
    "depends on the setting",
    "one pair",
    "doubtful",
]
REPETITIONS = ("seed", "run")  # values are repeated along these axes, not varied
DifferenceOverVideos = Callable[[Record, Record], Estimate | None]  # of top-1, as a fraction of 1, on the same videos
UNSET = "not set"  # an axis or argument that only other values of the same metric set
POINTS = ("%", "fraction", "pt")  # differences in these units are given in points, all others as ratios


@dataclass(frozen=True, kw_only=True)
class LevelValue:
    """One value of one metric, with the level of the factor and every other setting."""

    level: str
    setting: Mapping[str, Json]
    column: Column
    recorded_metric: RecordedMetric
    value: float

    @cached_property
    def pair_key(self) -> str:
        """Equal for values that differ only in the level."""
        return json.dumps(self.setting, sort_keys=True)

    @cached_property
    def context(self) -> dict[str, Json]:
        """The setting without seed and run."""
        return {k: v for k, v in self.setting.items() if k not in REPETITIONS}

    @cached_property
    def place(self) -> tuple[Column, str]:
        """Equal for values of one metric in one setting."""
        return self.column, json.dumps(self.context, sort_keys=True)


@dataclass(frozen=True, kw_only=True)
class Effect:
    """One level in one metric, and its difference from the baseline over `pairs` pairs.

    `difference` is in the metric's unit, or a ratio to the baseline if `is_ratio` (1 means no difference). It is None
    for the baseline itself and if no pair was found. Its ends are nan if there is no interval. If it `is_of_weights`,
    each side was trained once and the interval is over the videos: it does not cover how trainings differ.
    """

    level: str
    column: Column
    values: tuple[float, ...]
    summary: MetricSummary
    is_ratio: bool
    is_exact: bool
    difference: Estimate | None = None
    pairs: int = 0
    verdict: Verdict | None = None
    is_of_weights: bool = False

    @property
    def is_settled(self) -> bool:
        """Whether the data decide the direction of the difference."""
        return self.verdict in ("better", "worse", "higher", "lower")


@dataclass(frozen=True, kw_only=True)
class Ablation:
    """One factor of one suite. `levels` maps the key of each level to its value, the baseline first."""

    suite: str
    factor: str
    baseline: str
    levels: Mapping[str, Json]
    columns: tuple[Column, ...]
    level_values: tuple[LevelValue, ...]
    over_videos: DifferenceOverVideos

    @cached_property
    def effects(self) -> Mapping[tuple[str, Column], Effect]:
        """Every level in every metric."""
        cells: dict[tuple[str, Column], list[LevelValue]] = defaultdict(list)
        for each in self.level_values:
            cells[each.level, each.column].append(each)
        ratios = {column: _is_ratio(column, self.level_values) for column in self.columns}
        return {
            (level, column): _effect(
                cell,
                [] if level == self.baseline else cells.get((self.baseline, column), []),
                is_ratio=ratios[column],
                over_videos=self.over_videos,
            )
            for (level, column), cell in cells.items()
        }

    @property
    def baseline_text(self) -> str:
        """The text of the baseline's level, measured or not."""
        return level_text(json.loads(self.baseline))

    @property
    def has_baseline(self) -> bool:
        return self.baseline in self.levels

    @cached_property
    def contexts(self) -> tuple[dict[str, Json], ...]:
        """The settings of the other axes, without repetitions; empty if there is only one.

        A setting that is part of a longer one is left out: a count's setting is part of a training's.
        """
        once = list({json.dumps(part, sort_keys=True): part for part in self._parts.values() if part}.values())
        longest = max(map(len, once), default=0)
        return tuple(p for p in once if len(p) == longest or not any(p.items() < other.items() for other in once))

    @cached_property
    def _parts(self) -> Mapping[tuple[Column, str], dict[str, Json]]:
        """By place, every varying axis on which its metric depends.

        A metric depends on every axis that one of its values names. An axis varies if it has several values over the
        metrics that depend on it; UNSET counts as a value.
        """
        places = {each.place: each for each in self.level_values}.values()
        axes: dict[Column, dict[str, None]] = defaultdict(dict)
        for each in places:
            axes[each.column].update(dict.fromkeys(each.context))
        settings = {each.place: {name: each.context.get(name, UNSET) for name in axes[each.column]} for each in places}
        values: dict[str, set[str]] = defaultdict(set)
        for setting in settings.values():
            for name, value in setting.items():
                values[name].add(json.dumps(value))
        return {
            place: {name: value for name, value in setting.items() if len(values[name]) > 1}
            for place, setting in settings.items()
        }

    @property
    def goal(self) -> Column | None:
        """The metric of the findings: the accuracy with the most values, else the first measured one."""
        seen = Counter(each.column for each in self.level_values)
        accuracies = [c for c in self.columns if c.metric.startswith("accuracy.")]
        first = [c for c in accuracies if c.metric == "accuracy.top1"] or accuracies
        sampled = [c for c in self.columns if c.is_of_machine]
        return max(first, key=lambda c: seen[c], default=next(iter([*sampled, *self.columns]), None))

    def within(self, context: Mapping[str, Json]) -> "Ablation":
        """The same levels under one setting of the rest, in the metrics whose varying axes `context` fixes."""
        kept = tuple(o for o in self.level_values if self._parts[o.place].items() <= context.items())
        seen = {o.column for o in kept}
        return replace(self, level_values=kept, columns=tuple(c for c in self.columns if c in seen))


def ablate(
    cases: Sequence[CaseResult],
    *,
    factor: str,
    baseline: Mapping[str, Json],
    over_videos: DifferenceOverVideos = lambda ours, theirs: None,
) -> Ablation | None:
    """The levels of `factor` over the cases of one suite; None if fewer than two levels have a result.

    `over_videos` compares two records on the videos that both evaluated, for levels that were trained once.
    """
    level_values = [each for case in cases for each in _observe(case, factor)]
    if baseline.get(factor, ...) is None:
        level_values = [*_with_unset_factor(cases, factor, level_values=level_values), *level_values]
    columns = headlines_of(in_order(o.column for o in level_values))
    kept = tuple(o for o in level_values if o.column in columns)
    levels = {o.level: json.loads(o.level) for o in kept}
    if len(levels) < 2:
        return None
    first = (
        _key(_as_stored(factor, baseline[factor]))
        if factor in baseline
        else min(levels, key=lambda k: _place(levels[k]))
    )
    return Ablation(
        suite=cases[0].case.suite,
        factor=factor,
        baseline=first,
        levels={key: levels[key] for key in sorted(levels, key=lambda key: (key != first, _place(levels[key])))},
        columns=columns,
        level_values=kept,
        over_videos=over_videos,
    )


def _with_unset_factor(
    cases: Sequence[CaseResult], factor: str, *, level_values: Sequence[LevelValue]
) -> Iterator[LevelValue]:
    """Values of cases without a level of `factor` (such as no weights) that otherwise match `level_values`."""
    alike = {(each.column, each.pair_key) for each in level_values}
    for case in cases:
        if factor not in case.case.point.named():
            yield from (o for o in _observe(case, factor, has_level=False) if (o.column, o.pair_key) in alike)


def _observe(case: CaseResult, factor: str, *, has_level: bool = True) -> Iterator[LevelValue]:
    """The values of every metric of `case` if it has a level of `factor`; without `has_level` its level is null.

    The protocol is part of the column, except for a factor that is itself an axis of the protocol.
    """
    axes = case.case.point.named()
    if has_level and factor not in axes:
        return
    level = _key(axes.pop(factor, None))
    setting = {k: v for k, v in axes.items() if k not in PROTOCOL_AXES}
    for recorded in case.metrics.values():
        column = column_of(case, recorded[0])
        column = replace(column, protocol=tuple(each for each in column.protocol if each[0] != factor))
        for each in recorded:
            if each.value is not None:
                place = {**setting, **({"machine": each.machine} if each.machine else {}), "run": each.record.run_index}
                yield LevelValue(level=level, setting=place, column=column, recorded_metric=each, value=each.value)


def _is_ratio(column: Column, level_values: Sequence[LevelValue]) -> bool:
    """Whether differences in this metric are ratios: amounts above zero are, shares are not."""
    return column.unit not in POINTS and all(each.value > 0 for each in level_values if each.column == column)


def _effect(
    cell: Sequence[LevelValue], baseline: Sequence[LevelValue], *, is_ratio: bool, over_videos: DifferenceOverVideos
) -> Effect:
    """The effect of one level; `baseline` is empty if there is nothing to compare with."""
    effect = Effect(
        level=cell[0].level,
        column=cell[0].column,
        values=tuple(each.value for each in cell),
        summary=summarise_values([each.recorded_metric for each in cell]),
        is_ratio=is_ratio,
        is_exact=cell[0].recorded_metric.metric.is_exact,
    )
    by_key = {each.pair_key: each for each in baseline}
    pairs = [(each, by_key[each.pair_key]) for each in cell if each.pair_key in by_key]
    if not pairs:
        return effect
    difference = _difference(pairs, is_ratio=is_ratio)
    verdict = _verdict(pairs, difference)
    on_same_videos = _over_videos(*pairs[0], over_videos) if verdict == "one pair" else None
    if on_same_videos is not None:
        is_seen = not on_same_videos.covers_zero
        better = _direction(is_higher=on_same_videos.value > 0, better=effect.summary.better)
        effect = replace(effect, is_of_weights=True)
        difference, verdict = on_same_videos, better if is_seen else "no difference seen"
    whole = SHARES.get(effect.column.unit, math.inf)
    difference = replace(difference, low=max(difference.low, -whole), high=min(difference.high, whole))
    if is_ratio:
        difference = Estimate(**{name: math.exp(getattr(difference, name)) for name in ("value", "low", "high")})
    return replace(effect, difference=difference, pairs=len(pairs), verdict=verdict)


def _over_videos(ours: LevelValue, theirs: LevelValue, compare: DifferenceOverVideos) -> Estimate | None:
    """The difference of two top-1 on the same videos in their unit; None if the predictions of both are not at hand."""
    unit = ours.column.unit
    if ours.column.metric != "accuracy.top1" or ours.column.labels or unit not in SHARES:
        return None
    found = compare(ours.recorded_metric.record, theirs.recorded_metric.record)
    # Another difference than that of the records is of other predictions.
    if found is None or not math.isclose(found.value * SHARES[unit], ours.value - theirs.value, abs_tol=1e-6):
        return None
    return Estimate(**{name: getattr(found, name) * SHARES[unit] for name in ("value", "low", "high")})


def _difference(pairs: Sequence[tuple[LevelValue, LevelValue]], *, is_ratio: bool) -> Estimate:
    """Mean difference over pairs, on the logarithmic scale for ratios, with its 95 % interval.

    Accuracies get the wider of two intervals: over the pairs, and over the videos of the test set.
    """
    scale = math.log if is_ratio else float
    found = paired_difference([scale(a.value) for a, _ in pairs], [scale(b.value) for _, b in pairs])
    ends = [_test_set_ends(a, b) for a, b in pairs] if pairs[0][0].column.protocol and not is_ratio else []
    known = [each for each in ends if each is not None]
    if len(pairs) < 2 or len(known) < len(pairs):
        return found
    below, above = (math.fsum(side) / len(known) for side in zip(*known, strict=True))
    return Estimate(
        value=found.value, low=min(found.low, found.value - below), high=max(found.high, found.value + above)
    )


def _test_set_ends(a: LevelValue, b: LevelValue) -> tuple[float, float] | None:
    """Distances of the ends of the interval of a difference of two shares, from the interval of each.

    Newcombe, 1998, Statistics in Medicine 17(8), method 10, for independent samples: too wide for equal videos.
    """
    ours, theirs = a.recorded_metric.metric.interval, b.recorded_metric.metric.interval
    if ours is None or theirs is None:
        return None
    below = math.hypot(a.value - ours[0], theirs[1] - b.value)
    above = math.hypot(ours[1] - a.value, b.value - theirs[0])
    return below, above


def _verdict(pairs: Sequence[tuple[LevelValue, LevelValue]], difference: Estimate) -> Verdict:
    signs = {(a.value > b.value) - (a.value < b.value) for a, b in pairs}
    is_exact = pairs[0][0].recorded_metric.metric.is_exact
    if is_exact and len(signs) > 1:
        return "depends on the setting"
    if is_exact:
        return "the same" if signs == {0} else _direction(is_higher=signs.pop() > 0, better=None)
    if any(each.recorded_metric.doubts for pair in pairs for each in pair):
        return "doubtful"
    if len(pairs) < 2:
        return "one pair"
    if difference.covers_zero:
        return "no difference seen"
    return _direction(is_higher=difference.value > 0, better=pairs[0][0].column.better)


def _direction(*, is_higher: bool, better: str | None) -> Verdict:
    if better is None:
        return "higher" if is_higher else "lower"
    return "better" if is_higher == (better == "higher") else "worse"


def level_text(level: Json) -> str:
    """The text of a level; null is `none`, for example no initial weights."""
    return "none" if level is None else value_text(level)


def _as_stored(factor: str, level: Json) -> Json:
    """A level in the form that points store; a suite may write a clip in several forms."""
    return str(Clip.model_validate(level)) if factor == "clip" else level


def _key(level: Json) -> str:
    return json.dumps(level, sort_keys=True)


def _place(level: Json) -> tuple[bool, float, str]:
    """Sort key: numbers in order, then everything else by its text."""
    is_number = isinstance(level, int | float) and not isinstance(level, bool)
    return not is_number, float(level) if isinstance(level, int | float) else 0.0, str(level)
