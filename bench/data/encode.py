"""Write H.264 files with PyAV, with options that make them fast to seek or free of dependencies between frames."""

from collections.abc import Iterable, Mapping
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from bench.core.errors import MissingPackageError

# Every frame is an intra frame at a constant quantiser, so no frame has traces of earlier ones that a model could use.
# One thread and no adaptive state: the same frames give the same bytes.
HISTORY_FREE = {
    "qp": "18",
    "preset": "ultrafast",
    "x264-params": "keyint=1:bframes=0:scenecut=0:rc-lookahead=0:mbtree=0:threads=1",
}


def write_mp4(
    path: Path,
    frames_THWC: Iterable[NDArray[np.uint8]],
    *,
    fps: Fraction | int,
    options: Mapping[str, str],
    pts: Iterable[int] | None = None,
    time_base: Fraction | None = None,
) -> int:
    """Encode RGB frames (even sides) as H.264 in mp4 with libx264 `options`; returns the number of frames.

    Frames follow each other at `fps`, or are shown at `pts` in units of `time_base` if both are given.
    """
    check_encoder()
    times = iter(pts) if pts is not None and time_base is not None else None
    with av.open(str(path), "w", format="mp4", options={"movflags": "+faststart"}) as container:
        stream, written = None, 0
        for frame_HWC in frames_THWC:
            if stream is None:
                stream = container.add_stream("libx264", rate=fps, options=dict(options))
                stream.height, stream.width = frame_HWC.shape[:2]
                stream.pix_fmt, stream.thread_count = "yuv420p", 1
                if times is not None and time_base is not None:
                    stream.codec_context.time_base = time_base
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame_HWC), format="rgb24")
            if times is not None and time_base is not None:
                frame.pts, frame.time_base = next(times), time_base
            container.mux(stream.encode(frame))
            written += 1
        if stream is not None:
            container.mux(stream.encode(None))
    return written


def check_encoder() -> None:
    """Raise MissingPackageError unless this PyAV can write H.264."""
    if "libx264" not in av.codecs_available:
        raise MissingPackageError(
            "PyAV with libx264", needed_for="writing H.264 files", install="pip install --force-reinstall av"
        )
