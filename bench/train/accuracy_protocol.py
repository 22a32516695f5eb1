"""How an accuracy was obtained, as plain data for a record: two accuracies must share it to be comparable."""

import hashlib
import sys
from collections.abc import Mapping
from pathlib import Path

from torch import nn

from bench.core.input_protocol import InputProtocol
from bench.core.schema import Clip, Json, Views, model_files, views_text
from bench.data.collection import VideoSet
from bench.models.base import inputs_of, takes_flow
from bench.train.evaluating import Evaluation
from bench.train.fitting import TrainingResult
from bench.train.preprocessing import normalisation, sampling_of, short_of
from bench.train.recipe import Recipe

NAMED = 20  # unread videos that a record names; it always has their number


def training_notes(
    model: nn.Module, *, name: str, arguments: Mapping[str, Json], weights: str | None, entry: str | None = None
) -> dict[str, Json]:
    """What tells one trained model from another: name, arguments, source code, and the weights it starts from.

    If the name or an argument names a file, such as `inflated_from`, the file's content counts.
    """
    named = {key: value for key, value in arguments.items() if isinstance(value, str)}
    named |= {file.name: str(file) for file in model_files(name)}
    files = {key: found for key, value in named.items() if (found := file_hash(value))}
    return {
        "model": name,
        "arguments": dict(arguments),
        "source": source_hash(model),
        "weights": None if weights is None else file_hash(weights),
        **({} if entry is None else {"entry": entry}),
        **({"files": files} if files else {}),
    }


def describe_training(
    recipe: Recipe, result: TrainingResult, *, seed: int, checkpoint: str, changes: Mapping[str, Json] | None = None
) -> dict[str, Json]:
    """Recipe, its changed keys, and outcome of a training."""
    return {
        "recipe": recipe.recipe,
        **({"recipe_changes": dict(changes)} if changes else {}),
        "recipe_hash": recipe.hash,
        "source": recipe.source,
        "epochs": recipe.epochs,
        "seed": seed,
        "steps": result.steps,
        "training": result.identity,
        "checkpoint": checkpoint,
        "was_reused": result.was_done,
        "resumed_at_step": result.resumed_at,
        "processes": result.processes,
        "batch_norm": result.batch_norm,
        "validated_on": result.validated_on,
        "rounding": result.rounding,
    }


def describe_evaluation(
    model: nn.Module,
    videos: VideoSet,
    evaluation: Evaluation,
    *,
    clip: Clip,
    views: Views,
    protocol: InputProtocol,
) -> dict[str, Json]:
    """Everything that decides what an accuracy means: frames, pixels, views, and which videos exactly.

    Clips out of `sections` have neither stride nor rate. `input` says the source of every part of the input protocol.
    """
    sampling, resize = sampling_of(protocol), protocol.resize_size
    return {
        "dataset": videos.name,
        "split": videos.split,
        "frames": clip.frames,
        "stride": clip.stride if sampling == "blocks" else None,
        "fps": clip.fps if sampling == "blocks" else None,
        "sampling": sampling,
        "short_videos": short_of(protocol),
        "resize": list(resize) if isinstance(resize, tuple) else resize or "to cover the crop",
        "crop": "none: whole frames" if views[1] == "full" else [clip.height, clip.width],
        "views": views_text(views),
        "averaging": protocol.averaging or "softmax",
        **({"placement": protocol.placement} if protocol.placement not in (None, "ends") else {}),
        **({"rounding": evaluation.rounding} if evaluation.rounding else {}),
        **_normalised(model, protocol),
        **({"channels": "bgr"} if protocol.channels == "bgr" else {}),
        "input": str(protocol),
        "assumed": list(protocol.assumed),
        "videos": len(evaluation.labels),
        "videos_hash": videos.hash,
        "hash_covers": videos.hash_covers,
        **({"flow_hash": videos.flow_hash} if takes_flow(model) else {}),
        "decoded_by": videos.backend,
        **{name: count for name, count in videos.counts().items() if name != "present"},
        "unread": len(evaluation.unread),
        "unread_are": "left out" if evaluation.excludes_unread else "counted as wrong",
        "unread_first": [{"id": video.id, "reason": video.reason} for video in evaluation.unread[:NAMED]],
    }


def _normalised(model: nn.Module, protocol: InputProtocol) -> dict[str, Json]:
    """`mean` and `std` of the clips, per channel on 0 to 1; `flow_mean` and so on for a second input."""
    described: dict[str, Json] = {}
    pixels = normalisation(protocol)
    for modality in dict.fromkeys(each.modality for each in inputs_of(model)):
        mean, std = pixels.of(modality)
        prefix = f"{modality}_" if described else ""
        described |= {f"{prefix}mean": list(mean), f"{prefix}std": list(std)}
    return described


def source_hash(model: nn.Module) -> str:
    """12 hex digits over the source files of the model's own modules, without those of torch."""
    modules = {type(module).__module__ for module in model.modules()}
    files = {getattr(sys.modules.get(name), "__file__", None) for name in modules if not name.startswith("torch.")}
    total = hashlib.sha256()
    for file in sorted(file for file in files if file):
        total.update(Path(file).read_bytes())
    return total.hexdigest()[:12]


def file_hash(path: str | Path) -> str | None:
    """12 hex digits over a file's content; None if there is no such file."""
    path = Path(path)
    if not path.is_file():
        return None
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:12]
