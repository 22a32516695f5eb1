"""The commands that train, evaluate and apply a model. They import torch when they run, so that help is fast."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bench.cli.arguments import (
    AsJson,
    Entry,
    Model,
    ModelArguments,
    RecipeChanges,
    check_entry,
    check_folder,
    check_writable,
    dataset_options,
    finite,
    model_arguments,
)
from bench.cli.console import print_json, print_note, print_table, print_text
from bench.cli.prediction_views import effects_of, show_effects
from bench.cli.run_display import (
    LiveRun,
    print_prediction_files,
    print_summary,
    show_accuracy,
    show_stored_accuracy,
    write_report,
)
from bench.core.errors import InputError, is_wrong_input
from bench.core.files import path_hint
from bench.core.input_change import read_changes
from bench.core.input_protocol import InputProtocol, parse_protocol, read_class_names
from bench.core.model_name import is_registered_name
from bench.core.recipe_choice import with_changes
from bench.core.schema import Record, clip_from_text

if TYPE_CHECKING:
    from bench.train.inference import Prediction

ClipText = Annotated[
    str | None,
    typer.Option("--clip", help="frames x stride x size, such as 16x1x112; by default as the checkpoint was trained."),
]
Views = Annotated[str, typer.Option("--views", help="Views of a video: 10x3, 10xfull (whole frames) or sliding:16.")]
Dataset = Annotated[str, typer.Option("--dataset", help="A data set from `vbench data list`.")]
Root = Annotated[Path | None, typer.Option("--root", help="The data set's folder; $VBENCH_DATA/<name> if not given.")]
Split = Annotated[str | None, typer.Option("--split", help="Split, if the data set has several.")]
Options = Annotated[
    list[str] | None, typer.Option("--option", metavar="NAME=VALUE", help="An option of the data set, such as videos=…")
]
Weights = Annotated[Path, typer.Option("--weights", help="A checkpoint.")]
OptionalWeights = Annotated[
    Path | None, typer.Option("--weights", help="A checkpoint; models of other sources have weights of their own.")
]
Preprocess = Annotated[
    str | None,
    typer.Option(
        "--preprocess",
        metavar="PART=VALUE,…",
        help="Input protocol of the weights, such as channels=bgr,scale=255,mean=90/98/102,std=1/1/1,"
        "resize=128x171; or a YAML file. What is not given comes from the checkpoint.",
    ),
]
Labels = Annotated[
    Path | None,
    typer.Option("--labels", "--classes", help="Class names in the order of the model's outputs, one a line."),
]
Ranks = Annotated[
    int | None, typer.Option("--ranks", help="Processes that share the work, one per GPU; or start vbench by torchrun.")
]
Workers = Annotated[int, typer.Option("--workers", min=0, help="Decoding processes per rank.")]
Timeout = Annotated[
    float,
    typer.Option("--timeout", min=1, callback=finite, help="Time limit in seconds.", show_default="58 days"),
]

TIMEOUT_S = 5e6  # two months; the suites that train on whole data sets have the same limit
FLAGS = {"seeds": "--seed", "options": "--option", "clip_scores": "--clip-scores"}  # whose keys in a suite differ


def train(
    model: Model,
    dataset: Dataset,
    recipe: Annotated[str, typer.Option("--recipe", help="A recipe's name, or its file.")],
    changes: RecipeChanges = None,
    clip: Annotated[str | None, typer.Option("--clip", help="frames x stride x size, such as 16x1x112.")] = None,
    root: Root = None,
    option: Options = None,
    split: Split = None,
    seed: Annotated[list[int] | None, typer.Option(help="Seed; several seeds train several models.")] = None,
    views: Views = "1x1",
    weights: Annotated[Path | None, typer.Option(help="A checkpoint to start from.")] = None,
    entry: Entry = None,
    preprocess: Preprocess = None,
    arg: ModelArguments = None,
    ranks: Ranks = None,
    workers: Workers = 0,
    timeout: Timeout = TIMEOUT_S,
    tensorboard: Annotated[bool, typer.Option("--tensorboard", help="Also write the curves for TensorBoard.")] = False,
    out: Annotated[Path, typer.Option("--out", help="Results folder.")] = Path("results/train"),
) -> None:
    """Train a model by a recipe and evaluate it; stores the checkpoint, curves, predictions and the protocol."""
    check_folder(out)
    accuracy = {
        "dataset": dataset,
        "recipe": with_changes(recipe, changes or []),
        "split": split,
        "seeds": seed or [0],
        "views": views,
        "ranks": ranks,
        "workers": workers or None,
        "tensorboard": tensorboard or None,
    }
    check_entry(entry, weights)
    given = given_protocol_of_flags(preprocess, labels=None)
    _run_accuracy(
        "train", model, accuracy, given=given,
        arg=arg, clip=clip, root=root, option=option, weights=weights, entry=entry, timeout_s=timeout, out=out,
    )  # fmt: skip


def evaluate(
    model: Model,
    dataset: Dataset,
    weights: OptionalWeights = None,
    entry: Entry = None,
    clip: ClipText = None,
    root: Root = None,
    option: Options = None,
    split: Split = None,
    views: Views = "1x1",
    preprocess: Preprocess = None,
    labels: Labels = None,
    clip_scores: Annotated[
        bool, typer.Option("--clip-scores", help="Also store the scores of every single view in the predictions.")
    ] = False,
    change: Annotated[
        list[str] | None,
        typer.Option(
            "--change", metavar="NAME[:VALUE]", help="Also evaluate on changed input, such as reversed or jpeg:30."
        ),
    ] = None,
    arg: ModelArguments = None,
    ranks: Ranks = None,
    workers: Workers = 0,
    timeout: Timeout = TIMEOUT_S,
    out: Annotated[Path, typer.Option("--out", help="Results folder.")] = Path("results/eval"),
) -> None:
    """Evaluate a checkpoint on a data set with the clips it was trained on; the record holds the whole protocol."""
    check_folder(out)
    require_weights(model, weights, entry=entry)
    given = given_protocol_of_flags(preprocess, labels=None)
    if labels is not None:
        read_class_names(labels)  # a mistake in the file is reported before any work
    accuracy = {
        "dataset": dataset,
        "split": split,
        "views": views,
        "ranks": ranks,
        "workers": workers or None,
        "labels": None if labels is None else str(labels.absolute()),
        "clip_scores": clip_scores or None,
        "change": _changes(change),
    }
    if weights is not None and clip is None:
        clip = _clip_as_trained(weights, entry=entry, model=model, given=given)
    _run_accuracy(
        "eval", model, accuracy, given=given,
        arg=arg, clip=clip, root=root, option=option, weights=weights, entry=entry, timeout_s=timeout, out=out,
    )  # fmt: skip


def predict(
    model: Model,
    videos: Annotated[list[Path], typer.Argument(metavar="VIDEO...", help="Video files or frame folders.")],
    weights: OptionalWeights = None,
    entry: Entry = None,
    clip: ClipText = None,
    views: Views = "1x1",
    top: Annotated[int, typer.Option(min=1, help="Number of classes per video.")] = 5,
    preprocess: Preprocess = None,
    labels: Labels = None,
    per_view: Annotated[bool, typer.Option("--per-view", help="Also the most likely class of each view.")] = False,
    arg: ModelArguments = None,
    as_json: AsJson = False,
) -> None:
    """Print the most likely classes of videos, with probabilities."""
    from bench.train.inference import predict_videos

    require_weights(model, weights, entry=entry)
    found = predict_videos(
        model,
        videos,
        weights=weights,
        entry=entry,
        clip=clip,
        views=views,
        top=top,
        given=given_protocol_of_flags(preprocess, labels=labels),
        arguments=model_arguments(arg),
    )
    if as_json:
        print_json(_predictions_as_dicts(found.predictions, protocol=found.protocol))
    else:
        _print_predictions(found.predictions, per_view=per_view)
    print_note(f"input: {found.protocol}")
    raise typer.Exit(3 if any(prediction.error for prediction in found.predictions) else 0)


def features(
    model: Model,
    weights: Weights,
    dataset: Dataset,
    split: Annotated[str, typer.Option("--split", help="The split of the data set.")],
    out: Annotated[Path, typer.Option("--out", help="Parquet file: one row per video.")],
    entry: Entry = None,
    clip: ClipText = None,
    root: Root = None,
    option: Options = None,
    views: Views = "1x1",
    preprocess: Preprocess = None,
    arg: ModelArguments = None,
) -> None:
    """Write the feature vectors of a data set, for transfer learning; after a kill, the same command goes on."""
    from bench.train.feature_table import features_of_dataset

    check_writable(out)
    found = features_of_dataset(
        model, dataset, split=split, out=out, weights=weights, entry=entry, clip=clip, root=root,
        views=views,
        given=given_protocol_of_flags(preprocess, labels=None), arguments=model_arguments(arg),
        options=dataset_options(option),
    )  # fmt: skip
    for unread in found.unread:
        print_text(f"not read: {unread.id}: {unread.reason}")
    print_text(f"{found.rows} vectors of {found.width}: {out}")
    print_note(f"input: {found.protocol}")
    raise typer.Exit(3 if found.unread else 0)


def _changes(texts: list[str] | None) -> list[str] | None:
    """The changes of several options, each with one name or several with commas.

    Raises InputError for a change that is wrong, or needs a decoder that does not work here.
    """
    names = [name for text in texts or [] for name in text.split(",")]
    changes = read_changes(names) if names else ()
    if any(change.is_at("reading") for change in changes):
        from bench.data.view_rule import require_decoders  # imports torch

        require_decoders(changes)
    return [str(change) for change in changes] or None


def require_weights(model: str, weights: Path | None, *, entry: str | None) -> None:
    """Raise InputError if a registered model has no weights, or `entry` no file."""
    if weights is None and is_registered_name(model):
        raise InputError(f"{model} has no weights of its own; name a checkpoint with --weights")
    check_entry(entry, weights)


def given_protocol_of_flags(preprocess: str | None, *, labels: Path | None) -> InputProtocol:
    """The parts of the input protocol on the command line. Raises InputError in one line."""
    given = InputProtocol() if preprocess is None else parse_protocol(preprocess)
    if labels is None:
        return given
    return InputProtocol.of({"classes": read_class_names(labels)}, mark="given").over(given)


def _clip_as_trained(weights: Path, *, entry: str | None, model: str, given: InputProtocol) -> str | None:
    """The clip of the given input protocol or of the checkpoint; None if neither has one."""
    from bench.models.factory import find_model
    from bench.models.weights.checkpoint import read_checkpoint
    from bench.models.weights.checkpoint_protocol import protocol_of_checkpoint

    known = given.over(protocol_of_checkpoint(read_checkpoint(weights, entry=entry)))
    if known.clip is None and known.crop is None:
        return None
    clip = known.clip_over(clip_from_text(find_model(model).clip))
    print_text(f"at {clip}{', as trained' if known.mark('clip') == 'stored' else ''}: {_origin_of_clip(known)}")
    return str(clip)


def _origin_of_clip(known: InputProtocol) -> str:
    source = known.sources["clip" if known.clip is not None else "crop"]
    return f"{source.mark} by {source.origin}" if source.origin else source.mark


def _run_accuracy(
    name: str,
    model: str,
    accuracy: dict[str, Any],
    *,
    given: InputProtocol,
    arg: list[str] | None,
    clip: str | None,
    root: Path | None,
    option: list[str] | None,
    weights: Path | None,
    entry: str | None,
    timeout_s: float,
    out: Path,
) -> None:
    """Run a suite of one model and one measure, and print the results."""
    from bench.core.yaml_tree import Place, Tree
    from bench.runner.running import run as run_suite

    if clip is None and (given.clip is not None or given.crop is not None):
        clip = _clip_of_model(model, given=given)
    axes = {
        "clip": clip,
        "weights": None if weights is None else str(weights.absolute()),
        "entry": entry,
        "preprocess": given.as_stored() or None,
    }
    options = {
        **accuracy,
        "root": None if root is None else str(root.absolute()),
        "options": dataset_options(option) or None,
    }
    arguments = model_arguments(arg)
    suite = {
        "suite": name,
        "timeout_s": timeout_s,
        "models": [{"name": model, **arguments, **_without_none(axes)}],
        "measure": {"accuracy": _without_none(options)},
    }
    options_of: dict[Place, str] = {
        ("models", 0): "MODEL",
        ("timeout_s",): "--timeout",
        **{("models", 0, axis): f"--{axis}" for axis in axes},
        **{("models", 0, argument): f"--arg {argument}" for argument in arguments},
        **{("measure", "accuracy", key): FLAGS.get(key, f"--{key}") for key in options},
    }
    with LiveRun().running() as live:
        summary = run_suite(Tree.of(suite, name=f"vbench {name}", options=options_of), out=out, on_event=live.show)
    print_summary(summary)
    for record in [record for record in summary.finished if record.is_good]:  # the summary names what failed
        show_accuracy(record, folder=summary.folder)
        if "change" in record.case.measures["accuracy"] and "predictions" in record.artifacts:
            show_effects(effects_of(summary.folder / record.artifacts["predictions"]))
        _print_circumstances(record)
    if not summary.finished:
        show_stored_accuracy(summary.stored, folder=summary.folder)
    print_prediction_files(summary)
    print_text(f"report: {write_report(summary.folder)}")
    is_wrong = any(record.error is not None and is_wrong_input(record.error.type) for record in summary.failed)
    raise typer.Exit(InputError.exit_code if is_wrong else summary.exit_code)


def _clip_of_model(model: str, *, given: InputProtocol) -> str:
    """The clip of a model with the parts of `given`."""
    from bench.models.factory import find_model

    return str(given.clip_over(clip_from_text(find_model(model).clip)))


def _print_circumstances(record: Record) -> None:
    """Print where a training resumed, how clips were prepared, and the warnings of the record."""
    training = record.details.get("training")
    resumed_at = training.get("resumed_at_step") if isinstance(training, dict) else None
    if resumed_at:
        print_text(f"the training continued from step {resumed_at}, where it was interrupted")
    protocol = record.details.get("protocol")
    if isinstance(protocol, dict) and "input" in protocol:
        print_text(f"input: {protocol['input']}")
    for warning in record.warnings:
        print_text(f"warning: {warning.what}" + (f"; {warning.remedy}" if warning.remedy else ""))


def _without_none(options: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in options.items() if value is not None}


def _print_predictions(found: "Sequence[Prediction]", *, per_view: bool) -> None:
    """Print each video with its most likely classes; `per_view` adds the most likely class of every view."""
    for prediction in found:
        if prediction.error is not None:
            print_text(f"{prediction.video}: {prediction.error}{path_hint(prediction.video)}")
            continue
        print_text(prediction.video)
        rows = [(f"{likely.probability:.1%}", likely.name) for likely in prediction.classes]
        print_table(("", ""), rows, right=("",))
        if per_view:
            for number, view in enumerate(prediction.views, start=1):
                print_text(f"  view {number}: {view[0].name} ({view[0].probability:.1%})")


def _predictions_as_dicts(found: "Sequence[Prediction]", *, protocol: InputProtocol) -> list[dict[str, Any]]:
    """The predictions as plain data, each with the input protocol."""
    plain = []
    for prediction in found:
        fields = asdict(prediction)
        fields["guesses"] = fields.pop("classes")  # the name that machines read since the first version
        plain.append({**fields, "input": protocol.as_detail()})
    return plain
