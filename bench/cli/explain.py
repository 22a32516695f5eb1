"""The command `explain`: which frames and places of a video decide what a model answers."""

from pathlib import Path
from typing import Annotated

import typer

from bench.cli.arguments import AsJson, Entry, Model, ModelArguments, check_writable, model_arguments
from bench.cli.console import print_json, print_note, print_table, print_text, shown_progress
from bench.cli.train import ClipText, Labels, OptionalWeights, Preprocess, given_protocol_of_flags, require_weights
from bench.core.errors import InputError
from bench.core.files import path_hint
from bench.core.units import format_signed


def explain(
    model: Model,
    video: Annotated[Path, typer.Argument(metavar="VIDEO", help="A video file or a folder of frames.")],
    out: Annotated[Path, typer.Option("--out", help="The page to write.")] = Path("explanation.html"),
    weights: OptionalWeights = None,
    entry: Entry = None,
    clip: ClipText = None,
    label: Annotated[
        str | None, typer.Option("--class", help="The class to explain, by name or number; the likeliest by default.")
    ] = None,
    preprocess: Preprocess = None,
    labels: Labels = None,
    arg: ModelArguments = None,
    as_json: AsJson = False,
) -> None:
    """Show which frames and places of a video decide the answer: occlusion in time and space, and Grad-CAM."""
    from bench.reporting.picture_pages import write_explanation
    from bench.train.explaining import explain_video

    require_weights(model, weights, entry=entry)
    if not video.exists():
        raise InputError(f"there is no video {video}{path_hint(video)}")
    check_writable(out)
    unfinished = out.with_name(f"{out.name}.unfinished.npz")  # of a call that was killed
    with shown_progress() as report:
        explained = explain_video(
            model, video, label=label, weights=weights, entry=entry, clip=clip,
            given=given_protocol_of_flags(preprocess, labels=labels), arguments=model_arguments(arg),
            unfinished=unfinished, report=report,
        )  # fmt: skip
    found = explained.explanation
    page = write_explanation(out, found, video=video.name, model=model)
    unfinished.unlink(missing_ok=True)
    spans = found.spans
    if as_json:
        print_json(
            {
                "video": str(video),
                "label": found.label,
                "class": found.name,
                "probability": found.probability,
                "drop_points_by_frames": [
                    {"first": first, "last": last, "points": 100 * float(drop)}
                    for (first, last), drop in zip(spans, found.by_time, strict=True)
                ],
                "grad_cam_layer": found.layer or None,
                "page": str(page),
                "input": explained.protocol.as_detail(),
            }
        )
        return
    print_text(f"{video}: {found.name} ({found.probability:.1%})")
    rows = [
        (f"{first} to {last}", format_signed(100 * float(drop), 1))
        for (first, last), drop in zip(spans, found.by_time, strict=True)
    ]
    print_table(
        ("hidden frames of the clip", "points of probability lost"), rows, right=("points of probability lost",)
    )
    print_text(f"page: {page}")
    print_note(f"input: {explained.protocol}")
