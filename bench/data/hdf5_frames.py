"""Read the HDF5 files of 3D-ResNets: one per video, whose data set `video` holds a JPEG per frame. Extra `hdf5`."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.core.errors import MissingFrameError, MissingPackageError, VideoError
from bench.data.frame_folder import decode_image
from bench.data.geometry import Size


def count_frames(path: Path) -> int:
    """Return the number of frames in the file."""
    with _opened(path) as images:
        return len(images)


def read_hdf5(path: Path, indices: Sequence[int], *, size: Size | None) -> NDArray[np.uint8]:
    """Return frames `indices` as uint8 RGB (T, H, W, 3); VideoError naming file and frame if one does not exist."""
    found: dict[int, NDArray[np.uint8]] = {}
    with _opened(path) as images:
        for index in sorted(set(indices)):
            if index >= len(images):
                message = f"{path}: frame {index} does not exist; the file has {len(images)} frames"
                raise MissingFrameError(message, frames=len(images))
            found[index] = _decoded(path, images, index, size)
    if len({frame.shape for frame in found.values()}) > 1:
        raise VideoError(f"{path}: its frames differ in size; read them at one size, such as size=(240, 320)")
    return np.stack([found[index] for index in indices])


def _decoded(path: Path, images: Any, index: int, size: Size | None) -> NDArray[np.uint8]:
    try:
        return decode_image(np.asarray(images[index], np.uint8).tobytes(), size=size)
    except MemoryError:
        raise
    except Exception as error:  # Pillow's readers raise anything for a damaged image, and h5py for a damaged file
        raise VideoError(f"{path}: frame {index} cannot be decoded: {error or type(error).__name__}") from error


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """Open the data set `video`, which must lie in this very file: HDF5 can point to data in others."""
    try:
        import h5py
    except ImportError as error:
        raise MissingPackageError("h5py", needed_for="frames in HDF5 files", install="pip install h5py") from error
    try:
        with h5py.File(path, "r") as file:
            images: Any = file["video"] if isinstance(file.get("video", getlink=True), h5py.HardLink) else None
            is_plain = isinstance(images, h5py.Dataset) and not (images.is_virtual or images.external)
            if not is_plain or images.ndim != 1 or h5py.check_vlen_dtype(images.dtype) != np.uint8:
                raise VideoError(f"{path}: has no data set `video` of one JPEG per frame, as 3D-ResNets writes it")
            if not len(images):
                raise VideoError(f"{path}: holds no frames")
            yield images
    except (OSError, RuntimeError, KeyError) as error:
        raise VideoError(f"{path}: cannot be read as HDF5: {' '.join(str(error).split())}") from error
