"""Estimates the time of the pending runs; an update after each run takes constant time."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from bench.core.errors import BenchError
from bench.core.recipe_choice import RecipeChoice
from bench.core.registry import DATASETS, MEASURES
from bench.core.schema import Case, Json, Point, Record, digest, views_from_text, views_per_video
from bench.core.yaml_tree import read_yaml
from bench.measure.context import find_recipe
from bench.runner.environment import describe_environment
from bench.runner.fingerprint import Fingerprint
from bench.store import read_values

START_SECONDS = 5.0
# A training step computes the forward pass and about twice as much for the gradients of inputs and weights.
FORWARDS_PER_STEP = 3.0
ABSENT = "absent: "
Source = Literal["earlier runs of the case", "runs of similar cases", "measured throughput", "declared durations"]
Kind = frozenset[str]  # the measures of a case: cases of one kind take about as long


@dataclass(kw_only=True)
class _Mean:
    total: float = 0.0
    count: int = 0

    @property
    def value(self) -> float:
        return self.total / self.count


@dataclass(kw_only=True)
class _KindState:
    """Pending runs of one kind: seconds of those whose case ran before, and the number of the others."""

    mean: _Mean = field(default_factory=_Mean)
    known_s: float = 0.0
    unknown: int = 0


class RunEstimate:
    """Seconds that the pending runs will take.

    A run takes the mean of earlier runs of its case, else of cases with the same measures, else the durations that its
    measures declare. The time of an accuracy depends on data set, recipe and clip as well. It is not guessed: `unknown`
    holds the reasons why not all is known.
    """

    def __init__(
        self,
        pending: Iterable[Case],
        history: Iterable[tuple[str, Kind, float]] = (),
        *,
        accuracy_times: "AccuracyTimes | None" = None,
    ) -> None:
        self._cases: dict[str, _Mean] = {}
        self._kinds: dict[Kind, _KindState] = {}
        self._pending: Counter[str] = Counter()
        self._first: dict[str, _FirstAccuracy] = {}  # accuracies of cases that have not run yet
        for case_id, kind, seconds in history:
            self._learn(case_id, kind, seconds)
        for case in pending:
            self._pending[case.id] += 1
            kind = kind_of(case)
            state = self._kinds.setdefault(kind, _KindState())
            if case.id in self._cases:
                state.known_s += self._cases[case.id].value
            elif not _reads_videos(case):
                state.unknown += 1
            elif case.id in self._first:
                self._first[case.id].runs += 1
            else:
                seconds_or_why = accuracy_times.of(case) if accuracy_times else "its data is unknown"
                self._first[case.id] = _FirstAccuracy(kind=kind, computed=seconds_or_why)

    @property
    def left_s(self) -> float:
        """Seconds of the pending runs whose time is known."""
        known = sum(
            state.known_s + (state.unknown * _typical_s(kind, state) if state.unknown else 0.0)
            for kind, state in self._kinds.items()
        )
        first = ((each, self._seconds_of(each)) for each in self._first.values())
        return known + sum(each.runs * seconds for each, seconds in first if isinstance(seconds, float))

    @property
    def unknown(self) -> list[str]:
        """The reasons why the time of some pending runs is unknown."""
        found = (self._seconds_of(each) for each in self._first.values())
        return list(dict.fromkeys(reason for reason in found if isinstance(reason, str)))

    def run_s(self, case: Case) -> float | None:
        """Seconds of one run of `case`, a case of the plan; None if they are unknown."""
        if case.id in self._cases:
            return self._cases[case.id].value
        if case.id in self._first:
            seconds = self._seconds_of(self._first[case.id])
            return seconds if isinstance(seconds, float) else None
        kind = kind_of(case)
        return None if _reads_videos(case) else _typical_s(kind, self._kinds.get(kind, _KindState()))

    def source_of(self, case: Case) -> Source | None:
        """Where the seconds of `run_s` come from; None if they are unknown."""
        if case.id in self._cases:
            return "earlier runs of the case"
        kind = kind_of(case)
        if (first := self._first.get(case.id)) is not None and isinstance(first.computed, float):
            return "measured throughput"
        if kind in self._kinds and self._kinds[kind].mean.count:
            return None if self.run_s(case) is None else "runs of similar cases"
        return None if _reads_videos(case) else "declared durations"

    def _seconds_of(self, first: "_FirstAccuracy") -> float | str:
        state = self._kinds[first.kind]
        if isinstance(first.computed, str) and state.mean.count and not first.computed.startswith(ABSENT):
            return state.mean.value
        return first.computed

    def expected_s(self, case: Case) -> float | None:
        """The mean seconds of earlier runs of `case`; None if it has not run yet."""
        mean = self._cases.get(case.id)
        return mean.value if mean else None

    def finish(self, record: Record) -> None:
        """Remove a run from the pending ones, and learn how long it took."""
        kind, case_id = kind_of(record.case), record.case_id
        state = self._kinds.setdefault(kind, _KindState())
        left = self._pending[case_id] - 1
        if case_id in self._cases:
            state.known_s -= (left + 1) * self._cases[case_id].value
        elif self._first.pop(case_id, None) is None:
            state.unknown -= left + 1
        self._pending[case_id] = left
        if "whole" in record.seconds and (record.is_good or record.status == "timeout"):
            self._learn(case_id, kind, record.seconds["whole"])
        if case_id in self._cases:
            state.known_s += left * self._cases[case_id].value
        else:
            state.unknown += left

    def _learn(self, case_id: str, kind: Kind, seconds: float) -> None:
        if (state := self._kinds.get(kind)) is None:
            state = self._kinds[kind] = _KindState()
        if (mean := self._cases.get(case_id)) is None:
            mean = self._cases[case_id] = _Mean()
        for each in (mean, state.mean):
            each.total += seconds
            each.count += 1


@dataclass(kw_only=True)
class _FirstAccuracy:
    """Pending runs of an accuracy without an earlier run: the seconds of each, or why they are unknown."""

    kind: Kind
    computed: float | str
    runs: int = 1


def _reads_videos(case: Case) -> bool:
    """Whether the time of a case depends on the size of its data set."""
    return not {"accuracy", "frozen"}.isdisjoint(case.measures)


def kind_of(case: Case) -> Kind:
    """The measures of a case, and for an accuracy the axes that its time depends on."""
    point = case.point
    axes = (("dataset", point.dataset), ("recipe", point.recipe), ("views", point.views), ("clip", point.clip))
    marks = [f"{name}={value}" for name, value in axes] if _reads_videos(case) else []
    return frozenset({*case.measures, *marks})


def _typical_s(kind: Kind, state: _KindState) -> float:
    if state.mean.count:
        return state.mean.value
    return START_SECONDS + sum(MEASURES.get(name).duration_s for name in kind if name in MEASURES)


class AccuracyTimes:
    """Seconds of accuracies from clips, epochs and the rates that throughput records of the same folder hold.

    Only rates on hardware that `is_like` accepts count; by default that of this machine.
    """

    def __init__(
        self,
        records: Sequence[Path],
        fingerprints: Mapping[str, Fingerprint],
        recipes: Sequence[Path],
        *,
        is_like: Callable[[Mapping[str, Any]], bool] | None = None,
    ) -> None:
        self._files, self._fingerprints, self._recipes = records, fingerprints, tuple(recipes)
        self._is_like = is_like

    def of(self, case: Case) -> float | str:
        """Return the seconds of one run of `case`, or why they are unknown."""
        point, fingerprint = case.point, self._fingerprints.get(case.id)
        if fingerprint is not None and fingerprint.absent:
            return f"{ABSENT}{fingerprint.absent[0]}"
        if point.dataset is not None and DATASETS.get(point.dataset).is_generated:
            return f"data set {point.dataset} is generated when it is first used"
        if fingerprint is None or not fingerprint.videos:
            return f"the videos of data set {point.dataset} are not counted"
        rate = self._rates.get(_model_key(point.named()))
        if rate is None:
            return f"no throughput of {point.model} {point.clip} has been measured here"
        evaluated, *others = fingerprint.videos.values()
        views = views_per_video(views_from_text(point.views or "1x1"))
        if views is None:
            return f"views {point.views} give each video as many clips as it is long"
        clips = float(evaluated * views)
        if "frozen" in case.measures:  # features of the training videos; its heads add little
            clips += sum(others) * views
        if point.recipe is not None:
            epochs = self._epochs(point.recipe)
            if epochs is None or not others:
                return f"the epochs of recipe {point.recipe} are unknown"
            clips += FORWARDS_PER_STEP * others[0] * epochs
        return START_SECONDS + clips / rate

    @cached_property
    def _rates(self) -> dict[str, float]:
        """The best measured clips per second by model, arguments and clip."""
        found: dict[str, float] = {}
        if not self._files:
            return found
        is_like = self._is_like or _is_like_here()
        rates = (values for file in self._files for values in read_values(file, "throughput.clips_per_s"))
        for axes, hardware, rate in rates:
            if rate and is_like(hardware):
                key = _model_key(axes)
                found[key] = max(found.get(key, 0.0), rate)
        return found

    def _epochs(self, recipe: str) -> int | None:
        """Read the epochs of a recipe without importing what training needs."""
        file = find_recipe(recipe, self._recipes)
        try:
            data = read_yaml(file).data if file else None
        except BenchError:
            return None  # the training reports what is wrong in the recipe
        epochs = RecipeChoice.parse(recipe).changes.get("epochs")
        if epochs is None:
            epochs = data.get("epochs") if isinstance(data, Mapping) else None
        return epochs if isinstance(epochs, int) and epochs > 0 else None


def _is_like_here() -> Callable[[Mapping[str, Any]], bool]:
    here = describe_environment().hardware
    return lambda hardware: all(hardware.get(name) == here.get(name) for name in ("cpu", "gpu"))


def _model_key(axes: Mapping[str, Json]) -> str:
    """A hash of model, arguments and clip, from the axes of a point by name."""
    others = Point.model_fields.keys() - {"model", "clip"}
    return digest({name: value for name, value in axes.items() if name not in others})
