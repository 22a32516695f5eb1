"""The commands that train, evaluate and apply a model. Heavy packages are imported by the command that needs them."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bench.cli.console import print_json, print_table, print_text

if TYPE_CHECKING:
    from bench.train.inference import Prediction

Model = Annotated[str, typer.Argument(metavar="MODEL", help="A name from `vbench models`, or source:name.")]
ModelArguments = Annotated[list[str] | None, typer.Option("--arg", metavar="NAME=VALUE", help="A model argument.")]
ClipText = Annotated[str | None, typer.Option("--clip", help="frames x stride x size, such as 16x1x112.")]
Views = Annotated[str, typer.Option("--views", help="Views of one video: 10x3, or 10xfull for whole frames.")]
Dataset = Annotated[str, typer.Option("--dataset", help="A data set from `vbench data list`.")]
Root = Annotated[Path | None, typer.Option("--root", help="The data set's folder; $VBENCH_DATA/<name> if not given.")]
Split = Annotated[str | None, typer.Option("--split", help="Split, where the data set has several.")]
Options = Annotated[
    list[str] | None, typer.Option("--option", metavar="NAME=VALUE", help="An option of the data set, such as videos=…")
]
Weights = Annotated[Path, typer.Option("--weights", help="A checkpoint.")]
OwnWeights = Annotated[
    Path | None, typer.Option("--weights", help="A checkpoint; of a model of another source, its own if not given.")
]
Ranks = Annotated[
    int | None, typer.Option("--ranks", help="Processes that share it, one a GPU; or start vbench with torchrun.")
]
Workers = Annotated[int, typer.Option("--workers", min=0, help="Processes that decode, beside each rank.")]
Timeout = Annotated[float, typer.Option("--timeout", min=1, help="Seconds after which it is ended.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]

TIMEOUT_S = 5e6  # two months; the suites that train on whole data sets have the same limit


def train(
    model: Model,
    dataset: Dataset,
    recipe: Annotated[str, typer.Option("--recipe", help="A recipe's name, or its file.")],
    clip: ClipText = None,
    root: Root = None,
    option: Options = None,
    split: Split = None,
    seed: Annotated[list[int] | None, typer.Option(help="Seed; several train several networks.")] = None,
    views: Views = "1x1",
    weights: Annotated[Path | None, typer.Option(help="A checkpoint to start from.")] = None,
    arg: ModelArguments = None,
    ranks: Ranks = None,
    workers: Workers = 0,
    timeout: Timeout = TIMEOUT_S,
    tensorboard: Annotated[bool, typer.Option("--tensorboard", help="Write the curves for TensorBoard, too.")] = False,
    out: Annotated[Path, typer.Option("--out", help="Results folder.")] = Path("results/train"),
) -> None:
    """Train a model by a recipe, evaluate it, keep checkpoint, curves, predictions and the whole protocol."""
    accuracy = {
        "dataset": dataset,
        "recipe": recipe,
        "split": split,
        "seeds": seed or [0],
        "views": views,
        "ranks": ranks,
        "workers": workers or None,
        "tensorboard": tensorboard or None,
    }
    _run_accuracy(
        "train", model, accuracy,
        arg=arg, clip=clip, root=root, option=option, weights=weights, timeout_s=timeout, out=out,
    )  # fmt: skip


def evaluate(
    model: Model,
    dataset: Dataset,
    weights: OwnWeights = None,
    clip: ClipText = None,
    root: Root = None,
    option: Options = None,
    split: Split = None,
    views: Views = "1x1",
    arg: ModelArguments = None,
    ranks: Ranks = None,
    workers: Workers = 0,
    timeout: Timeout = TIMEOUT_S,
    out: Annotated[Path, typer.Option("--out", help="Results folder.")] = Path("results/eval"),
) -> None:
    """Evaluate a checkpoint on a data set, with the whole protocol in the record."""
    _require_weights(model, weights)
    accuracy = {"dataset": dataset, "split": split, "views": views, "ranks": ranks, "workers": workers or None}
    _run_accuracy(
        "eval", model, accuracy,
        arg=arg, clip=clip, root=root, option=option, weights=weights, timeout_s=timeout, out=out,
    )  # fmt: skip


def predict(
    model: Model,
    videos: Annotated[list[Path], typer.Argument(metavar="VIDEO...", help="Video files or frame folders.")],
    weights: OwnWeights = None,
    clip: ClipText = None,
    views: Views = "1x1",
    top: Annotated[int, typer.Option(help="How many classes a video.")] = 5,
    classes: Annotated[Path | None, typer.Option(help="A file with one class name a line.")] = None,
    per_view: Annotated[bool, typer.Option("--per-view", help="Also the likeliest class of each view.")] = False,
    arg: ModelArguments = None,
    as_json: AsJson = False,
) -> None:
    """Name the likeliest classes of videos, with probabilities."""
    from bench.train.inference import predict_videos

    _require_weights(model, weights)
    found = predict_videos(
        model,
        videos,
        weights=weights,
        clip=clip,
        views=views,
        top=top,
        classes=classes,
        arguments=_arguments(arg or []),
    )
    if as_json:
        print_json(_predictions_as_dicts(found))
    else:
        _print_predictions(found, per_view=per_view)
    raise typer.Exit(3 if any(prediction.error for prediction in found) else 0)


def features(
    model: Model,
    weights: Weights,
    dataset: Dataset,
    split: Annotated[str, typer.Option("--split", help="Its split.")],
    out: Annotated[Path, typer.Option("--out", help="Parquet file: one row a video.")],
    clip: ClipText = None,
    root: Root = None,
    option: Options = None,
    views: Views = "1x1",
    arg: ModelArguments = None,
) -> None:
    """Write the pooled vectors of a data set, for transfer learning."""
    from bench.cli.arguments import check_writable, dataset_options
    from bench.train.inference import features_of_dataset

    check_writable(out)
    found = features_of_dataset(
        model, dataset, split=split, out=out, weights=weights, clip=clip, root=root, views=views,
        arguments=_arguments(arg or []), options=dataset_options(option),
    )  # fmt: skip
    for unread in found.unread:
        print_text(f"not read: {unread.id}: {unread.reason}")
    print_text(f"{len(found.videos)} vectors of {found.vectors.shape[1]}: {out}")
    raise typer.Exit(3 if found.unread else 0)


def _arguments(given: list[str]) -> dict[str, Any]:
    """The arguments of a model."""
    from bench.cli.arguments import named_values

    return named_values(given, flag="--arg", example="depth=50")


def _require_weights(model: str, weights: Path | None) -> None:
    from bench.core.errors import InputError

    if weights is None and ":" not in model:
        raise InputError(f"{model} brings no weights; name a checkpoint with --weights")


def _run_accuracy(
    name: str,
    model: str,
    accuracy: dict[str, Any],
    *,
    arg: list[str] | None,
    clip: str | None,
    root: Path | None,
    option: list[str] | None,
    weights: Path | None,
    timeout_s: float,
    out: Path,
) -> None:
    """Run a suite of one model and one measure, and print what came out."""
    from bench.cli.arguments import dataset_options
    from bench.cli.suite_commands import LiveRun, say_predictions, say_summary, show_accuracy, write_report
    from bench.core.yaml_tree import Tree
    from bench.runner.running import run as run_suite

    axes = {"clip": clip, "weights": None if weights is None else str(weights.absolute())}
    of_dataset = dataset_options(option) or None
    options = {**accuracy, "root": None if root is None else str(root.absolute()), "options": of_dataset}
    suite = {
        "suite": name,
        "timeout_s": timeout_s,
        "models": [{"name": model, **_arguments(arg or []), **_given(axes)}],
        "measure": {"accuracy": _given(options)},
    }
    with LiveRun().running() as live:
        summary = run_suite(Tree.of(suite, name=f"vbench {name}"), out=out, on_event=live.show)
    say_summary(summary)
    for record in summary.finished:
        show_accuracy(record, folder=summary.folder)
    say_predictions(summary)
    print_text(f"report: {write_report(summary.folder)}")
    raise typer.Exit(summary.exit_code)


def _given(options: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in options.items() if value is not None}


def _print_predictions(found: "Sequence[Prediction]", *, per_view: bool) -> None:
    """Each video with its likeliest classes; `per_view` adds the first guess of every view."""
    for prediction in found:
        if prediction.error is not None:
            print_text(f"{prediction.video}: {prediction.error}")
            continue
        print_text(prediction.video)
        print_table(("", ""), [(f"{guess.probability:.1%}", guess.name) for guess in prediction.guesses], right=("",))
        if per_view:
            for number, view in enumerate(prediction.views, start=1):
                print_text(f"  view {number}: {view[0].name} ({view[0].probability:.1%})")


def _predictions_as_dicts(found: "Sequence[Prediction]") -> list[dict[str, Any]]:
    """For machines."""
    return [asdict(prediction) for prediction in found]
