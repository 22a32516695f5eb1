"""Damage that decoding passes over in silence: what FFmpeg marks, or only says, while it reads a file.

A reader that meets bytes which are not its container's goes on at the next packet that it can make out. What lay
between is gone, the frames on both sides are sound, and a message to the log is all there is to know it by.
"""

import logging
import threading
from collections.abc import Generator, Iterator
from contextlib import contextmanager

import av.logging
from av.container import InputContainer
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

Logs = list[tuple[int, str, str]]  # level, who, what

_LOCK = threading.Lock()
_NOWHERE = logging.NullHandler()
_listeners = 0


class Reading:
    """The packets of a stream in their order, and which of the frames that come of them are not to be trusted."""

    def __init__(self, container: InputContainer, stream: VideoStream, logs: Logs) -> None:
        self._container, self._stream, self._logs = container, stream, logs
        self._wrong_at = dict[int, str]()

    def packets(self) -> Iterator["Packet[VideoStream]"]:
        """Every packet, for a decoder."""
        heard = 0
        for packet in self._container.demux(self._stream):
            complaint, heard = self._complaint(since=heard), len(self._logs)
            if packet.is_corrupt:
                complaint = complaint or "its packet came damaged"
            if complaint and packet.pts is not None:
                self._wrong_at[packet.pts] = complaint
            yield packet

    def wrong_with(self, frame: VideoFrame) -> str:
        """What is wrong with a decoded frame, or just before it; empty where nothing is known to be."""
        if frame.is_corrupt:
            return "the decoder had to patch it"
        return self._wrong_at.get(frame.pts, "") if frame.pts is not None else ""

    def _complaint(self, *, since: int) -> str:
        """What the container's reader has said; decoders speak up about much that does no harm, and are not heard."""
        reader = self._container.format.name
        said = (what for level, who, what in self._logs[since:] if level <= av.logging.ERROR and who == reader)
        return " ".join(next(said, "").split())


@contextmanager
def listening(container: InputContainer, stream: VideoStream) -> Generator[Reading]:
    """A reading of `stream` whose frames are looked at within the block, by this thread."""
    with _spoken(), av.logging.Capture() as logs:
        yield Reading(container, stream, logs)


@contextmanager
def _spoken() -> Generator[None]:
    """FFmpeg speaks while anybody listens, and what nobody listens to goes nowhere, not to stderr."""
    global _listeners
    with _LOCK:
        _listeners += 1
        if _listeners == 1:
            logging.getLogger("libav").addHandler(_NOWHERE)
            av.logging.set_skip_repeated(False)  # else the last thing said of one file is said again in the next
            av.logging.set_level(av.logging.ERROR)
    try:
        yield
    finally:
        with _LOCK:
            _listeners -= 1
            if _listeners == 0:
                av.logging.set_level(None)
                av.logging.set_skip_repeated(True)
