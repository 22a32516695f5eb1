"""Read the box structure of mp4, avi and mkv without a decoder: is the file cut, and is the chain of boxes broken?"""

import struct
import sys
from collections.abc import Callable
from typing import BinaryIO

from bench.data.shards import Source


def missing_bytes(source: Source) -> int:
    """Return how many bytes the outermost box claims beyond the end of the file; 0 if it is whole or unknown."""
    with source.file.open("rb") as file:
        window = _Window(file, source)
        end = _reader_for(window.read_at(0, 12))
        return max(0, end(window) - source.size) if end else 0


def break_in_chain(source: Source) -> int | None:
    """Return the byte at which the chain of elements of a Matroska or WebM file breaks.

    FFmpeg continues at the next cluster that it recognises, without an error. None if the chain holds to the end of the
    file, and for other containers.
    """
    with source.file.open("rb") as file:
        window = _Window(file, source)
        return _matroska_break(window) if window.read_at(0, 4) == _EBML else None


class _Window:
    """The bytes of one source; offsets count from its own beginning, also inside a shard."""

    def __init__(self, file: BinaryIO, source: Source) -> None:
        self._file, self._start, self.size = file, source.offset, source.size

    def read_at(self, offset: int, count: int) -> bytes:
        """Return up to `count` bytes from `offset` on."""
        if offset >= self.size:
            return b""
        self._file.seek(self._start + offset)
        return self._file.read(min(count, self.size - offset))


_EBML, _SEGMENT, _CLUSTER = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67", b"\x1f\x43\xb6\x75"
_DESCENDED = frozenset({_SEGMENT, _CLUSTER})
_WHOLE = frozenset(bytes.fromhex(name) for name in (
    "1a45dfa3", "114d9b74", "1549a966", "1654ae6b", "1043a770", "1c53bb6b", "1941a469", "1254c367",  # around clusters
    "e7", "a3", "a0", "a7", "ab", "af", "5854",  # in a cluster
    "ec", "bf",  # anywhere
))  # fmt: skip


def _reader_for(head: bytes) -> Callable[[_Window], int] | None:
    if head[:4] in (b"RIFF", b"RIFX"):
        return _riff_end
    if head[:4] == _EBML:
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
    if segment is None or file.read_at(segment_at, 4) != _SEGMENT:
        return 0
    return segment[0] + segment[1]


def _ebml_size(file: _Window, at: int) -> tuple[int, int] | None:
    """Return start and size of the content after the variable-length number at `at`; None if the size is unknown."""
    first = file.read_at(at, 1)
    if not first or first[0] == 0:
        return None
    length = 9 - first[0].bit_length()
    value = int.from_bytes(file.read_at(at, length), "big") & ((1 << 7 * length) - 1)
    return None if value == (1 << 7 * length) - 1 else (at + length, value)


def _matroska_break(file: _Window) -> int | None:
    at, ends = 0, dict[bytes, int]()  # ends of the segment and the cluster around `at`, if known
    while at < file.size:
        name, end = _ebml_name(file, at), min(ends.values(), default=sys.maxsize)
        after = _after_element(file, at, ends)
        # An element of an unknown kind is skipped, as readers must, if a known one follows: formats grow.
        is_strange = name not in _DESCENDED | _WHOLE and after != file.size and not _is_known(file, after)
        if after is None or after > end or is_strange:
            return None if at >= ends.get(_SEGMENT, sys.maxsize) else at
        at = after
        if at >= ends.get(_CLUSTER, sys.maxsize):
            del ends[_CLUSTER]
    return None


def _after_element(file: _Window, at: int, ends: dict[bytes, int]) -> int | None:
    """Return where the element after the one at `at` begins (inside a segment or cluster, its first child), or None.

    Adds the end of a segment or cluster that begins here to `ends`.
    """
    name = _ebml_name(file, at)
    if not name:
        return None
    content = _ebml_size(file, at + len(name))
    if name not in _DESCENDED:
        return None if content is None else content[0] + content[1]
    if content is not None:
        ends[name] = content[0] + content[1]
    length = file.read_at(at + len(name), 1)
    return at + len(name) + 9 - length[0].bit_length() if length and length[0] else None


def _is_known(file: _Window, at: int | None) -> bool:
    return at is not None and _ebml_name(file, at) in _DESCENDED | _WHOLE


def _ebml_name(file: _Window, at: int) -> bytes:
    """Return the id of the element at `at`, one to four bytes; empty if none begins there."""
    first = file.read_at(at, 1)
    return file.read_at(at, 9 - first[0].bit_length()) if first and first[0] >= 0x10 else b""
