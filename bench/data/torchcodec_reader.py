"""Read frames of a video file with torchcodec, which needs FFmpeg's shared libraries.

On `cuda` the video decoder of the GPU (NVDEC) is used if it knows the codec, else torchcodec decodes on the CPU.
Files are decoded in sequence unless their facts say that seeks can be trusted.
"""

import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.core.errors import InputError, MissingFrameError, MissingPackageError, VideoError
from bench.data.facts import VideoFacts
from bench.data.geometry import Size, resize, upright_size
from bench.data.pyav_reader import reason_of
from bench.data.shards import source_of

_DEEP_COLOUR = re.compile(r"^(yuva?4(?!44)\d\dp(9|1\d)|p[02]\d\d|y2\d\d)")
_FAILURES = (RuntimeError, ValueError, IndexError, OSError)


def read_file_with_torchcodec(
    path: Path,
    indices: Sequence[int],
    *,
    size: Size | None,
    facts: VideoFacts | None = None,
    device: str = "cpu",
) -> NDArray[np.uint8]:
    """Return frames `indices` as uint8 RGB (T, H, W, 3), upright, decoded on `device`.

    Raises MissingPackageError if torchcodec does not work, InputError if it needs a GPU and there is none.
    """
    open_decoder = require_torchcodec(device=device)
    try:
        decoder = open_decoder(
            _source(path), dimension_order="NHWC", num_ffmpeg_threads=1, seek_mode="exact", device=device
        )
    except _FAILURES as error:
        raise VideoError(f"{path}: cannot be opened as a video: {reason_of(error)}") from error
    _refuse_deep_colour(path, decoder)
    wanted = sorted(set(indices))
    skips = facts is not None and facts.is_seekable
    found = dict[int, NDArray[np.uint8]]()
    for index in wanted if skips else range(wanted[-1] + 1):
        frame_HWC = _frame(path, decoder, index)
        if index in wanted:
            found[index] = resize(frame_HWC, upright_size(frame_HWC.shape[:2], size), size)
    return np.stack([found[i] for i in indices])


def _refuse_deep_colour(path: Path, decoder: Any) -> None:
    """Raise VideoError for subsampled colour of more than 8 bits.

    FFmpeg versions upsample it with different filters: frames of a test card differed from PyAV's by 2.7 grey levels,
    so that an accuracy would depend on the backend.
    """
    layout = getattr(decoder.metadata, "pixel_format", None) or ""
    if _DEEP_COLOUR.search(layout):
        raise VideoError(f"{path}: has colours of more than 8 bits ({layout}), which only backend 'pyav' reads")


def require_torchcodec(*, device: str = "cpu") -> Any:
    """Return torchcodec's decoder; MissingPackageError if it does not work, InputError without a GPU for `cuda`."""
    if device == "cuda":
        import torch

        if not torch.cuda.is_available():
            raise InputError(
                "decoding backend 'nvdec' needs an NVIDIA GPU that torch can use, and there is none; "
                "allowed here: auto, pyav, torchcodec"
            )
    return _decoder_class()


@cache
def _decoder_class() -> Any:
    """Return torchcodec's decoder. Only constructing one shows whether FFmpeg's libraries are found."""
    needed = {"needed_for": "decoding backend 'torchcodec'", "install": "pip install torchcodec, and FFmpeg 4 to 8"}
    try:
        from torchcodec.decoders import VideoDecoder
    except (ImportError, RuntimeError, OSError) as error:
        raise MissingPackageError("torchcodec", **needed) from error
    try:
        VideoDecoder(b"")
    except (ImportError, OSError) as error:
        raise MissingPackageError("torchcodec with FFmpeg's shared libraries", **needed) from error
    except _FAILURES as error:
        if "libtorchcodec" in str(error):  # newer versions load FFmpeg only here
            raise MissingPackageError("torchcodec with FFmpeg's shared libraries", **needed) from error
    return VideoDecoder


def _source(path: Path) -> str | bytes:
    """Return what torchcodec opens: the file name, or the bytes of a shard's member."""
    source = source_of(path)
    if source.file == path:
        return str(path)
    with source.file.open("rb") as file:
        file.seek(source.offset)
        return file.read(source.size)


def _frame(path: Path, decoder: Any, index: int) -> NDArray[np.uint8]:
    frames = len(decoder)
    if index >= frames:
        message = f"{path}: frame {index} does not exist; the file has {frames} frames, 0 to {frames - 1}"
        raise MissingFrameError(message, frames=frames)
    try:
        frame: NDArray[np.uint8] = decoder.get_frame_at(index).data.cpu().numpy()
    except _FAILURES as error:
        raise VideoError(f"{path}: frame {index} cannot be decoded: {reason_of(error)}") from error
    return frame
