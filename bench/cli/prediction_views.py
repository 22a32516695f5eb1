"""Stored predictions as text for the terminal and as data for `--json`: one model, two models, several, and changes."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.cli.console import print_table, print_text
from bench.core.schema import Json
from bench.core.stats import Estimate
from bench.core.units import MINUS, format_interval, format_number, format_value, plural

if TYPE_CHECKING:
    from bench.train.calibration import Calibration
    from bench.train.change_effects import ChangeEffect, ChangeEffects
    from bench.train.predictions import Agreement, PredictionFile, PredictionPair, Predictions
    from bench.train.rank_bands import RankedFiles

FEW_CLASSES = 5  # top-5 is always 100 % with so few classes
WORST_CLASSES = 5


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


def show_several(several: "RankedFiles", *, target: Path | None) -> None:
    """Print the models by their top-1 with the ranks that they may have, and the ensemble of all."""
    from bench.train.rank_bands import SURE

    rows: list[tuple[object, ...]] = []
    for band in several.ranking.bands:
        opened = several.files[band.place]
        rows.append((band.text, _with_interval(band.top1), opened.predictions.model or None, opened.file))
    if several.ensemble is not None:
        rows.append((None, _with_interval(several.ensemble.top(1)), "ensemble of all", target))
    print_table(("rank", "top-1 (95 % interval)", "model", "file"), rows, right=("rank",))
    count = len(several.ranking.pairs)
    sure = sum(pair.p < SURE for pair in several.ranking.pairs)
    print_text(
        f"{sure} of {plural(count, 'pair')} of models can be told apart (McNemar's exact test on the same videos, "
        "corrected by Holm); models that cannot share their ranks"
    )
    if several.why_not:
        print_text(f"no ensemble: {several.why_not}")
    if target is not None:
        print_text(f"ensemble: {target}")


def several_as_dict(several: "RankedFiles", *, most: int, target: Path | None) -> dict[str, Any]:
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
