"""The command `diagnose`: why is an accuracy not the published one?"""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bench.cli.arguments import (
    AsJson,
    Entry,
    Model,
    ModelArguments,
    dataset_options,
    finite,
    model_arguments,
    seconds_of,
)
from bench.cli.console import print_json, print_note, print_table, print_text, shown_progress
from bench.cli.train import (
    ClipText,
    Dataset,
    Labels,
    OptionalWeights,
    Options,
    Preprocess,
    Root,
    Split,
    Views,
    Workers,
    given_protocol_of_flags,
    require_weights,
)
from bench.core.files import require_writable_folder, write_atomically
from bench.core.units import format_signed

if TYPE_CHECKING:
    from bench.core.stats import Estimate
    from bench.train.diagnosing import Diagnosis, Trial

PAGE, DATA, SCORED = "diagnosis.html", "diagnosis.json", "scored"
MOST_SHOWN = 12  # candidates in the terminal; the page has all of them


def diagnose(
    model: Model,
    dataset: Dataset,
    weights: OptionalWeights = None,
    published: Annotated[
        float | None,
        typer.Option("--published", min=0, max=100, callback=finite, help="The top-1 to explain, in percent."),
    ] = None,
    videos: Annotated[int, typer.Option("--videos", min=20, help="Videos of the first subset.")] = 200,
    budget: Annotated[
        str | None, typer.Option("--budget", help="Stop after this time, such as 10m or 2h; no limit by default.")
    ] = None,
    entry: Entry = None,
    clip: ClipText = None,
    root: Root = None,
    option: Options = None,
    split: Split = None,
    views: Views = "1x1",
    preprocess: Preprocess = None,
    labels: Labels = None,
    arg: ModelArguments = None,
    workers: Workers = 0,
    out: Annotated[Path, typer.Option("--out", help="Folder for the page and for stored outputs.")] = Path(
        "results/diagnose"
    ),
    as_json: AsJson = False,
) -> None:
    """Find what explains an accuracy: evaluates a subset with one thing changed at a time, and keeps what helps."""
    from bench.reporting.diagnosis_page import write_diagnosis_page
    from bench.train.diagnosing import diagnose_weights

    require_weights(model, weights, entry=entry)
    require_writable_folder(out)
    budget_s = None if budget is None else seconds_of(budget, flag="--budget")
    given = given_protocol_of_flags(preprocess, labels=labels)
    with shown_progress() as report:
        found = diagnose_weights(
            model, dataset, weights=weights, entry=entry, clip=clip, root=root, split=split,
            options=dataset_options(option), views=views, given=given, arguments=model_arguments(arg),
            published=None if published is None else published / 100, number=videos, budget_s=budget_s,
            workers=workers, folder=out / SCORED, report=report,
        )  # fmt: skip
    data = diagnosis_as_dict(found)
    write_atomically(out / DATA, json.dumps(data, indent=1) + "\n")
    page = write_diagnosis_page(
        out / PAGE, data, title=f"Diagnosis of {model} on {dataset}", lines=_as_yaml(found.suite_lines)
    )
    if as_json:
        print_json(data)
    else:
        _show(found)
        print_text(f"page: {page}")
        print_note(f"input: {found.start.protocol}")


def diagnosis_as_dict(found: "Diagnosis") -> dict[str, Any]:
    """A diagnosis as plain data: shares in percent, gains in points."""
    return {
        "sentences": found.sentences(),
        "videos": found.videos,
        "available": found.available,
        "unread": found.unread,
        "missing": found.missing,
        "top1_percent": _percent(found.start_top1),
        "top1_explained_percent": _percent(found.top1),
        "published_percent": None if found.published is None else 100 * found.published,
        "causes": [
            {
                "topic": cause.candidate.topic,
                "what": cause.candidate.what,
                "gain_points": _percent(cause.gain),
                "top1_percent": _percent(cause.after),
                "p_corrected": cause.p,
                "tried": cause.tried,
                "lines": dict(cause.candidate.lines),
            }
            for cause in found.causes
        ],
        "suite_lines": found.suite_lines,
        "candidates": [_trial_as_dict(trial) for trial in found.trials],
        "calibration_error_percent": {name: 100 * error for name, error in found.calibration.items()},
        "seconds": found.seconds,
        "stopped_because": found.stopped_because,
    }


def _trial_as_dict(trial: "Trial") -> dict[str, Any]:
    return {
        "topic": trial.topic,
        "what": trial.what,
        "videos": trial.videos,
        "gain_points": None if trial.gain is None else _percent(trial.gain),
        "p": trial.p,
        "outcome": trial.outcome,
    }


def _show(found: "Diagnosis") -> None:
    """Print the result in words, the lines of the suite, and the candidates with the largest gains."""
    for sentence in found.sentences():
        print_text(sentence)
    if found.causes:
        print_text("write this into the suite:")
        for line in _as_yaml(found.suite_lines).splitlines():
            print_text(f"  {line}")
    known = [trial for trial in found.trials if trial.gain is not None]
    known.sort(key=lambda trial: -trial.gain.value if trial.gain is not None else 0.0)
    rows = [
        (f"{t.topic}: {t.what}", format_signed(100 * t.gain.value, 1) if t.gain else None, t.videos, t.outcome)
        for t in known[:MOST_SHOWN]
    ]
    print_table(("candidate", "points", "videos", "outcome"), rows, right=("points", "videos"))
    left = len(found.trials) - len(rows)
    if left:
        print_text(f"{left} more candidates are on the page")


def _as_yaml(lines: dict[str, Any]) -> str:
    """The lines of a suite, one key a line."""
    return "\n".join(f"{key}: {_flow(value)}" for key, value in lines.items())


def _flow(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_flow(each)}" for key, each in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_flow, value)) + "]"
    if isinstance(value, bool):
        return str(value).lower()
    return str(value)


def _percent(share: "Estimate") -> dict[str, float]:
    return {"value": 100 * share.value, "low": 100 * share.low, "high": 100 * share.high}
