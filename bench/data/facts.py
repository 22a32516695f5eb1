"""The facts about one video file that decoding all of its frames gives."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from fractions import Fraction
from itertools import pairwise
from typing import Any

FACTS_VERSION = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class VideoFacts:
    """The facts of one file or frame folder. `frames` is counted by decoding, because headers may be wrong.

    `verdict` is `ok`, `damaged after frame N` (N is the last sound frame, counted from 0; `damaged from the first frame
    on` if there is none), `unreadable` or `missing`; `problem` describes the damage. `width` and `height` are upright;
    `rotation` is the clockwise turn in degrees that makes a stored frame upright (mirroring is undone too).
    `pts` has one entry per frame in units of `time_base` seconds, None if the container gives none. `keyframes` are the
    frame numbers where decoding can start; `keyframe_checksums` (CRC-32 of the stored luma) prove after a seek that it
    landed there.
    """

    verdict: str
    problem: str = ""
    frames: int = 0
    claimed_frames: int = 0
    pts: Sequence[int | None] = ()
    time_base: Fraction | None = None
    fps: float | None = None
    width: int = 0
    height: int = 0
    rotation: int = 0
    container: str = ""
    codec: str = ""
    pix_fmt: str = ""
    has_b_frames: bool = False
    keyframes: Sequence[int] = ()
    keyframe_checksums: tuple[int, ...] = ()
    is_seekable: bool = False
    bytes: int = 0
    sha256: str = ""

    @property
    def is_ok(self) -> bool:
        return self.verdict == "ok"

    @property
    def duration_s(self) -> float | None:
        """Seconds from the start of the first frame to the end of the last one; None if the rate is unknown."""
        return self.frames / self.fps if self.fps else None

    def times_s(self) -> tuple[float, ...]:
        """Return when each frame is shown, in seconds after the first: by pts if they rise, else by the mean rate."""
        known = [pts for pts in self.pts if pts is not None]
        if self.time_base is not None and len(known) == self.frames and is_rising(known):
            return tuple(float((pts - known[0]) * self.time_base) for pts in known)
        return tuple(i / self.fps for i in range(self.frames)) if self.fps else ()

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values for the index; evenly spaced numbers become start, stop and step."""
        values: dict[str, Any] = {"version": FACTS_VERSION}
        for each in fields(self):
            value = getattr(self, each.name)
            if isinstance(value, range):
                value = {"range": [value.start, value.stop, value.step]}
            values[each.name] = str(value) if isinstance(value, Fraction) else value
        return values

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "VideoFacts":
        """Read what `to_json` wrote; ValueError, KeyError or TypeError for anything else."""
        if values.get("version") != FACTS_VERSION:
            raise ValueError(f"facts of version {values.get('version')!r}; this vbench reads {FACTS_VERSION}")
        given: dict[str, Any] = {field.name: _from_plain(values[field.name]) for field in fields(cls)}
        if given["time_base"] is not None:
            given["time_base"] = Fraction(given["time_base"])
        return cls(**given)


def evenly(values: Sequence[int | None]) -> Sequence[int | None]:
    """Return `values` as a range if they are evenly spaced, which saves memory, else as a tuple."""
    known = [value for value in values if value is not None]
    if len(known) == len(values) > 1 and known[1] > known[0]:
        as_range = range(known[0], known[-1] + 1, known[1] - known[0])
        if len(as_range) == len(known) and all(a == b for a, b in zip(as_range, known, strict=True)):
            return as_range
    return tuple(values)


def is_rising(values: Sequence[int]) -> bool:
    """Return True if each value is larger than the one before."""
    return all(a < b for a, b in pairwise(values))


def _from_plain(value: Any) -> Any:
    if isinstance(value, str):
        return sys.intern(value)
    if isinstance(value, dict):
        return range(*value["range"])
    return tuple(value) if isinstance(value, list) else value
