"""The accuracy ledger: every published accuracy of a model with the measured one, and the outcome of the comparison.

Two accuracies are compared only if everything known of their protocols agrees. Differences are listed.
"""

import json
import math
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from bench.core.schema import Json, Point, Pretraining, SlidingWindows, is_weights_argument, views_from_text
from bench.reference.published import PublishedRow, ZooRow, published_for, zoo_names
from bench.reference.published_protocol import PublishedProtocol, published_protocol
from bench.reporting.case_results import CaseResult, MetricSummary, summarise_values

Outcome = Literal["reproduced", "not reproduced", "not comparable", "not run", "claim without source"]

FOLDS = (1, 2, 3)
ENOUGH_VIEWS = 5  # this many temporal views count as clips over the whole video
MOST_MISSING = 0.05  # with a larger share of missing test videos, the accuracy is of another test set
NO_PRETRAINING = ("", "None")
ZERO_SHOT = "zero-shot"
HUB = "hf:"


@dataclass(frozen=True, kw_only=True)
class EvaluatedModel:
    """One model with one training: its evaluated cases over splits and seeds.

    `zoo` is the name of the model in the zoo, None if it is in none. `metric` is the key of its top-1 accuracy. `head`
    is the kind of head if it was trained on frozen features, `zero-shot` if classes were scored by texts, else empty.
    """

    zoo: str | None
    point: Point
    initial_weights: str | None
    cases: tuple[CaseResult, ...]
    metric: str = "accuracy.top1"
    head: str = ""

    @cached_property
    def folds(self) -> Mapping[int | None, tuple[CaseResult, ...]]:
        """Cases by the number of the official split that they were evaluated on; None if splits have no number."""
        found: dict[int | None, list[CaseResult]] = defaultdict(list)
        for case in self.cases:
            found[fold_of(case.case.point)].append(case)
        return {fold: tuple(cases) for fold, cases in found.items()}

    def summary(self, metric: str, *, folds: Iterable[int | None]) -> MetricSummary | None:
        """The metric over seeds, and the mean over `folds`; None if one of them has no value."""
        found = [_summary_of(self.folds.get(fold, ()), metric) for fold in folds]
        known = [summary for summary in found if summary is not None and summary.value is not None]
        if not known or len(known) < len(found):
            return None
        return known[0] if len(known) == 1 else mean_of(known)

    @property
    def protocols(self) -> list[Mapping[str, Json]]:
        """The protocols of all records."""
        details = [run.details for case in self.cases for run in case.runs]
        if self.head:
            of_heads = [each.get("frozen") for each in details]
            details = [each for each in of_heads if isinstance(each, dict)]
        noted = [each.get("protocol") for each in details]
        return [protocol for protocol in noted if isinstance(protocol, dict)]

    @property
    def prompts(self) -> tuple[str, ...]:
        """The texts into which class names were put for a zero-shot result; empty for others."""
        details = [run.details.get("frozen") for case in self.cases for run in case.runs]
        heads = [head for each in details if isinstance(each, dict) for head in _list(each.get("heads"))]
        found = [_list(head.get("prompts")) for head in heads if isinstance(head, dict) and head.get("prompts")]
        return tuple(str(prompt) for prompt in found[0]) if self.head == ZERO_SHOT and found else ()


@dataclass(frozen=True, kw_only=True)
class LedgerEntry:
    """A published accuracy and the measured one, in percent.

    `low` and `high` are the 95 % interval of `difference`, or nan.

    `differences` lists differing or unknown parts of the protocols; `reason` is given if there is no measured value.
    """

    row: PublishedRow
    zoo: str
    ours: EvaluatedModel | None
    outcome: Outcome
    metric: str
    published: float
    value: float | None = None
    low: float = math.nan
    high: float = math.nan
    differences: tuple[str, ...] = ()
    reason: str = ""

    @property
    def difference(self) -> float | None:
        """Measured minus published accuracy, in points."""
        return None if self.value is None else self.value - self.published


def ledger(cases: Sequence[CaseResult]) -> list[LedgerEntry]:
    """Every published accuracy of the models and data sets of `cases`, paired with each matching measured one."""
    measured: dict[tuple[str, str | None], list[EvaluatedModel]] = defaultdict(list)
    for each in (*evaluated_models(cases), *evaluated_heads(cases)):
        if each.zoo is not None:
            measured[each.zoo, each.point.dataset].append(each)
    entries: list[LedgerEntry] = []
    for (zoo, dataset), mine in measured.items():
        for found in dict.fromkeys(published_for(zoo)):
            if published_protocol(found).dataset == dataset and found.row.top1 is not None:
                # A head on frozen features answers another question than a model trained as a whole.
                alike = [each for each in mine if not each.head or each.head == found.row.adaptation]
                if alike:
                    entries += _entries(found, alike)
    return entries


def evaluated_models(cases: Sequence[CaseResult]) -> list[EvaluatedModel]:
    """The accuracies of `cases` by model, training and data set, in order of appearance."""
    groups: dict[str, list[CaseResult]] = defaultdict(list)
    for case in cases:
        if case.case.point.dataset is not None and "accuracy" in case.case.measures:
            shared = case.case.point.model_copy(update={"seed": None, "split": None})
            groups[json.dumps([case.case.suite, shared.model_dump(mode="json")], sort_keys=True)].append(case)
    points = [(group[0].case.point, tuple(group)) for group in groups.values()]
    return [
        EvaluatedModel(zoo=zoo_name(point), point=point, initial_weights=initial_weights(point), cases=found)
        for point, found in points
    ]


def evaluated_heads(cases: Sequence[CaseResult]) -> list[EvaluatedModel]:
    """The heads on frozen features, by backbone and kind of head: those trained with all videos, and zero-shot ones."""
    return [
        EvaluatedModel(
            zoo=(zoo_name(point) or "").removesuffix("_encoder") or None,
            point=point,
            initial_weights=initial_weights(point),
            cases=(case,),
            metric=key,
            head=ZERO_SHOT if labels["head"] == "zero_shot" else labels["head"],
        )
        for case in cases
        if (point := case.case.point).dataset is not None
        for key, recorded in case.metrics.items()
        if recorded[0].metric.name == "frozen.top1"
        and "head" in (labels := recorded[0].metric.labels)
        and (labels.get("shots") == "all" or labels["head"] == "zero_shot")
    ]


def zoo_name(point: Point) -> str | None:
    """The name of this model in the zoo: `resnet3d_50` for resnet3d of depth 50; None if other arguments are set.

    A folder that has the name of a model on the Hugging Face hub is taken for that model.
    """
    args = {k: v for k, v in point.args.items() if k != "num_classes" and not is_weights_argument(k)}
    depth = args.pop("depth", None)
    if args:
        return None
    if point.model.startswith(HUB):
        folder = point.model.removeprefix(HUB).rstrip("/").rpartition("/")[2]
        known = (name for name in zoo_names() if name.startswith(HUB) and name.endswith(f"/{folder}"))
        return next(known, point.model)
    return point.model if depth is None else f"{point.model}_{depth}"


def initial_weights(point: Point) -> str | None:
    """The initial weights of a model: a pretraining, a file, or the value of a weights argument."""
    named = [str(value) for name, value in point.args.items() if is_weights_argument(name) and value is not None]
    return point.weights or ", ".join(named) or None


def fold_of(point: Point) -> int | None:
    """The number of the official split: 1 of `1` and of `test1`."""
    number = re.search(r"\d+$", str(point.split))
    return int(number[0]) if number else None


def mean_of(summaries: Sequence[MetricSummary]) -> MetricSummary:
    """The mean over splits, with the mean of their intervals (right for fully correlated errors, else too wide)."""
    values = [summary.value for summary in summaries if summary.value is not None]
    first, count = summaries[0], len(summaries)
    return MetricSummary(
        value=math.fsum(values) / count,
        unit=first.unit,
        better=first.better,
        low=math.fsum(summary.low for summary in summaries) / count,
        high=math.fsum(summary.high for summary in summaries) / count,
        how=f"mean of {count} splits",
    )


def _entries(found: ZooRow, ours: Sequence[EvaluatedModel]) -> Iterator[LedgerEntry]:
    """One entry for each measured accuracy, else one with the reason why there is none."""
    taken = [entry for each in ours if (entry := _compared(found, each)) is not None]
    if taken:
        yield from taken
        return
    errors = [run.error.message for each in ours for case in each.cases for run in case.failures if run.error]
    yield LedgerEntry(
        row=found.row,
        zoo=found.zoo,
        ours=None,
        outcome="claim without source" if _is_unsupported(found.row) else "not run",
        metric="accuracy.top1",
        published=_percent(found.row.top1),
        reason=errors[0].split("\n")[0] if errors else "",
    )


def _compared(found: ZooRow, ours: EvaluatedModel) -> LedgerEntry | None:
    """The published row with this model's accuracy; None if it has none."""
    printed = published_protocol(found)
    known = [fold for fold, cases in ours.folds.items() if _summary_of(cases, ours.metric) is not None]
    folds = _folds(printed, known)
    summary = ours.summary(ours.metric, folds=folds)
    if summary is None or summary.value is None:
        return None
    decisive, minor = _protocol_differences(found, printed, ours, folds=folds)
    published = _percent(found.row.top1)
    return LedgerEntry(
        row=found.row,
        zoo=found.zoo,
        ours=ours,
        outcome=_outcome(found.row, published, summary, is_alike=not decisive),
        metric=ours.metric,
        published=published,
        value=summary.value,
        low=summary.low - published,
        high=summary.high - published,
        differences=(*decisive, *minor),
    )


def _folds(printed: PublishedProtocol, known: Sequence[int | None]) -> list[int | None]:
    """The measured splits that match the published row, or the nearest available ones."""
    if printed.is_mean:
        return [fold for fold in FOLDS if fold in known] or list(known[:1])
    return [printed.fold] if printed.fold in known else list(known[:1])


def _outcome(row: PublishedRow, published: float, ours: MetricSummary, *, is_alike: bool) -> Outcome:
    """Reproduced if the measured interval, widened by half a unit of the last published digit, contains the value."""
    if _is_unsupported(row):
        return "claim without source"
    if not is_alike or not ours.has_interval:
        return "not comparable"
    half = 0.5 * 10 ** -len(str(published).partition(".")[2])
    return "reproduced" if ours.low - half <= published <= ours.high + half else "not reproduced"


def _protocol_differences(
    found: ZooRow, printed: PublishedProtocol, ours: EvaluatedModel, *, folds: Sequence[int | None]
) -> tuple[list[str], list[str]]:
    """The differences that rule a comparison out, and the ones that do not."""
    decisive = [*_split_differences(printed, ours, folds), *_clip_differences(printed, ours.point)]
    if not ours.head:  # a frozen backbone is always pretrained
        decisive += _pretraining_differences(found.row.pretrain, ours)
    decisive += [*_adaptation_difference(printed, ours), *_sampling_difference(printed, ours)]
    decisive += _prompts_difference(printed, ours)
    minor: list[str] = []
    views = _views_difference(printed, ours.point.views or "1x1")
    (minor if _is_nearly_dense(printed, ours.point) else decisive).extend(views)
    for protocol in ours.protocols:
        lost, annotated = (int(_number(protocol.get(name))) for name in ("missing", "annotated"))
        if lost:
            place = decisive if lost > MOST_MISSING * max(annotated, 1) else minor
            place.append(f"{lost} of {annotated} videos missing")
        shared = protocol.get("shared_with_training")
        if isinstance(shared, dict) and any(_number(count) for count in shared.values()):
            decisive.append("test videos share material with the training set")
    return list(dict.fromkeys(decisive)), list(dict.fromkeys(minor))


def _split_differences(printed: PublishedProtocol, ours: EvaluatedModel, folds: Sequence[int | None]) -> Iterator[str]:
    if printed.is_mean and set(folds) != set(FOLDS):
        there = ", ".join(str(fold) for fold in folds)
        yield f"mean of 3 splits v split {there}"
    if printed.fold is not None and printed.fold not in folds:
        yield f"split {printed.fold} v {folds[0]}"
    if not printed.is_mean and printed.fold is None and folds[0] is not None:
        yield f"split not stated v {folds[0]}"
    part = next((str(protocol["split"]) for protocol in ours.protocols if "split" in protocol), ours.point.split)
    if printed.part is not None and part is not None and folds[0] is None and printed.part != part:
        yield f"{printed.part} set v {part} set"


def _clip_differences(printed: PublishedProtocol, point: Point) -> Iterator[str]:
    clip = point.clip
    if printed.frames is not None and printed.frames != clip.frames:
        yield f"{printed.frames} frames v {clip.frames}"
    if printed.stride is not None and printed.stride != clip.stride:
        yield f"stride {printed.stride} v {clip.stride or f'{clip.fps:g} fps'}"
    if printed.fps is not None and printed.fps != clip.fps:
        yield f"{printed.fps:g} fps v {f'stride {clip.stride}' if clip.fps is None else f'{clip.fps:g} fps'}"
    if printed.crop is not None and (printed.crop, printed.crop) != (clip.height, clip.width):
        yield f"crop {printed.crop} v {clip.height if clip.height == clip.width else f'{clip.height}x{clip.width}'}"


def _adaptation_difference(printed: PublishedProtocol, ours: EvaluatedModel) -> Iterator[str]:
    """A model is trained as a whole here, or only a head of a kind on its frozen features."""
    if ours.head:
        if printed.adaptation != ours.head:
            yield f"{printed.adaptation or 'adaptation not stated'} v {ours.head} head on frozen features"
    elif printed.adaptation not in ("", "fine-tuned", "scratch"):
        yield f"{printed.adaptation} v the whole model trained"


def _prompts_difference(printed: PublishedProtocol, ours: EvaluatedModel) -> Iterator[str]:
    """The texts of the classes decide a zero-shot result as much as the model does."""
    if ours.head == ZERO_SHOT and printed.prompts != ours.prompts:
        there, here = (", ".join(map(repr, prompts)) or "not stated" for prompts in (printed.prompts, ours.prompts))
        yield f"prompts {there} v {here}"


def _sampling_difference(printed: PublishedProtocol, ours: EvaluatedModel) -> Iterator[str]:
    """Frames of neighbouring clips (dense) are other frames than those spread over a whole video (uniform)."""
    own = next((str(each["sampling"]) for each in ours.protocols if each.get("sampling")), None)
    known = {"dense": "blocks", "uniform": "sections"}.get(printed.sampling)
    if known is not None and own is not None and known != own:
        yield f"{printed.sampling} sampling v {own}"


def _pretraining_differences(pretrain: str, ours: EvaluatedModel) -> Iterator[str]:
    """Weights without a recipe here are assumed to be the publisher's; the training of a file is not known."""
    if ours.point.recipe is None:
        return
    was_pretrained = pretrain not in NO_PRETRAINING
    if was_pretrained and ours.initial_weights is None:
        yield f"pretrained on {pretrain} v from scratch"
    if not was_pretrained and ours.initial_weights is not None:
        yield f"from scratch v from {ours.initial_weights}"
    own = Pretraining.of(ours.initial_weights)
    if was_pretrained and own is not None and _plain(own.dataset) != _plain(pretrain):
        yield f"pretrained on {pretrain} v {own.dataset}"


def _views_difference(printed: PublishedProtocol, views: str) -> list[str]:
    if printed.views is None:
        return [f"views: {printed.views_said or 'not stated'} v {views}"]
    return [] if printed.views == views else [f"{printed.views} views v {views}"]


def _is_nearly_dense(printed: PublishedProtocol, point: Point) -> bool:
    temporal, _ = views_from_text(point.views or "1x1")
    return printed.is_dense and (isinstance(temporal, SlidingWindows) or temporal >= ENOUGH_VIEWS)


def _summary_of(cases: Iterable[CaseResult], metric: str) -> MetricSummary | None:
    recorded = [recorded_metric for case in cases for recorded_metric in case.metrics.get(metric, ())]
    return summarise_values(recorded) if recorded else None


def _is_unsupported(row: PublishedRow) -> bool:
    return row.status == "claimed, unsupported"


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _percent(value: float | None) -> float:
    return math.nan if value is None else value


def _list(value: Json) -> list[Json]:
    return value if isinstance(value, list) else []


def _number(value: Json) -> float:
    return float(value) if isinstance(value, int | float) else 0.0
