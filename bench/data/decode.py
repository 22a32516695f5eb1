"""Read frames from video files and frame folders: exactly those of decoding from the start, or an error.

Backends: `pyav` (the default for files), `torchcodec` if it is installed, `nvdec` (torchcodec on the video decoder of
an NVIDIA GPU), `frames` for folders of numbered images.
"""

import operator
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench.core.errors import InputError, UnknownNameError, VideoError
from bench.data.facts import VideoFacts
from bench.data.frame_folder import read_folder
from bench.data.geometry import Covering, Scaling, Size
from bench.data.hdf5_frames import read_hdf5
from bench.data.media import HDF5_SUFFIXES
from bench.data.pyav_reader import read_file, read_file_in_sizes
from bench.data.torchcodec_reader import read_file_with_torchcodec, require_torchcodec

BACKENDS = ("auto", "pyav", "torchcodec", "nvdec", "frames")


def read_frames(
    path: str | Path,
    indices: Iterable[int],
    *,
    size: Size | None = None,
    backend: str = "auto",
    facts: VideoFacts | None = None,
) -> NDArray[np.uint8]:
    """Return frames `indices` (from 0, any order, repeats allowed) as uint8 RGB (T, H, W, C), upright.

    Each frame equals that of decoding the file from its start with the same backend. `size` is the short side in
    pixels or (H, W). `facts` of this very file (from `probe` or an index) allow seeking on the first read. Raises
    VideoError with the file and the first frame that does not exist or cannot be decoded.
    """
    if backend not in BACKENDS:
        raise UnknownNameError("decoding backend", backend, BACKENDS)
    path, numbers, size = Path(path), _checked_indices(path, indices), _checked_size(size)
    read = numbers or [0]  # without indices, frame 0 still shows whether the file is readable and how large frames are
    if os.path.isdir(path) or backend == "frames":
        if backend not in ("auto", "frames"):
            raise VideoError(f"{path}: is a folder of frames; read it with backend 'frames' or 'auto', not {backend!r}")
        frames_THWC = read_folder(path, read, size=size)
    elif path.suffix.lower() in HDF5_SUFFIXES:
        frames_THWC = read_hdf5(path, read, size=size)
    elif backend in ("torchcodec", "nvdec"):
        device = "cuda" if backend == "nvdec" else "cpu"
        frames_THWC = read_file_with_torchcodec(path, read, size=size, facts=facts, device=device)
    else:
        frames_THWC = read_file(path, read, size=size, facts=facts)
    return frames_THWC[: len(numbers)]


def read_frames_in_sizes(
    path: Path,
    indices: Mapping[Size | None, Sequence[int]],
    *,
    backend: str = "auto",
    facts: VideoFacts | None = None,
) -> dict[Size | None, NDArray[np.uint8]]:
    """Return the frames wanted in each size, equal to those of `read_frames`.

    A file that PyAV reads is decoded once for all sizes. Frame folders and HDF5 files are read once a size, because a
    JPEG may be decoded at a fraction of its size.
    """
    is_file = backend in ("auto", "pyav") and path.suffix.lower() not in HDF5_SUFFIXES and not path.is_dir()
    if is_file and all(indices.values()):
        return read_file_in_sizes(path, indices, facts=facts)
    return {
        size: read_frames(path, numbers, size=size, backend=backend, facts=facts) for size, numbers in indices.items()
    }


def require_backend(backend: str) -> None:
    """Raise InputError for a decoding backend that is unknown, and for one that does not work on this machine."""
    if backend not in BACKENDS:
        raise UnknownNameError("decoding backend", backend, BACKENDS)
    if backend in ("torchcodec", "nvdec"):
        require_torchcodec(device="cuda" if backend == "nvdec" else "cpu")


def _checked_indices(path: str | Path, indices: Iterable[int]) -> list[int]:
    try:
        numbers = [operator.index(i) for i in indices]
    except TypeError as error:
        raise InputError(f"{path}: frame numbers must be whole numbers from 0 on: {error}") from error
    negative = next((i for i in numbers if i < 0), None)
    if negative is not None:
        raise VideoError(f"{path}: frame {negative} does not exist; frames count from 0")
    return numbers


def _checked_size(size: Size | None) -> Size | None:
    """Return `size` in plain integers; numpy's are accepted."""
    if isinstance(size, Scaling):
        return replace(size, size=_plain_size(size.size))
    return _plain_size(size)


def _plain_size(size: int | tuple[int, int] | Covering | None) -> int | tuple[int, int] | Covering | None:
    if size is None or isinstance(size, Covering):
        return size
    try:
        sides = tuple(operator.index(side) for side in (size if isinstance(size, Iterable) else (size,)))
    except TypeError:
        sides = ()
    if len(sides) == (2 if isinstance(size, Iterable) else 1) and min(sides) >= 1:
        return (sides[0], sides[1]) if len(sides) == 2 else sides[0]
    raise InputError(f"size {size!r} is not a short side in pixels such as 128, nor (height, width) such as (128, 171)")
