"""Accuracy: trains a model by a recipe, or loads given weights, and evaluates it on the videos of a data set."""

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from bench.core.errors import InputError
from bench.core.input_change import UNCHANGED, read_changes
from bench.core.metric_spec import MetricSpec
from bench.core.registry import register_measure
from bench.core.schema import Json, Metric
from bench.measure.axis_sets import ACCURACY_AXES
from bench.measure.case_evaluation import CaseEvaluation, given_protocol_of
from bench.measure.case_training import CaseTraining, Checkpoint, require_classes
from bench.measure.context import CaseContext
from bench.measure.training_cost import TRAINING_COSTS, carbon_metrics, cost_to_reach

if TYPE_CHECKING:
    from bench.core.stats import Estimate
    from bench.train.evaluating import Evaluation
    from bench.train.fitting import TrainingResult

Averaging = Literal["softmax", "sigmoid", "score", "raw", "max"]
Resize = int | tuple[int, int]
Sampling = Literal["blocks", "sections"]
Short = Literal["loop", "clamp"]


def _as_list(value: Any) -> Any:
    """A lone change as a list of one."""
    return [value] if isinstance(value, str) else value


def _checked_changes(texts: list[str]) -> list[str]:
    """The changes as they are stored: the unchanged input first, every value written out."""
    try:
        return [str(change) for change in read_changes(texts)]
    except InputError as error:
        raise ValueError(str(error)) from None


Changes = Annotated[list[str], BeforeValidator(_as_list), AfterValidator(_checked_changes)]

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
    version=6,
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
    change: Changes | None = None,
    excludes_unread: bool = False,
    allow_leaks: list[str] | None = None,
    ranks: Annotated[int, Field(ge=1)] | None = None,
    nodes: Annotated[int, Field(ge=1)] | None = None,
    tensorboard: bool = False,
    reach: list[Annotated[float, Field(gt=0, le=100)]] | None = None,
    country: str | None = None,
) -> list[Metric]:
    """Top-1, top-5, clip and mean per-class accuracy in percent, or mAP if the videos have several labels.

    `root` and `options` (`flow` too) go to the data set. With a recipe the model is trained first, from the case's
    weights if it has any; a finished training of the same recipe, videos, clip and seed in the same folder is reused.
    `checkpoint: best` takes the epoch with the best top-1 on the evaluated videos themselves: its accuracy is too high,
    and the record says so; with `val_ratio` in the recipe it is the best on training videos that were held out.
    `batch` is the number of clips of one forward pass.

    The input protocol comes from the checkpoint unless the suite gives it (`preprocess`). `resize`, `sampling` (blocks
    of frames spread over the video, or one frame of each of equal sections), `short` (how clips of short videos are
    filled) and `averaging` over the views (of softmax, sigmoid or raw scores, or their maximum) override single parts.
    `labels` is a file with the class names in the order of the model's outputs. `clip_scores` stores the scores of
    single views. Videos that cannot be read count as wrong unless `excludes_unread`. Videos that share material with
    the training set are an error unless `allow_leaks` names what they share.

    `change` also evaluates the model on changed input, such as `[reversed, jpeg:30]`: every metric then has a value for
    each change as well, as `accuracy.top1{change=reversed}`, and the predictions have a row per video and change.

    `ranks` processes share the work, one per GPU, and divide the recipe's batch; under torchrun their number is that of
    the processes it started. With `nodes: 2` half of them run on each of two machines of a cluster. `tensorboard` also
    writes the curves for TensorBoard. `reach: [50, 80]` adds the time and energy until the validated top-1 was as good.
    `country: FRA` adds the energy of the training by codecarbon, and its CO2e with the electricity of that country.
    """
    import shutil

    from bench.data.view_rule import require_decoders
    from bench.train.evaluating import evaluate_changes
    from bench.train.ranks import joined

    changes = read_changes(change or [])
    require_decoders(changes)  # before hours of training
    given = given_protocol_of(case, resize=resize, sampling=sampling, short=short, averaging=averaging, labels=labels)
    with joined(case.device) as here:
        wanted = ranks or nodes
        if wanted not in (None, here.world):
            raise InputError(f"`ranks` is {wanted}, but {here.world} joined; leave `ranks` out under torchrun")
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
        evaluating = CaseEvaluation(case=case, test=test, given=given)
        model = evaluating.build_model()
        trained = training.train(model, test, checkpoint=checkpoint, val_decides=checkpoint == "best" or bool(reach))
        protocol = evaluating.input_protocol(model, trained)
        unfinished = case.artifacts / "unfinished" if change else None
        evaluations = evaluate_changes(
            model,
            test,
            changes=changes,
            clip=case.point.clip,
            views=evaluating.views,
            protocol=protocol,
            device=case.device,
            batch=batch,
            workers=workers,
            excludes_unread=excludes_unread,
            keeps_clip_scores=clip_scores,
            report=training.report,
            unfinished=unfinished,
        )
        if here.is_first:
            leaks = {"shared_with_training": training.leaked or None, "leaks_allowed": list(training.allow_leaks)}
            evaluating.record(model, evaluations, protocol=protocol, leaks=leaks)
            if unfinished is not None:
                shutil.rmtree(unfinished, ignore_errors=True)
    metrics = _shares(evaluations[UNCHANGED])
    if trained is not None:
        metrics.append(TRAIN_SECONDS.metric(trained.seconds))
    metrics.append(EVALUATION_SECONDS.metric(sum(evaluation.seconds for evaluation in evaluations.values())))
    for name, evaluation in evaluations.items():
        if name != UNCHANGED:
            metrics += _shares(evaluation, labels={"change": name})
    return [*metrics, *_costs(trained, reach=reach or [])]


def _shares(evaluation: "Evaluation", *, labels: dict[str, str] | None = None) -> list[Metric]:
    """The accuracies of one evaluation; `labels` name the change of its input."""
    marked = {"labels": labels or {}}
    metrics = [_share(TOP1, evaluation.top(1), **marked)]
    if evaluation.scores.shape[1] > 5:  # top-5 of five classes or fewer is always 100 %
        metrics.append(_share(TOP5, evaluation.top(5), **marked))
    metrics.append(CLIP_TOP1.metric(100 * evaluation.clip_top(1), **marked))
    if evaluation.is_multi_label:
        metrics.append(MEAN_PRECISION.metric(100 * evaluation.mean_average_precision, **marked))
    else:
        metrics.append(MEAN_CLASS.metric(100 * evaluation.mean_class, **marked))
    return metrics


def _share(spec: MetricSpec, share: "Estimate", **marked: Any) -> Metric:
    return spec.metric(100 * share.value, interval=(100 * share.low, 100 * share.high), **marked)


def _costs(trained: "TrainingResult | None", *, reach: list[float]) -> list[Metric]:
    """What the training cost, if there was one."""
    from bench.train.curves import read_curves

    if trained is None:
        return []
    return [*cost_to_reach(read_curves(trained.curves), reach), *carbon_metrics(trained.curves.parent)]
