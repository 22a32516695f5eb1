"""Writes the text of a suite for a model and videos; a comment gives the reason for every choice."""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from textwrap import wrap
from typing import Any

from bench.core.errors import InputError
from bench.core.schema import Clip
from bench.core.units import format_value, plural
from bench.drafting.found_model import FoundModel
from bench.drafting.found_videos import FoundVideos

RECIPE, BATCH, STEPS_AN_EPOCH = "start", 16, 4
COMPARED = ("resnet3d_18", "c3d")  # models to compare with, the first that is not the model itself
PLAIN = re.compile(r"[A-Za-z/_][A-Za-z0-9/_.-]*")
WORDS_OF_YAML = ("null", "true", "false", "yes", "no", "on", "off", "~")


def suite_name(model: str, data: str | None = None) -> str:
    """Return a name for the suite: that of the model and of the data."""
    name = Path(model.rpartition(":")[2]).stem
    if data is not None:
        name += f"_{Path(data).expanduser().resolve().stem}"
    return re.sub(r"[^a-z0-9_-]+", "_", name.lower()).strip("_-") or "mine"


def suite_text(model: FoundModel, videos: FoundVideos | None, *, name: str, command: str) -> str:
    """Return the YAML of a suite. Raises InputError if the model has fewer outputs than the videos have classes."""
    classes = None if videos is None else len(videos.classes)
    if classes is not None and model.outputs is not None and model.outputs < classes:
        raise InputError(
            f"{model.name} has {model.outputs} outputs and takes no argument num_classes, and the videos have "
            f"{classes} classes; give it that argument"
        )
    return (
        "\n".join(
            [
                *_head(name, model, videos, command),
                *_models(model, classes),
                *_matrix(model, videos),
                *_measures(videos),
            ]
        )
        + "\n"
    )


def _head(name: str, model: FoundModel, videos: FoundVideos | None, command: str) -> Iterator[str]:
    yield f"# Written by `{command}`. Every line may be changed; `vbench plan {name}.yaml` checks it."
    yield "# All keys, axes and measures: `vbench help suites`, `vbench measures list`."
    yield f"suite: {name}"
    question = f"What does {model.name} cost"
    yield f"title: {_yaml(f'{question}?' if videos is None else f'{question}, and how accurate is it?')}"


def _models(model: FoundModel, classes: int | None) -> Iterator[str]:
    given = dict(model.given)
    if classes is not None and model.takes_classes:
        given.setdefault("num_classes", classes)
    yield "models:"
    if model.params is not None and model.macs is not None:
        counts = f"{format_value(model.params, 'elements')} parameters, {format_value(model.macs, 'MACs')} per clip"
        yield f"  # {counts} with the model's own number of classes."
    others = {key: value for key, value in model.defaults.items() if key not in ("num_classes", "weights", *given)}
    if others:
        shown = ", ".join(f"{key}: {_yaml(value)}" for key, value in list(others.items())[:6])
        yield f"  # Other arguments and their defaults: {shown}{', …' if len(others) > 6 else ''}. A list is an axis."
    yield f"  - {_flow({'name': model.name, **given})}"
    other = next(each for each in COMPARED if each != model.name)
    yield "  # A known model to compare with:"
    yield f"  # - {_flow({'name': other, **({} if classes is None else {'num_classes': classes})})}"


def _matrix(model: FoundModel, videos: FoundVideos | None) -> Iterator[str]:
    clip, why = model.clip, f"because {model.remark}" if model.remark else "the model's default"
    if videos is not None and videos.frames is not None and clip.stride is not None:
        fitting = max(1, min(clip.stride, videos.frames // clip.frames))
        if fitting < clip.stride:
            clip = Clip(frames=clip.frames, stride=fitting, height=clip.height, width=clip.width)
            why += f", with a smaller stride because some videos have only {videos.frames} frames"
        elif videos.frames < clip.frames:
            why += f"; some videos have only {videos.frames} frames, and are repeated to fill a clip"
    yield "matrix:"
    yield f"  clip: [{clip}]    # frames x stride x size: {why}"
    yield "  # On a GPU: precision: [fp32, bf16]"


def _measures(videos: FoundVideos | None) -> Iterator[str]:
    yield "measure:"
    yield "  params: {}"
    yield "  macs: {}"
    yield "  latency: {}"
    yield "  throughput: {batch: [1, 8]}"
    yield "  memory: {}"
    if videos is None:
        yield "  # Accuracy on videos: `vbench init MODEL DATA` writes this part for a folder or a list."
        yield "  # accuracy: {dataset: motions, recipe: quick, seeds: [0]}"
        return
    yield f"  # {_about(videos)}"
    for remark in videos.remarks:
        yield from wrap(f"Note: {remark}.", 110, initial_indent="  # ", subsequent_indent="  #   ")
    yield "  accuracy:"
    yield f"    dataset: {videos.dataset}"
    if videos.root is not None:
        yield f"    root: {_yaml(str(videos.root))}"
    if videos.options:
        yield f"    options: {_flow(videos.options)}"
    if videos.split is not None:
        yield f"    split: {_yaml(videos.split)}"
    batch = _batch(videos)
    recipe = RECIPE if batch == BATCH else _yaml(f"{RECIPE} with batch={batch}")
    yield f"    recipe: {recipe}    # see `vbench recipes show {RECIPE}`; change it here: {RECIPE} with epochs=10"
    yield "    seeds: [0]    # three seeds show how much a training varies, and take three times as long"
    yield "    views: 1x1    # clips x crops of each evaluated video; 10x3 is what most papers print"


def _about(videos: FoundVideos) -> str:
    counts = ", ".join(f"{plural(count, 'video')} in {split}" for split, count in videos.counts.items())
    facts = [
        plural(len(videos.classes), "class") if len(videos.classes) == 1 else f"{len(videos.classes)} classes",
        counts,
    ]
    if videos.size:
        facts.append(f"{videos.size} pixels")
    if videos.fps:
        facts.append(f"{videos.fps:g} frames per second")
    if videos.frames:
        facts.append(f"{videos.frames} frames or more")
    return "; ".join(facts) + "."


def _batch(videos: FoundVideos) -> int:
    """Return the recipe's batch, or a smaller power of two that leaves some steps in an epoch of few videos."""
    batch, trained = BATCH, next(iter(videos.counts.values()))
    while batch > 2 and trained < batch * STEPS_AN_EPOCH:
        batch //= 2
    return batch


def _flow(values: Mapping[str, Any]) -> str:
    return "{" + ", ".join(f"{key}: {_yaml(value)}" for key, value in values.items()) + "}"


def _yaml(value: Any) -> str:
    """Return a value as YAML on one line; JSON is YAML, and plain words need no quotes."""
    if isinstance(value, str) and PLAIN.fullmatch(value) and value.lower() not in WORDS_OF_YAML:
        return value
    return json.dumps(value, ensure_ascii=False, default=str)
