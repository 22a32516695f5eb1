"""Damage that decoding passes over in silence.

A reader that meets bytes which are not its container's goes on at the next packet that it can make out. What lay
between is gone, and the frames on both sides are sound. FFmpeg only says so in its log, and listening to that is not
safe beside decoders that work on threads; here packets tell of it, and where in the file they lie.
"""

from collections.abc import Iterator
from pathlib import Path

from av.container import InputContainer
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from bench.data.container import break_in_chain
from bench.data.shards import source_of


class Reading:
    """The packets of a stream in their order, and which of the frames that come of them are not to be trusted."""

    def __init__(self, path: Path, container: InputContainer, stream: VideoStream) -> None:
        self._container, self._stream = container, stream
        self._break_at = break_in_chain(source_of(path))
        self._wrong = list[tuple[int, str]]()  # from which pts on, and what

    def packets(self) -> Iterator["Packet[VideoStream]"]:
        """Every packet, for a decoder."""
        for packet in self._container.demux(self._stream):
            if packet.pts is not None and (problem := self._problem_of(packet)):
                self._wrong.append((packet.pts, problem))
            yield packet

    def wrong_with(self, frame: VideoFrame) -> str:
        """What is wrong with a decoded frame, or just before it; empty where nothing is known to be."""
        if frame.is_corrupt:
            return "the decoder had to patch it"
        here = frame.pts
        due = [wrong for wrong in self._wrong if here is not None and wrong[0] <= here]
        self._wrong = [wrong for wrong in self._wrong if wrong not in due]
        return due[0][1] if due else ""

    def wrong_at_the_end(self) -> str:
        """What is wrong behind the last packet, once all are read; empty where nothing is known to be."""
        return "" if self._break_at is None else f"the file is broken at byte {self._break_at:,}"

    def _problem_of(self, packet: "Packet[VideoStream]") -> str:
        if packet.is_corrupt:
            return "its packet came damaged"
        if self._break_at is None or packet.pos is None or packet.pos < self._break_at:
            return ""
        broken_at, self._break_at = self._break_at, None
        return f"the file is broken before it, at byte {broken_at:,}"
