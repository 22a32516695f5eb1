"""Transform the frames of a clip for a model: augmentation in training, crops in evaluation.

Input: uint8 (T, H, W, C) arrays, one per modality. Output: uint8 (C, T, H, W) tensors of the clip's size, which
`normalise` makes float. All frames and modalities of a clip share one random draw. Flow is stored as bytes (-20 to 20
pixels on 0 to 255), so mirroring also negates its horizontal component.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError, model_validator
from pydantic.dataclasses import dataclass

from bench.core.errors import InputError, UnknownNameError, VideoError
from bench.core.input_protocol import CropRounding, Short
from bench.core.schema import Clip
from bench.core.validation import plain_message, spelling_hint
from bench.data.frame_sampling import Sampling
from bench.data.geometry import Covering, Size

if TYPE_CHECKING:
    from torch import Tensor

Frames = Mapping[str, NDArray[np.uint8]]
Transform = Callable[[Frames, int], "dict[str, Tensor]"]
FLOW_MEAN, FLOW_STD = (0.5, 0.5), (0.5, 0.5)

Probability = Annotated[float, Field(ge=0, le=1)]
Share = Annotated[float, Field(gt=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
Strength = Annotated[float, Field(ge=0)]
Pixels = Annotated[int, Field(ge=1)]


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class Augmentation:
    """How training clips are drawn; by default only their place in time is random.

    `sampling` and `short`: see `bench.data.frame_sampling`. `resize` is the short side or (H, W) that the decoder
    scales to first; `short_side` draws it between two bounds instead (SlowFast). `crop`: `random_resized` takes an
    area of `scale` with an aspect ratio within `ratio`; `multi_scale` a square of one of `scales` of the short side,
    at a corner or the centre (Wang et al., 2015); `random` and `centre` a window of the clip's own size. `flip`,
    `grayscale` and `erase` are probabilities. `color_jitter` is (brightness, contrast, saturation, hue).
    `rand_augment` is (operations, magnitude up to 30).
    """

    sampling: Sampling = "random"
    short: Short = "loop"
    resize: Pixels | tuple[Pixels, Pixels] | None = None
    short_side: tuple[Pixels, Pixels] | None = None
    crop: Literal["random_resized", "multi_scale", "random", "centre"] = "centre"
    scale: tuple[Share, Share] = (0.25, 1.0)
    ratio: tuple[Positive, Positive] = (0.75, 4 / 3)
    scales: Annotated[tuple[Share, ...], Field(min_length=1)] = (1.0, 0.84, 0.71, 0.59)
    flip: Probability = 0.0
    color_jitter: tuple[Strength, Strength, Strength, Annotated[float, Field(ge=0, le=0.5)]] = (0.0, 0.0, 0.0, 0.0)
    grayscale: Probability = 0.0
    rand_augment: tuple[Pixels, Annotated[int, Field(ge=0, le=30)]] | None = None
    erase: Probability = 0.0

    @model_validator(mode="after")
    def _bounds_ascend(self) -> "Augmentation":
        for name in ("short_side", "scale", "ratio"):
            bounds = getattr(self, name)
            if bounds is not None and bounds[0] > bounds[1]:
                raise ValueError(f"{name} must ascend, found {list(bounds)}")
        return self

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, Any]) -> "Augmentation":
        """Read a recipe's `augmentation`; InputError that names every wrong key or value and what is allowed."""
        known = {field.name for field in fields(cls)}
        for key in mapping:
            if key not in known:
                raise UnknownNameError("augmentation", key, known)
        try:
            return TypeAdapter(cls).validate_python(dict(mapping))
        except ValidationError as error:
            raise InputError("; ".join(_in_words(problem) for problem in error.errors())) from None

    def decode_size(self, clip: Clip) -> Size | None:
        """Return what the decoder scales to: `resize`, else just enough for a crop of the clip's size, else None."""
        if self.resize is not None or self.short_side is not None or self.crop in ("random_resized", "multi_scale"):
            return self.resize
        return Covering(height=clip.height, width=clip.width)

    def build(self, clip: Clip) -> Transform:
        """Return the callable `(frames by modality, seed) -> clips by modality` that applies it."""
        return _Augmenter(self, clip)


def normalise(
    clip_CTHW: "Tensor", *, mean: Sequence[float], std: Sequence[float], out: "Tensor | None" = None
) -> "Tensor":
    """Return uint8 (…, C, T, H, W) as contiguous float32, in `out` if given: (value / 255 - mean) / std."""
    import torch

    shape = (-1, 1, 1, 1)
    factor = torch.tensor([1 / (255 * s) for s in std]).view(shape)
    offset = torch.tensor([-m / s for m, s in zip(mean, std, strict=True)]).view(shape)
    values = torch.empty(clip_CTHW.shape) if out is None else out
    return values.copy_(clip_CTHW).mul_(factor).add_(offset)


def spatial_views(
    frames_THWC: NDArray[np.uint8], *, height: int, width: int, views: int, rounding: CropRounding = "floor"
) -> "list[Tensor]":
    """Return `views` crops (C, T, height, width), evenly along the longer side; a single one is the centre crop.

    `rounding` is that of a crop's place: torchvision rounds to the nearest (half to even), PySlowFast up.
    """
    video = _video(frames_THWC)
    free_rows, free_columns = video.shape[-2] - height, video.shape[-1] - width
    if free_rows < 0 or free_columns < 0:
        raise InputError(f"a window of {height}x{width} does not fit frames of {video.shape[-2]}x{video.shape[-1]}")
    roundings: dict[str, Callable[[float], int]] = {"floor": math.floor, "ceil": math.ceil, "half_even": round}
    rounded = roundings[rounding]
    places = [0.5] if views == 1 else [i / (views - 1) for i in range(views)]
    is_wide = free_columns >= free_rows
    windows = []
    for place in places:
        top, left = (0.5, place) if is_wide else (place, 0.5)
        row, column = rounded(top * free_rows), rounded(left * free_columns)
        windows.append(_to_CTHW(video[..., row : row + height, column : column + width]))
    return windows


def whole_view(frames_THWC: NDArray[np.uint8]) -> "Tensor":
    """Return the whole frames as (C, T, H, W)."""
    return _to_CTHW(_video(frames_THWC))


class _Augmenter:
    """Applies an Augmentation. Built once per worker; the draws of a clip depend on its seed only."""

    def __init__(self, augmentation: Augmentation, clip: Clip) -> None:
        from torchvision.transforms import v2

        a, size = augmentation, (clip.height, clip.width)
        crops: dict[str, Callable[[], Any]] = {
            "random_resized": lambda: v2.RandomResizedCrop(size, scale=a.scale, ratio=a.ratio, antialias=True),
            "multi_scale": lambda: partial(_multi_scale_crop, scales=a.scales, size=size),
            "random": lambda: v2.RandomCrop(size, pad_if_needed=True, padding_mode="edge"),
            "centre": lambda: v2.CenterCrop(size),
        }
        sides = list(range(a.short_side[0], a.short_side[1] + 1)) if a.short_side else []
        self._scale = v2.RandomShortestSize(sides) if sides else v2.Identity()
        self._crop, self._flip = crops[a.crop](), a.flip
        self._colours = v2.Compose([v2.Identity(), *_colour_transforms(a)])

    def __call__(self, frames: Frames, seed: int) -> "dict[str, Tensor]":
        import torch

        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            clips = {modality: _video(frames_THWC) for modality, frames_THWC in frames.items()}
            _require_one_size(clips)
            clips = self._crop(self._scale(clips))
            if self._flip and torch.rand(()) < self._flip:
                clips = {modality: _mirrored(video, is_flow=modality == "flow") for modality, video in clips.items()}
            if "rgb" in clips:
                clips["rgb"] = self._colours(clips["rgb"])
        return {modality: _to_CTHW(video) for modality, video in clips.items()}


def _require_one_size(clips: "Mapping[str, Tensor]") -> None:
    """Raise VideoError if modalities differ in size, because they must share one crop."""
    sizes = {modality: "x".join(str(side) for side in video.shape[-2:]) for modality, video in clips.items()}
    if len(set(sizes.values())) > 1:
        found = " and ".join(f"{modality} is {size}" for modality, size in sizes.items())
        raise VideoError(f"{found} (H x W); scale both alike by `resize: [H, W]` in the recipe's augmentation")


def _colour_transforms(augmentation: Augmentation) -> list[Any]:
    from torchvision.transforms import v2

    a, transforms = augmentation, []
    if any(a.color_jitter):
        transforms.append(v2.ColorJitter(*a.color_jitter))
    if a.grayscale:
        transforms.append(v2.RandomGrayscale(a.grayscale))
    if a.rand_augment is not None:
        transforms.append(v2.RandAugment(num_ops=a.rand_augment[0], magnitude=a.rand_augment[1]))
    if a.erase:
        transforms.append(v2.RandomErasing(a.erase))
    return transforms


def _multi_scale_crop(
    clips: "dict[str, Tensor]", *, scales: Sequence[float], size: tuple[int, int]
) -> "dict[str, Tensor]":
    """Return a square of one of `scales` of the short side, at a corner or the centre, resized to `size`."""
    import torch
    from torchvision.transforms.v2 import functional

    height, width = next(iter(clips.values())).shape[-2:]
    side = round(min(height, width) * scales[int(torch.randint(len(scales), ()))])
    rows, columns = height - side, width - side
    places = [(0, 0), (0, columns), (rows, 0), (rows, columns), (rows // 2, columns // 2)]
    top, left = places[int(torch.randint(len(places), ()))]
    return {
        modality: functional.resized_crop(video, top, left, side, side, list(size), antialias=True)
        for modality, video in clips.items()
    }


def _mirrored(video: "Tensor", *, is_flow: bool) -> "Tensor":
    """Return the mirror image; in it, flow to the right becomes flow to the left."""
    from torchvision.transforms.v2 import functional

    mirrored: Tensor = functional.horizontal_flip(video)
    if is_flow:
        mirrored = mirrored.clone()
        mirrored[:, 0] = 255 - mirrored[:, 0]
    return mirrored


def _video(frames_THWC: NDArray[np.uint8]) -> "Tensor":
    """Return the frames as torchvision's Video (T, C, H, W), without a copy: channels stay last in memory."""
    import torch
    from torchvision import tv_tensors

    video: Tensor = tv_tensors.Video(torch.from_numpy(frames_THWC).permute(0, 3, 1, 2))
    return video


def _to_CTHW(video_TCHW: "Tensor") -> "Tensor":  # noqa: N802  # the shape suffix is meant
    from torch import Tensor

    return video_TCHW.as_subclass(Tensor).permute(1, 0, 2, 3)


def _in_words(problem: Mapping[str, Any]) -> str:
    where = ".".join(str(part) for part in problem["loc"] if not isinstance(part, int)) or "augmentation"
    return f"{where}: {plain_message(problem)}, found {problem['input']!r}{spelling_hint(problem)}"
