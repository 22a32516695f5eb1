"""Which frames and regions decide a prediction: occlusion over time and space, and Grad-CAM of 3D convolutions.

Occlusion needs nothing but the model: a part of the clip is replaced by its mean colour, and the drop of the class's
probability is the part's weight. Zeiler and Fergus, 2014, arXiv:1311.2901. Grad-CAM is that of Selvaraju et al., 2017,
arXiv:1610.02391.
"""

import hashlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from bench.core.errors import InputError, suggest
from bench.core.input_protocol import InputProtocol
from bench.data.clip_batches import UnreadVideo, view_batches
from bench.data.collection import Video, VideoSet
from bench.models.base import inputs_of
from bench.models.weights.load_report import require_trained
from bench.train.checkpointing import read_arrays, written_whole
from bench.train.evaluating import SAVE_EVERY_S, checked_logits, in_evaluation_mode, state_hash
from bench.train.inference import InferenceSettings, prepared
from bench.train.preprocessing import view_options
from bench.train.progress import ProgressClock, ProgressReport, silent

SEGMENTS, GRID = 8, 6  # parts of a clip in time, and rows and columns of its frames


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """What decides the score of one class for one clip.

    `frames` `(T, H, W, 3)` uint8 are what the model saw. `by_time` `(segments,)` and `by_place` `(segments, rows,
    columns)` are drops of the class's probability when that part is hidden; `grad_cam` `(T, H, W)` is from 0 to 1, None
    without convolutions.
    """

    label: int
    name: str
    probability: float
    frames: NDArray[np.uint8]
    by_time: NDArray[np.float32]
    by_place: NDArray[np.float32]
    grad_cam: NDArray[np.float32] | None
    layer: str = ""

    @property
    def spans(self) -> list[tuple[int, int]]:
        """First and last frame of each segment."""
        of_frame = self.segment_of_frame
        return [
            (of_frame.index(segment), len(of_frame) - 1 - of_frame[::-1].index(segment))
            for segment in range(len(self.by_time))
        ]

    @property
    def segment_of_frame(self) -> list[int]:
        """The segment of each frame."""
        return segments(len(self.frames), len(self.by_time))


@dataclass(frozen=True, kw_only=True)
class ExplainedVideo:
    """The explanation of a video, and the input protocol that was used."""

    explanation: Explanation
    protocol: InputProtocol


def explain_video(
    model: str,
    path: Path,
    *,
    label: str | None = None,
    weights: str | PathLike[str] | None = None,
    entry: str | None = None,
    clip: str | None = None,
    given: InputProtocol | None = None,
    arguments: Mapping[str, Any] | None = None,
    unfinished: Path | None = None,
    report: ProgressReport = silent,
) -> ExplainedVideo:
    """Explain what the model called `model` answers for a video file or frame folder.

    `label` is a class by its name or number; the likeliest one by default. `unfinished` is as in `occlusion`, the rest
    as in `predict_videos`.
    """
    built, settings = prepared(
        model, weights=weights, entry=entry, clip=clip, views="1x1", given=given, arguments=arguments or {}
    )
    require_trained(built)
    protocol = settings.protocol_of(built)
    number = None if label is None else _number_of(label, protocol.classes or ())
    explanation = explain(built, path, settings, label=number, unfinished=unfinished, report=report)
    return ExplainedVideo(explanation=explanation, protocol=protocol)


def _number_of(label: str, names: Sequence[str]) -> int:
    if label in names:
        return names.index(label)
    if label.isdecimal():
        return int(label)
    raise InputError(f"unknown class {label!r}; {suggest(label, names) if names else 'give its number'}")


def explain(
    model: nn.Module,
    path: Path,
    settings: InferenceSettings,
    *,
    label: int | None = None,
    time_segments: int = SEGMENTS,
    grid: int = GRID,
    unfinished: Path | None = None,
    report: ProgressReport = silent,
) -> Explanation:
    """Explain the score of class `label`, by default of the most likely one, for the middle clip of a video.

    Raises InputError for a model that takes more than RGB frames, or a class that it does not have; VideoError if the
    video cannot be read.
    """
    clip_BCTHW, shown = _middle_clip(model, path, settings)
    names = settings.protocol_of(model).classes or ()
    with in_evaluation_mode(model):
        with torch.inference_mode():
            probabilities = checked_logits(model(clip_BCTHW)).float().softmax(1)[0]
        chosen = int(probabilities.argmax()) if label is None else label
        if not 0 <= chosen < len(probabilities):
            raise InputError(
                f"class {chosen} does not exist: the model has {len(probabilities)}, 0 to {len(probabilities) - 1}"
            )
        probability = float(probabilities[chosen])
        by_time, by_place = occlusion(
            model,
            clip_BCTHW,
            label=chosen,
            time_segments=time_segments,
            grid=grid,
            batch=settings.batch,
            unfinished=unfinished,
            report=report,
        )
        found = grad_cam(model, clip_BCTHW, label=chosen)
    return Explanation(
        label=chosen,
        name=names[chosen] if chosen < len(names) else f"class {chosen}",
        probability=probability,
        frames=shown,
        by_time=by_time,
        by_place=by_place,
        grad_cam=None if found is None else found[0],
        layer="" if found is None else found[1],
    )


def _middle_clip(model: nn.Module, path: Path, settings: InferenceSettings) -> tuple[Tensor, NDArray[np.uint8]]:
    """The model's input `(1, C, T, H, W)` for the middle clip of a video, and the frames behind it."""
    inputs = inputs_of(model)
    if len(inputs) != 1 or inputs[0].modality != "rgb":
        raise InputError("an explanation is of one input of RGB frames; this model takes another")
    videos = VideoSet(name="files", split="given", classes=(), videos=(Video(id=path.name, path=path),))
    clips = []
    plain = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0), "channels": "rgb"}
    for options in ({}, plain):
        prepared = {**view_options(settings.protocol_of(model), settings.clip), **options}
        failed: list[UnreadVideo] = []
        batches = list(view_batches(videos, clip=settings.clip, inputs=inputs, batch=1, failures=failed, **prepared))
        if failed:
            raise InputError(failed[0].reason)
        clips.append(batches[0].clips[0])
    shown: NDArray[np.uint8] = (255 * clips[1][0]).round().byte().permute(1, 2, 3, 0).contiguous().numpy()
    return clips[0].to(settings.device), shown


def segments(frames: int, count: int) -> list[int]:
    """The segment of each of `frames`, for `count` segments of nearly equal length."""
    return [number * count // frames for number in range(frames)]


def occlusion(
    model: nn.Module,
    clip_BCTHW: Tensor,
    *,
    label: int,
    time_segments: int = SEGMENTS,
    grid: int = GRID,
    batch: int = 8,
    unfinished: Path | None = None,
    report: ProgressReport = silent,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Drops of the class's probability when a part of the clip is replaced by the clip's mean colour.

    Returns `(segments,)` for whole segments in time, and `(segments, rows, columns)` for one cell of the frames within
    one segment. With a file `unfinished`, what is computed is stored there every half minute, so that the same call
    after a kill goes on; the caller removes the file. Raises InputError unless there is one clip.
    """
    if len(clip_BCTHW) != 1:
        raise InputError(f"occlusion is of one clip, found {len(clip_BCTHW)}")
    clip_CTHW = clip_BCTHW[0]
    frames, height, width = clip_CTHW.shape[1:]
    count = min(time_segments, frames)
    of_frame = torch.tensor(segments(frames, count))
    rows = torch.tensor(segments(height, min(grid, height)))
    columns = torch.tensor(segments(width, min(grid, width)))
    hidden = [(of_frame == segment)[:, None, None].expand(frames, height, width) for segment in range(count)]
    hidden += [
        (of_frame == segment)[:, None, None] & (rows == row)[None, :, None] & (columns == column)[None, None]
        for segment in range(count)
        for row in range(int(rows.max()) + 1)
        for column in range(int(columns.max()) + 1)
    ]
    mean = clip_CTHW.mean((1, 2, 3), keepdim=True)
    about = "" if unfinished is None else _identity(model, clip_BCTHW, label, time_segments, grid)
    scores = _stored_scores(unfinished, about)
    clock, saved_at = ProgressClock(fraction=len(scores) / len(hidden)), time.monotonic()
    with torch.inference_mode():
        whole = float(checked_logits(model(clip_BCTHW)).float().softmax(1)[0, label])
        for start in range(len(scores), len(hidden), batch):
            masks = torch.stack(hidden[start : start + batch]).to(clip_CTHW.device)[:, None]
            outputs = checked_logits(model(torch.where(masks, mean, clip_CTHW)))
            scores += outputs.float().softmax(1)[:, label].tolist()
            if clock.count(len(masks)):
                report(clock.progress("hiding parts of the clip", len(scores) / len(hidden)))
            if unfinished is not None and (len(scores) == len(hidden) or time.monotonic() - saved_at >= SAVE_EVERY_S):
                with written_whole(unfinished) as part, part.open("wb") as file:
                    np.savez(file, scores=np.array(scores), about=np.array(about))
                saved_at = time.monotonic()
    drops = whole - np.array(scores, dtype=np.float32)
    return drops[:count], drops[count:].reshape(count, int(rows.max()) + 1, int(columns.max()) + 1)


def _identity(model: nn.Module, clip_BCTHW: Tensor, *about: int) -> str:
    """A digest of everything that the scores of hidden parts depend on."""
    digest = hashlib.sha256(f"{state_hash(model)} {tuple(clip_BCTHW.shape)} {about}".encode())
    digest.update(clip_BCTHW.cpu().contiguous().numpy().data)
    return digest.hexdigest()


def _stored_scores(unfinished: Path | None, about: str) -> list[float]:
    stored = {} if unfinished is None else read_arrays(unfinished)
    return stored["scores"].tolist() if stored and str(stored["about"]) == about else []


def grad_cam(model: nn.Module, clip_BCTHW: Tensor, *, label: int) -> tuple[NDArray[np.float32], str] | None:
    """Grad-CAM of the last 3D convolution, `(T, H, W)` from 0 to 1, and the name of that layer.

    None for a model without 3D convolutions, or whose last one has no map that belongs to the clip's frames.
    """
    layers = [(name, layer) for name, layer in model.named_modules() if isinstance(layer, nn.Conv3d)]
    kept: list[Tensor] = []
    for name, layer in reversed(layers):
        kept.clear()
        hook = layer.register_forward_hook(lambda _layer, _inputs, output: kept.append(output))
        try:
            with torch.enable_grad():
                logits = checked_logits(model(clip_BCTHW.clone().requires_grad_()))
                # A projection to one place, such as a head written as a convolution, has no map.
                if not kept or kept[-1].ndim != 5 or max(kept[-1].shape[3:]) < 2:
                    continue
                (gradient,) = torch.autograd.grad(logits[0, label], kept[-1])
        finally:
            hook.remove()
        weights = gradient.mean((2, 3, 4), keepdim=True)
        cam = (weights * kept[-1].detach()).sum(1, keepdim=True).relu()
        resized = nn.functional.interpolate(
            cam.float(), size=clip_BCTHW.shape[2:], mode="trilinear", align_corners=False
        )
        most = float(resized.max())
        found: NDArray[np.float32] = (resized[0, 0] / most if most > 0 else resized[0, 0]).cpu().numpy()
        return found, name
    return None
