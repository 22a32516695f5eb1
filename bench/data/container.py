"""How long a video file says it is: the outermost boxes of mp4, avi and mkv, read without a decoder."""

import struct
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

_UNKNOWN_EBML_SIZES = {(1 << 7 * n) - 1 for n in range(1, 9)}


def missing_bytes(path: Path) -> int:
    """How many bytes the outermost box claims beyond the end of the file; 0 where it is whole or not known."""
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(12)
        end = _reader_for(head)
        return max(0, end(file, size) - size) if end else 0


def _reader_for(head: bytes) -> Callable[[BinaryIO, int], int] | None:
    if head[:4] in (b"RIFF", b"RIFX"):
        return _riff_end
    if head[:4] == b"\x1a\x45\xdf\xa3":
        return _matroska_end
    if head[4:8] in (b"ftyp", b"moov", b"mdat", b"free", b"wide", b"skip"):
        return _mp4_end
    return None


def _riff_end(file: BinaryIO, size: int) -> int:
    file.seek(0)
    name, length = struct.unpack("<4sI", file.read(8))
    return 0 if length in (0, 0xFFFFFFFF) or name == b"RIFX" else 8 + int(length)


def _mp4_end(file: BinaryIO, size: int) -> int:
    at = 0
    while at + 8 <= size:
        file.seek(at)
        length, _name = struct.unpack(">I4s", file.read(8))
        if length == 1:
            large = file.read(8)
            length = struct.unpack(">Q", large)[0] if len(large) == 8 else 16
        if length == 0:
            return size
        if length < 8:
            return at
        at += length
    return at


def _matroska_end(file: BinaryIO, size: int) -> int:
    file.seek(4)
    header = _ebml_size(file)
    if header is None:
        return 0
    file.seek(header, 1)
    if file.read(4) != b"\x18\x53\x80\x67":
        return 0
    segment = _ebml_size(file)
    return 0 if segment is None else file.tell() + segment


def _ebml_size(file: BinaryIO) -> int | None:
    """The variable-length number at the file's position; None if it is absent or means "unknown"."""
    first = file.read(1)
    if not first or first[0] == 0:
        return None
    length = 9 - first[0].bit_length()
    rest = file.read(length - 1)
    value = int.from_bytes(bytes([first[0] & (0xFF >> length)]) + rest, "big")
    return None if value in _UNKNOWN_EBML_SIZES and value == (1 << 7 * length) - 1 else value
