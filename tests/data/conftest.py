"""What tests of video data share: a watchdog, made-up video files, and a decode from the start by other means."""

import signal
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from types import FrameType

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from bench.core.errors import MissingPackageError
from bench.data.decode import read_frames
from bench.data.pyav_reader import ANY_TEXT

WATCHDOG_S = 120

Write = Callable[..., Path]
Sequential = Callable[[Path], list[NDArray[np.uint8]]]


@pytest.fixture(autouse=True)
def watchdog() -> Iterator[None]:
    """Fails a test that hangs."""

    def bark(_signal: int, _frame: FrameType | None) -> None:
        raise TimeoutError(f"hung for {WATCHDOG_S} s")

    before = signal.signal(signal.SIGALRM, bark)
    signal.alarm(WATCHDOG_S)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def moving_picture(frames: int, *, height: int, width: int, seed: int = 0) -> list[NDArray[np.uint8]]:
    """A blocky texture that slides, so that every frame differs from its neighbours."""
    random = np.random.default_rng(seed)
    blocks = random.integers(0, 255, (height // 8 + 1, width // 8 + 1, 3), dtype=np.uint8)
    picture = blocks.repeat(8, 0).repeat(8, 1)[:height, :width]
    return [np.roll(picture, (i, 2 * i), (0, 1)) for i in range(frames)]


@pytest.fixture(scope="session")
def write_video() -> Write:
    """`write_video(path, codec=…, frames=…, size=(H, W), pix_fmt=…, options=…, pts=…, rotation=…)`."""

    def write(
        path: Path,
        *,
        codec: str = "libx264",
        frames: int = 40,
        size: tuple[int, int] = (48, 64),
        pix_fmt: str = "yuv420p",
        options: dict[str, str] | None = None,
        pts: Sequence[int] | None = None,
        rotation: int | None = None,
        seed: int = 0,
        container: str | None = None,
    ) -> Path:
        with av.open(str(path), "w", format=container) as output:
            stream = output.add_stream(codec, rate=25, options=options or {})
            stream.height, stream.width, stream.pix_fmt = *size, pix_fmt
            if pts is not None:
                stream.codec_context.time_base = Fraction(1, 600)
            if rotation is not None:
                stream.set_display_rotation(rotation)
            for number, picture in enumerate(moving_picture(frames, height=size[0], width=size[1], seed=seed)):
                frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
                if pts is not None:
                    frame.pts, frame.time_base = pts[number], Fraction(1, 600)
                output.mux(stream.encode(frame))
            output.mux(stream.encode(None))
        return path

    return write


@pytest.fixture(scope="session")
def decode_in_sequence() -> Sequential:
    """Every frame as stored, RGB, from the start until the decoder stops; nothing of vbench's own decodes."""

    def decode(path: Path) -> list[NDArray[np.uint8]]:
        frames: list[NDArray[np.uint8]] = []
        try:
            with av.open(str(path), **ANY_TEXT) as container:
                stream = container.streams.video[0]
                stream.thread_type = "NONE"
                for frame in container.decode(stream):
                    frames.append(frame.to_ndarray(format="rgb24"))  # noqa: PERF401  # what came before an error counts
        except (av.FFmpegError, IndexError, ValueError):
            pass
        return frames

    return decode


@pytest.fixture(scope="session")
def torchcodec_works(tmp_path_factory: pytest.TempPathFactory, write_video: Write) -> None:
    """Skips the test where torchcodec or FFmpeg's shared libraries are missing."""
    path = write_video(tmp_path_factory.mktemp("torchcodec") / "x.mp4", frames=2)
    try:
        read_frames(path, [0], backend="torchcodec")
    except MissingPackageError as error:
        pytest.skip(str(error))
