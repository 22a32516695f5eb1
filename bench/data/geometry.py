"""Size, orientation and scaling of frames: what `size` means, and how a display matrix turns a frame upright."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.core.input_protocol import Interpolation, Rounding

MAX_PIXELS = 1 << 26  # a damaged header can request more memory than exists; no data set has frames above 8192 x 8192


@dataclass(frozen=True, kw_only=True)
class Covering:
    """The smallest size with the aspect ratio of the frame that covers a window of `height` x `width`."""

    height: int
    width: int


@dataclass(frozen=True, kw_only=True)
class Scaling:
    """A size, and how frames are scaled to it; with `size` None they keep their own.

    `rounding` is that of the long side if `size` is the short one. `antialias` smooths before scaling down, as Pillow
    and torchvision do and OpenCV does not.
    """

    size: int | tuple[int, int] | Covering | None
    rounding: Rounding = "floor"
    interpolation: Interpolation = "bilinear"
    antialias: bool = True


Size = int | tuple[int, int] | Covering | Scaling


@dataclass(frozen=True, kw_only=True)
class Orientation:
    """How to turn a stored frame upright: swap rows and columns first, then mirror."""

    is_transposed: bool = False
    flips_rows: bool = False
    flips_columns: bool = False

    @classmethod
    def from_display_matrix(cls, matrix: Sequence[int]) -> "Orientation":
        """Read the nine numbers of mp4's 3 x 3 matrix; angles are rounded to the nearest quarter turn."""
        a, b, _, c, d, *_ = matrix
        if abs(b) > abs(a):
            return cls(is_transposed=True, flips_rows=b < 0, flips_columns=c < 0)
        return cls(flips_rows=d < 0, flips_columns=a < 0)

    @classmethod
    def from_angle(cls, degrees: float) -> "Orientation":
        """Read the counter-clockwise angle of the turn, rounded to the nearest quarter turn."""
        a, b = ((1, 0), (0, -1), (-1, 0), (0, 1))[round(degrees / 90) % 4]
        return cls.from_display_matrix((a, b, 0, -b, a, 0, 0, 0, 1))

    @property
    def rotation(self) -> int:
        """Clockwise turn in degrees, 0 to 270, that makes the frame upright; mirroring is not part of it."""
        if self.is_transposed:
            return 90 if self.flips_columns else 270
        return 180 if self.flips_rows else 0

    def upright(self, size: tuple[int, ...]) -> tuple[int, ...]:
        """Return height and width after the turn."""
        return (size[1], size[0]) if self.is_transposed else size

    def stored(self, size: tuple[int, ...]) -> tuple[int, ...]:
        """Return height and width before the turn."""
        return self.upright(size)

    def turn(self, frame_HWC: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return the frame upright; the same array if it already is."""
        if self == Orientation():
            return frame_HWC
        turned = frame_HWC.transpose(1, 0, 2) if self.is_transposed else frame_HWC
        rows, columns = -1 if self.flips_rows else 1, -1 if self.flips_columns else 1
        return np.ascontiguousarray(turned[::rows, ::columns])


def upright_size(native: tuple[int, ...], size: Size | None) -> tuple[int, ...]:
    """Return height and width for `size`: None keeps `native`, an int is the short side, a pair is (H, W).

    The long side is rounded down unless a `Scaling` says otherwise, as torchvision's Resize and 3D-ResNets do: 240 x
    319 at a short side of 112 is 112 x 148. Rounding to the nearest, 149, moves the centre crop and scores by up to
    5e-3.
    """
    if isinstance(size, Scaling):
        if size.rounding == "round" and isinstance(size.size, int):
            factor = size.size / min(native)  # in floating point as mmcv does it, which decides halves
            return tuple(int(side * factor + 0.5) for side in native)
        size = size.size
    if size is None:
        return native
    if isinstance(size, Covering):
        height, width = native
        # The side that needs the larger scale fits exactly; whole numbers, for a float may fall below a whole quotient.
        if size.height * width >= size.width * height:
            return size.height, size.height * width // height
        return size.width * height // width, size.width
    if not isinstance(size, int):
        return size
    short = min(native)
    return tuple(max(1, side * size // short) for side in native)


def resize(image_HWC: NDArray[np.uint8], target: tuple[int, ...], size: Size | None = None) -> NDArray[np.uint8]:
    """Scale the image to `target` (H, W) with the filter of `size`, by default an antialiased bilinear one.

    The default is within one grey level of Pillow's BILINEAR, and without antialiasing the result is within one of
    OpenCV's INTER_LINEAR. All decoding backends scale with this function, so that the same frame looks the same from
    each of them.
    """
    if image_HWC.shape[:2] == target:
        return image_HWC
    import torch  # 1 s; the index and the preparing commands read frames without scaling them
    from torch.nn import functional

    # unsqueeze before permute: torch has a fast path for bytes only if the strides say that channels are innermost.
    image_1CHW = torch.from_numpy(np.ascontiguousarray(image_HWC)).unsqueeze(0).permute(0, 3, 1, 2)
    how = size if isinstance(size, Scaling) else Scaling(size=None)
    options: dict[str, Any] = {"size": target, "mode": how.interpolation}
    if how.interpolation in ("bilinear", "bicubic"):
        options["antialias"] = how.antialias
    if how.interpolation == "area":  # torch has no such filter for bytes
        scaled_1CHW = functional.interpolate(image_1CHW.float(), **options).round().byte()
    else:
        scaled_1CHW = functional.interpolate(image_1CHW, **options)
    scaled_HWC: NDArray[np.uint8] = scaled_1CHW[0].permute(1, 2, 0).numpy()
    return scaled_HWC
