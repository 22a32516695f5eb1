"""Parses how a published accuracy was taken (views, crops, split) from the words of its row."""

import re
from dataclasses import dataclass

from bench.reference.published import PublishedRow, ZooRow

DATASETS = {
    "kinetics400": "kinetics400",
    "kinetics600": "kinetics600",
    "kinetics700": "kinetics700",
    "ucf101": "ucf101",
    "hmdb51": "hmdb51",
    "somethingsomethingv2": "somethingsomething",
    "sthv2": "somethingsomething",
    "momentsintimev1": "moments",
}
PROMPTS = {"microsoft/VideoX X-CLIP/README.md": ("{}",)}
"""Texts into which class names are put in zero-shot results, by source, as read in its code.

X-CLIP/utils/tools.py:110 @1744b2159c3d: the class name alone.
"""

_DATASET = re.compile(r"(?P<name>[^(]*?)\s*(?:split (?P<fold>\d)|\((?P<part>[^)]*)\))?")
_CLIP = re.compile(r"(?:dense-)?(?P<frames>\d+)x(?P<stride>\d+)(?:x(?P<snippets>\d+))?(?: \(dense\))?")
_FRAMES = re.compile(r"(?P<frames>\d+) frames(?: @ (?P<fps>[\d.]+) fps)?")
_CROP = re.compile(r"(?P<pixels>\d+)(?!\d)")
_VIEWS = re.compile(r"[1-9]\d*x[1-9]\d*")


@dataclass(frozen=True, kw_only=True)
class PublishedProtocol:
    """What a row says; None where it says nothing, or nothing that can be read.

    `dataset` is our name of the data set. `part` is `val` or `test`, `fold` the number of an official split,
    `is_mean` an average over all three of them. `crop` is in pixels. `views` is temporal x spatial where it is that;
    `views_said` is what the row has there. `adaptation` and `sampling` are those of the row, and
    `prompts` the texts of a zero-shot result; empty if not known.
    """

    dataset: str | None
    part: str | None = None
    fold: int | None = None
    is_mean: bool = False
    frames: int | None = None
    stride: int | None = None
    fps: float | None = None
    crop: int | None = None
    views: str | None = None
    views_said: str = ""
    adaptation: str = ""
    sampling: str = ""
    prompts: tuple[str, ...] = ()

    @property
    def is_dense(self) -> bool:
        """Whether clips cover the whole video, however many that takes."""
        return any(word in self.views_said for word in ("sliding", "dense"))


def published_protocol(found: ZooRow) -> PublishedProtocol:
    """What the row says of how its accuracy was taken."""
    row = found.row
    frames, stride, fps = _clip_of(row, frames=found.frames)
    dataset = _DATASET.fullmatch(row.dataset)
    name = re.sub(r"[^a-z0-9]", "", dataset["name"].lower()) if dataset else ""
    part = (dataset["part"] or "") if dataset else ""
    pixels = None if row.crop.startswith(("short-side", "height")) else _CROP.match(row.crop)
    return PublishedProtocol(
        dataset=DATASETS.get(name),
        part=part if part in ("val", "test") else None,
        fold=int(dataset["fold"]) if dataset and dataset["fold"] else None,
        is_mean=part == "3-split avg",
        frames=frames,
        stride=stride,
        fps=fps,
        crop=int(pixels["pixels"]) if pixels else None,
        views=row.views if _VIEWS.fullmatch(row.views) else None,
        views_said=row.views,
        adaptation=row.adaptation,
        sampling=row.sampling,
        prompts=PROMPTS.get(row.source, ()) if row.adaptation == "zero-shot" else (),
    )


def _clip_of(row: PublishedRow, *, frames: int | None) -> tuple[int | None, int | None, float | None]:
    """Frames, their stride, and their rate where the row gives that instead.

    The frames of a model with several pathways are those of its fast one (`frames`), over the same time.
    Snippets spread over a whole video have no stride.
    """
    if clip := _CLIP.fullmatch(row.clip):
        said, stride, snippets = int(clip["frames"]), int(clip["stride"]), int(clip["snippets"] or 1)
        if snippets > 1:
            return said * snippets, None, None
        taken = frames or said
        return taken, said * stride // taken, None
    if clip := _FRAMES.fullmatch(row.clip):
        return int(clip["frames"]), None, float(clip["fps"]) if clip["fps"] else None
    return None, None, None
