"""Read frame folders: one numbered image per frame, as 3D-ResNets (`image_00001.jpg`) and MMAction2 (`img_00001.jpg`).

JPEG is decoded by simplejpeg; Pillow decodes other formats, and JPEG if simplejpeg is not installed.
"""

import math
import os
import re
import zipfile
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache, partial
from operator import itemgetter
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from bench.core.errors import MissingFrameError, VideoError
from bench.data.geometry import MAX_PIXELS, Size, resize, upright_size

_FRAME_FILE = re.compile(r"^(?P<prefix>.*?)(?P<number>\d+)\.(?:jpe?g|png|webp|bmp)$", re.IGNORECASE)
RGB_PREFIXES = ("image_", "img_", "frame_", "frame", "image", "img", "")
_LONGEST_GAP = 10_000  # one file with a large number must not make a list of a billion missing frames
_MOST_FLOW_BYTES = 4 << 30  # ten minutes of 340 x 256; longer videos are kept as pictures
_WORTH_A_THREAD = 4
_SPARE = 4  # a JPEG is decoded at a fraction of its size only if that is at least this many times the target


@dataclass(frozen=True, kw_only=True)
class FrameFolder:
    """The frame files of one folder by frame number from 0; None for a number that is left out."""

    path: Path
    files: tuple[str | None, ...]

    @property
    def frames(self) -> int:
        return len(self.files)


def list_frames(path: Path, *, prefix: str | None = None) -> FrameFolder:
    """Return the frames of a folder in the order of their numbers, which begin at 0 or 1; VideoError if it has none.

    `prefix` is the text before the number; by default the first of `RGB_PREFIXES` that occurs.
    """
    try:
        return _listed(path, path.stat().st_mtime_ns, prefix)
    except OSError as error:
        raise VideoError(f"{path}: cannot be read: {error.strerror}") from error


@lru_cache(maxsize=4096)
def _listed(path: Path, _modified_ns: int, prefix: str | None) -> FrameFolder:
    names, numbered = os.listdir(path), dict[str, dict[int, str]]()
    for name in sorted(names):
        match = _FRAME_FILE.match(name)
        if match:
            numbered.setdefault(match["prefix"], {}).setdefault(int(match["number"]), name)
    files = numbered[_choose_prefix(path, numbered, prefix)]
    first, last = min(1, *files), max(files)
    if last - first > _LONGEST_GAP + 2 * len(files):
        raise VideoError(f"{path}: frame {last} is among only {len(files)} files; most numbers are left out")
    return FrameFolder(path=path, files=tuple(files.get(number) for number in range(first, last + 1)))


def read_folder(path: Path, indices: Sequence[int], *, size: Size | None) -> NDArray[np.uint8]:
    """Return frames `indices` as uint8 RGB (T, H, W, 3); VideoError naming folder and frame if one does not exist.

    Images are decoded on as many threads as torch may use, which is one in the workers of a loader.
    """
    folder, wanted = list_frames(path), sorted(set(indices))
    height, width = _image_size(folder, wanted[0], size)
    frames_THWC = np.empty((len(wanted), height, width, 3), np.uint8)
    _for_each(partial(_read_into, frames_THWC, folder, wanted, size), range(len(wanted)))
    if wanted == list(indices):
        return frames_THWC
    place = {index: at for at, index in enumerate(wanted)}
    return frames_THWC[[place[index] for index in indices]]


def _image_size(folder: FrameFolder, index: int, size: Size | None) -> tuple[int, int]:
    """Return height and width of a scaled frame: from the header of a JPEG, else by decoding it."""
    name = folder.files[index] if index < folder.frames else None
    native = None
    if name is not None:
        with suppress(OSError):
            native = _jpeg_size((folder.path / name).read_bytes())
    if native is None or native[0] * native[1] > MAX_PIXELS:
        height, width = read_image(folder, index, size).shape[:2]
    else:
        height, width = upright_size(native, size)
    return height, width


def _read_into(
    frames_THWC: NDArray[np.uint8], folder: FrameFolder, wanted: Sequence[int], size: Size | None, place: int
) -> None:
    row_HWC = frames_THWC[place]
    image, expected = read_image(folder, wanted[place], size, into=row_HWC), row_HWC.shape
    if image.shape != expected:
        raise VideoError(
            f"{folder.path}: frame {wanted[place]} is {image.shape[0]}x{image.shape[1]} but frame {wanted[0]} is "
            f"{expected[0]}x{expected[1]} (H x W); read both at one size, such as size=(240, 320)"
        )
    if image is not row_HWC:
        row_HWC[:] = image


def _for_each(do: Callable[[int], None], places: Sequence[int]) -> None:
    """Call `do` for every place on as many threads as torch may use; raises the first error in their order.

    Each thread, this one included, has a fixed share: handing out one place at a time is a fifth slower.
    """
    import torch

    threads = max(1, min(torch.get_num_threads(), len(places) // _WORTH_A_THREAD))
    if threads == 1:
        for place in places:
            do(place)
        return
    with ThreadPoolExecutor(threads - 1) as pool:
        others = [pool.submit(_first_failure, do, places[first::threads]) for first in range(1, threads)]
        failures = [_first_failure(do, places[::threads]), *(other.result() for other in others)]
    failed = min((failure for failure in failures if failure is not None), key=itemgetter(0), default=None)
    if failed is not None:
        raise failed[1]


def _first_failure(do: Callable[[int], None], places: Sequence[int]) -> tuple[int, VideoError] | None:
    for place in places:
        try:
            do(place)
        except VideoError as error:
            return place, error
    return None


def read_flow(path: Path, indices: Sequence[int], *, size: Size | None) -> NDArray[np.uint8]:
    """Return optical flow, uint8 (T, H, W, 2), from `flow_x_00001.jpg` and `flow_y_00001.jpg` or an npz array `flow`.

    Entry i is the flow from frame i to frame i + 1. A video of N frames has N - 1 entries, and the last one is repeated
    for indices beyond. Raises VideoError if flow is missing or damaged.
    """
    if path.suffix == ".npz":
        return _read_flow_array(path, indices, size=size)
    planes = []
    for prefix in ("flow_x_", "flow_y_"):
        folder = list_frames(path, prefix=prefix)
        within = [min(index, folder.frames - 1) for index in indices]
        read = {index: read_image(folder, index, size)[..., 0] for index in set(within)}
        planes.append(np.stack([read[index] for index in within]))
    return np.stack(planes, axis=-1)


def _read_flow_array(path: Path, indices: Sequence[int], *, size: Size | None) -> NDArray[np.uint8]:
    try:
        with zipfile.ZipFile(path) as arrays, arrays.open("flow.npy") as member:
            _check_flow_header(path, member, arrays.getinfo("flow.npy").file_size)
            member.seek(0)
            flow_THW2 = np.lib.format.read_array(member, allow_pickle=False)
    except (OSError, ValueError, KeyError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        raise VideoError(f"{path}: is not a file of optical flow: {error}") from error
    target = upright_size(flow_THW2.shape[1:3], size)
    return np.stack([resize(flow_THW2[min(index, len(flow_THW2) - 1)], target, size) for index in indices])


def _check_flow_header(path: Path, member: IO[bytes], bytes_: int) -> None:
    """Raise VideoError unless the array is flow of a size that can be; a small file may unpack to any size."""
    version = np.lib.format.read_magic(member)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, kind = read(member)
    if len(shape) != 4 or shape[-1] != 2 or kind != np.uint8 or not all(shape):
        raise VideoError(f"{path}: flow must be bytes (T, H, W, 2), found {kind} {shape}")
    if math.prod(shape) > _MOST_FLOW_BYTES or shape[1] * shape[2] > MAX_PIXELS:
        raise VideoError(
            f"{path}: flow of {shape} takes {math.prod(shape):,} bytes; at most {_MOST_FLOW_BYTES:,} are read"
        )
    if math.prod(shape) != bytes_ - member.tell():
        raise VideoError(f"{path}: holds {bytes_ - member.tell():,} bytes, but its header says {shape}")


def read_image(
    folder: FrameFolder, index: int, size: Size | None, *, into: NDArray[np.uint8] | None = None
) -> NDArray[np.uint8]:
    """Return one frame of a folder (H, W, 3), possibly `into` an array; VideoError if it is missing or damaged."""
    if not 0 <= index < folder.frames:
        last = folder.frames - 1
        message = f"{folder.path}: frame {index} does not exist; the folder has {last + 1} frames, 0 to {last}"
        raise MissingFrameError(message, frames=last + 1)
    name = folder.files[index]
    if name is None:
        raise VideoError(f"{folder.path}: frame {index} is missing: its number is left out among the files")
    try:
        return decode_image((folder.path / name).read_bytes(), size=size, into=into)
    except MemoryError:
        raise
    except Exception as error:  # Pillow's readers raise whatever a damaged file leads them to, SyntaxError too
        reason = str(error) or type(error).__name__
        raise VideoError(f"{folder.path}: frame {index} ({name}) cannot be decoded: {reason}") from error


def decode_image(data: bytes, *, size: Size | None, into: NDArray[np.uint8] | None = None) -> NDArray[np.uint8]:
    """Return one encoded image as uint8 RGB (H, W, 3); damage raises ValueError, OSError or whatever Pillow raises.

    A JPEG that needs no scaling is decoded straight into `into` (contiguous) and that is returned: new memory for each
    image costs a fifth more time.
    """
    native = _jpeg_size(data)
    if native is None:
        image = _decode_with_pillow(data)
        return resize(image, upright_size(image.shape[:2], size), size)
    _refuse_giant(native)
    target = upright_size(native, size)
    if into is not None and native == target and into.shape == (*target, 3):
        _decode_jpeg(data, target, buffer=into)
        return into
    return resize(_decode_jpeg(data, target), target, size)


def _choose_prefix(path: Path, numbered: dict[str, dict[int, str]], prefix: str | None) -> str:
    if prefix is not None and prefix in numbered:
        return prefix
    if not numbered or prefix is not None:
        what = f"{prefix}00001.jpg" if prefix else "image_00001.jpg"
        raise VideoError(f"{path}: holds no numbered frames such as {what}")
    chosen = next((known for known in RGB_PREFIXES if known in numbered), None)
    if chosen is None and len(numbered) > 1:
        found = ", ".join(sorted(numbered)[:5])
        raise VideoError(f"{path}: holds several kinds of frames ({found}); expected image_00001.jpg or img_00001.jpg")
    return next(iter(numbered)) if chosen is None else chosen


def _refuse_giant(native: tuple[int, int]) -> None:
    height, width = native
    if height * width > MAX_PIXELS:
        raise ValueError(f"it claims {height}x{width} pixels (H x W), more than {MAX_PIXELS:,}")


def _jpeg_size(data: bytes) -> tuple[int, int] | None:
    """Return height and width if simplejpeg can decode the image, else None."""
    try:
        import simplejpeg
    except ImportError:
        return None
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
    except ValueError:
        return None
    return None if colours in ("CMYK", "YCCK") else (height, width)


def _decode_jpeg(data: bytes, target: tuple[int, ...], *, buffer: NDArray[np.uint8] | None = None) -> NDArray[np.uint8]:
    import simplejpeg

    # JPEG can be decoded at a fraction of its size, which is faster. Close to the target the result would differ by two
    # to four grey levels from one that is decoded whole and then scaled.
    height, width = (_SPARE * side for side in target)
    image: NDArray[np.uint8] = simplejpeg.decode_jpeg(
        data, "RGB", min_height=height, min_width=width, min_factor=2, buffer=buffer
    )
    return image


def _decode_with_pillow(data: bytes) -> NDArray[np.uint8]:
    import io

    from PIL import Image

    with Image.open(io.BytesIO(data)) as image:
        _refuse_giant((image.height, image.width))
        return np.array(image.convert("RGB"))
