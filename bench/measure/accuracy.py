"""Accuracy: trains a model by a recipe, or takes given weights, evaluates it, and records how that was done."""

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from bench.core.errors import InputError
from bench.core.input_protocol import InputProtocol, read_class_names
from bench.core.metric_spec import MetricSpec
from bench.core.registry import register_measure
from bench.core.schema import Clip, Json, Metric, Views, clip_from_text, views_from_text
from bench.measure.axes import ACCURACY_AXES
from bench.measure.case_training import CaseTraining, Checkpoint, require_classes
from bench.measure.context import CaseContext
from bench.measure.training_cost import TRAINING_COSTS, carbon_metrics, cost_to_reach

if TYPE_CHECKING:
    from pathlib import Path

    from torch import nn

    from bench.core.stats import Estimate
    from bench.data.collection import VideoSet
    from bench.train.evaluating import Evaluation
    from bench.train.fitting import TrainingResult

Averaging = Literal["softmax", "sigmoid", "score", "raw", "max"]
Resize = int | tuple[int, int]
Sampling = Literal["blocks", "sections"]
Short = Literal["loop", "clamp"]

TOP1 = MetricSpec(
    "accuracy.top1",
    "%",
    "higher",
    title="Top-1",
    meaning="share of the test videos whose highest score is that of the right class",
    headline=True,
)
TOP5 = MetricSpec(
    "accuracy.top5",
    "%",
    "higher",
    title="Top-5",
    meaning="share of the test videos with the right class among the five highest scores",
    headline=True,
)
CLIP_TOP1 = MetricSpec(
    "accuracy.clip_top1",
    "%",
    "higher",
    title="Clip top-1",
    meaning="share of single views whose highest score is that of the right class",
)
MEAN_CLASS = MetricSpec(
    "accuracy.mean_class", "%", "higher", title="Mean class accuracy", meaning="top-1 of every class, then their mean"
)
MEAN_PRECISION = MetricSpec(
    "accuracy.map",
    "%",
    "higher",
    title="mAP",
    meaning="mean over the classes of the average precision, for videos with several labels",
)
TRAIN_SECONDS = MetricSpec(
    "accuracy.train_seconds", "s", "lower", title="Training time", meaning="time of the training"
)
EVALUATION_SECONDS = MetricSpec(
    "accuracy.evaluation_seconds", "s", "lower", title="Evaluation time", meaning="time of the evaluation"
)
METRICS = (TOP1, TOP5, CLIP_TOP1, MEAN_CLASS, MEAN_PRECISION, TRAIN_SECONDS, EVALUATION_SECONDS, *TRAINING_COSTS)


@register_measure(
    "accuracy",
    depends_on=ACCURACY_AXES,
    version=5,
    is_shared=True,
    metrics=METRICS,
    order=70,
)
def accuracy(
    case: CaseContext,
    *,
    root: str | None = None,
    options: dict[str, Json] | None = None,
    resize: Resize | None = None,
    sampling: Sampling | None = None,
    short: Short | None = None,
    batch: int = 16,
    workers: int = 0,
    averaging: Averaging | None = None,
    clip_scores: bool = False,
    labels: str | None = None,
    checkpoint: Checkpoint = "last",
    excludes_unread: bool = False,
    allow_leaks: list[str] | None = None,
    ranks: Annotated[int, Field(ge=1)] | None = None,
    tensorboard: bool = False,
    reach: list[Annotated[float, Field(gt=0, le=100)]] | None = None,
    country: str | None = None,
) -> list[Metric]:
    """Top-1, top-5, clip and mean per-class accuracy in percent; `root` and `options` (`flow` too) go to the data set.

    With a recipe the model is trained first, from the case's weights if it names any; a training of the same recipe,
    videos, clip and seed in the same results folder is reused. `batch` counts clips of one forward pass.
    `resize`, `sampling` (blocks of frames spread over the video, or one frame of each of equal sections), `short` (what
    fills clips of short videos) and `averaging` (of softmax, sigmoid or raw scores over the views, or their maximum)
    override single parts of the input protocol (`preprocess`), which comes from the checkpoint if the suite does not
    give it. `labels` is a file with the class names in the order of the model's outputs. `clip_scores` keeps the scores
    of single views. `checkpoint: best` takes the epoch that did best on these very videos, so its accuracy is too high;
    the record says so. Videos that cannot be read count as wrong unless `excludes_unread`. Videos that share material
    with those trained on are refused unless `allow_leaks` names it. `ranks` processes share the work, one per GPU, with
    the recipe's batch divided among them; under torchrun there are as many as it started. `tensorboard` also writes the
    curves for TensorBoard. `reach: [50, 80]` adds the time and energy until the validated top-1 was as good;
    `country: FRA` adds the training's energy, and its CO2e with the electricity of that country, by codecarbon.
    """
    from bench.train.evaluating import evaluate, require_whole_frames
    from bench.train.preprocessing import require_applicable
    from bench.train.ranks import joined

    given = given_protocol_of(case, resize=resize, sampling=sampling, short=short, averaging=averaging, labels=labels)
    require_applicable(given)
    with joined(case.device) as here:
        if ranks not in (None, here.world):
            raise InputError(f"the suite wants {ranks} ranks, and {here.world} were started; leave `ranks` to torchrun")
        training = CaseTraining(
            case=case,
            root=root,
            options=options or {},
            workers=workers,
            given=given,
            allow_leaks=tuple(allow_leaks or ()),
            ranks=here,
            tensorboard=tensorboard,
            country=country,
        )
        test = training.videos("evaluated")
        require_classes(case.point.args.get("num_classes"), test, exactly=test.is_multi_label)
        training.pretrain(test)
        model = _built(case, test, given=given)
        if views_of(case)[1] == "full":
            require_whole_frames(model, case.point.clip)
        trained = training.train(model, test, checkpoint=checkpoint, val_decides=checkpoint == "best" or bool(reach))
        protocol = _protocol_in_force(case, model, trained, given=given)
        evaluation = evaluate(
            model,
            test,
            clip=case.point.clip,
            views=views_of(case),
            protocol=protocol,
            device=case.device,
            batch=batch,
            workers=workers,
            excludes_unread=excludes_unread,
            keeps_clip_scores=clip_scores,
            report=training.report,
        )
        if here.is_first:
            _record(training, model, test, evaluation, protocol=protocol)
    return [*_metrics(evaluation, trained), *_costs(trained, reach=reach or [])]


def given_protocol_of(case: CaseContext, *, labels: str | None = None, **single_parts: Any) -> InputProtocol:
    """The parts of the input protocol that the user gives: `preprocess`, overridden by single options of the measure.

    Class names may be given as a list, or as a file with one name a line.
    """
    parts: dict[str, Any] = {**(case.point.preprocess or {})}
    parts |= {name: value for name, value in single_parts.items() if value is not None}
    if labels is not None:
        parts["classes"] = read_class_names(_path(labels))
    return InputProtocol.of(parts, mark="given", where="preprocess")


def views_of(case: CaseContext) -> Views:
    """Temporal and spatial views of a case; one each by default."""
    return views_from_text(case.point.views or "1x1")


def _path(text: str) -> "Path":
    from pathlib import Path

    return Path(text).expanduser()


def _built(case: CaseContext, test: "VideoSet", *, given: InputProtocol) -> "nn.Module":
    """The model of the case, with a head for the data set's classes, or the head that its checkpoint was trained with.

    The latter if the names of its classes are known, because then its outputs can be matched with the data set's.
    """
    from bench.train.preprocessing import checkpoint_protocol

    needed = len(test.classes)
    if case.point.recipe is not None or case.weights is None or case.point.args.get("num_classes") is not None:
        return case.build_model(num_classes=needed)
    model = case.build_model()
    report = model.__dict__["weights_report"]
    classes = given.over(checkpoint_protocol(model)).classes
    if classes is None and report.file_classes not in (None, needed):
        raise InputError(
            f"{report.path} has {report.file_classes} classes and {test.name} has {needed}, and nothing says what the "
            "outputs stand for; give their names: --labels FILE (in a suite `labels: FILE`), one name a line"
        )
    return model if classes is not None or report.file_classes == needed else case.build_model(num_classes=needed)


def _protocol_in_force(
    case: CaseContext, model: "nn.Module", trained: "TrainingResult | None", *, given: InputProtocol
) -> InputProtocol:
    """How the clips of the evaluation are prepared; warns if they are other clips than the weights were trained on."""
    from bench.train.preprocessing import checkpoint_protocol, evaluation_protocol

    if trained is not None:
        return given.over(trained.protocol)
    clip, stored = case.point.clip, checkpoint_protocol(model)
    as_trained = stored.clip_over(clip)
    if as_trained != clip and not {"clip", "crop"} & set(given.parts):
        case.warn(
            f"evaluated at {clip}, but the weights were trained at {as_trained}",
            f"give the clip as trained: --clip {as_trained} (in a suite `clip: {as_trained}`)",
        )
    return evaluation_protocol(model, given, clip=clip, default_clip=_default_clip(case))


def _default_clip(case: CaseContext) -> Clip:
    """The clip that the model is registered with."""
    from bench.models.factory import find_model

    return clip_from_text(find_model(case.point.model).clip)


def _record(
    training: CaseTraining, model: "nn.Module", test: "VideoSet", evaluation: "Evaluation", *, protocol: InputProtocol
) -> None:
    """Put the protocol into the record and write every video's scores to a file."""
    from bench.train.accuracy_protocol import describe_evaluation
    from bench.train.predictions import FILE, write_predictions

    case = training.case
    described = describe_evaluation(
        model, test, evaluation, clip=case.point.clip, views=views_of(case), protocol=protocol
    )
    described |= {"shared_with_training": training.leaked or None, "leaks_allowed": list(training.allow_leaks)}
    case.note("protocol", described)
    case.note("input_protocol", protocol.as_detail())
    file = write_predictions(case.artifacts / FILE, evaluation, test, protocol=described, model=case.case.title)
    case.keep("predictions", file)
    _warn(case, test, evaluation, protocol=protocol, unread_are=str(described["unread_are"]))


def _warn(
    case: CaseContext, test: "VideoSet", evaluation: "Evaluation", *, protocol: InputProtocol, unread_are: str
) -> None:
    """Add what a reader of the accuracy must know: assumptions, missing videos, another order of the classes."""
    from bench.train.preprocessing import not_applied
    from bench.train.scoring import RELABELLING_REMEDY, class_columns, find_relabelling

    if evaluation.is_multi_label and protocol.averaging == "softmax" and case.point.recipe is None:
        case.warn(
            "the outputs were taken as probabilities among all classes, but the videos have several labels",
            "give `averaging: sigmoid` if the model was trained with a binary loss for each class",
        )
    if case.point.recipe is None and protocol.assumed:
        case.warn(
            f"nobody says how these weights want their clips: {', '.join(protocol.assumed)} are the model's defaults",
            "give them: --preprocess channels=…,mean=…,std=…,resize=… (in a suite `preprocess: {…}`)",
        )
    for part, used in not_applied(protocol).items():
        wanted = str(getattr(protocol, part)).lower()
        case.warn(f"the weights want frames scaled with {part} {wanted}; they were scaled with {str(used).lower()}")
    if protocol.classes is not None:
        unknown = class_columns(protocol.classes, test.classes).count(None)
        if unknown:
            case.warn(f"the model does not know {unknown} of {len(test.classes)} classes; their videos count as wrong")
    if evaluation.unread:
        case.warn(
            f"{len(evaluation.unread)} of {evaluation.counted} videos could not be read and are {unread_are}",
            "see `vbench data verify`; the record's protocol names the first of them",
        )
    if not evaluation.is_multi_label:
        found = find_relabelling(evaluation.scores, evaluation.labels)
        if found is not None:
            case.warn(str(found), RELABELLING_REMEDY)


def _metrics(evaluation: "Evaluation", trained: "TrainingResult | None") -> list[Metric]:
    metrics = [_share(TOP1, evaluation.top(1))]
    if evaluation.scores.shape[1] > 5:  # top-5 of five classes or fewer is always 100 %
        metrics.append(_share(TOP5, evaluation.top(5)))
    metrics.append(CLIP_TOP1.metric(100 * evaluation.clip_top(1)))
    if evaluation.is_multi_label:
        metrics.append(MEAN_PRECISION.metric(100 * evaluation.mean_average_precision))
    else:
        metrics.append(MEAN_CLASS.metric(100 * evaluation.mean_class))
    if trained is not None:
        metrics.append(TRAIN_SECONDS.metric(trained.seconds))
    return [*metrics, EVALUATION_SECONDS.metric(evaluation.seconds)]


def _share(spec: MetricSpec, share: "Estimate") -> Metric:
    return spec.metric(100 * share.value, interval=(100 * share.low, 100 * share.high))


def _costs(trained: "TrainingResult | None", *, reach: list[float]) -> list[Metric]:
    """What the training cost, if there was one."""
    from bench.train.curves import read_curves

    if trained is None:
        return []
    return [*cost_to_reach(read_curves(trained.curves), reach), *carbon_metrics(trained.curves.parent)]
