"""Frozen evaluation: small heads on the features of a model that is not trained itself."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import ConfigDict, Field, with_config
from typing_extensions import TypedDict

from bench.core.errors import InputError
from bench.core.input_change import UNCHANGED
from bench.core.input_protocol import InputProtocol, read_class_names
from bench.core.metric_spec import MetricSpec
from bench.core.registry import register_measure
from bench.core.schema import Json, Metric, digest
from bench.core.stats import Estimate, seeds_and_videos
from bench.measure.axis_sets import FROZEN_AXES
from bench.measure.case_evaluation import CaseEvaluation, given_protocol_of, warn_of_assumed
from bench.measure.case_training import CaseTraining
from bench.measure.context import CaseContext

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import nn

    from bench.data.collection import VideoSet
    from bench.train.evaluating import Evaluation
    from bench.train.feature_store import StoredFeatures
    from bench.train.frozen_heads import FittedHead, HeadSettings

Head = Literal["attentive", "linear", "knn", "zero_shot"]
Shots = Annotated[int, Field(ge=1)] | Literal["all"]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]


@with_config(ConfigDict(extra="forbid"))
class Grid(TypedDict, total=False):
    """Learning rates and weight decays to choose from."""

    lr: list[Positive]
    weight_decay: list[NotNegative]


# Chosen here, around the values of DINO's and V-JEPA 2's evaluations. Linear heads are cheap, attentive ones are not.
GRIDS: dict[str, Grid] = {
    "linear": {"lr": [0.001, 0.01, 0.1, 1.0], "weight_decay": [0.0]},
    "attentive": {"lr": [0.0001, 0.0003, 0.001], "weight_decay": [0.01, 0.1]},
}
EPOCHS = {"linear": 100, "attentive": 20}  # of DINO's eval_linear.py and of V-JEPA 2's configurations
PROMPT = "a video of {}"
FEW_CLASSES = 5  # top-5 is always 100 % with so few classes

TOP1 = MetricSpec(
    "frozen.top1",
    "%",
    "higher",
    title="Frozen top-1",
    meaning="share of the test videos that a head on frozen features ranks right, mean over the seeds",
    headline=True,
)
TOP5 = MetricSpec(
    "frozen.top5",
    "%",
    "higher",
    title="Frozen top-5",
    meaning="share of the test videos with the right class among the five highest scores, mean over the seeds",
)
MEAN_CLASS = MetricSpec(
    "frozen.mean_class",
    "%",
    "higher",
    title="Frozen mean class accuracy",
    meaning="top-1 of every class, then their mean, mean over the seeds",
)
CLIPS_PER_S = MetricSpec(
    "frozen.features_clips_per_s",
    "clips/s",
    "higher",
    title="Feature rate",
    meaning="clips per second while the features are taken, decoding included",
)
J_PER_CLIP = MetricSpec(
    "frozen.features_j_per_clip",
    "J",
    "lower",
    title="Feature energy",
    meaning="joules of the device for the features of one clip, idle power included",
)
FEATURE_SECONDS = MetricSpec(
    "frozen.features_seconds",
    "s",
    "lower",
    title="Feature time",
    meaning="time to take the features of the training and test videos once",
)
HEAD_SECONDS = MetricSpec(
    "frozen.head_seconds", "s", "lower", title="Head time", meaning="time to fit a head of one kind for all seeds"
)


@register_measure(
    "frozen",
    depends_on=FROZEN_AXES,
    version=1,
    metrics=(TOP1, TOP5, MEAN_CLASS, CLIPS_PER_S, J_PER_CLIP, FEATURE_SECONDS, HEAD_SECONDS),
    example="{dataset: ucf101, split: 1, head: [attentive, linear, knn], shots: [1, 5, all], views: 2x1}",
    duration_s=60.0,
    order=72,
)
def frozen(
    case: CaseContext,
    *,
    head: Head | list[Head] = "attentive",
    layers: Literal["last"] | Annotated[int, Field(ge=1)] = "last",
    pooling: Literal["head", "mean", "max"] | None = None,
    shots: Shots | list[Shots] = "all",
    seeds: Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)] | None = None,
    grid: Grid | None = None,
    held_out: Annotated[float, Field(gt=0, lt=1)] = 0.2,
    epochs: Annotated[int, Field(ge=1)] | None = None,
    head_batch: Annotated[int, Field(ge=2)] = 128,
    blocks: Annotated[int, Field(ge=1)] = 4,
    neighbours: Annotated[int, Field(ge=1)] = 20,
    temperature: Positive = 0.07,
    classes: str | None = None,
    prompts: str | None = None,
    storage: Literal["fp32", "fp16"] = "fp32",
    root: str | None = None,
    options: dict[str, Json] | None = None,
    batch: Annotated[int, Field(ge=1)] = 16,
    workers: Annotated[int, Field(ge=0)] = 0,
    allow_leaks: list[str] | None = None,
) -> list[Metric]:
    """Top-1, top-5 and mean per-class accuracy in percent of heads on frozen features, and what the features cost.

    Features are taken once per video, view and model, and kept in the results folder. `head` is `attentive` (V-JEPA 2's
    classifier of `blocks` blocks on tokens), `linear` (on pooled vectors) or `knn` (votes of `neighbours` training
    videos, weighted by exp(cosine / `temperature`)). `layers: N` joins the tokens of the last N blocks. `pooling` of
    vectors is `head`, what the model's own classifier reads, or the `mean` (default for several layers) or `max` of the
    tokens. `shots` are training videos of each class, drawn by the seed. `seeds` (0, 1, 2) also start the heads.

    `grid: {lr: […], weight_decay: […]}` lists what to choose from. All heads of the grid are trained together; the best
    on `held_out`, a share of the training videos, is chosen, and trained once more on all of them if `shots` is `all`.
    Few shots are drawn from the other training videos. Test videos take no part in the choice; those that cannot be
    read count as wrong.

    With several views, heads see one of them per epoch and video, and their probabilities are averaged; an attentive
    head joins the tokens of the clips of one crop. `epochs` is 100 for linear and 20 for attentive heads, `head_batch`
    their batch; `batch` clips go through the model at once. `root` and `options` go to the data set. Without weights
    the model is random: its result is what the architecture alone gives.

    `zero_shot` trains nothing: a model of video and text scores the classes by texts. `classes` is a file of class
    names, one a line (default: those of the data set), `prompts` a file of texts with `{}` in place of the name.
    """
    from bench.train.frozen_heads import HeadSettings

    kinds: list[Head] = head if isinstance(head, list) else [head]
    numbers: list[int | Literal["all"]] = shots if isinstance(shots, list) else [shots]
    all_seeds = [0, 1, 2] if seeds is None else seeds
    for name, values in (("head", kinds), ("shots", numbers), ("seeds", all_seeds)):
        if not values or len({*values}) < len(values):
            raise InputError(f"{name} is {values}; give one value, or a list of different ones")
    if "zero_shot" not in kinds and (classes is not None or prompts is not None):
        raise InputError("classes and prompts are for `head: zero_shot`, which is not among the heads")
    frozen_case = _FrozenCase(
        case=case,
        root=root,
        options=options or {},
        workers=workers,
        allow_leaks=tuple(allow_leaks or ()),
        layers=None if layers == "last" else layers,
        pooling=pooling or ("head" if layers == "last" else "mean"),
        with_tokens="attentive" in kinds,
        dtype="float16" if storage == "fp16" else "float32",
        batch=batch,
    )
    fitted = [
        HeadSettings(
            kind=kind,
            grid=_pairs(kind, grid or {}),
            epochs=epochs or EPOCHS.get(kind, 0),
            batch=head_batch,
            blocks=blocks,
            neighbours=neighbours,
            temperature=temperature,
        )
        for kind in kinds
        if kind != "zero_shot"
    ]
    results = frozen_case.fit(fitted, shots=numbers, seeds=all_seeds, held_out=held_out) if fitted else []
    if "zero_shot" in kinds:
        results.append(frozen_case.score_texts(classes=classes, prompts=prompts))
    frozen_case.record(results, has_features=bool(fitted))
    costs = frozen_case.costs() if fitted else ()
    return [*(metric for result in results for metric in result.metrics()), *costs]


def _read_prompts(file: Path) -> tuple[str, ...]:
    """The prompts in a file, one a line. Raises InputError unless each has `{}` once."""
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"the prompts {file} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    for number, line in enumerate(lines, start=1):
        if line.strip() and line.count("{}") != 1:
            raise InputError(f"{file}:{number}: a prompt has {{}} once, in place of the class name; found {line!r}")
    prompts = tuple(line.strip() for line in lines if line.strip())
    if not prompts:
        raise InputError(f"{file} has no prompt; give one a line, such as {PROMPT!r}")
    return prompts


def _pairs(kind: Head, grid: Grid) -> tuple[tuple[float, float], ...]:
    """Every learning rate with every weight decay. Raises InputError for an empty list."""
    if kind not in GRIDS:
        return ()
    rates, decays = grid.get("lr", GRIDS[kind]["lr"]), grid.get("weight_decay", GRIDS[kind]["weight_decay"])
    if not rates or not decays:
        raise InputError(f"grid has an empty list: {grid}; give at least one value, or leave it out")
    return tuple((lr, decay) for lr in rates for decay in decays)


@dataclass(frozen=True, kw_only=True)
class _HeadResult:
    """One kind of head with one number of shots, fitted with every seed, and its evaluation with the first one."""

    settings: "HeadSettings"
    shots: int | Literal["all"]
    seeds: tuple[int, ...]
    fitted: "tuple[FittedHead, ...]"
    evaluations: "tuple[Evaluation, ...]"
    texts: dict[str, Json] | None = None

    @property
    def labels(self) -> dict[str, str]:
        return {"head": self.settings.kind, "shots": str(self.shots)}

    @property
    def adaptation(self) -> str:
        return "zero-shot" if self.texts is not None else f"frozen/{self.settings.kind}"

    def metrics(self) -> Iterator[Metric]:
        first = self.evaluations[0]
        yield self._metric(TOP1, self._share(1), samples=[each.top(1).value for each in self.evaluations])
        if first.scores.shape[1] > FEW_CLASSES:
            yield self._metric(TOP5, self._share(FEW_CLASSES), samples=[each.top(5).value for each in self.evaluations])
        of_class = self._share(1, by_class=True)
        yield self._metric(MEAN_CLASS, of_class, samples=[each.mean_class for each in self.evaluations])
        if self.fitted:
            yield HEAD_SECONDS.metric(sum(each.seconds for each in self.fitted), labels=self.labels)

    def _metric(self, spec: MetricSpec, share: Estimate, *, samples: Iterable[float]) -> Metric:
        note = None
        if len(self.seeds) == 1:
            is_trained = self.settings.kind in EPOCHS
            note = "interval over the videos only" if is_trained else "nothing depends on the seed"
        return spec.metric(
            100 * share.value,
            interval=(100 * share.low, 100 * share.high),
            samples=tuple(100 * sample for sample in samples) if len(self.seeds) > 1 else (),
            labels=self.labels,
            note=note,
        )

    def _share(self, k: int, *, by_class: bool = False) -> Estimate:
        """Over the seeds and videos; videos that could not be read are misses of every seed."""
        first = self.evaluations[0]
        missed = [0.0] * len(first.unread_labels)
        hits = [[*(each.ranks < k).astype(float).tolist(), *missed] for each in self.evaluations]
        classes = [*first.labels.tolist(), *first.unread_labels.tolist()]
        return seeds_and_videos(hits, classes if by_class else None)

    def detail(self) -> dict[str, Json]:
        """The settings of this head for the record, and for each seed what was chosen."""
        kind = self.settings.kind
        if self.texts is not None:
            return {**self.labels, "adaptation": self.adaptation, **self.texts}
        how: dict[str, Json] = (
            {"neighbours": self.settings.neighbours, "temperature": self.settings.temperature}
            if kind == "knn"
            else {
                "epochs": self.settings.epochs,
                "batch": self.settings.batch,
                **({"blocks": self.settings.blocks} if kind == "attentive" else {}),
                "grid": [list(pair) for pair in self.settings.grid],
                "chosen": [
                    {
                        "seed": seed,
                        "lr": each.lr,
                        "weight_decay": each.weight_decay,
                        "held_out_top1": each.held_out_top1,
                    }
                    for seed, each in zip(self.seeds, self.fitted, strict=True)
                ],
            }
        )
        return {**self.labels, "adaptation": self.adaptation, "seeds": list(self.seeds), **how}


@dataclass(frozen=True, kw_only=True)
class _FrozenCase:
    """The data, features and heads of one case."""

    case: CaseContext
    root: str | None
    options: dict[str, Json]
    workers: int
    allow_leaks: tuple[str, ...]
    layers: int | None
    pooling: Literal["head", "mean", "max"]
    with_tokens: bool
    dtype: str
    batch: int

    @cached_property
    def training(self) -> CaseTraining:
        from bench.train.ranks import current_ranks

        return CaseTraining(
            case=self.case,
            root=self.root,
            options=self.options,
            workers=self.workers,
            given=given_protocol_of(self.case),
            allow_leaks=self.allow_leaks,
            ranks=current_ranks(),
            tensorboard=False,
            country=None,
        )

    @cached_property
    def test(self) -> "VideoSet":
        return self._single_label(self.training.videos("evaluated"))

    @cached_property
    def train(self) -> "VideoSet":
        videos = self._single_label(self.training.videos("trained"))
        self.training.guard(videos, self.test)
        return videos

    @cached_property
    def evaluating(self) -> CaseEvaluation:
        return CaseEvaluation(case=self.case, test=self.test, given=self.training.given)

    @cached_property
    def model(self) -> "nn.Module":
        """The backbone with its weights; it is trained first if the case asks for pretraining.

        Raises InputError if the file of weights lacks more than the classifier, which is not used.
        """
        from bench.models.weights.load_report import require_trained_features

        self.training.pretrain(self.test)
        model = self.case.build_model(needs_head=False)
        require_trained_features(model)
        return model

    @cached_property
    def protocol(self) -> InputProtocol:
        return self.evaluating.protocol_of_checkpoint(self.model)

    @cached_property
    def features(self) -> "tuple[StoredFeatures, StoredFeatures]":
        """Features of the training and of the test videos; cases with the same backbone and input share them."""
        from bench.train.accuracy_protocol import training_notes
        from bench.train.evaluating import state_hash
        from bench.train.feature_store import take_features
        from bench.train.inference import InferenceSettings

        case, point, train, model = self.case, self.case.point, self.train, self.model
        about = training_notes(model, name=point.model, arguments=point.args, weights=None) | {
            "state": state_hash(model)
        }
        settings = InferenceSettings(
            clip=point.clip,
            views=self.evaluating.views,
            protocol=self.protocol,
            batch=self.batch,
            device=case.device,
            workers=self.workers,
        )

        def take(videos: "VideoSet") -> "StoredFeatures":
            return take_features(
                model,
                videos,
                settings,
                folder=case.artifacts.parent,
                about=about,
                layers=self.layers,
                pooling=self.pooling,
                with_tokens=self.with_tokens,
                dtype=self.dtype,
                joules=self.training.joule_counter(),
                report=self.training.report,
            )

        return take(train), take(self.test)

    def fit(
        self,
        settings: "Sequence[HeadSettings]",
        *,
        shots: Sequence[int | Literal["all"]],
        seeds: Sequence[int],
        held_out: float,
    ) -> list[_HeadResult]:
        """Every head with every number of shots and every seed."""
        import numpy as np

        from bench.data.leakage import hold_out
        from bench.train.frozen_heads import FeatureSource, choose_head, few_shots

        of_train, of_test = self.features
        rows = np.arange(len(of_train))
        kept, held = rows, rows[:0]
        if any(len(each.grid) > 1 for each in settings):
            ids = {video.id for video in hold_out(self.train, share=held_out)[1].videos}
            is_held = np.array([video in ids for video in of_train.videos])
            kept, held = rows[~is_held], rows[is_held]
        results = []
        for each in settings:
            sources = [
                FeatureSource(of, has_tokens=each.kind == "attentive", spatial_views=self._spatial_views)
                for of in (of_train, of_test)
            ]
            for number in shots:
                has_choice = len(each.grid) > 1
                used = tuple(seeds[:1] if each.kind == "knn" and number == "all" else seeds)
                fitted = []
                for seed in used:
                    pool = kept if has_choice or number != "all" else rows
                    own = pool if number == "all" else few_shots(of_train.labels, pool, shots=number, seed=seed)
                    fitted.append(
                        choose_head(
                            each,
                            *sources,
                            rows=own,
                            held_out=held,
                            refit=rows if number == "all" else None,
                            classes=len(self.test.classes),
                            seed=seed,
                            device=self.case.device,
                            report=self._reporter(f"{number} shots, seed {seed}"),
                        )
                    )
                results.append(
                    _HeadResult(
                        settings=each,
                        shots=number,
                        seeds=used,
                        fitted=tuple(fitted),
                        evaluations=tuple(self._evaluation(of.scores) for of in fitted),
                    )
                )
        return results

    def score_texts(self, *, classes: str | None, prompts: str | None) -> _HeadResult:
        """The result of a model of video and text, whose classes are described by texts.

        Raises InputError for another model, or for a file that cannot be read; warns of classes without a text.
        """
        from bench.train.accuracy_protocol import file_hash
        from bench.train.evaluating import evaluate
        from bench.train.frozen_heads import HeadSettings
        from bench.train.scoring import class_columns

        names = self.test.classes if classes is None else read_class_names(Path(classes).expanduser())
        templates = (PROMPT,) if prompts is None else _read_prompts(Path(prompts).expanduser())
        set_classes = getattr(self.model, "set_classes", None)
        if set_classes is None:
            raise InputError(
                f"{self.case.point.model} has no text encoder, which `head: zero_shot` needs; models that have one are "
                "folders of CLIP or X-CLIP in the format of Hugging Face, such as hf:models/xclip"
            )
        set_classes(names, templates)
        columns = class_columns(names, self.test.classes)
        missing = [name for name, column in zip(self.test.classes, columns, strict=True) if column is None]
        if missing:
            shown = ", ".join(missing[:3]) + (", …" if len(missing) > 3 else "")
            self.case.warn(
                f"{len(missing)} of {len(self.test.classes)} classes have no text; their videos count as wrong: "
                f"{shown}",
                "add their names to the file given by `classes`",
            )
        evaluation = evaluate(
            self.model,
            self.test,
            clip=self.case.point.clip,
            views=self.evaluating.views,
            protocol=InputProtocol.of({"classes": names}, mark="given", where="classes").over(self.protocol),
            device=self.case.device,
            batch=self.batch,
            workers=self.workers,
            report=self.training.report,
        )
        texts: dict[str, Json] = {
            "classes": len(names),
            "classes_hash": digest(list(names)),
            "prompts": list(templates),
            "prompts_hash": digest(list(templates)),
            "classes_file_hash": None if classes is None else file_hash(Path(classes).expanduser()),
            "without_text": list(missing),
        }
        return _HeadResult(
            settings=HeadSettings(kind="zero_shot"),
            shots=0,
            seeds=(0,),
            fitted=(),
            evaluations=(evaluation,),
            texts=texts,
        )

    def record(self, results: Sequence[_HeadResult], *, has_features: bool) -> None:
        """Add features, protocol and heads to the record, its warnings, and the predictions of every first seed."""
        from bench.train.accuracy_protocol import describe_evaluation
        from bench.train.predictions import FILE, write_predictions

        case = self.case
        described = describe_evaluation(
            self.model,
            self.test,
            results[0].evaluations[0],
            clip=case.point.clip,
            views=self.evaluating.views,
            protocol=self.protocol,
        )
        if has_features:
            has_choice = any(len(each.settings.grid) > 1 for each in results)
            described |= self._describe_training() | {"chosen_on": "held-out training videos" if has_choice else None}
        features = {"features": self._describe_features()} if has_features else {}
        case.note("frozen", {"protocol": described, **features, "heads": [each.detail() for each in results]})
        case.note("input_protocol", self.protocol.as_detail())
        for each in results:
            name = f"{each.settings.kind}_{each.shots}"
            file = write_predictions(
                case.artifacts / f"frozen_{name}" / FILE,
                {UNCHANGED: each.evaluations[0]},
                self.test,
                protocol={**described, "adaptation": each.adaptation, "shots": each.shots},
                model=f"{case.case.title}, frozen, {each.settings.kind} head, {each.shots} shots",
            )
            case.keep(f"predictions_{name}", file)
        report = self.model.__dict__.get("weights_report")
        if report is not None:
            warn_of_assumed(case, self.protocol)
        unread = {"test": (results[0].evaluations[0].unread, "count as wrong")}
        if has_features:
            unread["training"] = (self.features[0].unread, "are left out")
        for kind, (videos, then) in unread.items():
            if videos:
                case.warn(
                    f"{len(videos)} {kind} videos could not be read and {then}; the first: {videos[0].id}",
                    "see `vbench data verify`",
                )

    def _describe_training(self) -> dict[str, Json]:
        return {
            "train_videos": len(self.features[0]),
            "train_videos_hash": self.train.hash,
            "shared_with_training": self.training.leaked or None,
            "leaks_allowed": list(self.allow_leaks),
        }

    def _describe_features(self) -> dict[str, Json]:
        of_train, of_test = self.features
        return {
            "layers": self.layers or "last",
            "pooling": self.pooling,
            **asdict(of_train.sizes),
            "folders": [of.folder.name for of in self.features],
            "device": of_train.cost.device,
            "resumed": of_train.resumed or of_test.resumed,
            "unread_in_training": len(of_train.unread),
        }

    def costs(self) -> Iterator[Metric]:
        """The cost of taking the features, also if an earlier run took them."""
        costs = [of.cost for of in self.features]
        seconds, clips = sum(cost.seconds for cost in costs), sum(cost.clips for cost in costs)
        known = [cost.joules for cost in costs if cost.joules is not None]
        yield CLIPS_PER_S.metric(clips / seconds)
        if len(known) == len(costs):
            yield J_PER_CLIP.metric(sum(known) / clips)
        else:
            yield J_PER_CLIP.metric(None, note="no energy counter of this device could be read")
        yield FEATURE_SECONDS.metric(seconds)

    def _reporter(self, of: str) -> Callable[[str, float], None]:
        return lambda text, share: self.case.progress(f"{text}, {of}", share)

    @property
    def _spatial_views(self) -> int:
        spatial = self.evaluating.views[1]
        assert isinstance(spatial, int)  # whole frames have no features of equal size
        return spatial

    def _single_label(self, videos: "VideoSet") -> "VideoSet":
        if videos.is_multi_label:
            raise InputError(f"{videos.name} has videos with several labels, and frozen evaluates one label a video")
        return videos

    def _evaluation(self, scores: "NDArray[np.float32]") -> "Evaluation":
        import numpy as np

        from bench.train.evaluating import Evaluation, rounding_of
        from bench.train.scoring import label_ranks

        of_test = self.features[1]
        unread = of_test.unread
        at = {video.id: position for position, video in enumerate(self.test.videos)}
        return Evaluation(
            positions=np.array([at[video] for video in of_test.videos]),
            labels=of_test.labels,
            scores=scores,
            clip_ranks=label_ranks(scores, of_test.labels)[:, None],
            unread=unread,
            unread_labels=np.array([self.test.videos[video.position].labels[0] for video in unread], dtype=np.int64),
            rounding=rounding_of(self.case.device),
        )
