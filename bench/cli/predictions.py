"""The command `predictions`: accuracies and confused classes of stored predictions, and two models compared."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bench.cli.arguments import check_writable, dataset_options, finite
from bench.cli.console import print_json, print_table, print_text
from bench.core.errors import InputError, UnknownNameError
from bench.core.files import write_atomically
from bench.core.schema import Json
from bench.core.spreadsheet import csv_text
from bench.core.stats import Estimate
from bench.core.units import MINUS, format_interval, format_number, format_value, plural

if TYPE_CHECKING:
    from bench.train.calibration import Calibration
    from bench.train.change_effects import ChangeEffect, ChangeEffects
    from bench.train.predictions import Agreement, PredictionFile, PredictionPair, Predictions
    from bench.train.rank_bands import Ranking
    from bench.train.suspicious import Suspect

FEW_CLASSES = 5  # top-5 is always 100 % with so few classes
# Kinds of videos to look at, and what follows their number.
SUSPECTS = {"errors": ", the most confident first", "labels": " whose label is probably wrong"}
SURE_P = 0.05
WORST_CLASSES = 5
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


def show_one(opened: "PredictionFile", *, most: int, precision: float | None = None) -> None:
    """Print the metrics of one model, how they were obtained, its calibration, and its most confused classes."""
    _print_source(opened, name="")
    _show_metrics([("", opened.predictions)])
    _print_unread(opened.predictions)
    show_calibration(_calibration_of(opened.predictions, precision=precision), precision=precision)
    _show_confused(opened.predictions, most=most, name="")
    _show_relabelling(opened.predictions, name="")


def _calibration_of(found: "Predictions", *, precision: float | None) -> "Calibration | None":
    """How far the scores can be believed; `precision` is in percent."""
    from bench.train.calibration import calibrate_predictions

    return calibrate_predictions(found, precision=None if precision is None else precision / 100)


def show_calibration(found: "Calibration | None", *, precision: float | None) -> None:
    """Print the calibration error, Brier score, area under risk and coverage, temperature, and the threshold."""
    if found is None:
        return
    print_text(
        f"expected calibration error {_with_interval(found.error)}; Brier score {format_number(found.brier, 3)}; area "
        f"under risk-coverage {format_value(100 * found.aurc, '%')}"
    )
    if found.temperature is not None:
        before, after = (
            format_value(100 * error, "%") for error in (found.temperature.error_before, found.temperature.error_after)
        )
        print_text(
            f"temperature {format_number(found.temperature.value, 3)}, fitted on one half: the calibration error "
            f"of the other half goes from {before} to {after}"
        )
    if precision is not None and found.abstention is None:
        print_text(f"no score is high enough for {precision:g} % right answers")
    elif precision is not None and found.abstention is not None:
        print_text(
            f"with 'unknown' below a score of {format_number(found.abstention.threshold, 3)}, "
            f"{format_value(100 * found.abstention.coverage, '%')} of the videos are answered, and "
            f"{_with_interval(found.abstention.precision)} of the answers are right"
        )


def calibration_as_dict(found: "Calibration") -> dict[str, Any]:
    """The calibration as plain data; errors and shares in percent."""
    temperature, abstention = found.temperature, found.abstention
    return {
        "error_percent": _percent(found.error),
        "brier": found.brier,
        "aurc_percent": 100 * found.aurc,
        "reliability": [
            {"videos": each.videos, "confidence": each.confidence, "right_percent": _percent(each.right)}
            for each in found.bins
        ],
        "temperature": None
        if temperature is None
        else {
            "value": temperature.value,
            "error_before_percent": 100 * temperature.error_before,
            "error_after_percent": 100 * temperature.error_after,
        },
        "threshold": None
        if abstention is None
        else {
            "score": abstention.threshold,
            "coverage_percent": 100 * abstention.coverage,
            "precision_percent": _percent(abstention.precision),
        },
    }


def effects_of(file: Path) -> "ChangeEffects | None":
    """What changes of the input did; None if the file has predictions for the unchanged input only."""
    from bench.train.change_effects import change_effects
    from bench.train.predictions import read_changed_predictions

    return change_effects(read_changed_predictions(file))


def show_effects(effects: "ChangeEffects | None") -> None:
    """Print each change with its difference, the classes that lose most without order, and the summaries."""
    if effects is None:
        return
    print_text(f"changed input, against {format_value(100 * effects.unchanged.value, '%')} of the unchanged one")
    rows = [
        (
            effect.name,
            format_value(100 * effect.top1.value, "%"),
            _signed(100 * effect.difference.value),
            f"{_signed(100 * effect.difference.low)} to {_signed(100 * effect.difference.high)}",
            f"{effect.p:.2g}",
        )
        for effect in effects.effects
    ]
    columns = ("change", "top-1", "difference", "95 % interval", "p")
    print_table(columns, rows, right=("top-1", "difference", "p"))
    for sentence in effects.use_of_time.sentences:
        print_text(sentence)
    for effect in effects.effects:
        if effect.name == effects.use_of_time.without_order:
            print_text(f"classes that lose most when {effect.name}: {_worst_classes(effect)}")
    if effects.mean_corruption_error is not None:
        kinds = ", ".join(curve.name for curve in effects.curves)
        print_text(f"mean corruption error over {kinds}: {format_value(100 * effects.mean_corruption_error, '%')}")


def _worst_classes(effect: "ChangeEffect") -> str:
    lost = [each for each in effect.classes if each.difference < 0][:WORST_CLASSES]
    return ", ".join(f"{each.name} ({_signed(100 * each.difference)})" for each in lost) or "none"


def effects_as_dict(effects: "ChangeEffects") -> dict[str, Any]:
    """The effects of all changes as plain data; shares in percent, differences in points."""
    use = effects.use_of_time
    error = effects.mean_corruption_error
    return {
        "top1_percent": _percent(effects.unchanged),
        "effects": [
            {
                "change": effect.name,
                "top1_percent": _percent(effect.top1),
                "difference_points": _percent(effect.difference),
                "mcnemar_p": effect.p,
                "classes": [asdict(each) for each in effect.classes],
            }
            for effect in effects.effects
        ],
        "without_order": use.without_order,
        "lost_without_order_percent": None if use.lost is None else _percent(use.lost),
        "kept_by_one_frame_percent": None if use.one_frame is None else _percent(use.one_frame),
        "mean_corruption_error_percent": None if error is None else 100 * error,
        "curves": {
            curve.name: [{"severity": value, "top1_percent": _percent(top1)} for value, top1 in curve.points]
            for curve in effects.curves
        },
    }


def show_pair(pair: "PredictionPair", *, most: int, target: Path | None) -> None:
    """Print two models and their fusion side by side, and whether they differ by more than chance."""
    _print_source(pair.a, name="A: ")
    _print_source(pair.b, name="B: ")
    columns = _columns(pair)
    _show_metrics(columns)
    _print_unread(pair.a.predictions)
    _print_agreement(pair.agreement)
    if pair.why_not:
        print_text(f"not fused: {pair.why_not}")
    for name, found in columns:
        _show_confused(found, most=most, name=f"{name}: ")
    for opened, name in ((pair.a, "A: "), (pair.b, "B: ")):
        _show_relabelling(opened.predictions, name=name)
    if target is not None:
        print_text(f"fused: {target}")


def one_as_dict(opened: "PredictionFile", *, most: int, precision: float | None = None) -> dict[str, Any]:
    """The metrics and confused classes of one model as plain data."""
    return {"file": str(opened.file), **_as_dict(opened.predictions, most=most, precision=precision)}


def pair_as_dict(pair: "PredictionPair", *, most: int, target: Path | None) -> dict[str, Any]:
    """Both models, their agreement and their fusion as plain data."""
    agreement = pair.agreement
    return {
        "a": one_as_dict(pair.a, most=most),
        "b": one_as_dict(pair.b, most=most),
        "b_minus_a_top1_points": _percent(agreement.difference),
        "both": agreement.both,
        "only_a": agreement.only_a,
        "only_b": agreement.only_b,
        "neither": agreement.neither,
        "mcnemar_p": agreement.p,
        "weight_b": pair.weight_b,
        "fused": None
        if pair.fused is None
        else {"file": None if target is None else str(target), **_as_dict(pair.fused, most=most)},
        "not_fused_because": pair.why_not or None,
    }


@dataclass(frozen=True, kw_only=True)
class RankedFiles:
    """Three or more files, their ranking, and the ensemble of all; None with the reason in `why_not`."""

    files: "Sequence[PredictionFile]"
    ranking: "Ranking"
    ensemble: "Predictions | None"
    why_not: str = ""


def rank_files(files: "Sequence[PredictionFile]", *, target: Path | None) -> RankedFiles:
    """Rank the models of several files; their ensemble is written to `target` if it is given.

    Raises InputError unless all scored the same videos, and if they cannot be averaged although a target asks for it.
    """
    from bench.train.predictions import store_predictions
    from bench.train.rank_bands import ensemble, rank_models

    found = [opened.predictions for opened in files]
    ranking = rank_models(found)
    try:
        together, why_not = ensemble(found), ""
    except InputError as error:
        if target is not None:
            raise
        together, why_not = None, str(error)
    if target is not None and together is not None:
        store_predictions(target, together)
    return RankedFiles(files=files, ranking=ranking, ensemble=together, why_not=why_not)


def show_several(several: RankedFiles, *, target: Path | None) -> None:
    """Print the models by their top-1 with the ranks that they may have, and the ensemble of all."""
    rows: list[tuple[object, ...]] = []
    for band in several.ranking.bands:
        opened = several.files[band.place]
        rows.append((band.text, _with_interval(band.top1), opened.predictions.model or None, opened.file))
    if several.ensemble is not None:
        rows.append((None, _with_interval(several.ensemble.top(1)), "ensemble of all", target))
    print_table(("rank", "top-1 (95 % interval)", "model", "file"), rows, right=("rank",))
    count = len(several.ranking.pairs)
    sure = sum(pair.p < SURE_P for pair in several.ranking.pairs)
    print_text(
        f"{sure} of {plural(count, 'pair')} of models can be told apart (McNemar's exact test on the same videos, "
        "corrected by Holm); models that cannot share their ranks"
    )
    if several.why_not:
        print_text(f"no ensemble: {several.why_not}")
    if target is not None:
        print_text(f"ensemble: {target}")


def several_as_dict(several: RankedFiles, *, most: int, target: Path | None) -> dict[str, Any]:
    """The ranking and the ensemble as plain data."""
    together = several.ensemble
    return {
        "models": [
            {
                "file": str(several.files[band.place].file),
                "model": several.files[band.place].predictions.model or None,
                "top1_percent": _percent(band.top1),
                "best_rank": band.best,
                "worst_rank": band.worst,
            }
            for band in several.ranking.bands
        ],
        "pairs": [
            {
                "a": str(several.files[pair.a].file),
                "b": str(several.files[pair.b].file),
                "b_minus_a_top1_points": _percent(pair.agreement.difference),
                "p_corrected": pair.p,
            }
            for pair in several.ranking.pairs
        ],
        "ensemble": None
        if together is None
        else {"file": None if target is None else str(target), **_as_dict(together, most=most)},
        "no_ensemble_because": several.why_not or None,
    }


def _columns(pair: "PredictionPair") -> "list[tuple[str, Predictions]]":
    columns = [("A", pair.a.predictions), ("B", pair.b.predictions)]
    if pair.fused is not None:
        columns.append(("fused" if pair.weight_b == 1 else f"fused, B x {pair.weight_b:g}", pair.fused))
    return columns


def _print_source(opened: "PredictionFile", *, name: str) -> None:
    print_text(f"{name}{opened.file}")
    if opened.predictions.model:
        print_text(f"{' ' * len(name)}{opened.predictions.model}")


def _show_metrics(columns: "Sequence[tuple[str, Predictions]]") -> None:
    """Print the shared protocol in one line, then a column per model: the rest of its protocol, and its metrics."""
    protocols = [_facts(found.protocol) for _, found in columns]
    first = protocols[0].items()
    shared = {name: text for name, text in first if all(facts.get(name) == text for facts in protocols)}
    if shared:
        print_text("; ".join(f"{name}: {text}" for name, text in shared.items()))
    own = [{name: text for name, text in facts.items() if name not in shared} for facts in protocols]
    rows = [facts | _metrics(found) for facts, (_, found) in zip(own, columns, strict=True)]
    names = dict.fromkeys(name for row in rows for name in row)
    print_table(("", *(name for name, _ in columns)), [(name, *(row.get(name) for row in rows)) for name in names])


def _facts(protocol: Mapping[str, Json]) -> dict[str, str]:
    """The parts of a protocol that decide what an accuracy means, as far as they are known."""
    known = {name: value for name, value in protocol.items() if value is not None}
    facts = {
        "data set": " ".join(str(known[name]) for name in ("dataset", "split") if name in known),
        "clips": _clips(known),
        "views of a video": f"{known['views']} (in time x in space)" if "views" in known else "",
        "scores": f"{_averaged(known['averaging'])}, mean over the views" if "averaging" in known else "",
    }
    return {name: text for name, text in facts.items() if text}


def _clips(known: Mapping[str, Json]) -> str:
    parts = [f"{known['frames']} frames"] if "frames" in known else []
    if known.get("sampling") == "sections":
        parts.append("one of each equal section of the video")
    parts += [f"{name} {known[name]}" for name in ("stride", "fps") if name in known]
    if "crop" in known:
        crop = known["crop"]
        parts.append("x".join(map(str, crop)) + " pixels" if isinstance(crop, list) else "whole frames")
    return ", ".join(parts)


def _averaged(averaging: Json) -> str:
    return "raw" if averaging == "score" else str(averaging)


def _metrics(found: "Predictions") -> dict[str, str]:
    metrics = {"videos": _videos(found), "top-1 (95 % interval)": _with_interval(found.top(1))}
    if len(found.class_names) > FEW_CLASSES:
        metrics["top-5 (95 % interval)"] = _with_interval(found.top(5))
    if found.is_multi_label:
        metrics["mean average precision"] = format_value(100 * found.mean_average_precision, "%")
    else:
        metrics["mean per class"] = format_value(100 * found.mean_class, "%")
    return metrics


def _videos(found: "Predictions") -> str:
    present = int(found.labels.any(axis=0).sum()) if found.is_multi_label else len(set(found.labels.tolist()))
    among = "" if present == len(found.classes) else f" of {len(found.classes)}"
    return f"{len(found.videos)} in {present}{among} classes"


def _with_interval(share: Estimate) -> str:
    span = format_interval(100 * share.low, 100 * share.high, value=100 * share.value, unit="%")
    return f"{format_value(100 * share.value, '%')} ({span})"


def _print_unread(found: "Predictions") -> None:
    """Print how many unread videos the metrics of a record count in addition."""
    if not found.unread:
        return
    text = f"{plural(found.unread, 'video')} could not be read and left out here"
    if found.protocol.get("unread_are") == "left out":
        print_text(f"{text}, as in the record")
    else:
        top = format_value(100 * found.top(1, wrong=found.unread).value, "%")
        print_text(
            f"{text}; a record counts such videos as wrong: top-1 {top}, and every other accuracy is lower there too"
        )


def _print_agreement(agreement: "Agreement") -> None:
    difference = agreement.difference
    value, low, high = (_signed(100 * each) for each in (difference.value, difference.low, difference.high))
    print_text(f"B {MINUS} A: {value} points of top-1 (95 % interval {low} to {high}, on the same videos)")
    print_text(
        f"right in both: {agreement.both}, only in A: {agreement.only_a}, only in B: {agreement.only_b}, "
        f"in neither: {agreement.neither}"
    )
    apart = agreement.only_a + agreement.only_b
    if not apart:
        print_text("both are right on the same videos (McNemar's exact p 1)")
        return
    print_text(
        f"McNemar's exact p {agreement.p:.2g}: the chance that two equally good models split the "
        f"{plural(apart, 'video')} that only one gets right at least as unevenly"
    )


def _show_confused(found: "Predictions", *, most: int, name: str) -> None:
    if not most:
        return
    if found.is_multi_label:
        print_text(f"{name}confused classes are not defined if a video has several labels")
        return
    pairs = _confused(found, most=most)
    if not pairs:
        print_text(f"{name}no class was confused with another")
        return
    print_text(f"{name}most often confused")
    rows = [
        (pair["class"], pair["taken_for"], f"{pair['videos']} of {pair['of']}", format_value(pair["percent"], "%"))
        for pair in pairs
    ]
    print_table(("class", "taken for", "videos", "of the class"), rows, right=("videos", "of the class"))


def _show_relabelling(found: "Predictions", *, name: str) -> None:
    """Print whether another order of the classes explains the predictions far better."""
    from bench.train.scoring import RELABELLING_REMEDY

    relabelling = found.relabelling
    if relabelling is not None:
        print_text(f"{name}warning: {relabelling}; {RELABELLING_REMEDY}")


def _confused(found: "Predictions", *, most: int) -> list[dict[str, Any]]:
    from bench.train.scoring import confused_pairs

    matrix, names = found.confusion, found.class_names
    totals = matrix.sum(axis=1)
    return [
        {
            "class": names[true],
            "taken_for": names[taken],
            "videos": times,
            "of": int(totals[true]),
            "percent": 100 * times / int(totals[true]),
        }
        for true, taken, times in confused_pairs(matrix, most)
    ]


def _as_dict(found: "Predictions", *, most: int, precision: float | None = None) -> dict[str, Any]:
    is_one = not found.is_multi_label
    calibration = _calibration_of(found, precision=precision)
    return {
        "model": found.model or None,
        "videos": len(found.videos),
        "unread": found.protocol.get("unread"),
        "unread_are": found.protocol.get("unread_are"),
        "top1_percent": _percent(found.top(1)),
        "top5_percent": _percent(found.top(5)) if len(found.class_names) > FEW_CLASSES else None,
        "mean_class_percent": 100 * found.mean_class if is_one else None,
        "map_percent": None if is_one else 100 * found.mean_average_precision,
        "classes": list(found.class_names),
        "confusions": _confused(found, most=most) if is_one else None,
        "confusion_matrix": found.confusion.tolist() if is_one else None,
        "calibration": None if calibration is None else calibration_as_dict(calibration),
        "relabelling": None if found.relabelling is None else asdict(found.relabelling),
        "protocol": dict(found.protocol),
    }


def _percent(share: Estimate) -> dict[str, float]:
    return {"value": 100 * share.value, "low": 100 * share.low, "high": 100 * share.high}


def _signed(value: float) -> str:
    return f"+{format_number(value, 2)}" if value > 0 else format_number(value, 2)
