"""How each zoo of weights prepares its clips: `protocols.csv`, read from the code that its evidence column names.

The table is prose that people can check against its sources. `parts_of` turns what it says into the parts of an
`InputProtocol`; a cell that says nothing definite leaves its part open. `class_lists.csv` says in which order a zoo
numbers the classes of a data set, as far as its own list was read; `labels.csv` has the hashes of those lists.
"""

import csv
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

_THREE_NUMBERS = re.compile(r"(?:class default |^)(\d[\d.]*)[ ,]+(\d[\d.]*)[ ,]+(\d[\d.]*)")
_CROP = re.compile(
    r"(?:centre|crops?|random|window)\D{0,12}?(\d{2,3})\b|^(\d{2,3})\b|\((\d{2,3})\)|^\((\d{2,3}) given|, (\d{2,3})$"
)
_CLIP = re.compile(r"(?:^|\b)(\d+) ?x ?(\d+)\b(?! *segments)")
_AT_RATE = re.compile(r"(\d+) frames at ([\d.]+) fps")
_SECTIONS = re.compile(
    r"(1 frame x )?\d+(, \d+ or \d+)? segments|(Kinetics_sparse: )?one frame per segment|UniformSample|"
    r"two clips of 16: middles|one clip: middle of each|64 frames, one per segment"
)
# How a centre crop is placed, read from the code of each zoo: torchvision rounds half to even, PySlowFast rounds up.
_CROP_ROUNDING = {
    "3D-ResNets-PyTorch": "half_even",
    "torchvision": "half_even",
    "TSM": "half_even",
    "mmaction2": "floor",
    "PySlowFast": "ceil",
    "PyTorchVideo": "ceil",
    "TimeSformer": "ceil",
    "UniFormer": "ceil",
}
_CONSECUTIVE = re.compile(r"sliding windows of (\d+)|(\d+) consecutive frames|clip of (\d+) given frames")


@dataclass(frozen=True, kw_only=True)
class ZooProtocol:
    """One row of the table, in its own words. `parts` are what it says for an `InputProtocol`, by name."""

    zoo: str
    recognise: str
    input_range: str
    channel_order: str
    mean: str
    std: str
    resize_rule: str
    test_crop: str
    frame_sampling: str
    averaging: str
    class_order: str
    fps: str
    trap: str
    evidence: str

    @property
    def parts(self) -> Mapping[str, Any]:
        """Parts of an input protocol that the row states."""
        return parts_of(self)

    @property
    def is_alphabetical(self) -> bool | None:
        """Whether class names are numbered in alphabetical order; None if the row does not say."""
        text = self.class_order.lower()
        if "not alphabetical" in text or "first appearance" in text:
            return False
        return True if "alphabetical" in text or "byte-sorted" in text else None


@cache
def zoo_protocols() -> Mapping[str, ZooProtocol]:
    """Return every row of the table by the name of its zoo."""
    text = files("bench.reference").joinpath("protocols.csv").read_text(encoding="utf-8")
    return {row["zoo"]: ZooProtocol(**row) for row in csv.DictReader(text.splitlines())}


@cache
def class_list(zoo: str, classes: int) -> tuple[str, ...] | None:
    """Return the names of the outputs of a zoo's model with this number of classes, in order; None if not known.

    The number stands for the data set: 400 for Kinetics-400, 101 for UCF-101, and so on.
    """
    reference = files("bench.reference")
    for line in csv.DictReader(reference.joinpath("class_lists.csv").read_text(encoding="utf-8").splitlines()):
        if int(line["classes"]) == classes and any(zoo.startswith(name) for name in line["zoos"].split("; ")):
            names = reference.joinpath("class_lists").joinpath(f"{line['list']}.txt").read_text(encoding="utf-8")
            return tuple(names.splitlines())
    return None


def parts_of(row: ZooProtocol) -> Mapping[str, Any]:
    """Return the parts of an `InputProtocol` that a row states: names and values as `InputProtocol.of` takes them."""
    mean, std = _pixels(row)
    crop = _crop(row.test_crop)
    found = {
        "channels": _channels(row.channel_order),
        "scale": _scale(row.input_range),
        "mean": mean,
        "std": std,
        "resize": _resize(row.resize_rule, crop=crop),
        "rounding": _rounding(row.resize_rule),
        "interpolation": _interpolation(row.resize_rule),
        "antialias": _antialias(row.resize_rule),
        "crop": crop,
        "crop_rounding": next((v for name, v in _CROP_ROUNDING.items() if row.zoo.startswith(name)), None),
        "clip": _clip(row.frame_sampling),
        "sampling": "sections" if _SECTIONS.match(row.frame_sampling) else None,
        "placement": _placement(row.frame_sampling),
        "short": "loop" if "looping" in row.frame_sampling or "looped" in row.frame_sampling else None,
        "averaging": _averaging(row.averaging),
    }
    return {name: value for name, value in found.items() if value is not None}


def _channels(text: str) -> str | None:
    if text.startswith("RGB"):
        return "rgb"
    if text.startswith("BGR"):
        is_reversed = "reversed to RGB" in text and "never" not in text
        return "rgb" if is_reversed else "bgr"
    return None


def _scale(text: str) -> int | None:
    if text.startswith("0-255"):
        return 255
    return 1 if text.startswith(("0-1", "-1..1")) else None


def _pixels(row: ZooProtocol) -> tuple[tuple[float, ...] | None, tuple[float, ...] | None]:
    """Mean and deviation in the range of `scale`."""
    mean, std = (_three(text) for text in (row.mean, row.std))
    if row.input_range.startswith("-1..1"):
        if mean is None and std is None:
            return (0.5,) * 3, (0.5,) * 3  # 2 x - 1
        if mean is not None and std is not None:  # the normalisation follows on values of -1..1
            return tuple((m + 1) / 2 for m in mean), tuple(s / 2 for s in std)
    # "none" means that nothing is subtracted or divided; an empty cell, that nobody says.
    if mean is None and row.mean.startswith("none"):
        mean = (0.0,)
    if std is None and row.std.startswith(("none", "1")):
        std = (1.0,)
    return mean, std


def _three(text: str) -> tuple[float, ...] | None:
    found = _THREE_NUMBERS.search(text)
    return tuple(float(number) for number in found.groups()) if found else None


def _crop(text: str) -> str | None:
    found = _CROP.search(text)
    return next((group for group in found.groups() if group), None) if found else None


def _resize(text: str, *, crop: str | None) -> str | None:
    if found := re.match(r"H x W (\d+) x (\d+)", text):
        return f"{found[1]}x{found[2]}"
    if "only if a side" in text:
        return None
    if found := re.search(r"short(?:er)? side (?:TRAIN_JITTER_SCALES\[0\] = |\(tutorial )?(\d+)\b(?!/)", text):
        return f"short:{found[1]}"
    if re.search(r"short side = (TEST_CROP_SIZE|input size|crop|input)", text):
        return None if crop is None else f"short:{crop}"
    return None


def _rounding(text: str) -> str | None:
    if "floored" in text or "truncated" in text or "torchvision Resize" in text:
        return "floor"
    return "round" if "mmcv" in text else None


def _interpolation(text: str) -> str | None:
    return "bilinear" if "bilinear" in text or "INTER_LINEAR" in text else None


def _antialias(text: str) -> bool | None:
    if "no antialias" in text or "antialias False" in text or "INTER_LINEAR" in text or "cv2" in text:
        return False
    return True if "antialiased" in text or "PIL" in text else None


def _clip(text: str) -> str | None:
    if found := _AT_RATE.search(text):
        return f"{found[1]}x@{float(found[2]):g}fps"
    if "as in the config" in text or text.startswith("one clip from the middle") or "segments" in text[:14]:
        return None
    if " or 32 consecutive" in text:
        return None
    if found := _CONSECUTIVE.search(text):
        return f"{next(group for group in found.groups() if group)}x1"
    clips = {f"{frames}x{stride}" for frames, stride in _CLIP.findall(text)}
    # Several clips stand for several models of the zoo: the model's own default is the better guess then. One frame
    # for each segment is no clip of neighbouring frames.
    return None if len(clips) != 1 or min(clips).startswith("1x") else clips.pop()


def _placement(text: str) -> str | None:
    if "floor(" in text or (text.startswith("16 x 4 (8 x 8") and "offset sampling" in text):
        return "offset"
    if re.search(r"delta\*k/", text):
        return "starts"
    if "rounded" in text:
        return "rounded"
    return "middles" if "start in the middle of each" in text else None


def _averaging(text: str) -> str | None:
    if text.startswith("max over views"):
        return "max"
    if "softmax" in text and "no softmax" not in text and "only with" not in text and "logits of" not in text:
        return "softmax"
    return "score" if "raw" in text else None
