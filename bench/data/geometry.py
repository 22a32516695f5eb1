"""Sizes and orientation of frames: what `size` means, and how a display matrix turns a frame upright."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MAX_PIXELS = 1 << 26  # a damaged header can ask for more memory than there is; 8192 x 8192 is beyond every data set


@dataclass(frozen=True, kw_only=True)
class Covering:
    """The smallest size, aspect kept, that a window of `height` x `width` fits into."""

    height: int
    width: int


Size = int | tuple[int, int] | Covering


@dataclass(frozen=True, kw_only=True)
class Orientation:
    """How a stored frame becomes upright: rows and columns swapped first, then mirrored."""

    is_transposed: bool = False
    flips_rows: bool = False
    flips_columns: bool = False

    @classmethod
    def from_display_matrix(cls, matrix: Sequence[int]) -> "Orientation":
        """From the nine numbers of mp4's 3 x 3 matrix; other angles go to the nearest quarter turn."""
        a, b, _, c, d, *_ = matrix
        if abs(b) > abs(a):
            return cls(is_transposed=True, flips_rows=b < 0, flips_columns=c < 0)
        return cls(flips_rows=d < 0, flips_columns=a < 0)

    @classmethod
    def from_angle(cls, degrees: float) -> "Orientation":
        """From the counter-clockwise angle by which the stored frame is to be turned, to the nearest quarter turn."""
        a, b = ((1, 0), (0, -1), (-1, 0), (0, 1))[round(degrees / 90) % 4]
        return cls.from_display_matrix((a, b, 0, -b, a, 0, 0, 0, 1))

    @property
    def rotation(self) -> int:
        """Degrees clockwise, 0 to 270, that make the frame upright, a mirror image apart."""
        if self.is_transposed:
            return 90 if self.flips_columns else 270
        return 180 if self.flips_rows else 0

    def upright(self, size: tuple[int, ...]) -> tuple[int, ...]:
        """Height and width after the turn."""
        return (size[1], size[0]) if self.is_transposed else size

    def stored(self, size: tuple[int, ...]) -> tuple[int, ...]:
        """Height and width before the turn."""
        return self.upright(size)

    def turn(self, frame_HWC: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The frame upright; the same array where nothing is to be turned."""
        if self == Orientation():
            return frame_HWC
        turned = frame_HWC.transpose(1, 0, 2) if self.is_transposed else frame_HWC
        rows, columns = -1 if self.flips_rows else 1, -1 if self.flips_columns else 1
        return np.ascontiguousarray(turned[::rows, ::columns])


def upright_size(native: tuple[int, ...], size: Size | None) -> tuple[int, ...]:
    """Height and width for `size`: None keeps `native`, an int is the short side, a pair is (H, W)."""
    if size is None:
        return native
    if isinstance(size, Covering):
        scale = max(size.height / native[0], size.width / native[1])
        return max(size.height, round(native[0] * scale)), max(size.width, round(native[1] * scale))
    if not isinstance(size, int):
        return size
    short = min(native)
    return tuple(max(1, round(side * size / short)) for side in native)
