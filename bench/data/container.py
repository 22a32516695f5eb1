"""How long a video file says it is: the outermost boxes of mp4, avi and mkv, read without a decoder."""

import struct
from collections.abc import Callable
from typing import BinaryIO

from bench.data.shards import Source


def missing_bytes(source: Source) -> int:
    """How many bytes the outermost box claims beyond the end of the video; 0 where it is whole or not known."""
    with source.file.open("rb") as file:
        window = _Window(file, source)
        end = _reader_for(window.read_at(0, 12))
        return max(0, end(window) - source.size) if end else 0


class _Window:
    """The bytes of one source, counted from its own beginning."""

    def __init__(self, file: BinaryIO, source: Source) -> None:
        self._file, self._start, self.size = file, source.offset, source.size

    def read_at(self, offset: int, count: int) -> bytes:
        """Up to `count` bytes from `offset` on."""
        self._file.seek(self._start + offset)
        return self._file.read(max(0, min(count, self.size - offset)))


def _reader_for(head: bytes) -> Callable[[_Window], int] | None:
    if head[:4] in (b"RIFF", b"RIFX"):
        return _riff_end
    if head[:4] == b"\x1a\x45\xdf\xa3":
        return _matroska_end
    if head[4:8] in (b"ftyp", b"moov", b"mdat", b"free", b"wide", b"skip"):
        return _mp4_end
    return None


def _riff_end(file: _Window) -> int:
    name, length = struct.unpack("<4sI", file.read_at(0, 8))
    return 0 if length in (0, 0xFFFFFFFF) or name == b"RIFX" else 8 + int(length)


def _mp4_end(file: _Window) -> int:
    at = 0
    while at + 8 <= file.size:
        length = int.from_bytes(file.read_at(at, 4), "big")
        if length == 1:
            length = int.from_bytes(file.read_at(at + 8, 8), "big")
        if length == 0:
            return file.size
        if length < 8:
            return at
        at += length
    return at


def _matroska_end(file: _Window) -> int:
    header = _ebml_size(file, 4)
    if header is None:
        return 0
    segment_at = header[0] + header[1]
    segment = _ebml_size(file, segment_at + 4)
    if segment is None or file.read_at(segment_at, 4) != b"\x18\x53\x80\x67":
        return 0
    return segment[0] + segment[1]


def _ebml_size(file: _Window, at: int) -> tuple[int, int] | None:
    """Where the content after the variable-length number at `at` begins, and its size; None if that is not known."""
    first = file.read_at(at, 1)
    if not first or first[0] == 0:
        return None
    length = 9 - first[0].bit_length()
    value = int.from_bytes(file.read_at(at, length), "big") & ((1 << 7 * length) - 1)
    return None if value == (1 << 7 * length) - 1 else (at + length, value)
