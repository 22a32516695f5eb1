"""The command `predictions`: accuracies and confused classes of stored predictions, and two models compared."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bench.cli.arguments import check_writable, dataset_options, finite
from bench.cli.console import print_json, print_table, print_text
from bench.cli.prediction_views import (
    effects_as_dict,
    effects_of,
    one_as_dict,
    pair_as_dict,
    several_as_dict,
    show_effects,
    show_one,
    show_pair,
    show_several,
)
from bench.core.errors import InputError, UnknownNameError
from bench.core.files import write_atomically
from bench.core.spreadsheet import csv_text
from bench.core.units import plural

if TYPE_CHECKING:
    from bench.train.predictions import PredictionFile
    from bench.train.suspicious import Suspect

# Kinds of videos to look at, and what follows their number.
SUSPECTS = {"errors": ", the most confident first", "labels": " whose label is probably wrong"}
CLASS_COLUMNS = (
    "class",
    "videos",
    "right",
    "top1_percent",
    "top1_low_percent",
    "top1_high_percent",
    "predicted",
    "most_taken_for",
    "videos_taken_for_it",
)
CONFUSIONS = 10  # pairs of classes that are shown for a single model by default
VIDEOS_SHOWN, FRAMES_SHOWN = 24, 6  # by `show`, by default


def predictions(
    a: Annotated[
        Path,
        typer.Argument(
            metavar="A|show", help="A predictions.parquet of train, eval or run, or a folder with one below it."
        ),
    ],
    others: Annotated[
        list[Path] | None,
        typer.Argument(metavar="B", help="Predictions of other models, or the other stream, on the same videos."),
    ] = None,
    fuse: Annotated[
        Path | None,
        typer.Option(
            "--fuse", metavar="FILE.parquet", help="Write the mean of both scores as a new file of predictions."
        ),
    ] = None,
    weight: Annotated[
        float | None, typer.Option("--weight", min=0, help="Weight of B's scores in the fusion; A's is 1.")
    ] = None,
    confusions: Annotated[
        int | None,
        typer.Option(
            "--confusions", min=0, help="Confused pairs of classes to show; by default 10 for one model, none for two."
        ),
    ] = None,
    per_class: Annotated[
        Path | None,
        typer.Option("--per-class", metavar="FILE.csv", help="Write the accuracy of each class of one model as CSV."),
    ] = None,
    matrix: Annotated[
        Path | None,
        typer.Option(
            "--matrix",
            metavar="FILE.csv",
            help="Write the confusion matrix of one model as CSV: true classes in rows, predicted ones in columns.",
        ),
    ] = None,
    precision: Annotated[
        float | None,
        typer.Option(
            "--precision",
            min=0,
            max=100,
            callback=finite,
            help="Find the score above which this share of the answers is right, in percent.",
        ),
    ] = None,
    true: Annotated[str | None, typer.Option("--true", help="With show: only videos of this class.")] = None,
    predicted: Annotated[
        str | None, typer.Option("--predicted", help="With show: only videos that are taken for this class.")
    ] = None,
    suspects: Annotated[
        str | None,
        typer.Option(
            "--suspects", help="With show: confident `errors` (default), or `labels` that are probably wrong."
        ),
    ] = None,
    most: Annotated[
        int | None, typer.Option("--most", min=1, help=f"With show: the most videos; {VIDEOS_SHOWN} if not given.")
    ] = None,
    frames: Annotated[
        int | None,
        typer.Option("--frames", min=1, max=32, help=f"With show: frames of a video; {FRAMES_SHOWN} if not given."),
    ] = None,
    root: Annotated[Path | None, typer.Option("--root", help="With show: the folder of the data set.")] = None,
    option: Annotated[
        list[str] | None, typer.Option("--option", metavar="NAME=VALUE", help="With show: an option of the data set.")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", help="With show: write a page with their frames.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for machines.")] = False,
) -> None:
    """Show accuracies, calibration and confused classes of stored predictions; compare and fuse several models.

    `vbench predictions show FILE` lists the videos behind a cell of the confusion matrix, the most confident errors or
    the labels that are probably wrong; with --out it writes their frames.
    """
    from bench.train.predictions import open_predictions, pair_predictions

    is_show = str(a) == "show"
    of_show: dict[str, object] = {
        "--true": true,
        "--predicted": predicted,
        "--root": root,
        "--option": option,
        "--out": out,
        "--suspects": suspects,
        "--most": most,
        "--frames": frames,
    }
    _refuse(of_show, "is for `vbench predictions show FILE`", is_refused=not is_show)
    of_one = {"--per-class": per_class, "--matrix": matrix, "--precision": precision}
    _refuse(of_one, "is for one file of predictions without `show`", is_refused=is_show or bool(others))
    _refuse(
        {"--fuse": fuse, "--weight": weight, "--confusions": confusions}, "has no use with `show`", is_refused=is_show
    )
    if is_show:
        if others is None or len(others) != 1:
            raise InputError("`vbench predictions show` needs one file of predictions")
        show_suspects(
            open_predictions(others[0]), true=true, predicted=predicted, suspects=suspects or "errors",
            most=most or VIDEOS_SHOWN, frames=frames or FRAMES_SHOWN,
            root=root, options=dataset_options(option), out=out, as_json=as_json,
        )  # fmt: skip
        return
    _check_fusion(fuse, weight, others=len(others or []))
    if not others:
        one, pairs = open_predictions(a), CONFUSIONS if confusions is None else confusions
        written = write_class_files(one, per_class=per_class, matrix=matrix)
        effects = effects_of(one.file)
        if as_json:
            changes = {} if effects is None else {"changes": effects_as_dict(effects)}
            print_json(one_as_dict(one, most=pairs, precision=precision) | changes)
        else:
            show_one(one, most=pairs, precision=precision)
            show_effects(effects)
            for what, file in written.items():
                print_text(f"{what}: {file}")
        return
    if len(others) > 1:
        from bench.train.rank_bands import rank_files

        several = rank_files([open_predictions(each) for each in (a, *others)], target=fuse)
        if as_json:
            print_json(several_as_dict(several, most=confusions or 0, target=fuse))
        else:
            show_several(several, target=fuse)
        return
    both = pair_predictions(open_predictions(a), open_predictions(others[0]), weight_b=weight, target=fuse)
    if as_json:
        print_json(pair_as_dict(both, most=confusions or 0, target=fuse))
    else:
        show_pair(both, most=confusions or 0, target=fuse)


def _refuse(flags: Mapping[str, object], reason: str, *, is_refused: bool) -> None:
    """Raise InputError for the first flag that is given, if such flags are refused."""
    for flag, value in flags.items():
        if is_refused and value is not None:
            raise InputError(f"{flag} {reason}")


def write_class_files(opened: "PredictionFile", *, per_class: Path | None, matrix: Path | None) -> dict[str, Path]:
    """Write the accuracy of each class and the confusion matrix as CSV; returns what each written file holds.

    Raises InputError if a file cannot be written, or if the videos have several labels.
    """
    from bench.reporting.confusion import matrix_csv
    from bench.train.scoring import class_scores

    files = {"accuracy by class": per_class, "confusion matrix": matrix}
    wanted = {what: file for what, file in files.items() if file is not None}
    found = opened.predictions
    if wanted and found.is_multi_label:
        verb = "is" if len(wanted) == 1 else "are"
        raise InputError(f"{opened.file}: {' and '.join(wanted)} {verb} not defined if a video has several labels")
    for file in wanted.values():
        check_writable(file)
    if per_class is not None:
        rows = []
        for each in class_scores(found.confusion):
            shares = (each.share.value, each.share.low, each.share.high)
            percents = [100 * share for share in shares] if each.videos else [None] * 3
            taken_for = None if each.taken_for is None else found.class_names[each.taken_for]
            name = found.class_names[each.number]
            rows.append((name, each.videos, each.right, *percents, each.predicted, taken_for, each.taken))
        write_atomically(per_class, csv_text(CLASS_COLUMNS, rows))
    if matrix is not None:
        write_atomically(matrix, matrix_csv(found))
    return wanted


def show_suspects(
    opened: "PredictionFile",
    *,
    true: str | None,
    predicted: str | None,
    suspects: str,
    most: int,
    frames: int,
    root: Path | None,
    options: dict[str, Any],
    out: Path | None,
    as_json: bool,
) -> None:
    """List videos to look at, and write a page with their frames if `out` is given."""
    from bench.train.suspicious import confident_errors, probable_label_errors

    if suspects not in SUSPECTS:
        raise UnknownNameError("kind of suspects", suspects, SUSPECTS, where="--suspects")
    if out is not None:
        check_writable(out)
    choose = confident_errors if suspects == "errors" else probable_label_errors
    found = choose(opened.predictions, true=true, predicted=predicted)
    shown = found[:most]
    if as_json:
        print_json([asdict(each) for each in shown])
    else:
        rows = [
            (each.video, each.label, f"{each.label_score:.2f}", each.predicted, f"{each.predicted_score:.2f}")
            for each in shown
        ]
        print_table(("video", "label", "score", "predicted", "score "), rows, right=("score", "score "))
        print_text(f"{len(shown)} of {plural(len(found), 'video')}{SUSPECTS[suspects]}")
    if out is not None:
        page = _write_sheet(opened, shown, frames=frames, root=root, options=options, out=out, found=len(found))
        if not as_json:
            print_text(f"page: {page}")


def _write_sheet(
    opened: "PredictionFile",
    shown: "Sequence[Suspect]",
    *,
    frames: int,
    root: Path | None,
    options: dict[str, Any],
    out: Path,
    found: int,
) -> Path:
    """Write a contact sheet of the videos, found in the data set that the predictions are of."""
    from bench.reporting.contact_sheet import VideoSource, read_clips
    from bench.reporting.picture_pages import write_contact_sheet

    predictions = opened.predictions
    videos = VideoSource(root=root, options=options).open(predictions.protocol)
    clips = read_clips(videos, shown, frames=frames)
    of_set = f"{predictions.protocol['dataset']} {predictions.protocol['split']}"
    summary = f"{len(shown)} of {plural(found, 'video')} of {of_set}, answered by {predictions.model or 'a model'}."
    return write_contact_sheet(out, clips, title="Videos to look at", summary=summary)


def _check_fusion(fuse: Path | None, weight: float | None, *, others: int) -> None:
    """Raise InputError if there is nothing to fuse, or the file cannot be written."""
    if others > 1 and weight is not None:
        raise InputError(f"--weight is for two files of predictions, and {others + 1} are given; all count alike")
    if not others and (fuse is not None or weight is not None):
        raise InputError(
            f"{'--weight' if fuse is None else '--fuse'} needs two files of predictions, and only one is given"
        )
    if fuse is not None:
        if fuse.suffix != ".parquet":
            raise InputError(f"{fuse} cannot be written: a file of predictions must end with .parquet")
        check_writable(fuse)
